//! Log lines about misbehaving peers, at a bounded rate: an attacker must not fill the disk by
//! misbehaving.
//!
//! Pure but for the logging itself. Invariant: what is not logged is counted, and the count is
//! logged.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use crate::clock;
use crate::limits::{COMPLAINT_PERIOD, COMPLAINTS_MAX};
use crate::logging::escaped;

/// A log of complaints with a bound.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<Window>);

#[derive(Debug, Default, Clone, Copy)]
struct Window {
    began_ms: u64,
    written: u32,
    withheld: u64,
}

/// What to do with one complaint.
#[derive(Debug, PartialEq, Eq)]
struct Ruling {
    write: bool,
    /// Withheld in the period before, to be told now.
    told: u64,
}

impl Complaints {
    /// Logs that the connection from `source` was closed, and why, if the bound allows.
    pub fn closed(&self, source: SocketAddr, reason: &dyn std::fmt::Display) {
        let ruling =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).rule(clock::monotonic_ms());
        if ruling.told > 0 {
            log::warn!("{} more connections were closed for cause", ruling.told);
        }
        if ruling.write {
            log::warn!("{source}: closed: {}", escaped(&reason.to_string()));
        }
    }
}

impl Window {
    fn rule(&mut self, now_ms: u64) -> Ruling {
        let period_ms = u64::try_from(COMPLAINT_PERIOD.as_millis()).unwrap_or(u64::MAX);
        let mut told = 0;
        if now_ms.saturating_sub(self.began_ms) >= period_ms {
            told = self.withheld;
            *self = Self { began_ms: now_ms, written: 0, withheld: 0 };
        }
        let write = self.written < COMPLAINTS_MAX;
        if write {
            self.written += 1;
        } else {
            self.withheld += 1;
        }
        Ruling { write, told }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ruling, Window};
    use crate::limits::COMPLAINTS_MAX;

    #[test]
    fn beyond_the_bound_complaints_are_counted_and_told_later() {
        let mut window = Window::default();
        for _ in 0..COMPLAINTS_MAX {
            assert_eq!(window.rule(5), Ruling { write: true, told: 0 });
        }
        for _ in 0..7 {
            assert_eq!(window.rule(6), Ruling { write: false, told: 0 });
        }
        assert_eq!(window.rule(10_005), Ruling { write: true, told: 7 });
        assert_eq!(window.rule(10_006), Ruling { write: true, told: 0 });
    }
}
