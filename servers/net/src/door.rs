//! The thread that does handshakes, apart from those that serve: however many come, one core is
//! all they take, and less where who is inside needs it.
//!
//! Not here: who may begin a handshake (admission.rs, gate.rs).

use std::sync::Arc;

#[cfg(target_os = "linux")]
use crate::limits::DOOR_NICE;
use crate::runtime::Executor;
use crate::shutdown::{self, ShutdownTrigger};

/// A thread for handshakes. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Door {
    executor: Executor,
    _stop: ShutdownTrigger,
}

impl Door {
    /// Starts the thread. Where the operating system gives none, `executor` does its work.
    pub(crate) fn open(executor: &Executor) -> Arc<Self> {
        let (stop, stopped) = shutdown::pair();
        let own = Executor::default();
        let running = Arc::clone(&own);
        let thread = std::thread::Builder::new().name("door".to_owned()).spawn(move || {
            step_back();
            smol::block_on(running.run(stopped.begun()));
        });
        let executor = match thread {
            Ok(_) => own,
            Err(error) => {
                log::warn!("no thread for handshakes ({error}): they are done among the rest");
                Arc::clone(executor)
            }
        };
        Arc::new(Self { executor, _stop: stop })
    }

    /// Where handshakes run.
    pub(crate) fn executor(&self) -> &Executor {
        &self.executor
    }
}

/// Gives this thread a lower priority. Where that is not allowed it stays as it is.
#[cfg(target_os = "linux")]
fn step_back() {
    let lowered = rustix::process::getpriority_process(None)
        .and_then(|now| rustix::process::setpriority_process(None, now + DOOR_NICE));
    if let Err(error) = lowered {
        log::debug!("the priority of handshakes: {error}");
    }
}

/// Elsewhere the priority is the whole process's: it stays as it is.
#[cfg(not(target_os = "linux"))]
fn step_back() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn handshakes_run_on_a_thread_of_their_own_of_less_priority() {
        let before = rustix::process::getpriority_process(None).unwrap();
        let door = Door::open(&Executor::default());
        let there = door.executor().spawn(async {
            let name = std::thread::current().name().map(str::to_owned);
            (name, rustix::process::getpriority_process(None).unwrap())
        });
        let (name, priority) = smol::block_on(there);
        assert_eq!(name.as_deref(), Some("door"));
        assert_eq!(priority, (before + DOOR_NICE).min(19));
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
    }
}
