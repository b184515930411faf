//! Packets as they come in, narrowed by a filter that runs in the kernel: answers of name servers.
//!
//! A socket bound to one protocol sees a packet once, when it comes in: on the loopback device too,
//! where a socket for all protocols would see it twice. It needs `CAP_NET_RAW` and sees the network
//! namespace it was opened in.

#![allow(unsafe_code, reason = "packet sockets")]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::wait;

/// Which network protocol a capture is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Receives the IP packets (from the IP header on) that carry a UDP datagram from port 53.
#[derive(Debug)]
pub(crate) struct NameAnswers {
    descriptor: OwnedFd,
}

const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_HALF_INDEXED: u16 = 0x48;
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
const UDP: u32 = 17;
const NAME_PORT: u32 = 53;
const WHOLE_PACKET: u32 = 0xffff;

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// UDP, not a later fragment, source port 53 behind a header of any length.
const FILTER_V4: [libc::sock_filter; 8] = [
    step(LOAD_BYTE, 0, 0, 9),
    step(JUMP_EQUAL, 0, 5, UDP),
    step(LOAD_HALF, 0, 0, 6),
    step(JUMP_SET, 3, 0, 0x1fff),
    step(LOAD_HEADER_LENGTH, 0, 0, 0),
    step(LOAD_HALF_INDEXED, 0, 0, 0),
    step(JUMP_EQUAL, 1, 0, NAME_PORT),
    step(RETURN, 0, 0, 0),
];

/// UDP right behind the fixed header, source port 53.
const FILTER_V6: [libc::sock_filter; 5] = [
    step(LOAD_BYTE, 0, 0, 6),
    step(JUMP_EQUAL, 0, 2, UDP),
    step(LOAD_HALF, 0, 0, 40),
    step(JUMP_EQUAL, 1, 0, NAME_PORT),
    step(RETURN, 0, 0, 0),
];

impl NameAnswers {
    /// Opens a capture on every interface.
    ///
    /// # Errors
    ///
    /// Not permitted, or the kernel was built without packet sockets.
    pub(crate) fn open(network: Network) -> io::Result<Self> {
        // Opened for no protocol: nothing comes in before the filter is attached.
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket takes no pointer.
        let raw = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` was just opened and belongs to nobody else.
        let capture = Self { descriptor: unsafe { OwnedFd::from_raw_fd(raw) } };
        let accept = step(RETURN, 0, 0, WHOLE_PACKET);
        let mut filter = match network {
            Network::V4 => FILTER_V4.to_vec(),
            Network::V6 => FILTER_V6.to_vec(),
        };
        filter.push(accept);
        capture.attach(&mut filter)?;
        let protocol = match network {
            Network::V4 => libc::ETH_P_IP,
            Network::V6 => libc::ETH_P_IPV6,
        };
        capture.bind(u16::try_from(protocol).unwrap_or(0).to_be())?;
        Ok(capture)
    }

    fn attach(&self, filter: &mut [libc::sock_filter]) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).unwrap_or(0),
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: `program` names `len` live instructions; the kernel copies them.
        let failed = unsafe {
            libc::setsockopt(
                self.descriptor.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        } != 0;
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn bind(&self, protocol_be: u16) -> io::Result<()> {
        // SAFETY: an all-zero sockaddr_ll is a valid one.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as libc::sa_family_t;
        address.sll_protocol = protocol_be;
        // SAFETY: `address` is a sockaddr_ll of the stated length.
        let failed = unsafe {
            libc::bind(
                self.descriptor.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        } != 0;
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Receives one packet, from its IP header on; `Ok(0)` when nothing is waiting.
    ///
    /// # Errors
    ///
    /// The socket's own, for example an interface that went down.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        wait::read_available(self.descriptor.as_fd(), buffer)
    }

    /// How many packets the kernel dropped since this was last asked, because they were not read in
    /// time.
    pub(crate) fn dropped(&self) -> u64 {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into `stats`.
        let failed = unsafe {
            libc::getsockopt(
                self.descriptor.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        } != 0;
        if failed { 0 } else { u64::from(stats.tp_drops) }
    }
}

impl AsFd for NameAnswers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
