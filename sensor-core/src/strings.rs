//! Which strings the reader of a segment already has: a set-associative cache over lent slots.
//!
//! A slot holds no string, only a keyed 62-bit hash of it and one bit of recent use; the slot's
//! number is its place. Two strings with one hash would be taken for one; the hash is keyed, so
//! nobody can aim at it, and the state digest notices it for rows.
//!
//! Invariant: what a slot's hash stands for was written with that slot since the last
//! [`StringTable::reset`]; so the table is reset at the start of each segment.

use lapwing_protocol::digest::keyed_hash;
use lapwing_protocol::element::Reference;
use lapwing_protocol::limits::STRING_SLOT_BYTES_MAX;
use lapwing_protocol::op::{Compressor, StringChoice};

use crate::limits::{STRING_BYTES_MIN, STRING_WAYS};
use crate::table::Table;

/// One slot of the string table: 0 when empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StringSlot(u64);

const USED: u64 = 1;

/// The table: `slots.len()` is 0 or a power of two of at least [`STRING_WAYS`].
#[derive(Debug)]
pub(crate) struct StringTable<'a> {
    slots: &'a mut [StringSlot],
    key: [u8; 16],
    hand: usize,
}

impl<'a> StringTable<'a> {
    pub(crate) fn new(slots: &'a mut [StringSlot], key: [u8; 16]) -> Self {
        let mut table = Self { slots, key, hand: 0 };
        table.reset();
        table
    }

    /// How many slots a segment may use.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Forgets all strings.
    pub(crate) fn reset(&mut self) {
        self.slots.fill(StringSlot::default());
        self.hand = 0;
    }

    /// How `bytes` is to be written.
    pub(crate) fn choose(&mut self, bytes: &[u8]) -> StringChoice {
        let is_fit = (STRING_BYTES_MIN..=STRING_SLOT_BYTES_MAX).contains(&bytes.len());
        if !is_fit || self.slots.is_empty() {
            return StringChoice::Literal;
        }
        // The bit of recent use is not part of the hash, and 0 is kept for "empty".
        let hash = keyed_hash(&self.key, bytes) & !USED | 2;
        let sets = self.slots.len() / STRING_WAYS;
        let first = (hash >> 32) as usize % sets * STRING_WAYS;
        let hand = self.hand;
        let Some(set) = self.slots.get_mut(first..first + STRING_WAYS) else {
            return StringChoice::Literal;
        };
        if let Some(way) = set.iter().position(|slot| slot.0 & !USED == hash) {
            set[way].0 |= USED;
            return StringChoice::Slot((first + way) as u32);
        }
        let way = victim(set, hand);
        set[way] = StringSlot(hash);
        self.hand = hand.wrapping_add(1);
        StringChoice::Define((first + way) as u32)
    }
}

/// An empty way, else the first not used lately, from `hand` on; when all were, all are aged.
fn victim(set: &mut [StringSlot], hand: usize) -> usize {
    if let Some(way) = set.iter().position(|slot| slot.0 == 0) {
        return way;
    }
    let ways = (0..STRING_WAYS).map(|step| (hand + step) % STRING_WAYS);
    let mut unused = ways.filter(|way| set[*way].0 & USED == 0);
    if let Some(way) = unused.next() {
        return way;
    }
    for slot in set.iter_mut() {
        slot.0 &= !USED;
    }
    hand % STRING_WAYS
}

/// What an op of a segment may refer to: strings in slots, and rows that the reader has.
pub(crate) struct SegmentCompressor<'s, 'a, 't> {
    pub(crate) strings: &'s mut StringTable<'a>,
    pub(crate) table: &'s Table<'t>,
    /// Rows from this slot on are not with the reader yet.
    pub(crate) rows_below: u32,
    /// The row that the op itself puts: the reader has it only afterwards.
    pub(crate) own_slot: Option<u32>,
}

impl Compressor for SegmentCompressor<'_, '_, '_> {
    fn string(&mut self, bytes: &[u8]) -> StringChoice {
        self.strings.choose(bytes)
    }

    fn row(&mut self, reference: Reference<'_>) -> Option<u32> {
        let slot = self.table.find(reference.kind, reference.key)?;
        (slot < self.rows_below && Some(slot) != self.own_slot).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_defined_once_and_then_named_by_its_slot() {
        let mut slots = [StringSlot::default(); 8];
        let mut table = StringTable::new(&mut slots, [7; 16]);
        let StringChoice::Define(slot) = table.choose(b"/bin/sh") else { panic!("not defined") };
        assert_eq!(table.choose(b"/bin/sh"), StringChoice::Slot(slot));
        table.reset();
        assert!(matches!(table.choose(b"/bin/sh"), StringChoice::Define(_)));
    }

    #[test]
    fn short_and_long_strings_take_no_slot() {
        let mut slots = [StringSlot::default(); 8];
        let mut table = StringTable::new(&mut slots, [7; 16]);
        assert_eq!(table.choose(b"ab"), StringChoice::Literal);
        assert_eq!(table.choose(&[b'a'; 256]), StringChoice::Literal);
        assert!(matches!(table.choose(&[b'a'; 255]), StringChoice::Define(_)));
        let mut none = StringTable::new(&mut [], [7; 16]);
        assert_eq!(none.choose(b"/bin/sh"), StringChoice::Literal);
    }

    #[test]
    fn what_is_used_stays_longer_than_what_is_not() {
        let mut slots = [StringSlot::default(); 4];
        let mut table = StringTable::new(&mut slots, [7; 16]);
        table.choose(b"kept");
        for number in 0..20u8 {
            assert!(matches!(table.choose(b"kept"), StringChoice::Slot(_)), "{number}");
            assert!(matches!(table.choose(&[number; 9]), StringChoice::Define(_)));
        }
    }
}
