//! What a sensor counts, as plain integers that only grow.

use lapwing_protocol::op::DropReason;

/// Counters of one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Facts that got an index: the index the next one has.
    pub facts_produced: u64,
    /// Chunks made.
    pub chunks_made: u64,
    /// Bytes of these chunks.
    pub bytes_made: u64,
    /// The highest chunk that some server acknowledged.
    pub acked_seq: u64,
}

/// Counters of a sensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// By lane, at [`lapwing_protocol::id::Lane::index`].
    pub lanes: [LaneStats; 2],
    /// Observations that said nothing new; they have no index.
    pub unchanged: u64,
    /// Facts dropped because the table was full.
    pub dropped_table_full: u64,
    /// Facts dropped because they do not fit a chunk.
    pub dropped_too_large: u64,
    /// Facts dropped because they do not fit their kind.
    pub dropped_malformed: u64,
    /// Facts dropped because the memory of a sensor without a spool was full.
    pub dropped_memory_full: u64,
    /// Holes that the shell declared: its spool was full, refused or damaged.
    pub holes_declared: u64,
    /// Chunks in these holes.
    pub chunks_in_holes: u64,
    /// Facts in these holes, as far as their number is known.
    pub facts_in_holes: u64,
    /// Rows in the table.
    pub rows: u32,
    /// Commands that were turned away, and so stayed with the server.
    pub commands_turned_away: u64,
    /// Commands that came again while they were worked on.
    pub commands_repeated: u64,
    /// Resync messages that were not due.
    pub resyncs_ignored: u64,
}

impl Stats {
    pub(crate) fn drop_fact(&mut self, reason: DropReason) {
        match reason {
            DropReason::TableFull => self.dropped_table_full += 1,
            DropReason::TooLarge => self.dropped_too_large += 1,
            DropReason::Malformed => self.dropped_malformed += 1,
            DropReason::MemoryFull | DropReason::SpoolFull | DropReason::SpoolFailed => {
                self.dropped_memory_full += 1;
            }
        }
    }
}
