//! Waiting for several descriptors at once, and waking a waiting thread.
//!
//! Invariant: a wait that was asked to end returns; a signal is not lost between two waits.

#![allow(unsafe_code, reason = "poll and eventfd")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// What a wait looks for on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// There is something to read.
    Readable,
    /// An exceptional condition, as `/proc/self/mountinfo` gives when a mount changes.
    Priority,
}

/// Waits until one of `watched` is ready or `timeout` has passed (`None`: for ever), and says for
/// each whether it is ready. An interrupted wait is a wait in which nothing was ready.
///
/// # Errors
///
/// The kernel's own, other than interruption.
pub(crate) fn wait(
    watched: &[(BorrowedFd<'_>, Interest)],
    timeout: Option<Duration>,
) -> io::Result<Vec<bool>> {
    let mut polled: Vec<libc::pollfd> = watched
        .iter()
        .map(|(descriptor, interest)| libc::pollfd {
            fd: descriptor.as_raw_fd(),
            events: match interest {
                Interest::Readable => libc::POLLIN,
                Interest::Priority => libc::POLLPRI,
            },
            revents: 0,
        })
        .collect();
    // Rounded up, so that a deadline a little ahead does not spin.
    let millis = timeout.map_or(-1, |timeout| {
        i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
    });
    let count = libc::nfds_t::try_from(polled.len()).unwrap_or(0);
    // SAFETY: `polled` is an array of `count` pollfds that lives over the call; every descriptor is
    // borrowed for at least as long.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), count, millis) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted {
            return Ok(vec![false; watched.len()]);
        }
        return Err(error);
    }
    Ok(polled.iter().map(|entry| entry.revents != 0).collect())
}

/// Wakes a thread that waits: an eventfd.
#[derive(Debug)]
pub(crate) struct Wake {
    descriptor: OwnedFd,
}

impl Wake {
    /// Opens one.
    ///
    /// # Errors
    ///
    /// The process or the system has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointer.
        let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` was just opened and belongs to nobody else.
        Ok(Self { descriptor: unsafe { OwnedFd::from_raw_fd(raw) } })
    }

    /// Makes the present or the next wait return.
    pub(crate) fn signal(&self) {
        let one: u64 = 1;
        // SAFETY: writes eight bytes from a live u64. A full counter fails with EAGAIN, and is then
        // readable already, which is all that is wanted.
        unsafe { libc::write(self.descriptor.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Forgets the signals so far.
    pub(crate) fn clear(&self) {
        let mut count: u64 = 0;
        // SAFETY: reads eight bytes into a live u64; nothing to read fails with EAGAIN.
        unsafe { libc::read(self.descriptor.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    /// What to wait for.
    pub(crate) fn watched(&self) -> (BorrowedFd<'_>, Interest) {
        use std::os::fd::AsFd;
        (self.descriptor.as_fd(), Interest::Readable)
    }
}

/// Reads into `buffer`; `Ok(0)` also when a non-blocking descriptor has nothing.
///
/// # Errors
///
/// The kernel's own, other than would-block and interruption.
pub(crate) fn read_available(descriptor: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    let read =
        unsafe { libc::read(descriptor.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    match usize::try_from(read) {
        Ok(read) => Ok(read),
        Err(_) => {
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_before_the_wait_is_seen_by_it() {
        let wake = Wake::new().unwrap();
        assert_eq!(wait(&[wake.watched()], Some(Duration::ZERO)).unwrap(), [false]);
        wake.signal();
        assert_eq!(wait(&[wake.watched()], None).unwrap(), [true]);
        wake.clear();
        assert_eq!(wait(&[wake.watched()], Some(Duration::ZERO)).unwrap(), [false]);
    }
}
