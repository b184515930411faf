//! Runs cases: those that may beside each other on several threads, the others alone.
//!
//! Invariant: a case that panics is a FAIL of that case and of nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crate::cases::{Case, Phase, Stop};
use crate::report::{CaseReport, Verdict};

/// What one case came to, without its frame.
pub struct Outcome {
    /// How it ended.
    pub ended: Result<(), Stop>,
    /// What was only weak.
    pub weak: Vec<String>,
}

/// How cases are run.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How many at once.
    pub jobs: usize,
    /// None is begun once one has failed.
    pub is_over_at_a_fail: bool,
}

/// Runs `cases` with `run`; `tell` hears of each as it ends.
pub fn run(
    cases: &[Case],
    Pace { jobs, is_over_at_a_fail }: Pace,
    run: impl Fn(&Case) -> Outcome + Sync,
    tell: impl Fn(&CaseReport) + Sync,
) -> Vec<CaseReport> {
    let (alone, together): (Vec<Case>, Vec<Case>) =
        cases.iter().partition(|case| case.phase == Phase::Alone);
    // The slow ones first: they wait, and others go on meanwhile.
    let (slow, quick): (Vec<Case>, Vec<Case>) =
        together.into_iter().partition(|case| case.phase == Phase::Slow);
    let jobs = jobs.max(1) + slow.len();
    let queue = [slow, quick].concat();
    let (next, reports) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let has_failed = AtomicBool::new(false);
    let judge = |case: &Case| {
        let report = one(case, &run);
        tell(&report);
        has_failed.fetch_or(report.verdict == Verdict::Fail, Ordering::Relaxed);
        report
    };
    let is_over = || is_over_at_a_fail && has_failed.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(case) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if is_over() {
                        break;
                    }
                    let report = judge(case);
                    reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    for case in &alone {
        if is_over() {
            break;
        }
        reports.push(judge(case));
    }
    let place = |report: &CaseReport| cases.iter().position(|case| case.name == report.name);
    reports.sort_by_key(place);
    reports
}

fn one(case: &Case, run: &impl Fn(&Case) -> Outcome) -> CaseReport {
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| run(case))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let text = format!("the case panicked: {}", text.unwrap_or_default());
        Outcome { ended: Err(Stop::Fail(text)), weak: Vec::new() }
    });
    let mut reasons = outcome.weak;
    let verdict = match outcome.ended {
        Ok(()) if reasons.is_empty() => Verdict::Pass,
        Ok(()) => Verdict::Weak,
        Err(Stop::Fail(text)) => {
            reasons.insert(0, text);
            Verdict::Fail
        }
        Err(Stop::Skip(text)) => {
            reasons.insert(0, text);
            Verdict::Skip
        }
    };
    CaseReport {
        name: case.name.into(),
        says: case.says.into(),
        requirements: case.requirements.iter().map(|id| (*id).to_owned()).collect(),
        verdict,
        reasons,
        took: begun.elapsed(),
    }
}
