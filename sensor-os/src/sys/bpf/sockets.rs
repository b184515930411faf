//! One small program in the kernel that tells of every TCP socket that changes state.
//!
//! It is attached to the raw tracepoint `inet_sock_set_state`, which runs in the context of the
//! process where a connection is opened, and writes one record per change.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{
    ADD_IMMEDIATE, CALL, CALL_CURRENT_PID_TGID, CALL_CURRENT_UID_GID, CALL_KTIME_BOOT_NS,
    CALL_PROBE_READ_KERNEL, CALL_RINGBUF_OUTPUT, EXIT, FRAME, JUMP_EQUAL_IMMEDIATE, LOAD_U64,
    LOAD_WIDE, MOVE, MOVE_IMMEDIATE, PSEUDO_MAP_FD, Ring, STORE_IMMEDIATE_U64, STORE_U8, STORE_U64,
    TracerReading, attach, load, step,
};
use crate::sys::native;

/// Bytes of the ring: about 4,000 changes may wait for us. A power of two and of pages.
const RING_BYTES: usize = 512 << 10;
const RECORD_BYTES: i32 = 112;

const STATE_ESTABLISHED: i32 = 1;
const STATE_SYN_SENT: i32 = 2;
const STATE_CLOSE: i32 = 7;
const STATE_LISTEN: i32 = 10;

/// Where the fields lie in the kernel's socket, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketLayout {
    /// `sock_common.skc_daddr`, followed by the local address.
    pub(crate) addresses_v4: i32,
    /// `sock_common.skc_dport` (big-endian), followed by the local port (host order).
    pub(crate) ports: i32,
    /// `inet_sock.inet_sport` (big-endian): stays when a closed socket has given its port back.
    pub(crate) kept_local_port: i32,
    /// `sock_common.skc_family`.
    pub(crate) family: i32,
    /// `sock_common.skc_v6_daddr`.
    pub(crate) remote_v6: i32,
    /// `sock_common.skc_v6_rcv_saddr`.
    pub(crate) local_v6: i32,
    /// `sock.sk_protocol`.
    pub(crate) protocol: i32,
    /// `tcp_sock.bytes_acked`.
    pub(crate) bytes_acked: i32,
    /// `tcp_sock.bytes_received`.
    pub(crate) bytes_received: i32,
}

/// One change of state of one TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketChange {
    /// The socket's address in the kernel: the same for all changes of one socket, used again
    /// later.
    pub(crate) socket: u64,
    /// Boot time in nanoseconds.
    pub(crate) time_ns: u64,
    /// The process the change happened in. It owns the socket only where `new_state` is SYN_SENT or
    /// LISTEN; otherwise it may be whoever the packet interrupted.
    pub(crate) pid: u32,
    /// The user of that process.
    pub(crate) user: u32,
    /// State number before.
    pub(crate) old_state: u8,
    /// State number after.
    pub(crate) new_state: u8,
    /// The address on this machine; its port is 0 as long as none is chosen.
    pub(crate) local: SocketAddr,
    /// The address of the other side.
    pub(crate) remote: SocketAddr,
    /// Bytes acknowledged by the other side so far.
    pub(crate) bytes_sent: u64,
    /// Bytes received so far.
    pub(crate) bytes_received: u64,
}

/// The attached program and its ring.
#[derive(Debug)]
pub(crate) struct SocketTracer {
    ring: Ring,
    _attachment: OwnedFd,
}

impl SocketTracer {
    /// Loads and attaches the program.
    ///
    /// # Errors
    ///
    /// Not permitted, or the kernel is too old or built without it.
    pub(crate) fn attach(layout: &SocketLayout) -> io::Result<Self> {
        let ring = Ring::create(RING_BYTES)?;
        let program = load(&program(layout, ring.map.as_raw_fd()))?;
        let attachment = attach(&program, c"inet_sock_set_state")?;
        Ok(Self { ring, _attachment: attachment })
    }

    /// Gives every waiting change to `take`, in the kernel's order.
    pub(crate) fn read(&mut self, mut take: impl FnMut(SocketChange)) -> TracerReading {
        self.ring.read(|record| {
            if let Some(change) = parse(record) {
                take(change);
            }
        })
    }
}

impl AsFd for SocketTracer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.map.as_fd()
    }
}

// The record on the program's stack, as offsets from its start.
const AT_SOCKET: i32 = 0;
const AT_TIME: i32 = 8;
const AT_PID: i32 = 16;
const AT_USER: i32 = 24;
const AT_OLD: i32 = 32;
const AT_NEW: i32 = 33;
const AT_FAMILY: i32 = 34;
const AT_PORTS: i32 = 36;
const AT_V4: i32 = 40;
const AT_PROTOCOL: i32 = 48;
const AT_KEPT_PORT: i32 = 50;
const AT_SENT: i32 = 56;
const AT_RECEIVED: i32 = 64;
const AT_LOCAL_V6: i32 = 72;
const AT_REMOTE_V6: i32 = 88;

fn frame_offset(at: i32) -> i16 {
    i16::try_from(at - RECORD_BYTES).unwrap_or(0)
}

fn program(layout: &SocketLayout, ring: i32) -> Vec<u64> {
    let (context, socket, old, new) = (6, 7, 8, 9);
    let mut steps = vec![
        step(MOVE, context, 1, 0, 0),
        step(LOAD_U64, socket, context, 0, 0),
        step(LOAD_U64, old, context, 8, 0),
        step(LOAD_U64, new, context, 16, 0),
        // Only what begins, is established, ends or listens; the states between say nothing more.
        step(JUMP_EQUAL_IMMEDIATE, new, 0, 5, STATE_ESTABLISHED),
        step(JUMP_EQUAL_IMMEDIATE, new, 0, 4, STATE_SYN_SENT),
        step(JUMP_EQUAL_IMMEDIATE, new, 0, 3, STATE_CLOSE),
        step(JUMP_EQUAL_IMMEDIATE, new, 0, 2, STATE_LISTEN),
        step(MOVE_IMMEDIATE, 0, 0, 0, 0),
        step(EXIT, 0, 0, 0, 0),
    ];
    for at in (0..RECORD_BYTES).step_by(8) {
        steps.push(step(STORE_IMMEDIATE_U64, FRAME, 0, frame_offset(at), 0));
    }
    steps.push(step(STORE_U64, FRAME, socket, frame_offset(AT_SOCKET), 0));
    steps.push(step(STORE_U8, FRAME, old, frame_offset(AT_OLD), 0));
    steps.push(step(STORE_U8, FRAME, new, frame_offset(AT_NEW), 0));
    for (call, at) in [
        (CALL_KTIME_BOOT_NS, AT_TIME),
        (CALL_CURRENT_PID_TGID, AT_PID),
        (CALL_CURRENT_UID_GID, AT_USER),
    ] {
        steps.push(step(CALL, 0, 0, 0, call));
        steps.push(step(STORE_U64, FRAME, 0, frame_offset(at), 0));
    }
    for (at, bytes, offset) in [
        (AT_FAMILY, 2, layout.family),
        (AT_PORTS, 4, layout.ports),
        (AT_V4, 8, layout.addresses_v4),
        (AT_PROTOCOL, 2, layout.protocol),
        (AT_KEPT_PORT, 2, layout.kept_local_port),
        (AT_LOCAL_V6, 16, layout.local_v6),
        (AT_REMOTE_V6, 16, layout.remote_v6),
        (AT_SENT, 8, layout.bytes_acked),
        (AT_RECEIVED, 8, layout.bytes_received),
    ] {
        steps.extend([
            step(MOVE, 1, FRAME, 0, 0),
            step(ADD_IMMEDIATE, 1, 0, 0, at - RECORD_BYTES),
            step(MOVE_IMMEDIATE, 2, 0, 0, bytes),
            step(MOVE, 3, socket, 0, 0),
            step(ADD_IMMEDIATE, 3, 0, 0, offset),
            step(CALL, 0, 0, 0, CALL_PROBE_READ_KERNEL),
        ]);
    }
    steps.extend([
        step(LOAD_WIDE, 1, PSEUDO_MAP_FD, 0, ring),
        step(0, 0, 0, 0, 0),
        step(MOVE, 2, FRAME, 0, 0),
        step(ADD_IMMEDIATE, 2, 0, 0, -RECORD_BYTES),
        step(MOVE_IMMEDIATE, 3, 0, 0, RECORD_BYTES),
        step(MOVE_IMMEDIATE, 4, 0, 0, 0),
        step(CALL, 0, 0, 0, CALL_RINGBUF_OUTPUT),
        step(MOVE_IMMEDIATE, 0, 0, 0, 0),
        step(EXIT, 0, 0, 0, 0),
    ]);
    steps
}

fn parse(record: &[u8]) -> Option<SocketChange> {
    const TCP: u16 = 6;
    let at = |offset: i32| usize::try_from(offset).unwrap_or(usize::MAX);
    // Kernels before 5.6 hold the protocol in one byte; the other byte is then its neighbour.
    if native::u16_at(record, at(AT_PROTOCOL))? & 0xff != TCP {
        return None;
    }
    let address = |v4: i32, v6: i32| -> Option<IpAddr> {
        match libc::c_int::from(native::u16_at(record, at(AT_FAMILY))?) {
            libc::AF_INET => {
                let octets: [u8; 4] = record.get(at(v4)..at(v4) + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(octets).into())
            }
            libc::AF_INET6 => {
                let octets: [u8; 16] = record.get(at(v6)..at(v6) + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(octets).to_canonical())
            }
            _ => None,
        }
    };
    let network_port = |offset: i32| {
        let bytes: [u8; 2] = record.get(at(offset)..at(offset) + 2)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    };
    let local_port = match native::u16_at(record, at(AT_PORTS) + 2)? {
        0 => network_port(AT_KEPT_PORT)?,
        port => port,
    };
    let pid_tgid = native::u64_at(record, at(AT_PID))?;
    Some(SocketChange {
        socket: native::u64_at(record, at(AT_SOCKET))?,
        time_ns: native::u64_at(record, at(AT_TIME))?,
        pid: u32::try_from(pid_tgid >> 32).ok()?,
        user: native::u32_at(record, at(AT_USER)).filter(|_| cfg!(target_endian = "little"))?,
        old_state: native::u8_at(record, at(AT_OLD))?,
        new_state: native::u8_at(record, at(AT_NEW))?,
        local: SocketAddr::new(address(AT_V4 + 4, AT_LOCAL_V6)?, local_port),
        remote: SocketAddr::new(address(AT_V4, AT_REMOTE_V6)?, network_port(AT_PORTS)?),
        bytes_sent: native::u64_at(record, at(AT_SENT))?,
        bytes_received: native::u64_at(record, at(AT_RECEIVED))?,
    })
}
