//! What changed, for all browsers at once: the peers are asked by one task each, not per browser.
//!
//! Not here: the stream to a browser (web/events.rs). Invariants: the facts kept are bounded, the
//! oldest leave; a peer that does not answer is asked again after a pause.

mod names;
mod poll;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smol::channel::{Receiver, Sender};

pub(crate) use poll::start;

use crate::limits::{LISTENERS_MAX, RECENT_FACTS_MAX};
use crate::view::{Event, Sensor};
use names::Names;

/// The last known state, and who waits for the next.
#[derive(Default)]
pub(crate) struct Live(Mutex<State>);

#[derive(Default)]
struct State {
    seen: Seen,
    sensors: Option<Arc<Vec<Sensor>>>,
    facts: VecDeque<Arc<Event>>,
    names: Names,
    listeners: Vec<Sender<()>>,
}

/// How often each thing changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    malops: u64,
    sensors: u64,
    elements: u64,
}

impl Seen {
    /// The events that lead from here to `now`, as text of the stream.
    pub(crate) fn events_until(&self, now: &Self) -> String {
        let pairs = [
            ("malops", self.malops, now.malops),
            ("sensors", self.sensors, now.sensors),
            ("elements", self.elements, now.elements),
        ];
        let changed = pairs.into_iter().filter(|(_, before, after)| before != after);
        changed.map(|(name, _, after)| format!("event: {name}\ndata: {after}\n\n")).collect()
    }
}

/// One browser that waits.
pub(crate) struct Listener(Receiver<()>);

impl Listener {
    /// Ends when something changed since the last time.
    pub(crate) async fn changed(&self) {
        // A closed channel means that the server ends, which the stream notices by itself.
        let _ = self.0.recv().await;
    }
}

impl Live {
    /// A new listener, unless there are too many.
    pub(crate) fn listen(&self) -> Option<Listener> {
        let mut state = self.state();
        state.listeners.retain(|listener| !listener.is_closed());
        if state.listeners.len() >= LISTENERS_MAX {
            return None;
        }
        let (sender, receiver) = smol::channel::bounded(1);
        state.listeners.push(sender);
        Some(Listener(receiver))
    }

    /// Whether somebody listens.
    pub(crate) fn is_heard(&self) -> bool {
        self.state().listeners.iter().any(|listener| !listener.is_closed())
    }

    /// How often each thing changed until now.
    pub(crate) fn now(&self) -> Seen {
        self.state().seen
    }

    /// The sensors as last told, if they were.
    pub(crate) fn sensors(&self) -> Option<Arc<Vec<Sensor>>> {
        self.state().sensors.clone()
    }

    /// The newest facts of a sensor, newest first.
    pub(crate) fn facts_of(&self, sensor: &str, count: usize) -> Vec<Arc<Event>> {
        let state = self.state();
        let facts = state.facts.iter().rev().filter(|fact| fact.sensor == sensor);
        facts.take(count).cloned().collect()
    }

    /// MalOps changed.
    pub(crate) fn malops_changed(&self) {
        self.change(|state| state.seen.malops += 1);
    }

    /// The sensors are now these. The time of their last frame alone is no change.
    pub(crate) fn set_sensors(&self, sensors: Vec<Sensor>) {
        let is_same = self.state().sensors.as_ref().is_some_and(|known| {
            known.len() == sensors.len()
                && known.iter().zip(&sensors).all(|(one, other)| {
                    Sensor { last_seen: other.last_seen, ..one.clone() } == *other
                })
        });
        let sensors = Some(Arc::new(sensors));
        if is_same {
            self.state().sensors = sensors;
            return;
        }
        self.change(|state| {
            state.sensors = sensors;
            state.seen.sensors += 1;
        });
    }

    /// These facts were stored.
    pub(crate) fn add_facts(&self, facts: Vec<Event>) {
        if facts.is_empty() {
            return;
        }
        self.change(|state| {
            for mut fact in facts {
                state.names.tell(&mut fact);
                if state.facts.len() >= RECENT_FACTS_MAX {
                    state.facts.pop_front();
                }
                state.facts.push_back(Arc::new(fact));
            }
            state.seen.elements += 1;
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        // A listener that has not looked yet has its wake waiting already.
        state.listeners.retain(|listener| {
            !matches!(listener.try_send(()), Err(smol::channel::TrySendError::Closed(())))
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
