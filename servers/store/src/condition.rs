//! Whether an engine's handle may still be used: errors and panics of an engine end here.
//!
//! Not here: any engine. Invariant: after a failed apply or sync, or a panic inside the engine,
//! the handle refuses everything (STO-006, STO-007).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::{Blame, Operation, StoreError};

const RUNNING: u8 = 0;
const STOPPED: u8 = 1;
const BROKEN: u8 = 2;

/// The condition of one handle on the store at `place`.
#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) place: Arc<str>,
    state: AtomicU8,
}

impl Condition {
    pub(crate) fn of(place: &Arc<str>) -> Self {
        Self { place: Arc::clone(place), state: AtomicU8::new(RUNNING) }
    }

    /// Runs `work` on the engine. An error becomes a typed one by `translate`, and so does a panic;
    /// unless it was only a failed read, it is the end of the handle.
    pub(crate) fn run<T, E>(
        &self,
        operation: Operation,
        translate: impl FnOnce(Operation, &Arc<str>, E) -> StoreError,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, StoreError> {
        if self.state.load(Ordering::Acquire) != RUNNING {
            return Err(StoreError::new(operation, &self.place, Blame::Stopped));
        }
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if matches!(operation, Operation::Apply | Operation::Sync) {
                    self.stop();
                }
                Err(translate(operation, &self.place, error))
            }
            Err(panic) => {
                self.state.fetch_max(BROKEN, Ordering::AcqRel);
                let what = panic_text(&*panic);
                Err(StoreError::new(operation, &self.place, Blame::BackEnd(what.into())))
            }
        }
    }

    /// From now on everything is refused.
    pub(crate) fn stop(&self) {
        self.state.fetch_max(STOPPED, Ordering::AcqRel);
    }

    /// Closes `engine`. After a panic its own drop may wait for a thread that is gone, so it is
    /// left behind then.
    pub(crate) fn close<T>(&self, engine: Option<T>) {
        if self.state.load(Ordering::Acquire) == BROKEN {
            std::mem::forget(engine);
        } else if catch_unwind(AssertUnwindSafe(|| drop(engine))).is_err() {
            log::error!("the store at {} failed while it was closed", self.place);
        }
    }
}

/// The words of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_or_a_panic_ends_the_handle_and_a_failed_read_does_not() {
        let place = "a place".into();
        let failed = |operation, place: &Arc<str>, (): ()| {
            StoreError::new(operation, place, Blame::Simulated)
        };
        for (operation, ends) in
            [(Operation::Read, false), (Operation::Apply, true), (Operation::Sync, true)]
        {
            let condition = Condition::of(&place);
            let error = condition.run(operation, failed, || Err::<(), ()>(())).unwrap_err();
            assert_eq!(error.blame, Blame::Simulated);
            let next = condition.run(Operation::Read, failed, || Ok::<(), ()>(()));
            assert_eq!(next.is_err(), ends, "{operation:?}");
        }
        let condition = Condition::of(&place);
        let error = condition.run(Operation::Read, failed, || -> Result<(), ()> { panic!("oh") });
        assert_eq!(error.unwrap_err().blame, Blame::BackEnd("oh".into()));
        let next = condition.run(Operation::Read, failed, || Ok::<(), ()>(()));
        assert_eq!(next.unwrap_err().blame, Blame::Stopped);
    }
}
