//! A netlink socket: open, join groups, send, receive, walk the messages of a datagram.
//!
//! It knows no family's meaning; `proc_connector` and `sock_diag` do. Answers are taken only from
//! the kernel (port 0), since any local program may send to a netlink socket.

#![allow(unsafe_code, reason = "socket calls")]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::native;

const HEADER_BYTES: usize = 16;

/// One netlink message: its type and its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

/// What came of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes of a datagram of the kernel's.
    Bytes(usize),
    /// Nothing was waiting.
    Nothing,
    /// The socket's buffer had overflown: messages were lost.
    Overflown,
}

/// A netlink socket, non-blocking and closed on exec.
#[derive(Debug)]
pub(crate) struct Netlink {
    descriptor: OwnedFd,
}

impl Netlink {
    /// Opens a socket of `family`, a member of the groups in the mask `groups`.
    ///
    /// # Errors
    ///
    /// The family is not built into the kernel, or a group needs a privilege.
    pub(crate) fn open(family: libc::c_int, groups: u32) -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket takes no pointer.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, kind, family) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` was just opened and belongs to nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: an all-zero sockaddr_nl is a valid one.
        let mut address: libc::sockaddr_nl = unsafe { zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = groups;
        // SAFETY: `address` is a sockaddr_nl of the stated length.
        let bound = unsafe {
            libc::bind(
                descriptor.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_nl>() as libc::socklen_t,
            )
        };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { descriptor })
    }

    /// Asks for a receive buffer of `bytes`, beyond the system's limit where that is permitted.
    pub(crate) fn widen_buffer(&self, bytes: usize) {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        for option in [libc::SO_RCVBUF, libc::SO_RCVBUFFORCE] {
            // SAFETY: the option's value is one c_int that lives over the call. A refusal leaves
            // the buffer as it was, and an overflow is seen when it happens.
            unsafe {
                libc::setsockopt(
                    self.descriptor.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const bytes).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
        }
    }

    /// Sends one datagram to the kernel.
    ///
    /// # Errors
    ///
    /// The kernel's own.
    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        // SAFETY: the kernel reads `datagram.len()` bytes of `datagram`.
        let sent = unsafe {
            libc::send(self.descriptor.as_raw_fd(), datagram.as_ptr().cast(), datagram.len(), 0)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Receives one datagram; what another program sent is passed over as nothing.
    ///
    /// # Errors
    ///
    /// The kernel's own, other than would-block, interruption and overflow.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        // SAFETY: an all-zero sockaddr_nl is a valid one.
        let mut from: libc::sockaddr_nl = unsafe { zeroed() };
        let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer` and at most `length`
        // bytes into `from`.
        let read = unsafe {
            libc::recvfrom(
                self.descriptor.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                (&raw mut from).cast(),
                &raw mut length,
            )
        };
        if let Ok(read) = usize::try_from(read) {
            return Ok(if from.nl_pid == 0 { Received::Bytes(read) } else { Received::Nothing });
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOBUFS) => Ok(Received::Overflown),
            Some(libc::EAGAIN | libc::EINTR) => Ok(Received::Nothing),
            _ => Err(error),
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Appends a netlink header for a payload of `payload_bytes`.
pub(crate) fn push_header(out: &mut Vec<u8>, kind: u16, flags: u16, payload_bytes: usize) {
    let length = u32::try_from(HEADER_BYTES + payload_bytes).unwrap_or(u32::MAX);
    native::push_u32(out, length);
    native::push_u16(out, kind);
    native::push_u16(out, flags);
    native::push_u32(out, 1);
    native::push_u32(out, 0);
}

/// The messages of one datagram, in order; a message with a false length ends the walk.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(native::u32_at(rest, 0)?).ok()?;
        let kind = native::u16_at(rest, 4)?;
        let payload = rest.get(HEADER_BYTES..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Message { kind, payload })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_walked_with_their_padding() {
        let mut datagram = Vec::new();
        push_header(&mut datagram, 20, 0, 3);
        datagram.extend_from_slice(&[1, 2, 3, 0]);
        push_header(&mut datagram, 3, 0, 0);
        let seen: Vec<_> = messages(&datagram).map(|m| (m.kind, m.payload.to_vec())).collect();
        assert_eq!(seen, [(20, vec![1, 2, 3]), (3, vec![])]);
    }

    #[test]
    fn a_false_length_ends_the_walk() {
        for length in [0_u32, 3, 15, 17, u32::MAX] {
            let mut datagram = Vec::new();
            native::push_u32(&mut datagram, length);
            datagram.extend_from_slice(&[0; 12]);
            assert_eq!(messages(&datagram).count(), 0, "length {length}");
        }
    }
}
