//! What many seeds came to: figures, the coverage table, and the command that replays a failure.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use lapwing_protocol::buggify::SITES;

use super::coverage::{Coverage, Reached};
use super::world::{Outcome, run};

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Seeds that ran.
    pub seeds: u64,
    /// Facts of all worlds.
    pub facts: u64,
    /// Facts stored exactly once.
    pub stored: u64,
    /// Facts lost.
    pub lost: u64,
    /// Facts doubled.
    pub doubled: u64,
    /// Facts dropped that a Jump or a Dropped op covers.
    pub covered: u64,
    /// Facts that went with a crash, an image or a backup.
    pub unknown: u64,
    /// Faults of all worlds.
    pub faults: u64,
    /// What was reached.
    pub coverage: Coverage,
    /// The failure of the lowest seed.
    pub failure: Option<Outcome>,
}

/// How often each seed runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// Once.
    Once,
    /// Twice, and both must be the same run.
    Twice,
}

/// Runs `count` seeds from `from` on, on all processors; stops at the first failure.
///
/// `progress` hears how many seeds are done. The report does not depend on the number of
/// processors: where several seeds fail, the lowest is told of.
#[must_use]
pub fn run_seeds(from: u64, count: u64, runs: Runs, progress: impl Fn(u64) + Sync) -> Report {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(from);
    let done = AtomicU64::new(0);
    let has_failed = AtomicBool::new(false);
    let outcomes: Mutex<BTreeMap<u64, Outcome>> = Mutex::new(BTreeMap::new());
    let report = Mutex::new(Report::default());
    let lock = |failure: Outcome| {
        let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.insert(failure.seed, failure);
    };
    let work = || {
        while !has_failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from.saturating_add(count) {
                return;
            }
            let outcome = run_one(seed, runs);
            report.lock().unwrap_or_else(PoisonError::into_inner).add(&outcome);
            if !outcome.broken.is_empty() {
                has_failed.store(true, Ordering::Relaxed);
                lock(outcome);
            }
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failures = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.failure = failures.into_values().next();
    report
}

fn run_one(seed: u64, runs: Runs) -> Outcome {
    let mut outcome = run(seed);
    if runs == Runs::Twice && run(seed) != outcome {
        outcome.broken.push("the same seed gave another run".into());
    }
    outcome
}

impl Report {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.facts += outcome.facts;
        self.stored += outcome.stored;
        self.lost += outcome.lost;
        self.doubled += outcome.doubled;
        self.covered += outcome.covered;
        self.unknown += outcome.unknown;
        self.faults += outcome.faults;
        self.coverage.add(&outcome.coverage);
    }

    /// For a person: the coverage table and, where one failed, what and how to replay it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} seeds, {} facts, {} faults: {} stored once, {} lost, {} doubled,\n\
             {} dropped and covered by a Jump or a Dropped op, {} gone with a crash, an image or a \
             backup\n",
            self.seeds,
            self.facts,
            self.faults,
            self.stored,
            self.lost,
            self.doubled,
            self.covered,
            self.unknown
        );
        let mut group = "";
        for reached in Reached::ALL {
            if reached.group() != group {
                group = reached.group();
                text += &format!("{group}\n");
            }
            text += &format!("  {:<68} {:>9}\n", reached.text(), self.coverage.times(*reached));
        }
        text += "fault point\n";
        for site in SITES {
            let times = self.coverage.sites.get(site).copied().unwrap_or_default();
            text += &format!("  {site:<68} {times:>9}\n");
        }
        if let Some(failure) = &self.failure {
            text += &format!("seed {} failed:\n", failure.seed);
            for broken in &failure.broken {
                text += &format!("  {broken}\n");
            }
            text += &format!("replay: lapwing-simulate --from {} --count 1\n", failure.seed);
        }
        text
    }
}
