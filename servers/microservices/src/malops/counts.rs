//! What the MalOp service counts for its operator.

use lapwing_net::metrics::Metrics;
use lapwing_server_core::malop::{Decision, MalOps};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabel {
    decision: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SortLabel {
    sort: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabel {
    server: String,
}

/// The counts, registered.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    evidence: Family<DecisionLabel, Counter>,
    unreadable: Counter,
    malops: Family<StatusLabel, Gauge>,
    suspicions: Gauge,
    removed: Family<SortLabel, Gauge>,
    feed_lag: Family<ServerLabel, Gauge>,
    feed_up: Family<ServerLabel, Gauge>,
}

impl Counts {
    pub(crate) fn registered(metrics: &Metrics) -> Self {
        let counts = Self::default();
        metrics.register(|registry| {
            registry.register(
                "malops_evidence",
                "Evidence told by Detection servers: malop, suspicion, noted or repeat",
                counts.evidence.clone(),
            );
            registry.register(
                "malops_evidence_unreadable",
                "Evidence that was skipped since it could not be read",
                counts.unreadable.clone(),
            );
            registry.register("malops_malops", "MalOps by status", counts.malops.clone());
            registry.register(
                "malops_suspicions",
                "Suspicions that are no part of a MalOp",
                counts.suspicions.clone(),
            );
            registry.register(
                "malops_removed",
                "MalOps and causes under suspicion removed for want of room since the start",
                counts.removed.clone(),
            );
            registry.register(
                "malops_feed_lag_milliseconds",
                "From the raising of the last evidence of a server to when it was taken; 0 at rest",
                counts.feed_lag.clone(),
            );
            registry.register(
                "malops_feed_up",
                "Whether a server's evidence can be read",
                counts.feed_up.clone(),
            );
        });
        counts
    }

    pub(crate) fn decided(&self, decision: Decision) {
        let decision = match decision {
            Decision::Noted => "noted",
            Decision::Suspicion => "suspicion",
            Decision::MalOp => "malop",
        };
        self.evidence.get_or_create(&DecisionLabel { decision }).inc();
    }

    pub(crate) fn repeats(&self, many: usize) {
        let label = DecisionLabel { decision: "repeat" };
        self.evidence.get_or_create(&label).inc_by(u64::try_from(many).unwrap_or(u64::MAX));
    }

    pub(crate) fn unreadable(&self) {
        self.unreadable.inc();
    }

    pub(crate) fn set_lag_ms(&self, server: &str, lag_ms: u64) {
        let lag_ms = i64::try_from(lag_ms).unwrap_or(i64::MAX);
        self.feed_lag.get_or_create(&ServerLabel { server: server.to_owned() }).set(lag_ms);
    }

    pub(crate) fn set_up(&self, server: &str, is_up: bool) {
        let label = ServerLabel { server: server.to_owned() };
        self.feed_up.get_or_create(&label).set(i64::from(is_up));
    }

    pub(crate) fn look_at(&self, malops: &MalOps) {
        let gauge = |many: usize| i64::try_from(many).unwrap_or(i64::MAX);
        for (status, many) in malops.count_by_status() {
            let label = StatusLabel { status: status.name() };
            self.malops.get_or_create(&label).set(gauge(many));
        }
        self.suspicions.set(gauge(malops.suspicions().len()));
        for (sort, many) in ["malop", "suspicious_cause"].into_iter().zip(malops.removed()) {
            let many = i64::try_from(many).unwrap_or(i64::MAX);
            self.removed.get_or_create(&SortLabel { sort }).set(many);
        }
    }
}
