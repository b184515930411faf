//! Waiting for a condition with a deadline: the one place of these tests that sleeps.

use std::time::{Duration, Instant};

use crate::support::PATIENCE;

/// Waits until `holds`, and fails with `what` when it never does.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    until_within(PATIENCE, what, holds).await;
}

/// The same where a bound in time must be reached first.
pub(crate) async fn until_within(patience: Duration, what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        smol::Timer::after(Duration::from_millis(5)).await;
    }
}

/// Pauses one who drips.
pub(crate) async fn pause() {
    smol::Timer::after(Duration::from_millis(500)).await;
}
