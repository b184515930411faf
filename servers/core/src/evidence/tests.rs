//! Tests of evidence: its bytes, and the bounds of what it holds.

use std::sync::Arc;

use lapwing_protocol::element::{Feature, kind, process};
use lapwing_protocol::intel::{Classification, Source};

use super::*;
use crate::change::{KindModel, OwnedValue, What};
use crate::graph::limits::GraphLimits;
use crate::view::OwnedCell;

const SENSOR: SensorId = SensorId([1; 16]);

fn judge() -> Judge {
    Judge::new(Graph::new(GraphLimits::default(), 1), IntelCache::default())
}

fn put(number: u8, fields: Vec<(Feature, OwnedValue)>) -> Change {
    Change {
        guid: ElementGuid([number; 16]),
        model: Arc::new(KindModel::new(kind(process::KIND).unwrap())),
        what: What::Put,
        time_ns: 1,
        wall_ns: 3_000_000,
        index: Some(1),
        source_seq: None,
        fields,
    }
}

fn hash(byte: u8) -> OwnedValue {
    OwnedValue::Hash([byte; 32].as_slice().into())
}

fn answer(judge: &mut Judge, classification: Classification) {
    while let Some(question) = judge.poll_questions(1) {
        let verdicts = question.keys.iter().map(|key| OwnedVerdict {
            key: key.clone(),
            classification,
            source: Source::Private,
            comment: "by hand".to_owned(),
            checked_ms: 1,
            recheck_ms: 2,
            stale: false,
        });
        judge.handle_verdicts(1, question.number, verdicts.collect());
    }
}

#[test]
fn evidence_comes_back_from_its_bytes() {
    let mut judge = judge();
    let parent = put(1, vec![(process::pid, OwnedValue::U64(1))]);
    let fields = vec![
        (process::pid, OwnedValue::U64(7)),
        (process::parent, OwnedValue::Element(ElementGuid([1; 16]))),
        (process::uid, OwnedValue::U64(1_000)),
        (process::image_hash, hash(9)),
    ];
    judge.handle_changes(1, (SENSOR, 1), vec![put(2, fields), parent]);
    answer(&mut judge, Classification::Malware);
    let evidence = judge.poll_evidence(5).unwrap();
    assert_eq!(judge.poll_evidence(5), None);
    assert_eq!(Evidence::from_bytes(&evidence.to_bytes()), Ok(evidence.clone()));
    assert_eq!((evidence.happened_ms, evidence.raised_ms), (3, 5));
    assert_eq!(evidence.user, "1000");
    assert_eq!(evidence.processes.len(), 2);
    assert_eq!(evidence.rule, "malware_by_hash");
    let text = |text: &str| Some(OwnedCell::Text(text.to_owned()));
    let cell = |name: &str| {
        evidence.reputation.iter().find(|(of, _)| of == name).map(|(_, cell)| cell.clone())
    };
    assert_eq!((cell("verdict"), cell("comment")), (text("malware"), text("by hand")));
}

#[test]
fn one_file_is_one_cause_whichever_of_its_hashes_is_listed() {
    let mut judge = judge();
    let fields = vec![
        (process::image_hash, hash(9)),
        (process::image_md5, OwnedValue::Hash([1; 16].as_slice().into())),
    ];
    judge.handle_changes(1, (SENSOR, 1), vec![put(2, fields)]);
    answer(&mut judge, Classification::Blocked);
    let causes: Vec<_> =
        std::iter::from_fn(|| judge.poll_evidence(1)).map(|evidence| evidence.root_cause).collect();
    let sha256 = format!("hash:{}", "09".repeat(32));
    assert_eq!(causes, [sha256.clone(), sha256]);
}

#[test]
fn a_verdict_that_turns_bad_reaches_every_element_in_the_graph() {
    let mut judge = judge();
    for number in 1..=20 {
        judge.handle_changes(
            1,
            (SENSOR, 1),
            vec![put(number, vec![(process::image_hash, hash(9))])],
        );
    }
    answer(&mut judge, Classification::Blocked);
    let mut elements: Vec<_> =
        std::iter::from_fn(|| judge.poll_evidence(1)).map(|evidence| evidence.element).collect();
    elements.sort();
    elements.dedup();
    assert_eq!(elements.len(), 20);
}

#[test]
fn what_nobody_answered_for_holds_the_position_back() {
    let mut judge = judge();
    judge.handle_changes(1, (SENSOR, 4), vec![put(1, vec![(process::image_hash, hash(1))])]);
    judge.handle_changes(1, (SENSOR, 9), vec![put(2, vec![(process::image_hash, hash(1))])]);
    assert_eq!(judge.judged_before(9), 4);
    answer(&mut judge, Classification::Unknown);
    assert_eq!(judge.judged_before(9), 10);
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let mut judge = judge();
    let long = "\u{e9}".repeat(3_000);
    let fields = vec![
        (process::command_line, OwnedValue::Text(long.as_bytes().into())),
        (process::image_hash, hash(9)),
    ];
    judge.handle_changes(1, (SENSOR, 1), vec![put(2, fields)]);
    answer(&mut judge, Classification::Blocked);
    let evidence = judge.poll_evidence(1).unwrap();
    let Some((_, OwnedCell::Text(text))) = evidence.fields.first() else { panic!("no text") };
    assert!(text.len() <= limits::TEXT_BYTES_MAX + 3 && text.ends_with("..."));
}
