//! Which evidence makes a MalOp, which stays a suspicion, and what groups with what.
//!
//! `docs/malops.md` says the same for people. Invariant: the decision on an evidence depends on
//! nothing but that evidence, so the order of arrival changes nothing.

use lapwing_protocol::console::Severity;
use lapwing_protocol::digest::derived_id;
use lapwing_protocol::id::MalOpId;
use lapwing_protocol::intel::Classification;

use crate::evidence::Evidence;
use crate::view::OwnedCell;

/// What becomes of an evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is no suspicion by itself; its Detection server keeps it.
    Noted,
    /// It is a suspicion; together with others of its group it may be part of a MalOp.
    Suspicion,
    /// It makes its group a MalOp.
    MalOp,
}

/// The family of all rules of reputation: a hash that one list calls malware and another has
/// blocked is one cause and one MalOp.
pub const REPUTATION: &str = "reputation";

/// What becomes of `evidence`.
#[must_use]
pub fn decide(evidence: &Evidence) -> Decision {
    if !evidence.suspicious {
        Decision::Noted
    } else if evidence.severity >= Severity::High || is_of_reputation(evidence) {
        Decision::MalOp
    } else {
        Decision::Suspicion
    }
}

/// The family whose evidences group: that of all reputation, else the rule.
#[must_use]
pub fn family(evidence: &Evidence) -> &str {
    if is_of_reputation(evidence) { REPUTATION } else { &evidence.rule }
}

/// The id of the group that `evidence` belongs to, on whichever machine and server it was raised.
#[must_use]
pub fn group_id(evidence: &Evidence) -> MalOpId {
    let parts = [family(evidence).as_bytes(), evidence.root_cause.as_bytes()];
    MalOpId(derived_id(b"lapwing-malop-1", &parts))
}

/// Whether a bad verdict on an indicator raised it.
fn is_of_reputation(evidence: &Evidence) -> bool {
    use Classification as C;
    let is_bad = |verdict: &str| {
        [C::Blocked, C::Malware, C::Ransomware, C::Unwanted]
            .iter()
            .any(|classification| classification.name() == verdict)
    };
    evidence.reputation.iter().any(|(name, value)| {
        name == "verdict" && matches!(value, OwnedCell::Text(verdict) if is_bad(verdict))
    })
}
