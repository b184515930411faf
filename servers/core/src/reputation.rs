//! What a Threat Intel server thinks: its own list, and for a Private one what Global said.
//!
//! Not here: who asks, the store, the network. A Private server's own word goes first; only where
//! it has none is Global asked, once for each indicator however many wait for it. Global's word is
//! kept until its time, and when Global cannot be reached it is kept longer and marked stale.
//!
//! Invariants: the list wins over what Global said; an indicator is in flight at most once; the
//! number of indicators in memory is bounded (rule at the bound: what Global said longest ago
//! goes).

mod list;

use std::collections::{BTreeMap, BTreeSet};

use lapwing_protocol::intel::{Classification, Source};

use crate::intel_cache::{IndicatorKey, OwnedVerdict};
pub use list::{ListError, Listing, ReputationList};

/// How long a verdict holds before it is checked again: 24 h, in milliseconds.
pub const RECHECK_MS: u64 = 86_400_000;
/// How long after Global could not be reached it is asked again, in milliseconds.
pub const UNREACHABLE_PAUSE_MS: u64 = 5_000;
/// Indicators of which Global's word is kept: at about 250 bytes each, 50 MB.
pub const KEPT_MAX: usize = 200_000;

/// What a Threat Intel server knows beyond its own list.
#[derive(Debug)]
pub struct Consultation {
    kept: BTreeMap<IndicatorKey, Kept>,
    order: BTreeSet<(u64, IndicatorKey)>,
    in_flight: BTreeSet<IndicatorKey>,
    unreachable_until_ms: u64,
    kept_max: usize,
}

/// Global's word on one indicator.
#[derive(Clone, Debug)]
struct Kept {
    verdict: OwnedVerdict,
    fresh_until_ms: u64,
}

impl Default for Consultation {
    fn default() -> Self {
        Self::new(KEPT_MAX)
    }
}

impl Consultation {
    /// One that keeps Global's word on at most `kept_max` indicators.
    #[must_use]
    pub fn new(kept_max: usize) -> Self {
        Self {
            kept: BTreeMap::new(),
            order: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            unreachable_until_ms: 0,
            kept_max,
        }
    }

    /// Of `keys`, those that Global must be asked about now; they are in flight from here on.
    pub fn begin(&mut self, now_ms: u64, keys: &[IndicatorKey]) -> Vec<IndicatorKey> {
        if now_ms < self.unreachable_until_ms {
            return Vec::new();
        }
        let is_due = |kept: &Kept| now_ms >= kept.fresh_until_ms;
        let mut due = Vec::new();
        for key in keys {
            if self.kept.get(key).is_none_or(is_due) && self.in_flight.insert(key.clone()) {
                due.push(key.clone());
            }
        }
        due
    }

    /// Whether somebody else's question about `key` is under way.
    #[must_use]
    pub fn is_in_flight(&self, key: &IndicatorKey) -> bool {
        self.in_flight.contains(key)
    }

    /// Takes Global's answer to a question about `asked`. What it leaves out counts as unknown.
    pub fn handle_answer(
        &mut self,
        now_ms: u64,
        asked: &[IndicatorKey],
        verdicts: Vec<OwnedVerdict>,
    ) {
        let mut said: BTreeMap<_, _> =
            verdicts.into_iter().map(|verdict| (verdict.key.clone(), verdict)).collect();
        for key in asked {
            self.in_flight.remove(key);
            let verdict = said.remove(key).unwrap_or_else(|| nobody_knows(now_ms, key));
            let time_ms = verdict.recheck_ms.saturating_sub(verdict.checked_ms);
            // Global's clock may be wrong: only the length of its promise counts, and at most a
            // day.
            let time_ms = time_ms.clamp(60_000, RECHECK_MS);
            self.keep(now_ms, key.clone(), verdict, now_ms + time_ms);
        }
    }

    /// Global could not be asked about `asked`: its last word is kept and marked stale.
    pub fn handle_unreachable(&mut self, now_ms: u64, asked: &[IndicatorKey]) {
        self.unreachable_until_ms = now_ms + UNREACHABLE_PAUSE_MS;
        for key in asked {
            self.in_flight.remove(key);
            if let Some(kept) = self.kept.get_mut(key) {
                kept.verdict.stale = true;
            }
        }
    }

    /// Nobody waits for the answer about `keys` any more: the next who needs it asks again.
    pub fn abandon(&mut self, keys: &[IndicatorKey]) {
        for key in keys {
            self.in_flight.remove(key);
        }
    }

    /// Global's word on `key`: as kept, with the times of this server's clock. Without one, nobody
    /// knows; stale, since Global was not heard.
    #[must_use]
    pub fn word(&self, now_ms: u64, key: &IndicatorKey) -> OwnedVerdict {
        match self.kept.get(key) {
            Some(kept) => {
                OwnedVerdict { recheck_ms: kept.fresh_until_ms.max(now_ms), ..kept.verdict.clone() }
            }
            None => OwnedVerdict {
                stale: true,
                recheck_ms: now_ms + UNREACHABLE_PAUSE_MS,
                ..nobody_knows(now_ms, key)
            },
        }
    }

    fn keep(&mut self, now_ms: u64, key: IndicatorKey, verdict: OwnedVerdict, until_ms: u64) {
        let verdict = OwnedVerdict { checked_ms: now_ms, stale: false, ..verdict };
        let kept = Kept { verdict, fresh_until_ms: until_ms };
        if let Some(before) = self.kept.insert(key.clone(), kept) {
            self.order.remove(&(before.verdict.checked_ms, key.clone()));
        }
        self.order.insert((now_ms, key));
        while self.kept.len() > self.kept_max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.kept.remove(&oldest);
        }
    }
}

/// The verdict on what nobody has an opinion of.
#[must_use]
pub fn nobody_knows(now_ms: u64, key: &IndicatorKey) -> OwnedVerdict {
    OwnedVerdict {
        key: key.clone(),
        classification: Classification::Unknown,
        source: Source::None,
        comment: String::new(),
        checked_ms: now_ms,
        recheck_ms: now_ms + RECHECK_MS,
        stale: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> IndicatorKey {
        IndicatorKey::domain(name).unwrap()
    }

    fn bad(name: &str, checked_ms: u64, recheck_ms: u64) -> OwnedVerdict {
        OwnedVerdict {
            classification: Classification::Malware,
            source: Source::Global,
            checked_ms,
            recheck_ms,
            ..nobody_knows(0, &key(name))
        }
    }

    #[test]
    fn an_indicator_is_asked_about_once_however_many_wait() {
        let mut consultation = Consultation::default();
        let keys = [key("a.example"), key("b.example")];
        assert_eq!(consultation.begin(0, &keys), keys);
        assert_eq!(consultation.begin(0, &keys), []);
        consultation.handle_answer(10, &keys, vec![bad("a.example", 5, 1_000_005)]);
        assert_eq!(consultation.begin(20, &keys), []);
        assert_eq!(consultation.word(20, &keys[0]).classification, Classification::Malware);
        assert_eq!(consultation.word(20, &keys[1]).classification, Classification::Unknown);
    }

    #[test]
    fn a_word_is_asked_for_again_after_its_time_and_at_the_latest_after_a_day() {
        let mut consultation = Consultation::default();
        let keys = [key("a.example")];
        consultation.begin(0, &keys);
        consultation.handle_answer(0, &keys, vec![bad("a.example", 0, u64::MAX)]);
        assert_eq!(consultation.begin(RECHECK_MS - 1, &keys), []);
        assert_eq!(consultation.begin(RECHECK_MS, &keys), keys);
    }

    #[test]
    fn when_global_is_gone_its_last_word_stands_and_is_stale() {
        let mut consultation = Consultation::default();
        let keys = [key("a.example")];
        consultation.begin(0, &keys);
        consultation.handle_answer(0, &keys, vec![bad("a.example", 0, 60_000)]);
        consultation.begin(60_000, &keys);
        consultation.handle_unreachable(60_100, &keys);
        let word = consultation.word(60_200, &keys[0]);
        assert!(word.stale);
        assert_eq!(word.classification, Classification::Malware);
        assert_eq!(consultation.begin(60_200, &keys), [], "a pause, not a storm");
        assert_eq!(consultation.begin(60_100 + UNREACHABLE_PAUSE_MS, &keys), keys);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_word_goes() {
        let mut consultation = Consultation::new(2);
        for (time, name) in [(1, "a.example"), (2, "b.example"), (3, "c.example")] {
            let keys = [key(name)];
            consultation.begin(time, &keys);
            consultation.handle_answer(time, &keys, vec![bad(name, 0, 1 << 40)]);
        }
        assert_eq!(consultation.begin(4, &[key("b.example"), key("c.example")]), []);
        assert_eq!(consultation.begin(4, &[key("a.example")]).len(), 1);
    }
}
