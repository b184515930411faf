//! What an answer may lack because memory is bounded, said in words.

use std::collections::BTreeMap;

use lapwing_protocol::element::{Kind, kind as built_in};

use super::moment;
use super::syntax::{Condition, Name, Operator, Query};
use super::vocabulary::Common;
use crate::graph::{Evicted, Graph};

/// One sentence for each kind of the path of which past elements were evicted that the answer
/// may concern.
pub(super) fn lacks(graph: &Graph, query: &Query) -> Vec<String> {
    let sensor = sensor_of(query);
    let mut by_kind: BTreeMap<Kind, Evicted> = BTreeMap::new();
    for (of, kind, evicted) in graph.evicted() {
        let is_other = sensor.is_some_and(|sensor| of.to_string() != sensor);
        let is_before = query.window.is_some_and(|window| evicted.until_ms < window.from_ms);
        if is_other || is_before || !concerns(graph, query, kind) {
            continue;
        }
        let sum = by_kind.entry(kind).or_default();
        sum.count += evicted.count;
        sum.until_ms = sum.until_ms.max(evicted.until_ms);
    }
    let sentences = by_kind.into_iter().map(|(kind, evicted)| {
        format!(
            "memory no longer holds {} past elements of kind {}, the last of them changed at {}; \
             their facts are in the journal",
            evicted.count,
            name_of(graph, kind),
            moment::show(evicted.until_ms)
        )
    });
    sentences.collect()
}

fn concerns(graph: &Graph, query: &Query, kind: Kind) -> bool {
    let name = name_of(graph, kind);
    query.steps.iter().any(|step| step.how.kind().is_none_or(|of| of == name))
}

fn name_of(graph: &Graph, kind: Kind) -> String {
    match built_in(kind) {
        Some(spec) => spec.name.to_owned(),
        None => graph
            .models()
            .find(|model| model.kind == kind)
            .map_or_else(|| format!("{:#06x}", kind.0), |model| model.name.to_string()),
    }
}

/// The sensor that the first step demands.
fn sensor_of(query: &Query) -> Option<&str> {
    let condition = query.steps.first()?.condition.as_ref()?;
    match condition {
        Condition::All(all) => all.iter().find_map(demanded_sensor),
        one => demanded_sensor(one),
    }
}

fn demanded_sensor(condition: &Condition) -> Option<&str> {
    match condition {
        Condition::Compare(Name::Common(Common::Sensor), Operator::Equal, literal) => {
            Some(&literal.text)
        }
        _ => None,
    }
}
