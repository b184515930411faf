//! Waiting with a deadline: the one place of this crate that sleeps.

use std::thread;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `look` answers something; `None` when `limit` has passed.
pub fn attempt<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        thread::sleep(PAUSE);
    }
}

/// As [`attempt`], without a pause: for what is over soon and must be met in its middle.
pub fn spin<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
    }
}

/// Stays away for as long as a peer asked, ten seconds at the most.
pub fn pause(milliseconds: u32) {
    thread::sleep(Duration::from_millis(u64::from(milliseconds.min(10_000))));
}
