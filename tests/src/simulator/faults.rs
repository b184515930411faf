//! What goes wrong, and how often it was reached.

use std::collections::BTreeMap;

/// A fault, or a state worth reaching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reached {
    /// A connection was cut between two deliveries.
    Cut,
    /// A connection was cut in the middle of a delivery: a frame arrives in part.
    CutMidway,
    /// A connection went silent in both directions until it was given up.
    HalfOpen,
    /// An Ack was written by the server and never arrived.
    AckLost,
    /// The sensor's process was killed.
    SensorKilled,
    /// The sensor's machine lost power: unsynced appends are gone.
    SensorPowerCut,
    /// The sensor was stopped cleanly and started again.
    SensorStopped,
    /// The server's process was killed: entries that were not durable are gone.
    ServerKilled,
    /// The server refused the bulk lane for a time.
    Throttled,
    /// A dial found nobody.
    DialFailed,
    /// Hello verdict Resume.
    VerdictResume,
    /// Hello verdict New.
    VerdictNew,
    /// Hello verdict SensorBehind.
    VerdictSensorBehind,
    /// A keyframe was decoded.
    Keyframe,
    /// An old log's tail was sent after an unclean start.
    TailSent,
    /// A chunk was sent again.
    Resent,
    /// A sensor said Hello while entries of its were still on their way to the disk.
    GreetedWithPending,
}

impl Reached {
    /// Every one, in the order of the table.
    pub const ALL: [Self; 17] = [
        Self::Cut,
        Self::CutMidway,
        Self::HalfOpen,
        Self::AckLost,
        Self::SensorKilled,
        Self::SensorPowerCut,
        Self::SensorStopped,
        Self::ServerKilled,
        Self::Throttled,
        Self::DialFailed,
        Self::VerdictResume,
        Self::VerdictNew,
        Self::VerdictSensorBehind,
        Self::Keyframe,
        Self::TailSent,
        Self::Resent,
        Self::GreetedWithPending,
    ];

    /// Its name in the coverage table.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// How often each was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<Reached, u64>);

impl Coverage {
    /// Counts one.
    pub fn count(&mut self, reached: Reached) {
        *self.0.entry(reached).or_default() += 1;
    }

    /// Times `reached` was reached.
    #[must_use]
    pub fn times(&self, reached: Reached) -> u64 {
        self.0.get(&reached).copied().unwrap_or_default()
    }

    /// Adds another world's.
    pub fn add(&mut self, other: &Self) {
        for (reached, times) in &other.0 {
            *self.0.entry(*reached).or_default() += times;
        }
    }

    /// Those that were never reached.
    #[must_use]
    pub fn missing(&self) -> Vec<Reached> {
        Reached::ALL.into_iter().filter(|reached| self.times(*reached) == 0).collect()
    }
}
