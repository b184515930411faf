//! Turns for handshakes: so many at once, and where more want one, networks in turn.
//!
//! Of one network the newest goes first: who has waited long has mostly given up, and a queue that
//! is served from its old end serves nobody in time once it is longer than their patience.
//!
//! Invariants: no more turns than `most` are out; a turn that is dropped goes to who waits.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::shutdown::{self, Shutdown, ShutdownTrigger};

/// The turns.
#[derive(Debug)]
pub(crate) struct Gate(Mutex<Turns>);

#[derive(Debug)]
struct Turns {
    free: usize,
    next: u64,
    /// Who waits, by network, oldest first; no network without one.
    waiting: BTreeMap<IpAddr, BTreeMap<u64, ShutdownTrigger>>,
    /// The networks of `waiting`, the next one first.
    order: VecDeque<IpAddr>,
}

impl Gate {
    /// `most` turns at once, at least one.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let (waiting, order) = (BTreeMap::new(), VecDeque::new());
        Arc::new(Self(Mutex::new(Turns { free: most.max(1), next: 0, waiting, order })))
    }

    /// Asks for a turn for somebody of `network`.
    pub(crate) fn ask(self: &Arc<Self>, network: IpAddr) -> Turn {
        let (grant, granted) = shutdown::pair();
        let mut turns = self.turns();
        let number = turns.next;
        turns.next += 1;
        if turns.waiting.entry(network).or_default().is_empty() {
            turns.order.push_back(network);
        }
        turns.waiting.entry(network).or_default().insert(number, grant);
        turns.grant();
        drop(turns);
        Turn { gate: Arc::clone(self), network, number, granted }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turns {
    /// Gives what is free to those who wait.
    fn grant(&mut self) {
        while self.free > 0
            && let Some(network) = self.order.pop_front()
        {
            let Some(of_network) = self.waiting.get_mut(&network) else { continue };
            if let Some((_, newest)) = of_network.pop_last() {
                newest.begin();
                self.free -= 1;
            }
            if of_network.is_empty() {
                self.waiting.remove(&network);
            } else {
                self.order.push_back(network);
            }
        }
    }

    /// Whether `number` waited still, and does no more.
    fn leave(&mut self, network: IpAddr, number: u64) -> bool {
        let Some(of_network) = self.waiting.get_mut(&network) else { return false };
        let waited = of_network.remove(&number).is_some();
        if of_network.is_empty() {
            self.waiting.remove(&network);
            self.order.retain(|other| *other != network);
        }
        waited
    }
}

/// A turn, or the wait for one; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    gate: Arc<Gate>,
    network: IpAddr,
    number: u64,
    granted: Shutdown,
}

impl Turn {
    /// Ends when the turn has come.
    pub(crate) async fn come(&self) {
        self.granted.begun().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.gate.turns();
        if !turns.leave(self.network, self.number) {
            turns.free += 1;
            turns.grant();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u8) -> IpAddr {
        IpAddr::from([192, 0, number, 0])
    }

    #[test]
    fn networks_take_turns_however_many_wait_of_one() {
        let gate = Gate::new(1);
        let under_way = gate.ask(network(1));
        smol::block_on(under_way.come());
        let mut flood: Vec<_> = (0..100).map(|_| gate.ask(network(1))).collect();
        let newcomer = gate.ask(network(2));
        assert!(!newcomer.granted.has_begun());
        drop(under_way);
        let newest = flood.pop().unwrap();
        assert!(newest.granted.has_begun(), "its network was first");
        drop(newest);
        assert!(newcomer.granted.has_begun(), "one turn later, not a hundred");
        drop(newcomer);
        assert!(flood[98].granted.has_begun() && !flood[97].granted.has_begun());
    }

    #[test]
    fn who_leaves_takes_no_turn_and_every_turn_comes_back() {
        let gate = Gate::new(2);
        let (one, other) = (gate.ask(network(1)), gate.ask(network(2)));
        let (leaves, stays) = (gate.ask(network(3)), gate.ask(network(4)));
        drop(leaves);
        drop(one);
        assert!(stays.granted.has_begun());
        drop((other, stays));
        let turns = gate.turns();
        assert_eq!((turns.free, turns.waiting.len(), turns.order.len()), (2, 0, 0));
    }
}
