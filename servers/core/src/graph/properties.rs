//! Properties of the graph under any changes: its counts, links and bounds hold after each.

use std::collections::BTreeMap;
use std::sync::Arc;

use lapwing_protocol::element::{connection, file_event, kind, process};
use proptest::prelude::*;

use super::*;

/// One step: a change of one of few elements, or the loss of a sensor.
#[derive(Clone, Debug)]
enum Step {
    Change { sensor: u8, number: u8, what: What, target: Option<u8>, mark: u64 },
    Forget { sensor: u8 },
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counts_links_and_bounds_hold_after_every_change(
        steps in prop::collection::vec(step(), 1..80),
        elements_max in 1_usize..20,
    ) {
        let limits = GraphLimits { elements_max, ..GraphLimits::default() };
        let mut graph = Graph::new(limits, 3);
        for (now_ms, step) in (1..).zip(steps) {
            match step {
                Step::Forget { sensor } => graph.forget_sensor(SensorId([sensor; 16])),
                Step::Change { sensor, number, what, target, mark } => {
                    let change = change(sensor, number, what, target, mark);
                    graph.apply(now_ms, SensorId([sensor; 16]), change);
                }
            }
            check(&graph, elements_max)?;
        }
    }
}

fn check(graph: &Graph, elements_max: usize) -> Result<(), TestCaseError> {
    let elements: Vec<&Element> = graph.slots.iter().flatten().collect();
    let live = elements.iter().filter(|it| it.presence() == Presence::Live).count();
    let counts = graph.counts();
    prop_assert_eq!((counts.elements, counts.live), (elements.len(), live));
    prop_assert_eq!(
        counts.bytes,
        elements.iter().map(|it| u64::from(it.count_bytes())).sum::<u64>()
    );
    prop_assert!(elements.len() <= elements_max.max(live), "only living rows may pass the bound");
    let mut links: BTreeMap<ElementGuid, Vec<ElementIndex>> = BTreeMap::new();
    for element in &elements {
        let index = graph.index(element.guid());
        prop_assert_eq!(
            index.and_then(|it| graph.element(it)).map(Element::guid),
            Some(element.guid())
        );
        for target in targets(element.fields()) {
            links.entry(target).or_default().extend(index);
        }
    }
    prop_assert_eq!(graph.referrers.len(), links.len());
    for (target, mut wanted) in links {
        let mut found: Vec<ElementIndex> = graph.referrers(target).collect();
        found.sort();
        wanted.sort();
        prop_assert_eq!(found, wanted);
    }
    Ok(())
}

fn step() -> impl Strategy<Value = Step> {
    let what = prop::sample::select(vec![
        What::Put,
        What::Restated,
        What::Patched,
        What::Ended,
        What::Forgotten,
        What::Happened,
    ]);
    let target = prop::option::of(0_u8..12);
    let change = (0_u8..2, 0_u8..12, what, target, 0_u64..3).prop_map(
        |(sensor, number, what, target, mark)| Step::Change { sensor, number, what, target, mark },
    );
    prop_oneof![20 => change, 1 => (0_u8..2).prop_map(|sensor| Step::Forget { sensor })]
}

/// A change of an element whose kind follows from its number, as a sensor would have it.
fn change(sensor: u8, number: u8, what: What, target: Option<u8>, mark: u64) -> Change {
    let id = |number: u8| ElementGuid([sensor * 100 + number; 16]);
    let is_event = what == What::Happened;
    let (of, link, marked) = match number % 2 {
        _ if is_event => (file_event::KIND, file_event::process, file_event::mode),
        0 => (process::KIND, process::parent, process::uid),
        _ => (connection::KIND, connection::process, connection::bytes_sent),
    };
    let mut fields = vec![(marked, OwnedValue::U64(mark))];
    fields.extend(target.map(|target| (link, OwnedValue::Element(id(target)))));
    fields.sort_by_key(|(feature, _)| *feature);
    Change {
        guid: if is_event { ElementGuid([sensor * 100 + 50 + number; 16]) } else { id(number) },
        model: Arc::new(KindModel::new(kind(of).unwrap())),
        what,
        time_ns: 1,
        wall_ns: 1,
        index: None,
        source_seq: None,
        fields,
    }
}
