//! A collector's thread: how it begins, how it is seen to be well, how it ends.
//!
//! A thread may end that nobody asked to (a panic, a kernel without memory), or wait for ever for
//! what does not answer (a network file, a process whose memory does). Neither holds up the sensor:
//! ends are waited for within a bound, and who hangs is left behind.

use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::shared::Stop;
use crate::sys::clock;

/// Stack of a collector's thread. Paths and packets live on the heap.
const STACK_BYTES: usize = 256 << 10;
/// Between two looks whether a thread has ended.
const LOOK: Duration = Duration::from_millis(2);

/// A collector's thread, and how to end it.
#[derive(Debug)]
pub(super) struct Running<M> {
    pub(super) stop: Stop,
    thread: JoinHandle<M>,
}

/// How a collector's thread ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended<M> {
    /// It gave back what it knows.
    Knowing(M),
    /// What it knew is lost.
    Panicked,
    /// It hangs, and is left behind: when it goes on, it sees that it was asked to stop.
    Hanging,
}

impl<M> Ended<M> {
    /// What it knew, if that is not lost.
    pub(super) fn memory(self) -> Option<M> {
        match self {
            Self::Knowing(memory) => Some(memory),
            Self::Panicked | Self::Hanging => None,
        }
    }

    /// Why it ended, for a person.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Knowing(_) => "its thread gave up",
            Self::Panicked => "its thread panicked",
            Self::Hanging => "its thread hangs",
        }
    }
}

impl<M: Send + 'static> Running<M> {
    /// Begins a thread.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub(super) fn start(
        name: &str,
        stop: Stop,
        run: impl FnOnce() -> M + Send + 'static,
    ) -> io::Result<Self> {
        stop.works();
        let thread = Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(run)?;
        Ok(Self { stop, thread })
    }

    /// Whether it ended, asked or not.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// How long it has been at one thing.
    pub(super) fn busy(&self) -> Duration {
        match self.stop.busy_since_ns() {
            0 => Duration::ZERO,
            since_ns => Duration::from_nanos(clock::boottime_ns().saturating_sub(since_ns)),
        }
    }

    /// Waits for its end, not beyond `until`, and takes what it knows.
    pub(super) fn join(self, until: Instant) -> Ended<M> {
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                return Ended::Hanging;
            }
            std::thread::sleep(LOOK);
        }
        self.thread.join().map_or(Ended::Panicked, Ended::Knowing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn a_thread_that_hangs_is_left_behind_and_one_that_panics_is_told() {
        let (go_on, wait) = channel::<()>();
        let hanging = Running::start("hangs", Stop::new().unwrap(), move || wait.recv().is_ok());
        assert_eq!(hanging.unwrap().join(Instant::now()), Ended::Hanging);
        drop(go_on);
        let panics = Running::start("panics", Stop::new().unwrap(), || panic!("as wanted"));
        assert_eq!(panics.unwrap().join(soon()), Ended::<()>::Panicked);
        let ends = Running::start("ends", Stop::new().unwrap(), || 7).unwrap();
        assert_eq!(ends.join(soon()).memory(), Some(7));
    }

    #[test]
    fn a_thread_is_busy_but_for_its_waits() {
        let stop = Stop::new().unwrap();
        assert_eq!(stop.busy_since_ns(), 0);
        stop.works();
        assert!(stop.busy_since_ns() > 0);
        stop.wake.signal();
        assert_eq!(stop.wait(&[stop.wake.watched()], None).unwrap(), [true]);
        assert!(stop.busy_since_ns() > 0, "it works again");
    }
}
