//! One small program in the kernel that tells the arguments of every program that is executed.
//!
//! It is attached to the raw tracepoint `sched_process_exec`, which runs in the process that
//! executes, when its new memory holds the arguments and before its first instruction: so the
//! arguments are read even of a program that ends before anybody could look.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{
    ADD_IMMEDIATE, CALL, CALL_CURRENT_PID_TGID, CALL_KTIME_BOOT_NS, CALL_PROBE_READ_KERNEL,
    CALL_PROBE_READ_USER, CALL_RINGBUF_RESERVE, CALL_RINGBUF_SUBMIT, EXIT, FRAME, JUMP_ALWAYS,
    JUMP_EQUAL_IMMEDIATE, JUMP_NOT_ABOVE_IMMEDIATE, LOAD_U64, LOAD_WIDE, MOVE, MOVE_IMMEDIATE,
    PSEUDO_MAP_FD, Ring, STORE_IMMEDIATE_U64, STORE_U64, SUBTRACT, TracerReading, attach, load,
    step,
};
use crate::sys::native;

/// Bytes of the ring: about 250 long or 1,700 short command lines may wait for us.
const RING_BYTES: usize = 512 << 10;
/// Records come in two sizes, since most command lines are short.
const SHORT_BYTES: i32 = 288;
const LONG_BYTES: i32 = 2_080;

const AT_TIME: i16 = 0;
const AT_PID: i16 = 8;
const AT_LENGTH: i16 = 16;
const AT_ARGUMENTS: i32 = 24;

/// Where the fields lie in the kernel's task, in bytes from the start of their structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExecLayout {
    /// `task_struct.mm`.
    pub(crate) memory: i32,
    /// `mm_struct.arg_start`.
    pub(crate) arguments_start: i32,
    /// `mm_struct.arg_end`.
    pub(crate) arguments_end: i32,
}

/// The arguments of one execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExecArguments<'a> {
    /// Boot time in nanoseconds: a little before the process connector tells of the same execution.
    pub(crate) time_ns: u64,
    /// The process.
    pub(crate) pid: u32,
    /// Each argument ended by a NUL; what is longer than a record is cut.
    pub(crate) arguments: &'a [u8],
    /// Whether it was cut.
    pub(crate) is_cut: bool,
}

/// The attached program and its ring.
#[derive(Debug)]
pub(crate) struct ExecTracer {
    ring: Ring,
    _attachment: OwnedFd,
}

impl ExecTracer {
    /// Loads and attaches the program.
    ///
    /// # Errors
    ///
    /// Not permitted, or the kernel is too old or built without it.
    pub(crate) fn attach(layout: &ExecLayout) -> io::Result<Self> {
        let ring = Ring::create(RING_BYTES)?;
        let program = load(&program(layout, ring.map.as_raw_fd()))?;
        let attachment = attach(&program, c"sched_process_exec")?;
        Ok(Self { ring, _attachment: attachment })
    }

    /// Gives every waiting execution to `take`, in the kernel's order.
    pub(crate) fn read(&mut self, mut take: impl FnMut(ExecArguments<'_>)) -> TracerReading {
        self.ring.read(|record| {
            if let Some(arguments) = parse(record) {
                take(arguments);
            }
        })
    }
}

impl AsFd for ExecTracer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.map.as_fd()
    }
}

/// Registers that calls leave alone: the task's memory, then where its arguments start; their
/// length.
const MEMORY: u8 = 6;
const START: u8 = 7;
const LENGTH: u8 = 8;
const RECORD: u8 = 9;

fn program(layout: &ExecLayout, ring: i32) -> Vec<u64> {
    let mut steps = vec![step(LOAD_U64, MEMORY, 1, 0, 0)];
    steps.extend(read_kernel(MEMORY, layout.memory, -8));
    steps.push(step(LOAD_U64, MEMORY, FRAME, -8, 0));
    steps.extend(read_kernel(MEMORY, layout.arguments_start, -8));
    steps.push(step(LOAD_U64, START, FRAME, -8, 0));
    steps.extend(read_kernel(MEMORY, layout.arguments_end, -8));
    steps.push(step(LOAD_U64, LENGTH, FRAME, -8, 0));
    steps.push(step(SUBTRACT, LENGTH, START, 0, 0));
    let short = record_steps(ring, SHORT_BYTES);
    let skip = i16::try_from(short.len()).unwrap_or(0);
    steps.push(step(JUMP_NOT_ABOVE_IMMEDIATE, LENGTH, 0, 1, SHORT_BYTES - AT_ARGUMENTS));
    steps.push(step(JUMP_ALWAYS, 0, 0, skip, 0));
    steps.extend(short);
    steps.extend(record_steps(ring, LONG_BYTES));
    steps
}

/// Reads eight bytes at `offset` behind the address in `base` to `at` in the frame.
fn read_kernel(base: u8, offset: i32, at: i32) -> [u64; 6] {
    [
        step(MOVE, 1, FRAME, 0, 0),
        step(ADD_IMMEDIATE, 1, 0, 0, at),
        step(MOVE_IMMEDIATE, 2, 0, 0, 8),
        step(MOVE, 3, base, 0, 0),
        step(ADD_IMMEDIATE, 3, 0, 0, offset),
        step(CALL, 0, 0, 0, CALL_PROBE_READ_KERNEL),
    ]
}

/// Writes one record of `bytes` and ends.
fn record_steps(ring: i32, bytes: i32) -> Vec<u64> {
    let room = bytes - AT_ARGUMENTS;
    vec![
        step(LOAD_WIDE, 1, PSEUDO_MAP_FD, 0, ring),
        step(0, 0, 0, 0, 0),
        step(MOVE_IMMEDIATE, 2, 0, 0, bytes),
        step(MOVE_IMMEDIATE, 3, 0, 0, 0),
        step(CALL, 0, 0, 0, CALL_RINGBUF_RESERVE),
        step(JUMP_EQUAL_IMMEDIATE, 0, 0, 18, 0),
        step(MOVE, RECORD, 0, 0, 0),
        step(CALL, 0, 0, 0, CALL_KTIME_BOOT_NS),
        step(STORE_U64, RECORD, 0, AT_TIME, 0),
        step(CALL, 0, 0, 0, CALL_CURRENT_PID_TGID),
        step(STORE_U64, RECORD, 0, AT_PID, 0),
        step(STORE_U64, RECORD, LENGTH, AT_LENGTH, 0),
        // The verifier wants to see that no more is read than there is room for.
        step(MOVE, 2, LENGTH, 0, 0),
        step(JUMP_NOT_ABOVE_IMMEDIATE, 2, 0, 1, room),
        step(MOVE_IMMEDIATE, 2, 0, 0, room),
        step(MOVE, 1, RECORD, 0, 0),
        step(ADD_IMMEDIATE, 1, 0, 0, AT_ARGUMENTS),
        step(MOVE, 3, START, 0, 0),
        step(CALL, 0, 0, 0, CALL_PROBE_READ_USER),
        step(JUMP_EQUAL_IMMEDIATE, 0, 0, 1, 0),
        // What could not be read has no length.
        step(STORE_IMMEDIATE_U64, RECORD, 0, AT_LENGTH, 0),
        step(MOVE, 1, RECORD, 0, 0),
        step(MOVE_IMMEDIATE, 2, 0, 0, 0),
        step(CALL, 0, 0, 0, CALL_RINGBUF_SUBMIT),
        step(MOVE_IMMEDIATE, 0, 0, 0, 0),
        step(EXIT, 0, 0, 0, 0),
    ]
}

fn parse(record: &[u8]) -> Option<ExecArguments<'_>> {
    let at = |offset: i16| usize::try_from(offset).unwrap_or(usize::MAX);
    let length = usize::try_from(native::u64_at(record, at(AT_LENGTH))?).ok()?;
    let room = record.get(usize::try_from(AT_ARGUMENTS).ok()?..)?;
    let arguments = room.get(..length).unwrap_or(room);
    (!arguments.is_empty()).then_some(ExecArguments {
        time_ns: native::u64_at(record, at(AT_TIME))?,
        pid: u32::try_from(native::u64_at(record, at(AT_PID))? >> 32).ok()?,
        is_cut: arguments.len() < length,
        arguments,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_as_many_bytes_as_were_read() {
        let mut record = Vec::new();
        for value in [7_u64, 42 << 32, 5] {
            native::push_u64(&mut record, value);
        }
        record.extend_from_slice(b"ls\0-l\0stale");
        let parsed = parse(&record).unwrap();
        assert_eq!((parsed.pid, parsed.time_ns, parsed.is_cut), (42, 7, false));
        assert_eq!(parsed.arguments, b"ls\0-l");
        record[16] = 200;
        assert!(parse(&record).unwrap().is_cut);
        record[16] = 0;
        assert_eq!(parse(&record), None);
        assert_eq!(parse(&record[..20]), None);
    }
}
