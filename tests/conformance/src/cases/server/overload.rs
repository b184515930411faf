//! What an overloaded server does: it refuses chunks and Jumps of the bulk lane, and takes those of
//! the urgent one.
//!
//! The server is started anew with as little room as may be for what is on its way to the disk, and
//! a crowd of sensors sends all that it may at once. Alone, since it is killed.

use super::context::Context;
use super::credit::{TRIES, filled, is_answer};
use super::{case, in_phase};
use crate::cases::{Case, Checked, Phase, Stop, ensure, equal};
use crate::play::link::{Link, PATIENCE};
use crate::play::log::Log;
use crate::play::sensor::{Sensor, acked, grant};
use crate::play::wait;
use crate::wire::frame::Frame;
use crate::wire::message::{DropReason, JumpCause, Lane, LogGrant, Message, Nack, NackReason};
use crate::wire::primitive::Wire as _;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[in_phase(
    case(
        "what_is_throttled_is_not_stored",
        &["DLV-009", "DLV-008", "DLV-007", "DLV-013"],
        "Of a chunk or Jump that an overloaded server refuses nothing is stored; sent again after \
         the time that was said, it is taken. The urgent lane is not refused meanwhile.",
        what_is_throttled_is_not_stored,
    ),
    Phase::Alone,
)];

/// Sensors that send at once, where it is not said how many the server takes.
const CROWD: usize = 16;
/// Sensors that send at once at the most.
const CROWD_MAX: usize = 24;
/// Of so many of the crowd one sends Jumps alone.
const JUMPERS: usize = 3;
/// Frames of the bulk lane that each sends at the most, behind every so many an urgent chunk.
const FRAMES_MAX: u64 = 64;
const URGENT_EACH: usize = 4;
/// Refusals of each sort that are looked at; who was refused besides goes away and makes room.
const REFUSALS: usize = 2;

/// A sensor of the crowd, and all that its credit allows.
struct Sender {
    sensor: Sensor,
    link: Link,
    bulk: Log,
    /// What it sends in the bulk lane: one frame a sequence, from 1 on.
    frames: Vec<Frame>,
    urgent: Log,
    is_jumper: bool,
    /// The highest sequence of the bulk lane that was acknowledged.
    stored: u64,
}

/// Chunks for all of a credit.
fn chunks(log: &mut Log, granted: &LogGrant) -> Vec<Frame> {
    let (mut frames, mut bytes) = (Vec::new(), 0);
    loop {
        let mut ahead = log.clone();
        let chunk = filled(&mut ahead);
        bytes += chunk.to_bytes().len() as u64;
        let fits = bytes <= granted.credit.limit_bytes && chunk.seq <= granted.credit.limit_seq;
        if !fits || chunk.seq > FRAMES_MAX {
            return frames;
        }
        *log = ahead;
        frames.push(Message::from(chunk).frame());
    }
}

/// A crowd of sensors, each with a chunk or Jump for each place of its bulk lane.
fn crowd(cx: &mut Context<'_>) -> Result<Vec<Sender>, Stop> {
    let count = cx.target.capacity.map_or(CROWD, |capacity| capacity.min(CROWD_MAX));
    let mut senders = Vec::new();
    for number in 0..count {
        // Who was there before may still be leaving.
        let joined = wait::attempt(PATIENCE, || {
            let (sensor, bulk) = cx.sensor_with(Lane::Bulk).ok()?;
            let urgent = sensor.log(Lane::Urgent, cx.id());
            let (link, ack) = cx.session(&sensor, &[&bulk, &urgent]).ok()?;
            Some((sensor, bulk, urgent, link, ack))
        });
        let (sensor, mut bulk, urgent, link, ack) = joined.ok_or("DLV-018: there is no room")?;
        let is_jumper = number % JUMPERS == 0;
        let frames = if is_jumper {
            let jumps = (0..FRAMES_MAX).map(|_| {
                Message::from(bulk.jump(1, 1, JumpCause::Dropped(DropReason::SpoolFull))).frame()
            });
            jumps.collect()
        } else {
            chunks(&mut bulk, grant(&ack, Lane::Bulk)?)
        };
        senders.push(Sender { sensor, link, bulk, frames, urgent, is_jumper, stored: 0 });
    }
    Ok(senders)
}

impl Sender {
    /// Sends everything at once: the refusal of the bulk lane, if one came before all was
    /// acknowledged. The urgent lane is taken whatever becomes of the bulk lane.
    fn send(&mut self) -> Result<Option<Nack>, String> {
        let mut bytes = Vec::new();
        for (frame, number) in self.frames.iter().zip(1..) {
            bytes.extend(frame.to_bytes());
            if number % URGENT_EACH == 0 {
                bytes.extend(Message::from(self.urgent.fact()).frame().to_bytes());
            }
        }
        self.link.send_bytes(&bytes);
        let (last, last_urgent) = (self.frames.len() as u64, self.urgent.next_seq() - 1);
        let (mut refusal, mut urgent) = (None, 0);
        while urgent < last_urgent || refusal.is_none() && self.stored < last {
            let what = "Acks of both lanes, or a Nack of the bulk lane";
            match self.link.wait_for(what, is_answer)? {
                Message::Nack(nack) if nack.lane == Lane::Urgent => {
                    return Err(format!("DLV-009: the urgent lane is refused: {nack:?}"));
                }
                Message::Ack(ack) if ack.lane == Lane::Urgent => urgent = ack.stored_seq,
                Message::Nack(nack) => refusal = refusal.or(Some(nack)),
                Message::Ack(ack) => self.stored = ack.stored_seq,
                _ => {}
            }
        }
        Ok(refusal)
    }
}

/// What was refused was not stored, and is taken later.
fn holds_to_its_refusal(cx: &Context<'_>, sender: Sender, refusal: &Nack) -> Checked {
    let Sender { sensor, mut bulk, mut link, frames, stored, .. } = sender;
    equal!(refusal.reason, NackReason::Throttled, "DLV-009: the reason of an overloaded server");
    ensure!(refusal.retry_after_ms > 0, "DLV-009: Throttled, and no time to come back");
    if stored < refusal.next_seq - 1 {
        acked(&mut link, Lane::Bulk, refusal.next_seq - 1)?;
    }
    let is_stored = |message: &Message| match message {
        Message::Ack(ack) => ack.lane == Lane::Bulk && ack.stored_seq >= refusal.next_seq,
        _ => false,
    };
    let is_stored = stored >= refusal.next_seq || link.settle()?.iter().any(is_stored);
    ensure!(!is_stored, "DLV-009: {} is refused as Throttled, and acknowledged", refusal.next_seq);
    drop(link);
    bulk.acked = refusal.next_seq - 1;
    let (mut link, ack) = cx.session(&sensor, &[&bulk])?;
    let granted = grant(&ack, Lane::Bulk)?;
    equal!(granted.next_seq, refusal.next_seq, "DLV-009: what is next behind a refusal");
    equal!(granted.chain, bulk.chain_at(bulk.acked), "DLV-009: the chain behind a refusal");
    let at = usize::try_from(bulk.acked).unwrap_or(0);
    let next = frames.get(at).ok_or("DLV-009: what was not sent is refused")?;
    let taken = wait::attempt(PATIENCE, || {
        link.send_frame(next);
        match link.wait_for("an Ack, or a Nack", is_answer) {
            Ok(Message::Nack(nack)) => {
                wait::pause(nack.retry_after_ms);
                None
            }
            Ok(Message::Ack(ack)) => (ack.stored_seq >= refusal.next_seq).then_some(Ok(())),
            other => Some(other.map(drop)),
        }
    });
    let taken = taken.ok_or("DLV-009: what was refused is not taken when it comes again")?;
    taken.map_err(Stop::Fail)
}

fn what_is_throttled_is_not_stored(cx: &mut Context<'_>) -> Checked {
    let process = cx.process()?;
    process.kill()?;
    let Some(started) = process.start_narrow() else {
        process.start()?;
        return Err(Stop::Skip("--narrow-cmd is not given: the server is not overloaded".into()));
    };
    let held = started.map_err(Stop::Fail).and_then(|()| overloaded(cx));
    process.kill()?;
    process.start()?;
    held
}

/// A crowd that sends at once: who was refused, those first who sent Jumps.
fn refused(cx: &mut Context<'_>) -> Result<Vec<(Sender, Nack)>, Stop> {
    let mut senders = crowd(cx)?;
    let answers: Vec<Result<Option<Nack>, String>> = std::thread::scope(|scope| {
        let sending: Vec<_> =
            senders.iter_mut().map(|sender| scope.spawn(|| sender.send())).collect();
        let panicked = || Err("the case itself: a sender panicked".to_owned());
        sending.into_iter().map(|it| it.join().unwrap_or_else(|_| panicked())).collect()
    });
    let mut refused = Vec::new();
    for (sender, answer) in senders.into_iter().zip(answers) {
        refused.extend(answer?.map(|refusal| (sender, refusal)));
    }
    Ok(refused)
}

fn overloaded(cx: &mut Context<'_>) -> Checked {
    // Of chunks and of Jumps.
    let mut seen = [0, 0];
    for _ in 0..TRIES {
        for (sender, refusal) in refused(cx)? {
            let seen = &mut seen[usize::from(sender.is_jumper)];
            if *seen < REFUSALS {
                holds_to_its_refusal(cx, sender, &refusal)?;
            }
            *seen += 1;
        }
        if seen.iter().all(|seen| *seen > 0) {
            return Ok(());
        }
    }
    match seen {
        [0, 0] => {
            let text = "the server took all that a crowd sent at once: it was never overloaded";
            Err(Stop::Skip(text.into()))
        }
        [chunks, 0] => {
            cx.weak(format!("DLV-007: {chunks} sensors were Throttled, and none that sent Jumps"));
            Ok(())
        }
        _ => Ok(()),
    }
}
