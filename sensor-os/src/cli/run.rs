//! `run`: the sensor in the foreground, under whatever supervises it.

use std::os::unix::process::CommandExt as _;
use std::path::Path;

use async_signal::{Signal, Signals};
use smol::stream::StreamExt as _;

use super::{DONE, FAILED, complain};
use crate::agent::{Agent, AgentError, Ended, Handle};
use crate::config::Config;
use crate::logging;

pub(super) fn run(config: &Path) -> i32 {
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return FAILED;
        }
    };
    logging::start(config.log_level.filter());
    let ended = smol::block_on(async {
        let agent = Agent::builder(config).build()?;
        let signals = stop_on_signal(agent.handle());
        smol::future::or(agent.run(), signals).await
    });
    match ended {
        Ok(Ended::Stopped) => DONE,
        Ok(Ended::Restart) => start_again(),
        Err(error) => {
            complain(&error);
            FAILED
        }
    }
}

/// Asks for a stop at the first SIGINT or SIGTERM; the second ends the process at once.
async fn stop_on_signal(handle: Handle) -> Result<Ended, AgentError> {
    match Signals::new([Signal::Int, Signal::Term]) {
        Ok(mut signals) => {
            if signals.next().await.is_some() {
                log::info!("stopping; signal again to end at once");
                handle.stop();
            }
            if signals.next().await.is_some() {
                log::warn!("second signal: ending without waiting");
                std::process::exit(FAILED);
            }
        }
        Err(error) => log::error!("signals cannot be waited for: {error}"),
    }
    std::future::pending().await
}

/// This process becomes the sensor anew: same program, same arguments, same process number.
fn start_again() -> i32 {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            complain(&format!("the program's own file is not known: {error}; start it again"));
            return FAILED;
        }
    };
    let error = std::process::Command::new(&program).args(std::env::args_os().skip(1)).exec();
    complain(&format!("{}: {error}; start the sensor again", program.display()));
    FAILED
}
