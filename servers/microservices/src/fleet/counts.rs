//! What sensor management counts for its operator.

use lapwing_net::metrics::Metrics;
use lapwing_protocol::fleet::SensorStatus;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// The counts, registered.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    sensors: Family<StatusLabel, Gauge>,
    open: Gauge,
    orders: Counter,
    puts: Family<ResultLabel, Counter>,
    outcomes: Counter,
    ignored: Counter,
    without_room: Gauge,
}

impl Counts {
    pub(crate) fn registered(metrics: &Metrics) -> Self {
        let counts = Self::default();
        metrics.register(|registry| {
            registry.register("fleet_sensors", "Sensors by status", counts.sensors.clone());
            registry.register(
                "fleet_open_actions",
                "Actions without an outcome",
                counts.open.clone(),
            );
            registry.register("fleet_orders", "Orders taken", counts.orders.clone());
            registry.register(
                "fleet_puts",
                "Commands brought to Detection servers: queued, refused or failed",
                counts.puts.clone(),
            );
            registry.register(
                "fleet_outcomes",
                "Outcomes that closed an action",
                counts.outcomes.clone(),
            );
            registry.register(
                "fleet_outcomes_ignored",
                "Outcomes that were told before or belong to no action",
                counts.ignored.clone(),
            );
            registry.register(
                "fleet_sensors_without_room",
                "Sensors beyond the bound, which are not shown",
                counts.without_room.clone(),
            );
        });
        counts
    }

    pub(crate) fn ordered(&self) {
        self.orders.inc();
    }

    pub(crate) fn put(&self, result: &'static str) {
        self.puts.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn judged(&self, closed: usize, ignored: usize) {
        self.outcomes.inc_by(closed as u64);
        self.ignored.inc_by(ignored as u64);
    }

    pub(crate) fn set_without_room(&self, sensors: usize) {
        self.without_room.set(i64::try_from(sensors).unwrap_or(i64::MAX));
    }

    /// `statuses` is one of each sensor.
    pub(crate) fn set(&self, open: usize, statuses: impl Iterator<Item = SensorStatus>) {
        self.open.set(i64::try_from(open).unwrap_or(i64::MAX));
        let names = [
            SensorStatus::Online,
            SensorStatus::Offline,
            SensorStatus::Stale,
            SensorStatus::Archived,
        ];
        let mut counted = names.map(|status| (status, 0_i64));
        for status in statuses {
            for (_, count) in counted.iter_mut().filter(|(of, _)| *of == status) {
                *count += 1;
            }
        }
        for (status, count) in counted {
            self.sensors.get_or_create(&StatusLabel { status: status.name() }).set(count);
        }
    }
}
