//! A shell in memory: it spools, fetches and locates as a real one does, all at once.

use std::collections::BTreeMap;

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::delivery::JumpCause;
use lapwing_protocol::digest::Chain;
use lapwing_protocol::element::Fact;
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::op::DropReason;
use lapwing_sensor_core::*;

use super::peer::Peer;
use super::{DEPLOYMENT, SENSOR, reader::Reader};

/// A chunk in the spool.
#[derive(Clone, Debug)]
pub(crate) struct Spooled {
    pub(crate) bytes: Vec<u8>,
    pub(crate) opens: bool,
    pub(crate) behind: Position,
}

#[derive(Default)]
pub(crate) struct Shell {
    pub(crate) spool: BTreeMap<(Lane, LogId), BTreeMap<u64, Spooled>>,
    pub(crate) made: BTreeMap<(Lane, LogId), Position>,
    /// The chain before each chunk that opens.
    pub(crate) before: BTreeMap<(Lane, LogId, u64), Chain>,
    pub(crate) seen: Vec<String>,
    pub(crate) closed: Vec<CloseReason>,
    pub(crate) fetched: usize,
    pub(crate) logs_opened: u8,
    /// Old logs that are still to be sent, by lane.
    pub(crate) tails: BTreeMap<Lane, Vec<LogPositions>>,
}

impl Shell {
    /// Hands in a fact, draining as often as it takes.
    pub(crate) fn fact(
        &mut self,
        sensor: &mut Sensor<'_>,
        now: Now,
        lane: Lane,
        fact: &Fact<'_>,
    ) -> Intake {
        loop {
            match sensor.handle_fact(now, lane, fact) {
                Ok(intake) => {
                    self.spool(sensor, now);
                    return intake;
                }
                Err(IntakeError::Undrained) => {
                    assert!(self.spool(sensor, now) > 0, "nothing to drain");
                }
            }
        }
    }

    /// Takes chunks into the spool and tells how many.
    pub(crate) fn spool(&mut self, sensor: &mut Sensor<'_>, now: Now) -> usize {
        let mut count = 0;
        while let Some(chunk) = sensor.poll_chunk(now) {
            let Spool { lane, log, seq, next_index, .. } = chunk;
            let spooled = Spooled {
                bytes: chunk.bytes.to_vec(),
                opens: chunk.opens_segment,
                behind: Position { seq, next_index, chain: chunk.chain_after },
            };
            let made = match self.made.insert((lane, log), spooled.behind) {
                Some(made) => {
                    assert_eq!(seq, made.seq + 1, "in order");
                    made
                }
                // The first of this life: of a log that an earlier one wrote, or of a new one.
                None => self.last(lane, log).unwrap_or(super::log(lane, log).made),
            };
            if spooled.opens {
                self.before.insert((lane, log, seq), made.chain);
            }
            let log = self.spool.entry((lane, log)).or_default();
            log.insert(seq, spooled);
            sensor.handle_spooled(now, lane, seq);
            count += 1;
        }
        count
    }

    /// The place behind the last chunk that is held.
    pub(crate) fn last(&self, lane: Lane, log: LogId) -> Option<Position> {
        Some(self.spool.get(&(lane, log))?.last_key_value()?.1.behind)
    }

    /// Drops the chunks of a log before `first_seq`, and tells the sensor.
    pub(crate) fn trim(&mut self, sensor: &mut Sensor<'_>, key: (Lane, LogId), first_seq: u64) {
        let chunks = self.spool.entry(key).or_default();
        *chunks = chunks.split_off(&first_seq);
        assert!(chunks.first_key_value().is_none_or(|(_, chunk)| chunk.opens), "a whole segment");
        sensor.handle_trimmed(key.0, key.1, first_seq);
    }

    /// Drops the chunks of a run, as a spool at its bound does, and tells the sensor.
    pub(crate) fn drop_run(
        &mut self,
        sensor: &mut Sensor<'_>,
        now: Now,
        key: (Lane, LogId),
        seqs: std::ops::RangeInclusive<u64>,
    ) -> Hole {
        let chunks = self.spool.entry(key).or_default();
        let Position { seq: to_seq, next_index, chain } = chunks[seqs.end()].behind;
        let (log, from_seq, next_index) = (key.1, *seqs.start(), Some(next_index));
        let cause = JumpCause::Dropped(DropReason::SpoolFull);
        let hole = Hole { log, from_seq, to_seq, next_index, chain, cause };
        chunks.retain(|seq, _| !seqs.contains(seq));
        sensor.handle_hole(now, key.0, hole);
        hole
    }

    /// Drains everything once around; `true` when anything happened.
    pub(crate) fn drain(&mut self, sensor: &mut Sensor<'_>, now: Now, peer: &mut Peer) -> bool {
        let mut is_busy = false;
        let mut buffer = vec![0; 20_000];
        loop {
            let spooled = self.spool(sensor, now);
            let mut events = 0;
            while self.event(sensor, now, peer) {
                events += 1;
                self.spool(sensor, now);
            }
            let length = sensor.poll_transmit(now, &mut buffer).expect("room for a frame");
            peer.handle(&buffer[..length]);
            if spooled + events + length == 0 && sensor.poll_timeout() != Some(0) {
                break;
            }
            is_busy = true;
        }
        let answer = std::mem::take(&mut peer.output);
        if !answer.is_empty() {
            is_busy = true;
            self.input(sensor, now, &answer);
        }
        is_busy
    }

    /// Does one thing: an event, or a frame and the answer to it. `false` when there is nothing.
    pub(crate) fn step(&mut self, sensor: &mut Sensor<'_>, now: Now, peer: &mut Peer) -> bool {
        self.spool(sensor, now);
        if self.event(sensor, now, peer) {
            return true;
        }
        let mut buffer = vec![0; 20_000];
        let length = sensor.poll_transmit(now, &mut buffer).expect("room for a frame");
        peer.handle(&buffer[..length]);
        let answer = std::mem::take(&mut peer.output);
        self.input(sensor, now, &answer);
        length > 0 || sensor.poll_timeout() == Some(0)
    }

    pub(crate) fn input(&mut self, sensor: &mut Sensor<'_>, now: Now, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = sensor.handle_input(now, bytes);
            bytes = &bytes[taken..];
            let mut peer = Peer::new(0);
            while self.event(sensor, now, &mut peer) {}
        }
    }

    /// Drains until all is quiet.
    pub(crate) fn settle(&mut self, sensor: &mut Sensor<'_>, now: Now, peer: &mut Peer) {
        for _ in 0..2_000 {
            if !self.drain(sensor, now, peer) {
                return;
            }
        }
        panic!("it never becomes quiet: {:?}", &self.seen[self.seen.len() - 10..]);
    }

    fn event(&mut self, sensor: &mut Sensor<'_>, now: Now, peer: &mut Peer) -> bool {
        let Some(event) = sensor.poll_event(now) else { return false };
        self.seen.push(format!("{event:?}"));
        match event {
            Event::DialDetection(_) => {
                peer.connected();
                sensor.handle_connected(now);
            }
            Event::Close(reason) => {
                self.closed.push(reason);
                sensor.handle_disconnected(now);
            }
            Event::Fetch { lane, log, seq } => {
                self.fetched += 1;
                let bytes = self.spool[&(lane, log)][&seq].bytes.clone();
                sensor.handle_fetched(lane, seq, &bytes).expect("the chunk it asked for");
            }
            Event::Locate { lane, log, find } => {
                let found = self.locate(lane, log, find);
                sensor.handle_located(now, lane, found);
            }
            Event::OpenLog { lane, cause, parent } => {
                self.logs_opened += 1;
                let log = LogId([0x40 + self.logs_opened * 2 + lane as u8; 16]);
                let ids = (DEPLOYMENT, SENSOR);
                sensor
                    .handle_open_log(lane, LogPositions::open(ids, lane, log, cause, Some(parent)));
            }
            Event::LogDrained { lane, .. } => {
                let next = self.tails.get_mut(&lane).and_then(Vec::pop);
                sensor.handle_tail(lane, next);
            }
            Event::AcceptCommand(number) => sensor.handle_accepted(number),
            Event::AskRegistration { .. }
            | Event::Greeted { .. }
            | Event::Acked { .. }
            | Event::ExecuteCommand(_)
            | Event::Call { .. }
            | Event::Reply { .. } => {}
        }
        true
    }

    fn locate(&self, lane: Lane, log: LogId, find: Find) -> Option<Position> {
        let chunks = self.spool.get(&(lane, log))?;
        let behind = |seq: u64| match seq {
            0 => Some(super::log(lane, log).acked),
            seq => chunks.get(&seq).map(|chunk| chunk.behind),
        };
        match find {
            Find::Behind(seq) => behind(seq),
            Find::SegmentOf(seq) => {
                let mut openers = chunks.range(..=seq).rev().filter(|(_, chunk)| chunk.opens);
                let (start, first) = openers
                    .next()
                    .or_else(|| chunks.range(seq..).find(|(_, chunk)| chunk.opens))?;
                let opener = Chunk::decode(&first.bytes).ok()?.header;
                // The place before a segment stands in its file, whatever was trimmed before it.
                behind(start - 1).or_else(|| {
                    let next_index = opener.first_index;
                    self.before.get(&(lane, log, *start)).map(|chain| Position {
                        seq: start - 1,
                        next_index,
                        chain: *chain,
                    })
                })
            }
        }
    }

    /// Reads the spooled log from chunk `from` on.
    pub(crate) fn read(&self, lane: Lane, log: LogId, from: u64) -> Reader {
        let mut reader = Reader::new();
        let Some(chunks) = self.spool.get(&(lane, log)) else { return reader };
        for (seq, chunk) in chunks.range(from..) {
            if *seq == from {
                let header = Chunk::decode(&chunk.bytes).unwrap().header;
                reader.next_index = header.first_index;
            }
            reader.apply(log, &chunk.bytes);
        }
        reader
    }
}
