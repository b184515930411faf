//! What the collectors' threads share: where facts go, who runs, who is called what, when to stop.
//!
//! Every lock here is held for a look-up or an insertion and never while something is read from the
//! system.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fact::ProcessKey;
use super::health::HealthBoard;
use super::limits::{PROCESSES_MAX, REMEMBERED_AFTER_END};
use super::procfs::{self, Text};
use super::queue::FactSender;
use super::users::UserNames;
use crate::sys::clock;
use crate::sys::wait::{Interest, Wake, wait};

/// What a collector is given.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) sender: FactSender,
    pub(crate) health: Arc<HealthBoard>,
    pub(crate) processes: Arc<ProcessDirectory>,
    pub(crate) users: Arc<UserNames>,
}

/// Tells one collector's thread to end, and from it whether it waits or works.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    asked: Arc<AtomicBool>,
    /// Since when the thread works, in boot time; 0 while it waits.
    busy_since_ns: Arc<AtomicU64>,
    pub(crate) wake: Arc<Wake>,
}

impl Stop {
    /// # Errors
    ///
    /// The process has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        let wake = Arc::new(Wake::new()?);
        Ok(Self { asked: Arc::default(), busy_since_ns: Arc::default(), wake })
    }

    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.wake.signal();
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// The thread begins to work.
    pub(crate) fn works(&self) {
        self.busy_since_ns.store(clock::boottime_ns(), Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn works_since(&self, since_ns: u64) {
        self.busy_since_ns.store(since_ns, Ordering::Relaxed);
    }

    /// Since when it works, in boot time; 0 while it waits.
    pub(crate) fn busy_since_ns(&self) -> u64 {
        self.busy_since_ns.load(Ordering::Relaxed)
    }

    /// Waits, as [`wait`] does.
    ///
    /// # Errors
    ///
    /// The kernel's own, other than interruption.
    pub(crate) fn wait(
        &self,
        watched: &[(BorrowedFd<'_>, Interest)],
        timeout: Option<Duration>,
    ) -> io::Result<Vec<bool>> {
        self.busy_since_ns.store(0, Ordering::Relaxed);
        let waited = wait(watched, timeout);
        self.works();
        waited
    }
}

/// What other collectors want to know of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProcessBrief {
    pub(crate) key: ProcessKey,
    pub(crate) image_path: Option<Text>,
    pub(crate) user: Option<u32>,
    ended_ns: Option<u64>,
}

impl ProcessBrief {
    pub(crate) fn new(key: ProcessKey, image_path: Option<Text>, user: Option<u32>) -> Self {
        Self { key, image_path, user, ended_ns: None }
    }
}

/// The processes by number, the ended ones for a while too.
#[derive(Debug, Default)]
pub(crate) struct ProcessDirectory {
    processes: Mutex<BTreeMap<u32, ProcessBrief>>,
}

impl ProcessDirectory {
    pub(crate) fn insert(&self, brief: ProcessBrief) {
        let mut processes = self.lock();
        if processes.len() < 2 * PROCESSES_MAX || processes.contains_key(&brief.key.pid) {
            processes.insert(brief.key.pid, brief);
        }
    }

    pub(crate) fn ended(&self, key: ProcessKey, now_ns: u64) {
        if let Some(brief) = self.lock().get_mut(&key.pid)
            && brief.key == key
        {
            brief.ended_ns = Some(now_ns);
        }
    }

    /// Forgets who ended long ago.
    pub(crate) fn expire(&self, now_ns: u64) {
        let patience_ns = u64::try_from(REMEMBERED_AFTER_END.as_nanos()).unwrap_or(u64::MAX);
        self.lock().retain(|_, brief| {
            brief.ended_ns.is_none_or(|ended_ns| now_ns.saturating_sub(ended_ns) < patience_ns)
        });
    }

    /// Who has or had the number `pid` lately; asked of the system where no collector told of it
    /// yet.
    pub(crate) fn find(&self, pid: u32) -> Option<ProcessBrief> {
        if pid == 0 {
            return None;
        }
        let known = self.lock().get(&pid).cloned();
        match known {
            Some(brief) if brief.ended_ns.is_none() => Some(brief),
            // The number may have been used again since. What is left of an ended process says less
            // than what was known of it.
            Some(ended) => read_brief(pid).filter(|now| now.key != ended.key).or(Some(ended)),
            None => read_brief(pid),
        }
    }

    /// The numbers of those that run, the latest first.
    pub(crate) fn latest_first(&self) -> Vec<u32> {
        let mut running: Vec<ProcessKey> = self
            .lock()
            .values()
            .filter(|brief| brief.ended_ns.is_none())
            .map(|brief| brief.key)
            .collect();
        running.sort_by_key(|key| std::cmp::Reverse(key.start_ticks));
        running.into_iter().map(|key| key.pid).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, ProcessBrief>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_brief(pid: u32) -> Option<ProcessBrief> {
    let snapshot = procfs::read_snapshot(pid)?;
    let image_path = snapshot.image.map(|image| image.path);
    Some(ProcessBrief::new(snapshot.stat.key, image_path, snapshot.user))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE: u32 = u32::MAX - 1;

    #[test]
    fn an_ended_process_is_remembered_for_a_while() {
        let directory = ProcessDirectory::default();
        let key = ProcessKey { pid: GONE, start_ticks: 1 };
        directory.insert(ProcessBrief::new(key, None, Some(7)));
        directory.ended(key, 1_000);
        directory.expire(2_000);
        assert_eq!(directory.find(GONE).unwrap().user, Some(7));
        assert!(directory.latest_first().is_empty());
        directory.expire(u64::MAX);
        assert_eq!(directory.find(GONE), None);
    }

    #[test]
    fn a_process_nobody_told_of_is_asked_of_the_system() {
        let directory = ProcessDirectory::default();
        let own = std::process::id();
        assert_eq!(directory.find(own).unwrap().key.pid, own);
        assert_eq!(directory.find(0), None);
    }
}
