//! What a Threat Intel server counts for its operator.

use lapwing_net::metrics::Metrics;
use lapwing_protocol::intel::KeyType;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// What was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyTypeLabel {
    key_type: &'static str,
}

/// The counts, registered.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    questions: Family<KeyTypeLabel, Counter>,
    to_global: Family<KeyTypeLabel, Counter>,
    global_unreachable: Counter,
    entries: Gauge,
}

impl Counts {
    pub(crate) fn registered(metrics: &Metrics) -> Self {
        let counts = Self::default();
        metrics.register(|registry| {
            registry.register(
                "intel_questions",
                "Indicators this server was asked about",
                counts.questions.clone(),
            );
            registry.register(
                "intel_questions_to_global",
                "Indicators this server asked Global about",
                counts.to_global.clone(),
            );
            registry.register(
                "intel_global_unreachable",
                "Questions to Global that got no answer",
                counts.global_unreachable.clone(),
            );
            registry.register("intel_entries", "Entries of the list", counts.entries.clone());
        });
        counts
    }

    pub(crate) fn asked(&self, key_type: KeyType) {
        self.questions.get_or_create(&KeyTypeLabel { key_type: key_type.name() }).inc();
    }

    pub(crate) fn asked_global(&self, key_type: KeyType) {
        self.to_global.get_or_create(&KeyTypeLabel { key_type: key_type.name() }).inc();
    }

    pub(crate) fn global_unreachable(&self) {
        self.global_unreachable.inc();
    }

    pub(crate) fn set_entries(&self, entries: usize) {
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }
}
