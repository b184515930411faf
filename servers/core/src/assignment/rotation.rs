//! Smooth weighted round robin: turns come in proportion to the weights and as evenly as they can.
//!
//! Invariant: with the same candidates and weights the turns sum to zero after every choice, so no
//! candidate runs ahead of its share by more than one turn.

use lapwing_protocol::id::ServerId;

/// One that may be chosen.
pub(super) struct Candidate<'a> {
    pub(super) id: ServerId,
    /// Above zero.
    pub(super) weight: i64,
    pub(super) turn: &'a mut i64,
}

/// Chooses the next; of equals the one with the smallest id.
pub(super) fn next<'a>(candidates: impl Iterator<Item = Candidate<'a>>) -> Option<ServerId> {
    let mut total = 0_i64;
    let mut best: Option<Candidate<'a>> = None;
    for candidate in candidates {
        total = total.saturating_add(candidate.weight);
        *candidate.turn = candidate.turn.saturating_add(candidate.weight);
        if best.as_ref().is_none_or(|best| *candidate.turn > *best.turn) {
            best = Some(candidate);
        }
    }
    let chosen = best?;
    *chosen.turn = chosen.turn.saturating_sub(total);
    Some(chosen.id)
}
