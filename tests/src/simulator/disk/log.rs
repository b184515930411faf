//! One log of one lane on the sensor's disk: files of records, and how far it was acknowledged.
//!
//! Invariants: files ascend and do not overlap; the place behind each record stands beside it.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::delivery::{JumpCause, LossReason};
use lapwing_protocol::hello::StoredRange;
use lapwing_protocol::id::{Lane, LogId, ServerId};
use lapwing_protocol::limits::ELSEWHERE_MAX;
use lapwing_sensor_core::{Hole, LogPositions, Position};

/// What a file takes beside its records.
pub(super) const HEAD_BYTES: u64 = 110;
/// What a record takes beside its chunk.
const RECORD_BYTES: u64 = 48;
/// Holes of one log; one more makes the last reach it (JMP-009).
const HOLES_MAX: usize = 64;
/// More chunks than are written between two syncs.
const UNSYNCED_CHUNKS_MAX: u64 = 8_192;

/// A chunk, and the place behind it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) bytes: Rc<[u8]>,
    pub(crate) after: Position,
    /// Its checksum is wrong.
    pub(crate) is_damaged: bool,
}

impl Record {
    pub(super) fn disk_bytes(&self) -> u64 {
        RECORD_BYTES + self.bytes.len() as u64
    }

    pub(super) fn part(&self) -> u16 {
        Chunk::decode(&self.bytes).map_or(0, |chunk| chunk.header.part)
    }
}

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(super) before: Position,
    /// Whether decoding may start at it.
    pub(super) opens: bool,
    pub(crate) records: Vec<Record>,
}

impl File {
    pub(super) fn last_seq(&self) -> u64 {
        self.records.last().map_or(self.before.seq, |record| record.after.seq)
    }

    fn bytes(&self) -> u64 {
        HEAD_BYTES + self.records.iter().map(Record::disk_bytes).sum::<u64>()
    }
}

/// How far a log got.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) acked: Position,
    pub(super) safe_seq: u64,
    pub(super) holes: Vec<Hole>,
    pub(super) stored: Vec<StoredRange>,
}

/// One log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(super) lane: Lane,
    pub(crate) id: LogId,
    start: LogPositions,
    pub(crate) segments: VecDeque<File>,
    pub(crate) made: Position,
    pub(crate) progress: Progress,
    pub(super) noted: Progress,
    pub(super) saved: Progress,
    pub(super) synced_seq: u64,
    /// The first fact since a start went on with it, since it was last acknowledged; saved at once.
    pub(crate) continued_index: Option<u64>,
    /// The next record begins a file, whatever it is.
    is_file_due: bool,
    /// Which fact has which index; the oracle's, and on the disk so that an image takes it along.
    facts: BTreeMap<u64, u64>,
}

impl Log {
    pub(super) fn new(lane: Lane, start: LogPositions) -> Self {
        let progress =
            Progress { acked: start.acked, safe_seq: 0, holes: Vec::new(), stored: Vec::new() };
        Self {
            lane,
            id: start.log,
            start,
            segments: VecDeque::new(),
            made: start.made,
            noted: progress.clone(),
            saved: progress.clone(),
            progress,
            synced_seq: start.made.seq,
            continued_index: None,
            is_file_due: true,
            facts: BTreeMap::new(),
        }
    }

    /// A start goes on with it: where the disk is an older image, what comes now is another branch.
    pub(super) fn go_on(&mut self) {
        let acked_index = self.progress.acked.next_index;
        let known = self.continued_index.filter(|index| *index >= acked_index);
        self.continued_index = Some(known.unwrap_or(self.made.next_index));
    }

    /// A fact got an index.
    pub(super) fn note_fact(&mut self, index: u64, source_seq: u64) {
        self.facts.insert(index, source_seq);
    }

    /// Whether this very fact was made into a chunk: another branch may have its index.
    pub(crate) fn has_fact(&self, index: u64, source_seq: u64) -> bool {
        index < self.made.next_index && self.facts.get(&index) == Some(&source_seq)
    }

    /// The log as a starting sensor is told of it.
    pub(crate) fn positions(&self) -> LogPositions {
        let first_seq = self.segments.front().map_or(self.made.seq + 1, |file| file.before.seq + 1);
        LogPositions { first_seq, acked: self.progress.acked, made: self.made, ..self.start }
    }

    pub(crate) fn is_all_stored(&self) -> bool {
        self.progress.acked.seq >= self.made.seq
    }

    /// Whether a hole follows its only file, and all of that is stored: what comes next opens.
    pub(super) fn is_left_behind(&self) -> bool {
        let last_seq = self.segments.back().map_or(u64::MAX, File::last_seq);
        self.is_file_due
            && self.segments.len() == 1
            && last_seq <= self.progress.acked.seq
            && last_seq < self.made.seq
    }

    pub(super) fn first_seq(&self) -> u64 {
        self.positions().first_seq
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(File::bytes).sum()
    }

    pub(super) fn last_file_bytes(&self) -> u64 {
        self.segments.back().map_or(0, File::bytes)
    }

    pub(super) fn append(&mut self, record: Record, is_new_file: bool, opens: bool) {
        if is_new_file || self.is_file_due || self.segments.is_empty() {
            // Files are closed and synced before the next begins.
            self.synced_seq = self.made.seq;
            let before = self.made;
            self.segments.push_back(File { before, opens, records: Vec::new() });
            self.is_file_due = false;
        }
        self.made = record.after;
        if let Some(file) = self.segments.back_mut() {
            file.records.push(record);
        }
    }

    pub(super) fn sync(&mut self) {
        self.synced_seq = self.made.seq;
    }

    pub(super) fn record(&self, seq: u64) -> Option<&Record> {
        let mut records = self.segments.iter().flat_map(|file| &file.records);
        records.find(|record| record.after.seq == seq)
    }

    pub(super) fn behind(&self, seq: u64) -> Option<Position> {
        let files = self.segments.iter().map(|file| file.before);
        let holes = self.progress.holes.iter().filter_map(|hole| {
            Some(Position { seq: hole.to_seq, next_index: hole.next_index?, chain: hole.chain })
        });
        let own = [self.made, self.progress.acked];
        let known = files.chain(holes).chain(own).find(|place| place.seq == seq);
        known.or_else(|| self.record(seq).filter(|record| !record.is_damaged).map(|it| it.after))
    }

    pub(super) fn before_segment_of(&self, seq: u64) -> Option<Position> {
        let holds = |file: &File| file.before.seq < seq && seq <= file.last_seq();
        let Some(mut at) = self.segments.iter().position(holds) else {
            let is_behind = |file: &&File| file.opens && file.before.seq >= seq;
            return self.segments.iter().find(is_behind).map(|file| file.before);
        };
        while at > 0 && !self.segments[at].opens {
            at -= 1;
        }
        Some(self.segments[at].before)
    }

    pub(super) fn skip(&mut self, to: Position, cause: JumpCause) {
        let hole = Hole {
            log: self.id,
            from_seq: self.made.seq + 1,
            to_seq: to.seq,
            next_index: Some(to.next_index),
            chain: to.chain,
            cause,
        };
        self.add_hole(hole);
        self.made = to;
        self.synced_seq = to.seq;
        self.is_file_due = true;
    }

    /// The machine went down under it: at its end is a hole of which nobody knows how much it held.
    pub(super) fn lose_unsynced(&mut self) {
        let cause = JumpCause::Lost(LossReason::MemoryLost);
        if self.hole_at(self.made.seq).is_some_and(|hole| hole.cause == cause) {
            return;
        }
        let (from_seq, to_seq) = (self.made.seq + 1, self.made.seq + UNSYNCED_CHUNKS_MAX);
        let (log, chain) = (self.id, self.made.chain);
        self.add_hole(Hole { log, from_seq, to_seq, next_index: None, chain, cause });
        self.made.seq = to_seq;
        self.synced_seq = to_seq;
        self.save_progress();
    }

    pub(super) fn add_hole(&mut self, hole: Hole) {
        let is_within =
            |known: &Hole| hole.from_seq <= known.from_seq && known.to_seq <= hole.to_seq;
        self.progress.holes.retain(|known| !is_within(known));
        if self.progress.holes.len() >= HOLES_MAX {
            let acked_seq = self.progress.acked.seq;
            self.progress.holes.retain(|known| known.to_seq > acked_seq);
        }
        let is_full = self.progress.holes.len() >= HOLES_MAX;
        match self.progress.holes.last_mut() {
            Some(last) if last.to_seq + 1 == hole.from_seq && last.cause == hole.cause => {
                *last = Hole { from_seq: last.from_seq, ..hole };
            }
            Some(last) if is_full => {
                let furthest = if hole.to_seq > last.to_seq { hole } else { *last };
                let from_seq = last.from_seq.min(hole.from_seq);
                *last = Hole { from_seq, cause: last.cause, ..furthest };
            }
            _ => self.progress.holes.push(hole),
        }
    }

    /// The hole in which `seq` lies, acknowledged or not.
    pub(crate) fn hole_at(&self, seq: u64) -> Option<Hole> {
        let mut holes = self.progress.holes.iter();
        holes.find(|hole| (hole.from_seq..=hole.to_seq).contains(&seq)).copied()
    }

    pub(super) fn damage(&mut self, seq: u64) -> Hole {
        if let Some(hole) = self.hole_at(seq) {
            return hole;
        }
        let mut later = self.segments.iter().filter(|file| file.opens);
        let next = later.find(|file| file.before.seq >= seq).map(|file| file.before);
        let to = next.unwrap_or(self.made);
        let hole = Hole {
            log: self.id,
            from_seq: seq,
            to_seq: to.seq,
            next_index: Some(to.next_index),
            chain: to.chain,
            cause: JumpCause::Lost(LossReason::SpoolDamaged),
        };
        self.add_hole(hole);
        hole
    }

    pub(super) fn handle_stored(&mut self, server: ServerId, acked: Position, safe_seq: u64) {
        let first_seq = self.first_seq();
        let progress = &mut self.progress;
        match progress.stored.last_mut() {
            Some(last) if last.server == server => last.to_seq = last.to_seq.max(acked.seq),
            _ => {
                let from_seq = progress.acked.seq + 1;
                progress.stored.push(StoredRange { server, from_seq, to_seq: acked.seq });
            }
        }
        if progress.stored.len() > ELSEWHERE_MAX {
            let first = progress.stored.remove(0);
            progress.stored[0].from_seq = first.from_seq;
        }
        if acked.seq >= progress.acked.seq {
            progress.acked = acked;
        }
        progress.safe_seq = progress.safe_seq.max(safe_seq.min(acked.seq));
        // A hole that was acknowledged is remembered while files before it are held.
        let acked_seq = progress.acked.seq;
        progress.holes.retain(|hole| hole.to_seq > acked_seq || hole.to_seq >= first_seq);
    }

    pub(super) fn save_progress(&mut self) {
        self.noted = self.progress.clone();
        self.saved = self.progress.clone();
    }

    /// A new process reads the files: what was made is what they and the known holes say.
    pub(super) fn reopen(&mut self) {
        self.progress = self.noted.clone();
        let files = self
            .segments
            .back()
            .map(|file| file.records.last().map_or(file.before, |record| record.after));
        self.made = files.unwrap_or(self.progress.acked);
        let goes_on = self.made.seq + 1;
        let is_it = |hole: &&Hole| (hole.from_seq..=hole.to_seq).contains(&goes_on);
        if let Some(hole) = self.progress.holes.iter().rev().find(is_it) {
            let next_index = hole.next_index.unwrap_or(self.made.next_index);
            self.made = Position { seq: hole.to_seq, next_index, chain: hole.chain };
        }
        if self.progress.acked.seq > self.made.seq {
            self.progress.acked = self.made;
        }
        self.synced_seq = self.made.seq;
        self.is_file_due = true;
    }

    /// Records behind `seq` never came to the disk.
    pub(super) fn cut_behind(&mut self, seq: u64) {
        for file in &mut self.segments {
            file.records.retain(|record| record.after.seq <= seq);
        }
        self.segments.retain(|file| file.before.seq <= seq);
        self.made = self
            .segments
            .back()
            .map_or(self.made, |file| file.records.last().map_or(file.before, |it| it.after));
    }
}
