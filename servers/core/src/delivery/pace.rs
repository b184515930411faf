//! How fast a session is served: what it says besides chunks costs the server time that all share,
//! and a Jump a write to the disk that no credit bounds.
//!
//! A bucket of frames: who delivers fills it, who only talks empties it, and is then not read from
//! until a second's worth is there again. Nothing is lost by that: its bytes wait on its own side.
//!
//! Invariant: of a session's frames that are no chunks of its log, no more than `FRAMES_BURST` and
//! `FRAMES_PER_S` a second are taken, and one Hello more.

use super::limits::FRAMES_PER_S;

/// Frames are counted in thousandths, so that a millisecond's worth is a whole number.
const FRAME: i64 = 1_000;
const PER_MS: i64 = FRAMES_PER_S as i64;

/// The bucket of one session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    most: i64,
    left: i64,
    updated_ms: u64,
}

impl Pace {
    /// A full bucket of `burst` frames.
    pub(super) fn new(now_ms: u64, burst: u32) -> Self {
        let most = i64::from(burst) * FRAME;
        Self { most, left: most, updated_ms: now_ms }
    }

    /// A frame came that counts as `frames`.
    pub(super) fn spend(&mut self, now_ms: u64, frames: u32) {
        let elapsed_ms = i64::try_from(now_ms.saturating_sub(self.updated_ms)).unwrap_or(i64::MAX);
        let gained = elapsed_ms.saturating_mul(PER_MS);
        self.left = self.left.saturating_add(gained).min(self.most) - i64::from(frames) * FRAME;
        self.updated_ms = self.updated_ms.max(now_ms);
    }

    /// A chunk came that is stored.
    pub(super) fn earn(&mut self) {
        self.left = (self.left + FRAME).min(self.most);
    }

    /// When the session may be read from again; `None` when it may be at once.
    pub(super) fn resume_ms(&self) -> Option<u64> {
        let owed = u64::try_from(-self.left).ok()?;
        let wait_ms = 1_000 + owed.div_ceil(u64::from(FRAMES_PER_S));
        Some(self.updated_ms.saturating_add(wait_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::FRAMES_BURST;
    use super::*;

    #[test]
    fn a_burst_is_served_and_then_a_rate_and_who_delivers_may_speak() {
        let mut pace = Pace::new(5, FRAMES_BURST);
        for _ in 1..FRAMES_BURST {
            pace.spend(5, 1);
            assert_eq!(pace.resume_ms(), None);
        }
        pace.spend(5, 1);
        assert_eq!(pace.resume_ms(), Some(1_005), "a second's worth, not frame by frame");
        for _ in 1..FRAMES_PER_S {
            pace.spend(1_005, 1);
            assert_eq!(pace.resume_ms(), None);
        }
        pace.spend(1_005, 1);
        assert_eq!(pace.resume_ms(), Some(2_005));
        pace.earn();
        assert_eq!(pace.resume_ms(), None);
        pace.spend(u64::MAX, 1);
        assert_eq!(pace.left, pace.most - FRAME, "a bucket has a bottom and a rim");
        pace.spend(0, u32::MAX);
        assert!(pace.resume_ms().is_some());
    }
}
