//! What this server knows of indicators: verdicts, which of them must be asked for, and who was
//! seen with an indicator.
//!
//! A state machine. After each `handle_*` or [`IntelCache::observe`], drain
//! [`IntelCache::poll_rejudgement`], then [`IntelCache::poll_questions`].
//!
//! What it is not: no evidence and no lists; the Private Threat Intel server decides what is bad.
//!
//! Rules at the bounds: a question holds at most 256 indicators and four are under way. When as
//! many indicators are remembered as may be, the one not seen for longest whose verdict is known
//! and not bad gives way; where all wait for an answer or are bad, the new one is not
//! remembered and the position of its change is kept, so that it is judged when the changes are
//! taken again from there. Both are counted. A verdict outlives its time until a newer one comes.

mod key;
pub mod limits;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use lapwing_protocol::id::ElementGuid;
use lapwing_protocol::intel::{Classification, Indicator};
use lapwing_protocol::limits::CLASSIFY_KEYS_MAX;

use crate::view::push_item;
pub use key::{IndicatorKey, OwnedVerdict};
use limits::{
    ENTRIES_MAX, ORDER_MS, QUESTION_BYTES_MAX, QUESTIONS_IN_FLIGHT_MAX, RECHECK_MS_MAX,
    RECHECK_MS_MIN, RECHECK_STALE_MS, RETRY_MS_MAX, RETRY_MS_MIN, SIGHTED_ELEMENTS_MAX,
};

/// Where an indicator was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// First seen, milliseconds since 1970.
    pub first_ms: u64,
    /// Last seen, milliseconds since 1970.
    pub last_ms: u64,
    /// How often.
    pub count: u64,
    /// The first elements it was seen with.
    pub elements: Vec<ElementGuid>,
    /// Whether there were more elements than those.
    pub more: bool,
}

/// One question for the Private Threat Intel server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Comes back with the answer.
    pub number: u64,
    /// What is asked about.
    pub keys: Vec<IndicatorKey>,
}

impl Question {
    /// The bytes of `Items<Indicator>`.
    #[must_use]
    pub fn indicators_bytes(&self) -> Vec<u8> {
        let mut list = Vec::new();
        for key in &self.keys {
            let text = key.to_string();
            push_item(&mut list, &Indicator { key_type: key.key_type(), key: &text });
        }
        list
    }
}

/// What was seen with this indicator must be judged by this verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejudgement {
    /// The verdict as it is now; it is bad.
    pub verdict: Arc<OwnedVerdict>,
    /// Elements it was seen with.
    pub elements: Vec<ElementGuid>,
    /// Whether there may be further ones.
    pub more: bool,
}

/// Figures of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntelCounts {
    /// Indicators remembered.
    pub entries: usize,
    /// Indicators that have no verdict yet.
    pub unanswered: usize,
    /// Questions asked.
    pub questions: u64,
    /// Questions that got no answer.
    pub unreachable: u64,
    /// Indicators that gave way to newer ones.
    pub evicted: u64,
    /// Indicators that were not remembered because nothing could give way.
    pub overflowed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    No,
    Waiting,
    InFlight,
}

#[derive(Debug)]
struct Entry {
    verdict: Option<Arc<OwnedVerdict>>,
    asking: Asking,
    sighting: Sighting,
    /// Its place in the order of giving way.
    order_ms: u64,
    /// When it is asked for again.
    due_ms: u64,
}

/// The cache.
#[derive(Debug)]
pub struct IntelCache {
    entries_max: usize,
    entries: BTreeMap<IndicatorKey, Entry>,
    waiting: VecDeque<IndicatorKey>,
    in_flight: BTreeMap<u64, Vec<IndicatorKey>>,
    due: BTreeSet<(u64, IndicatorKey)>,
    order: BTreeSet<(u64, IndicatorKey)>,
    position_by_unanswered: BTreeMap<IndicatorKey, u64>,
    overflow_position: Option<u64>,
    rejudgements: VecDeque<Rejudgement>,
    retry_at_ms: u64,
    retry_ms: u64,
    counts: IntelCounts,
}

impl Default for IntelCache {
    fn default() -> Self {
        Self::new(ENTRIES_MAX)
    }
}

impl IntelCache {
    /// An empty cache for at most `entries_max` indicators.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self {
            entries_max,
            entries: BTreeMap::new(),
            waiting: VecDeque::new(),
            in_flight: BTreeMap::new(),
            due: BTreeSet::new(),
            order: BTreeSet::new(),
            position_by_unanswered: BTreeMap::new(),
            overflow_position: None,
            rejudgements: VecDeque::new(),
            retry_at_ms: 0,
            retry_ms: RETRY_MS_MIN,
            counts: IntelCounts::default(),
        }
    }

    /// Says that `element` was seen with the indicator `key` in the change at `position` of the
    /// journal. Returns the verdict, where there is one; else it will be asked for.
    pub fn observe(
        &mut self,
        now_ms: u64,
        key: &IndicatorKey,
        (element, position): (ElementGuid, u64),
    ) -> Option<Arc<OwnedVerdict>> {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.sighting.add(now_ms, element);
            if now_ms >= entry.order_ms.saturating_add(ORDER_MS) && is_idle(entry) {
                self.order.remove(&(entry.order_ms, key.clone()));
                entry.order_ms = now_ms;
                self.order.insert((now_ms, key.clone()));
            }
            return entry.verdict.clone();
        }
        if self.entries.len() >= self.entries_max && !self.make_room() {
            self.counts.overflowed += 1;
            self.overflow_position.get_or_insert(position);
            return None;
        }
        let mut sighting = Sighting { first_ms: now_ms, ..Sighting::default() };
        sighting.add(now_ms, element);
        let (asking, verdict) = (Asking::Waiting, None);
        let entry = Entry { verdict, asking, sighting, order_ms: now_ms, due_ms: 0 };
        self.entries.insert(key.clone(), entry);
        self.waiting.push_back(key.clone());
        self.position_by_unanswered.insert(key.clone(), position);
        None
    }

    /// The next question, if one may be asked now.
    pub fn poll_questions(&mut self, now_ms: u64) -> Option<Question> {
        self.take_due(now_ms);
        if now_ms < self.retry_at_ms || self.in_flight.len() >= QUESTIONS_IN_FLIGHT_MAX {
            return None;
        }
        let (mut keys, mut bytes) = (Vec::new(), 0);
        while keys.len() < CLASSIFY_KEYS_MAX
            && bytes < QUESTION_BYTES_MAX
            && let Some(key) = self.waiting.pop_front()
        {
            bytes += key.to_string().len() + 4;
            let entry = self.entries.get_mut(&key);
            if let Some(entry) = entry.filter(|entry| entry.asking == Asking::Waiting) {
                entry.asking = Asking::InFlight;
                keys.push(key);
            }
        }
        if keys.is_empty() {
            return None;
        }
        self.counts.questions += 1;
        let number = self.counts.questions;
        self.in_flight.insert(number, keys.clone());
        Some(Question { number, keys })
    }

    /// Takes the answer to question `number`. What it says nothing about is asked again later.
    pub fn handle_verdicts(&mut self, now_ms: u64, number: u64, verdicts: Vec<OwnedVerdict>) {
        let Some(keys) = self.in_flight.remove(&number) else { return };
        let asked: BTreeSet<IndicatorKey> = keys.into_iter().collect();
        let mut open = asked.clone();
        for verdict in verdicts {
            if !asked.contains(&verdict.key) {
                continue;
            }
            open.remove(&verdict.key);
            // A change that the feed told meanwhile is newer than the answer.
            let entry = self.entries.get(&verdict.key);
            if entry.is_some_and(|entry| entry.asking == Asking::InFlight) {
                self.learn(now_ms, verdict);
            }
        }
        if open.is_empty() {
            self.retry_ms = RETRY_MS_MIN;
            self.retry_at_ms = 0;
        } else {
            self.ask_later(now_ms, open);
        }
    }

    /// Question `number` got no answer: verdicts are kept, and the question is asked again after a
    /// wait that doubles.
    pub fn handle_unreachable(&mut self, now_ms: u64, number: u64) {
        let Some(keys) = self.in_flight.remove(&number) else { return };
        self.counts.unreachable += 1;
        self.ask_later(now_ms, keys);
    }

    /// Takes a verdict that changed at the Private Threat Intel server. One on an indicator that
    /// was not seen here is not kept: it will be asked for when it is.
    pub fn handle_change(&mut self, now_ms: u64, verdict: OwnedVerdict) {
        if self.entries.contains_key(&verdict.key) {
            self.learn(now_ms, verdict);
        }
    }

    /// The next indicator whose elements must be judged by what is now known of it.
    pub fn poll_rejudgement(&mut self) -> Option<Rejudgement> {
        self.rejudgements.pop_front()
    }

    /// When [`IntelCache::poll_questions`] may next have something although nothing happened.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        let due = self.due.first().map(|(due_ms, _)| *due_ms);
        if self.waiting.is_empty() || self.in_flight.len() >= QUESTIONS_IN_FLIGHT_MAX {
            return due;
        }
        Some(due.map_or(self.retry_at_ms, |due_ms| due_ms.min(self.retry_at_ms)))
    }

    /// The earliest position whose change has an indicator that nobody has answered for yet.
    #[must_use]
    pub fn oldest_unanswered(&self) -> Option<u64> {
        let unanswered = self.position_by_unanswered.values().copied().min();
        [unanswered, self.overflow_position].into_iter().flatten().min()
    }

    /// The verdict on `key`, where it is known.
    #[must_use]
    pub fn verdict(&self, key: &IndicatorKey) -> Option<&OwnedVerdict> {
        self.entries.get(key)?.verdict.as_deref()
    }

    /// Where `key` was seen.
    #[must_use]
    pub fn sighting(&self, key: &IndicatorKey) -> Option<&Sighting> {
        self.entries.get(key).map(|entry| &entry.sighting)
    }

    /// Figures.
    #[must_use]
    pub fn counts(&self) -> IntelCounts {
        IntelCounts {
            entries: self.entries.len(),
            unanswered: self.position_by_unanswered.len(),
            ..self.counts
        }
    }

    fn learn(&mut self, now_ms: u64, verdict: OwnedVerdict) {
        let key = verdict.key.clone();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.asking = Asking::No;
        self.position_by_unanswered.remove(&key);
        self.due.remove(&(entry.due_ms, key.clone()));
        self.order.remove(&(entry.order_ms, key.clone()));
        let known = entry.verdict.as_ref();
        let before = known.map_or(Classification::Unknown, |known| known.classification);
        let differs = before != verdict.classification;
        let verdict = Arc::new(verdict);
        entry.verdict = Some(Arc::clone(&verdict));
        entry.due_ms = recheck_ms(now_ms, &verdict);
        if differs && verdict.classification.is_bad() {
            let elements = entry.sighting.elements.clone();
            let more = entry.sighting.more;
            self.rejudgements.push_back(Rejudgement { verdict, elements, more });
        }
        self.due.insert((entry.due_ms, key.clone()));
        if is_idle(entry) {
            self.order.insert((entry.order_ms, key));
        }
    }

    fn take_due(&mut self, now_ms: u64) {
        while let Some((due_ms, key)) = self.due.pop_first() {
            if due_ms > now_ms {
                self.due.insert((due_ms, key));
                return;
            }
            if let Some(entry) = self.entries.get_mut(&key)
                && entry.asking == Asking::No
            {
                entry.asking = Asking::Waiting;
                self.order.remove(&(entry.order_ms, key.clone()));
                self.waiting.push_back(key);
            }
        }
    }

    fn ask_later(&mut self, now_ms: u64, keys: impl IntoIterator<Item = IndicatorKey>) {
        for key in keys {
            if let Some(entry) = self.entries.get_mut(&key)
                && entry.asking == Asking::InFlight
            {
                entry.asking = Asking::Waiting;
                self.waiting.push_back(key);
            }
        }
        self.retry_at_ms = now_ms.saturating_add(self.retry_ms);
        self.retry_ms = (self.retry_ms * 2).min(RETRY_MS_MAX);
    }

    fn make_room(&mut self) -> bool {
        let Some((_, key)) = self.order.pop_first() else { return false };
        if let Some(entry) = self.entries.remove(&key) {
            self.due.remove(&(entry.due_ms, key));
            self.counts.evicted += 1;
        }
        true
    }
}

impl Sighting {
    fn add(&mut self, now_ms: u64, element: ElementGuid) {
        self.last_ms = now_ms;
        self.count += 1;
        if self.elements.contains(&element) {
            return;
        }
        if self.elements.len() < SIGHTED_ELEMENTS_MAX {
            self.elements.push(element);
        } else {
            self.more = true;
        }
    }
}

/// Whether an entry may give way.
fn is_idle(entry: &Entry) -> bool {
    let is_good = |verdict: &Arc<OwnedVerdict>| !verdict.classification.is_bad();
    entry.asking == Asking::No && entry.verdict.as_ref().is_some_and(is_good)
}

fn recheck_ms(now_ms: u64, verdict: &OwnedVerdict) -> u64 {
    let latest = if verdict.stale { RECHECK_STALE_MS } else { RECHECK_MS_MAX };
    verdict.recheck_ms.clamp(now_ms + RECHECK_MS_MIN, now_ms + latest)
}
