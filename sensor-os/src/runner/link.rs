//! An open connection: what is to be written, what was read.
//!
//! Not here: what the bytes mean. Invariants: bytes go out in the order they were given; waiting
//! neither reads without writing nor writes without reading, so that two full sockets cannot hold
//! each other.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use smol::Timer;
use smol::io::{AsyncRead as _, AsyncWrite as _};

use crate::dial::Stream;
use crate::tls::TlsError;

/// Bytes given to the socket and not yet written: about a credit window. Beyond it the core is not
/// asked for more, and what it has stays spooled.
const OUT_BYTES_MAX: usize = 128 << 10;
/// Bytes that may wait beyond that, for answers to a server that asks and does not read.
const OVERRUN_BYTES_MAX: usize = 1 << 20;
/// Bytes read at once: one TLS record.
const IN_BYTES: usize = 16 << 10;
/// How long the last bytes may take at a stop.
const FINISH_TIME: Duration = Duration::from_secs(2);

/// What a connection had to tell.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Bytes came: [`Link::received`].
    Received,
    /// Everything given was written.
    Written,
    /// It is gone.
    Gone(TlsError),
}

/// Bytes on their way to the socket. What is written makes room, also where some always waits.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
}

impl Outgoing {
    fn push(&mut self, frames: &[u8]) {
        // Moving what waits costs no more than what was written since the last time.
        if self.written >= self.bytes.len() - self.written {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        self.bytes.extend_from_slice(frames);
    }

    fn waiting(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    fn advance(&mut self, length: usize) {
        self.written = (self.written + length).min(self.bytes.len());
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Link {
    stream: Box<Stream>,
    out: Outgoing,
    is_flushed: bool,
    input: Box<[u8]>,
    input_bytes: usize,
}

impl Link {
    pub(crate) fn new(stream: Box<Stream>) -> Self {
        Self {
            stream,
            out: Outgoing::default(),
            is_flushed: true,
            input: vec![0; IN_BYTES].into(),
            input_bytes: 0,
        }
    }

    /// Bytes sent and received, TLS included.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        let counted = self.stream.get_ref().0;
        (counted.up, counted.down)
    }

    /// Whether more may be given to [`Self::send`].
    pub(crate) fn has_room(&self) -> bool {
        self.out.waiting().len() < OUT_BYTES_MAX
    }

    /// Whether so much waits that the other side cannot be reading.
    pub(crate) fn is_overrun(&self) -> bool {
        self.out.waiting().len() > OVERRUN_BYTES_MAX
    }

    /// Gives whole frames.
    pub(crate) fn send(&mut self, frames: &[u8]) {
        self.out.push(frames);
    }

    /// The bytes that came; they count as taken.
    pub(crate) fn received(&mut self) -> &[u8] {
        let length = std::mem::take(&mut self.input_bytes);
        &self.input[..length]
    }

    /// Writes and reads until there is something to tell.
    pub(crate) async fn progress(&mut self) -> Progress {
        poll_fn(|context| match self.poll(context) {
            Poll::Ready(Ok(progress)) => Poll::Ready(progress),
            Poll::Ready(Err(error)) => Poll::Ready(Progress::Gone(TlsError::from_io(&error))),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Progress>> {
        let has_written = match self.poll_out(context) {
            Poll::Ready(Err(error)) => return self.last_words(context, error),
            Poll::Ready(Ok(has_written)) => has_written,
            Poll::Pending => false,
        };
        match Pin::new(&mut *self.stream).poll_read(context, &mut self.input) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(length)) => {
                self.input_bytes = length;
                Poll::Ready(Ok(Progress::Received))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if has_written => Poll::Ready(Ok(Progress::Written)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// A server that refuses closes its side first: what it said is still to be read.
    fn last_words(
        &mut self,
        context: &mut Context<'_>,
        error: io::Error,
    ) -> Poll<io::Result<Progress>> {
        match Pin::new(&mut *self.stream).poll_read(context, &mut self.input) {
            Poll::Ready(Ok(length)) if length > 0 => {
                self.input_bytes = length;
                Poll::Ready(Ok(Progress::Received))
            }
            Poll::Ready(Err(said)) => Poll::Ready(Err(said)),
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Ready(Err(error)),
        }
    }

    /// Whether something was to be written, and all of it is.
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.out.waiting().is_empty() && self.is_flushed {
            return Poll::Ready(Ok(false));
        }
        while !self.out.waiting().is_empty() {
            match Pin::new(&mut *self.stream).poll_write(context, self.out.waiting()) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(length)) => {
                    self.out.advance(length);
                    self.is_flushed = false;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        match Pin::new(&mut *self.stream).poll_flush(context) {
            Poll::Ready(Ok(())) => {
                self.is_flushed = true;
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes what is left and says goodbye, as far as the time allows.
    pub(crate) async fn finish(mut self) -> (u64, u64) {
        let rest = async {
            let _ = poll_fn(|context| self.poll_out(context)).await;
            let _ = poll_fn(|context| Pin::new(&mut *self.stream).poll_close(context)).await;
        };
        let late = async {
            Timer::after(FINISH_TIME).await;
        };
        smol::future::or(rest, late).await;
        self.traffic()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_never_keeps_up_costs_no_more_than_what_waits() {
        let mut out = Outgoing::default();
        let mut expected = 0_u8;
        for at in 0..10_000_u32 {
            out.push(&[at as u8; 1_000]);
            // One byte always stays behind.
            let taken = out.waiting().len() - 1;
            let first = out.waiting()[0];
            assert!(first == expected || first == at as u8);
            out.advance(taken);
            assert_eq!(out.waiting(), [at as u8]);
            expected = at as u8;
            assert!(out.bytes.capacity() <= 16_000, "{}", out.bytes.capacity());
        }
    }
}
