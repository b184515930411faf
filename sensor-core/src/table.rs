//! The rows that are true now, in lent memory: entries by slot, an arena of keys and canonical
//! rows, and an open-addressed index from key to slot.
//!
//! A row is changed in two steps: [`Table::stage`] writes the new row behind the arena's end
//! without touching the table, so that a caller can compare, measure and still decide against it;
//! [`Table::commit`] takes it over. The table knows nothing of ops and indices ([`crate::delta`]).
//!
//! Invariants: `used <= capacity <= entries.len() < index.len()`; every live record lies below
//! `end`; `digest` is the wrapping sum of the live rows' digests under the current key.

use lapwing_protocol::digest::{keyed_hash, row_digest};
use lapwing_protocol::element::{Field, Kind};
use lapwing_protocol::error::BufferFull;
use lapwing_protocol::id::LogId;
use lapwing_protocol::limits::{KEY_BYTES_MAX, ROW_BYTES_MAX};
use lapwing_protocol::row;

use crate::limits::ROW_RECORD_BYTES;

const NO_SLOT: u16 = u16::MAX;

/// Whether a slot holds a row, and whether the current scan saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mark {
    #[default]
    Free,
    Unseen,
    Seen,
}

/// One row's entry. Lent by the shell as `[RowEntry::default(); N]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowEntry {
    digest: [u32; 2],
    key_hash: u32,
    offset: u32,
    kind: u16,
    mark: Mark,
}

impl RowEntry {
    fn digest(&self) -> u64 {
        u64::from(self.digest[0]) | u64::from(self.digest[1]) << 32
    }

    fn set_digest(&mut self, digest: u64) {
        self.digest = [digest as u32, (digest >> 32) as u32];
    }
}

/// A row that is written behind the arena's end and not yet part of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Staged {
    /// The slot of the row that it replaces.
    pub(crate) slot: Option<u32>,
    kind: Kind,
    key_hash: u32,
    key_length: usize,
    row_length: usize,
}

#[derive(Debug)]
pub(crate) struct Table<'a> {
    entries: &'a mut [RowEntry],
    index: &'a mut [u16],
    arena: &'a mut [u8],
    /// Bytes of the arena in use, dead records included.
    end: usize,
    /// Bytes of dead records.
    dead: usize,
    used: u32,
    capacity: u32,
    /// Slots below this are all in use.
    lowest_free: u32,
    digest: u64,
    log: LogId,
    key: [u8; 16],
}

impl<'a> Table<'a> {
    /// An empty table; `key` is secret to this process, `log` keys the digest.
    pub(crate) fn new(
        entries: &'a mut [RowEntry],
        index: &'a mut [u16],
        arena: &'a mut [u8],
        (key, log): ([u8; 16], LogId),
    ) -> Self {
        entries.fill(RowEntry::default());
        index.fill(NO_SLOT);
        let capacity = entries.len() as u32;
        Self {
            entries,
            index,
            arena,
            end: 0,
            dead: 0,
            used: 0,
            capacity,
            lowest_free: 0,
            digest: 0,
            log,
            key,
        }
    }

    /// Rows it holds.
    pub(crate) fn len(&self) -> u32 {
        self.used
    }

    /// One more than the highest slot that may be in use.
    pub(crate) fn slots(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Rows it may hold.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The state digest.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Bounds rows and slots; the caller forgets the rows from `capacity` on.
    pub(crate) fn set_capacity(&mut self, capacity: u32) {
        self.capacity = capacity.min(self.entries.len() as u32);
        self.lowest_free = 0;
    }

    /// Computes the digest anew, for another log.
    pub(crate) fn rekey(&mut self, log: LogId) {
        self.log = log;
        self.digest = 0;
        for slot in 0..self.slots() {
            let Some((kind, row)) = self.row(slot) else { continue };
            let digest = row_digest(log, kind, row);
            self.digest = self.digest.wrapping_add(digest);
            self.entries[slot as usize].set_digest(digest);
        }
    }

    /// The kind and canonical row in `slot`, where there is one.
    pub(crate) fn row(&self, slot: u32) -> Option<(Kind, &[u8])> {
        let entry = self.entries.get(slot as usize)?;
        if entry.mark == Mark::Free {
            return None;
        }
        let (key, row) = record(self.arena, entry.offset as usize);
        let from = entry.offset as usize + ROW_RECORD_BYTES + key;
        Some((Kind(entry.kind), self.arena.get(from..from + row)?))
    }

    /// The slot of the row of `kind` with this natural key.
    pub(crate) fn find(&self, kind: Kind, key: &[u8]) -> Option<u32> {
        let hash = self.key_hash(kind, key);
        let mask = self.index.len() - 1;
        let mut place = hash as usize & mask;
        loop {
            let slot = self.index[place];
            if slot == NO_SLOT {
                return None;
            }
            let entry = &self.entries[usize::from(slot)];
            if entry.key_hash == hash && entry.kind == kind.0 && self.key_of(entry) == key {
                return Some(u32::from(slot));
            }
            place = (place + 1) & mask;
        }
    }

    fn key_of(&self, entry: &RowEntry) -> &[u8] {
        let (key, _) = record(self.arena, entry.offset as usize);
        let from = entry.offset as usize + ROW_RECORD_BYTES;
        self.arena.get(from..from + key).unwrap_or_default()
    }

    fn key_hash(&self, kind: Kind, key: &[u8]) -> u32 {
        (keyed_hash(&self.key, key) as u32)
            .wrapping_add(u32::from(kind.0).wrapping_mul(0x9e37_79b1))
    }

    /// Writes the row that `fields` are behind the arena's end.
    ///
    /// `fields` may borrow from nothing of this table; see [`Self::stage_merged`].
    ///
    /// # Errors
    /// [`BufferFull`] when the arena has no room, or the row is longer than a row may be.
    pub(crate) fn stage(
        &mut self,
        kind: Kind,
        key: &[u8],
        fields: &[Field<'_>],
    ) -> Result<Staged, BufferFull> {
        match self.write_staged(kind, key, |_, buffer| row::write(fields, buffer).map(<[u8]>::len))
        {
            Err(BufferFull) if self.dead > 0 => {
                self.compact();
                self.write_staged(kind, key, |_, buffer| {
                    row::write(fields, buffer).map(<[u8]>::len)
                })
            }
            result => result,
        }
    }

    /// As [`Self::stage`], but `merge` makes the row from the one in `slot`.
    pub(crate) fn stage_merged<F>(
        &mut self,
        slot: u32,
        key: &[u8],
        merge: F,
    ) -> Result<Staged, BufferFull>
    where
        F: Fn(&[u8], &mut [u8]) -> Result<usize, BufferFull>,
    {
        let kind = Kind(self.entries[slot as usize].kind);
        let write = |table: (&[RowEntry], &[u8]), buffer: &mut [u8]| {
            let offset = table.0[slot as usize].offset as usize;
            let (key, row) = record(table.1, offset);
            let from = offset + ROW_RECORD_BYTES + key;
            merge(table.1.get(from..from + row).ok_or(BufferFull)?, buffer)
        };
        match self.write_staged(kind, key, write) {
            Err(BufferFull) if self.dead > 0 => {
                self.compact();
                self.write_staged(kind, key, write)
            }
            result => result,
        }
    }

    fn write_staged<F>(&mut self, kind: Kind, key: &[u8], write: F) -> Result<Staged, BufferFull>
    where
        F: FnOnce((&[RowEntry], &[u8]), &mut [u8]) -> Result<usize, BufferFull>,
    {
        let slot = self.find(kind, key);
        let key_hash = self.key_hash(kind, key);
        let (live, free) = self.arena.split_at_mut(self.end);
        let to_key = free.get_mut(ROW_RECORD_BYTES..).ok_or(BufferFull)?;
        let (to_key, to_row) = to_key.split_at_mut_checked(key.len()).ok_or(BufferFull)?;
        to_key.copy_from_slice(key);
        let bound = to_row.len().min(ROW_BYTES_MAX);
        let row_length = write((&*self.entries, live), &mut to_row[..bound])?;
        Ok(Staged { slot, kind, key_hash, key_length: key.len(), row_length })
    }

    /// The canonical row that was staged last.
    pub(crate) fn staged_row(&self, staged: &Staged) -> &[u8] {
        let from = self.end + ROW_RECORD_BYTES + staged.key_length;
        self.arena.get(from..from + staged.row_length).unwrap_or_default()
    }

    /// Whether a new row would still find a slot.
    pub(crate) fn has_slot(&self) -> bool {
        self.used < self.capacity && self.used < self.slots()
    }

    /// Takes over the row that was staged last and returns its slot; `None` without a free slot.
    pub(crate) fn commit(&mut self, staged: &Staged) -> Option<u32> {
        let slot = match staged.slot {
            Some(slot) => {
                self.kill_record(slot);
                slot
            }
            None => self.take_slot(staged)?,
        };
        let head = [slot as u16, staged.key_length as u16, staged.row_length as u16];
        let at = self.end;
        for (part, bytes) in head.iter().zip(self.arena[at..].chunks_exact_mut(2)) {
            bytes.copy_from_slice(&part.to_le_bytes());
        }
        let digest = row_digest(self.log, staged.kind, self.staged_row(staged));
        self.digest = self.digest.wrapping_add(digest);
        let entry = &mut self.entries[slot as usize];
        entry.offset = at as u32;
        entry.mark = Mark::Seen;
        entry.set_digest(digest);
        self.end += ROW_RECORD_BYTES + staged.key_length + staged.row_length;
        Some(slot)
    }

    fn take_slot(&mut self, staged: &Staged) -> Option<u32> {
        if !self.has_slot() {
            return None;
        }
        let from = self.lowest_free as usize;
        let free = self.entries.get(from..self.capacity as usize)?;
        let slot = free.iter().position(|entry| entry.mark == Mark::Free)? + from;
        self.lowest_free = slot as u32 + 1;
        let entry = &mut self.entries[slot];
        entry.kind = staged.kind.0;
        entry.key_hash = staged.key_hash;
        let mask = self.index.len() - 1;
        let mut place = staged.key_hash as usize & mask;
        while self.index[place] != NO_SLOT {
            place = (place + 1) & mask;
        }
        self.index[place] = slot as u16;
        self.used += 1;
        Some(slot as u32)
    }

    /// Marks the record of `slot` as dead and takes its row out of the digest.
    fn kill_record(&mut self, slot: u32) {
        let entry = &self.entries[slot as usize];
        let at = entry.offset as usize;
        self.digest = self.digest.wrapping_sub(entry.digest());
        let (key, row) = record(self.arena, at);
        self.arena[at..at + 2].copy_from_slice(&NO_SLOT.to_le_bytes());
        self.dead += ROW_RECORD_BYTES + key + row;
    }

    /// Takes the row in `slot` out of the table.
    pub(crate) fn remove(&mut self, slot: u32) {
        if self.row(slot).is_none() {
            return;
        }
        self.kill_record(slot);
        self.unindex(slot as u16);
        self.entries[slot as usize] = RowEntry::default();
        self.lowest_free = self.lowest_free.min(slot);
        self.used -= 1;
        if self.used == 0 {
            self.end = 0;
            self.dead = 0;
        }
    }

    fn unindex(&mut self, slot: u16) {
        let mask = self.index.len() - 1;
        let mut hole = self.entries[usize::from(slot)].key_hash as usize & mask;
        while self.index[hole] != slot {
            hole = (hole + 1) & mask;
        }
        // Entries behind the hole move up, unless that would put one before its own place.
        let mut place = (hole + 1) & mask;
        while self.index[place] != NO_SLOT {
            let home = self.entries[usize::from(self.index[place])].key_hash as usize & mask;
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(hole) & mask {
                self.index[hole] = self.index[place];
                hole = place;
            }
            place = (place + 1) & mask;
        }
        self.index[hole] = NO_SLOT;
    }

    /// Moves the live records together.
    fn compact(&mut self) {
        let (mut from, mut to) = (0, 0);
        while from < self.end {
            let (key, row) = record(self.arena, from);
            let length = ROW_RECORD_BYTES + key + row;
            let slot = u16::from_le_bytes([self.arena[from], self.arena[from + 1]]);
            if slot != NO_SLOT {
                self.arena.copy_within(from..from + length, to);
                self.entries[usize::from(slot)].offset = to as u32;
                to += length;
            }
            from += length;
        }
        self.end = to;
        self.dead = 0;
    }

    /// Marks the rows of `kind` as not seen.
    pub(crate) fn begin_scan(&mut self, kind: Kind) {
        let rows = self.entries.iter_mut().filter(|entry| entry.kind == kind.0);
        rows.filter(|entry| entry.mark != Mark::Free).for_each(|entry| entry.mark = Mark::Unseen);
    }

    /// Marks the row in `slot` as seen.
    pub(crate) fn see(&mut self, slot: u32) {
        if let Some(entry) = self.entries.get_mut(slot as usize)
            && entry.mark == Mark::Unseen
        {
            entry.mark = Mark::Seen;
        }
    }

    /// The first row of `kind` from slot `from` on that was not seen.
    pub(crate) fn next_unseen(&self, kind: Kind, from: u32) -> Option<u32> {
        let mut rows = self.entries.iter().enumerate().skip(from as usize);
        rows.find(|(_, entry)| entry.mark == Mark::Unseen && entry.kind == kind.0)
            .map(|(slot, _)| slot as u32)
    }

    /// The first slot from `from` on that holds a row.
    pub(crate) fn next_used(&self, from: u32) -> Option<u32> {
        let mut rows = self.entries.iter().enumerate().skip(from as usize);
        rows.find(|(_, entry)| entry.mark != Mark::Free).map(|(slot, _)| slot as u32)
    }
}

/// Lengths of key and row of the record at `at`.
fn record(arena: &[u8], at: usize) -> (usize, usize) {
    let Some([_, _, key_low, key_high, row_low, row_high]) =
        arena.get(at..).and_then(|bytes| bytes.first_chunk::<ROW_RECORD_BYTES>())
    else {
        return (0, 0);
    };
    let length = |low, high| usize::from(u16::from_le_bytes([low, high]));
    (length(*key_low, *key_high), length(*row_low, *row_high))
}

const _: () = assert!(KEY_BYTES_MAX + ROW_BYTES_MAX <= u16::MAX as usize);

#[cfg(test)]
mod tests;
