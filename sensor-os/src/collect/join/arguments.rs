//! Command lines as the kernel saw them, until the exec that they belong to is told of.

use std::collections::{BTreeMap, VecDeque};

use crate::collect::limits::{ARGUMENTS_PER_PROCESS_MAX, OPENING_PROCESSES_MAX};
use crate::collect::procfs::Text;

/// The arguments of one exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// Boot time: a little before the exec is told of.
    pub(crate) time_ns: u64,
    /// Separated by spaces.
    pub(crate) command_line: Text,
    /// Whether they are only the beginning.
    pub(crate) is_cut: bool,
}

/// The arguments that wait for their exec, by process number.
#[derive(Debug, Default)]
pub(super) struct WaitingArguments {
    waiting: BTreeMap<u32, VecDeque<Arguments>>,
}

impl WaitingArguments {
    pub(super) fn push(&mut self, pid: u32, arguments: Arguments) {
        if self.waiting.len() >= OPENING_PROCESSES_MAX && !self.waiting.contains_key(&pid) {
            return;
        }
        let waiting = self.waiting.entry(pid).or_default();
        if waiting.len() >= ARGUMENTS_PER_PROCESS_MAX {
            waiting.pop_front();
        }
        waiting.push_back(arguments);
    }

    /// The arguments of the exec that is told of as having been at `time_ns`: the last ones before
    /// it. Those before them belong to execs that were not told of.
    pub(super) fn take(&mut self, pid: u32, time_ns: u64) -> Option<Arguments> {
        let waiting = self.waiting.get_mut(&pid)?;
        let mut taken = None;
        while waiting.front().is_some_and(|arguments| arguments.time_ns <= time_ns) {
            taken = waiting.pop_front();
        }
        if waiting.is_empty() {
            self.waiting.remove(&pid);
        }
        taken
    }

    /// Forgets what came before `before_ns`.
    pub(super) fn expire(&mut self, before_ns: u64) {
        self.waiting.retain(|_, waiting| {
            waiting.retain(|arguments| arguments.time_ns >= before_ns);
            !waiting.is_empty()
        });
    }
}
