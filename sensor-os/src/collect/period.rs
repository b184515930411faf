//! When something periodic is due, with jitter, so that a fleet that was started at once does not
//! scan at once for ever.
//!
//! The jitter is drawn from a hash of the clock: it needs to differ between machines, not to be
//! secret.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use crate::sys::clock;

/// Something that is due again and again, each time within an eighth of its period.
#[derive(Debug)]
pub(crate) struct Period {
    period_ns: u64,
    due_ns: u64,
    jitter: RandomState,
}

impl Period {
    /// First due a period from now.
    pub(crate) fn new(period: Duration) -> Self {
        let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let mut new = Self { period_ns, due_ns: 0, jitter: RandomState::new() };
        new.restart(clock::boottime_ns());
        new
    }

    /// Whether it is due; if so, the next time begins.
    pub(crate) fn is_due(&mut self, now_ns: u64) -> bool {
        let due = now_ns >= self.due_ns;
        if due {
            self.restart(now_ns);
        }
        due
    }

    /// When it is due.
    pub(crate) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Makes it due at once.
    pub(crate) fn make_due(&mut self) {
        self.due_ns = 0;
    }

    /// Changes the period; what is due stays due.
    pub(crate) fn set(&mut self, period: Duration, now_ns: u64) {
        let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        if period_ns != self.period_ns {
            self.period_ns = period_ns;
            let due_ns = self.due_ns;
            self.restart(now_ns);
            self.due_ns = self.due_ns.min(due_ns);
        }
    }

    fn restart(&mut self, now_ns: u64) {
        let spread = (self.period_ns / 8).max(1);
        let jitter = self.jitter.hash_one(now_ns) % spread;
        self.due_ns = now_ns.saturating_add(self.period_ns - spread / 2).saturating_add(jitter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_about_once_a_period() {
        let mut period = Period::new(Duration::from_secs(8));
        period.make_due();
        let second = 1_000_000_000;
        assert!(period.is_due(100 * second));
        assert!(!period.is_due(107 * second));
        assert!(period.is_due(109 * second));
    }
}
