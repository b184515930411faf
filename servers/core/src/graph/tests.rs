//! Tests of the graph: changes in, links and eviction out.

use std::sync::Arc;

use lapwing_protocol::element::{connection, file_event, kind, machine, process};

use super::*;

const SENSOR: SensorId = SensorId([1; 16]);

fn guid(number: u8) -> ElementGuid {
    ElementGuid([number; 16])
}

fn change(what: What, of: Kind, number: u8, fields: Vec<(Feature, OwnedValue)>) -> Change {
    Change {
        guid: guid(number),
        model: Arc::new(KindModel::new(kind(of).unwrap())),
        what,
        time_ns: 5_000,
        wall_ns: 1_000_000_000,
        index: Some(1),
        source_seq: None,
        fields,
    }
}

fn text(text: &str) -> OwnedValue {
    OwnedValue::Text(text.as_bytes().into())
}

fn pid(number: u64) -> (Feature, OwnedValue) {
    (process::pid, OwnedValue::U64(number))
}

fn parent(number: u8) -> (Feature, OwnedValue) {
    (process::parent, OwnedValue::Element(guid(number)))
}

fn small(elements_max: usize) -> Graph {
    Graph::new(GraphLimits { elements_max, ..GraphLimits::default() }, 7)
}

#[test]
fn links_are_followed_both_ways_even_when_the_target_comes_later() {
    let mut graph = small(100);
    graph.apply(1, SENSOR, change(What::Put, process::KIND, 2, vec![pid(2), parent(1)]));
    let process = vec![(connection::process, OwnedValue::Element(guid(2)))];
    graph.apply(2, SENSOR, change(What::Put, connection::KIND, 9, process));
    graph.apply(3, SENSOR, change(What::Put, process::KIND, 1, vec![pid(1)]));

    let connection = graph.find(guid(9)).unwrap();
    let chain: Vec<_> = graph.chain(connection, 8).iter().map(|it| it.guid()).collect();
    assert_eq!(chain, [guid(2), guid(1)]);
    let children: Vec<_> = graph.children(guid(1), 8).map(Element::guid).collect();
    assert_eq!(children, [guid(2)]);
}

#[test]
fn a_circle_of_parents_ends() {
    let mut graph = small(100);
    graph.apply(1, SENSOR, change(What::Put, process::KIND, 1, vec![pid(1), parent(2)]));
    graph.apply(1, SENSOR, change(What::Put, process::KIND, 2, vec![pid(2), parent(1)]));
    assert_eq!(graph.chain(graph.find(guid(1)).unwrap(), 100).len(), 2);
}

#[test]
fn a_patch_touches_what_it_changes_and_moves_links() {
    let mut graph = small(100);
    graph.apply(1, SENSOR, change(What::Put, process::KIND, 3, vec![pid(3), parent(1)]));
    let patch = vec![pid(3), parent(2), (process::name, text("sh"))];
    let applied = graph.apply(2, SENSOR, change(What::Patched, process::KIND, 3, patch));
    assert_eq!(applied.touched, bit(process::parent) | bit(process::name));
    assert_eq!(graph.referrers(guid(1)).count(), 0);
    assert_eq!(graph.referrers(guid(2)).count(), 1);
    assert_eq!(graph.find(guid(3)).unwrap().first_seen_ms(), 1);
    assert_eq!(graph.find(guid(3)).unwrap().changed_ms(), 2);
}

#[test]
fn a_put_replaces_and_a_restatement_of_the_same_touches_nothing() {
    let mut graph = small(100);
    let row = vec![pid(3), (process::name, text("sh"))];
    graph.apply(1, SENSOR, change(What::Put, process::KIND, 3, row.clone()));
    let again = graph.apply(2, SENSOR, change(What::Restated, process::KIND, 3, row));
    assert_eq!(again.touched, 0);
    let put = graph.apply(3, SENSOR, change(What::Put, process::KIND, 3, vec![pid(3)]));
    assert_eq!(put.touched, bit(process::name));
    assert!(graph.find(guid(3)).unwrap().value(process::name).is_none());
}

#[test]
fn the_end_keeps_what_was_known() {
    let mut graph = small(100);
    let row = vec![pid(3), (process::name, text("sh"))];
    graph.apply(1, SENSOR, change(What::Put, process::KIND, 3, row));
    let last = vec![pid(3), (process::exit_code, OwnedValue::I64(1))];
    graph.apply(2, SENSOR, change(What::Ended, process::KIND, 3, last));
    let element = graph.find(guid(3)).unwrap();
    assert!(element.ended());
    assert_eq!(element.text(process::name).unwrap(), "sh");
    assert_eq!(graph.counts().live, 0);
}

#[test]
fn only_the_past_is_evicted_the_oldest_first_and_it_is_counted() {
    let mut graph = small(3);
    for number in 1..=2 {
        graph.apply(1, SENSOR, change(What::Put, process::KIND, number, vec![pid(1)]));
    }
    for number in 10..=14 {
        let now = u64::from(number);
        let path = vec![(file_event::path, text("/tmp/x"))];
        graph.apply(now, SENSOR, change(What::Happened, file_event::KIND, number, path));
    }
    assert_eq!(graph.counts().elements, 3);
    assert!(graph.find(guid(14)).is_some() && graph.find(guid(13)).is_none());
    let evicted: Vec<_> = graph.evicted().collect();
    assert_eq!(evicted, [(SENSOR, file_event::KIND, Evicted { count: 4, until_ms: 13 })]);

    for number in 3..=9 {
        graph.apply(20, SENSOR, change(What::Put, process::KIND, number, vec![pid(1)]));
    }
    assert_eq!(graph.counts().live, 9);
    assert!(graph.is_over(), "rows are kept beyond the limit, and the graph says so");
}

#[test]
fn who_comes_back_to_life_is_not_evicted_by_an_old_entry() {
    let mut graph = small(2);
    graph.apply(1, SENSOR, change(What::Put, process::KIND, 1, vec![pid(1)]));
    graph.apply(2, SENSOR, change(What::Forgotten, process::KIND, 1, vec![]));
    graph.apply(3, SENSOR, change(What::Put, process::KIND, 1, vec![pid(1)]));
    for number in 10..=14 {
        graph.apply(4, SENSOR, change(What::Happened, file_event::KIND, number, vec![]));
    }
    assert_eq!(graph.find(guid(1)).unwrap().presence(), Presence::Live);
    assert_eq!(graph.counts().elements, 2);
}

#[test]
fn forgetting_a_sensor_leaves_the_others_and_no_links() {
    let mut graph = small(100);
    let other = SensorId([2; 16]);
    graph.apply(1, SENSOR, change(What::Put, process::KIND, 2, vec![pid(2), parent(1)]));
    graph.apply(1, other, change(What::Put, process::KIND, 7, vec![pid(7)]));
    graph.forget_sensor(SENSOR);
    assert!(graph.find(guid(2)).is_none() && graph.find(guid(7)).is_some());
    assert_eq!(graph.referrers(guid(1)).count(), 0);
    assert_eq!((graph.counts().elements, graph.counts().live), (1, 1));
}

#[test]
fn the_machine_of_an_element_is_its_sensors() {
    let mut graph = small(100);
    graph.apply(1, SENSOR, change(What::Put, process::KIND, 2, vec![pid(2)]));
    assert_eq!(graph.machine_name(graph.find(guid(2)).unwrap()), "");
    let name = vec![(machine::name, text("box"))];
    graph.apply(1, SENSOR, change(What::Put, machine::KIND, 1, name));
    assert_eq!(graph.machine_name(graph.find(guid(2)).unwrap()), "box");
}

#[test]
fn a_process_began_when_it_says() {
    let mut graph = small(100);
    let started = vec![pid(2), (process::started, OwnedValue::Time(2_000))];
    graph.apply(1, SENSOR, change(What::Restated, process::KIND, 2, started));
    assert_eq!(graph.find(guid(2)).unwrap().happened_ns, 1_000_000_000 - 3_000);
}

#[test]
fn many_referrers_are_each_there_once_the_longest_known_first() {
    let mut graph = small(1_000);
    for number in 1..=100 {
        let fields = vec![pid(1), parent(200)];
        graph.apply(u64::from(number), SENSOR, change(What::Put, process::KIND, number, fields));
    }
    for number in 1..=50 {
        let moved = vec![parent(201)];
        graph.apply(200, SENSOR, change(What::Patched, process::KIND, number, moved));
    }
    let guids = |target| {
        let referrers = graph.referrers(guid(target));
        referrers.map(|index| graph.element(index).unwrap().guid().0[0]).collect::<Vec<u8>>()
    };
    assert_eq!(guids(200), (51..=100).collect::<Vec<u8>>());
    assert_eq!(guids(201), (1..=50).collect::<Vec<u8>>());
}
