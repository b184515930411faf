//! The command line: what was asked for, done, told, and the exit code.
//!
//! Exit codes: 0 nothing failed, 1 a case failed or the run could not begin, 2 bad usage.

mod mutants;
mod prepare;
mod sensor;
mod server;

use std::path::Path;
use std::process::ExitCode;

use argh::{EarlyExit, FromArgs};

use crate::cases::{Case, Phase};
use crate::report::{CaseReport, Report, Verdict, html, json};

/// Holds servers and sensors against docs/protocol.md.
#[derive(FromArgs)]
struct Arguments {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Server(Box<server::Server>),
    Sensor(sensor::Sensor),
    Prepare(prepare::Prepare),
    Mutants(mutants::Mutants),
}

/// Runs the command line and gives the exit code.
#[must_use]
pub fn main(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let parsed = Arguments::from_args(&["lapwing-conformance"], &words);
    let command = match parsed {
        Ok(Arguments { command }) => command,
        Err(EarlyExit { output, status: Ok(()) }) => {
            println!("{output}");
            return ExitCode::SUCCESS;
        }
        Err(EarlyExit { output, status: Err(()) }) => {
            eprintln!("{output}");
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Server(server) => server.run(),
        Command::Sensor(sensor) => sensor.run(),
        Command::Prepare(prepare) => prepare.run(),
        Command::Mutants(mutants) => mutants.run(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lapwing-conformance: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The cases that `--only` and `--quick` leave. `only` is part of a name or a requirement's number;
/// several are separated by commas.
fn choose(cases: Vec<Case>, only: Option<&str>, quick: bool) -> Vec<Case> {
    let wanted = |case: &Case| {
        only.is_none_or(|only| {
            only.split(',')
                .any(|part| case.name.contains(part) || case.requirements.contains(&part))
        })
    };
    let fits = |case: &Case| wanted(case) && !(quick && case.phase == Phase::Slow);
    cases.into_iter().filter(fits).collect()
}

fn list(cases: &[Case]) {
    for case in cases {
        println!("{}: {} [{}]", case.name, case.says, case.requirements.join(", "));
    }
}

/// One line for each case as it ends.
fn tell(report: &CaseReport) {
    let seconds = report.took.as_secs_f64();
    eprintln!("{} {} ({seconds:.2} s)", report.verdict.name(), report.name);
    for reason in &report.reasons {
        eprintln!("     {}", printable(reason));
    }
}

/// A peer's text on a terminal: control characters are named, not obeyed.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|sign| {
            let escaped = sign.is_control() && sign != '\n';
            let plain = (!escaped).then_some(sign);
            plain.into_iter().chain(sign.escape_unicode().filter(move |_| escaped))
        })
        .collect()
}

/// Writes the report where it was asked for, and says in a line what came of it.
fn finish(report: &Report, file: Option<&Path>, page: Option<&Path>) -> Result<bool, String> {
    let rendered = json::render(report);
    if let Some(file) = file {
        write(file, &format!("{rendered:#}\n"))?;
    }
    let beside = file.map(|file| file.with_extension("html"));
    if let Some(page) = page.or(beside.as_deref()) {
        write(page, &html::render(report))?;
    }
    let [pass, weak, fail, skip] = [Verdict::Pass, Verdict::Weak, Verdict::Fail, Verdict::Skip]
        .map(|verdict| report.count(verdict));
    let seconds = report.took.as_secs_f64();
    println!("{pass} PASS, {weak} WEAK, {fail} FAIL, {skip} SKIP in {seconds:.1} s");
    Ok(fail == 0)
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|error| {
        format!("cannot write {}: {error}; name a file in a folder that exists", file.display())
    })
}
