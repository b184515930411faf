//! One small program in the kernel that remembers which process last sent from each local UDP port,
//! where the datagram went to port 53 or to wherever the call said.
//!
//! It is attached to the raw tracepoint `sock_send_length` (Linux 6.3), which runs in the process
//! that sends. It writes no records but a table of a fixed size that forgets the oldest, so a
//! machine that sends much UDP costs us nothing but the table. An answer to a port is asked for
//! here.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::{
    ADD_IMMEDIATE, AND_IMMEDIATE, CALL, CALL_CURRENT_PID_TGID, CALL_KTIME_BOOT_NS, CALL_MAP_UPDATE,
    CALL_PROBE_READ_KERNEL, EXIT, FRAME, JUMP_EQUAL_IMMEDIATE, LOAD_U16, LOAD_U64, LOAD_WIDE,
    MAP_CREATE, MOVE, MOVE_IMMEDIATE, PSEUDO_MAP_FD, STORE_IMMEDIATE_U64, STORE_U32, STORE_U64,
    attach, bpf, bpf_status, load, push_pointer, step,
};
use crate::sys::{host, native};

const MAP_LOOKUP: libc::c_long = 1;
const MAP_TYPE_LRU_HASH: u32 = 9;
/// Ports remembered: more than ask and wait at once on any machine but a resolver.
const PORTS_MAX: u32 = 4_096;
const VALUE_BYTES: u32 = 24;
const UDP: i32 = 17;
const NAME_PORT: u16 = 53;

/// Where the fields lie in the kernel's socket, in bytes from the start of their structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SenderLayout {
    /// `sock.sk_protocol`.
    pub(crate) protocol: i32,
    /// `sock_common.skc_dport` (big-endian), followed by the local port (host order).
    pub(crate) ports: i32,
    /// `sock_common.skc_net`.
    pub(crate) namespace: i32,
    /// `net.ns.inum`.
    pub(crate) namespace_number: i32,
}

/// Who sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    /// The process.
    pub(crate) pid: u32,
    /// Boot time in nanoseconds.
    pub(crate) time_ns: u64,
}

/// The attached program and its table.
#[derive(Debug)]
pub(crate) struct SenderTracer {
    map: OwnedFd,
    namespace: u32,
    _attachment: OwnedFd,
}

impl SenderTracer {
    /// Loads and attaches the program.
    ///
    /// # Errors
    ///
    /// Not permitted, or the kernel is too old or built without it.
    pub(crate) fn attach(layout: &SenderLayout) -> io::Result<Self> {
        host::require_first_process_namespace()?;
        let namespace = host::network_namespace()?;
        let mut attributes = Vec::with_capacity(72);
        native::push_u32(&mut attributes, MAP_TYPE_LRU_HASH);
        native::push_u32(&mut attributes, 4);
        native::push_u32(&mut attributes, VALUE_BYTES);
        native::push_u32(&mut attributes, PORTS_MAX);
        attributes.resize(72, 0);
        let map = bpf(MAP_CREATE, &mut attributes)?;
        let program = load(&program(layout, map.as_raw_fd()))?;
        let attachment = attach(&program, c"sock_send_length")?;
        Ok(Self { map, namespace, _attachment: attachment })
    }

    /// Who last sent from `port` in this process' network namespace.
    pub(crate) fn sender(&self, port: u16) -> Option<Sender> {
        let mut key = Vec::with_capacity(4);
        native::push_u32(&mut key, u32::from(port));
        let mut value = vec![0_u8; VALUE_BYTES as usize];
        let mut attributes = Vec::with_capacity(72);
        native::push_u32(&mut attributes, self.map.as_raw_fd().cast_unsigned());
        native::push_u32(&mut attributes, 0);
        push_pointer(&mut attributes, key.as_ptr().addr());
        push_pointer(&mut attributes, value.as_mut_ptr().addr());
        attributes.resize(72, 0);
        bpf_status(MAP_LOOKUP, &mut attributes).ok()?;
        if native::u32_at(&value, 16)? != self.namespace {
            return None;
        }
        Some(Sender {
            pid: u32::try_from(native::u64_at(&value, 0)? >> 32).ok()?,
            time_ns: native::u64_at(&value, 8)?,
        })
    }
}

const SOCKET: u8 = 6;
const FIELD: u8 = 7;
// On the program's stack.
const AT_SCRATCH: i32 = -8;
const AT_PORTS: i32 = -16;
const AT_KEY: i32 = -24;
const AT_VALUE: i32 = -48;

fn program(layout: &SenderLayout, map: i32) -> Vec<u64> {
    let at = |offset: i32| i16::try_from(offset).unwrap_or(0);
    let mut steps = vec![step(LOAD_U64, SOCKET, 1, 0, 0)];
    for zeroed in [AT_SCRATCH, AT_PORTS, AT_KEY, AT_VALUE + 16] {
        steps.push(step(STORE_IMMEDIATE_U64, FRAME, 0, at(zeroed), 0));
    }
    steps.extend(read_kernel(SOCKET, layout.protocol, AT_SCRATCH, 2));
    steps.extend([
        step(LOAD_U16, FIELD, FRAME, at(AT_SCRATCH), 0),
        step(AND_IMMEDIATE, FIELD, 0, 0, 0xff),
        step(JUMP_EQUAL_IMMEDIATE, FIELD, 0, 2, UDP),
        step(MOVE_IMMEDIATE, 0, 0, 0, 0),
        step(EXIT, 0, 0, 0, 0),
    ]);
    steps.extend(read_kernel(SOCKET, layout.ports, AT_PORTS, 4));
    steps.extend([
        step(LOAD_U16, FIELD, FRAME, at(AT_PORTS), 0),
        // Not connected: where it went is in the call. Or connected to a name server.
        step(JUMP_EQUAL_IMMEDIATE, FIELD, 0, 3, 0),
        step(JUMP_EQUAL_IMMEDIATE, FIELD, 0, 2, i32::from(NAME_PORT.to_be())),
        step(MOVE_IMMEDIATE, 0, 0, 0, 0),
        step(EXIT, 0, 0, 0, 0),
        step(LOAD_U16, FIELD, FRAME, at(AT_PORTS + 2), 0),
        step(STORE_U32, FRAME, FIELD, at(AT_KEY), 0),
        step(CALL, 0, 0, 0, CALL_CURRENT_PID_TGID),
        step(STORE_U64, FRAME, 0, at(AT_VALUE), 0),
        step(CALL, 0, 0, 0, CALL_KTIME_BOOT_NS),
        step(STORE_U64, FRAME, 0, at(AT_VALUE + 8), 0),
    ]);
    steps.extend(read_kernel(SOCKET, layout.namespace, AT_SCRATCH, 8));
    steps.push(step(LOAD_U64, FIELD, FRAME, at(AT_SCRATCH), 0));
    steps.extend(read_kernel(FIELD, layout.namespace_number, AT_VALUE + 16, 4));
    steps.extend([
        step(LOAD_WIDE, 1, PSEUDO_MAP_FD, 0, map),
        step(0, 0, 0, 0, 0),
        step(MOVE, 2, FRAME, 0, 0),
        step(ADD_IMMEDIATE, 2, 0, 0, AT_KEY),
        step(MOVE, 3, FRAME, 0, 0),
        step(ADD_IMMEDIATE, 3, 0, 0, AT_VALUE),
        step(MOVE_IMMEDIATE, 4, 0, 0, 0),
        step(CALL, 0, 0, 0, CALL_MAP_UPDATE),
        step(MOVE_IMMEDIATE, 0, 0, 0, 0),
        step(EXIT, 0, 0, 0, 0),
    ]);
    steps
}

/// Reads `bytes` at `offset` behind the address in `base` to `at` in the frame.
fn read_kernel(base: u8, offset: i32, at: i32, bytes: i32) -> [u64; 6] {
    [
        step(MOVE, 1, FRAME, 0, 0),
        step(ADD_IMMEDIATE, 1, 0, 0, at),
        step(MOVE_IMMEDIATE, 2, 0, 0, bytes),
        step(MOVE, 3, base, 0, 0),
        step(ADD_IMMEDIATE, 3, 0, 0, offset),
        step(CALL, 0, 0, 0, CALL_PROBE_READ_KERNEL),
    ]
}
