//! The sensor core with its spool: facts in, chunks on their way, what became of them.

use std::collections::VecDeque;
use std::time::Instant;

use lapwing_protocol::delivery::JumpCause;
use lapwing_protocol::element::Fact;
use lapwing_protocol::hello::{LogCause, Memory};
use lapwing_protocol::id::{BootId, Lane, LogId};
use lapwing_protocol::limits::LANES;
use lapwing_protocol::op::DropReason;
use lapwing_sensor_core::{
    Config, Hole, Installation, Intake, LogPositions, Now, Position, Sensor, Storage, Stored,
};
use lapwing_sensor_os::spool::{SpoolError, Trimmed};

use super::Tally;
use crate::load::spool::{Owner, Spool, core_hole};

/// How often a fact is handed in: each attempt spools all that the core made.
const INTAKE_ATTEMPTS: usize = 4;

/// A chunk that is not acknowledged.
#[derive(Clone, Copy, Debug)]
struct Made {
    seq: u64,
    bytes: u64,
    sent: Option<Instant>,
}

/// The chunks of the current logs that are not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Flights {
    lanes: [VecDeque<Made>; LANES],
    unacked_bytes: u64,
    resent: u64,
    first_sent: Option<Instant>,
}

impl Flights {
    fn made(&mut self, lane: Lane, seq: u64, bytes: u64) {
        self.unacked_bytes += bytes;
        self.lanes[lane.index()].push_back(Made { seq, bytes, sent: None });
    }

    /// A chunk went to the connection.
    pub(super) fn sent(&mut self, lane: Lane, seq: u64) {
        let now = Instant::now();
        self.first_sent.get_or_insert(now);
        let flights = &mut self.lanes[lane.index()];
        let at = flights.binary_search_by_key(&seq, |made| made.seq);
        if let Some(made) = at.ok().and_then(|at| flights.get_mut(at)) {
            match made.sent {
                None => made.sent = Some(now),
                Some(_) => self.resent += 1,
            }
        }
    }

    fn acked(&mut self, lane: Lane, seq: u64, latencies: &mut Vec<u32>) {
        let now = Instant::now();
        let flights = &mut self.lanes[lane.index()];
        while let Some(made) = flights.pop_front_if(|made| made.seq <= seq) {
            self.unacked_bytes -= made.bytes;
            if let Some(sent) = made.sent {
                let took = now.saturating_duration_since(sent).as_micros();
                latencies.push(u32::try_from(took).unwrap_or(u32::MAX));
            }
        }
    }

    fn forget(&mut self, lane: Lane) {
        for made in self.lanes[lane.index()].drain(..) {
            self.unacked_bytes -= made.bytes;
        }
    }
}

/// A sensor core and what belongs to it.
pub(super) struct Core<'m> {
    pub(super) sensor: Sensor<'m>,
    pub(super) spool: Spool,
    pub(super) flights: Flights,
    pub(super) tally: Tally,
    /// Facts of logs that were given up before a server had them.
    given_up: u64,
    /// Facts of logs that went before the current ones.
    before: u64,
    /// By lane: the first fact of the current log whose acknowledgement was not told of.
    told_index: [u64; LANES],
    pub(super) trouble: Option<String>,
}

impl<'m> Core<'m> {
    /// A core over lent memory, with two new logs.
    pub(super) fn new(
        name: &'m str,
        owner: Owner,
        installation: Installation,
        mut spool: Spool,
        memory: Storage<'m>,
    ) -> Result<Self, String> {
        let random = || random_bytes().map_err(|error| error.to_string());
        let mut log = |lane| {
            let opened = spool.open_log(lane, LogId(random()?), (LogCause::First, None));
            opened.map_err(|error| error.to_string())
        };
        let logs = [log(Lane::Bulk)?, log(Lane::Urgent)?];
        let config = Config {
            deployment: owner.0,
            sensor: owner.1,
            boot: BootId(random()?),
            memory: Memory::Disk,
            agent: concat!("lapwing-load/", env!("CARGO_PKG_VERSION")),
            name,
            os: "corpus",
            installation,
            last_command: None,
            hash_key: random()?,
            seed: u64::from_le_bytes(random()?[..8].try_into().unwrap_or_default()),
        };
        let sensor = Sensor::new(config, memory, logs).map_err(|error| error.to_string())?;
        Ok(Self {
            sensor,
            spool,
            flights: Flights::default(),
            tally: Tally::default(),
            given_up: 0,
            before: 0,
            told_index: [1; LANES],
            trouble: None,
        })
    }

    /// Whether one more event may happen.
    pub(super) fn has_room(&self, bytes_max: u64) -> bool {
        self.flights.unacked_bytes < bytes_max
    }

    /// Whether a server has everything that was made.
    pub(super) fn is_all_acked(&self) -> bool {
        let stats = self.sensor.stats();
        Lane::BY_URGENCY.into_iter().all(|lane| {
            let log = self.sensor.positions(lane);
            let produced = stats.lanes[lane.index()].facts_produced;
            log.acked.seq == log.made.seq
                && produced + 1 == log.acked.next_index
                && self.spool.tail(lane).is_none()
        })
    }

    pub(super) fn count_traffic(&mut self, (up, down): (u64, u64)) {
        self.tally.traffic.0 += up;
        self.tally.traffic.1 += down;
    }

    /// Hands a fact to the core; what it has no room for yet is spooled first.
    pub(super) fn take(&mut self, now: Now, lane: Lane, fact: &Fact<'_>) {
        for _ in 0..INTAKE_ATTEMPTS {
            match self.sensor.handle_fact(now, lane, fact) {
                Ok(Intake::Recorded) => return,
                Ok(Intake::Unchanged) => {
                    self.tally.unchanged += 1;
                    return;
                }
                Ok(Intake::Dropped(_)) => {
                    self.tally.dropped += 1;
                    return;
                }
                Err(_) => self.spool_chunks(now),
            }
        }
        // The core has no room although everything it made was spooled or given up.
        self.given_up += 1;
    }

    /// Appends what the core made, until it makes nothing more.
    pub(super) fn spool_chunks(&mut self, now: Now) {
        loop {
            let mut trimmed = Vec::new();
            let Some(chunk) = self.sensor.poll_chunk(now) else { break };
            let (lane, seq) = (chunk.lane, chunk.seq);
            let made_seq = self.spool.made(lane).map_or(0, |made| made.seq);
            let (next_index, chain) = (chunk.next_index, chunk.chain_after);
            let after = Position { seq, next_index, chain };
            // What lies in a hole already is not appended.
            let result = match seq > made_seq {
                true => {
                    self.flights.made(lane, seq, chunk.bytes.len() as u64);
                    let piece = (lane, chunk.bytes, chunk.opens_segment);
                    self.spool.append(now.monotonic_ns, piece, after, &mut trimmed)
                }
                false => Ok(()),
            };
            self.tally.chunks += 1;
            for trimmed in trimmed {
                self.trimmed(now, &trimmed);
            }
            if let Err(error) = result {
                self.give_up_chunks(now, lane, &error);
            }
            self.sync_if_due(now);
            self.sensor.handle_spooled(now, lane, seq);
        }
    }

    /// What the spool dropped at its bound.
    fn trimmed(&mut self, now: Now, trimmed: &Trimmed) {
        self.sensor.handle_trimmed(trimmed.lane, trimmed.log, trimmed.first_seq);
        if let Some(hole) = &trimmed.hole {
            self.tally.dropped += trimmed.facts;
            self.sensor.handle_hole(now, trimmed.lane, core_hole(trimmed.log, hole));
        }
    }

    /// The chunk behind the last one that is spooled, and all that build upon it, become a hole.
    fn give_up_chunks(&mut self, now: Now, lane: Lane, error: &SpoolError) {
        self.trouble = Some(error.to_string());
        let reason = match error {
            SpoolError::Full => DropReason::SpoolFull,
            SpoolError::File { .. } | SpoolError::NoLog => DropReason::SpoolFailed,
        };
        let cause = JumpCause::Dropped(reason);
        let (Some(spooled), made) = (self.spool.made(lane), self.sensor.positions(lane).made)
        else {
            return;
        };
        let hole = Hole {
            log: self.sensor.positions(lane).log,
            from_seq: spooled.seq + 1,
            to_seq: made.seq,
            next_index: Some(made.next_index),
            chain: made.chain,
            cause,
        };
        self.sensor.handle_hole(now, lane, hole);
        // The core closes what was open: that is lost with the rest.
        let made = self.sensor.positions(lane).made;
        self.tally.dropped += made.next_index.saturating_sub(spooled.next_index);
        self.spool.skip(lane, made, cause);
    }

    pub(super) fn sync_if_due(&mut self, now: Now) {
        if let Err(error) = self.spool.sync_if_due(now.monotonic_ns) {
            self.trouble = Some(error.to_string());
        }
    }

    /// A server stored more of a current log; gives the number of facts that are news.
    pub(super) fn acked(&mut self, lane: Lane, acked: Position) -> u64 {
        self.tally.last_acked = Some(Instant::now());
        self.flights.acked(lane, acked.seq, &mut self.tally.ack_us);
        let told = &mut self.told_index[lane.index()];
        let news = acked.next_index.saturating_sub(*told);
        *told = acked.next_index.max(*told);
        news
    }

    /// The current log of a lane is given up for a new one.
    pub(super) fn opened(&mut self, lane: Lane, log: LogPositions) {
        let old = self.sensor.positions(lane);
        let produced = self.sensor.stats().lanes[lane.index()].facts_produced;
        self.given_up += (produced + 1).saturating_sub(old.acked.next_index);
        self.before += produced;
        self.told_index[lane.index()] = 1;
        self.flights.forget(lane);
        self.sensor.handle_open_log(lane, log);
    }

    /// Tells the core of the oldest log that has something to send.
    pub(super) fn next_tail(&mut self, now: Now, lane: Lane) {
        let Some(tail) = self.spool.tail(lane) else { return };
        self.sensor.handle_tail(lane, Some(tail));
        let (ranges, holes) = self.spool.memories((lane, tail.log));
        for range in ranges {
            self.sensor.note_stored(lane, Stored { log: tail.log, range });
        }
        for hole in holes {
            self.sensor.handle_hole(now, lane, hole);
        }
    }

    /// What was counted up to now.
    pub(super) fn tally(&mut self) -> Tally {
        let stats = self.sensor.stats();
        let mut tally = std::mem::take(&mut self.tally);
        tally.produced = self.before;
        tally.acked = self.before.saturating_sub(self.given_up);
        for lane in Lane::BY_URGENCY {
            tally.produced += stats.lanes[lane.index()].facts_produced;
            tally.acked += self.sensor.positions(lane).acked.next_index - 1;
        }
        tally.resent = self.flights.resent;
        tally.first_sent = self.flights.first_sent;
        tally
    }
}

/// Sixteen random bytes.
pub(super) fn random_bytes() -> std::io::Result<[u8; 16]> {
    use std::io::Read as _;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
