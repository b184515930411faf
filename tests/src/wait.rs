//! Waiting for a condition with a deadline: the one place in which tests sleep.
//!
//! The deadline says when to give up, never how long something should take: a test that passes does
//! so as soon as the condition holds.

use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks: short beside what is waited for, long beside the look itself.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `look` answers something, and returns it.
///
/// # Panics
/// When `limit` has passed without an answer; the message names `what`.
pub fn until<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    let found = attempt(limit, look);
    found.unwrap_or_else(|| panic!("waited {limit:?} in vain for: {what}"))
}

/// Looks until `look` answers something, and returns it; `None` when `limit` has passed.
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

/// Lets a moment pass: for a loop that looks at something else than a condition.
pub fn a_moment() {
    thread::sleep(PAUSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_returns_what_was_found() {
        let mut looks = 0;
        let found = until("the third look", Duration::from_secs(10), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, 3);
    }

    #[test]
    #[should_panic(expected = "in vain for: nothing")]
    fn it_names_what_it_waited_for() {
        until("nothing", Duration::ZERO, || None::<()>);
    }
}
