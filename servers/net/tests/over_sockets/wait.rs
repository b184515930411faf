//! Waiting for a condition with a deadline: the one place of these tests that sleeps.

use std::time::{Duration, Instant};

use crate::support::PATIENCE;

/// Waits until `holds`, and fails with `what` when it never does.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        smol::Timer::after(Duration::from_millis(5)).await;
    }
}
