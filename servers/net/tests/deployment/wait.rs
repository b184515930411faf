//! Waiting for a condition with a deadline: the one place of these tests that sleeps.

use std::future::Future;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// Waits until `look` finds something, and fails with `what` when it never does.
pub(crate) async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        smol::Timer::after(Duration::from_millis(10)).await;
    }
}

/// Lets time pass where time itself is what a test is about.
#[allow(dead_code, reason = "not every test waits")]
pub(crate) async fn pause(time: Duration) {
    smol::Timer::after(time).await;
}
