//! How full the disk of a server is, in the three words that its credit depends on.
//!
//! Not here: measuring (the shell does), and what is done about it (`delivery` lowers the sensors'
//! credit). Invariant: no bound is passed in silence: credit is low before it is none, and none
//! while there is still room for everything that was granted.

use std::fmt;

/// Percent of the quota from which on credit is lowered.
pub const HIGH_PERCENT: u64 = 85;
/// Percent of the quota from which on no new credit is given. What is left holds what sensors may
/// still send on the credit that they have, and the copy of all heads that a partition opens with.
pub const FULL_PERCENT: u64 = 95;

/// How full it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// There is room: credit as usual.
    #[default]
    None,
    /// At `HIGH_PERCENT` of the quota, or free space below twice its floor: little credit.
    High,
    /// At `FULL_PERCENT` of the quota, or free space below its floor: no new credit.
    Full,
}

/// What a server's stores may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes that its stores may take; `None` has no such bound.
    pub quota: Option<u64>,
    /// Bytes that must stay free on their file system.
    pub free_space_floor: u64,
}

/// What was measured, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What the stores take.
    pub used: u64,
    /// What is free on their file system, for this process.
    pub free: u64,
}

impl Bounds {
    /// How full it is.
    #[must_use]
    pub fn pressure(&self, space: Space) -> Pressure {
        let by_quota = match self.quota {
            Some(quota) if is_share(space.used, quota, FULL_PERCENT) => Pressure::Full,
            Some(quota) if is_share(space.used, quota, HIGH_PERCENT) => Pressure::High,
            Some(_) | None => Pressure::None,
        };
        let by_floor = if space.free < self.free_space_floor {
            Pressure::Full
        } else if space.free < self.free_space_floor.saturating_mul(2) {
            Pressure::High
        } else {
            Pressure::None
        };
        by_quota.max(by_floor)
    }
}

fn is_share(used: u64, quota: u64, percent: u64) -> bool {
    u128::from(used) * 100 >= u128::from(quota) * u128::from(percent)
}

impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::High => "high",
            Self::Full => "full",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { quota: Some(1_000), free_space_floor: 100 };

    fn at(used: u64, free: u64) -> Pressure {
        BOUNDS.pressure(Space { used, free })
    }

    #[test]
    fn each_bound_begins_at_its_very_byte() {
        assert_eq!(at(849, 200), Pressure::None);
        assert_eq!(at(850, 200), Pressure::High);
        assert_eq!(at(949, 200), Pressure::High);
        assert_eq!(at(950, 200), Pressure::Full);
        assert_eq!(at(0, 199), Pressure::High);
        assert_eq!(at(0, 100), Pressure::High);
        assert_eq!(at(0, 99), Pressure::Full);
    }

    #[test]
    fn the_worse_bound_counts_and_without_a_quota_there_is_the_floor() {
        assert_eq!(at(850, 99), Pressure::Full);
        assert_eq!(at(950, 1_000), Pressure::Full);
        let floor = Bounds { quota: None, free_space_floor: 100 };
        assert_eq!(floor.pressure(Space { used: u64::MAX, free: 200 }), Pressure::None);
        assert_eq!(floor.pressure(Space { used: 0, free: 0 }), Pressure::Full);
        let vast = Bounds { quota: Some(u64::MAX), free_space_floor: u64::MAX };
        assert_eq!(vast.pressure(Space { used: u64::MAX, free: u64::MAX - 1 }), Pressure::Full);
    }
}
