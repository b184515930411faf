//! How urgent a MalOp is, as a sum of reasons that a person can read.
//!
//! The severity of a MalOp is the highest of its evidences; the score orders MalOps of one
//! severity.
//! Invariant: a score depends on the MalOp alone, and each of its points has a reason.

use std::fmt;

use lapwing_protocol::console::Severity;

use super::decision::REPUTATION;
use super::record::Group;

/// The highest score.
pub const POINTS_MAX: u32 = 100;

/// From how many evidences on a MalOp is one that goes on.
const REPEATED: u64 = 10;

/// Points with their reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Score(Vec<(u32, String)>);

impl Score {
    /// The score of `group`.
    #[must_use]
    pub fn of(group: &Group) -> Self {
        let mut reasons = vec![match group.severity() {
            Severity::High => (60, "high severity".to_owned()),
            Severity::Medium => (30, "medium severity".to_owned()),
            Severity::Low => (10, "low severity".to_owned()),
        }];
        let mut add = |points: u32, reason: String| {
            if points > 0 {
                reasons.push((points, reason));
            }
        };
        let more_than_one = |length: usize| u32::try_from(length.saturating_sub(1)).unwrap_or(20);
        let machines = group.machines.len();
        add((5 * more_than_one(machines)).min(20), format!("on {machines} machines"));
        if group.family == REPUTATION {
            add(5, "a listed indicator".to_owned());
        }
        if group.users.len() > 1 {
            add(5, format!("{} users", group.users.len()));
        }
        if group.count >= REPEATED {
            add(5, format!("{} evidences", group.count));
        }
        let techniques = group.techniques.len();
        add(more_than_one(techniques).min(5), format!("{techniques} techniques"));
        Self(reasons)
    }

    /// The sum, at most [`POINTS_MAX`].
    #[must_use]
    pub fn points(&self) -> u32 {
        self.0.iter().map(|(points, _)| points).sum::<u32>().min(POINTS_MAX)
    }

    /// Each part of the sum with its reason, the severity first.
    #[must_use]
    pub fn reasons(&self) -> &[(u32, String)] {
        &self.0
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.points())?;
        for (place, (points, reason)) in self.0.iter().enumerate() {
            let before = if place == 0 { ": " } else { ", " };
            write!(f, "{before}{reason} {points}")?;
        }
        Ok(())
    }
}
