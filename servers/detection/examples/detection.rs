//! A Detection server alone: what `lapwing detection --config FILE` runs, without the other roles.
//!
//! The conformance harness builds this one for each of its mutants: of the workspace it needs five
//! crates, where the multi-call binary needs all. Not here: anything that the library has not.

use std::path::Path;
use std::process::ExitCode;

use lapwing_detection::Config;
use lapwing_net::config::{self, Config as _};
use lapwing_net::{logging, runtime, shutdown};

fn main() -> ExitCode {
    let Some(file) = std::env::args_os().nth(1) else {
        eprintln!("usage: detection FILE; `lapwing config example detection` prints one");
        return ExitCode::from(2);
    };
    match serve(Path::new(&file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("detection: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let config: Config = config::load(file)?;
    logging::start(config.server().log_level.into());
    std::fs::create_dir_all(&config.server().data_dir)?;
    runtime::run(runtime::cores(), |executor, trigger, stop| async move {
        let signals = executor.spawn(async move { shutdown::on_signal(trigger).await });
        let ended = lapwing_detection::run(config, executor, stop).await;
        drop(signals);
        ended.map_err(Into::into)
    })
}
