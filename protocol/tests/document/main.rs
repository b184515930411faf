//! The protocol's text and the protocol's code say the same: bounds, model, methods, messages, and
//! the bytes of the examples.
//!
//! What can be derived from the code stands in the text between `<!-- begin NAME -->` and
//! `<!-- end NAME -->`; with `LAPWING_BLESS=1` in the environment it is written, else compared.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod declarations;
mod page;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use declarations::{Declaration, Shape, declarations};
use lapwing_protocol::call::Method;
use lapwing_protocol::element::{COMMON_FEATURES, MODEL, Nature, Scope};
use lapwing_protocol::limits;
use lapwing_protocol::message::Message;
use page::Page;

const PROTOCOL: &str = "docs/protocol.md";
const MESSAGES: &str = "docs/protocol-messages.md";

/// Sources of messages, in the order of the page.
const SOURCES: [(&str, &str); 20] = [
    ("Names of things", include_str!("../../src/id.rs")),
    ("Session", include_str!("../../src/hello.rs")),
    ("Chunk", include_str!("../../src/chunk.rs")),
    ("Delivery", include_str!("../../src/delivery.rs")),
    ("Reasons for dropping", include_str!("../../src/op.rs")),
    ("Commands", include_str!("../../src/command.rs")),
    ("Calls", include_str!("../../src/call.rs")),
    ("Definitions of kinds: model", include_str!("../../src/element.rs")),
    ("Definitions of kinds: op", include_str!("../../src/element/value.rs")),
    ("Enrolment", include_str!("../../src/enrol.rs")),
    ("Registration", include_str!("../../src/registration.rs")),
    ("Feeds and pages", include_str!("../../src/feed.rs")),
    ("Console", include_str!("../../src/console.rs")),
    ("Ledger", include_str!("../../src/ledger.rs")),
    ("Threat intelligence", include_str!("../../src/intel.rs")),
    ("MalOps", include_str!("../../src/malop.rs")),
    ("Tags", include_str!("../../src/tagging.rs")),
    ("Fleet", include_str!("../../src/fleet.rs")),
    ("Updates", include_str!("../../src/update.rs")),
    ("Supervision", include_str!("../../src/supervision.rs")),
];

macro_rules! values {
    ($($name:ident),* $(,)?) => {
        BTreeMap::from([$((stringify!($name), limits::$name as u64)),*])
    };
}

#[test]
fn bounds_have_the_numbers_of_the_code() {
    let values = values![
        FRAME_HEADER_BYTES,
        FRAME_BYTES_MAX,
        FRAME_BODY_BYTES_MAX,
        FRAME_BYTES_UNAUTHENTICATED_MAX,
        RECEIVE_BYTES_MIN,
        CHUNK_BYTES_MAX,
        CHUNK_HEADER_BYTES_MAX,
        CHUNK_FACTS_MAX,
        CHUNK_AGE_MS_MAX,
        VALUE_BYTES_MAX,
        ROW_BYTES_MAX,
        KEY_BYTES_MAX,
        FEATURES_MAX,
        STRING_SLOTS_MAX,
        STRING_SLOT_BYTES_MAX,
        ROWS_MAX,
        DEFINED_KINDS_MAX,
        SEQ_MAX,
        CHAIN_MARK_CHUNKS,
        SEGMENT_DELTA_RATIO,
        SEGMENT_DELTA_BYTES_MIN,
        SEGMENT_AGE_MS_MAX,
        LANES,
        CAPABILITIES_MAX,
        ELSEWHERE_MAX,
        NAME_BYTES_MAX,
        EXPRESSION_BYTES_MAX,
        REPLY_BYTES_MAX,
        CALLS_MAX,
        CLASSIFY_KEYS_MAX,
        FEED_PAGE_MAX,
        FEED_WAIT_MS_MAX,
        PING_MS,
        IDLE_MS_MAX,
    ];
    let source = include_str!("../../src/limits.rs");
    let named = source.lines().filter_map(|line| line.strip_prefix("pub const "));
    let named: Vec<&str> = named.filter_map(|rest| rest.split(':').next()).collect();
    assert_eq!(named.len(), values.len(), "limits.rs and this test name other bounds");
    let page = Page::read(PROTOCOL);
    for name in named {
        let row = page.row_with(&format!("`{name}`")).unwrap_or_else(|| {
            panic!("{PROTOCOL} has no row for the bound `{name}`: say what happens there")
        });
        let number: u64 = row[2].replace(',', "").parse().unwrap();
        assert_eq!(Some(&number), values.get(name), "{PROTOCOL}: `{name}`");
        assert!(row[3].len() > 10, "{PROTOCOL} does not say what happens at `{name}`");
    }
}

#[test]
fn the_model_is_the_codes() {
    let meanings = meanings(include_str!("../../src/element/model.rs"));
    let mut text = String::from("Every kind also has these:\n\n");
    text += "| feature | name | type |\n| ---: | --- | --- |\n";
    for spec in &COMMON_FEATURES {
        let (number, value_type) = (spec.feature.0, spec.value_type);
        let _ = writeln!(text, "| {number} | `{}` | {value_type:?} |", spec.name);
    }
    for spec in MODEL {
        let nature = if spec.nature == Nature::State { "state" } else { "event" };
        let scope = if spec.scope == Scope::Boot { "boot" } else { "machine" };
        let (kind, name, about) = (spec.kind.0, spec.name, &meanings[&(spec.name, "")]);
        let _ = writeln!(text, "\n**Kind {kind}, `{name}`**: {nature}, scope {scope}. {about}\n");
        text += "| feature | name | type | key | meaning |\n| ---: | --- | --- | --- | --- |\n";
        for feature in spec.features {
            let key = if feature.role.is_key() { "key" } else { "" };
            let (number, value_type) = (feature.feature.0, feature.value_type);
            let (feature, about) = (feature.name, &meanings[&(name, feature.name)]);
            let _ = writeln!(text, "| {number} | `{feature}` | {value_type:?} | {key} | {about} |");
        }
    }
    Page::read(PROTOCOL).hold("model", &text);
}

/// What the model says of each kind, and of each of its features, by their names.
fn meanings(source: &str) -> BTreeMap<(&str, &str), String> {
    let (mut kind, mut about, mut meanings) = ("", String::new(), BTreeMap::new());
    let table = source.lines().skip_while(|line| !line.starts_with("model! {"));
    for line in table.map(str::trim) {
        if let Some(comment) = line.strip_prefix("/// ") {
            about = [about.as_str(), comment].join(" ").trim().into();
        } else if let Some((name, rest)) = line.split_once(" = ") {
            if rest.ends_with('{') {
                kind = name;
            }
            let feature = if rest.ends_with('{') { "" } else { name };
            meanings.insert((kind, feature), std::mem::take(&mut about));
        }
    }
    meanings
}

#[test]
fn frames_are_the_codes() {
    let source = include_str!("../../src/message.rs");
    let rows = source.lines().filter_map(|line| line.strip_prefix("//! |"));
    let rows: Vec<String> = rows.map(|row| format!("|{row}")).collect();
    for (kind, name) in Message::KINDS {
        let front = format!("| {} | {name} |", kind.0);
        assert!(rows.iter().any(|row| row.starts_with(&front)), "message.rs: no row `{front}`");
    }
    assert_eq!(rows.len(), Message::KINDS.len() + 2, "message.rs: a row without a message");
    Page::read(PROTOCOL).hold("frames", &(rows.join("\n") + "\n"));
}

#[test]
fn methods_are_the_codes() {
    let source = include_str!("../../src/call.rs");
    let mut text = String::from("| method | name | where | request | reply |\n");
    text += "| ---: | --- | --- | --- | --- |\n";
    let mut about = String::new();
    let mut rows = 0;
    for line in source.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("/// ") {
            about = comment.into();
        } else if let Some((_, rest)) = line.split_once(" = ")
            && let Some((number, name)) = rest.split_once(", \"")
            && let (Ok(number), Some((place, messages))) =
                (number.parse::<u16>(), about.split_once(". "))
        {
            let (request, reply) = messages.split_once(" -> ").unwrap();
            let name = name.trim_end_matches("\";");
            assert!(Method::ALL.contains(&(Method(number), name)), "{number} {name}");
            let reply = reply.trim_end_matches('.');
            let _ = writeln!(text, "| {number} | `{name}` | {place} | {request} | {reply} |");
            rows += 1;
        }
    }
    assert_eq!(rows, Method::ALL.len(), "call.rs: a method without a line in the expected form");
    Page::read(PROTOCOL).hold("methods", &text);
}

#[test]
fn messages_are_the_codes() {
    let mut text = String::new();
    for (title, source) in SOURCES {
        let _ = writeln!(text, "## {title}\n");
        for declaration in declarations(source) {
            describe(&mut text, &declaration);
        }
    }
    Page::read(MESSAGES).hold("messages", &text);
}

fn describe(text: &mut String, declaration: &Declaration) {
    let Declaration { name, about, shape } = declaration;
    let _ = writeln!(text, "### {name}\n\n{about}\n");
    match shape {
        Shape::Wrapper(inner) => {
            let _ = writeln!(text, "Written as `{inner}`.\n");
        }
        Shape::Fields(fields) => {
            *text += "| field | type | meaning |\n| --- | --- | --- |\n";
            for (field, field_type, about) in fields {
                let _ = writeln!(text, "| `{field}` | `{field_type}` | {about} |");
            }
            text.push('\n');
        }
        Shape::Variants(variants) => {
            *text += "| number | variant | meaning |\n| ---: | --- | --- |\n";
            for (number, (variant, about)) in variants.iter().enumerate() {
                let _ = writeln!(text, "| {number} | `{variant}` | {about} |");
            }
            text.push('\n');
        }
    }
}

#[test]
fn examples_are_golden() {
    let page = Page::read(PROTOCOL);
    let examples = page.examples();
    assert!(examples.len() >= 8, "{PROTOCOL} shows {} examples", examples.len());
    for (name, bytes) in examples {
        let (book, entry) = name.split_once('/').unwrap();
        let path = page::root().join(format!("protocol/tests/golden/bytes/{book}.hex"));
        let book = std::fs::read_to_string(&path).unwrap();
        let mut lines = book.lines().filter_map(|line| line.split_once(' '));
        let golden = lines.find(|(known, _)| *known == entry).map(|(_, golden)| golden);
        assert_eq!(golden, Some(bytes.as_str()), "{PROTOCOL}: the example {name}");
    }
}
