//! Cases against a sensor: the harness plays Registration and two Detection servers.
//!
//! Each file looks at one part of the page. A case starts a sensor of its own; whatever that sends,
//! also where the case looks at something else, is judged as it comes (`play::station`).

pub mod context;
pub mod subject;

mod commands;
mod crash;
mod delivery;
mod framing;
mod lanes;
mod planes;
mod rows;
mod spool;
mod trouble;

use super::{Case, Phase, Run};
use context::Context;

/// All of them.
#[must_use]
pub fn cases() -> Vec<Case> {
    [
        planes::CASES,
        framing::CASES,
        delivery::CASES,
        lanes::CASES,
        rows::CASES,
        commands::CASES,
        trouble::CASES,
        crash::CASES,
        spool::CASES,
    ]
    .concat()
}

/// A case that runs beside others.
const fn case(
    name: &'static str,
    requirements: &'static [&'static str],
    says: &'static str,
    run: fn(&mut Context) -> super::Checked,
) -> Case {
    Case { name, says, requirements, phase: Phase::Together, run: Run::Sensor(run) }
}
