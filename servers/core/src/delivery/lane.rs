//! One lane of one sensor: what is taken, what is durable, what may still come.

use std::collections::VecDeque;

use lapwing_protocol::buggify;
use lapwing_protocol::chunk::{Chunk, ChunkFlags};
use lapwing_protocol::delivery::{Ack, Credit, Jump, Nack, NackReason, Resync, ResyncReason};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::hello::{LogGrant, LogHead, LogVerdict};
use lapwing_protocol::id::{Lane, LogId, ServerId};
use lapwing_protocol::limits::{CHUNK_BYTES_MAX, SEQ_MAX};

use super::again::Again;
use super::head::{HeadRecord, RetiredLog};
use super::limits::{
    CHUNK_COST_MIN, RESYNC_PAUSE_MS, WINDOW_BYTES_BULK, WINDOW_BYTES_URGENT, WINDOW_CHUNKS,
};
use super::receiver::{Entry, EntryKind, PeerFault};

/// Asked last, for each chunk or Jump of the bulk lane that would be taken: may it be, or in how
/// many milliseconds may it come again?
pub(super) type Admit<'a> = &'a mut dyn FnMut(usize) -> Result<(), u32>;

#[derive(Debug)]
pub(super) struct LaneReceiver {
    lane: Lane,
    pub(super) head: Option<HeadRecord>,
    /// Entries given out that are not durable yet, oldest first.
    pending: VecDeque<Pending>,
    session: Option<LaneSession>,
    ack_due: bool,
    nack_due: Option<Nack>,
    resync_due: Option<Resync>,
    resync_at_ms: Option<u64>,
    /// A wish for a segment of this log that came too soon after the last one.
    resync_late: Option<(LogId, Resync)>,
    pub(super) store_failed: bool,
    safe: Safe,
    /// Set while the bulk lane's chunks are refused: how long the sensor is to wait.
    pub(super) overload: Option<u32>,
    /// An old log that the head has no room for, found where it is kept.
    pub(super) recalled: Option<RetiredLog>,
    /// Old logs for which the head has no room any more, to be kept elsewhere.
    pub(super) retired: Vec<RetiredLog>,
    /// What a session may have in flight, from its HelloAck on.
    pub(super) window: Credit,
}

/// What of a lane would outlive this server's disk.
#[derive(Debug)]
enum Safe {
    /// No backup is configured: what is stored counts.
    Stored,
    /// What the last finished backup holds of it.
    BackedUp(Option<HeadRecord>),
}

impl Safe {
    fn seq(&self, log: LogId, stored_seq: u64) -> u64 {
        match self {
            Self::Stored if cfg!(mutant = "safe_left_behind") => 0,
            Self::Stored => stored_seq,
            Self::BackedUp(_) if cfg!(mutant = "safe_ahead_of_backup") => stored_seq,
            Self::BackedUp(head) => {
                let held = head.as_ref().and_then(|head| head.find(log));
                held.map_or(0, |held| held.next_seq - 1).min(stored_seq)
            }
        }
    }
}

/// An entry on its way to the disk.
#[derive(Debug)]
struct Pending {
    seq: u64,
    /// What it took of the credit; a Jump takes none.
    bytes: u64,
    /// Where its log stands as long as it is not there.
    before: RetiredLog,
}

/// What belongs to one session.
#[derive(Debug)]
struct LaneSession {
    /// Bytes taken since the HelloAck.
    bytes: u64,
    credit: Credit,
    episode: u32,
    /// A Nack is out and the chunk it asks for has not come yet.
    refusing: bool,
    /// What may come again although it was taken.
    again: Again,
}

impl LaneReceiver {
    pub(super) fn new(lane: Lane, head: Option<HeadRecord>) -> Self {
        Self {
            lane,
            head,
            pending: VecDeque::new(),
            session: None,
            ack_due: false,
            nack_due: None,
            resync_due: None,
            resync_at_ms: None,
            resync_late: None,
            store_failed: false,
            safe: Safe::Stored,
            overload: None,
            window: usual_window(lane),
            recalled: None,
            retired: Vec::new(),
        }
    }

    /// Whether it is known where `log` stands.
    pub(super) fn knows(&self, log: LogId) -> bool {
        self.head.as_ref().is_some_and(|record| record.find(log).is_some())
    }

    /// Whether the session may send on it: its Hello named the lane, and the log can go on.
    pub(super) fn is_open(&self) -> bool {
        self.session.is_some()
    }

    pub(super) fn end_session(&mut self) {
        self.session = None;
        self.ack_due = false;
        self.nack_due = None;
        if cfg!(mutant = "resync_each_session") {
            self.resync_at_ms = None;
        }
    }

    /// The Hello decision table for one log.
    pub(super) fn handle_hello(
        &mut self,
        head: &LogHead<'_>,
        start: Chain,
        this_server: ServerId,
    ) -> LogGrant {
        // Only what is durable counts: the sensor forgets what lies before the answer. What is on
        // its way may come again, and is told apart then.
        let recalled = self.recalled.take().filter(|recalled| recalled.log == head.log);
        let taken = self.head.as_ref().and_then(|record| record.find(head.log)).or(recalled);
        let durable = self.durable(head.log);
        let known = if cfg!(mutant = "hello_ahead_of_store") { taken } else { durable.or(taken) };
        let first = RetiredLog::begin(head.log, start);
        let at = known.unwrap_or(first);
        let verdict = verdict(head, known, this_server);
        let credit = self.credit(at.next_seq - 1, 0);
        let again = taken.map_or_else(Again::default, |taken| self.again(taken));
        let mut bytes = 0;
        if cfg!(mutant = "credit_bytes_kept") {
            bytes = (at.next_seq - 1) * CHUNK_BYTES_MAX as u64;
        }
        self.end_session();
        // Of a log that cannot go on nothing is taken: the sensor opens another one, and a chunk
        // does not say of which log it is.
        if !matches!(verdict, LogVerdict::SensorBehind | LogVerdict::Forked) {
            match &mut self.head {
                None => self.head = Some(HeadRecord::begin(head.log, start)),
                Some(record) if record.current.log == head.log => {}
                Some(record) => {
                    let gone = record.open(taken.unwrap_or(first));
                    self.retired.extend(gone.filter(|gone| gone.next_seq > 1));
                }
            }
            self.session = Some(LaneSession { bytes, credit, episode: 0, refusing: false, again });
        }
        LogGrant {
            lane: self.lane,
            log: head.log,
            verdict,
            next_seq: at.next_seq,
            next_index: at.next_index,
            chain: at.chain,
            credit,
        }
    }

    /// Where `log` stands on the disk, if entries of it are on their way there; else it stands
    /// where its head says.
    fn durable(&self, log: LogId) -> Option<RetiredLog> {
        self.pending.iter().map(|pending| pending.before).find(|before| before.log == log)
    }

    /// The entries of a log that are on their way to the disk; `taken` is behind the last of them.
    fn again(&self, taken: RetiredLog) -> Again {
        let pending = || self.pending.iter().filter(|pending| pending.before.log == taken.log);
        let chains = pending().skip(1).map(|pending| pending.before.chain).chain([taken.chain]);
        let behind = pending().map(|pending| pending.seq).zip(chains).collect();
        pending().next().map_or_else(Again::default, |first| {
            Again::new((first.before.next_seq - 1, first.before.chain), behind)
        })
    }

    fn credit(&self, stored_seq: u64, stored_bytes: u64) -> Credit {
        if buggify!("server.window_min") {
            let limit_bytes = stored_bytes + CHUNK_BYTES_MAX as u64;
            return Credit { limit_seq: stored_seq + 1, limit_bytes };
        }
        Credit {
            limit_seq: stored_seq + self.window.limit_seq,
            limit_bytes: stored_bytes + self.window.limit_bytes,
        }
    }

    pub(super) fn handle_chunk(
        &mut self,
        chunk: &Chunk<'_>,
        bytes: &[u8],
        admit: Admit<'_>,
    ) -> Result<Option<Entry>, PeerFault> {
        let header = chunk.header;
        if header.flags.0 & !ChunkFlags::KNOWN != 0 {
            return Err(PeerFault::Malformed);
        }
        match self.place(header.seq, bytes.len() as u64)? {
            Place::Next => {}
            Place::Repeat if cfg!(mutant = "duplicate_stored") => {
                return Ok(self.repeated(chunk, bytes));
            }
            Place::Repeat if self.is_other_branch(header.seq, bytes) => {
                return Err(PeerFault::ChainBroken);
            }
            Place::Repeat | Place::Refused => return Ok(None),
        }
        let opens = header.flags.opens(header.part);
        let current = self.head.as_ref().ok_or(PeerFault::OutOfPlace)?.current;
        if header.first_index != current.next_index && !cfg!(mutant = "index_unchecked") {
            return Err(PeerFault::IndexBroken);
        }
        if current.must_open && !opens && !cfg!(mutant = "opening_unchecked") {
            return Err(PeerFault::MustOpen);
        }
        // Last of all: what is admitted is taken.
        if let Err(retry_after_ms) = self.room_for(bytes.len(), admit) {
            self.refuse(NackReason::Throttled, retry_after_ms);
            if !cfg!(mutant = "throttled_stored") {
                return Ok(None);
            }
        }
        let (Some(record), Some(session)) = (&mut self.head, &mut self.session) else {
            return Err(PeerFault::OutOfPlace);
        };
        let before = record.current;
        if opens {
            record.current.segment_seq = header.seq;
        }
        record.current.must_open = false;
        record.current.next_seq = header.seq + 1;
        record.current.next_index = chunk.next_index();
        let chained = if cfg!(mutant = "chain_over_body") { chunk.body } else { bytes };
        record.current.chain = record.current.chain.next(chained);
        session.bytes += bytes.len() as u64;
        session.refusing = false;
        let kind = EntryKind::Chunk { first_index: header.first_index, count: header.count, opens };
        let pending = Pending { seq: header.seq, bytes: bytes.len() as u64, before };
        Ok(self.entry(pending, kind, bytes))
    }

    pub(super) fn handle_jump(
        &mut self,
        jump: &Jump,
        bytes: &[u8],
        admit: Admit<'_>,
    ) -> Result<Option<Entry>, PeerFault> {
        let before = self.head.as_ref().ok_or(PeerFault::OutOfPlace)?.current;
        let session = self.session.as_mut().ok_or(PeerFault::OutOfPlace)?;
        let next = before.next_seq;
        let is_backward = jump.from_seq > jump.to_seq && !cfg!(mutant = "jump_backward");
        if is_backward || jump.from_seq == 0 || jump.to_seq > SEQ_MAX {
            return Err(PeerFault::Malformed);
        }
        if jump.to_seq < next.saturating_sub(1) {
            return Ok(None);
        }
        if jump.to_seq + 1 == next {
            self.ack_due = !cfg!(mutant = "jump_repeat_silent");
            return Ok(None);
        }
        if jump.from_seq > next && !cfg!(mutant = "jump_out_of_range") {
            self.refuse(NackReason::OutOfOrder, 0);
            return Ok(None);
        }
        let next_index = jump.to_index.map(|index| index.saturating_add(1));
        let is_behind = next_index.is_some_and(|index| index < before.next_index);
        if is_behind && !cfg!(mutant = "jump_index_unchecked") {
            return Err(PeerFault::IndexBroken);
        }
        // What was asked for came: what is refused from here on is a new episode.
        session.refusing = false;
        // It uses no credit, and is a write to the disk all the same.
        if let Err((reason, retry_after_ms)) = self.store_takes(bytes.len(), admit) {
            self.refuse(reason, retry_after_ms);
            return Ok(None);
        }
        let record = self.head.as_mut().ok_or(PeerFault::OutOfPlace)?;
        let first_index = before.next_index;
        record.current.next_seq = jump.to_seq + 1;
        record.current.next_index = next_index.unwrap_or(first_index);
        if !cfg!(mutant = "jump_keeps_chain") {
            record.current.chain = jump.chain_at_to;
        }
        record.current.must_open = !cfg!(mutant = "jump_then_anything");
        let kind = EntryKind::Jump {
            from_seq: jump.from_seq,
            first_index,
            to_index: jump.to_index,
            cause: jump.cause,
        };
        Ok(self.entry(Pending { seq: jump.to_seq, bytes: 0, before }, kind, bytes))
    }

    /// The mutant that stores a repeat as if it were new.
    fn repeated(&mut self, chunk: &Chunk<'_>, bytes: &[u8]) -> Option<Entry> {
        let before = self.head.as_ref()?.current;
        let Chunk { header, .. } = chunk;
        let kind = EntryKind::Chunk {
            first_index: header.first_index,
            count: header.count,
            opens: header.flags.opens(header.part),
        };
        self.entry(Pending { seq: header.seq, bytes: 0, before }, kind, bytes)
    }

    fn entry(&mut self, pending: Pending, kind: EntryKind, bytes: &[u8]) -> Option<Entry> {
        let mut head = self.head.clone()?;
        if cfg!(mutant = "watermark_ahead") {
            head.current.next_seq += 1;
        }
        self.ack_due |= cfg!(mutant = "ack_before_flush");
        let (log, seq) = (head.current.log, pending.seq);
        self.pending.push_back(pending);
        Some(Entry { lane: self.lane, log, seq, kind, bytes: bytes.to_vec(), head })
    }

    /// Where a chunk stands to what is taken next, and to the credit.
    fn place(&mut self, seq: u64, bytes: u64) -> Result<Place, PeerFault> {
        let next = self.head.as_ref().ok_or(PeerFault::OutOfPlace)?.current.next_seq;
        let session = self.session.as_mut().ok_or(PeerFault::OutOfPlace)?;
        if seq < next {
            // It was sent on this session's credit all the same.
            session.bytes += bytes;
            self.ack_due = !cfg!(mutant = "repeat_silent");
            return Ok(Place::Repeat);
        }
        if seq > next && !cfg!(mutant = "gap_accepted") {
            self.refuse(NackReason::OutOfOrder, 0);
            return Ok(Place::Refused);
        }
        // The chunk that was asked for came: what is refused from here on is a new episode.
        session.refusing = false;
        if self.lane == Lane::Bulk && buggify!("server.throttle") {
            self.refuse(NackReason::Throttled, 5);
            return Ok(Place::Refused);
        }
        let beyond = u64::from(cfg!(mutant = "credit_off_by_one"));
        if seq > session.credit.limit_seq + beyond
            || session.bytes + bytes > session.credit.limit_bytes
        {
            self.refuse(NackReason::BeyondCredit, 0);
            return Ok(Place::Refused);
        }
        if self.store_failed {
            self.refuse(NackReason::StoreFailed, 5_000);
            return Ok(Place::Refused);
        }
        Ok(Place::Next)
    }

    /// Whether the server takes a chunk of so many bytes now; the urgent lane is never refused.
    fn room_for(&self, bytes: usize, admit: Admit<'_>) -> Result<(), u32> {
        match (self.lane, self.overload) {
            (Lane::Urgent, _) if !cfg!(mutant = "urgent_throttled") => Ok(()),
            (_, Some(retry_after_ms)) => Err(retry_after_ms),
            (_, None) => admit(bytes),
        }
    }

    /// Whether a Jump of so many bytes is taken now, whatever credit there is.
    fn store_takes(&self, bytes: usize, admit: Admit<'_>) -> Result<(), (NackReason, u32)> {
        if self.store_failed {
            return Err((NackReason::StoreFailed, 5_000));
        }
        if cfg!(mutant = "jump_unthrottled") {
            return Ok(());
        }
        self.room_for(bytes, admit)
            .map_err(|retry_after_ms| (NackReason::Throttled, retry_after_ms))
    }

    /// Whether a repeat is none: other bytes were taken under this number.
    fn is_other_branch(&self, seq: u64, bytes: &[u8]) -> bool {
        !cfg!(mutant = "other_branch_swallowed")
            && self.session.as_ref().is_some_and(|session| !session.again.may_be(seq, bytes))
    }

    /// Makes one Nack due per episode.
    fn refuse(&mut self, reason: NackReason, retry_after_ms: u32) {
        let (Some(record), Some(session)) = (&self.head, &mut self.session) else { return };
        if session.refusing && !cfg!(mutant = "nack_storm") {
            return;
        }
        if !session.refusing || !cfg!(mutant = "nack_storm") {
            session.episode = session.episode.wrapping_add(1);
        }
        session.refusing = true;
        self.nack_due = Some(Nack {
            lane: self.lane,
            next_seq: record.current.next_seq,
            episode: session.episode,
            reason,
            retry_after_ms,
        });
    }

    /// An entry is durable, and so is everything that was given out before it.
    ///
    /// Two connections tell of their entries in any order: what is known already is no news.
    pub(super) fn handle_stored(&mut self, log: LogId, seq: u64) {
        let is_it = |pending: &Pending| pending.before.log == log && pending.seq == seq;
        if buggify!("server.resync") && self.lane == Lane::Bulk && self.session.is_some() {
            let reason = ResyncReason::DigestDiffers;
            self.resync_due = Some(Resync { lane: self.lane, at_seq: seq, reason });
        }
        // Behind an entry that failed nothing counts as stored.
        if let Some(at) = self.pending.iter().position(is_it).filter(|_| !self.store_failed) {
            self.pending.drain(..=at);
            self.ack_due = true;
        }
    }

    /// The last finished backup holds the lane as far as `head`.
    pub(super) fn handle_backed_up(&mut self, head: Option<HeadRecord>) {
        self.safe = Safe::BackedUp(head);
        self.ack_due |= self.session.is_some();
    }

    pub(super) fn handle_store_failed(&mut self) {
        self.store_failed = true;
    }

    /// The table here is not the sensor's: ask for a keyframe, at most once a minute. A wish that
    /// comes sooner waits: a quiet sensor may give no other cause for one.
    pub(super) fn handle_divergent(&mut self, now_ms: u64, at_seq: u64, reason: ResyncReason) {
        let Some(record) = self.head.as_ref().filter(|_| self.session.is_some()) else { return };
        self.resync_late = Some((record.current.log, Resync { lane: self.lane, at_seq, reason }));
        self.handle_time(now_ms);
    }

    /// Says the wish that waits, when it is time and the log is the same.
    pub(super) fn handle_time(&mut self, now_ms: u64) {
        let recent = self.resync_at_ms.is_some_and(|at| now_ms < at + RESYNC_PAUSE_MS);
        if recent && !cfg!(mutant = "resync_loop") {
            return;
        }
        let Some((log, resync)) = self.resync_late.take() else { return };
        let is_sent = self.session.is_some()
            && self.head.as_ref().is_some_and(|record| record.current.log == log);
        if is_sent {
            self.resync_at_ms = Some(now_ms);
            self.resync_due = Some(resync);
        }
    }

    /// Whether something is on its way to the disk.
    pub(super) fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn poll_nack(&mut self) -> Option<Nack> {
        self.nack_due.take()
    }

    pub(super) fn poll_resync(&mut self) -> Option<Resync> {
        self.resync_due.take()
    }

    /// The Ack that is due; its credit is raised here unless `hold` says not to.
    pub(super) fn poll_ack(&mut self, hold: bool) -> Option<Ack> {
        if !self.ack_due || buggify!("server.ack_late") {
            return None;
        }
        let current = self.head.as_ref()?.current;
        let durable = self.durable(current.log).filter(|_| !cfg!(mutant = "ack_before_flush"));
        let stored_seq = durable.unwrap_or(current).next_seq - 1;
        let bytes = self.session.as_ref()?.bytes;
        let pending: u64 = self.pending.iter().map(|pending| pending.bytes).sum();
        let window = self.credit(stored_seq, bytes.saturating_sub(pending));
        let session = self.session.as_mut()?;
        if !hold || self.lane == Lane::Urgent {
            session.credit.limit_seq = session.credit.limit_seq.max(window.limit_seq);
            session.credit.limit_bytes = session.credit.limit_bytes.max(window.limit_bytes);
        }
        if cfg!(mutant = "credit_shrinks") && stored_seq.is_multiple_of(7) {
            session.credit.limit_seq = stored_seq + 1;
        }
        self.ack_due = buggify!("server.ack_twice");
        let credit = session.credit;
        let safe_seq = self.safe.seq(current.log, stored_seq)
            + u64::from(cfg!(mutant = "safe_ahead_of_stored"));
        Some(Ack { lane: self.lane, stored_seq, safe_seq, credit })
    }

    /// Credit that is not used, in bytes; of chunks, each counts as the least that one costs.
    pub(super) fn credit_left(&self) -> Option<u64> {
        let (record, session) = (self.head.as_ref()?, self.session.as_ref()?);
        let chunks = (session.credit.limit_seq + 1).saturating_sub(record.current.next_seq);
        let bytes = session.credit.limit_bytes.saturating_sub(session.bytes);
        Some(bytes.min(chunks * CHUNK_COST_MIN))
    }

    /// Raises the credit to `bytes` beyond what was taken, and says so.
    pub(super) fn raise(&mut self, bytes: u64) {
        let (Some(record), Some(session)) = (&self.head, &mut self.session) else { return };
        let limit_seq = record.current.next_seq - 1 + bytes / CHUNK_COST_MIN;
        let limit_bytes = session.bytes + bytes;
        if limit_seq > session.credit.limit_seq || limit_bytes > session.credit.limit_bytes {
            session.credit.limit_seq = session.credit.limit_seq.max(limit_seq);
            session.credit.limit_bytes = session.credit.limit_bytes.max(limit_bytes);
            self.ack_due = true;
        }
    }

    /// Says the credit again, raised: after a time of holding it back.
    pub(super) fn lift(&mut self) {
        self.ack_due |= self.session.is_some();
    }
}

/// What a lane's session may have in flight where nothing else is said.
pub(super) const fn usual_window(lane: Lane) -> Credit {
    let limit_bytes = match lane {
        Lane::Bulk => WINDOW_BYTES_BULK,
        Lane::Urgent => WINDOW_BYTES_URGENT,
    };
    Credit { limit_seq: WINDOW_CHUNKS, limit_bytes }
}

enum Place {
    Next,
    Repeat,
    Refused,
}

/// The rows of the Hello decision table (docs/protocol.md, "Hello").
fn verdict(head: &LogHead<'_>, known: Option<RetiredLog>, this_server: ServerId) -> LogVerdict {
    let Some(known) = known else {
        return if head.acked_seq > 0 && acked_here(head, 1, this_server) {
            LogVerdict::ServerBehind
        } else {
            LogVerdict::New
        };
    };
    let stored = known.next_seq - 1;
    if known.next_seq > head.next_seq && !cfg!(mutant = "rollback_unnoticed") {
        return LogVerdict::SensorBehind;
    }
    let differs = head.acked_chain != known.chain && !cfg!(mutant = "fork_unnoticed");
    if head.acked_seq == stored && stored > 0 && differs {
        return LogVerdict::Forked;
    }
    if head.acked_seq > stored && acked_here(head, known.next_seq, this_server) {
        return LogVerdict::ServerBehind;
    }
    LogVerdict::Resume
}

/// Whether this server acknowledged something from `from_seq` on: no other server accounts for it.
fn acked_here(head: &LogHead<'_>, from_seq: u64, this_server: ServerId) -> bool {
    let mut seq = from_seq;
    for range in &head.elsewhere {
        let Ok(range) = range else { break };
        let is_other = range.server != this_server || cfg!(mutant = "own_runs_count");
        if is_other && (range.from_seq..=range.to_seq).contains(&seq) {
            seq = range.to_seq.saturating_add(1);
        }
    }
    seq <= head.acked_seq
}
