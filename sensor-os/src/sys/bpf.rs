//! Small programs in the kernel, and the rings they write to.
//!
//! A program is attached to a raw tracepoint and writes records into a ring that this process
//! maps. It needs `CAP_BPF` and `CAP_PERFMON` (or `CAP_SYS_ADMIN`) and Linux 5.8; it needs no
//! kprobes, no tracefs and no compiler, since it is put together here, instruction by instruction.
//! Where fields lie in the kernel's structures is not assumed: the caller takes it from the
//! kernel's own type information (`collect::btf`).
//!
//! Invariant: a program only reads and only writes to its ring; it cannot change what it watches.

#![allow(unsafe_code, reason = "bpf and a mapped ring")]

mod execs;
mod senders;
mod sockets;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

pub(crate) use execs::{ExecLayout, ExecTracer};
pub(crate) use senders::{SenderLayout, SenderTracer};
pub(crate) use sockets::{SocketChange, SocketLayout, SocketTracer};

use super::{host, native};

const MAP_CREATE: libc::c_long = 0;
const PROGRAM_LOAD: libc::c_long = 5;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const MAP_TYPE_RINGBUF: u32 = 27;
const PROGRAM_TYPE_RAW_TRACEPOINT: u32 = 17;

const CALL_MAP_UPDATE: i32 = 2;
const CALL_CURRENT_PID_TGID: i32 = 14;
const CALL_CURRENT_UID_GID: i32 = 15;
const CALL_PROBE_READ_USER: i32 = 112;
const CALL_PROBE_READ_KERNEL: i32 = 113;
const CALL_KTIME_BOOT_NS: i32 = 125;
const CALL_RINGBUF_OUTPUT: i32 = 130;
const CALL_RINGBUF_RESERVE: i32 = 131;
const CALL_RINGBUF_SUBMIT: i32 = 132;

const LOAD_U64: u8 = 0x79;
const LOAD_U16: u8 = 0x69;
const STORE_U32: u8 = 0x63;
const AND_IMMEDIATE: u8 = 0x57;
const STORE_U64: u8 = 0x7b;
const STORE_IMMEDIATE_U64: u8 = 0x7a;
const STORE_U8: u8 = 0x73;
const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const ADD_IMMEDIATE: u8 = 0x07;
const SUBTRACT: u8 = 0x1f;
const JUMP_ALWAYS: u8 = 0x05;
const JUMP_EQUAL_IMMEDIATE: u8 = 0x15;
const JUMP_NOT_ABOVE_IMMEDIATE: u8 = 0xb5;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const LOAD_WIDE: u8 = 0x18;
const PSEUDO_MAP_FD: u8 = 1;
const FRAME: u8 = 10;

/// What one reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TracerReading {
    /// Everything.
    Complete,
    /// Everything that was in the ring, which was full: the kernel may have had no room for more.
    MayHaveLost,
}

/// A command that answers a new descriptor.
fn bpf(command: libc::c_long, attributes: &mut [u8]) -> io::Result<OwnedFd> {
    let raw = i32::try_from(bpf_status(command, attributes)?).unwrap_or(-1);
    // SAFETY: the commands that come here answer a descriptor, just opened, that belongs to nobody
    // else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A command that answers a number, negative ones being errors.
fn bpf_status(command: libc::c_long, attributes: &mut [u8]) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is a union bpf_attr of the stated length, whose pointers name live
    // memory of their callers, as long as the command needs.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), attributes.len()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    // The kernel lends its memory-reading helper only to programs that say they may be combined
    // with it; this one, like the whole crate, may be.
    let licence = c"Dual MIT/GPL";
    let mut attributes = Vec::with_capacity(48);
    native::push_u32(&mut attributes, PROGRAM_TYPE_RAW_TRACEPOINT);
    native::push_u32(&mut attributes, u32::try_from(instructions.len()).unwrap_or(0));
    push_pointer(&mut attributes, instructions.as_ptr().addr());
    push_pointer(&mut attributes, licence.as_ptr().addr());
    attributes.resize(72, 0);
    bpf(PROGRAM_LOAD, &mut attributes)
}

fn attach(program: &OwnedFd, tracepoint: &CStr) -> io::Result<OwnedFd> {
    let mut attributes = Vec::with_capacity(16);
    push_pointer(&mut attributes, tracepoint.as_ptr().addr());
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

/// The ring as mapped: a page with our position, a page with the kernel's, and the data twice in a
/// row, so that no record is cut at the end.
#[derive(Debug)]
struct Ring {
    map: OwnedFd,
    consumer: *mut u8,
    producer: *mut u8,
    page: usize,
    bytes: usize,
}

// SAFETY: the two mappings belong to this value alone and are not bound to a thread.
unsafe impl Send for Ring {}

impl Ring {
    /// A ring of `bytes`, a power of two and of pages.
    fn create(bytes: usize) -> io::Result<Self> {
        // The records' process numbers are those of the first namespace.
        host::require_first_process_namespace()?;
        let mut attributes = Vec::with_capacity(72);
        native::push_u32(&mut attributes, MAP_TYPE_RINGBUF);
        native::push_u32(&mut attributes, 0); // key size
        native::push_u32(&mut attributes, 0); // value size
        native::push_u32(&mut attributes, u32::try_from(bytes).unwrap_or(0));
        attributes.resize(72, 0);
        Self::map(bpf(MAP_CREATE, &mut attributes)?, bytes)
    }

    fn map(map: OwnedFd, bytes: usize) -> io::Result<Self> {
        // SAFETY: sysconf takes no pointer.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let ours = map_pages(&map, page, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        let theirs = match map_pages(&map, page + 2 * bytes, libc::PROT_READ, page) {
            Ok(theirs) => theirs,
            Err(error) => {
                // SAFETY: `ours` was mapped with this length just now and is not used further.
                unsafe { libc::munmap(ours.cast(), page) };
                return Err(error);
            }
        };
        Ok(Self { map, consumer: ours, producer: theirs, page, bytes })
    }

    fn consumer_position(&self) -> &AtomicU64 {
        // SAFETY: the first eight bytes of the consumer page, page-aligned and mapped as long as
        // `self`, are the position that kernel and we share.
        unsafe { AtomicU64::from_ptr(self.consumer.cast()) }
    }

    fn producer_position(&self) -> u64 {
        // SAFETY: the first eight bytes of the producer page, page-aligned and mapped for reading
        // as long as `self`. The kernel writes them at any time, so they are read as volatile; an
        // atomic would have to be writable.
        let position = unsafe { self.producer.cast::<u64>().read_volatile() };
        fence(Ordering::Acquire);
        position
    }

    fn read(&mut self, mut take: impl FnMut(&[u8])) -> TracerReading {
        const BUSY: u32 = 1 << 31;
        const DISCARD: u32 = 1 << 30;
        const HEADER: u64 = 8;
        /// With less room than this the next record may not have found any.
        const ROOM_OF_FULL: u64 = 4_096;
        let mut position = self.consumer_position().load(Ordering::Relaxed);
        // What is written while this reads is read next, or a storm of records would never end.
        let end = self.producer_position();
        let waiting = end.saturating_sub(position);
        let full = waiting + ROOM_OF_FULL > self.bytes as u64;
        while position < end {
            let offset = usize::try_from(position).unwrap_or(0) & (self.bytes - 1);
            // SAFETY: records begin at multiples of eight, and `offset` is below the ring's bytes,
            // inside the data that is mapped behind the producer page.
            let header = unsafe { self.producer.add(self.page + offset) };
            // SAFETY: the header's first four bytes, aligned as the header is, are the length word
            // that the kernel publishes; read as the producer's position is.
            let length = unsafe { header.cast::<u32>().read_volatile() };
            fence(Ordering::Acquire);
            if length & BUSY != 0 {
                break;
            }
            let bytes = usize::try_from(length & !DISCARD).unwrap_or(0).min(self.bytes);
            if length & DISCARD == 0 {
                // SAFETY: `bytes` bytes behind the header are published, lie inside the doubled
                // data mapping, and are not written again before the consumer position passes
                // them.
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
            libc::munmap(self.producer.cast(), self.page + 2 * self.bytes);
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
