//! Commands to a sensor. Their outcome comes back as a fact, in the urgent lane.
//!
//! One issuer numbers commands per sensor. The sensor makes the number durable before it acts and
//! refuses any that is not higher, so a command runs at most once; a crash in between is
//! reported as [`Outcome::Interrupted`], never run again.

use serde::{Deserialize, Serialize};

/// The number of a command: ordered by issuer incarnation, then sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandNumber {
    /// Which life of the issuer; higher after a restore.
    pub issuer: u64,
    /// Dense from 1 per sensor.
    pub seq: u64,
}

/// What is to be done. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Collect.
    StartCollection,
    /// Collect nothing; stay connected.
    StopCollection,
    /// Stop the sensor and start it again.
    Restart,
    /// Let only the Detection server be reached.
    Isolate,
    /// Lift the isolation.
    Unisolate,
    /// Take the update that the Detection server holds.
    Upgrade,
}

impl Action {
    /// The action's name in facts, API and command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StartCollection => "start_collection",
            Self::StopCollection => "stop_collection",
            Self::Restart => "restart",
            Self::Isolate => "isolate",
            Self::Unisolate => "unisolate",
            Self::Upgrade => "upgrade",
        }
    }
}

/// Server to sensor: do this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Its number.
    pub number: CommandNumber,
    /// How long after receipt it may still be started, in milliseconds of the sensor's clock.
    pub expires_after_ms: u64,
    /// What is to be done.
    pub action: Action,
}

/// What became of a command. Append only; the number is what a `command_outcome` fact carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done.
    Done,
    /// Tried, and failed.
    Failed,
    /// Its time was over.
    Expired,
    /// Its number was not above the last accepted one.
    Refused,
    /// The sensor stopped between accepting and finishing it.
    Interrupted,
    /// This sensor cannot do it.
    NotSupported,
}

impl Outcome {
    /// Every outcome, at the position of its number.
    pub const ALL: [Self; 6] = [
        Self::Done,
        Self::Failed,
        Self::Expired,
        Self::Refused,
        Self::Interrupted,
        Self::NotSupported,
    ];

    /// The outcome's name in API and command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Interrupted => "interrupted",
            Self::NotSupported => "not_supported",
        }
    }
}
