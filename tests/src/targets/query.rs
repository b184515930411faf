//! Expressions of the query language as anybody who may ask can write them, over a small graph.
//!
//! Laws: nothing panics; a refusal points into the expression; a search ends within its limits,
//! gives the same answer again, and its answer decodes.
#![allow(clippy::expect_used, reason = "a law that does not hold is a panic")]

use std::sync::{Arc, OnceLock};

use lapwing_protocol::console::ElementRows;
use lapwing_protocol::element::{Feature, Kind, kind, machine, process};
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::id::{ElementGuid, SensorId};
use lapwing_server_core::change::{Change, KindModel, OwnedValue, What};
use lapwing_server_core::graph::Graph;
use lapwing_server_core::graph::limits::GraphLimits;
use lapwing_server_core::query::{self, QueryLimits, Vocabulary};

/// A moment, in milliseconds since 1970.
const NOW_MS: u64 = 1_800_000_000_000;
/// Processes in the graph, each the child of the one before.
const PROCESSES: u8 = 12;
/// A search may look at less than it would have to for some expressions.
const LIMITS: QueryLimits = QueryLimits { rows_max: 50, work_max: 2_000 };

/// Any text as an expression.
pub fn query(data: &[u8]) {
    static ASKED: OnceLock<(Graph, Vocabulary)> = OnceLock::new();
    let (graph, vocabulary) = ASKED.get_or_init(|| {
        let graph = graph();
        let vocabulary = Vocabulary::of(&graph);
        (graph, vocabulary)
    });
    let expression = String::from_utf8_lossy(data);
    match query::parse(NOW_MS, &expression, vocabulary) {
        Ok(parsed) => {
            let answer = query::run(graph, parsed.clone(), LIMITS);
            assert_eq!(answer, query::run(graph, parsed, LIMITS), "{expression}");
            assert!(answer.rows.len() <= LIMITS.rows_max as usize, "{expression}");
            for row in &answer.rows {
                assert_eq!(row.len(), answer.columns.len(), "{expression}");
            }
            let bytes = answer.to_bytes();
            let rows: ElementRows<'_> = from_bytes(&bytes).expect("an answer decodes");
            assert_eq!(rows.rows.iter().count(), answer.rows.len(), "{expression}");
        }
        Err(error) => {
            let characters = expression.chars().count();
            assert!((1..=characters + 1).contains(&error.position), "{expression}: {error}");
        }
    }
}

fn graph() -> Graph {
    let mut graph = Graph::new(GraphLimits::default(), 1);
    let text = |text: String| OwnedValue::Text(text.into_bytes().into());
    add(&mut graph, machine::KIND, 1, vec![(machine::name, text("box".into()))]);
    for number in 2..2 + PROCESSES {
        let fields = vec![
            (process::pid, OwnedValue::U64(number.into())),
            (process::parent, OwnedValue::Element(ElementGuid([number - 1; 16]))),
            (process::name, text(format!("tool-{number}"))),
            (process::user, text("root".into())),
        ];
        add(&mut graph, process::KIND, number, fields);
    }
    graph
}

fn add(graph: &mut Graph, of: Kind, number: u8, fields: Vec<(Feature, OwnedValue)>) {
    let change = Change {
        guid: ElementGuid([number; 16]),
        model: Arc::new(KindModel::new(kind(of).expect("it is in the model"))),
        what: What::Put,
        time_ns: u64::from(number),
        wall_ns: NOW_MS * 1_000_000,
        index: None,
        source_seq: None,
        fields,
    };
    graph.apply(NOW_MS, SensorId([1; 16]), change);
}
