//! Steps that many cases take.

use super::context::Context;
use crate::cases::{Checked, Stop, ensure, equal};
use crate::play::link::{Got, Link, PATIENCE, said};
use crate::play::log::Log;
use crate::play::sensor::acked;
use crate::wire::chunk::{Chunk, SELF_CONTAINED};
use crate::wire::code;
use crate::wire::message::{Ack, Message, Nack, Resync, ResyncReason};

/// The server refuses with `expected` and closes behind it. A close without a word is weak where
/// the page wants the word.
pub(super) fn refused(cx: &mut Context<'_>, link: &mut Link, expected: u16, what: &str) -> Checked {
    let refused = link.refusal().map_err(|error| format!("{what}: {error}"))?;
    match refused {
        Some(refused) => {
            let (found, expected) = (code::name(refused.code), code::name(expected));
            equal!(found, expected, "{what}: {}; the code", said(&refused));
        }
        None => cx.weak(format!("{what}: the server closed without a word; Refused says why")),
    }
    Ok(())
}

/// The server closes; whether it says why is not looked at.
pub(super) fn closes(link: &mut Link, what: &str) -> Checked {
    link.refusal().map(drop).map_err(|error| Stop::Fail(format!("{what}: {error}")))
}

/// Sends chunks and waits until the last is acknowledged.
pub(super) fn store(link: &mut Link, chunks: &[Chunk]) -> Result<Ack, Stop> {
    for chunk in chunks {
        link.send(chunk.clone());
    }
    let last = chunks.last().ok_or("the case has no chunks")?;
    acked(link, last.lane(), last.seq).map_err(Stop::Fail)
}

/// The next Nack.
pub(super) fn nack(link: &mut Link) -> Result<Nack, Stop> {
    link.wait_for("a Nack", |message| match message {
        Message::Nack(nack) => Some(nack.clone()),
        _ => None,
    })
    .map_err(Stop::Fail)
}

/// The next Resync.
pub(super) fn resync(link: &mut Link) -> Result<Resync, Stop> {
    link.wait_for("a Resync", |message| match message {
        Message::Resync(resync) => Some(resync.clone()),
        _ => None,
    })
    .map_err(Stop::Fail)
}

/// Nothing but what is let through comes within two exchanges of Pings and a silence; the
/// connection stays.
pub(super) fn quiet(link: &mut Link, what: &str, lets: impl Fn(&Message) -> bool) -> Checked {
    let came = link.settle().map_err(|error| format!("{what}: {error}"))?;
    if let Some(message) = came.iter().find(|message| !lets(message)) {
        return Err(Stop::Fail(format!("{what}: nothing was to come, but {message:?} did")));
    }
    ensure!(!link.is_closed_within(std::time::Duration::ZERO), "{what}: the server closed");
    Ok(())
}

/// A chunk that opens and whose body is no ops.
pub(super) fn undecodable(log: &mut Log) -> Chunk {
    let chunk = log.next(SELF_CONTAINED, 1, vec![0xff; 8]);
    log.push(&chunk)
}

/// What `build` makes decodes: the Resync that a deliberately broken chunk behind it brings names
/// that chunk, and none comes before.
pub(super) fn decodes(
    cx: &mut Context<'_>,
    what: &str,
    build: impl FnOnce(&mut Log) -> Vec<Chunk>,
) -> Checked {
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    let chunks = build(&mut log);
    let sound = log.next_seq() - 1;
    store(&mut link, &chunks).map_err(|stop| Stop::Fail(format!("{what}: {stop}")))?;
    store(&mut link, &[undecodable(&mut log)])?;
    let resync = resync(&mut link)?;
    ensure!(
        resync.at_seq > sound,
        "{what}: chunk {} is sound by the page, and the server asks for a resync of it ({:?})",
        resync.at_seq,
        resync.reason
    );
    Ok(())
}

/// The last chunk that `build` makes does not decode, those before do: it is stored and
/// acknowledged all the same, and one Resync names it.
pub(super) fn does_not_decode(
    cx: &mut Context<'_>,
    what: &str,
    build: impl FnOnce(&mut Log) -> Vec<Chunk>,
) -> Checked {
    let reason = brings_a_resync(cx, what, build)?;
    equal!(reason, ResyncReason::Undecodable, "{what}: the reason of the Resync");
    Ok(())
}

/// The last chunk that `build` makes is stored, and a Resync names it: its reason.
pub(super) fn brings_a_resync(
    cx: &mut Context<'_>,
    what: &str,
    build: impl FnOnce(&mut Log) -> Vec<Chunk>,
) -> Result<ResyncReason, Stop> {
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    let chunks = build(&mut log);
    let broken = log.next_seq() - 1;
    store(&mut link, &chunks).map_err(|stop| Stop::Fail(format!("{what}: {stop}")))?;
    let resync = resync(&mut link).map_err(|stop| Stop::Fail(format!("{what}: {stop}")))?;
    equal!(resync.at_seq, broken, "{what}: the chunk that the Resync names");
    Ok(resync.reason)
}

/// Takes what is in the reader until it closes or is silent.
pub(super) fn is_closed(link: &mut Link) -> bool {
    loop {
        match link.next(PATIENCE) {
            Got::Frame(_) => {}
            Got::Closed(_) => return true,
            Got::Silence => return false,
        }
    }
}
