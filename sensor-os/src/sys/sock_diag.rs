//! The kernel's socket table: a dump of TCP and UDP, and word of sockets that are destroyed.
//!
//! A dump needs no privilege. Notices of destruction need `CAP_NET_ADMIN`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::native;
use super::netlink::{Netlink, Received, messages, push_header};
use super::wait::{Interest, wait};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const FLAGS_REQUEST_DUMP: u16 = 0x301;
const INET_DIAG_INFO: u16 = 2;
/// `1 << (SKNLGRP_* - 1)` of TCP and UDP over IPv4 and IPv6.
const GROUPS_DESTROYED: u32 = 0b1111;
const REQUEST_BYTES: usize = 56;
const ROW_BYTES: usize = 72;
const DUMP_PATIENCE: Duration = Duration::from_secs(2);

/// Which transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// The protocol's number in an IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketRow {
    /// Its transport.
    pub(crate) transport: Transport,
    /// Where it is bound.
    pub(crate) local: SocketAddr,
    /// What it is connected to; port 0 when to nothing.
    pub(crate) remote: SocketAddr,
    /// The kernel's TCP state number (UDP: 1 connected, 7 not).
    pub(crate) state: u8,
    /// The user that opened it.
    pub(crate) user: u32,
    /// Its inode in sockfs; 0 when no process holds it any more.
    pub(crate) inode: u32,
    /// The kernel's own name for this very socket.
    pub(crate) cookie: u64,
    /// Bytes acknowledged by the other side and bytes received, where the kernel gave them.
    pub(crate) bytes: Option<(u64, u64)>,
}

/// A socket to ask the socket table with, and to hear of destroyed sockets.
#[derive(Debug)]
pub(crate) struct SockDiag {
    socket: Netlink,
    buffer: Vec<u8>,
}

impl SockDiag {
    /// Opens one to ask with.
    ///
    /// # Errors
    ///
    /// The kernel was built without it.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Netlink::open(libc::NETLINK_SOCK_DIAG, 0)?;
        Ok(Self { socket, buffer: vec![0; 32 << 10] })
    }

    /// Opens one to hear with: [`Self::read_destroyed`].
    ///
    /// # Errors
    ///
    /// Not permitted, or the kernel was built without it.
    pub(crate) fn open_destroyed() -> io::Result<Self> {
        let socket = Netlink::open(libc::NETLINK_SOCK_DIAG, GROUPS_DESTROYED)?;
        socket.widen_buffer(1 << 20);
        Ok(Self { socket, buffer: vec![0; 32 << 10] })
    }

    /// Gives every socket of `transport` over IPv4 and IPv6 to `take`.
    ///
    /// # Errors
    ///
    /// The kernel refused, or did not answer in two seconds; what was given so far stands.
    pub(crate) fn dump(
        &mut self,
        transport: Transport,
        mut take: impl FnMut(SocketRow),
    ) -> io::Result<()> {
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut request = Vec::with_capacity(16 + REQUEST_BYTES);
            push_header(&mut request, SOCK_DIAG_BY_FAMILY, FLAGS_REQUEST_DUMP, REQUEST_BYTES);
            let extensions = 1_u8 << (INET_DIAG_INFO - 1);
            let family = u8::try_from(family).unwrap_or(0);
            request.extend_from_slice(&[family, transport.number(), extensions, 0]);
            native::push_u32(&mut request, u32::MAX); // every state
            request.resize(16 + REQUEST_BYTES, 0);
            self.socket.send(&request)?;
            self.read_dump(transport, &mut take)?;
        }
        Ok(())
    }

    fn read_dump(
        &mut self,
        transport: Transport,
        take: &mut impl FnMut(SocketRow),
    ) -> io::Result<()> {
        loop {
            let length = match self.socket.receive(&mut self.buffer)? {
                Received::Bytes(length) => length,
                Received::Overflown => continue,
                Received::Nothing => {
                    let watched = [(self.socket.as_fd(), Interest::Readable)];
                    if wait(&watched, Some(DUMP_PATIENCE))? == [true] {
                        continue;
                    }
                    let text = "the socket table did not answer";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
            };
            for message in messages(self.buffer.get(..length).unwrap_or(&[])) {
                match libc::c_int::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => {
                        let code = native::i32_at(message.payload, 0).unwrap_or(0);
                        return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                    }
                    _ => {
                        if let Some(row) = parse(message.payload, transport) {
                            take(row);
                        }
                    }
                }
            }
        }
    }

    /// Gives every destroyed socket that was told of to `take`; answers whether some were lost.
    ///
    /// # Errors
    ///
    /// The socket's own.
    pub(crate) fn read_destroyed(
        &mut self,
        mut take: impl FnMut(SocketRow),
    ) -> io::Result<DestroyedReading> {
        let mut reading = DestroyedReading::Complete;
        loop {
            match self.socket.receive(&mut self.buffer)? {
                Received::Nothing => return Ok(reading),
                Received::Overflown => reading = DestroyedReading::Lost,
                Received::Bytes(length) => {
                    for message in messages(self.buffer.get(..length).unwrap_or(&[])) {
                        // A notice says its protocol in an attribute; without it, TCP.
                        let transport = match attribute(message.payload, INET_DIAG_PROTOCOL) {
                            Some([17, ..]) => Transport::Udp,
                            _ => Transport::Tcp,
                        };
                        if let Some(row) = parse(message.payload, transport) {
                            take(row);
                        }
                    }
                }
            }
        }
    }
}

/// What came of reading the notices of destruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DestroyedReading {
    /// All were read.
    Complete,
    /// The kernel dropped some.
    Lost,
}

impl AsFd for SockDiag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

const INET_DIAG_PROTOCOL: u16 = 12;

/// One attribute behind a `struct inet_diag_msg`.
fn attribute(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = message.get(ROW_BYTES..)?;
    loop {
        let length = usize::from(native::u16_at(rest, 0)?);
        let kind = native::u16_at(rest, 2)?;
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// One `struct inet_diag_msg`.
fn parse(message: &[u8], transport: Transport) -> Option<SocketRow> {
    let family = native::u8_at(message, 0)?;
    let port = |offset: usize| {
        let bytes: [u8; 2] = message.get(offset..offset + 2)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    };
    let address = |offset: usize| {
        let bytes: [u8; 16] = message.get(offset..offset + 16)?.try_into().ok()?;
        match libc::c_int::from(family) {
            libc::AF_INET => {
                let [a, b, c, d, ..] = bytes;
                Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
            }
            libc::AF_INET6 => Some(Ipv6Addr::from(bytes).to_canonical()),
            _ => None,
        }
    };
    let low = u64::from(native::u32_at(message, 44)?);
    let high = u64::from(native::u32_at(message, 48)?);
    let bytes = attribute(message, INET_DIAG_INFO).and_then(|info| {
        // struct tcp_info: tcpi_bytes_acked at 120, tcpi_bytes_received at 128.
        Some((native::u64_at(info, 120)?, native::u64_at(info, 128)?))
    });
    Some(SocketRow {
        transport,
        local: SocketAddr::new(address(8)?, port(4)?),
        remote: SocketAddr::new(address(24)?, port(6)?),
        state: native::u8_at(message, 1)?,
        user: native::u32_at(message, 64)?,
        inode: native::u32_at(message, 68)?,
        cookie: low | (high << 32),
        bytes: bytes.filter(|_| transport == Transport::Tcp),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_and_a_cut_row_is_not() {
        let mut row = vec![2_u8, 1, 0, 0];
        row.extend_from_slice(&8080_u16.to_be_bytes());
        row.extend_from_slice(&443_u16.to_be_bytes());
        row.extend_from_slice(&[127, 0, 0, 1]);
        row.extend_from_slice(&[0; 12]);
        row.extend_from_slice(&[127, 66, 6, 6]);
        row.extend_from_slice(&[0; 12]);
        for value in [0, 5, 1, 0, 0, 0, 1000, 4242] {
            native::push_u32(&mut row, value);
        }
        let parsed = parse(&row, Transport::Tcp).unwrap();
        assert_eq!(parsed.local, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(parsed.remote, "127.66.6.6:443".parse().unwrap());
        assert_eq!((parsed.user, parsed.inode), (1000, 4242));
        assert_eq!(parsed.cookie, 5 | (1 << 32));
        for length in 0..ROW_BYTES {
            assert_eq!(parse(&row[..length], Transport::Tcp), None, "{length} bytes");
        }
    }

    #[test]
    fn the_socket_table_shows_a_listener_of_ours() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut seen = Vec::new();
        SockDiag::open().unwrap().dump(Transport::Tcp, |row| seen.push(row)).unwrap();
        let row = seen.iter().find(|row| row.local == address).unwrap();
        assert_eq!(row.state, 10, "listening");
        assert_ne!(row.inode, 0);
    }
}
