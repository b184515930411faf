//! What a Detection server counts.

use lapwing_net::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Counts of the sensors' sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionMetrics {
    pub(crate) hellos: Counter,
    pub(crate) chunks: Counter,
    pub(crate) bytes_up: Counter,
    pub(crate) bytes_down: Counter,
    pub(crate) faults: Counter,
    pub(crate) connected: Gauge,
}

impl SessionMetrics {
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
            ];
            for (name, help, counter) in rows {
                registry.register(name, help, counter.clone());
            }
            registry.register("sensors_connected", "Open sessions", counts.connected.clone());
        });
        counts
    }
}
