//! Connections whose peer has not said a whole ClientHello yet, or said it and waits for its turn.
//! They cost little, and a flood of them must not keep out who speaks at once: where there is no
//! seat, the oldest of the network that has most makes room.
//!
//! Invariant: no more than so many have a seat.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::shutdown::{self, Shutdown, ShutdownTrigger};

/// The seats.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    most: usize,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    count: usize,
    /// By network and age: who has one, and how it is told to go. No network without one.
    taken: BTreeMap<IpAddr, BTreeMap<u64, ShutdownTrigger>>,
}

impl WaitingRoom {
    /// `most` seats, at least one.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), seats: Mutex::default() })
    }

    /// Takes a seat for somebody of `network`; where there is none, another is told to go.
    pub(crate) fn enter(self: &Arc<Self>, network: IpAddr) -> Seat {
        let (leave, told) = shutdown::pair();
        let mut seats = self.seats();
        if seats.count >= self.most {
            seats.make_room();
        }
        let number = seats.next;
        seats.next += 1;
        seats.count += 1;
        seats.taken.entry(network).or_default().insert(number, leave);
        drop(seats);
        Seat { room: Arc::clone(self), network, number, told }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    /// Tells the oldest of the largest network to go.
    fn make_room(&mut self) {
        let size = |seats: &BTreeMap<u64, _>| (seats.len(), Reverse(seats.keys().next().copied()));
        let largest = self.taken.iter().max_by_key(|(_, seats)| size(seats));
        let oldest = largest.and_then(|(network, seats)| Some((*network, *seats.keys().next()?)));
        if let Some(leave) = oldest.and_then(|(network, number)| self.remove(network, number)) {
            leave.begin();
        }
    }

    fn remove(&mut self, network: IpAddr, number: u64) -> Option<ShutdownTrigger> {
        let of_network = self.taken.get_mut(&network)?;
        let leave = of_network.remove(&number)?;
        if of_network.is_empty() {
            self.taken.remove(&network);
        }
        self.count -= 1;
        Some(leave)
    }
}

/// A seat, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    room: Arc<WaitingRoom>,
    network: IpAddr,
    number: u64,
    told: Shutdown,
}

impl Seat {
    /// Ends when somebody newer needs the seat.
    pub(crate) async fn crowded_out(&self) {
        self.told.begun().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.seats().remove(self.network, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u8) -> IpAddr {
        IpAddr::from([192, 0, number, 0])
    }

    #[test]
    fn the_oldest_makes_room_and_who_left_crowds_out_nobody() {
        let room = WaitingRoom::new(2);
        let (first, second) = (room.enter(network(1)), room.enter(network(1)));
        assert!(!first.told.has_begun());
        let third = room.enter(network(1));
        assert!(first.told.has_begun() && !second.told.has_begun());
        smol::block_on(first.crowded_out());
        drop(second);
        let fourth = room.enter(network(1));
        assert!(!third.told.has_begun() && !fourth.told.has_begun());
        assert_eq!(room.seats().count, 2);
        drop((first, third, fourth));
        let seats = room.seats();
        assert_eq!((seats.count, seats.taken.len()), (0, 0));
    }

    #[test]
    fn a_flood_of_one_network_crowds_out_its_own() {
        let room = WaitingRoom::new(4);
        let newcomer = room.enter(network(9));
        let flood: Vec<_> = (0..100).map(|_| room.enter(network(1))).collect();
        assert!(!newcomer.told.has_begun(), "the oldest of all, of a network that has one");
        assert!(flood[96].told.has_begun() && !flood[97].told.has_begun());
        let other = room.enter(network(2));
        assert!(flood[97].told.has_begun() && !other.told.has_begun());
    }
}
