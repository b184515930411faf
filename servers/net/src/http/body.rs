//! A request's body with a bound in bytes and in time.
//!
//! Not here: the answer to who breaks a bound. Invariant: a body that drips or swells fails; it
//! never waits for ever, and what came of it is charged as long as its request lasts.

use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Bytes;
use http_body_util::{LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use smol::Timer;

use super::bounds::Held;
use crate::limits::{HTTP_BODY_BYTES_MAX, HTTP_BODY_TIME};

/// The body as routes get it.
pub(super) struct BoundedBody {
    body: Limited<Incoming>,
    deadline: Timer,
    held: Arc<Held>,
}

impl BoundedBody {
    /// What comes of `body` is charged to `held`.
    pub(super) fn new(body: Incoming, held: Arc<Held>) -> Self {
        Self {
            body: Limited::new(body, HTTP_BODY_BYTES_MAX),
            deadline: Timer::after(HTTP_BODY_TIME),
            held,
        }
    }
}

/// Why a body could not be read.
#[derive(Debug)]
pub enum BodyError {
    /// It has more bytes than a request may.
    TooLong,
    /// It took too long.
    TooSlow,
    /// Others hold all that requests may hold.
    Busy,
    /// The connection broke.
    Broken(hyper::Error),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the body has more than {HTTP_BODY_BYTES_MAX} bytes"),
            Self::TooSlow => f.write_str("the body took too long"),
            Self::Busy => f.write_str("the server has all the requests it takes"),
            Self::Broken(error) => write!(f, "the body broke off: {error}"),
        }
    }
}

impl std::error::Error for BodyError {}

impl Body for BoundedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                let is_taken = self.held.take(bytes);
                let refused = || Box::new(BodyError::Busy) as Self::Error;
                Poll::Ready(Some(if is_taken { Ok(frame) } else { Err(refused()) }))
            }
            Poll::Ready(rest) => Poll::Ready(rest),
            Poll::Pending => Pin::new(&mut self.deadline)
                .poll(context)
                .map(|_| Some(Err(Box::new(BodyError::TooSlow) as Self::Error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What an error of our own client's bounded reading means.
pub(super) fn client_body_error(error: Box<dyn std::error::Error + Send + Sync>) -> BodyError {
    if error.is::<LengthLimitError>() {
        return BodyError::TooLong;
    }
    match error.downcast::<hyper::Error>() {
        Ok(error) => BodyError::Broken(*error),
        Err(_) => BodyError::TooSlow,
    }
}
