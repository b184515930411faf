//! Tests of the query language: what is read, what is refused, and what is found.

use std::sync::Arc;

use lapwing_protocol::element::{
    Feature, Kind, connection, dns, file_event, kind, machine, process,
};
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::id::{ElementGuid, SensorId};

use super::*;
use crate::change::{Change, KindModel, OwnedValue, What};
use crate::graph::limits::GraphLimits;
use crate::view::OwnedCell;

const NOW: u64 = 1_800_000_000_000;
const SENSOR: SensorId = SensorId([1; 16]);

fn guid(number: u8) -> ElementGuid {
    ElementGuid([number; 16])
}

fn text(text: &str) -> OwnedValue {
    OwnedValue::Text(text.as_bytes().into())
}

fn add(
    graph: &mut Graph,
    now_ms: u64,
    what: What,
    of: Kind,
    number: u8,
    fields: &[(Feature, OwnedValue)],
) {
    let change = Change {
        guid: guid(number),
        model: Arc::new(KindModel::new(kind(of).unwrap())),
        what,
        time_ns: 1,
        wall_ns: 1,
        index: None,
        source_seq: None,
        fields: fields.to_vec(),
    };
    graph.apply(now_ms, SENSOR, change);
}

/// A machine with init, a shell of it, a curl of the shell that ended, its connection and lookup.
fn graph() -> Graph {
    let mut graph = Graph::new(GraphLimits::default(), 1);
    let link = |feature, number| (feature, OwnedValue::Element(guid(number)));
    let of =
        |pid, name: &str| vec![(process::pid, OwnedValue::U64(pid)), (process::name, text(name))];
    add(&mut graph, NOW - 9_000_000, What::Put, machine::KIND, 1, &[(machine::name, text("box"))]);
    add(&mut graph, NOW - 9_000_000, What::Put, process::KIND, 2, &of(1, "init"));
    let mut shell = of(7, "bash");
    shell.insert(1, link(process::parent, 2));
    shell.insert(2, (process::user, text("root")));
    add(&mut graph, NOW - 5_000_000, What::Put, process::KIND, 3, &shell);
    let mut curl = of(9, "curl");
    curl.insert(1, link(process::parent, 3));
    add(&mut graph, NOW - 4_000_000, What::Put, process::KIND, 4, &curl);
    let remote = OwnedValue::Ip("127.66.6.6".parse().unwrap());
    let connection = [
        (connection::remote_address, remote),
        (connection::remote_port, OwnedValue::U64(443)),
        link(connection::process, 4),
    ];
    add(&mut graph, NOW - 3_000_000, What::Put, connection::KIND, 5, &connection);
    let lookup = [(dns::question, text("evil.example")), link(dns::process, 4)];
    add(&mut graph, NOW - 3_000_000, What::Happened, dns::KIND, 6, &lookup);
    add(&mut graph, NOW - 2_000_000, What::Ended, process::KIND, 4, &[]);
    graph
}

fn answer(graph: &Graph, expression: &str) -> Answer {
    let query = parse(NOW, expression, &Vocabulary::of(graph)).unwrap();
    run(graph, query, QueryLimits::new(0, 0))
}

/// The cells of the first column, as text.
fn first_column(expression: &str) -> Vec<String> {
    let shown = |cell: &OwnedCell| match cell {
        OwnedCell::Text(text) => text.clone(),
        other => format!("{other:?}"),
    };
    answer(&graph(), expression).rows.iter().map(|row| shown(&row[0])).collect()
}

#[test]
fn every_example_of_the_document_is_a_query() {
    let document = include_str!("../../../../docs/query.md");
    let mut examples = 0;
    for part in document.split("```query\n").skip(1) {
        let expression = part.split("```").next().unwrap().trim();
        if let Err(error) = parse(NOW, expression, &Vocabulary::default()) {
            panic!("{expression}\n{error}");
        }
        examples += 1;
    }
    assert!(examples >= 10, "the document has {examples} examples");
}

#[test]
fn the_error_of_the_document_is_the_one_given() {
    let error = parse(NOW, "process where imagepath = x", &Vocabulary::default()).unwrap_err();
    assert!(include_str!("../../../../docs/query.md").contains(&error.to_string()), "{error}");
}

#[test]
fn wrong_expressions_are_refused_at_their_place() {
    for (expression, position, message) in [
        ("", 1, "expected a kind of element, found the end"),
        ("proces", 1, "did you mean `process`?"),
        ("process where", 14, "expected a feature, found the end"),
        ("process where pid = abc", 21, "expected a number for pid, found `abc`"),
        ("process where pid", 18, "expected = != <"),
        ("process where pid ~ 1", 19, "found `~`"),
        ("process where (pid = 1", 23, "expected ), found the end"),
        ("process -> parnt", 12, "did you mean `parent`?"),
        ("process sort pid", 9, "expected ->, <-, where"),
        ("process limit 0", 15, "expected a number of rows"),
        ("process limit 1 limit 2", 17, "given twice"),
        ("process since yesterday", 15, "expected a time"),
        ("process between 1h and 2h", 24, "the end lies before"),
        ("process show dns.question", 14, "no step of the path is called `dns`"),
        ("process where first_seen > soon", 28, "expected a time for first_seen"),
        ("process where name is absent", 23, "expected missing"),
        ("connection where remote_address = 10.0.0.0/33", 35, "expected an address"),
        ("process where name = \"x", 22, "not closed"),
    ] {
        let error = parse(NOW, expression, &Vocabulary::default()).unwrap_err();
        assert_eq!(error.position, position, "{expression}: {error}");
        assert!(error.to_string().contains(message), "{expression}: {error}");
    }
}

#[test]
fn deep_and_long_expressions_are_refused_and_not_a_fault() {
    let deep = format!("process where {}pid = 1", "(".repeat(2_000));
    assert!(parse(NOW, &deep, &Vocabulary::default()).is_err());
    let nots = format!("process where {} pid = 1", "not ".repeat(900));
    assert!(parse(NOW, &nots, &Vocabulary::default()).is_err());
    let long = format!("process where name = {}", "x".repeat(5_000));
    assert!(parse(NOW, &long, &Vocabulary::default()).is_err());
    let path = "process".to_owned() + &" -> parent".repeat(8);
    assert!(parse(NOW, &path, &Vocabulary::default()).is_err());
}

#[test]
fn conditions_find_what_they_say() {
    for (condition, names) in [
        ("name = curl", vec!["curl"]),
        ("name != curl", vec!["init", "bash"]),
        ("user != x", vec!["bash"]),
        ("user is missing", vec!["init", "curl"]),
        ("not user is missing", vec!["bash"]),
        ("pid > 1 and pid <= 9", vec!["bash", "curl"]),
        ("pid = 1 or pid = 9 and name = bash", vec!["init"]),
        ("name matches *i*t", vec!["init"]),
        ("name contains ur or name startswith ba", vec!["bash", "curl"]),
        ("name in (init, curl)", vec!["init", "curl"]),
        ("name not in (init, curl)", vec!["bash"]),
        ("ended = true", vec!["curl"]),
        ("presence = live", vec!["init", "bash"]),
        ("first_seen < 2h", vec!["init"]),
        ("machine = box and pid = 7", vec!["bash"]),
        ("sensor = 01010101010101010101010101010101 and pid = 1", vec!["init"]),
        ("guid = 03030303030303030303030303030303", vec!["bash"]),
        ("guid = 05050505050505050505050505050505", vec![]),
    ] {
        assert_eq!(
            first_column(&format!("process where {condition} show name")),
            names,
            "{condition}"
        );
    }
}

#[test]
fn links_are_followed_forward_and_backward() {
    for (expression, names) in [
        ("process where name = curl -> parent show name", vec!["bash"]),
        ("process where name = curl -> parent -> process show name", vec!["init"]),
        ("process where name = bash <- parent show name", vec!["curl"]),
        ("process where name = bash <- process show name", vec!["curl"]),
        ("process where name = curl <- element show kind", vec!["connection", "dns"]),
        ("process where name = curl <- dns show question", vec!["evil.example"]),
        ("connection -> process -> parent show name", vec!["bash"]),
        ("dns -> machine show name", vec!["box"]),
        ("machine <- process where pid = 1 show name", vec!["init"]),
        (
            "connection where remote_address = 127.0.0.0/8 -> process show connection.remote_address",
            vec!["127.66.6.6"],
        ),
    ] {
        assert_eq!(first_column(expression), names, "{expression}");
    }
}

#[test]
fn time_is_when_it_was_there() {
    assert_eq!(first_column("process since 30m show name"), ["init", "bash"]);
    assert_eq!(first_column("process since 1h show name"), ["init", "bash", "curl"]);
    assert_eq!(first_column("process between 3h and 2h show name"), ["init"]);
    assert_eq!(first_column("dns since 1h show question").len(), 1);
    assert_eq!(first_column("dns since 10m show question").len(), 0);
}

#[test]
fn the_same_element_is_one_row_unless_the_columns_tell_more() {
    let expression = "element where kind in (connection, dns) -> process show name";
    assert_eq!(first_column(expression), ["curl"]);
    let expression = "element where kind in (connection, dns) -> process show element.kind, name";
    assert_eq!(first_column(expression), ["connection", "dns"]);
}

#[test]
fn without_show_every_feature_of_the_kind_is_a_column() {
    let answer = answer(&graph(), "process where name = bash");
    let column = |name: &str| answer.columns.iter().position(|it| it == name).unwrap();
    let row = &answer.rows[0];
    assert_eq!(row.len(), answer.columns.len());
    assert_eq!(row[column("pid")], OwnedCell::U64(7));
    assert_eq!(row[column("machine")], OwnedCell::Text("box".to_owned()));
    assert_eq!(row[column("image_path")], OwnedCell::Absent);
    assert_eq!(row[column("ended")], OwnedCell::Bool(false));
    assert_eq!(row[column(".ended")], OwnedCell::Absent);
    assert_eq!(row[column("first_seen")], OwnedCell::Text("2027-01-15T06:36:40.000Z".to_owned()));
    assert_eq!(answer.partial, "");
}

#[test]
fn a_limit_that_was_asked_for_is_not_partial_and_a_bound_is() {
    let graph = graph();
    let limited = answer(&graph, "process limit 2");
    assert_eq!((limited.rows.len(), limited.partial.as_str()), (2, ""));
    let query = parse(NOW, "process", &Vocabulary::default()).unwrap();
    let bounded = run(&graph, query.clone(), QueryLimits { rows_max: 2, work_max: 100 });
    assert_eq!(bounded.rows.len(), 2);
    assert_eq!(bounded.partial, "there may be more than these 2 rows");
    let hasty = run(&graph, query, QueryLimits { rows_max: 9, work_max: 3 });
    assert_eq!(hasty.rows.len(), 2);
    assert!(hasty.partial.contains("its time being over"), "{}", hasty.partial);
}

#[test]
fn slices_give_the_same_answer_as_one_go() {
    let graph = graph();
    let query =
        parse(NOW, "element <- element show 1.label, label", &Vocabulary::default()).unwrap();
    let whole = run(&graph, query.clone(), QueryLimits::new(0, 0));
    let mut search = Search::new(query, QueryLimits::new(0, 0));
    let mut slices = 1;
    while search.advance(&graph, 1) == Progress::More {
        slices += 1;
    }
    assert!(slices > 3 && whole.rows.len() > 3);
    assert_eq!(search.finish(&graph), whole);
}

#[test]
fn what_memory_lacks_is_said_for_the_kinds_and_times_it_concerns() {
    let limits = GraphLimits { elements_max: 2, ..GraphLimits::default() };
    let mut graph = Graph::new(limits, 1);
    for number in 1..=5 {
        let now_ms = NOW - 1_000_000 + u64::from(number);
        add(&mut graph, now_ms, What::Happened, file_event::KIND, number, &[]);
    }
    let partial = answer(&graph, "file_event").partial;
    assert!(partial.contains("3 past elements of kind file_event"), "{partial}");
    assert!(partial.contains("2027-01-15T07:43:20.003Z"), "{partial}");
    assert_eq!(answer(&graph, "process").partial, "");
    assert_eq!(answer(&graph, "file_event since 10m").partial, "");
    assert_eq!(answer(&graph, "file_event where sensor = 02").partial, "");
    assert_ne!(
        answer(&graph, "file_event where sensor = 01010101010101010101010101010101").partial,
        ""
    );
}

#[test]
fn an_agents_own_kind_is_found_by_its_name() {
    let mut model = KindModel::new(kind(file_event::KIND).unwrap());
    model.kind = Kind::OWN_FIRST;
    model.name = "door".into();
    let mut graph = graph();
    let change = Change {
        guid: guid(99),
        model: Arc::new(model),
        what: What::Happened,
        time_ns: 1,
        wall_ns: 1,
        index: None,
        source_seq: None,
        fields: vec![(file_event::path, text("front"))],
    };
    graph.apply(NOW, SENSOR, change);
    let answer = answer(&graph, "door where path = front show machine, path");
    assert_eq!(answer.rows.len(), 1);
    assert!(parse(NOW, "door", &Vocabulary::default()).is_err());
}

#[test]
fn what_was_not_read_is_shown_by_name() {
    let mut graph = graph();
    let missing = (1 << process::image_hash.0) | (1 << process::user.0);
    let fields =
        [(Feature::MISSING, OwnedValue::U64(missing)), (process::pid, OwnedValue::U64(50))];
    add(&mut graph, NOW, What::Put, process::KIND, 50, &fields);
    let answer = answer(&graph, "process where pid = 50 show missing");
    assert_eq!(answer.rows[0][0], OwnedCell::Text("user,image_hash".to_owned()));
}

#[test]
fn an_answer_comes_back_from_its_bytes() {
    let answer = answer(&graph(), "process show name, pid, parent");
    let bytes = answer.to_bytes();
    let rows: ElementRows<'_> = from_bytes(&bytes).unwrap();
    let columns: Vec<&str> = rows.columns.iter().map(Result::unwrap).collect();
    assert_eq!(columns, ["name", "pid", "parent"]);
    let back: Vec<Vec<OwnedCell>> = rows
        .rows
        .iter()
        .map(|row| row.unwrap().iter().map(|cell| OwnedCell::from(cell.unwrap())).collect())
        .collect();
    assert_eq!(back, answer.rows);
}

#[test]
fn without_show_every_feature_has_its_own_value() {
    let answer = answer(&graph(), "process where name = bash");
    let row: std::collections::BTreeMap<&str, &OwnedCell> =
        answer.columns.iter().map(String::as_str).zip(&answer.rows[0]).collect();
    assert_eq!(row["pid"], &OwnedCell::U64(7));
    assert_eq!(row["parent"], &OwnedCell::Element(guid(2)));
    assert_eq!(row["user"], &OwnedCell::Text("root".into()));
    assert_eq!(row["name"], &OwnedCell::Text("bash".into()));
}

/// Words from which an expression may be made.
const WORDS: &[&str] = &[
    "process",
    "element",
    "machine",
    "->",
    "<-",
    "parent",
    "where",
    "pid",
    "name",
    "image_path",
    "=",
    "!=",
    "<",
    "in",
    "(",
    ")",
    ",",
    "and",
    "or",
    "not",
    "is",
    "missing",
    "matches",
    "*",
    "1",
    "\"a\"",
    "since",
    "between",
    "1h",
    "show",
    "limit",
    "guid",
    ".ended",
    "0",
    "'",
    "\\",
    "\u{e9}",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        failure_persistence: None,
        ..proptest::prelude::ProptestConfig::default()
    })]

    #[test]
    fn no_text_is_a_fault_and_every_error_has_a_place_in_it(
        words in proptest::collection::vec(proptest::sample::select(WORDS), 0..24),
        noise in ".{0,12}",
    ) {
        let expression = format!("{} {noise}", words.join(" "));
        let length = expression.chars().count();
        for text in [expression, words.join(" "), noise] {
            match parse(NOW, &text, &Vocabulary::default()) {
                Ok(query) => drop(run(&graph(), query, QueryLimits { rows_max: 5, work_max: 200 })),
                Err(error) => assert!((1..=length + 1).contains(&error.position), "{error}"),
            }
        }
    }
}
