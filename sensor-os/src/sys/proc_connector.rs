//! The kernel's process connector: fork, exec, exit and change of user, as they happen.
//!
//! It needs `CAP_NET_ADMIN` in the first network namespace. It gives no path and no command line;
//! who joins it with those is `collect::join`. Times are boot times.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::netlink::{Netlink, Received, messages, push_header};
use super::{clock, host, native};

const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
const PROC_CN_MCAST_LISTEN: u32 = 1;
const CONNECTOR_HEADER_BYTES: usize = 20;
/// Room for a burst: 4 MiB hold some 16,000 events while this thread hashes or is not scheduled.
const BUFFER_BYTES: usize = 4 << 20;

const EVENT_FORK: u32 = 0x0000_0001;
const EVENT_EXEC: u32 = 0x0000_0002;
const EVENT_UID: u32 = 0x0000_0004;
const EVENT_EXIT: u32 = 0x8000_0000;

/// One thing that happened to a process. Threads are not told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcEvent {
    /// Boot time in nanoseconds.
    pub(crate) time_ns: u64,
    /// The process.
    pub(crate) pid: u32,
    /// What happened.
    pub(crate) what: ProcHappening,
}

/// What happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcHappening {
    /// It was forked off `parent`.
    Forked {
        /// The process that forked, or on whose behalf it was done.
        parent: u32,
    },
    /// It executed a program.
    Executed,
    /// Its effective user changed.
    UserChanged {
        /// The new effective user.
        user: u32,
    },
    /// It ended.
    Exited {
        /// The wait status: exit code in bits 8 to 15, signal in bits 0 to 6.
        status: u32,
    },
}

/// What one reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Everything that was waiting was read.
    Complete,
    /// The kernel dropped events before they were read.
    Lost,
}

/// A subscription to the process connector.
#[derive(Debug)]
pub(crate) struct ProcConnector {
    socket: Netlink,
    buffer: Vec<u8>,
}

impl ProcConnector {
    /// Subscribes.
    ///
    /// # Errors
    ///
    /// Not permitted, or the kernel was built without it.
    pub(crate) fn open() -> io::Result<Self> {
        // Elsewhere the kernel takes the subscription and never says a word.
        host::require_first_process_namespace()?;
        let socket = Netlink::open(libc::NETLINK_CONNECTOR, CN_IDX_PROC)?;
        socket.widen_buffer(BUFFER_BYTES);
        let mut request = Vec::with_capacity(64);
        push_header(&mut request, libc::NLMSG_DONE as u16, 0, CONNECTOR_HEADER_BYTES + 4);
        native::push_u32(&mut request, CN_IDX_PROC);
        native::push_u32(&mut request, CN_VAL_PROC);
        native::push_u32(&mut request, 0); // seq
        native::push_u32(&mut request, 0); // ack
        native::push_u16(&mut request, 4); // length of what follows
        native::push_u16(&mut request, 0); // flags
        native::push_u32(&mut request, PROC_CN_MCAST_LISTEN);
        socket.send(&request)?;
        Ok(Self { socket, buffer: vec![0; 8192] })
    }

    /// Gives the waiting events to `take`, in the kernel's order, of at most `most` datagrams:
    /// where events come faster than they are read, this must end all the same.
    ///
    /// # Errors
    ///
    /// The socket's own.
    pub(crate) fn read(
        &mut self,
        most: usize,
        mut take: impl FnMut(ProcEvent),
    ) -> io::Result<Reading> {
        let suspended_ns = clock::suspended_ns();
        let mut reading = Reading::Complete;
        for _ in 0..most {
            match self.socket.receive(&mut self.buffer)? {
                Received::Nothing => return Ok(reading),
                Received::Overflown => reading = Reading::Lost,
                Received::Bytes(length) => {
                    let datagram = self.buffer.get(..length).unwrap_or(&[]);
                    for message in messages(datagram) {
                        let event = message.payload.get(CONNECTOR_HEADER_BYTES..);
                        if let Some(event) = event.and_then(|event| parse(event, suspended_ns)) {
                            take(event);
                        }
                    }
                }
            }
        }
        Ok(reading)
    }
}

impl AsFd for ProcConnector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One `struct proc_event`: what, cpu, timestamp (monotonic), then a union at offset 16.
fn parse(bytes: &[u8], suspended_ns: u64) -> Option<ProcEvent> {
    let what = native::u32_at(bytes, 0)?;
    let time_ns = native::u64_at(bytes, 8)?.saturating_add(suspended_ns);
    let thread = native::u32_at(bytes, 16)?;
    let process = native::u32_at(bytes, 20)?;
    let event = match what {
        EVENT_FORK => {
            let (child_thread, child) = (native::u32_at(bytes, 24)?, native::u32_at(bytes, 28)?);
            if child_thread != child {
                return None;
            }
            return Some(ProcEvent {
                time_ns,
                pid: child,
                what: ProcHappening::Forked { parent: process },
            });
        }
        EVENT_EXEC => ProcHappening::Executed,
        EVENT_UID if thread == process => {
            ProcHappening::UserChanged { user: native::u32_at(bytes, 28)? }
        }
        EVENT_EXIT if thread == process => {
            ProcHappening::Exited { status: native::u32_at(bytes, 24)? }
        }
        _ => return None,
    };
    Some(ProcEvent { time_ns, pid: process, what: event })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: u32, union: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        native::push_u32(&mut bytes, what);
        native::push_u32(&mut bytes, 0);
        native::push_u32(&mut bytes, 1000);
        native::push_u32(&mut bytes, 0);
        union.iter().for_each(|value| native::push_u32(&mut bytes, *value));
        bytes
    }

    #[test]
    fn a_fork_names_the_parents_process_not_its_thread() {
        let parsed = parse(&event(EVENT_FORK, &[11, 10, 20, 20]), 5);
        let what = ProcHappening::Forked { parent: 10 };
        assert_eq!(parsed, Some(ProcEvent { time_ns: 1005, pid: 20, what }));
    }

    #[test]
    fn a_thread_is_not_a_process() {
        assert_eq!(parse(&event(EVENT_FORK, &[10, 10, 21, 20]), 0), None);
        assert_eq!(parse(&event(EVENT_EXIT, &[21, 20, 0, 17]), 0), None);
    }

    #[test]
    fn an_exit_gives_the_wait_status_and_a_short_record_gives_nothing() {
        let bytes = event(EVENT_EXIT, &[20, 20, 0x0300, 17]);
        assert_eq!(parse(&bytes, 0).unwrap().what, ProcHappening::Exited { status: 0x0300 });
        assert_eq!(parse(&bytes[..26], 0), None);
        assert_eq!(parse(&[], 0), None);
    }
}
