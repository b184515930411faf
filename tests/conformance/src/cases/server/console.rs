//! What was stored, looked at from the console; and the console itself.
//!
//! These need `--console` and `--identities`; a sensor alone cannot see what a server keeps.

use std::collections::BTreeMap;
use std::time::Duration;

use super::context::Context;
use super::steps::{store, undecodable};
use super::{case, in_phase};
use crate::cases::{Case, Checked, Phase, Stop, ensure, equal};
use crate::crypto::chain::{self, Speaker};
use crate::crypto::tls;
use crate::play::link::{Link, PATIENCE};
use crate::play::log::{BOOT, base};
use crate::play::sensor::{acked, call};
use crate::play::wait;
use crate::wire::chunk::SELF_CONTAINED;
use crate::wire::code;
use crate::wire::decode::{canonical, natural_key};
use crate::wire::message::{Call, DropReason, Id, JumpCause, Lane, Message};
use crate::wire::method::{
    ASSIGN, COMMAND, ELEMENTS, EVENTS, EVIDENCE, ElementQuery, EventPage, EventView, FeedRequest,
    SENSORS, STATUS,
};
use crate::wire::model::{DNS, SERVICE, kinds};
use crate::wire::op::Value;
use crate::wire::primitive::{Malformed, Reader, Wire as _};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "every_fact_is_stored_once",
        &["DLV-002", "DLV-003", "CON-003", "DLV-019"],
        "The feed of events holds each fact once, however often its chunk came.",
        every_fact_is_stored_once,
    ),
    case(
        "holes_and_undecoded_chunks_have_an_item",
        &["CON-003", "DLV-010", "DLV-019", "JMP-008"],
        "A Jump, a Dropped op and a chunk that does not decode are each told in the feed.",
        holes_and_undecoded_chunks_have_an_item,
    ),
    case(
        "ids_rest_on_what_was_observed",
        &["CHN-006", "CHN-007", "CHN-008", "CHN-009", "MOD-002"],
        "The ids of elements and events are those of the page, and do not move with log or chunk.",
        ids_rest_on_what_was_observed,
    ),
    case(
        "a_feed_is_read_by_cursor",
        &["CAL-010", "CAL-012", "LIM-053"],
        "A page has at most what was asked for; another incarnation begins at 0.",
        a_feed_is_read_by_cursor,
    ),
    case(
        "a_feed_is_read_on_without_a_gap",
        &["CAL-010", "CON-003"],
        "Read on in small pages, or in large ones, the feed holds each fact once and in order; a page \
         may end anywhere.",
        a_feed_is_read_on_without_a_gap,
    ),
    case(
        "a_page_is_bounded",
        &["LIM-053", "CAL-001", "CAL-010"],
        "A page has at most 1,024 items, whatever is asked for; its parts make one reply.",
        a_page_is_bounded,
    ),
    case(
        "a_feed_waits_for_news",
        &["CAL-011"],
        "At its end a feed answers an empty page when it was told to wait and nothing came; with \
         something to tell it does not wait.",
        a_feed_waits_for_news,
    ),
    in_phase(
        case(
            "a_wait_is_bounded",
            &["LIM-054", "CAL-011"],
            "Told to wait for weeks, a feed answers an empty page all the same.",
            a_wait_is_bounded,
        ),
        Phase::Slow,
    ),
    case(
        "who_may_call_what",
        &["CON-001", "CAL-004", "FRM-013", "CAL-002"],
        "A sensor gets no connection, a method of others is forbidden, an unknown one unsupported.",
        who_may_call_what,
    ),
    case(
        "calls_are_bounded",
        &["CAL-003", "LIM-051", "CAL-001", "CAL-005"],
        "Of sixty-five calls that wait, one is busy; what a closed connection asked is over.",
        calls_are_bounded,
    ),
    case(
        "an_expression_is_bounded",
        &["CON-002", "LIM-044"],
        "An expression of 4,096 bytes is looked at; a longer one is a bad argument.",
        an_expression_is_bounded,
    ),
];

/// Asks for a page of the events.
fn page(link: &mut Link, request: &FeedRequest) -> Result<EventPage, Stop> {
    let (code, body) = call(link, 1, EVENTS, &request.to_bytes())?;
    equal!(code::name(code), "ok", "`events`: {}", String::from_utf8_lossy(&body));
    let page = EventPage::from_bytes(&body).map_err(|error| format!("EventPage: {error}"))?;
    Ok(page)
}

/// Every item of one sensor in the feed, in its order.
pub(super) fn events(link: &mut Link, sensor: &Id) -> Result<Vec<EventView>, Stop> {
    let all = FeedRequest { incarnation: None, cursor: 0, limit: 1_024, wait_ms: 0 };
    events_from(link, sensor, all)
}

/// Every item of one sensor in the feed from where `request` begins.
fn events_from(
    link: &mut Link,
    sensor: &Id,
    mut request: FeedRequest,
) -> Result<Vec<EventView>, Stop> {
    let mut found = Vec::new();
    loop {
        let page = page(link, &request)?;
        found.extend(page.items.0.into_iter().filter(|event| event.sensor == *sensor));
        if page.at_end {
            return Ok(found);
        }
        ensure!(page.next_cursor > request.cursor, "CAL-010: a page that does not go on");
        request.incarnation = Some(page.incarnation);
        request.cursor = page.next_cursor;
    }
}

fn every_fact_is_stored_once(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    let chunks: Vec<_> = (0..5).map(|_| log.fact()).collect();
    store(&mut link, &chunks[..3])?;
    for chunk in &chunks[..3] {
        link.send(chunk.clone());
    }
    link.send(chunks[4].clone()); // out of order: a Nack
    store(&mut link, &chunks[3..])?;
    link.cut();
    let (mut link, _) = cx.session(&sensor, &[&log])?;
    link.send(chunks[4].clone());
    acked(&mut link, Lane::Bulk, 5)?;
    let found = events(&mut console, &sensor.id)?;
    let seen: Vec<_> =
        found.iter().map(|event| (event.seq, event.index, event.source_seq)).collect();
    let expected: Vec<_> = (1..=5).map(|seq| (seq, seq, Some(seq))).collect();
    equal!(seen, expected, "DLV-003: seq, index and source_seq of what is stored");
    let is_ours = found.iter().all(|event| event.log == log.log && event.kind == "dns");
    ensure!(is_ours, "CON-003: log or kind is wrong: {found:?}");
    Ok(())
}

fn holes_and_undecoded_chunks_have_an_item(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    let mut ops = log.opened();
    ops.dropped(4, DropReason::TooLarge);
    let dropped = log.next(SELF_CONTAINED, 4, ops.body());
    let dropped = log.push(&dropped);
    let broken = undecodable(&mut log);
    store(&mut link, &[dropped, broken])?;
    let jump = log.jump(3, 6, JumpCause::Dropped(DropReason::SpoolFull));
    link.send(jump);
    acked(&mut link, Lane::Bulk, 5)?;
    store(&mut link, &[log.fact()])?;
    let found = events(&mut console, &sensor.id)?;
    let ops: Vec<&str> = found.iter().map(|event| event.op.as_str()).collect();
    equal!(ops, ["dropped", "undecoded", "jump", "event"], "CON-003: what is told");
    equal!(found[3].index, 12, "JMP-001: the index behind the hole");
    Ok(())
}

fn ids_rest_on_what_was_observed(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    let chunks = [log.keyframe(), log.put(4, "ssh", "active"), log.put(9, "cron", "failed")];
    store(&mut link, &chunks)?;
    let event_seq = log.next_seq();
    store(&mut link, &[log.delta()])?;
    let found = events(&mut console, &sensor.id)?;
    let machine = Speaker { deployment: sensor.deployment, sensor: sensor.id, boot: [0; 16] };
    for (seq, name) in [(2, "ssh"), (3, "cron")] {
        let fields = BTreeMap::from([(3, Value::text(name))]);
        let key = kinds().get(&SERVICE).map(|kind| natural_key(kind, &fields)).unwrap_or_default();
        let expected = chain::element(&machine, SERVICE, &key);
        let is_it = |event: &&EventView| event.seq == seq && event.index > 0;
        let event = found.iter().find(is_it).ok_or("CON-003: a Put is not told")?;
        equal!(event.element, expected, "CHN-007: the id of the service {name}");
    }
    let text = format!("host-{event_seq}.example");
    let row = canonical(&BTreeMap::from([(3, Value::text(&text))]));
    let here = Speaker { boot: BOOT, ..machine };
    let expected = chain::event(&here, DNS, base(event_seq) + 5, &row);
    let event = found.iter().find(|event| event.op == "event").ok_or("CON-003: no event")?;
    equal!(event.element, expected, "CHN-008: the id of the lookup");
    // The same service in another slot, log and session is the same element.
    let mut other = sensor.log(Lane::Bulk, cx.id());
    let (mut link, _) = cx.session(&sensor, &[&other])?;
    store(&mut link, &[other.keyframe(), other.put(1, "ssh", "failed")])?;
    let again = events(&mut console, &sensor.id)?;
    let elements = |log: Id| -> Vec<Id> {
        let puts = again.iter().filter(|event| event.log == log && event.op != "event");
        puts.map(|event| event.element).collect()
    };
    let same = elements(other.log).iter().all(|id| elements(log.log).contains(id));
    ensure!(same, "CHN-009: the id of an element changed with log and slot");
    Ok(())
}

fn a_feed_is_read_by_cursor(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    for _ in 0..7 {
        link.send(log.fact());
    }
    acked(&mut link, Lane::Bulk, 7)?;
    let first = FeedRequest { incarnation: None, cursor: 0, limit: 2, wait_ms: 0 };
    let begin = page(&mut console, &first)?;
    ensure!(begin.items.0.len() <= 2, "CAL-010: {} items of 2", begin.items.0.len());
    let other =
        FeedRequest { incarnation: Some(cx.id()), cursor: begin.next_cursor, limit: 2, wait_ms: 0 };
    let again = page(&mut console, &other)?;
    equal!(again.incarnation, begin.incarnation, "CAL-012: the incarnation of the answer");
    let place = |page: &EventPage| {
        page.items.0.first().map(|event| (event.sensor, event.log, event.seq, event.index))
    };
    equal!(place(&again), place(&begin), "CAL-012: of another incarnation from 0");
    let next = FeedRequest {
        incarnation: Some(begin.incarnation),
        cursor: begin.next_cursor,
        limit: 2,
        wait_ms: 0,
    };
    let next = page(&mut console, &next)?;
    ensure!(place(&next) != place(&begin), "CAL-010: the cursor does not go on");
    let all = FeedRequest { limit: u32::MAX, ..first };
    let all = page(&mut console, &all)?;
    ensure!(all.items.0.len() <= 1_024, "LIM-053: {} items in a page", all.items.0.len());
    Ok(())
}

fn a_feed_is_read_on_without_a_gap(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let mut end = FeedRequest { incarnation: None, cursor: 0, limit: 1_024, wait_ms: 0 };
    loop {
        let page = page(&mut console, &end)?;
        (end.incarnation, end.cursor) = (Some(page.incarnation), page.next_cursor);
        if page.at_end {
            break;
        }
    }
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    let mut expected = Vec::new();
    // Chunks of several facts, so that a small page ends within one; and one of more than a page.
    for count in [1, 5, 2, 9, 1, 3, 40, 1] {
        let (mut ops, time) = (log.opened(), base(log.next_seq()));
        for index in (log.next_index..).take(count) {
            let fields = vec![(0, Value::U64(index)), (3, Value::text("page.example"))];
            ops.event(DNS, time, &fields);
            expected.push((log.next_seq(), index, Some(index)));
        }
        let chunk = log.next(SELF_CONTAINED, count as u64, ops.body());
        store(&mut link, &[log.push(&chunk)])?;
    }
    for limit in [1, 4, 7, 1_024] {
        let request = FeedRequest { limit, ..end.clone() };
        let found = events_from(&mut console, &sensor.id, request)?;
        let found: Vec<_> =
            found.iter().map(|event| (event.seq, event.index, event.source_seq)).collect();
        equal!(found, expected, "CAL-010: seq, index and source_seq in pages of {limit}");
    }
    Ok(())
}

fn a_page_is_bounded(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    // More facts than a page may have, and a reply of more bytes than a frame may have.
    for _ in 0..4 {
        let (mut ops, time) = (log.opened(), base(log.next_seq()));
        for _ in 0..300 {
            ops.event(DNS, time, &vec![(3, Value::text("page.example"))]);
        }
        let chunk = log.next(SELF_CONTAINED, 300, ops.body());
        store(&mut link, &[log.push(&chunk)])?;
    }
    for limit in [u32::MAX, 1_025] {
        let request = FeedRequest { incarnation: None, cursor: 0, limit, wait_ms: 0 };
        let page = page(&mut console, &request)?;
        let count = page.items.0.len();
        ensure!((1..=1_024).contains(&count), "LIM-053: {count} items in a page of {limit}");
        ensure!(!page.at_end, "CAL-010: a page of {count} of 1,200 reaches the end");
    }
    Ok(())
}

/// The head of a page of any feed, and whether it has items.
struct Head {
    incarnation: Id,
    next_cursor: u64,
    at_end: bool,
    is_empty: bool,
}

fn head(body: &[u8]) -> Result<Head, Stop> {
    let mut reader = Reader::of_message(body);
    let mut read = || -> Result<Head, Malformed> {
        let incarnation = Id::read(&mut reader)?;
        let (next_cursor, at_end) = (u64::read(&mut reader)?, bool::read(&mut reader)?);
        let is_empty = reader.bytes()?.is_empty();
        Ok(Head { incarnation, next_cursor, at_end, is_empty })
    };
    read().map_err(|error| Stop::Fail(format!("CAL-010: a FeedPage: {error}")))
}

/// Reads `evidence` to its end; how to wait there for `wait_ms`. The cases that raise evidence run
/// beside this one, so that whoever waits may be answered with news.
fn at_end(link: &mut Link, wait_ms: u32) -> Result<FeedRequest, Stop> {
    let mut request = FeedRequest { incarnation: None, cursor: 0, limit: 1_024, wait_ms: 0 };
    loop {
        let (code, body) = call(link, 1, EVIDENCE, &request.to_bytes())?;
        equal!(code::name(code), "ok", "`evidence`: {}", String::from_utf8_lossy(&body));
        let page = head(&body)?;
        (request.incarnation, request.cursor) = (Some(page.incarnation), page.next_cursor);
        if page.at_end {
            return Ok(FeedRequest { wait_ms, ..request });
        }
    }
}

/// Waits at the end of a feed until nothing came meanwhile: that page is empty and goes nowhere.
fn waits(link: &mut Link, wait_ms: u32, limit: Duration) -> Checked {
    let mut request = at_end(link, wait_ms)?;
    for call in 2..u32::MAX {
        link.send(Call { call, method: EVIDENCE, body: request.to_bytes() });
        let answer = wait::attempt(limit, || {
            let reply = link.wait_for("a Reply", |message| match message {
                Message::Reply(reply) if reply.call == call && !reply.more => Some(reply.clone()),
                _ => None,
            });
            reply.ok()
        });
        let text = format!("CAL-011, LIM-054: told to wait {wait_ms} ms it does not answer");
        let answer = answer.ok_or(text)?;
        equal!(code::name(answer.code), "ok", "CAL-011: at the end of a feed");
        let page = head(&answer.body)?;
        if page.is_empty {
            let found = (page.incarnation, page.next_cursor, page.at_end);
            let expected = (request.incarnation.unwrap_or_default(), request.cursor, true);
            equal!(found, expected, "CAL-011: an empty page at the end of a feed");
            return Ok(());
        }
        request.cursor = page.next_cursor;
    }
    Ok(())
}

fn a_feed_waits_for_news(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    waits(&mut console, 300, PATIENCE)?;
    // With something to tell: an answer within our patience, which is less than the wait.
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    store(&mut link, &[log.fact()])?;
    let request = FeedRequest { incarnation: None, cursor: 0, limit: 1, wait_ms: 20_000 };
    let page = page(&mut console, &request)?;
    ensure!(!page.items.0.is_empty(), "CAL-011: a feed with something to tell tells nothing");
    Ok(())
}

fn a_wait_is_bounded(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    waits(&mut console, u32::MAX, Duration::from_secs(120))
}

fn who_may_call_what(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let sensor = cx.sensor()?;
    let address = cx.target.console.ok_or("--console is not given")?;
    for credentials in [Some(&sensor.credentials), None, Some(cx.lent("nobody")?)] {
        let config = tls::client(&cx.target.roots, &[tls::PEER], credentials)
            .map_err(|error| error.to_string())?;
        if let Ok(mut link) = Link::connect(address, &config) {
            let asked = call(&mut link, 1, STATUS, &[]);
            ensure!(asked.is_err(), "CON-001: a sensor or stranger is served: {asked:?}");
        }
    }
    let (code, text) = call(&mut console, 1, COMMAND, &[])?;
    equal!(code::name(code), "forbidden", "CON-001: `command` by ctl");
    ensure!(!text.is_empty(), "CAL-002: no text for a person");
    for method in [ASSIGN, 4_000, 0] {
        let (code, _) = call(&mut console, 2, method, &[])?;
        equal!(code::name(code), "unsupported", "CAL-004: method {method}");
    }
    let (code, _) = call(&mut console, 3, STATUS, &[])?;
    equal!(code::name(code), "ok", "CAL-004: `status`");
    let (code, body) = call(&mut console, 4, SENSORS, &[])?;
    equal!(code::name(code), "ok", "CON-001: `sensors` by ctl");
    let claims = Reader::of_message(&body).bytes().is_ok_and(|items| {
        items.len() + 3 >= body.len() && items.len() < body.len() && body.len() > 16
    });
    ensure!(!claims, "FRM-013: the items come with a length before them");
    Ok(())
}

/// Calls that may run at once on one connection (CAL-003).
const CALLS_MAX: usize = 64;
/// Connections on which one call too many is tried before it is believed that there is no bound.
const BURSTS_MAX: usize = 256;

fn calls_are_bounded(cx: &mut Context<'_>) -> Checked {
    let last = CALLS_MAX as u32 + 1;
    // News ends waits. When an answer comes before the refusal, the burst may have been read in two
    // parts with news between them: it says nothing of the bound, and another one is tried.
    for _ in 0..BURSTS_MAX {
        let mut console = cx.console("ctl")?;
        let waits = at_end(&mut console, 20_000)?;
        let calls =
            (2..=last + 1).map(|call| Call { call, method: EVIDENCE, body: waits.to_bytes() });
        let burst = calls.flat_map(|call| Message::from(call).frame().to_bytes());
        console.send_bytes(&burst.collect::<Vec<u8>>());
        let first =
            console.wait_for("a Reply that one call is too many", |message| match message {
                Message::Reply(reply) if !reply.more => Some((reply.call, reply.code)),
                _ => None,
            });
        let (number, code) = first.map_err(|error| format!("CAL-003: {error}"))?;
        console.cut();
        if code == 0 {
            continue;
        }
        equal!(code::name(code), "busy", "CAL-003: the code of call {number}");
        equal!(number, last + 1, "CAL-003: the call of {CALLS_MAX} and one that is too many");
        let mut again = cx.console("ctl")?;
        let (code, _) = call(&mut again, 1, STATUS, &[])?;
        equal!(code::name(code), "ok", "CAL-005: a new connection");
        return Ok(());
    }
    Err(Stop::Fail(format!("CAL-003: more than {CALLS_MAX} calls run at once")))
}

fn an_expression_is_bounded(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let sound = "process";
    for (length, expected) in [(4_096, "ok"), (4_097, "bad_argument")] {
        let mut expression = sound.to_owned();
        expression.push_str(&" ".repeat(length - sound.len()));
        let asked = ElementQuery { expression, limit: 1, timeout_ms: 5_000 };
        let answer =
            wait::attempt(PATIENCE, || Some(call(&mut console, 1, ELEMENTS, &asked.to_bytes())));
        let (code, text) = answer.ok_or("no answer")??;
        let text = String::from_utf8_lossy(&text).into_owned();
        equal!(code::name(code), expected, "LIM-044: {length} bytes: {text}");
    }
    Ok(())
}
