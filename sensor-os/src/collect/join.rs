//! The join: from what fanotify, the process connector and `/proc` each tell, one story of each
//! process.
//!
//! Pure: `now_ns` is an argument, events go in by `handle_*`, what is to be told comes out by
//! `poll_change`, what is to be hashed by `poll_hash_wanted`, and when to call `handle_timeout` by
//! `poll_timeout`. It reads nothing and hashes nothing.
//!
//! The order that events come in is not the order they happened in, and any of them may be lost:
//! * opens are given before the connector's events of the same reading, since an exec's opens come
//!   before the exec; an open may so come before its process' fork, and waits under its number;
//! * `/proc` may already show a later program than the exec that is told of, or another process
//!   under the same number; what it shows is only used where key and file agree;
//! * a hash may come late: the process is told of without it in time, and again with it;
//! * an end waits for its hash (bounded), so that what is learnt of a process never follows its
//!   end.
//!
//! Invariants: an end is told once, after its process; a value is what some source showed of this
//! very process and program, or absent.

mod arguments;
mod opens;
mod process;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub(crate) use arguments::Arguments;
pub(crate) use opens::{Opened, ProgramFormat, format_of};
pub(crate) use process::{Ending, Hash, Process, ProcessChange, Program};

use self::arguments::WaitingArguments;
use self::opens::Opens;
use super::fact::ProcessKey;
use super::limits::{
    ENDED_HASH_PATIENCE, EXEC_PATIENCE, HASH_PATIENCE, OPEN_PATIENCE, PROCESSES_MAX,
};
use super::procfs::{Image, Snapshot, Stat};
use crate::sys::host::FileIdentity;

/// What became of a process that was to be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// It is.
    Yes,
    /// There are too many already.
    TooMany,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Join {
    tick_ns: u64,
    running: BTreeMap<u32, Process>,
    /// Ended, but waiting for a hash.
    ending: BTreeMap<ProcessKey, Process>,
    opens: Opens,
    arguments: WaitingArguments,
    /// Whose hash is awaited.
    awaiting: BTreeSet<ProcessKey>,
    due: BTreeSet<(u64, ProcessKey)>,
    changes: VecDeque<ProcessChange>,
    hashes_wanted: VecDeque<(ProcessKey, Image)>,
}

impl Join {
    /// An empty one; `ticks_per_second` are `/proc`'s.
    pub(crate) fn new(ticks_per_second: u64) -> Self {
        Self {
            tick_ns: 1_000_000_000 / ticks_per_second.max(1),
            running: BTreeMap::new(),
            ending: BTreeMap::new(),
            opens: Opens::default(),
            arguments: WaitingArguments::default(),
            awaiting: BTreeSet::new(),
            due: BTreeSet::new(),
            changes: VecDeque::new(),
            hashes_wanted: VecDeque::new(),
        }
    }

    /// `parent` forked `pid` at `time_ns`; `stat` is what `/proc` shows of it now.
    pub(crate) fn handle_fork(
        &mut self,
        now_ns: u64,
        (pid, parent_pid): (u32, u32),
        time_ns: u64,
        stat: Option<Stat>,
    ) -> Followed {
        let forked_ticks = time_ns / self.tick_ns;
        // A start after the fork is another process' under the same number.
        let shown = stat.filter(|stat| stat.key.start_ticks <= forked_ticks + 1);
        let key = match &shown {
            Some(stat) => stat.key,
            None => ProcessKey { pid, start_ticks: forked_ticks },
        };
        if self.running.get(&pid).is_some_and(|known| known.key == key) {
            return Followed::Yes;
        }
        self.end_replaced(now_ns, pid);
        if self.running.len() >= PROCESSES_MAX {
            return Followed::TooMany;
        }
        let parent = self.running.get(&parent_pid);
        let process = Process::forked(key, time_ns, parent, shown.as_ref());
        self.insert(now_ns, process, EXEC_PATIENCE);
        Followed::Yes
    }

    /// `pid` opened a program to execute it.
    pub(crate) fn handle_open(&mut self, now_ns: u64, pid: u32, opened: Opened) {
        self.opens.push(now_ns, pid, opened);
    }

    /// The kernel saw the arguments of an exec of `pid`, which is told of afterwards.
    pub(crate) fn handle_arguments(&mut self, pid: u32, arguments: Arguments) {
        self.arguments.push(pid, arguments);
    }

    /// `pid` executes a program since `time_ns`; `snapshot` is what `/proc` shows of it now.
    pub(crate) fn handle_exec(
        &mut self,
        now_ns: u64,
        pid: u32,
        time_ns: u64,
        snapshot: Option<Snapshot>,
    ) -> Followed {
        let arguments = self.arguments.take(pid, time_ns);
        if !self.running.contains_key(&pid) {
            if self.running.len() >= PROCESSES_MAX {
                return Followed::TooMany;
            }
            // Its fork was lost. Where /proc shows nothing either, the exec is the earliest time
            // known.
            let process = match &snapshot {
                Some(snapshot) => self.process_shown(snapshot),
                None => {
                    let start_ticks = time_ns / self.tick_ns;
                    Process::unseen(ProcessKey { pid, start_ticks })
                }
            };
            self.insert(now_ns, process, HASH_PATIENCE);
        }
        let Some(process) = self.running.get_mut(&pid) else { return Followed::Yes };
        let snapshot = snapshot.filter(|snapshot| snapshot.stat.key == process.key);
        let (program, current) = self.opens.take_program(pid, snapshot.as_ref());
        if let Some(snapshot) = &snapshot {
            process.learn(snapshot);
        }
        process.program = match (program, snapshot.filter(|_| current)) {
            (opened, Some(snapshot)) => Program::shown(&snapshot, opened),
            (Some(opened), None) => Program::opened(opened),
            (None, None) => Program::default(),
        };
        process.program.called_with(arguments);
        let key = process.key;
        self.await_hash(key);
        self.tell_or_wait(now_ns, key, HASH_PATIENCE);
        Followed::Yes
    }

    /// The hash of a program: `None` where it could not be had.
    pub(crate) fn handle_hash(&mut self, now_ns: u64, identity: FileIdentity, hash: Hash) {
        self.opens.hashed(identity, hash);
        let waiting: Vec<ProcessKey> = self.awaiting.iter().copied().collect();
        for key in waiting {
            let Some(process) = self.process_mut(key) else {
                self.awaiting.remove(&key);
                continue;
            };
            let awaited = process.program.image.as_ref().map(|image| image.identity);
            if awaited != Some(identity) {
                continue;
            }
            process.program.hash = hash;
            self.awaiting.remove(&key);
            self.tell(key);
            self.finish(now_ns, key);
        }
    }

    /// The effective user of `pid` changed.
    pub(crate) fn handle_user(&mut self, now_ns: u64, pid: u32, user: u32) {
        let Some(process) = self.running.get_mut(&pid) else { return };
        if process.user == Some(user) {
            return;
        }
        process.user = Some(user);
        let key = process.key;
        self.schedule(key, now_ns.saturating_add(nanos(EXEC_PATIENCE)));
    }

    /// `pid` ended at `time_ns`. `status` is its wait status, where known.
    pub(crate) fn handle_exit(&mut self, now_ns: u64, pid: u32, time_ns: u64, status: Option<u32>) {
        self.opens.forget(pid);
        let Some(mut process) = self.running.remove(&pid) else { return };
        let key = process.key;
        process.ending = Some(Ending { time_ns, status });
        self.ending.insert(key, process);
        self.finish(now_ns, key);
    }

    /// A scan met a process: answers whether the scan must read all of it.
    pub(crate) fn knows(&self, stat: &Stat) -> bool {
        self.running
            .get(&stat.key.pid)
            .is_some_and(|known| known.key == stat.key && known.has_name(&stat.name))
    }

    /// What a scan read of a process that is new to it, or runs a new program.
    pub(crate) fn handle_snapshot(&mut self, now_ns: u64, snapshot: &Snapshot) -> Followed {
        let key = snapshot.stat.key;
        match self.running.get_mut(&key.pid).filter(|known| known.key == key) {
            Some(known) => {
                known.learn(snapshot);
                let same = match (&known.program.image, &snapshot.image) {
                    (Some(known), Some(shown)) => known.same_file(shown),
                    _ => false,
                };
                let hash = if same { known.program.hash } else { Hash::Awaited };
                known.program = Program::shown(snapshot, None);
                known.program.hash = hash.if_image(known.program.image.is_some());
            }
            None => {
                self.end_replaced(now_ns, key.pid);
                if self.running.len() >= PROCESSES_MAX {
                    return Followed::TooMany;
                }
                let process = self.process_shown(snapshot);
                self.insert(now_ns, process, HASH_PATIENCE);
            }
        }
        self.await_hash(key);
        self.tell_or_wait(now_ns, key, HASH_PATIENCE);
        Followed::Yes
    }

    /// A scan that began at `began_ns` saw the processes `seen`: what started before and was not
    /// seen has ended, nobody told when.
    pub(crate) fn handle_scanned(&mut self, now_ns: u64, began_ns: u64, seen: &BTreeSet<u32>) {
        // Start times are rounded down to ticks.
        let before_ns = began_ns.saturating_sub(2 * self.tick_ns);
        let gone: Vec<u32> = self
            .running
            .values()
            .filter(|process| !seen.contains(&process.key.pid))
            .filter(|process| process.started_ns(self.tick_ns) < before_ns)
            .map(|process| process.key.pid)
            .collect();
        for pid in gone {
            self.handle_exit(now_ns, pid, now_ns, None);
        }
    }

    /// Whoever hashes begins anew, and knows nothing of what was asked before.
    pub(crate) fn handle_hasher_restart(&mut self, now_ns: u64) {
        self.opens.hasher_restarted();
        for key in self.awaiting.clone() {
            let Some(process) = self.process_mut(key) else { continue };
            process.program.opened = false;
            if process.ending.is_some() {
                process.program.hash = Hash::Unseen;
            }
            self.await_hash(key);
            self.finish(now_ns, key);
        }
    }

    /// Tells every process again that is told of and not of its end: something was lost on the way.
    pub(crate) fn tell_all(&mut self) {
        let ending = self.ending.values().filter(|process| process.told);
        let keys: Vec<ProcessKey> =
            self.running.values().chain(ending).map(|process| process.key).collect();
        for key in keys {
            let due_ns = self.process_mut(key).and_then(|process| process.due_ns);
            self.tell(key);
            // An ended one still waits for its hash.
            if self.ending.contains_key(&key)
                && let Some(due_ns) = due_ns
            {
                self.schedule(key, due_ns);
            }
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now_ns: u64) {
        let before_ns = now_ns.saturating_sub(nanos(OPEN_PATIENCE));
        self.opens.expire(before_ns);
        self.arguments.expire(before_ns);
        while let Some((due_ns, key)) = self.due.first().copied() {
            if due_ns > now_ns {
                break;
            }
            self.due.pop_first();
            let Some(process) = self.process_mut(key) else { continue };
            if process.due_ns != Some(due_ns) {
                continue;
            }
            if process.give_up_ns.is_some_and(|give_up_ns| give_up_ns <= now_ns) {
                // Its hash did not come in time.
                process.program.hash = Hash::Unseen;
                self.awaiting.remove(&key);
            }
            self.tell(key);
            self.finish(now_ns, key);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        self.due.first().map(|(due_ns, _)| *due_ns)
    }

    /// What is to be told next.
    pub(crate) fn poll_change(&mut self) -> Option<ProcessChange> {
        self.changes.pop_front()
    }

    /// A running process whose image is to be hashed, which no open gave.
    pub(crate) fn poll_hash_wanted(&mut self) -> Option<(ProcessKey, Image)> {
        self.hashes_wanted.pop_front()
    }

    /// Whether a process with this number runs.
    pub(crate) fn runs(&self, pid: u32) -> bool {
        self.running.contains_key(&pid)
    }

    /// How many processes run.
    #[cfg(test)]
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    fn process_shown(&self, snapshot: &Snapshot) -> Process {
        Process::shown(snapshot, self.tick_ns, self.running.get(&snapshot.stat.parent_pid))
    }

    fn process_mut(&mut self, key: ProcessKey) -> Option<&mut Process> {
        match self.running.get_mut(&key.pid) {
            Some(process) if process.key == key => Some(process),
            _ => self.ending.get_mut(&key),
        }
    }

    fn insert(&mut self, now_ns: u64, process: Process, patience: Duration) {
        let key = process.key;
        self.running.insert(key.pid, process);
        if self.process_mut(key).is_some_and(|process| process.program.hash == Hash::Awaited) {
            self.awaiting.insert(key);
        }
        self.schedule(key, now_ns.saturating_add(nanos(patience)));
    }

    /// Asks for the hash of a program that no open gave.
    fn await_hash(&mut self, key: ProcessKey) {
        let Some(process) = self.process_mut(key) else { return };
        match (process.program.hash, &process.program.image) {
            (Hash::Awaited, Some(image)) => {
                let wanted = (!process.program.opened).then(|| (key, image.clone()));
                self.hashes_wanted.extend(wanted);
                self.awaiting.insert(key);
            }
            _ => {
                self.awaiting.remove(&key);
            }
        }
    }

    fn tell_or_wait(&mut self, now_ns: u64, key: ProcessKey, patience: Duration) {
        if self.awaiting.contains(&key) {
            self.schedule(key, now_ns.saturating_add(nanos(patience)));
        } else {
            self.tell(key);
        }
    }

    /// Makes the process due at `due_ns`, or earlier where it is already.
    fn schedule(&mut self, key: ProcessKey, due_ns: u64) {
        let Some(process) = self.process_mut(key) else { return };
        let before = process.due_ns;
        if before.is_some_and(|before| before <= due_ns) {
            return;
        }
        process.due_ns = Some(due_ns);
        self.due.insert((due_ns, key));
        self.unschedule(key, before);
    }

    fn unschedule(&mut self, key: ProcessKey, due_ns: Option<u64>) {
        if let Some(due_ns) = due_ns {
            self.due.remove(&(due_ns, key));
        }
    }

    fn tell(&mut self, key: ProcessKey) {
        let Some(process) = self.process_mut(key) else { return };
        process.told = true;
        let due_ns = process.due_ns.take();
        let change = ProcessChange::Is(Box::new(process.clone()));
        self.changes.push_back(change);
        self.unschedule(key, due_ns);
    }

    /// Ends a process that has ended, unless its hash is still to come.
    fn finish(&mut self, now_ns: u64, key: ProcessKey) {
        let awaits = self.awaiting.contains(&key);
        let ending = self.ending.len();
        let Some(process) = self.ending.get_mut(&key) else { return };
        if awaits && ending < PROCESSES_MAX {
            let patience_ns = now_ns.saturating_add(nanos(ENDED_HASH_PATIENCE));
            let give_up_ns = *process.give_up_ns.get_or_insert(patience_ns);
            // What is not told yet is told in time, without its hash; its end waits longer.
            if process.due_ns.is_none() {
                self.schedule(key, give_up_ns);
            }
            return;
        }
        if awaits {
            // Too many wait already.
            process.program.hash = Hash::Unseen;
            self.awaiting.remove(&key);
            self.tell(key);
        } else if !process.told || process.due_ns.is_some() {
            self.tell(key);
        }
        if let Some(process) = self.ending.remove(&key) {
            self.changes.extend(process.end_change(self.tick_ns));
        }
    }

    /// Another process has the number now, so the one before has ended.
    fn end_replaced(&mut self, now_ns: u64, pid: u32) {
        if self.running.contains_key(&pid) {
            // What the new one opened waits under the same number.
            let kept = self.opens.take(pid);
            self.handle_exit(now_ns, pid, now_ns, None);
            self.opens.put(pid, kept);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "join/tests.rs"]
mod tests;
