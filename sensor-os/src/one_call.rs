//! One call on a fresh connection: enrolment, and the question to Registration.
//!
//! Not here: sessions. Invariant: an answer is bounded, and so is the time until it comes.

use std::fmt;

use lapwing_protocol::call::{Call, Method};
use lapwing_protocol::code::Code;
use lapwing_protocol::frame::Deframer;
use lapwing_protocol::limits::{FRAME_BYTES_MAX, FRAME_BYTES_UNAUTHENTICATED_MAX};
use lapwing_protocol::message::Message;
use serde::Serialize;
use smol::Timer;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::dial::{DIAL_TIME, Stream};
use crate::escape::escaped;
use crate::tls::TlsError;

/// An answer: two certificates and what is around them.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// There is no connection, or no longer one.
    Connection(TlsError),
    /// The server refused.
    Refused { code: Code, retry_after_ms: u32, detail: String },
    /// The answer is not what it should be.
    BadAnswer(&'static str),
    /// The question does not fit a frame.
    TooLong,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => error.fmt(f),
            Self::Refused { code, detail, .. } if detail.is_empty() => {
                write!(f, "it refused this sensor: {code}")
            }
            Self::Refused { code, detail, .. } => {
                write!(f, "it refused this sensor: {code}: {}", escaped(detail))
            }
            Self::BadAnswer(problem) => write!(f, "its answer cannot be used: {problem}"),
            Self::TooLong => f.write_str("token, name or system are too long"),
        }
    }
}

impl From<TlsError> for CallError {
    fn from(error: TlsError) -> Self {
        Self::Connection(error)
    }
}

impl From<std::io::Error> for CallError {
    fn from(error: std::io::Error) -> Self {
        Self::Connection(TlsError::from_io(&error))
    }
}

/// Asks once and waits for the whole answer.
///
/// # Errors
/// Why there is none.
pub(crate) async fn call(
    stream: &mut Stream,
    method: Method,
    request: &impl Serialize,
) -> Result<Vec<u8>, CallError> {
    let exchange = exchange(stream, method, request);
    let late = async {
        Timer::after(DIAL_TIME).await;
        Err(TlsError::TimedOut.into())
    };
    smol::future::or(exchange, late).await
}

async fn exchange(
    stream: &mut Stream,
    method: Method,
    request: &impl Serialize,
) -> Result<Vec<u8>, CallError> {
    let mut body = vec![0; FRAME_BYTES_UNAUTHENTICATED_MAX];
    let body =
        lapwing_protocol::error::to_slice(request, &mut body).map_err(|_| CallError::TooLong)?;
    let mut frame = vec![0; FRAME_BYTES_UNAUTHENTICATED_MAX];
    let call = Message::Call(Call { call: 1, method, body });
    let length = call.encode(&mut frame).map_err(|_| CallError::TooLong)?;
    stream.write_all(&frame[..length]).await?;
    stream.flush().await?;

    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut deframer = Deframer::new(&mut buffer);
    let mut answer = Vec::new();
    loop {
        while let Some(frame) =
            deframer.next_frame().map_err(|_| CallError::BadAnswer("it is not a frame"))?
        {
            let message =
                Message::decode(&frame).map_err(|_| CallError::BadAnswer("it is not a message"))?;
            if is_whole(message, &mut answer)? {
                return Ok(answer);
            }
        }
        let length = stream.read(deframer.space()).await?;
        if length == 0 {
            return Err(TlsError::Closed.into());
        }
        deframer.filled(length);
    }
}

/// Takes a message into the answer, and says whether that is whole now.
fn is_whole(message: Option<Message<'_>>, answer: &mut Vec<u8>) -> Result<bool, CallError> {
    match message {
        Some(Message::Reply(reply)) if reply.call == 1 => {
            answer.extend_from_slice(reply.body);
            if answer.len() > ANSWER_BYTES_MAX {
                return Err(CallError::BadAnswer("it is too long"));
            }
            if !reply.more && reply.code != Code::OK {
                let detail = String::from_utf8_lossy(answer).into_owned();
                return Err(CallError::Refused { code: reply.code, retry_after_ms: 0, detail });
            }
            Ok(!reply.more)
        }
        Some(Message::Refused(refused)) => Err(CallError::Refused {
            code: refused.code,
            retry_after_ms: refused.retry_after_ms,
            detail: refused.detail.to_owned(),
        }),
        None | Some(Message::Ping(_) | Message::Pong(_)) => Ok(false),
        Some(_) => Err(CallError::BadAnswer("it is another message")),
    }
}
