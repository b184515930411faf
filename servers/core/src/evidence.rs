//! From changes and verdicts to evidence: the judge.
//!
//! A state machine over the graph and the intel cache. After each `handle_*`, drain
//! [`Judge::poll_evidence`], then [`Judge::poll_questions`]. All changes of one call are applied
//! before any is judged, so a process is judged with the parents that came with it.
//!
//! What it is not: no storage and no dedupe. The same thing judged twice gives the same id, and who
//! stores evidence keeps the first; so keyframes, replays and moves are judged like everything
//! else.
//!
//! Rule at the bound: what waits to be told is drained after each call; a single call that finds
//! more than `PENDING_MAX` is counted, and its position is held back by
//! [`Judge::judged_before`], so that it is judged again when changes are next taken from there.

mod behaviour;
pub mod delivery;
mod finding;
mod indicators;
pub mod limits;
mod record;
#[cfg(test)]
mod tests;
mod verdicts;

use std::collections::VecDeque;
use std::sync::Arc;

use lapwing_protocol::element::Kind;
use lapwing_protocol::id::{ElementGuid, SensorId};

use crate::change::Change;
use crate::graph::{Applied, Graph};
use crate::intel_cache::{IndicatorKey, IntelCache, OwnedVerdict, Question};
use behaviour::BEHAVIOURS;
use indicators::{each_indicator, has_indicator};
use limits::PENDING_MAX;
pub use record::{Evidence, MALWARE_RULES, evidence_id, is_malware_rule};

/// What is found and not yet told: small, so that a thousand matches cost little until each is
/// told.
#[derive(Debug)]
enum Pending {
    Verdict(ElementGuid, Arc<OwnedVerdict>),
    Behaviour(ElementGuid, usize),
}

/// The judge.
#[derive(Debug)]
pub struct Judge {
    graph: Graph,
    intel: IntelCache,
    pending: VecDeque<Pending>,
    overflow_position: Option<u64>,
    overflowed: u64,
}

impl Judge {
    /// A judge over this graph and cache.
    #[must_use]
    pub fn new(graph: Graph, intel: IntelCache) -> Self {
        let pending = VecDeque::new();
        Self { graph, intel, pending, overflow_position: None, overflowed: 0 }
    }

    /// The graph.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The intel cache.
    #[must_use]
    pub fn intel(&self) -> &IntelCache {
        &self.intel
    }

    /// Findings that found no room since the start.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Takes changes of one sensor, in their order; `position` is theirs in the journal.
    pub fn handle_changes(
        &mut self,
        now_ms: u64,
        (sensor, position): (SensorId, u64),
        changes: Vec<Change>,
    ) {
        let mut seen: Vec<(IndicatorKey, ElementGuid)> = Vec::new();
        let mut applied: Vec<(Kind, Applied)> = Vec::new();
        for change in changes {
            let (model, guid) = (Arc::clone(&change.model), change.guid);
            // Judged by what the change says, not by what later changes of the call make of it; but
            // only what differs from before, which the graph tells once it has taken the change.
            let mut keys = Vec::new();
            each_indicator(&model, &change.fields, &mut |bit, key| keys.push((bit, key)));
            let done = self.graph.apply(now_ms, sensor, change);
            if done.touched != 0 {
                let differs = |(bit, key)| (bit & done.touched != 0).then_some((key, guid));
                seen.extend(keys.into_iter().filter_map(differs));
                applied.push((model.kind, done));
            }
        }
        for (key, guid) in seen {
            if let Some(verdict) = self.intel.observe(now_ms, &key, (guid, position))
                && verdict.classification.is_bad()
            {
                self.find(Pending::Verdict(guid, verdict), position);
            }
        }
        for (kind, done) in &applied {
            self.look((*kind, done), position);
        }
    }

    /// Takes the answer to a question.
    pub fn handle_verdicts(&mut self, now_ms: u64, question: u64, verdicts: Vec<OwnedVerdict>) {
        self.intel.handle_verdicts(now_ms, question, verdicts);
        self.rejudge();
    }

    /// A question got no answer.
    pub fn handle_unreachable(&mut self, now_ms: u64, question: u64) {
        self.intel.handle_unreachable(now_ms, question);
    }

    /// Takes a verdict that changed.
    pub fn handle_reputation_change(&mut self, now_ms: u64, verdict: OwnedVerdict) {
        self.intel.handle_change(now_ms, verdict);
        self.rejudge();
    }

    /// Drops what the graph has of a sensor, before it is built again.
    pub fn forget_sensor(&mut self, sensor: SensorId) {
        self.graph.forget_sensor(sensor);
    }

    /// The next evidence.
    pub fn poll_evidence(&mut self, now_ms: u64) -> Option<Evidence> {
        while let Some(pending) = self.pending.pop_front() {
            let (Pending::Verdict(guid, _) | Pending::Behaviour(guid, _)) = &pending;
            let Some(element) = self.graph.find(*guid) else { continue };
            let found = match &pending {
                Pending::Verdict(_, verdict) => verdicts::judge(element, verdict),
                Pending::Behaviour(_, place) => {
                    BEHAVIOURS.get(*place).and_then(|it| it.judge(&self.graph, element))
                }
            };
            if let Some(found) = found {
                return Some(found.into_evidence(now_ms, &self.graph, element));
            }
        }
        None
    }

    /// The next question for the Private Threat Intel server.
    pub fn poll_questions(&mut self, now_ms: u64) -> Option<Question> {
        self.intel.poll_questions(now_ms)
    }

    /// When [`Judge::poll_questions`] may next have something although nothing happened.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.intel.deadline_ms()
    }

    /// Up to which position, excluded, everything is judged, given that changes up to `taken` were
    /// taken and all evidence told. Changes from there on must be taken again after a restart.
    #[must_use]
    pub fn judged_before(&self, taken: u64) -> u64 {
        let held = [self.intel.oldest_unanswered(), self.overflow_position];
        held.into_iter().flatten().min().map_or(taken + 1, |position| position.min(taken + 1))
    }

    fn rejudge(&mut self) {
        while let Some(again) = self.intel.poll_rejudgement() {
            for guid in &again.elements {
                self.find(Pending::Verdict(*guid, Arc::clone(&again.verdict)), u64::MAX);
            }
            if again.more {
                self.search(&again.verdict, &again.elements);
            }
        }
    }

    /// Finds every further element in the graph that has the indicator of `verdict`.
    fn search(&mut self, verdict: &Arc<OwnedVerdict>, done: &[ElementGuid]) {
        let mut position = 0;
        while let Some(place) = self.graph.place(position) {
            position += 1;
            let Some(element) = self.graph.element(place) else { continue };
            let guid = element.guid();
            if has_indicator(element.model(), element.fields(), &verdict.key)
                && !done.contains(&guid)
            {
                self.find(Pending::Verdict(guid, Arc::clone(verdict)), u64::MAX);
            }
        }
    }

    fn look(&mut self, (kind, done): (Kind, &Applied), position: u64) {
        for (place, behaviour) in BEHAVIOURS.iter().enumerate() {
            if behaviour.kind() != kind || behaviour.features() & done.touched == 0 {
                continue;
            }
            // Asked again when told; here it only saves a place in the queue.
            let element = self.graph.find(done.guid);
            if element.is_some_and(|element| behaviour.judge(&self.graph, element).is_some()) {
                self.find(Pending::Behaviour(done.guid, place), position);
            }
        }
    }

    fn find(&mut self, pending: Pending, position: u64) {
        if self.pending.len() < PENDING_MAX {
            self.pending.push_back(pending);
        } else {
            self.overflowed += 1;
            self.overflow_position =
                Some(self.overflow_position.map_or(position, |held| held.min(position)));
        }
    }
}
