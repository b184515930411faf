//! What the analyst counts, for the operator.

use lapwing_net::metrics::Metrics;
use lapwing_server_core::evidence::Judge;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Counts of graph, intel and evidence.
#[derive(Clone, Debug, Default)]
pub(super) struct AnalystMetrics {
    elements: Gauge,
    rows: Gauge,
    bytes: Gauge,
    evicted: Gauge,
    indicators: Gauge,
    unanswered: Gauge,
    forgotten: Gauge,
    unreachable: Gauge,
    overflowed: Gauge,
    questions: Gauge,
    pub(super) evidence: Counter,
}

impl AnalystMetrics {
    /// Registers the counts.
    pub(super) fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            let rows = [
                ("graph_elements", "Elements in memory", &self.elements),
                ("graph_rows", "Elements that sensors report now", &self.rows),
                ("graph_bytes", "Bytes that elements are counted with", &self.bytes),
                ("graph_evicted", "Past elements evicted since the start", &self.evicted),
                ("indicators", "Indicators remembered", &self.indicators),
                ("indicators_unanswered", "Indicators without a verdict", &self.unanswered),
                ("indicators_forgotten", "Indicators given up at the bound", &self.forgotten),
                ("intel_asked", "Questions asked since the start", &self.questions),
                ("findings_overflowed", "Findings that found no room", &self.overflowed),
                ("intel_unreachable", "Questions without an answer", &self.unreachable),
            ];
            for (name, help, gauge) in rows {
                registry.register(name, help, gauge.clone());
            }
            registry.register("evidence", "Evidence written", self.evidence.clone());
        });
    }

    pub(super) fn set(&self, judge: &Judge) {
        let (graph, intel) = (judge.graph().counts(), judge.intel().counts());
        let set = |gauge: &Gauge, count: u64| {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set(&self.elements, graph.elements as u64);
        set(&self.rows, graph.live as u64);
        set(&self.bytes, graph.bytes);
        set(&self.evicted, graph.evicted);
        set(&self.indicators, intel.entries as u64);
        set(&self.unanswered, intel.unanswered as u64);
        set(&self.forgotten, intel.evicted + intel.overflowed);
        set(&self.questions, intel.questions);
        set(&self.unreachable, intel.unreachable);
        set(&self.overflowed, judge.overflowed());
    }
}
