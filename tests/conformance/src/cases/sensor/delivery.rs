//! Chunks, credit, Ack, Nack, Resync.

use std::time::{Duration, Instant};

use super::case;
use super::context::{Context, FACTS};
use crate::cases::{Case, Checked, Phase, Stop, ensure, equal};
use crate::play::station::AMPLE;
use crate::wire::message::{Credit, Lane, NackReason, Resync, ResyncReason};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "chunks_follow_each_other_and_the_chain_is_right",
        &[
            "LOG-002", "LOG-004", "LOG-005", "LOG-020", "LOG-021", "DLV-011", "CHN-001", "CHN-002",
            "CHN-004", "CHN-005", "LIM-010", "LIM-012", "LIM-030", "ENC-001", "ENC-002", "ENC-003",
            "ENC-004", "ENC-005", "ENC-006", "ENC-007", "ENC-009", "MOD-002", "MOD-003", "MOD-006",
            "MOD-007", "HEL-021", "FRM-001", "FRM-003", "FRM-004", "FRM-011", "LIM-001", "LIM-013",
            "LIM-020", "LIM-024", "LIM-025",
        ],
        "Seventy chunks: seq and index are dense, each segment opens, each chunk decodes, its \
         digest is that of its rows, and a mark behind the 64th says their chain.",
        chunks_follow_each_other,
    ),
    case(
        "nothing_goes_beyond_the_credit",
        &["DLV-007", "DLV-008"],
        "A sensor sends up to the sequence and the bytes it was told, and goes on when told more.",
        nothing_goes_beyond_the_credit,
    ),
    case(
        "credit_is_the_highest_that_was_told",
        &["DLV-008"],
        "An Ack that names less credit than was given takes none away.",
        credit_is_the_highest_that_was_told,
    ),
    case(
        "a_nack_is_answered_by_the_same_bytes_and_not_sooner",
        &["DLV-009", "LOG-003", "FRM-009"],
        "Throttled, OutOfOrder and BeyondCredit: the chunks come again from the one that was named, \
         byte by byte, after the time that was named, under their numbers.",
        a_nack_is_answered,
    ),
    case(
        "an_old_episode_is_ignored",
        &["DLV-009"],
        "A Nack whose episode is not above the last one changes nothing.",
        an_old_episode_is_ignored,
    ),
    case(
        "a_nack_of_what_is_stored_or_was_not_sent_ends_the_session",
        &["DLV-009"],
        "A Nack at or below what was acknowledged, or beyond what was sent, is answered by a close.",
        a_false_nack_ends_the_session,
    ),
    case(
        "an_ack_of_what_was_not_sent_ends_the_session",
        &["DLV-005"],
        "A sensor closes when an Ack names a sequence that it did not send.",
        a_false_ack_ends_the_session,
    ),
    case(
        "a_table_that_a_server_has_no_room_for_is_made_smaller",
        &["LOG-009", "LIM-026", "HEL-007"],
        "Met by a server that takes eight rows, a sensor that held more lets go of the others.",
        a_table_is_made_smaller,
    ),
    case(
        "a_resync_is_answered_by_one_segment",
        &["LOG-010", "LOG-006", "LOG-005"],
        "Asked for a segment it begins one; asked again within the minute it begins none; a wish \
         from before its newest segment it ignores.",
        a_resync_is_answered_by_one_segment,
    ),
    Case {
        phase: Phase::Slow,
        ..case(
            "a_later_wish_is_kept",
            &["LOG-010"],
            "Asked for a segment within a minute of the last one that was asked for, it begins one \
             when the minute is over.",
            a_later_wish_is_kept,
        )
    },
    case(
        "bytes_are_kept_until_they_are_safe",
        &["DLV-006", "DLV-015", "HEL-027"],
        "What is acknowledged and not yet safe is still held: a server that was restored to the \
         safe place gets it again, byte by byte.",
        bytes_are_kept_until_they_are_safe,
    ),
];

fn chunks_follow_each_other(cx: &mut Context) -> Checked {
    cx.online()?;
    cx.chunks(70)?;
    cx.a.settle()?;
    ensure!(cx.a.seen(Lane::Bulk) >= 70, "DLV-007: {} chunks came", cx.a.seen(Lane::Bulk));
    ensure!(cx.a.shelf(Lane::Bulk)?.facts() > 0, "LOG-002: seventy chunks and no fact");
    cx.registration_is_content()
}

fn credit(limit_seq: u64) -> Credit {
    Credit { limit_seq, ..AMPLE }
}

/// More facts than the credit lets through, so that chunks wait at the sensor.
fn fill_up_to(cx: &mut Context, seq: u64) -> Checked {
    let short = cx.a.seen(Lane::Bulk);
    ensure!(short <= seq, "DLV-007: chunk {short} came with a credit of {seq}");
    cx.chunks(seq - short)?;
    for _ in 0..6 {
        cx.subject.event(FACTS);
    }
    cx.a.settle()?;
    equal!(cx.a.seen(Lane::Bulk), seq, "DLV-007: the last chunk with a credit of {seq}");
    Ok(())
}

fn nothing_goes_beyond_the_credit(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.a.answers.credit[0] = credit(3);
    cx.online()?;
    fill_up_to(cx, 3)?;
    cx.a.answers.credit[0] = credit(5);
    cx.a.ack(Lane::Bulk, 2, 2)?;
    cx.a.pump("DLV-007: chunk 5, within the new credit", |station| station.seen(Lane::Bulk) == 5)?;
    cx.a.settle()?;
    let sizes: Vec<u64> =
        cx.a.shelf(Lane::Bulk)?.chunks.values().map(|bytes| bytes.len() as u64).collect();
    // Room for exactly what came and a byte less than the smallest chunk can have.
    let limit_bytes = sizes.iter().sum::<u64>() + 16;
    cx.a.cut();
    cx.a.answers.credit[0] = Credit { limit_seq: 1_000, limit_bytes };
    cx.a.shelves.values_mut().for_each(|shelf| shelf.stored = 0);
    let place = crate::play::station::Place {
        verdict: crate::wire::message::LogVerdict::ServerBehind,
        next_seq: 1,
        chain: None,
    };
    cx.a.meet()?;
    cx.a.greet(&[(Lane::Bulk, place)])?;
    cx.a.pump("DLV-007: what fits the bytes", |station| station.came.len() >= 5)?;
    cx.a.settle()?;
    equal!(cx.a.seen(Lane::Bulk), 5, "DLV-007: the last chunk with {limit_bytes} bytes of credit");
    cx.a.answers.credit[0] = AMPLE;
    cx.a.ack(Lane::Bulk, 5, 5)?;
    cx.a.pump("DLV-007: chunk 6, with new credit", |station| station.seen(Lane::Bulk) >= 6)?;
    Ok(())
}

fn credit_is_the_highest_that_was_told(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.a.answers.credit[0] = credit(40);
    cx.online()?;
    cx.chunks(2)?;
    cx.a.answers.credit[0] = Credit { limit_seq: 2, limit_bytes: 1 };
    cx.a.ack(Lane::Bulk, 1, 1)?;
    cx.a.settle()?;
    cx.chunks(3)
}

fn a_nack_is_answered(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.a.answers.credit[0] = credit(5);
    cx.online()?;
    fill_up_to(cx, 5)?;
    let reasons = [
        (NackReason::Throttled, 900, 2),
        (NackReason::OutOfOrder, 0, 4),
        (NackReason::BeyondCredit, 1_200, 1),
    ];
    for (reason, retry_after_ms, from) in reasons {
        cx.a.came.clear();
        let said = cx.a.nack(Lane::Bulk, from, reason, retry_after_ms)?;
        cx.a.pump("DLV-009: the chunk that was asked for", |station| !station.came.is_empty())?;
        let waited = said.elapsed();
        ensure!(
            waited >= Duration::from_millis(u64::from(retry_after_ms)),
            "DLV-009: chunk {from} came after {waited:?} of {retry_after_ms} ms ({reason:?})"
        );
        let what = "DLV-009: all that was in flight, again";
        cx.a.pump(what, |station| station.came.last() == Some(&(Lane::Bulk, 5)))?;
        cx.a.settle()?;
        let expected: Vec<(Lane, u64)> = (from..=5).map(|seq| (Lane::Bulk, seq)).collect();
        equal!(cx.a.came, expected, "DLV-009: what came after a Nack of {from} ({reason:?})");
    }
    Ok(())
}

fn an_old_episode_is_ignored(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.a.answers.credit[0] = credit(3);
    cx.online()?;
    fill_up_to(cx, 3)?;
    cx.a.nack(Lane::Bulk, 2, NackReason::OutOfOrder, 0)?;
    cx.a.pump("DLV-009: chunks 2 and 3", |station| station.came.len() == 5)?;
    cx.a.settle()?;
    let nack = crate::wire::message::Nack {
        lane: Lane::Bulk,
        next_seq: 1,
        episode: 1,
        reason: NackReason::OutOfOrder,
        retry_after_ms: 0,
    };
    cx.a.link()?.send(nack);
    cx.a.settle()?;
    equal!(cx.a.came.len(), 5, "DLV-009: chunks after a Nack of an old episode");
    Ok(())
}

fn a_false_nack_ends_the_session(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.a.answers.credit[0] = credit(3);
    cx.online()?;
    fill_up_to(cx, 3)?;
    cx.a.ack(Lane::Bulk, 2, 2)?;
    cx.a.settle()?;
    cx.a.nack(Lane::Bulk, 2, NackReason::Throttled, 0)?;
    cx.a.expect_close("DLV-009: a Nack of an acknowledged chunk")?;
    cx.a.welcome()?;
    cx.a.pump("DLV-009: chunk 3 again", |station| !station.came.is_empty())?;
    cx.a.settle()?;
    cx.a.nack(Lane::Bulk, 9, NackReason::OutOfOrder, 0)?;
    cx.a.expect_close("DLV-009: a Nack beyond what was sent")?;
    Ok(())
}

fn a_false_ack_ends_the_session(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.a.answers.credit[0] = credit(2);
    cx.online()?;
    fill_up_to(cx, 2)?;
    cx.a.link()?.send(crate::wire::message::Ack {
        lane: Lane::Bulk,
        stored_seq: 3,
        safe_seq: 3,
        credit: AMPLE,
    });
    cx.a.expect_close("DLV-005: an Ack of chunk 3, when two were sent")?;
    Ok(())
}

fn a_table_is_made_smaller(cx: &mut Context) -> Checked {
    const ROWS: u32 = 8;
    cx.online()?;
    cx.chunks(3)?;
    cx.a.settle()?;
    let slots = |cx: &Context| -> Result<Vec<u64>, Stop> { Ok(cx.a.shelf(Lane::Bulk)?.slots()) };
    let before = slots(cx)?;
    if before.len() <= ROWS as usize {
        return Err(Stop::Skip(format!("sixty facts make {} rows, too few", before.len())));
    }
    cx.a.cut();
    cx.a.answers.rows_max = ROWS;
    cx.a.welcome()?;
    cx.chunks(3)?;
    cx.a.settle()?;
    let beyond: Vec<u64> = slots(cx)?.into_iter().filter(|slot| *slot >= u64::from(ROWS)).collect();
    ensure!(beyond.is_empty(), "LOG-009: the rows in slots {beyond:?} are not forgotten");
    Ok(())
}

fn openings(cx: &Context) -> Result<usize, Stop> {
    Ok(cx.a.shelf(Lane::Bulk)?.openings.len())
}

/// The minute that begins no second segment, less what a busy machine may hide of it.
const MINUTE: Duration = Duration::from_secs(50);

/// A session in which a segment was begun because a server asked: how many there were before, and
/// when it was asked.
fn resynced(cx: &mut Context) -> Result<(usize, Instant), Stop> {
    cx.online()?;
    cx.chunks(3)?;
    cx.a.settle()?;
    let (before, at_seq) = (openings(cx)?, cx.a.seen(Lane::Bulk));
    if before as u64 == at_seq {
        return Err(Stop::Skip("every chunk of this sensor is self-contained".into()));
    }
    let (asked, reason) = (Instant::now(), ResyncReason::DigestDiffers);
    cx.a.link()?.send(Resync { lane: Lane::Bulk, at_seq, reason });
    cx.subject.event(FACTS);
    cx.a.pump("LOG-010: a new segment", |station| {
        station.shelf(Lane::Bulk).is_ok_and(|shelf| shelf.openings.len() > before)
    })?;
    cx.a.settle()?;
    Ok((before, asked))
}

fn a_later_wish_is_kept(cx: &mut Context) -> Checked {
    let (before, _) = resynced(cx)?;
    let (at_seq, reason) = (cx.a.seen(Lane::Bulk), ResyncReason::DigestDiffers);
    cx.a.link()?.send(Resync { lane: Lane::Bulk, at_seq, reason });
    for _ in 0..40 {
        // A sensor may begin it with its next fact. They are few: many begin one by themselves.
        cx.subject.event(1);
        let is_begun = cx.a.pump_for(Duration::from_secs(5), |station| {
            station.shelf(Lane::Bulk).is_ok_and(|shelf| shelf.openings.len() > before + 1)
        })?;
        if is_begun {
            return Ok(());
        }
    }
    Err("LOG-010: a wish within the minute is forgotten: no segment in 200 s".into())
}

fn a_resync_is_answered_by_one_segment(cx: &mut Context) -> Checked {
    let (before, asked) = resynced(cx)?;
    let reason = ResyncReason::DigestDiffers;
    let at_seq = cx.a.seen(Lane::Bulk);
    let first = cx.a.shelf(Lane::Bulk)?.openings.get(before).copied().unwrap_or_default();
    cx.a.link()?.send(Resync { lane: Lane::Bulk, at_seq: first - 1, reason });
    cx.a.link()?.send(Resync { lane: Lane::Bulk, at_seq, reason });
    cx.a.link()?.send(Resync { lane: Lane::Urgent, at_seq: 0, reason });
    cx.chunks(4)?;
    cx.a.settle()?;
    let begun = openings(cx)?;
    if asked.elapsed() < MINUTE {
        equal!(begun, before + 1, "LOG-010: segments after three more wishes in the minute");
    }
    Ok(())
}

fn bytes_are_kept_until_they_are_safe(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.online()?;
    cx.chunks(3)?;
    // Another session begins another segment.
    for _ in 0..2 {
        cx.a.cut();
        cx.subject.event(FACTS);
        cx.a.welcome()?;
        let whole = cx.a.seen(Lane::Bulk) + 1;
        cx.subject.event(FACTS);
        cx.a.pump("a chunk behind the cut", |station| station.seen(Lane::Bulk) > whole)?;
    }
    let (seen, begun) = (cx.a.seen(Lane::Bulk), Instant::now());
    cx.a.ack(Lane::Bulk, seen, 1)?;
    cx.a.settle()?;
    // Long enough for a sensor that trims at once.
    cx.a.pump_for(Duration::from_millis(1_500), |_| begun.elapsed().as_millis() > 1_400)?;
    cx.a.cut();
    cx.a.meet()?;
    let head = cx.a.head(Lane::Bulk)?.clone();
    if head.first_seq > 2 {
        cx.weak(format!(
            "DLV-006: {seen} stored, 1 safe: the sensor holds nothing before {}",
            head.first_seq
        ));
        return Ok(());
    }
    cx.a.shelves.values_mut().for_each(|shelf| shelf.stored = shelf.stored.min(1));
    let place = crate::play::station::Place {
        verdict: crate::wire::message::LogVerdict::ServerBehind,
        next_seq: 2,
        chain: None,
    };
    cx.a.greet(&[(Lane::Bulk, place)])?;
    cx.a.pump("HEL-027: what the restored server lacks", |station| {
        station.came.contains(&(Lane::Bulk, seen))
    })?;
    let jumps = cx.a.shelf(Lane::Bulk)?.jumps.len();
    equal!(jumps, 0, "HEL-027: Jumps over what is held");
    Ok(())
}
