//! What all requests of one server hold together: their heads, and what came of their bodies.
//!
//! Not here: the bounds of one request (body.rs). Invariants: what is held never exceeds either
//! bound; a request that ends, in whatever way, gives back all that it took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::metrics::counter::Counter;

use crate::budget::{Budget, Charge};
use crate::limits::{HTTP_CONNECTION_BYTES_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HELD_BYTES_MAX};
use crate::metrics::Metrics;

/// Bounds of the requests of one server. Tests lower them.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Bytes of all requests under way.
    pub held_bytes_max: usize,
    /// Bytes of the requests under way on one connection.
    pub connection_bytes_max: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            held_bytes_max: HTTP_HELD_BYTES_MAX,
            connection_bytes_max: HTTP_CONNECTION_BYTES_MAX,
        }
    }
}

/// What the requests of one server hold; shared by its connections.
#[derive(Debug, Clone)]
pub struct Bounds {
    held: Budget,
    connection_bytes_max: usize,
    busy: Counter,
}

impl Default for Bounds {
    fn default() -> Self {
        Self::new(HttpLimits::default())
    }
}

impl Bounds {
    /// Bounds of which nothing is used.
    #[must_use]
    pub fn new(limits: HttpLimits) -> Self {
        let HttpLimits { held_bytes_max, connection_bytes_max } = limits;
        let held = Budget::new(held_bytes_max);
        Self { held, connection_bytes_max, busy: Counter::default() }
    }

    /// The usual bounds; who is refused for them is counted in `metrics`.
    #[must_use]
    pub fn registered(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            let help = "HTTP requests answered 503, since others held all that requests may hold";
            registry.register("http_busy", help, this.busy.clone());
        });
        this
    }

    /// Bytes that requests under way hold.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.held()
    }

    /// The share of one more connection.
    pub(super) fn connection(&self) -> Share {
        Share { bounds: self.clone(), held: Budget::new(self.connection_bytes_max) }
    }
}

/// What the requests of one connection hold.
#[derive(Debug, Clone)]
pub(super) struct Share {
    bounds: Bounds,
    held: Budget,
}

impl Share {
    /// Begins a request: its head is charged. `None` where there is no room.
    pub(super) fn begin(&self) -> Option<Arc<Held>> {
        let held = Held {
            of_connection: self.held.charge(),
            of_server: self.bounds.held.charge(),
            is_refused: AtomicBool::new(false),
            busy: self.bounds.busy.clone(),
        };
        held.take(HTTP_HEAD_BYTES_MAX).then(|| Arc::new(held))
    }
}

/// What one request holds, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    of_connection: Charge,
    of_server: Charge,
    is_refused: AtomicBool,
    busy: Counter,
}

impl Held {
    /// Takes `bytes` more; whether there was room. Where there was none, the request is over.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let is_taken = self.of_connection.take(bytes) && self.of_server.take(bytes);
        if !is_taken && !self.is_refused.swap(true, Ordering::AcqRel) {
            self.busy.inc();
        }
        is_taken
    }

    /// Whether there was once no room for it.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: usize = HTTP_HEAD_BYTES_MAX;

    #[test]
    fn what_is_held_stays_within_both_bounds_and_comes_back() {
        let limits = HttpLimits { held_bytes_max: 5 * HEAD, connection_bytes_max: 3 * HEAD };
        let bounds = Bounds::new(limits);
        let (one, other) = (bounds.connection(), bounds.connection());
        let first = one.begin().unwrap();
        assert!(first.take(2 * HEAD) && !first.take(1), "a connection has its share");
        assert!(first.is_refused() && one.begin().is_none());
        let second = other.begin().unwrap();
        assert!(second.take(HEAD) && !second.take(HEAD), "and all have theirs");
        assert_eq!(bounds.held_bytes(), 5 * HEAD);
        drop(first);
        assert!(other.begin().is_none(), "a share is used up by who is refused, until it ends");
        drop(second);
        assert_eq!((bounds.held_bytes(), bounds.busy.get()), (0, 4));
        assert!(one.begin().is_some());
    }
}
