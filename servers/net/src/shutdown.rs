//! One signal that everything waits for: "end in good order".
//!
//! Not here: how long the end may take (listener.rs). Invariants: once begun, a shutdown stays
//! begun; waiting is free of polling; no `unsafe`.

use std::convert::Infallible;
use std::io;

use async_signal::{Signal, Signals};
use smol::channel::{Receiver, Sender};
use smol::stream::StreamExt as _;

/// Waits for the shutdown. Clone it freely.
#[derive(Debug, Clone)]
pub struct Shutdown(Receiver<Infallible>);

/// Begins the shutdown, by [`Self::begin`] or by being dropped.
#[derive(Debug, Clone)]
pub struct ShutdownTrigger(Sender<Infallible>);

/// A trigger and what waits for it.
#[must_use]
pub fn pair() -> (ShutdownTrigger, Shutdown) {
    // Nothing is ever sent: closing the channel is the signal, and it wakes every receiver.
    let (sender, receiver) = smol::channel::bounded(1);
    (ShutdownTrigger(sender), Shutdown(receiver))
}

impl Shutdown {
    /// Ends when the shutdown has begun.
    pub async fn begun(&self) {
        // The channel carries nothing, so the only answer is that it is closed.
        let _ = self.0.recv().await;
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.is_closed()
    }
}

impl ShutdownTrigger {
    /// Begins the shutdown; again does nothing.
    pub fn begin(&self) {
        self.0.close();
    }
}

/// Waits for SIGINT or SIGTERM, then begins the shutdown. A second signal ends the process at once,
/// for whoever does not want to wait for the drain.
///
/// # Errors
/// The handlers cannot be installed.
pub async fn on_signal(trigger: ShutdownTrigger) -> io::Result<()> {
    let mut signals = Signals::new([Signal::Int, Signal::Term])?;
    if let Some(signal) = signals.next().await {
        log::info!("{}: draining; send it again to end at once", name_of(signal?));
    }
    trigger.begin();
    if signals.next().await.is_some() {
        log::warn!("second signal: ending without waiting for connections");
        std::process::exit(1);
    }
    Ok(())
}

fn name_of(signal: Signal) -> &'static str {
    if signal == Signal::Int { "SIGINT" } else { "SIGTERM" }
}

#[cfg(test)]
mod tests {
    use super::pair;

    #[test]
    fn every_waiter_is_woken_and_late_ones_too() {
        let (trigger, shutdown) = pair();
        let other = shutdown.clone();
        assert!(!shutdown.has_begun());
        trigger.begin();
        smol::block_on(async {
            shutdown.begun().await;
            other.begun().await;
        });
        assert!(shutdown.has_begun());
    }

    #[test]
    fn a_dropped_trigger_is_a_shutdown() {
        let (trigger, shutdown) = pair();
        drop(trigger);
        smol::block_on(shutdown.begun());
    }
}
