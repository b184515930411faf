//! A look at every frame of one connection, from outside of both ends.
//!
//! * nothing is acknowledged, by Ack or HelloAck, that is not durable;
//! * nothing is said to be safe that is in no backup, where backups are configured;
//! * credit never shrinks within a session, and no chunk goes beyond it;
//! * which row of the Hello decision table each Hello was.

use std::collections::BTreeMap;

use lapwing_protocol::delivery::{Credit, NackReason};
use lapwing_protocol::frame::{Deframer, Frame};
use lapwing_protocol::hello::{LogCause, LogGrant, LogVerdict, Memory};
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::message::{self, Message};

use super::{Connection, ServerMachine};
use crate::simulator::coverage::{Coverage, Reached};

/// What the sensor said of a log in its Hello.
#[derive(Clone, Copy, Debug)]
struct Said {
    first_seq: u64,
    acked_seq: u64,
    acked_chain: lapwing_protocol::digest::Chain,
    /// The journal holds something of it.
    is_stored: bool,
}

/// What a lane may send.
#[derive(Clone, Debug)]
struct Allowed {
    log: LogId,
    credit: Credit,
    /// Bytes of the chunks from the HelloAck's next sequence on, by sequence.
    bytes: BTreeMap<u64, u64>,
    next_seq: u64,
}

/// One connection, watched.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    said: BTreeMap<(Lane, LogId), Said>,
    allowed: BTreeMap<Lane, Allowed>,
}

impl Watch {
    /// A frame from the sensor.
    pub(super) fn look_up(&mut self, frame: &Frame<'_>) -> Option<String> {
        if frame.kind != message::CHUNK {
            return None;
        }
        let chunk = lapwing_protocol::chunk::Chunk::decode(frame.body).ok()?;
        let (lane, seq) = (chunk.header.flags.lane(), chunk.header.seq);
        let allowed = self.allowed.get_mut(&lane)?;
        if seq >= allowed.next_seq {
            allowed.bytes.insert(seq, frame.body.len() as u64);
        }
        let bytes: u64 = allowed.bytes.range(..=seq).map(|(_, bytes)| bytes).sum();
        let credit = allowed.credit;
        let is_beyond = seq > credit.limit_seq || bytes > credit.limit_bytes;
        is_beyond.then(|| format!("{lane:?} chunk {seq} ({bytes} bytes) is beyond {credit:?}"))
    }

    /// What an Ack says to be safe, and of which log.
    pub(super) fn safe_seq(&self, frame: &[u8]) -> Option<(Lane, LogId, u64)> {
        let mut buffer = [0; 128];
        if frame.len() > buffer.len() {
            return None;
        }
        let mut deframer = Deframer::new(&mut buffer);
        deframer.feed(frame);
        let frame = deframer.next_frame().ok()??;
        let Ok(Some(Message::Ack(ack))) = Message::decode(&frame) else { return None };
        let allowed = self.allowed.get(&ack.lane)?;
        Some((ack.lane, allowed.log, ack.safe_seq))
    }

    /// A frame to the sensor.
    pub(super) fn look_down(
        &mut self,
        frame: &[u8],
        coverage: &mut Coverage,
        durable: impl Fn(Lane, LogId) -> u64,
    ) -> Vec<String> {
        let mut buffer = vec![0; 16_640];
        let mut deframer = Deframer::new(&mut buffer);
        deframer.feed(frame);
        let Ok(Some(frame)) = deframer.next_frame() else { return Vec::new() };
        let mut broken = Vec::new();
        let mut check = |lane, log, acked_seq: u64| {
            let durable = durable(lane, log);
            if acked_seq > durable {
                broken.push(format!("{lane:?} {log}: {acked_seq} acknowledged, {durable} durable"));
            }
        };
        match Message::decode(&frame) {
            Ok(Some(Message::HelloAck(ack))) => {
                self.allowed.clear();
                for grant in &ack.logs {
                    check(grant.lane, grant.log, grant.next_seq - 1);
                    self.grant(grant, coverage);
                }
            }
            Ok(Some(Message::Ack(ack))) => {
                if let Some(allowed) = self.allowed.get_mut(&ack.lane) {
                    check(ack.lane, allowed.log, ack.stored_seq);
                    let (old, new) = (allowed.credit, ack.credit);
                    if new.limit_seq < old.limit_seq || new.limit_bytes < old.limit_bytes {
                        broken.push(format!("{:?}: credit shrinks to {new:?}", ack.lane));
                    }
                    if ack.safe_seq > ack.stored_seq {
                        broken.push(format!("{:?}: more is safe than stored", ack.lane));
                    }
                    allowed.credit = new;
                }
            }
            Ok(Some(Message::Nack(nack))) => match nack.reason {
                NackReason::BeyondCredit => {
                    broken.push(format!("{:?} was told that it went beyond its credit", nack.lane));
                }
                NackReason::Throttled => coverage.count(Reached::Throttle),
                // Nothing is lost on the way, so that a chunk out of order was sent so.
                NackReason::OutOfOrder => {
                    broken.push(format!("{:?} was told that it left a chunk out", nack.lane));
                }
                NackReason::StoreFailed => {}
            },
            Ok(Some(Message::Resync(_))) => coverage.count(Reached::Resync),
            _ => {}
        }
        broken
    }

    fn grant(&mut self, grant: &LogGrant, coverage: &mut Coverage) {
        let (log, credit, next_seq) = (grant.log, grant.credit, grant.next_seq);
        let bytes = BTreeMap::new();
        self.allowed.insert(grant.lane, Allowed { log, credit, bytes, next_seq });
        coverage.count(match grant.verdict {
            LogVerdict::Resume => Reached::VerdictResume,
            LogVerdict::New => Reached::VerdictNew,
            LogVerdict::SensorBehind => Reached::VerdictSensorBehind,
            LogVerdict::ServerBehind => Reached::VerdictServerBehind,
            LogVerdict::Forked => Reached::VerdictForked,
        });
        if let Some(said) = self.said.get(&(grant.lane, log)) {
            coverage.count(row(said, grant));
        }
    }
}

/// The row of the Hello decision table, from what was said and the answer.
fn row(said: &Said, grant: &LogGrant) -> Reached {
    let stored = grant.next_seq - 1;
    match grant.verdict {
        LogVerdict::SensorBehind => Reached::Hel023,
        LogVerdict::Forked => Reached::Hel024,
        LogVerdict::New | LogVerdict::ServerBehind if stored == 0 && said.is_stored => {
            Reached::Hel034
        }
        LogVerdict::New if said.acked_seq == 0 => Reached::Hel021,
        LogVerdict::New => Reached::Hel030,
        LogVerdict::ServerBehind if stored == 0 => Reached::Hel029,
        LogVerdict::ServerBehind if grant.next_seq < said.first_seq => Reached::Hel028,
        LogVerdict::ServerBehind => Reached::Hel027,
        LogVerdict::Resume if stored < said.acked_seq => Reached::Hel031,
        LogVerdict::Resume if stored > said.acked_seq => Reached::Hel022,
        LogVerdict::Resume if grant.chain != said.acked_chain => Reached::Hel024,
        LogVerdict::Resume => Reached::Hel020,
    }
}

impl ServerMachine {
    /// Remembers what a Hello says, to tell its row when it is answered.
    pub(super) fn note_hello(
        &mut self,
        connection: &mut Connection,
        frame: &Frame<'_>,
        coverage: &mut Coverage,
    ) {
        let Ok(Some(Message::Hello(hello))) = Message::decode(frame) else { return };
        connection.watch.said.clear();
        if hello.memory == Memory::RamOnly {
            coverage.count(Reached::Hel033);
        }
        for log in &hello.logs {
            let is_stored = self.has_log(connection.sensor, log.log);
            if log.cause == LogCause::Unclean && !is_stored {
                coverage.count(Reached::Hel032);
            }
            let said = Said {
                first_seq: log.first_seq,
                acked_seq: log.acked_seq,
                acked_chain: log.acked_chain,
                is_stored,
            };
            connection.watch.said.insert((log.lane, log.log), said);
        }
    }
}
