//! Where a sensor's lanes stand, across its connections.

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::code::Code;
use lapwing_protocol::delivery::{Ack, Credit, Jump, JumpCause, Nack, Resync, ResyncReason};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::hello::{Hello, LogGrant};
use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId, ServerId};
use lapwing_protocol::limits::{CHUNK_BYTES_MAX, LANES};

use super::head::{HeadRecord, RetiredLog};
use super::lane::{LaneReceiver, usual_window};
use super::limits::CHUNK_COST_MIN;
use crate::pressure::Pressure;

/// Something to be stored: a chunk or Jump as received, and where its lane stands after it.
///
/// The journal writes `bytes` and `head` in one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its lane.
    pub lane: Lane,
    /// Its log.
    pub log: LogId,
    /// Its sequence; a Jump's last.
    pub seq: u64,
    /// What it is.
    pub kind: EntryKind,
    /// The frame's body as received: the preimage of the chain.
    pub bytes: Vec<u8>,
    /// Where the lane stands once this is stored.
    pub head: HeadRecord,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A chunk.
    Chunk {
        /// Index of its first fact.
        first_index: u64,
        /// Facts it covers.
        count: u64,
        /// Whether decoding may start with it.
        opens: bool,
    },
    /// A hole.
    Jump {
        /// Its first sequence.
        from_seq: u64,
        /// The first index it covers.
        first_index: u64,
        /// Its last index, where known.
        to_index: Option<u64>,
        /// Why.
        cause: JumpCause,
    },
}

/// What the peer did that it may not do: the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerFault {
    /// The bytes are not what they claim to be.
    Malformed,
    /// A frame is beyond its bound.
    TooLarge,
    /// The kind of frame is unknown and may not be skipped.
    UnknownKind,
    /// A right message at the wrong moment.
    OutOfPlace,
    /// No version in common.
    Version,
    /// A chunk's first index is not the next one.
    IndexBroken,
    /// A chunk came that does not open where one must.
    MustOpen,
    /// The sensor's chain is not this server's.
    ChainBroken,
    /// A newer session of the same sensor took over.
    Fenced,
    /// Nothing came for too long.
    Idle,
    /// A frame was begun and not ended in time.
    Dripping,
}

impl PeerFault {
    /// Its number in the error registry.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Malformed => Code::MALFORMED,
            Self::TooLarge => Code::TOO_LARGE,
            Self::UnknownKind => Code::UNKNOWN_KIND,
            Self::OutOfPlace | Self::IndexBroken | Self::MustOpen => Code::OUT_OF_PLACE,
            Self::Version => Code::VERSION,
            Self::ChainBroken => Code::CHAIN_BROKEN,
            Self::Fenced => Code::FENCED,
            Self::Idle => Code::IDLE,
            Self::Dripping => Code::TIMED_OUT,
        }
    }

    /// What happened, for the log and the peer.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Malformed => "the bytes are not a message of their kind",
            Self::TooLarge => "a frame is longer than allowed",
            Self::UnknownKind => "a frame is of an unknown kind that may not be skipped",
            Self::OutOfPlace => "a message came before its turn",
            Self::Version => "no protocol version in common; update the older side",
            Self::IndexBroken => "a chunk's first index is not the next one",
            Self::MustOpen => "a chunk came that does not open a segment where one must",
            Self::ChainBroken => "the chain of a log does not continue",
            Self::Fenced => "a newer session of the same sensor took over",
            Self::Idle => "nothing came for too long",
            Self::Dripping => "a frame was begun and not ended in time",
        }
    }
}

/// What a Receiver offers a session to send, in order of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Go back.
    Nack(Nack),
    /// So much is durable.
    Ack(Ack),
    /// Begin a new segment.
    Resync(Resync),
}

/// Where a lane stands, for the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which lane.
    pub lane: Lane,
    /// Which log.
    pub log: LogId,
    /// The sequence that is taken next.
    pub next_seq: u64,
    /// The index that is expected next.
    pub next_index: u64,
    /// The chain before `next_seq`.
    pub chain: Chain,
}

/// One sensor's end of delivery; outlives its connections.
#[derive(Debug)]
pub struct Receiver {
    deployment: DeploymentId,
    sensor: SensorId,
    server: ServerId,
    epoch: u64,
    lanes: [LaneReceiver; LANES],
    hold_credit: bool,
}

impl Receiver {
    /// A receiver whose lanes stand where the journal says; `heads` is by [`Lane::index`].
    #[must_use]
    pub fn new(
        (deployment, server): (DeploymentId, ServerId),
        sensor: SensorId,
        heads: [Option<HeadRecord>; LANES],
    ) -> Self {
        let [bulk, urgent] = heads;
        Self {
            deployment,
            sensor,
            server,
            epoch: 0,
            lanes: [LaneReceiver::new(Lane::Bulk, bulk), LaneReceiver::new(Lane::Urgent, urgent)],
            hold_credit: false,
        }
    }

    /// A backup is configured, and the last finished one holds the lanes as far as `heads`, by
    /// [`Lane::index`]: no more than that is safe (DLV-005), and the sensor is told.
    pub fn handle_backed_up(&mut self, heads: [Option<HeadRecord>; LANES]) {
        for (lane, head) in self.lanes.iter_mut().zip(heads) {
            lane.handle_backed_up(head);
        }
    }

    /// The newest session's number; 0 before the first.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Which sensor.
    #[must_use]
    pub fn sensor(&self) -> SensorId {
        self.sensor
    }

    /// Where the lanes stand.
    pub fn standings(&self) -> impl Iterator<Item = Standing> + '_ {
        Lane::BY_URGENCY.into_iter().filter_map(|lane| {
            let head = self.lanes[lane.index()].head.as_ref()?;
            Some(Standing {
                lane,
                log: head.current.log,
                next_seq: head.current.next_seq,
                next_index: head.current.next_index,
                chain: head.current.chain,
            })
        })
    }

    /// Whether it is known where `log` stands.
    #[must_use]
    pub fn knows(&self, lane: Lane, log: LogId) -> bool {
        self.lanes[lane.index()].knows(log)
    }

    /// Where an old log stands that is not known any more, for the Hello that names it.
    pub fn recall(&mut self, lane: Lane, log: RetiredLog) {
        self.lanes[lane.index()].recalled = Some(log);
    }

    /// The old logs that are not remembered here any more since this was last asked. Whoever keeps
    /// them gives them back by [`Self::recall`].
    pub fn take_retired(&mut self) -> Vec<(Lane, RetiredLog)> {
        let lanes = self.lanes.iter_mut().zip([Lane::Bulk, Lane::Urgent]);
        let taken = lanes.flat_map(|(of, lane)| {
            std::mem::take(&mut of.retired).into_iter().map(move |log| (lane, log))
        });
        taken.collect()
    }

    /// A session begins: those before it are fenced. `epoch` is higher than any before.
    pub fn begin_session(&mut self, epoch: u64) {
        self.epoch = epoch;
        for lane in &mut self.lanes {
            lane.end_session();
        }
    }

    /// Answers the logs of a Hello.
    ///
    /// # Errors
    /// [`PeerFault::Fenced`] for an old session, [`PeerFault::Malformed`] for two logs of a lane, a
    /// head that cannot be, or runs that do not decode.
    pub fn handle_hello(
        &mut self,
        epoch: u64,
        hello: &Hello<'_>,
    ) -> Result<heapless::Vec<LogGrant, LANES>, PeerFault> {
        self.fence(epoch)?;
        let mut grants = heapless::Vec::new();
        for head in &hello.logs {
            let is_second = grants.iter().any(|grant: &LogGrant| grant.lane == head.lane);
            if is_second && !cfg!(mutant = "lane_twice_accepted")
                || head.first_seq == 0
                || head.next_seq == 0
                || head.first_seq > head.next_seq
                || (head.acked_seq >= head.next_seq && !cfg!(mutant = "head_unchecked"))
                || head.elsewhere.iter().any(|range| range.is_err())
            {
                return Err(PeerFault::Malformed);
            }
            let start = Chain::start(self.deployment, self.sensor, head.lane, head.log);
            let grant = self.lanes[head.lane.index()].handle_hello(head, start, self.server);
            grants.push(grant).map_err(|_| PeerFault::Malformed)?;
        }
        Ok(grants)
    }

    /// Takes a chunk, given as the frame's body, whatever else is on its way to the disk.
    ///
    /// # Errors
    /// What the peer did wrong.
    pub fn handle_chunk(
        &mut self,
        epoch: u64,
        chunk: &Chunk<'_>,
        bytes: &[u8],
    ) -> Result<Option<Entry>, PeerFault> {
        self.handle_chunk_if(epoch, chunk, bytes, &mut |_| Ok(()))
    }

    /// Takes a chunk, given as the frame's body. `admit` is asked last for a chunk of the bulk lane
    /// that would be taken, with its bytes: what it admits is taken, what it does not is refused
    /// as Throttled with the milliseconds it says.
    ///
    /// # Errors
    /// What the peer did wrong.
    pub fn handle_chunk_if(
        &mut self,
        epoch: u64,
        chunk: &Chunk<'_>,
        bytes: &[u8],
        admit: &mut dyn FnMut(usize) -> Result<(), u32>,
    ) -> Result<Option<Entry>, PeerFault> {
        self.fence(epoch)?;
        let lane = &mut self.lanes[chunk.header.flags.lane().index()];
        lane.handle_chunk(chunk, bytes, admit)
    }

    /// Takes a Jump, given as message and as the frame's body, whatever else is on its way to the
    /// disk.
    ///
    /// # Errors
    /// What the peer did wrong.
    pub fn handle_jump(
        &mut self,
        epoch: u64,
        jump: &Jump,
        bytes: &[u8],
    ) -> Result<Option<Entry>, PeerFault> {
        self.handle_jump_if(epoch, jump, bytes, &mut |_| Ok(()))
    }

    /// Takes a Jump, given as message and as the frame's body; `admit` is asked as for a chunk.
    ///
    /// # Errors
    /// What the peer did wrong.
    pub fn handle_jump_if(
        &mut self,
        epoch: u64,
        jump: &Jump,
        bytes: &[u8],
        admit: &mut dyn FnMut(usize) -> Result<(), u32>,
    ) -> Result<Option<Entry>, PeerFault> {
        self.fence(epoch)?;
        self.lanes[jump.lane.index()].handle_jump(jump, bytes, admit)
    }

    /// Compares the sensor's chain with this server's.
    ///
    /// # Errors
    /// [`PeerFault::ChainBroken`] when they differ at the same sequence.
    pub fn handle_chain_mark(
        &mut self,
        epoch: u64,
        (lane, seq, chain): (Lane, u64, Chain),
    ) -> Result<(), PeerFault> {
        self.fence(epoch)?;
        // As a chunk would be: a lane that this Hello did not open takes nothing (HEL-010).
        let lane = &self.lanes[lane.index()];
        let head = lane.head.as_ref().filter(|_| lane.is_open()).ok_or(PeerFault::OutOfPlace)?;
        let is_other = head.current.chain != chain && !cfg!(mutant = "chain_unchecked");
        if head.current.next_seq == seq.saturating_add(1) && is_other {
            return Err(PeerFault::ChainBroken);
        }
        Ok(())
    }

    /// The journal says that an entry is durable. Entries become so in the order in which they were
    /// given out; whoever hands them to the journal keeps it.
    pub fn handle_stored(&mut self, lane: Lane, log: LogId, seq: u64) {
        self.lanes[lane.index()].handle_stored(log, seq);
    }

    /// Whether the journal refused something that was given out.
    #[must_use]
    pub fn is_store_failed(&self) -> bool {
        self.lanes.iter().any(|lane| lane.store_failed)
    }

    /// The journal takes nothing more: nothing further is acknowledged.
    pub fn handle_store_failed(&mut self) {
        for lane in &mut self.lanes {
            lane.handle_store_failed();
        }
    }

    /// The decoder says that the table here is not the sensor's.
    pub fn handle_divergent(&mut self, now_ms: u64, lane: Lane, seq: u64, reason: ResyncReason) {
        self.lanes[lane.index()].handle_divergent(now_ms, seq, reason);
    }

    /// Lets time pass: what waited to be said is due.
    pub(super) fn handle_time(&mut self, epoch: u64, now_ms: u64) {
        if epoch == self.epoch {
            self.lanes.iter_mut().for_each(|lane| lane.handle_time(now_ms));
        }
    }

    /// From here on the bulk lane's credit rises by [`Self::raise_credit`] alone.
    pub fn hold_credit(&mut self) {
        self.hold_credit = true;
    }

    /// From here on the bulk lane's credit rises with what is stored; says the new credit.
    pub fn lift_credit(&mut self) {
        self.hold_credit = false;
        self.lanes.iter_mut().for_each(LaneReceiver::lift);
    }

    /// Bytes of credit with which the bulk lane begins at the next Hello.
    pub fn set_first_window(&mut self, bytes: u64) {
        let limit_seq = bytes / CHUNK_COST_MIN;
        self.lanes[Lane::Bulk.index()].window = Credit { limit_seq, limit_bytes: bytes };
    }

    /// Gives the urgent lane credit as usual, or for one chunk at a time where the disk is full.
    pub fn fit_urgent(&mut self, pressure: Pressure) {
        self.lanes[Lane::Urgent.index()].window = match pressure {
            Pressure::None | Pressure::High => usual_window(Lane::Urgent),
            Pressure::Full => Credit { limit_seq: 1, limit_bytes: CHUNK_BYTES_MAX as u64 },
        };
    }

    /// Credit of the bulk lane that is not used, in bytes; none without a greeted session.
    #[must_use]
    pub fn credit_left(&self) -> Option<u64> {
        self.lanes[Lane::Bulk.index()].credit_left()
    }

    /// Raises the bulk lane's credit to `bytes` beyond what was taken, and says so. What is meant
    /// for another session changes nothing.
    pub fn raise_credit(&mut self, epoch: u64, bytes: u64) {
        if epoch == self.epoch {
            self.lanes[Lane::Bulk.index()].raise(bytes);
        }
    }

    /// Refuses what comes on the bulk lane, to be sent again after `retry_after_ms`; `None` takes
    /// it again.
    pub fn overload(&mut self, retry_after_ms: Option<u32>) {
        self.lanes[Lane::Bulk.index()].overload = retry_after_ms;
    }

    /// What the session of `epoch` is to send next, the urgent lane first.
    pub fn poll_message(&mut self, epoch: u64) -> Option<Offer> {
        if epoch != self.epoch {
            return None;
        }
        let hold = self.hold_credit;
        let is_bulk_busy = self.lanes[Lane::Bulk.index()].is_busy();
        Lane::BY_URGENCY.into_iter().find_map(|lane| {
            if cfg!(mutant = "urgent_starved") && lane == Lane::Urgent && is_bulk_busy {
                return None;
            }
            let lane = &mut self.lanes[lane.index()];
            lane.poll_nack()
                .map(Offer::Nack)
                .or_else(|| lane.poll_ack(hold).map(Offer::Ack))
                .or_else(|| lane.poll_resync().map(Offer::Resync))
        })
    }

    fn fence(&self, epoch: u64) -> Result<(), PeerFault> {
        let is_current =
            epoch == self.epoch || cfg!(any(mutant = "no_fence", mutant = "old_epoch_accepted"));
        if is_current { Ok(()) } else { Err(PeerFault::Fenced) }
    }
}
