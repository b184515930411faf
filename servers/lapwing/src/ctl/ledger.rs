//! `lapwing ctl ledger`: what became of every fact, for each sensor and lane.
//!
//! Not here: counting and verifying (the servers). With `--verify` the servers read their journals,
//! which takes as long as it takes: how far they are is told on standard error.

use std::io::{IsTerminal as _, Write as _};

use axum::http::Method;
use serde_json::{Value, json};

use super::connection::{Connection, Whole, encoded};
use super::nouns::Ledger;
use super::problem::Problem;
use super::table::{Column, plain, text_at};
use super::verbs::write;
use super::{Form, naming};
use crate::exit::Exit;

/// How long one question waits for the scans, in milliseconds.
const WAIT_MS: u32 = 1_000;

const COLUMNS: &[Column] = &[
    ("sensor", "sensor"),
    ("lane", "lane"),
    ("produced", "produced"),
    ("stored", "stored"),
    ("in flight", "in_flight"),
    ("dropped", "dropped_for"),
    ("missing", "missing_for"),
    ("lost unknown", "lost_unknown_for"),
    ("undecoded", "undecoded_for"),
    ("collected", "collector_seen"),
    ("balanced", "balanced"),
    ("told", "told_for"),
];

/// Shows the ledger.
pub(super) async fn run(at: &Connection, form: Form, ledger: &Ledger) -> Result<Exit, Problem> {
    let sensor = match &ledger.sensor {
        Some(sensor) => {
            let path = format!("/sensors/{}", encoded(&naming::sensor(at, sensor).await?));
            Some(text_at(&at.ask(Method::GET, &path, None).await?.value, "id"))
        }
        None => None,
    };
    let mut whole = match (ledger.verify, &sensor) {
        (true, _) => verify(at).await?,
        (false, Some(sensor)) => {
            at.ask(Method::GET, &format!("/ledger?sensor={}", encoded(sensor)), None).await?
        }
        (false, None) => at.ask(Method::GET, "/ledger", None).await?,
    };
    let mut bad = Vec::new();
    if let Value::Array(rows) = &mut whole.value {
        if let Some(sensor) = &sensor {
            rows.retain(|row| text_at(row, "sensor") == *sensor);
        }
        bad = rows.iter().filter(|row| row["first_bad"].is_object()).map(fault).collect();
        if form == Form::Table {
            rows.iter_mut().for_each(shorten);
        }
    }
    let exit = write(form, COLUMNS, &whole);
    for line in &bad {
        eprintln!("lapwing ctl: {line}");
    }
    if ledger.verify && bad.is_empty() && exit == Exit::Done && form == Form::Table {
        eprintln!("Every stored chunk is as it was acknowledged.");
    }
    Ok(if bad.is_empty() { exit } else { Exit::Failed })
}

/// Has the journals read and waits for the end.
async fn verify(at: &Connection) -> Result<Whole, Problem> {
    let is_watched = std::io::stderr().is_terminal();
    let mut scan = String::new();
    loop {
        let path = format!("/ledger/verify?scan={}&wait_ms={WAIT_MS}", encoded(&scan));
        let Whole { mut value, partial } = at.ask(Method::GET, &path, None).await?;
        if is_watched {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K{}", progress(&value));
        }
        if value["ended"] == json!(true) {
            if is_watched {
                eprintln!();
            }
            let said = text_at(&value, "partial");
            let partial = partial.or((!said.is_empty()).then_some(said));
            return Ok(Whole { value: value["rows"].take(), partial });
        }
        scan = text_at(&value, "scan");
    }
}

/// How far every server is.
fn progress(value: &Value) -> String {
    let servers = value["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lines = servers.iter().map(|server| {
        let (scanned, of) = (plain(&server["scanned"]), plain(&server["of"]));
        format!("{}: {scanned} of {of} entries", plain(&server["server"]))
    });
    lines.collect::<Vec<_>>().join("   ")
}

/// The first bad chunk of a row, for a person.
fn fault(row: &Value) -> String {
    let bad = &row["first_bad"];
    let text = |key: &str| plain(&bad[key]);
    format!(
        "first bad chunk of sensor {}, lane {}: seq {} of log {}, entry {} of {}'s journal: {}",
        text_at(row, "sensor"),
        text_at(row, "lane"),
        text("seq"),
        text("log"),
        text("commit"),
        text("server"),
        text("what")
    )
}

/// Adds what a table shows to a row: sums with their reasons, and nothing for zeros.
fn shorten(row: &mut Value) {
    let Value::Object(fields) = row else { return };
    let dropped = fields.get("dropped").and_then(Value::as_object);
    let reasons: Vec<(String, u64)> = dropped
        .into_iter()
        .flatten()
        .map(|(reason, count)| (reason.clone(), count.as_u64().unwrap_or(0)))
        .collect();
    let sum: u64 = reasons.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count));
    let text = match reasons.as_slice() {
        [] => String::from("0"),
        [(reason, _)] => format!("{sum} {reason}"),
        _ => {
            let parts = reasons.iter().map(|(reason, count)| format!("{reason} {count}"));
            format!("{sum}: {}", parts.collect::<Vec<_>>().join(", "))
        }
    };
    fields.insert(String::from("dropped_for"), json!(text));
    for name in ["missing", "lost_unknown", "undecoded"] {
        let count = fields.get(name).and_then(Value::as_u64).unwrap_or(0);
        if count > 0 {
            fields.insert(format!("{name}_for"), json!(count));
        }
    }
    // A sensor that is here says so now; only of one that is not the age matters.
    if fields.get("connected") == Some(&json!(false))
        && let Some(told) = fields.get("told").cloned()
    {
        fields.insert(String::from("told_for"), told);
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::table;
    use super::*;

    #[test]
    fn a_row_says_what_is_not_zero_and_fits_a_line() {
        let mut rows = [
            json!({
                "sensor": "0117fbc13318f5e8f7aeee65c0126003", "lane": "bulk",
                "produced": 1_000_000, "stored": 400_000, "in_flight": 0,
                "dropped": { "spool_full": 600_000 }, "lost_unknown": 0, "undecoded": 0,
                "missing": 0, "collector_seen": 1_000_400, "balanced": true, "connected": true,
                "told": "2026-11-24T05:41:33.006Z",
            }),
            json!({
                "sensor": "0117fbc13318f5e8f7aeee65c0126003", "lane": "urgent",
                "produced": 4, "stored": 3, "in_flight": null, "dropped": {}, "lost_unknown": 1,
                "undecoded": 0, "missing": 1, "collector_seen": null, "balanced": "unknown",
                "connected": false, "told": "2026-11-24T05:41:33.006Z",
            }),
        ];
        rows.iter_mut().for_each(shorten);
        let text = table(COLUMNS, &rows);
        assert!(text.contains("600000 spool_full"), "{text}");
        assert!(!text.contains("UNDECODED"), "a column of zeros is left out: {text}");
        assert!(text.lines().count() >= 3, "{text}");
    }
}
