//! Waiting by the clock: the one place of this test that sleeps.

use std::time::Duration;

use smol::Timer;

/// Lets `duration` pass.
pub(super) async fn pause(duration: Duration) {
    Timer::after(duration).await;
}

/// What `future` answers; `None` when it does not within `limit`.
pub(super) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let late = async {
        Timer::after(limit).await;
        None
    };
    smol::future::or(async { Some(future.await) }, late).await
}
