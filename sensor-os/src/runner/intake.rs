//! From collectors and the agent into the core, and back to the agent that its facts are stored.
//!
//! Invariants: a fact is taken or counted; whoever waits for a fact's storing hears of it, of its
//! dropping, or of the log's end, once.

use std::ops::Range;

use lapwing_protocol::code::Code;
use lapwing_protocol::element::{Change, Fact, Field, Value, finding};
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::op::DropReason;
use lapwing_sensor_core::{Intake, Now};

use super::Runner;
use super::limits::{DETAIL_BYTES_MAX, FACTS_AT_ONCE, LOSS_TOLD_MS};
use crate::agent::{OwnRequest, Stored};
use crate::collect::{CollectedFact, ScanMark};
use crate::sys::clock;

/// Whoever waits for the storing of a fact.
#[derive(Debug)]
pub(super) struct Receipt {
    log: LogId,
    index: u64,
    tell: smol::channel::Sender<Stored>,
}

impl Runner<'_> {
    /// Takes a fact of a collector and those that wait behind it.
    pub(super) fn take_collected(&mut self, now: Now, first: CollectedFact) {
        self.take_one(now, &first);
        for _ in 1..FACTS_AT_ONCE {
            let Ok(fact) = self.facts.try_recv() else { break };
            self.take_one(now, &fact);
        }
    }

    fn take_one(&mut self, now: Now, fact: &CollectedFact) {
        match fact.scan() {
            None => {
                fact.with_fact(|fact| self.take(now, Lane::Bulk, fact));
            }
            Some(ScanMark::Begin) => self.sensor.begin_scan(fact.kind),
            Some(ScanMark::End) => {
                for _ in 0..super::INTAKE_ATTEMPTS {
                    let ended = self.sensor.end_scan(now, fact.kind);
                    self.spool_chunks(now);
                    if ended.is_ok() {
                        break;
                    }
                }
            }
        }
    }

    /// Hands a fact to the core; what it has no room for yet is spooled first.
    fn take(&mut self, now: Now, lane: Lane, fact: &Fact<'_>) -> Option<Intake> {
        for _ in 0..super::INTAKE_ATTEMPTS {
            if let Ok(intake) = self.sensor.handle_fact(now, lane, fact) {
                return Some(intake);
            }
            self.spool_chunks(now);
        }
        // The core has no room although everything it made was spooled or given up.
        self.losses.facts += 1;
        self.losses.total += 1;
        None
    }

    /// Takes a fact of the agent's own.
    pub(super) fn take_own(&mut self, now: Now, request: &OwnRequest) {
        let intake =
            request.fact.with_fact(now.monotonic_ns, |fact| self.take(now, Lane::Bulk, fact));
        let log = self.sensor.positions(Lane::Bulk).log;
        // Indices count from 1, so the number of facts is the index of the last one.
        let index = self.sensor.stats().lanes[Lane::Bulk.index()].facts_produced;
        match intake {
            Some(Intake::Recorded) => {
                self.receipts.push(Receipt { log, index, tell: request.tell.clone() });
            }
            Some(Intake::Unchanged) => tell(&request.tell, Stored::Unchanged),
            Some(Intake::Dropped(reason)) => tell(&request.tell, Stored::Dropped(reason)),
            None => tell(&request.tell, Stored::Lost),
        }
    }

    /// A server stored every fact of a log below `next_index`.
    pub(super) fn resolve_receipts(&mut self, lane: Lane, log: LogId, next_index: u64) {
        if lane == Lane::Bulk {
            self.receipts.retain(|receipt| {
                let is_stored = receipt.log == log && receipt.index < next_index;
                if is_stored {
                    tell(&receipt.tell, Stored::Stored);
                }
                !is_stored
            });
        }
    }

    /// Facts of a log, by their indices, were dropped.
    pub(super) fn drop_receipts(&mut self, log: LogId, indices: Range<u64>, reason: DropReason) {
        self.receipts.retain(|receipt| {
            let is_dropped = receipt.log == log && indices.contains(&receipt.index);
            if is_dropped {
                tell(&receipt.tell, Stored::Dropped(reason));
            }
            !is_dropped
        });
    }

    /// The log that was written to is given up.
    pub(super) fn lose_receipts(&mut self, lane: Lane) {
        if lane == Lane::Bulk {
            for receipt in self.receipts.drain(..) {
                tell(&receipt.tell, Stored::Lost);
            }
        }
    }

    /// Tells of facts that were lost, once the spool takes chunks again, and not too often.
    pub(super) fn tell_losses(&mut self, now: Now) {
        let dropped = self.sensor.stats().dropped_memory_full;
        if dropped > self.losses.memory_told {
            self.losses.facts += dropped - self.losses.memory_told;
            self.losses.memory_told = dropped;
            self.losses.reason =
                "memory is full; raise `spool.memory_max` or reach the server".into();
        }
        let is_early = self.losses.told_ns.is_some_and(|told| !now.is_past(told, LOSS_TOLD_MS));
        if self.losses.facts == 0 || self.losses.is_failing || is_early {
            return;
        }
        let facts = std::mem::take(&mut self.losses.facts);
        self.losses.told_ns = Some(now.monotonic_ns);
        let reason = self.losses.reason.clone();
        let end = reason.floor_char_boundary(reason.len().min(DETAIL_BYTES_MAX));
        let fields = [
            Field::new(finding::code, Value::U64(u64::from(Code::FACTS_LOST.0))),
            Field::new(finding::component, Value::text("spool")),
            Field::new(finding::detail, Value::text(&reason[..end])),
            Field::new(finding::lost, Value::U64(facts)),
        ];
        self.take(now, Lane::Urgent, &event(finding::KIND, &fields));
    }
}

fn event<'a>(kind: lapwing_protocol::element::Kind, fields: &'a [Field<'a>]) -> Fact<'a> {
    Fact { kind, change: Change::Event, time_ns: clock::boottime_ns(), fields }
}

fn tell(to: &smol::channel::Sender<Stored>, stored: Stored) {
    // Whoever does not wait any more has let go of the other end.
    let _ = to.try_send(stored);
}
