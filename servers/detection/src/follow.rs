//! Follows the journal: entries in commit order, decoded.
//!
//! Not here: what is done with the changes (analyst.rs). A follower begins by rebuilding: the
//! segments in which the live heads stand are decoded from their keyframes, so that the chunks
//! after the cursor find the state they build on.
//!
//! Invariant: entries are handed out in commit order, each once; nothing is read that is not
//! durable. What cannot be read is passed over, and told; what builds on it does not decode.

use std::collections::BTreeMap;
use std::sync::Arc;

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::delivery::Jump;
use lapwing_protocol::error::{DecodeError, from_bytes};
use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId};
use lapwing_server_core::decode::{BuiltIn, Decoded, Decoder, LogContext};
use lapwing_store::StoreError;
use lapwing_store::journal::{Entry, Head, Journal, LaneKey, LogKey, PageLimit};

use crate::damage::{self, Damaged, Passage, Step};
use crate::ingest::{EntryForm, EntryHeader};
use crate::roster::lane_of;

/// One entry of the journal, decoded.
#[derive(Debug)]
pub(crate) struct Followed {
    /// Its commit id.
    pub(crate) commit_id: u64,
    /// Whose it is.
    pub(crate) sensor: SensorId,
    /// Its lane.
    pub(crate) lane: Lane,
    /// Its log.
    pub(crate) log: LogId,
    /// Its sequence; a Jump's last.
    pub(crate) seq: u64,
    /// The number of its segment: the sequence that opened it.
    pub(crate) segment: u64,
    /// Index of its first fact.
    pub(crate) first_index: u64,
    /// When it was received, milliseconds since 1970.
    pub(crate) received_ms: u64,
    /// What it says.
    pub(crate) content: Content,
}

/// What an entry says.
#[derive(Debug)]
pub(crate) enum Content {
    /// A chunk, decoded.
    Changes(Decoded),
    /// A chunk that did not decode, with the facts it covers.
    Undecoded(DecodeError, u64),
    /// A hole.
    Jump(Jump),
    /// Bytes that are not what their header says: damage, or a fault of this program.
    Unreadable(DecodeError),
}

/// The decoders of all lanes.
#[derive(Debug)]
pub(crate) struct Decoders {
    deployment: DeploymentId,
    rows_max: u32,
    built_in: BuiltIn,
    by_lane: BTreeMap<(SensorId, Lane), Decoder>,
    /// The last entry of each lane that was decoded.
    last_decoded: BTreeMap<LaneKey, u64>,
}

impl Decoders {
    pub(crate) fn new(deployment: DeploymentId, rows_max: u32) -> Self {
        let built_in = BuiltIn::default();
        let last_decoded = BTreeMap::new();
        Self { deployment, rows_max, built_in, by_lane: BTreeMap::new(), last_decoded }
    }

    /// Rows of a sensor's table, and whether it is known to differ from the sensor's.
    pub(crate) fn standing(&self, sensor: SensorId) -> (usize, bool) {
        let bulk = self.by_lane.get(&(sensor, Lane::Bulk));
        bulk.map_or((0, false), |decoder| (decoder.rows(), decoder.is_divergent()))
    }

    /// Decodes one entry of `journal`, and before it what stands before it in its segment, where
    /// that was not the last: a cursor may lie within a segment, and a log may come back in the
    /// midst of one. Where that is damaged, nothing decodes until a chunk opens. Blocks.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(crate) fn decode_behind(
        &mut self,
        journal: &Journal,
        entry: &Entry,
    ) -> Result<Option<Followed>, StoreError> {
        // A log that was left and is entered again has a new start in the journal, but not in its
        // own sequence.
        let opens = EntryHeader::decode(&entry.header).is_ok_and(|it| it.seq == entry.segment);
        let is_next = self.last_decoded.get(&entry.log.lane) == Some(&entry.previous);
        if !opens && !is_next {
            match self.decode_before(journal, entry) {
                Err(error) if error.is_damage() => self.await_opening(entry),
                other => other?,
            }
        }
        Ok(self.decode(entry))
    }

    /// Decodes what stands before `entry` in its segment.
    fn decode_before(&mut self, journal: &Journal, entry: &Entry) -> Result<(), StoreError> {
        // From before the segment on, so that the walk does not end at that new start.
        let before = entry.segment.saturating_sub(1);
        let range = match journal.log_range(&entry.log, before..=entry.segment) {
            // What is damaged may lie before the segment, and be none of its concern.
            Err(error) if error.is_damage() => {
                journal.log_range(&entry.log, entry.segment..=entry.segment)?
            }
            other => other?,
        };
        for commit_id in range.commits.into_iter().filter(|id| *id < entry.commit_id) {
            if let Some(before) = journal.entry(commit_id)? {
                self.decode(&before);
            }
        }
        Ok(())
    }

    /// Something before `entry` is missing: of its log nothing decodes until a chunk opens.
    fn await_opening(&mut self, entry: &Entry) {
        let Some(lane) = lane_of(entry.log.lane.lane) else { return };
        if let Some(decoder) = self.by_lane.get_mut(&(SensorId(entry.log.lane.sensor), lane)) {
            decoder.await_opening();
        }
    }

    /// Decodes one entry; entries of a lane must come in order.
    pub(crate) fn decode(&mut self, entry: &Entry) -> Option<Followed> {
        self.last_decoded.insert(entry.log.lane, entry.commit_id);
        let sensor = SensorId(entry.log.lane.sensor);
        let lane = lane_of(entry.log.lane.lane)?;
        let log = LogId(entry.log.log);
        let header = EntryHeader::decode(&entry.header);
        let context = LogContext { deployment: self.deployment, sensor, lane, log };
        let decoder = self
            .by_lane
            .entry((sensor, lane))
            .or_insert_with(|| Decoder::new(context, self.rows_max, self.built_in.clone()));
        decoder.open_log(log);
        let (seq, first_index, content) = match header {
            Err(error) => (0, 0, Content::Unreadable(error)),
            Ok(header) => {
                let content = match header.form {
                    EntryForm::Chunk => decode_chunk(decoder, &entry.body),
                    EntryForm::Jump => {
                        decoder.await_opening();
                        from_bytes(&entry.body).map_or_else(Content::Unreadable, Content::Jump)
                    }
                };
                (header.seq, header.first_index, content)
            }
        };
        Some(Followed {
            commit_id: entry.commit_id,
            sensor,
            lane,
            log,
            seq,
            segment: entry.segment,
            first_index,
            received_ms: entry.received_wall_ms,
            content,
        })
    }
}

fn decode_chunk(decoder: &mut Decoder, body: &[u8]) -> Content {
    let chunk = match Chunk::decode(body) {
        Ok(chunk) => chunk,
        Err(error) => return Content::Unreadable(error),
    };
    match decoder.handle_chunk(&chunk) {
        Ok(decoded) => Content::Changes(decoded),
        Err(error) => Content::Undecoded(error, chunk.header.count),
    }
}

/// Entries of one read of the journal.
const PAGE: PageLimit = PageLimit { entries: 256, bytes: 1 << 20 };

/// Reads the journal from a cursor on.
#[derive(Debug)]
pub(crate) struct Follower {
    journal: Arc<Journal>,
    decoders: Decoders,
    /// The next commit id.
    next: u64,
    /// What could not be read since it was last asked for.
    damaged: Vec<Damaged>,
}

impl Follower {
    /// A follower that goes on at commit id `next`; gives the entries of the live segments before
    /// it, decoded, to rebuild from. Blocks.
    pub(crate) fn rebuild(
        journal: Arc<Journal>,
        decoders: Decoders,
        next: u64,
        mut give: impl FnMut(Followed),
    ) -> Result<Self, StoreError> {
        let next = next.max(1);
        let mut follower = Self { journal, decoders, next, damaged: Vec::new() };
        let mut after = None;
        loop {
            let page = follower.journal.heads(after.as_ref(), 256)?;
            let Some((last, _)) = page.last() else { return Ok(follower) };
            after = Some(*last);
            for (lane, head) in page {
                let log = LogKey { lane, log: head.log };
                match follower.rebuild_lane(&log, &head, &mut give) {
                    Err(error) if error.is_damage() => {
                        follower.rebuild_past_damage(&log, &head, &mut give)?;
                    }
                    other => other?,
                }
            }
        }
    }

    /// Decodes the segment in which the head of a lane stands, as far as the cursor.
    fn rebuild_lane(
        &mut self,
        log: &LogKey,
        head: &Head,
        give: &mut impl FnMut(Followed),
    ) -> Result<(), StoreError> {
        let range = self.journal.log_range(log, head.segment..=head.segment)?;
        for commit_id in range.commits.into_iter().filter(|id| *id < self.next) {
            let Some(entry) = self.journal.entry(commit_id)? else { continue };
            self.decoders.decode(&entry).into_iter().for_each(&mut *give);
        }
        Ok(())
    }

    /// The same where the walk back from the head ends in damage: by reading everything from the
    /// segment's start on.
    fn rebuild_past_damage(
        &mut self,
        log: &LogKey,
        head: &Head,
        give: &mut impl FnMut(Followed),
    ) -> Result<(), StoreError> {
        let mut from = head.segment_start;
        while from < self.next {
            let Passage { steps, next } = damage::read(&self.journal, from, PAGE)?;
            for step in steps {
                match step {
                    Step::Entry(entry) if entry.log == *log && entry.commit_id < self.next => {
                        let followed = self.decoders.decode_behind(&self.journal, &entry)?;
                        followed.into_iter().for_each(&mut *give);
                    }
                    Step::Entry(_) => {}
                    Step::Damaged(damaged) => self.damaged.push(damaged),
                }
            }
            if next == from {
                break;
            }
            from = next;
        }
        Ok(())
    }

    /// What could not be read since this was last asked.
    pub(crate) fn take_damaged(&mut self) -> Vec<Damaged> {
        std::mem::take(&mut self.damaged)
    }

    /// The journal that is followed.
    pub(crate) fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// The next commit id.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The decoders' view of a sensor.
    pub(crate) fn standing(&self, sensor: SensorId) -> (usize, bool) {
        self.decoders.standing(sensor)
    }

    /// The entries that are durable behind the last page, decoded; none when there are none.
    /// Blocks.
    pub(crate) fn page(&mut self) -> Result<Vec<Followed>, StoreError> {
        let Passage { steps, next } = damage::read(&self.journal, self.next, PAGE)?;
        let mut followed = Vec::with_capacity(steps.len());
        for step in steps {
            match step {
                Step::Entry(entry) => {
                    followed.extend(self.decoders.decode_behind(&self.journal, &entry)?);
                }
                Step::Damaged(damaged) => self.damaged.push(damaged),
            }
        }
        self.next = next;
        Ok(followed)
    }
}
