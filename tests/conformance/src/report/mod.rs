//! What became of the cases, for programs and for people.
//!
//! Invariant: what a peer sent is data; it is escaped where it is shown.

pub mod html;
pub mod json;

use std::time::Duration;

/// What a case came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It holds, but a SHOULD is missed.
    Weak,
    /// It could not be looked at; the reason says why.
    Skip,
    /// It does not hold.
    Fail,
}

impl Verdict {
    /// In capitals.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Weak => "WEAK",
            Self::Skip => "SKIP",
            Self::Fail => "FAIL",
        }
    }
}

/// One case.
#[derive(Clone, Debug)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub says: String,
    /// The requirements that it looks at.
    pub requirements: Vec<String>,
    /// What it came to.
    pub verdict: Verdict,
    /// Why, one text each; a FAIL, WEAK or SKIP has at least one.
    pub reasons: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Report {
    /// `server` or `sensor`: what was looked at.
    pub role: String,
    /// Which one.
    pub target: String,
    /// Whoever has it runs the same again: `--seed`.
    pub seed: u64,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    /// How long it took.
    pub took: Duration,
    /// The cases, in their order.
    pub cases: Vec<CaseReport>,
}

impl Report {
    /// How many cases came to `verdict`.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.cases.iter().filter(|case| case.verdict == verdict).count()
    }

    /// The worst verdict of the cases of a requirement; none where no case was run.
    #[must_use]
    pub fn of_requirement(&self, id: &str) -> Option<Verdict> {
        let of = |case: &&CaseReport| case.requirements.iter().any(|named| named == id);
        self.cases.iter().filter(of).map(|case| case.verdict).max()
    }
}
