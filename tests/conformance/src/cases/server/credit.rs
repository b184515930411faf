//! Credit: how far a sensor may send, and which lane is served first.
//!
//! Not here: what an overloaded server does (`overload.rs`).

use super::case;
use super::context::Context;
use super::steps::store;
use crate::cases::{Case, Checked, Stop, ensure, equal};
use crate::play::link::{Got, Link, PATIENCE};
use crate::play::log::{Log, base};
use crate::play::sensor::{acked, grant};
use crate::play::wait;
use crate::wire::chunk::{CHUNK_BYTES_MAX, Chunk, SELF_CONTAINED};
use crate::wire::frame::Frame;
use crate::wire::message::{Ack, Credit, Lane, Message, Nack, NackReason};
use crate::wire::model::{DNS, FINDING};
use crate::wire::op::Value;
use crate::wire::primitive::Wire as _;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "credit_begins_anew_with_each_session",
        &["DLV-007"],
        "What an earlier session sent takes nothing of the bytes that the next one is granted.",
        credit_begins_anew,
    ),
    case(
        "credit_is_exact",
        &["DLV-007", "DLV-009"],
        "The last chunk within the credit is taken, the next is BeyondCredit and not stored.",
        credit_is_exact,
    ),
    case(
        "credit_of_bytes_is_exact",
        &["DLV-007", "DLV-009"],
        "So it is where the credit ends by its bytes, with every byte of the chunks counted.",
        credit_of_bytes_is_exact,
    ),
    case(
        "credit_never_shrinks",
        &["DLV-008", "DLV-007", "DLV-005"],
        "Over hundreds of chunks the limits only grow, and neither runs dry for ever.",
        credit_never_shrinks,
    ),
    case(
        "the_urgent_lane_always_has_credit",
        &["DLV-008", "DLV-007", "LOG-001"],
        "With nothing in flight the urgent lane has credit for one largest chunk, after hundreds.",
        the_urgent_lane_always_has_credit,
    ),
    case(
        "the_urgent_lane_is_served_first",
        &["DLV-013", "DLV-008", "LOG-001", "LOG-020"],
        "Amid bulk chunks an urgent one is acknowledged before any bulk chunk that came behind it.",
        the_urgent_lane_is_served_first,
    ),
];

/// A chunk of no facts: as small as a chunk can be.
fn empty(log: &mut Log) -> Chunk {
    let chunk = log.next(0, 0, Vec::new());
    log.push(&chunk)
}

/// A chunk nearly as large as one may be, of four facts that decode.
pub(super) fn filled(log: &mut Log) -> Chunk {
    let (mut ops, time) = (log.opened(), base(log.next_seq()));
    let text = Value::text(&"x".repeat(4_000));
    for _ in 0..4 {
        match log.lane {
            Lane::Bulk => ops.event(DNS, time, &vec![(3, text.clone())]),
            Lane::Urgent => ops.event(FINDING, time, &vec![(3, Value::U64(26)), (5, text.clone())]),
        }
    }
    let chunk = log.next(SELF_CONTAINED, 4, ops.body());
    log.push(&chunk)
}

/// Chunks from sequence 1 on, and how many bytes of credit each with those before it takes.
struct Run {
    chunks: Vec<Chunk>,
    bytes: Vec<u64>,
}

impl Run {
    fn new(chunks: Vec<Chunk>) -> Self {
        let mut sum = 0;
        let sizes = chunks.iter().map(|chunk| chunk.to_bytes().len() as u64);
        let bytes = sizes.map(|size| {
            sum += size;
            sum
        });
        Self { bytes: bytes.collect(), chunks }
    }

    /// Whether the chunk of that sequence may be sent.
    fn fits(&self, credit: &Credit, seq: u64) -> bool {
        let at = usize::try_from(seq).unwrap_or(usize::MAX);
        let bytes = at.checked_sub(1).and_then(|at| self.bytes.get(at)).copied().unwrap_or(0);
        seq <= credit.limit_seq && bytes <= credit.limit_bytes
    }

    fn last_seq(&self) -> u64 {
        self.chunks.len() as u64
    }

    fn frames(&self) -> Vec<u8> {
        let frame = |chunk: &Chunk| Message::from(chunk.clone()).frame().to_bytes();
        self.chunks.iter().flat_map(frame).collect()
    }
}

/// Sends the whole run in one piece, so that a server can hardly raise the credit in between;
/// nothing beyond what was told is acknowledged. The refusal, where one came.
fn overrun(link: &mut Link, run: &Run, told: &mut Credit) -> Result<Option<Nack>, Stop> {
    link.send_bytes(&run.frames());
    loop {
        let Got::Frame(frame) = link.next(PATIENCE) else {
            return Err(Stop::Fail("DLV-007: neither an Ack nor a Nack came".into()));
        };
        match Message::decode(&frame).map_err(|error| error.to_string())? {
            Some(Message::Ack(Ack { stored_seq, credit, .. })) => {
                ensure!(
                    run.fits(told, stored_seq),
                    "DLV-007: {stored_seq} is acknowledged, and the credit was {told:?}"
                );
                *told = credit;
                if stored_seq == run.last_seq() {
                    return Ok(None);
                }
            }
            Some(Message::Nack(nack)) => {
                equal!(nack.reason, NackReason::BeyondCredit, "DLV-009: the reason");
                let is_first = run.fits(told, nack.next_seq - 1) && !run.fits(told, nack.next_seq);
                ensure!(
                    is_first,
                    "DLV-007: {} is refused, and the credit was {told:?}",
                    nack.next_seq
                );
                return Ok(Some(nack));
            }
            other => ensure!(false, "DLV-007: {other:?} came"),
        }
    }
}

/// What was refused is not stored, and is taken one by one.
fn rest_is_taken(link: &mut Link, lane: Lane, run: &Run, refusal: &Nack) -> Checked {
    if refusal.next_seq > 1 {
        acked(link, lane, refusal.next_seq - 1)?;
    }
    for chunk in run.chunks.iter().filter(|chunk| chunk.seq >= refusal.next_seq) {
        let ack = store(link, std::slice::from_ref(chunk))?;
        equal!(ack.stored_seq, chunk.seq, "DLV-009: what was refused is taken again");
    }
    Ok(())
}

fn credit_is_exact(cx: &mut Context<'_>) -> Checked {
    let (_sensor, mut log, mut link, ack) = cx.bulk()?;
    let mut told = grant(&ack, Lane::Bulk)?.credit.clone();
    let mut chunks = vec![log.fact()];
    while log.next_seq() <= told.limit_seq + 40 && chunks.len() < 2_000 {
        chunks.push(empty(&mut log));
    }
    let run = Run::new(chunks);
    match overrun(&mut link, &run, &mut told)? {
        Some(refusal) => rest_is_taken(&mut link, Lane::Bulk, &run, &refusal),
        None => {
            cx.weak("the server raised the credit faster than it could be used up");
            Ok(())
        }
    }
}

fn credit_begins_anew(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log) = cx.sensor_with(Lane::Urgent)?;
    let (mut link, _) = cx.session(&sensor, &[&log])?;
    let first: Vec<Chunk> = (0..3).map(|_| filled(&mut log)).collect();
    log.acked = store(&mut link, &first)?.stored_seq;
    link.cut();
    let (mut link, ack) = cx.session(&sensor, &[&log])?;
    let granted = grant(&ack, Lane::Urgent)?.credit.clone();
    let size = |chunk: &Chunk| chunk.to_bytes().len() as u64;
    let (mut bytes, mut frames) = (0, Vec::new());
    while bytes + size(&first[0]) + 64 <= granted.limit_bytes && log.next_seq() <= granted.limit_seq
    {
        let chunk = filled(&mut log);
        bytes += size(&chunk);
        frames.extend(Message::from(chunk).frame().to_bytes());
    }
    ensure!(!frames.is_empty(), "DLV-007: no room for one chunk is granted: {granted:?}");
    link.send_bytes(&frames);
    // A Nack would come before this Ack.
    acked(&mut link, Lane::Urgent, log.next_seq() - 1)?;
    Ok(())
}

/// Tries before it is believed that a server raises its credit faster than it can be used up.
pub(super) const TRIES: usize = 5;

fn credit_of_bytes_is_exact(cx: &mut Context<'_>) -> Checked {
    for _ in 0..TRIES {
        // The urgent lane's credit is the smaller one: it can be overrun in one piece.
        let (sensor, mut log) = cx.sensor_with(Lane::Urgent)?;
        let (mut link, ack) = cx.session(&sensor, &[&log])?;
        let mut told = grant(&ack, Lane::Urgent)?.credit.clone();
        let (mut chunks, mut bytes) = (vec![log.fact()], 0);
        while bytes <= told.limit_bytes + 6 * CHUNK_BYTES_MAX as u64 && chunks.len() < 400 {
            let chunk = filled(&mut log);
            bytes += chunk.to_bytes().len() as u64;
            chunks.push(chunk);
        }
        let run = Run::new(chunks);
        if let Some(refusal) = overrun(&mut link, &run, &mut told)? {
            return rest_is_taken(&mut link, Lane::Urgent, &run, &refusal);
        }
    }
    cx.weak("the server raised the credit faster than it could be used up");
    Ok(())
}

/// Follows the credit of one lane: it only grows.
fn grows(credit: &mut Credit, now: &Credit) -> Checked {
    ensure!(
        now.limit_seq >= credit.limit_seq && now.limit_bytes >= credit.limit_bytes,
        "DLV-008: credit went from {credit:?} to {now:?}"
    );
    *credit = now.clone();
    Ok(())
}

pub(super) fn is_answer(message: &Message) -> Option<Message> {
    matches!(message, Message::Ack(_) | Message::Nack(_)).then(|| message.clone())
}

fn credit_never_shrinks(cx: &mut Context<'_>) -> Checked {
    let (_sensor, mut log, mut link, ack) = cx.bulk()?;
    let granted = grant(&ack, Lane::Bulk)?;
    let (mut credit, mut bytes, mut stored) = (granted.credit.clone(), 0u64, 0u64);
    let mut repeats = 0;
    while stored < 600 {
        let chunk = log.fact_of(if log.next_seq() % 3 == 0 { 12_000 } else { 100 });
        let size = chunk.to_bytes().len() as u64;
        let fits = chunk.seq <= credit.limit_seq && bytes + size <= credit.limit_bytes;
        if log.next_seq() <= 600 && fits {
            bytes += size;
            link.send(log.push(&chunk));
            continue;
        }
        match link.wait_for("an Ack that raises the credit, or of the end", is_answer)? {
            Message::Ack(ack) => {
                grows(&mut credit, &ack.credit)?;
                stored = ack.stored_seq;
            }
            Message::Nack(nack) if nack.reason == NackReason::Throttled => {
                // Overload is no fault: back, and again.
                ensure!(repeats < 50, "DLV-009: nothing is taken after fifty Nacks");
                repeats += 1;
                wait::pause(nack.retry_after_ms);
                again(&mut link, &log, nack.next_seq);
            }
            other => ensure!(false, "DLV-007: within its credit a sensor is refused: {other:?}"),
        }
    }
    Ok(())
}

/// Sends again from `seq` on.
fn again(link: &mut Link, log: &Log, seq: u64) {
    let from = usize::try_from(seq - 1).unwrap_or(0);
    for body in log.chunks.iter().skip(from) {
        link.send_frame(&Frame::new(3, body.clone()));
    }
}

fn the_urgent_lane_always_has_credit(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log) = cx.sensor_with(Lane::Urgent)?;
    let (mut link, ack) = cx.session(&sensor, &[&log])?;
    let (mut credit, mut bytes) = (grant(&ack, Lane::Urgent)?.credit.clone(), 0);
    for round in 0..40 {
        // Eight small ones, or a large one: both bounds are passed many times over.
        let chunks: Vec<Chunk> = match round % 4 {
            0 => vec![filled(&mut log)],
            _ => (0..8).map(|_| log.fact()).collect(),
        };
        bytes += chunks.iter().map(|chunk| chunk.to_bytes().len() as u64).sum::<u64>();
        let ack = store(&mut link, &chunks)?;
        grows(&mut credit, &ack.credit)?;
        ensure!(
            credit.limit_seq > ack.stored_seq
                && credit.limit_bytes >= bytes + CHUNK_BYTES_MAX as u64,
            "DLV-008: {} chunks, {bytes} bytes, nothing in flight, and the credit is {credit:?}",
            ack.stored_seq
        );
    }
    Ok(())
}

fn the_urgent_lane_is_served_first(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut bulk) = cx.sensor_with(Lane::Bulk)?;
    let mut urgent = sensor.log(Lane::Urgent, cx.id());
    let (mut link, ack) = cx.session(&sensor, &[&bulk, &urgent])?;
    let (mut credit, mut bytes) = (grant(&ack, Lane::Bulk)?.credit.clone(), 0);
    // For each urgent chunk the last bulk chunk that was sent before it.
    let mut sent_behind = Vec::new();
    let (mut bulk_stored, mut urgent_stored) = (0, 0);
    while bulk_stored < 400 {
        let chunk = bulk.fact_of(3_000);
        let size = chunk.to_bytes().len() as u64;
        let fits = chunk.seq <= credit.limit_seq && bytes + size <= credit.limit_bytes;
        if bulk.next_seq() <= 400 && fits {
            if bulk.next_seq() % 16 == 0 {
                sent_behind.push(chunk.seq - 1);
                link.send(urgent.fact());
            }
            bytes += size;
            link.send(bulk.push(&chunk));
            continue;
        }
        match link.wait_for("Acks of both lanes", is_answer)? {
            Message::Ack(ack) if ack.lane == Lane::Urgent => urgent_stored = ack.stored_seq,
            Message::Ack(ack) => {
                (bulk_stored, credit) = (ack.stored_seq, ack.credit);
                let at = usize::try_from(urgent_stored).unwrap_or(0);
                let next = sent_behind.get(at).copied().unwrap_or(u64::MAX);
                ensure!(
                    bulk_stored <= next,
                    "DLV-013: bulk {bulk_stored} is acknowledged, and an urgent chunk that came \
                     behind {next} is not"
                );
            }
            Message::Nack(nack) if nack.reason == NackReason::Throttled => {
                wait::pause(nack.retry_after_ms);
                again(&mut link, &bulk, nack.next_seq);
            }
            other => ensure!(false, "DLV-007: within its credit a sensor is refused: {other:?}"),
        }
    }
    let last = urgent.next_seq() - 1;
    if urgent_stored < last {
        acked(&mut link, Lane::Urgent, last)?;
    }
    Ok(())
}
