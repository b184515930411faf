//! `lapwing-simulate`: runs seeds through the simulator and prints what they reached.

use std::path::PathBuf;
use std::process::ExitCode;

use lapwing_tests::simulator::faults::Reached;
use lapwing_tests::simulator::report::{Report, run_seeds};

/// Run seeds through the deterministic simulator: the real sensor and server cores in virtual time,
/// with cuts, kills, power cuts and throttling. Exit 1 at the first failure, with the command that
/// replays it.
#[derive(argh::FromArgs)]
struct Arguments {
    /// first seed (default 1)
    #[argh(option, default = "1")]
    from: u64,
    /// how many seeds (default 100)
    #[argh(option, default = "100")]
    count: u64,
    /// write the figures to this file, as JSON
    #[argh(option)]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Arguments = argh::from_env();
    let report = run_seeds(arguments.from, arguments.count, |seeds| {
        if seeds % 100 == 0 {
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
    match report.failure {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    }
}

fn json(report: &Report) -> String {
    let coverage: serde_json::Map<_, _> = Reached::ALL
        .into_iter()
        .map(|reached| (reached.name(), report.coverage.times(reached).into()))
        .collect();
    serde_json::json!({
        "seeds_run": report.seeds,
        "facts": report.facts,
        "lost": report.lost,
        "doubled": report.doubled,
        "covered": report.coverage.missing().is_empty(),
        "coverage": coverage,
        "failed_seed": report.failure.as_ref().map(|failure| failure.seed),
    })
    .to_string()
}
