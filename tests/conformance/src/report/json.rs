//! The report as one JSON object.

use serde_json::{Value, json};

use super::{Report, Verdict};
use crate::requirements::{self, Coverage};

/// The report.
#[must_use]
pub fn render(report: &Report) -> Value {
    let cases: Vec<Value> = report
        .cases
        .iter()
        .map(|case| {
            json!({
                "name": case.name,
                "says": case.says,
                "requirements": case.requirements,
                "verdict": case.verdict.name(),
                "reasons": case.reasons,
                "seconds": case.took.as_secs_f64(),
            })
        })
        .collect();
    let requirements: Vec<Value> = requirements::coverage(&report.role)
        .into_iter()
        .map(|Coverage { statement, cases, not_observable }| {
            json!({
                "id": statement.id,
                "must": statement.is_must,
                "text": statement.text,
                "cases": cases,
                "verdict": report.of_requirement(&statement.id).map(Verdict::name),
                "not_observable": not_observable,
            })
        })
        .collect();
    let others: Vec<Value> = requirements::of_others()
        .into_iter()
        .map(|(statement, reason)| {
            json!({
                "id": statement.id,
                "must": statement.is_must,
                "text": statement.text,
                "reason": reason,
            })
        })
        .collect();
    json!({
        "program": "lapwing-conformance",
        "version": env!("CARGO_PKG_VERSION"),
        "role": report.role,
        "target": report.target,
        "seed": report.seed,
        "started_ms": report.started_ms,
        "seconds": report.took.as_secs_f64(),
        "pass": report.count(Verdict::Pass),
        "weak": report.count(Verdict::Weak),
        "fail": report.count(Verdict::Fail),
        "skip": report.count(Verdict::Skip),
        "cases": cases,
        "requirements": requirements,
        "binds_others": others,
    })
}
