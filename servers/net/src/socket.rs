//! A TCP socket that counts its bytes and can bound what it reads.
//!
//! Not here: TLS. Invariants: small frames go out at once (no Nagle); while a budget is set, not
//! one byte more than it is read; a peer that reads nothing for `WRITE_STALL_TIME` fails the write.

use std::fmt;
use std::future::Future as _;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::event::{PollFd, PollFlags, Timespec};
use smol::io::{AsyncRead, AsyncWrite};
use smol::{Async, Timer};

use crate::limits::WRITE_STALL_TIME;

/// A connected socket.
#[derive(Debug)]
pub struct Socket {
    stream: Async<TcpStream>,
    /// Bytes that may still be read; no bound when `None`.
    budget: Option<u64>,
    /// Runs while the peer takes none of our bytes.
    stalled: Option<Box<Timer>>,
    bytes_in: u64,
    bytes_out: u64,
}

impl Socket {
    /// Wraps an accepted socket.
    ///
    /// # Errors
    /// The socket is dead already.
    pub fn new(stream: Async<TcpStream>) -> io::Result<Self> {
        stream.get_ref().set_nodelay(true)?;
        Ok(Self { stream, budget: None, stalled: None, bytes_in: 0, bytes_out: 0 })
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::new(Async::<TcpStream>::connect(address).await?)
    }

    /// Bounds what may be read from now on; `None` lifts the bound. Reading beyond it fails with
    /// [`BudgetSpent`].
    pub fn set_read_budget(&mut self, bytes: Option<u64>) {
        self.budget = bytes;
    }

    /// Bytes read so far, TLS included.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    /// Bytes written so far, TLS included.
    #[must_use]
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let room = match this.budget {
            Some(0) if !buffer.is_empty() => {
                return Poll::Ready(Err(io::Error::other(BudgetSpent)));
            }
            Some(left) => buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX)),
            None => buffer.len(),
        };
        let read = Pin::new(&mut this.stream).poll_read(context, &mut buffer[..room]);
        if let Poll::Ready(Ok(length)) = &read {
            this.bytes_in += *length as u64;
            this.budget = this.budget.map(|left| left.saturating_sub(*length as u64));
        }
        read
    }
}

impl Socket {
    /// Whether the peer took none of our bytes for too long.
    ///
    /// A write that succeeds is no sign of it: when the system says that there is no room, it still
    /// has a little, and what waited goes there.
    fn is_stalled(&mut self, context: &mut Context<'_>) -> bool {
        let Some(timer) = &mut self.stalled else { return false };
        if Pin::new(timer.as_mut()).poll(context).is_pending() {
            return false;
        }
        // It may have made room since: who waited may not have come back to it.
        self.stalled = None;
        !has_room(&self.stream)
    }

    /// Counts what was written, and how long the peer has taken nothing.
    fn written(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(result) => {
                self.stalled = None;
                self.bytes_out += *result.as_ref().unwrap_or(&0) as u64;
            }
            Poll::Pending => {
                let timer =
                    self.stalled.get_or_insert_with(|| Box::new(Timer::after(WRITE_STALL_TIME)));
                // It wakes the task when it is over; until then there is nothing to do.
                if Pin::new(timer.as_mut()).poll(context).is_ready() {
                    context.waker().wake_by_ref();
                }
            }
        }
        result
    }
}

/// Whether the system takes bytes for the peer: it says so from a good part of its buffer on. A
/// socket that is dead has room, and the write tells why.
fn has_room(stream: &Async<TcpStream>) -> bool {
    let mut asked = [PollFd::new(stream, PollFlags::OUT)];
    // What cannot be asked counts as room.
    !matches!(rustix::event::poll(&mut asked, Some(&Timespec::default())), Ok(0))
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_stalled(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_stalled(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(context, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// A peer sent more than the read budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetSpent;

impl fmt::Display for BudgetSpent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer sent more than it may")
    }
}

impl std::error::Error for BudgetSpent {}
