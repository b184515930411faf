//! Cases against a server: the harness plays sensors.
//!
//! Each file looks at one part of the page. A case enrols its own sensors, so that it depends on no
//! other.

pub mod context;
pub mod process;

mod commands;
mod console;
mod crash;
mod credit;
mod delivery;
mod encoding;
mod findings;
mod framing;
mod hello;
mod holes;
mod keyframes;
mod ledger;
mod model;
mod overload;
mod planes;
mod registration;
mod rows;
mod safe;
mod steps;

use super::{Case, Phase, Run};
use context::Context;

/// All of them.
#[must_use]
pub fn cases() -> Vec<Case> {
    [
        planes::CASES,
        framing::CASES,
        hello::CASES,
        rows::CASES,
        delivery::CASES,
        credit::CASES,
        overload::CASES,
        holes::CASES,
        encoding::CASES,
        keyframes::CASES,
        model::CASES,
        console::CASES,
        ledger::CASES,
        findings::CASES,
        commands::CASES,
        registration::CASES,
        crash::CASES,
        safe::CASES,
    ]
    .concat()
}

/// A case that runs beside others.
const fn case(
    name: &'static str,
    requirements: &'static [&'static str],
    says: &'static str,
    run: fn(&mut Context<'_>) -> super::Checked,
) -> Case {
    Case { name, says, requirements, phase: Phase::Together, run: Run::Server(run) }
}

/// The same case in another phase.
const fn in_phase(case: Case, phase: Phase) -> Case {
    Case { phase, ..case }
}
