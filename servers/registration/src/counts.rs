//! What a Registration server counts for its operator.

use lapwing_net::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// How a request for an assignment was answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// How a Detection server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// The counts, registered.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    requests: Counter,
    results: Family<ResultLabel, Counter>,
    heartbeats: Counter,
    servers: Family<StateLabel, Gauge>,
    sensors: Gauge,
}

impl Counts {
    pub(crate) fn registered(metrics: &Metrics) -> Self {
        let counts = Self::default();
        metrics.register(|registry| {
            registry.register(
                "registration_requests",
                "Requests of sensors for their Detection server",
                counts.requests.clone(),
            );
            registry.register(
                "registration_assignments",
                "Answers to such requests: kept, given, all_full or failed",
                counts.results.clone(),
            );
            registry.register(
                "registration_heartbeats",
                "Heartbeats of Detection servers",
                counts.heartbeats.clone(),
            );
            registry.register(
                "registration_servers",
                "Detection servers by state: up, draining or dead",
                counts.servers.clone(),
            );
            registry.register(
                "registration_assigned_sensors",
                "Sensors that have a Detection server",
                counts.sensors.clone(),
            );
        });
        counts
    }

    pub(crate) fn requested(&self) {
        self.requests.inc();
    }

    pub(crate) fn answered(&self, result: &'static str) {
        self.results.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn heartbeat(&self) {
        self.heartbeats.inc();
    }

    pub(crate) fn set_servers(&self, state: &'static str, servers: usize) {
        let servers = i64::try_from(servers).unwrap_or(i64::MAX);
        self.servers.get_or_create(&StateLabel { state }).set(servers);
    }

    pub(crate) fn set_sensors(&self, sensors: usize) {
        self.sensors.set(i64::try_from(sensors).unwrap_or(i64::MAX));
    }
}
