//! What many seeds came to: the coverage table, and the command that replays a failure.

use super::faults::{Coverage, Reached};
use super::world::{Outcome, run};

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Seeds that ran.
    pub seeds: u64,
    /// Facts of all worlds.
    pub facts: u64,
    /// Facts lost.
    pub lost: u64,
    /// Facts doubled.
    pub doubled: u64,
    /// What was reached.
    pub coverage: Coverage,
    /// The first failure.
    pub failure: Option<Outcome>,
}

/// Runs `count` seeds from `from` on, each twice; stops at the first failure.
#[must_use]
pub fn run_seeds(from: u64, count: u64, mut progress: impl FnMut(u64)) -> Report {
    let mut report = Report::default();
    for seed in from..from.saturating_add(count) {
        let mut outcome = run(seed);
        if run(seed).trace != outcome.trace {
            outcome.broken.push("the same seed gave another run".into());
        }
        report.add(&outcome);
        if !outcome.broken.is_empty() {
            report.failure = Some(outcome);
            return report;
        }
        progress(report.seeds);
    }
    report
}

impl Report {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.facts += outcome.facts;
        self.lost += outcome.lost;
        self.doubled += outcome.doubled;
        self.coverage.add(&outcome.coverage);
    }

    /// For a person: the coverage table and, where one failed, what and how to replay it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} seeds, {} facts, {} lost, {} doubled\n",
            self.seeds, self.facts, self.lost, self.doubled
        );
        for reached in Reached::ALL {
            text += &format!("{:<22} {:>8}\n", reached.name(), self.coverage.times(reached));
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
