//! Frames on a stream: reading with the bounds of time and size, writing calls and replies.
//!
//! Not here: which message may come when. Invariants: a begun frame is whole within `FRAME_TIME`;
//! silence is reported each `PING_MS`, and after `IDLE_MS_MAX` the connection is given up.

use std::time::{Duration, Instant};

use lapwing_protocol::call::{Call, Method, Reply};
use lapwing_protocol::code::Code;
use lapwing_protocol::frame::Deframer;
use lapwing_protocol::limits::{FRAME_BODY_BYTES_MAX, FRAME_BYTES_MAX, IDLE_MS_MAX, PING_MS};
use lapwing_protocol::message::Message;
use smol::Timer;
use smol::io::{AsyncRead, AsyncReadExt as _};

use super::error::PeerFault;
use crate::limits::FRAME_TIME;

/// What a Call or Reply needs beside its body: three numbers at their longest, a flag and the
/// body's length.
const ENVELOPE_BYTES_MAX: usize = 16;
/// The longest body of one Call, and of one part of a Reply.
pub(super) const PART_BYTES_MAX: usize = FRAME_BODY_BYTES_MAX - ENVELOPE_BYTES_MAX;

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Silence after which a Ping is due.
    pub(super) ping: Duration,
    /// Pings without any answer after which the connection is given up.
    pub(super) pings_max: u64,
    /// A begun frame's time.
    pub(super) frame: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            ping: Duration::from_millis(PING_MS),
            pings_max: IDLE_MS_MAX / PING_MS,
            frame: FRAME_TIME,
        }
    }
}

/// What came.
pub(super) enum Received<T> {
    Message(T),
    /// Nothing for `PING_MS`: a Ping is due.
    Silence,
}

/// Reads messages from a stream through a lent buffer, whose length bounds a frame.
pub(super) struct FrameReader<'b, R> {
    stream: R,
    deframer: Deframer<'b>,
    frame_began: Option<Instant>,
    silent_periods: u64,
    patience: Patience,
}

impl<'b, R: AsyncRead + Unpin> FrameReader<'b, R> {
    pub(super) fn new(stream: R, buffer: &'b mut [u8], patience: Patience) -> Self {
        Self {
            stream,
            deframer: Deframer::new(buffer),
            frame_began: None,
            silent_periods: 0,
            patience,
        }
    }

    /// Waits for the next message and gives `visit` a look at it where it lies in the buffer.
    pub(super) async fn next<T>(
        &mut self,
        mut visit: impl FnMut(Message<'_>) -> T,
    ) -> Result<Received<T>, PeerFault> {
        loop {
            while let Some(frame) = self.deframer.next_frame().map_err(PeerFault::Malformed)? {
                self.frame_began = None;
                self.silent_periods = 0;
                if let Some(message) = Message::decode(&frame).map_err(PeerFault::Malformed)? {
                    return Ok(Received::Message(visit(message)));
                }
            }
            let deadline = match (self.deframer.is_midway(), self.frame_began) {
                (false, _) => Instant::now() + self.patience.ping,
                (true, Some(began)) => began + self.patience.frame,
                (true, None) => {
                    let began = Instant::now();
                    self.frame_began = Some(began);
                    began + self.patience.frame
                }
            };
            let space = self.deframer.space();
            let read = async { Some(self.stream.read(space).await) };
            let late = async {
                Timer::at(deadline).await;
                None
            };
            match smol::future::or(read, late).await {
                None if self.deframer.is_midway() => return Err(PeerFault::Dripping),
                None => {
                    self.silent_periods += 1;
                    if self.silent_periods >= self.patience.pings_max {
                        return Err(PeerFault::Idle);
                    }
                    return Ok(Received::Silence);
                }
                Some(Ok(0)) if self.deframer.is_midway() => return Err(PeerFault::CutShort),
                Some(Ok(0)) => return Err(PeerFault::Gone),
                Some(Ok(length)) => self.deframer.filled(length),
                Some(Err(error)) => return Err(PeerFault::from_io(&error)),
            }
        }
    }
}

impl<R: AsyncRead + Unpin> FrameReader<'_, R> {
    /// Reads and forgets until the stream ends or breaks.
    pub(super) async fn discard(&mut self) {
        let mut bytes = [0; 512];
        while let Ok(1..) = self.stream.read(&mut bytes).await {}
    }
}

/// A message as a frame of its own; none for one that is longer than a frame, which our own
/// messages are not.
pub(super) fn frame(message: &Message<'_>, body_bytes: usize) -> Option<Vec<u8>> {
    let room = (body_bytes + 64).min(FRAME_BYTES_MAX);
    let mut frame = vec![0; room];
    let length = message.encode(&mut frame).ok()?;
    frame.truncate(length);
    Some(frame)
}

/// A call as a frame.
pub(super) fn call_frame(call: u32, method: Method, body: &[u8]) -> Option<Vec<u8>> {
    if body.len() > PART_BYTES_MAX {
        return None;
    }
    frame(&Message::Call(Call { call, method, body }), body.len())
}

/// The parts of a reply, in order; at least one.
pub(super) fn reply_frames(
    call: u32,
    code: Code,
    body: &[u8],
) -> impl Iterator<Item = Vec<u8>> + '_ {
    let parts = body.len().div_ceil(PART_BYTES_MAX).max(1);
    (0..parts).filter_map(move |part| {
        let from = part * PART_BYTES_MAX;
        let body = &body[from..body.len().min(from + PART_BYTES_MAX)];
        let reply = Reply { call, more: part + 1 < parts, code, body };
        frame(&Message::Reply(reply), body.len())
    })
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use lapwing_protocol::delivery::Ping;
    use lapwing_protocol::message::Message;
    use smol::io::AsyncRead;

    use super::{FrameReader, Patience, Received, frame};
    use crate::peer::PeerFault;

    /// Gives its bytes one at a time, then nothing for ever.
    struct Dripping(Vec<u8>);

    impl AsyncRead for Dripping {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<std::io::Result<usize>> {
            if self.0.is_empty() {
                return Poll::Pending;
            }
            buffer[0] = self.0.remove(0);
            Poll::Ready(Ok(1))
        }
    }

    const IMPATIENT: Patience =
        Patience { ping: Duration::from_millis(1), pings_max: 3, frame: Duration::from_millis(1) };

    fn ping_frame() -> Vec<u8> {
        frame(&Message::Ping(Ping { nonce: 7 }), 0).unwrap()
    }

    #[test]
    fn a_frame_in_single_bytes_arrives_and_silence_ends_in_idle() {
        let mut buffer = [0; 64];
        let mut reader = FrameReader::new(Dripping(ping_frame()), &mut buffer, IMPATIENT);
        smol::block_on(async {
            let first = reader.next(|message| matches!(message, Message::Ping(_))).await;
            assert!(matches!(first, Ok(Received::Message(true))));
            for _ in 0..2 {
                assert!(matches!(reader.next(|_| ()).await, Ok(Received::Silence)));
            }
            assert_eq!(reader.next(|_| ()).await.err(), Some(PeerFault::Idle));
        });
    }

    #[test]
    fn a_frame_that_is_never_finished_is_a_fault() {
        let mut part = ping_frame();
        part.pop();
        let mut buffer = [0; 64];
        let mut reader = FrameReader::new(Dripping(part), &mut buffer, IMPATIENT);
        let ended = smol::block_on(reader.next(|_| ()));
        assert_eq!(ended.err(), Some(PeerFault::Dripping));
    }
}
