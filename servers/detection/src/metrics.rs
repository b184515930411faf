//! What a Detection server counts.

use lapwing_net::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Counts of the sensors' sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionMetrics {
    pub(crate) hellos: Counter,
    pub(crate) chunks: Counter,
    pub(crate) bytes_up: Counter,
    pub(crate) bytes_down: Counter,
    pub(crate) faults: Counter,
    pub(crate) paced: Counter,
    pub(crate) connected: Gauge,
    refused: Family<CauseLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

/// Counts of the budget that the sensors share.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShareMetrics {
    pub(crate) throttled: Counter,
    pub(crate) lapsed: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) waiting: Gauge,
}

impl ShareMetrics {
    /// The counts, registered.
    pub(crate) fn registered(metrics: &Metrics) -> Self {
        let counts = Self::default();
        metrics.register(|registry| {
            let help = "Chunks refused as Throttled, each to be sent again";
            registry.register("sensor_throttled", help, counts.throttled.clone());
            let help = "Turns of credit that a sensor let lapse";
            registry.register("sensor_turns_lapsed", help, counts.lapsed.clone());
            let help = "Bytes of bulk lanes on their way to the disk";
            registry.register("sensor_in_flight_bytes", help, counts.in_flight.clone());
            let help = "Sensors that wait for their turn, their credit held low";
            registry.register("sensors_waiting", help, counts.waiting.clone());
        });
        counts
    }
}

impl SessionMetrics {
    /// A connection was refused or closed for `cause`.
    pub(crate) fn refuse(&self, cause: &'static str) {
        self.refused.get_or_create(&CauseLabel { cause }).inc();
    }

    /// The counts, registered.
    pub(crate) fn registered(metrics: &Metrics) -> Self {
        let counts = Self::default();
        metrics.register(|registry| {
            let rows = [
                ("sensor_hellos", "Hellos answered", &counts.hellos),
                ("sensor_chunks", "Chunks and Jumps taken", &counts.chunks),
                ("sensor_bytes_up", "Bytes of frames received from sensors", &counts.bytes_up),
                ("sensor_bytes_down", "Bytes of frames sent to sensors", &counts.bytes_down),
                ("sensor_faults", "Sessions closed for what the sensor did", &counts.faults),
                (
                    "sensor_paced",
                    "Times a sensor that said too much was kept waiting",
                    &counts.paced,
                ),
            ];
            for (name, help, counter) in rows {
                registry.register(name, help, counter.clone());
            }
            let help = "Connections of sensors refused or closed, by cause";
            registry.register("sensor_refused", help, counts.refused.clone());
            registry.register("sensors_connected", "Open sessions", counts.connected.clone());
        });
        counts
    }
}
