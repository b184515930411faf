//! The numbered requirements of docs/protocol.md, whom each binds, and which cases look at it.
//!
//! Invariants, held by the tests below: every requirement of the page stands in the table once;
//! each that binds a role has a case of that role or a reason why nobody outside can see it; each
//! that binds neither says whom instead; every case names requirements that exist.

mod table;

use crate::cases::{self, Case};

pub use table::{Binds, TABLE, UNSEEN};

const PAGE: &str = include_str!("../../../../docs/protocol.md");

/// One requirement as the page states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its number.
    pub id: String,
    /// What it says, with what follows up to the next number.
    pub text: String,
    /// Whether it says MUST.
    pub is_must: bool,
}

/// One requirement, and what looks at it.
#[derive(Clone, Debug)]
pub struct Coverage {
    /// The requirement.
    pub statement: Statement,
    /// The cases, by name.
    pub cases: Vec<&'static str>,
    /// Why no case can look at it.
    pub not_observable: Option<&'static str>,
}

/// Every requirement of the page, in its order.
#[must_use]
pub fn statements() -> Vec<Statement> {
    let mut found: Vec<Statement> = Vec::new();
    let mut open = false;
    for line in PAGE.lines() {
        if let Some((id, text, in_table)) = begins(line) {
            found.push(Statement { id, text, is_must: false });
            open = !in_table;
        } else if line.starts_with('#') || line.starts_with("<!--") {
            open = false;
        } else if let Some(last) = found.last_mut().filter(|_| open && !line.is_empty()) {
            last.text.push(' ');
            last.text.push_str(line);
        }
    }
    for statement in &mut found {
        statement.is_must = statement.text.contains("MUST");
    }
    found
}

/// A line that states a requirement: its number, its text, and whether it is a row of a table.
fn begins(line: &str) -> Option<(String, String, bool)> {
    let (inner, in_table) = match line.strip_prefix("| ") {
        Some(inner) => (inner, true),
        None => (line, false),
    };
    let (id, text) = inner.strip_prefix("**")?.split_once("**")?;
    let (area, number) = id.split_once('-')?;
    let is_id = area.len() == 3
        && area.bytes().all(|byte| byte.is_ascii_uppercase())
        && number.len() == 3
        && number.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.trim_matches(|sign: char| sign == '|' || sign == ' ');
    is_id.then(|| (id.to_owned(), text.to_owned(), in_table))
}

/// What binds `role` (`server` or `sensor`), with the cases of that role.
#[must_use]
pub fn coverage(role: &str) -> Vec<Coverage> {
    let cases = cases::of_role(role);
    let bound = statements().into_iter().filter(|statement| binds(&statement.id, role));
    bound.map(|statement| coverage_of(statement, role, &cases)).collect()
}

fn coverage_of(statement: Statement, role: &str, cases: &[Case]) -> Coverage {
    let looks = |case: &&Case| case.requirements.contains(&statement.id.as_str());
    let names = cases.iter().filter(looks).map(|case| case.name).collect();
    let unseen = UNSEEN.iter().find(|(id, of, _)| *id == statement.id && *of == role);
    Coverage { cases: names, not_observable: unseen.map(|(_, _, reason)| *reason), statement }
}

/// What binds neither a server nor a sensor, and why.
#[must_use]
pub fn of_others() -> Vec<(Statement, &'static str)> {
    let reason = |id: &str| {
        TABLE.iter().find(|(known, _)| *known == id).and_then(|(_, binds)| match binds {
            Binds::Others(reason) => Some(*reason),
            Binds::Server | Binds::Sensor | Binds::Both | Binds::Page => None,
        })
    };
    let all = statements().into_iter();
    all.filter_map(|statement| reason(&statement.id).map(|reason| (statement, reason))).collect()
}

fn binds(id: &str, role: &str) -> bool {
    let found = TABLE.iter().find(|(known, _)| *known == id).map(|(_, binds)| *binds);
    match found {
        Some(Binds::Both) => true,
        Some(Binds::Server) => role == "server",
        Some(Binds::Sensor) => role == "sensor",
        Some(Binds::Page | Binds::Others(_)) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_page_is_read() {
        let statements = statements();
        assert!(statements.len() > 200, "{} requirements were found", statements.len());
        let nack = statements.iter().find(|found| found.id == "DLV-009").unwrap();
        assert!(nack.text.contains("BeyondCredit") && nack.is_must, "{nack:?}");
        let row = statements.iter().find(|found| found.id == "HEL-023").unwrap();
        assert!(row.text.contains("SensorBehind") && row.is_must, "{row:?}");
    }

    #[test]
    fn every_requirement_of_the_page_stands_in_the_table_once() {
        let stated: Vec<String> = statements().into_iter().map(|found| found.id).collect();
        let mut listed: Vec<String> = TABLE.iter().map(|(id, _)| (*id).to_owned()).collect();
        for id in &stated {
            assert!(listed.contains(id), "{id} is in no row of TABLE: whom does it bind?");
        }
        listed.sort();
        for pair in listed.windows(2) {
            assert_ne!(pair[0], pair[1], "TABLE has two rows of it");
        }
        for id in listed {
            assert!(stated.contains(&id), "docs/protocol.md does not state {id}");
        }
    }

    #[test]
    fn every_requirement_of_a_server_has_a_case() {
        every_requirement_has_a_case("server");
    }

    #[test]
    fn every_requirement_of_a_sensor_has_a_case() {
        every_requirement_has_a_case("sensor");
    }

    fn every_requirement_has_a_case(role: &str) {
        let mut wrong = Vec::new();
        for Coverage { statement, cases, not_observable } in coverage(role) {
            match (cases.is_empty(), not_observable) {
                (true, None) => wrong.push(format!("{} has no case", statement.id)),
                (false, Some(_)) => {
                    wrong.push(format!("{} has a case and is in UNSEEN", statement.id));
                }
                (false, None) | (true, Some(_)) => {}
            }
        }
        assert!(wrong.is_empty(), "of a {role}: {}", wrong.join("; "));
    }

    #[test]
    fn every_case_names_requirements_that_exist_and_bind_its_role() {
        for role in ["server", "sensor"] {
            let mut names = BTreeSet::new();
            for case in cases::of_role(role) {
                assert!(names.insert(case.name), "two cases are called {}", case.name);
                assert!(!case.requirements.is_empty(), "{} names no requirement", case.name);
                for id in case.requirements {
                    assert!(binds(id, role), "{}: {id} does not bind a {role}", case.name);
                }
            }
        }
    }

    #[test]
    fn what_binds_others_says_whom_and_why() {
        let others = of_others();
        assert!(others.iter().any(|(statement, _)| statement.id == "DLV-014"), "{others:?}");
        for (statement, reason) in others {
            let says = reason.starts_with("binds ") || reason.split_once(": ").is_some();
            assert!(says && reason.len() > 60, "{}: `{reason}` is no reason", statement.id);
        }
    }

    #[test]
    fn what_cannot_be_seen_says_why() {
        for (id, role, reason) in UNSEEN {
            assert!(binds(id, role), "{id} does not bind a {role}");
            assert!(reason.len() > 20, "{id}: the reason says nothing");
        }
    }
}
