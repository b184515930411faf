//! `lapwing-conformance sensor`: plays Registration and Detection servers against a sensor.

use std::path::PathBuf;
use std::time::Instant;

use argh::FromArgs;

use super::server::now_ms;
use crate::cases::sensor::context::{Context, Target};
use crate::cases::{self, Case, Run, Stop};
use crate::report::{CaseReport, Report};
use crate::run::{self, Outcome, Pace};

/// Plays Registration and Detection servers against a sensor. Each case starts the command anew,
/// with an empty folder of its own; what a command must understand is in docs/conformance.md.
#[derive(FromArgs)]
#[argh(subcommand, name = "sensor")]
pub(super) struct Sensor {
    /// the command that is a sensor; it is run by `sh -c`
    #[argh(option)]
    cmd: Option<String>,
    /// write the report as JSON here, and as a page beside it
    #[argh(option)]
    report: Option<PathBuf>,
    /// write the report as a page here
    #[argh(option)]
    html: Option<PathBuf>,
    /// only cases with this in their name, or of this requirement; several with commas
    #[argh(option)]
    only: Option<String>,
    /// leave out the cases that take longer than ten seconds by themselves
    #[argh(switch)]
    quick: bool,
    /// cases at once (default 6)
    #[argh(option, default = "6")]
    jobs: usize,
    /// where chance begins; said in the report
    #[argh(option)]
    seed: Option<u64>,
    /// list the cases and end
    #[argh(switch)]
    list: bool,
}

impl Sensor {
    pub(super) fn run(self) -> Result<bool, String> {
        let cases = super::choose(cases::of_role("sensor"), self.only.as_deref(), self.quick);
        if self.list {
            super::list(&cases);
            return Ok(true);
        }
        if cases.is_empty() {
            return Err("no case fits --only; --list names them".into());
        }
        let command = self.cmd.ok_or("--cmd is missing: the command that is a sensor")?;
        let pace = Pace { jobs: self.jobs, is_over_at_a_fail: false };
        let report = hold(command, &cases, pace, self.seed, super::tell);
        super::finish(&report, self.report.as_deref(), self.html.as_deref())
    }
}

/// Holds `cases` against the sensor; `tell` hears of each as it ends.
pub(super) fn hold(
    command: String,
    cases: &[Case],
    pace: Pace,
    seed: Option<u64>,
    tell: impl Fn(&CaseReport) + Sync,
) -> Report {
    let target = Target { command, seed: seed.unwrap_or_else(now_ms) };
    let (begun, started_ms) = (Instant::now(), now_ms());
    let done = run::run(cases, pace, |case| one(case, &target), tell);
    Report {
        role: "sensor".into(),
        target: target.command,
        seed: target.seed,
        started_ms,
        took: begun.elapsed(),
        cases: done,
    }
}

fn one(case: &Case, target: &Target) -> Outcome {
    let Run::Sensor(run) = case.run else {
        let ended = Err(Stop::Skip("this is a case against servers".into()));
        return Outcome { ended, weak: Vec::new() };
    };
    let mut context = match Context::new(target, case.name) {
        Ok(context) => context,
        Err(error) => {
            let text = format!("the servers cannot be played: {error}");
            return Outcome { ended: Err(Stop::Skip(text)), weak: Vec::new() };
        }
    };
    let mut ended = run(&mut context);
    if let Err(Stop::Fail(text)) = &mut ended {
        let ended = context.subject.ended().unwrap_or_else(|| "the sensor runs".into());
        let faults = context.registration.known().faults.join(", ");
        let words = context.subject.last_words();
        *text = format!("{text}; {ended}; it said last: {words} {faults}");
    }
    Outcome { ended, weak: std::mem::take(&mut context.weak) }
}
