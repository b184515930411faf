//! `lapwing-simulate`: runs seeds through the simulator and prints what they reached.

use std::path::PathBuf;
use std::process::ExitCode;

use lapwing_tests::simulator::coverage::Reached;
use lapwing_tests::simulator::report::{Report, Runs, run_seeds};
use lapwing_tests::simulator::timeline;

/// Seeds from which on everything must have been reached: a failing seed alone reaches little.
const COVERING_SEEDS: u64 = 1_000;

/// Run seeds through the deterministic simulator: the real cores of sensors, Detection servers and
/// Registration in virtual time, with cuts, kills, power cuts, images, restores and throttling.
/// Exit 1 at the first failure, with the command that replays it.
#[derive(argh::FromArgs)]
struct Arguments {
    /// first seed (default 1)
    #[argh(option, default = "1")]
    from: u64,
    /// how many seeds (default 100); from 1,000 on, what was never reached is a failure
    #[argh(option, default = "100")]
    count: u64,
    /// run each seed twice and compare the two runs
    #[argh(switch)]
    twice: bool,
    /// tell what happens, on standard error; meant for one seed
    #[argh(switch)]
    timeline: bool,
    /// write the figures to this file, as JSON
    #[argh(option)]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Arguments = argh::from_env();
    if arguments.timeline {
        timeline::begin();
    }
    let runs = if arguments.twice { Runs::Twice } else { Runs::Once };
    let report = run_seeds(arguments.from, arguments.count, runs, |seeds| {
        if seeds % 1_000 == 0 || (seeds % 100 == 0 && arguments.count < 5_000) {
            eprintln!("{seeds} of {} seeds", arguments.count);
        }
    });
    print!("{}", report.text());
    if let Some(file) = &arguments.report
        && let Err(error) = std::fs::write(file, json(&report))
    {
        eprintln!("{}: {error}; name a file that can be written", file.display());
        return ExitCode::FAILURE;
    }
    let missing = report.coverage.missing();
    if report.failure.is_none() && arguments.count >= COVERING_SEEDS && !missing.is_empty() {
        eprintln!("never reached: {}", missing.join("; "));
        return ExitCode::FAILURE;
    }
    match report.failure {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    }
}

fn json(report: &Report) -> String {
    let coverage: serde_json::Map<_, _> = Reached::ALL
        .iter()
        .map(|reached| (format!("{reached:?}"), report.coverage.times(*reached).into()))
        .collect();
    serde_json::json!({
        "seeds_run": report.seeds,
        "facts": report.facts,
        "faults": report.faults,
        "stored": report.stored,
        "lost": report.lost,
        "doubled": report.doubled,
        "dropped_covered": report.covered,
        "unknown": report.unknown,
        "covered": report.coverage.missing().is_empty(),
        "coverage": coverage,
        "fault_points": report.coverage.sites,
        "failed_seed": report.failure.as_ref().map(|failure| failure.seed),
    })
    .to_string()
}
