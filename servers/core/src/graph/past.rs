//! The row of past elements, oldest first: what may be evicted, and in which order.
//!
//! An element enters when it happened, ended or was no longer reported, and leaves by eviction or
//! by coming back to life. Coming back leaves a dead entry that is passed over and, when dead
//! entries are the majority, swept. Invariant: numbers rise along the row.

use std::collections::VecDeque;

use super::ElementIndex;

/// The row.
#[derive(Debug, Default)]
pub(super) struct Past {
    row: VecDeque<(ElementIndex, u64)>,
    dead: usize,
    last_number: u64,
}

impl Past {
    /// Puts an element at the end; its number tells the entry apart from older ones of its slot.
    pub(super) fn push(&mut self, index: ElementIndex) -> u64 {
        self.last_number += 1;
        self.row.push_back((index, self.last_number));
        self.last_number
    }

    /// Says that an entry is dead: `number_of` gives the number that each slot counts for now.
    pub(super) fn strike(&mut self, number_of: impl Fn(ElementIndex) -> u64) {
        self.dead += 1;
        if self.dead > 1_024 && self.dead > self.row.len() / 2 {
            self.sweep(number_of);
        }
    }

    /// Takes every dead entry out.
    pub(super) fn sweep(&mut self, number_of: impl Fn(ElementIndex) -> u64) {
        self.row.retain(|(index, number)| number_of(*index) == *number);
        self.dead = 0;
    }

    /// Takes the oldest living entry.
    pub(super) fn pop(&mut self, number_of: impl Fn(ElementIndex) -> u64) -> Option<ElementIndex> {
        while let Some((index, number)) = self.row.pop_front() {
            if number_of(index) == number {
                return Some(index);
            }
            self.dead = self.dead.saturating_sub(1);
        }
        None
    }
}
