//! `lapwing-load`: replays a corpus as many sensors and prints what it cost.

use std::process::ExitCode;

use lapwing_tests::load::{self, Arguments};

fn main() -> ExitCode {
    let arguments: Arguments = argh::from_env();
    if let Err(problem) = arguments.check() {
        eprintln!("lapwing-load: {problem}");
        return ExitCode::from(2);
    }
    let report = match load::run(&arguments) {
        Ok(report) => report,
        Err(problem) => {
            eprintln!("lapwing-load: {problem}");
            return ExitCode::FAILURE;
        }
    };
    print!("{}", report.json());
    if let Some(file) = &arguments.report
        && let Err(error) = std::fs::write(file, report.json())
    {
        eprintln!("{}: {error}; name a file that can be written", file.display());
        return ExitCode::FAILURE;
    }
    if report.missing() == 0 && report.unfinished() == 0 {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "lapwing-load: {} facts are missing, {} sensors did not finish",
        report.missing(),
        report.unfinished()
    );
    ExitCode::FAILURE
}
