//! The executor of a server: smol's, with as many threads as the machine has cores.
//!
//! Not here: what runs on it. Invariant: no other runtime; blocking work goes to `smol::unblock`.

use std::future::Future;
use std::sync::Arc;

use crate::shutdown::{self, Shutdown, ShutdownTrigger};

/// What tasks are spawned on; shared by everything in one server.
pub type Executor = Arc<smol::Executor<'static>>;

/// Runs a server's main future on an executor with `threads` threads (the caller's is one of them)
/// until it ends.
///
/// The future gets the executor, and the trigger and the signal of its shutdown. Tasks that still
/// run when it ends are dropped.
pub fn run<T, F>(threads: usize, main: impl FnOnce(Executor, ShutdownTrigger, Shutdown) -> F) -> T
where
    F: Future<Output = T>,
{
    let executor: Executor = Arc::new(smol::Executor::new());
    let (stop, stopped) = shutdown::pair();
    let (trigger, shutdown) = shutdown::pair();
    let workers: Vec<_> = (1..threads)
        .map(|_| {
            let executor = Arc::clone(&executor);
            let stopped = stopped.clone();
            std::thread::spawn(move || smol::block_on(executor.run(stopped.begun())))
        })
        .collect();
    let output =
        smol::block_on(executor.run(main(Arc::clone(&executor), trigger.clone(), shutdown)));
    // Kept to here: a main that does not want the trigger must not begin the shutdown by dropping
    // it.
    drop(trigger);
    stop.begin();
    for worker in workers {
        // A worker only ends by panic when a task panicked; that was reported where it happened.
        let _ = worker.join();
    }
    output
}

/// As many threads as this machine has cores, at least one.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
