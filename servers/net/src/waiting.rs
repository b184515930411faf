//! Connections whose peer has not said a whole ClientHello yet. They cost little, and a flood of
//! them must not keep out who speaks at once: where there is no seat, the oldest makes room.
//!
//! Invariant: no more than so many have a seat.

use std::collections::BTreeMap;
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
    /// By age: who has one, and how it is told to go.
    taken: BTreeMap<u64, ShutdownTrigger>,
}

impl WaitingRoom {
    /// `most` seats, at least one.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), seats: Mutex::default() })
    }

    /// Takes a seat; where there is none, the oldest is told to go.
    pub(crate) fn enter(self: &Arc<Self>) -> Seat {
        let (leave, told) = shutdown::pair();
        let mut seats = self.seats();
        while seats.taken.len() >= self.most
            && let Some((_, oldest)) = seats.taken.pop_first()
        {
            oldest.begin();
        }
        let number = seats.next;
        seats.next += 1;
        seats.taken.insert(number, leave);
        drop(seats);
        Seat { room: Arc::clone(self), number, told }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A seat, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    room: Arc<WaitingRoom>,
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
        self.room.seats().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_who_left_crowds_out_nobody() {
        let room = WaitingRoom::new(2);
        let (first, second) = (room.enter(), room.enter());
        assert!(!first.told.has_begun());
        let third = room.enter();
        assert!(first.told.has_begun() && !second.told.has_begun());
        smol::block_on(first.crowded_out());
        drop(second);
        let fourth = room.enter();
        assert!(!third.told.has_begun() && !fourth.told.has_begun());
        assert_eq!(room.seats().taken.len(), 2);
    }
}
