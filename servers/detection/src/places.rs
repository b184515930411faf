//! Who gets a place on this server: as many sensors as it takes, and no new one where the graph is
//! full.
//!
//! Invariant: places that are taken are as many as sensors with an open session, and never more
//! than the capacity was when the last one was taken.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The places for sensors.
#[derive(Debug, Default)]
pub(crate) struct Places {
    taken: AtomicUsize,
    is_crowded: AtomicBool,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// All are taken.
    Capacity,
    /// The rows of those who are known fill the graph.
    Graph,
}

impl NoPlace {
    /// Its name in the metrics.
    pub(crate) const fn cause(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Graph => "graph",
        }
    }

    /// What the sensor is told.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Capacity => "this server has all the sensors it takes",
            Self::Graph => "this server's graph has no room for another sensor",
        }
    }
}

impl Places {
    /// Whether a sensor that was never here may come.
    pub(crate) fn check_newcomer(&self, capacity: usize) -> Result<(), NoPlace> {
        if self.is_crowded.load(Ordering::Relaxed) {
            Err(NoPlace::Graph)
        } else if self.taken() >= capacity {
            Err(NoPlace::Capacity)
        } else {
            Ok(())
        }
    }

    /// Takes a place of `capacity`.
    pub(crate) fn take(&self, capacity: usize) -> Result<(), NoPlace> {
        let one_more = |taken: usize| (taken < capacity).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        taken.map(drop).map_err(|_| NoPlace::Capacity)
    }

    /// Gives a place back.
    pub(crate) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }

    /// Places that are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// The graph is, or is no longer, full of living rows.
    pub(crate) fn set_crowded(&self, is_crowded: bool) {
        if self.is_crowded.swap(is_crowded, Ordering::Relaxed) != is_crowded {
            let what = if is_crowded { "no new sensor is" } else { "new sensors are" };
            log::warn!("the graph's living rows: {what} taken from here on");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn of_many_who_come_at_once_no_more_than_the_capacity_get_a_place() {
        let (places, start) = (Places::default(), Barrier::new(8));
        let come = || {
            start.wait();
            (0..50).filter(|_| places.take(100).is_ok()).count()
        };
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(come)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((taken, places.taken()), (100, 100));
        assert_eq!(places.check_newcomer(100), Err(NoPlace::Capacity));
        places.give_back();
        assert_eq!(places.check_newcomer(100), Ok(()));
        places.set_crowded(true);
        assert_eq!(places.check_newcomer(100), Err(NoPlace::Graph));
        assert_eq!(places.take(100), Ok(()), "a sensor whose rows are here already may come");
    }
}
