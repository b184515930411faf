//! One small program in the kernel that tells of every TCP socket that changes state.
//!
//! It is attached to the raw tracepoint `inet_sock_set_state`, which runs in the context of the
//! process where a connection is opened, and writes one record per change into a ring that this
//! process maps. It needs `CAP_BPF` and `CAP_PERFMON` (or `CAP_SYS_ADMIN`) and Linux 5.8; it needs no
//! kprobes, no tracefs and no compiler. Where fields lie in the kernel's structures is not assumed:
//! the caller takes it from the kernel's own type information (`collect::btf`).
//!
//! Invariant: the program only reads and only writes to its ring; it cannot change what it watches.

#![allow(unsafe_code, reason = "bpf and a mapped ring")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::native;

/// Bytes of the ring: about 4,000 changes may wait for us. A power of two and of pages.
const RING_BYTES: usize = 512 << 10;
const RECORD_BYTES: i32 = 112;

const MAP_CREATE: libc::c_long = 0;
const PROGRAM_LOAD: libc::c_long = 5;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const MAP_TYPE_RINGBUF: u32 = 27;
const PROGRAM_TYPE_RAW_TRACEPOINT: u32 = 17;

const CALL_CURRENT_PID_TGID: i32 = 14;
const CALL_CURRENT_UID_GID: i32 = 15;
const CALL_PROBE_READ_KERNEL: i32 = 113;
const CALL_KTIME_BOOT_NS: i32 = 125;
const CALL_RINGBUF_OUTPUT: i32 = 130;

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
    /// The socket's address in the kernel: the same for all changes of one socket, used again later.
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

/// What one reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TracerReading {
    /// Everything.
    Complete,
    /// Everything that was in the ring, which was full: the kernel may have had no room for more.
    MayHaveLost,
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
        let map = create_ring()?;
        let ring = Ring::map(map)?;
        let program = load(&program(layout, ring.map.as_raw_fd()))?;
        let attachment = attach(&program)?;
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

fn bpf(command: libc::c_long, attributes: &mut [u8]) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` is a union bpf_attr of the stated length, whose pointers name live memory
    // of their callers; every command used here answers a new descriptor.
    let raw =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), attributes.len()) };
    let raw = i32::try_from(raw).unwrap_or(-1);
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `raw` was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn create_ring() -> io::Result<OwnedFd> {
    let mut attributes = Vec::with_capacity(72);
    native::push_u32(&mut attributes, MAP_TYPE_RINGBUF);
    native::push_u32(&mut attributes, 0); // key size
    native::push_u32(&mut attributes, 0); // value size
    native::push_u32(&mut attributes, RING_BYTES as u32);
    attributes.resize(72, 0);
    bpf(MAP_CREATE, &mut attributes)
}

fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    // The kernel lends its memory-reading helper only to programs that say they may be combined with
    // it; this one, like the whole crate, may be.
    let licence = c"Dual MIT/GPL";
    let mut attributes = Vec::with_capacity(48);
    native::push_u32(&mut attributes, PROGRAM_TYPE_RAW_TRACEPOINT);
    native::push_u32(&mut attributes, u32::try_from(instructions.len()).unwrap_or(0));
    push_pointer(&mut attributes, instructions.as_ptr().addr());
    push_pointer(&mut attributes, licence.as_ptr().addr());
    attributes.resize(72, 0);
    bpf(PROGRAM_LOAD, &mut attributes)
}

fn attach(program: &OwnedFd) -> io::Result<OwnedFd> {
    let name = c"inet_sock_set_state";
    let mut attributes = Vec::with_capacity(16);
    push_pointer(&mut attributes, name.as_ptr().addr());
    native::push_u32(&mut attributes, program.as_raw_fd().cast_unsigned());
    native::push_u32(&mut attributes, 0);
    bpf(RAW_TRACEPOINT_OPEN, &mut attributes)
}

fn push_pointer(out: &mut Vec<u8>, address: usize) {
    native::push_u64(out, address as u64);
}

/// An instruction: opcode, destination and source register, offset, immediate.
const fn step(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    let registers = if cfg!(target_endian = "little") {
        (source << 4) | destination
    } else {
        (destination << 4) | source
    };
    let bytes = [code, registers];
    let [o0, o1] = native::i16_bytes(offset);
    let [i0, i1, i2, i3] = native::i32_bytes(immediate);
    native::u64_of([bytes[0], bytes[1], o0, o1, i0, i1, i2, i3])
}

const LOAD_U64: u8 = 0x79;
const STORE_U64: u8 = 0x7b;
const STORE_IMMEDIATE_U64: u8 = 0x7a;
const STORE_U8: u8 = 0x73;
const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const ADD_IMMEDIATE: u8 = 0x07;
const JUMP_EQUAL_IMMEDIATE: u8 = 0x15;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const LOAD_WIDE: u8 = 0x18;
const PSEUDO_MAP_FD: u8 = 1;
const FRAME: u8 = 10;

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

/// The ring as mapped: a page with our position, a page with the kernel's, and the data twice in a
/// row, so that no record is cut at the end.
#[derive(Debug)]
struct Ring {
    map: OwnedFd,
    consumer: *mut u8,
    producer: *mut u8,
    page: usize,
}

// SAFETY: the two mappings belong to this value alone and are not bound to a thread.
unsafe impl Send for Ring {}

impl Ring {
    fn map(map: OwnedFd) -> io::Result<Self> {
        // SAFETY: sysconf takes no pointer.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let ours = map_pages(&map, page, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        let theirs = match map_pages(&map, page + 2 * RING_BYTES, libc::PROT_READ, page) {
            Ok(theirs) => theirs,
            Err(error) => {
                // SAFETY: `ours` was mapped with this length just now and is not used further.
                unsafe { libc::munmap(ours.cast(), page) };
                return Err(error);
            }
        };
        Ok(Self { map, consumer: ours, producer: theirs, page })
    }

    fn consumer_position(&self) -> &AtomicU64 {
        // SAFETY: the first eight bytes of the consumer page, page-aligned and mapped as long as
        // `self`, are the position that kernel and we share.
        unsafe { AtomicU64::from_ptr(self.consumer.cast()) }
    }

    fn producer_position(&self) -> u64 {
        // SAFETY: likewise for the producer page, which is only read.
        unsafe { AtomicU64::from_ptr(self.producer.cast()) }.load(Ordering::Acquire)
    }

    fn read(&mut self, mut take: impl FnMut(&[u8])) -> TracerReading {
        const BUSY: u32 = 1 << 31;
        const DISCARD: u32 = 1 << 30;
        const HEADER: u64 = 8;
        let mut position = self.consumer_position().load(Ordering::Relaxed);
        let waiting = self.producer_position().saturating_sub(position);
        let full = waiting + 2 * RECORD_BYTES as u64 > RING_BYTES as u64;
        while position < self.producer_position() {
            let offset = usize::try_from(position).unwrap_or(0) & (RING_BYTES - 1);
            // SAFETY: records begin at multiples of eight, and `offset` is below RING_BYTES, inside
            // the data that is mapped behind the producer page.
            let header = unsafe { self.producer.add(self.page + offset) };
            // SAFETY: the header's first four bytes are the length word that the kernel publishes.
            let length = unsafe { AtomicU32::from_ptr(header.cast()) }.load(Ordering::Acquire);
            if length & BUSY != 0 {
                break;
            }
            let bytes = usize::try_from(length & !DISCARD).unwrap_or(0).min(RING_BYTES);
            if length & DISCARD == 0 {
                // SAFETY: `bytes` bytes behind the header are published, lie inside the doubled data
                // mapping, and are not written again before the consumer position passes them.
                take(unsafe { std::slice::from_raw_parts(header.add(8), bytes) });
            }
            position += (bytes as u64 + HEADER).next_multiple_of(8);
            self.consumer_position().store(position, Ordering::Release);
        }
        if full { TracerReading::MayHaveLost } else { TracerReading::Complete }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: both were mapped with these lengths and nothing borrows them any more.
        unsafe {
            libc::munmap(self.consumer.cast(), self.page);
            libc::munmap(self.producer.cast(), self.page + 2 * RING_BYTES);
        }
    }
}

fn map_pages(map: &OwnedFd, bytes: usize, access: i32, offset: usize) -> io::Result<*mut u8> {
    let offset = libc::off_t::try_from(offset).unwrap_or(0);
    // SAFETY: a fresh shared mapping at an address of the kernel's choice disturbs no other memory.
    let address = unsafe {
        libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, map.as_raw_fd(), offset)
    };
    if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(address.cast()) }
}
