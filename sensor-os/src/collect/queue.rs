//! The one queue from the collectors to the runner, and each collector's own count.
//!
//! The counts are made here, outside the sensor's core, so that the ledger can compare what was
//! collected with what was delivered: `seen` facts were made, `refused` of them found the queue
//! full, and the rest is what the core was given.
//!
//! Overflow: a full queue refuses the newest fact. Connections, file events and names can be
//! caused by the thousand, and are refused from three quarters on, so that they cannot crowd out
//! the programs that cause them. A collector never waits for the runner, since the kernel would
//! then drop what it has not read. A refused fact raises the collector's alarm, and the collector
//! tells all its rows again at its next scan; an event is lost, and counted.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lapwing_protocol::element::Kind;
use smol::channel::{Receiver, Sender, TrySendError, bounded};

use super::fact::{CollectedFact, ScanMark};
use super::limits::FACTS_WAITING_MAX;

/// Which collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Programs that run.
    Processes,
    /// Connections between sockets.
    Connections,
    /// Changes in watched folders.
    Files,
    /// Names that were looked up.
    Names,
    /// Accounts.
    Users,
    /// Services of the operating system.
    Services,
    /// The machine itself.
    Machine,
}

impl Source {
    /// Every collector.
    pub const ALL: [Self; 7] = [
        Self::Processes,
        Self::Connections,
        Self::Files,
        Self::Names,
        Self::Users,
        Self::Services,
        Self::Machine,
    ];

    /// Its name in health facts and counts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Connections => "connections",
            Self::Files => "files",
            Self::Names => "dns",
            Self::Users => "users",
            Self::Services => "services",
            Self::Machine => "machine",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one collector counted since the sensor started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Facts it made.
    pub seen: u64,
    /// Of these, facts that the full queue refused.
    pub refused: u64,
    /// Times that the kernel said it had lost events.
    pub overflowed: u64,
}

#[derive(Debug, Default)]
struct Counter {
    seen: AtomicU64,
    refused: AtomicU64,
    overflowed: AtomicU64,
    alarm: AtomicBool,
}

/// Rows that are told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Rescan {
    source: Source,
    kind: Kind,
    refused: u64,
}

/// Gives facts to the runner; clones share one queue and one set of counts.
#[derive(Clone, Debug)]
pub struct FactSender {
    queue: Sender<CollectedFact>,
    counters: Arc<[Counter; Source::ALL.len()]>,
}

/// A queue of the standard bound: what collectors give to, and what the runner takes from.
#[must_use]
pub fn fact_queue() -> (FactSender, Receiver<CollectedFact>) {
    fact_queue_of(FACTS_WAITING_MAX)
}

/// A queue that holds `facts`.
pub(crate) fn fact_queue_of(facts: usize) -> (FactSender, Receiver<CollectedFact>) {
    let (queue, receiver) = bounded(facts);
    (FactSender { queue, counters: Arc::default() }, receiver)
}

impl FactSender {
    /// Gives one fact; a full queue refuses and counts it.
    pub(crate) fn give(&self, fact: CollectedFact) {
        let counter = self.counter(fact.source);
        counter.seen.fetch_add(1, Ordering::Relaxed);
        let refused = !self.has_room_for(fact.source)
            || match self.queue.try_send(fact) {
                Ok(()) => false,
                Err(TrySendError::Full(_) | TrySendError::Closed(_)) => true,
            };
        if refused {
            counter.refused.fetch_add(1, Ordering::Relaxed);
            counter.alarm.store(true, Ordering::Relaxed);
        }
    }

    fn has_room_for(&self, source: Source) -> bool {
        let bound = self.queue.capacity().unwrap_or(usize::MAX);
        let share = match source {
            Source::Connections | Source::Files | Source::Names => bound - bound / 4,
            Source::Processes | Source::Users | Source::Services | Source::Machine => bound,
        };
        self.queue.len() < share
    }

    /// Counts that the kernel lost events before `source` could read them.
    pub(crate) fn overflowed(&self, source: Source) {
        let counter = self.counter(source);
        counter.overflowed.fetch_add(1, Ordering::Relaxed);
        counter.alarm.store(true, Ordering::Relaxed);
    }

    /// Counts something that `source` could not follow because of a bound of its own.
    pub(crate) fn not_followed(&self, source: Source) {
        let counter = self.counter(source);
        counter.seen.fetch_add(1, Ordering::Relaxed);
        counter.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins to tell all rows of `kind` again; to be ended by [`Self::end_scan`]. An end that was
    /// refused would otherwise leave its row for ever.
    pub(crate) fn begin_scan(&self, source: Source, kind: Kind) -> Rescan {
        let rescan = Rescan { source, kind, refused: self.count(source).refused };
        self.send_mark(rescan, ScanMark::Begin);
        rescan
    }

    /// Ends it, if all was taken: what was not told since it began has ended. If not, `source` must
    /// tell its rows once more.
    pub(crate) fn end_scan(&self, rescan: Rescan) {
        let counter = self.counter(rescan.source);
        let has_all = counter.refused.load(Ordering::Relaxed) == rescan.refused
            && !counter.alarm.load(Ordering::Relaxed);
        if has_all {
            self.send_mark(rescan, ScanMark::End);
        }
    }

    fn send_mark(&self, rescan: Rescan, mark: ScanMark) {
        let Rescan { source, kind, .. } = rescan;
        if self.queue.try_send(CollectedFact::mark(source, kind, mark)).is_err() {
            self.counter(source).alarm.store(true, Ordering::Relaxed);
        }
    }

    /// Whether `source` lost something since this was last asked, and so must tell its rows again.
    pub(crate) fn take_alarm(&self, source: Source) -> bool {
        self.counter(source).alarm.swap(false, Ordering::Relaxed)
    }

    /// What `source` counted so far.
    #[must_use]
    pub fn count(&self, source: Source) -> Count {
        let counter = self.counter(source);
        Count {
            seen: counter.seen.load(Ordering::Relaxed),
            refused: counter.refused.load(Ordering::Relaxed),
            overflowed: counter.overflowed.load(Ordering::Relaxed),
        }
    }

    #[expect(clippy::indexing_slicing, reason = "one counter for each source")]
    fn counter(&self, source: Source) -> &Counter {
        &self.counters[source.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapwing_protocol::element::Change;

    fn fact(source: Source) -> CollectedFact {
        let kind = Kind(Kind::OWN_FIRST.0);
        super::super::fact::FactBuilder::new(source, kind, Change::Event, 0).build()
    }

    #[test]
    fn a_full_queue_refuses_the_newest_and_says_so() {
        let (sender, receiver) = fact_queue_of(2);
        for _ in 0..3 {
            sender.give(fact(Source::Processes));
        }
        assert_eq!(receiver.len(), 2);
        let count = sender.count(Source::Processes);
        assert_eq!((count.seen, count.refused), (3, 1));
        assert!(sender.take_alarm(Source::Processes));
        assert!(!sender.take_alarm(Source::Processes), "an alarm is taken once");
        assert_eq!(sender.count(Source::Names), Count::default());
    }

    #[test]
    fn rows_that_are_told_again_stand_between_marks_unless_something_is_refused() {
        let (sender, receiver) = fact_queue_of(3);
        let kind = Kind(Kind::OWN_FIRST.0);
        let marks = || -> Vec<_> {
            std::iter::from_fn(|| receiver.try_recv().ok()).map(|fact| fact.scan()).collect()
        };
        for (facts, told) in [
            (1, vec![Some(ScanMark::Begin), None, Some(ScanMark::End)]),
            (2, vec![Some(ScanMark::Begin), None, None]),
            (3, vec![Some(ScanMark::Begin), None, None]),
        ] {
            let rescan = sender.begin_scan(Source::Processes, kind);
            (0..facts).for_each(|_| sender.give(fact(Source::Processes)));
            sender.end_scan(rescan);
            assert_eq!(marks(), told);
            assert_eq!(sender.take_alarm(Source::Processes), facts > 1, "it is done once more");
        }
    }

    #[test]
    fn connections_cannot_crowd_out_processes() {
        let (sender, receiver) = fact_queue_of(8);
        for _ in 0..100 {
            sender.give(fact(Source::Connections));
        }
        assert_eq!(receiver.len(), 6);
        sender.give(fact(Source::Processes));
        assert_eq!(sender.count(Source::Processes).refused, 0);
        assert_eq!(sender.count(Source::Connections).refused, 94);
    }

    #[test]
    fn sources_are_listed_in_the_order_of_their_numbers() {
        for (index, source) in Source::ALL.into_iter().enumerate() {
            assert_eq!(source.index(), index);
        }
    }
}
