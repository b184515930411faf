//! Questions in the query language, process trees, and the export of stored facts.

mod unread;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::ops::RangeInclusive;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use lapwing_protocol::id::{ElementGuid, SensorId};
use lapwing_protocol::limits::{EXPRESSION_BYTES_MAX, FEED_PAGE_MAX};
use serde::Deserialize;
use serde_json::json;
use smol::stream;

use self::unread::Unread;
use super::params::{Body, Id, Params};
use crate::backend::EventCursor;
use crate::limits::ROWS_MAX;
use crate::view::{Element, Event, Rows};
use crate::web::{ApiActor, ApiError, App};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryBody {
    expression: String,
    limit: Option<u32>,
}

/// `POST /elements/query`.
pub(super) async fn query(
    _: ApiActor,
    State(app): State<App>,
    Body(body): Body<QueryBody>,
) -> Result<Json<Rows>, ApiError> {
    Ok(Json(answer(&app, &body.expression, body.limit).await?))
}

/// Asks, within the bounds.
pub(crate) async fn answer(
    app: &App,
    expression: &str,
    limit: Option<u32>,
) -> Result<Rows, ApiError> {
    if expression.trim().is_empty() {
        return Err(ApiError::bad("the question is empty"));
    }
    if expression.len() > EXPRESSION_BYTES_MAX {
        let message = format!("a question has at most {EXPRESSION_BYTES_MAX} bytes");
        return Err(ApiError::bad(message));
    }
    let limit = limit.unwrap_or(ROWS_MAX).clamp(1, ROWS_MAX);
    Ok(app.backend.query(expression, limit).await?)
}

/// `GET /elements/GUID/tree`: a process, its parents and its children.
pub(super) async fn tree(
    _: ApiActor,
    State(app): State<App>,
    Id(guid): Id<ElementGuid>,
) -> Result<Json<Vec<Element>>, ApiError> {
    let elements = app.backend.process_tree(guid).await?;
    if elements.is_empty() {
        return Err(ApiError::not_found("process"));
    }
    Ok(Json(elements))
}

/// `GET /events?sensor=`: every stored fact once, merged over servers, one JSON object a line.
/// Ends with `{"partial": true, "reason": ...}` where a server could not be read to its end, or
/// entries of its journal could not.
pub(super) async fn events(
    _: ApiActor,
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let sensor: Option<SensorId> = match params.text("sensor") {
        Some(id) => super::sensors::find(&app, id).await?.id.parse().ok(),
        None => None,
    };
    let export = Export {
        servers: app.backend.detections().into_iter().map(|(number, _)| number).collect(),
        app,
        sensor: sensor.map(|sensor| sensor.to_string()),
        cursor: EventCursor::default(),
        end: None,
        told: Told::default(),
        failures: Vec::new(),
        unread: Unread::default(),
        is_done: false,
    };
    let lines = stream::unfold(export, |mut export| async move {
        let text = export.next().await?;
        Some((Ok::<_, Infallible>(text), export))
    });
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((content_type, HttpBody::from_stream(lines)).into_response())
}

/// Where an export stands: one server after the other, each to the end it had when it was begun.
struct Export {
    app: App,
    sensor: Option<String>,
    servers: VecDeque<usize>,
    cursor: EventCursor,
    /// Milliseconds: facts received later than the export began to read a server are not waited
    /// for, so that a busy server's export ends.
    end: Option<u64>,
    told: Told,
    failures: Vec<String>,
    unread: Unread,
    is_done: bool,
}

impl Export {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        while let Some(number) = self.servers.front().copied() {
            let now_ms = lapwing_net::clock::unix_ms();
            let end_ms = *self.end.get_or_insert(now_ms);
            match self.app.backend.events(number, self.cursor, FEED_PAGE_MAX, 0).await {
                Ok(run) => {
                    let newest_ms = run.events.last().map_or(0, |event| event.received.ms());
                    let is_stuck = run.events.is_empty() && run.next == self.cursor;
                    self.cursor = run.next;
                    if run.at_end || is_stuck || newest_ms > end_ms {
                        self.next_server();
                    }
                    let text = self.lines(run.events);
                    if !text.is_empty() {
                        return Some(text);
                    }
                }
                Err(error) => {
                    self.failures.push(error.to_string());
                    self.next_server();
                }
            }
        }
        if self.is_done {
            return None;
        }
        self.is_done = true;
        let missing: Vec<String> = self.failures.drain(..).chain(self.unread.words()).collect();
        if missing.is_empty() {
            return None;
        }
        let reason = missing.join("; ");
        Some(format!("{}\n", json!({ "partial": true, "reason": reason })))
    }

    fn next_server(&mut self) {
        self.servers.pop_front();
        self.cursor = EventCursor::default();
        self.end = None;
        self.told.next_server();
    }

    fn lines(&mut self, events: Vec<Event>) -> String {
        let mut text = String::new();
        for event in events {
            let is_unknown = event.sensor == SensorId([0; 16]).to_string();
            let is_other = self.sensor.as_ref().is_some_and(|sensor| *sensor != event.sensor);
            if is_other && !is_unknown || !self.told.is_news(&event) {
                continue;
            }
            self.unread.take(&event);
            match serde_json::to_string(&event) {
                Ok(line) => {
                    text.push_str(&line);
                    text.push('\n');
                }
                Err(error) => self.failures.push(error.to_string()),
            }
        }
        text
    }
}

/// A log's place: sensor, lane, log.
type LogKey = (String, &'static str, String);

/// Which chunks were told of, so that one that lies on several servers is told once.
///
/// A server stores the chunks of a log in ascending order, each once, so what it told of a log is a
/// few runs of sequences, however many facts are in them.
#[derive(Default)]
struct Told {
    /// By the servers before.
    before: BTreeMap<LogKey, Vec<RangeInclusive<u64>>>,
    /// By the server that is read.
    now: BTreeMap<LogKey, Vec<RangeInclusive<u64>>>,
}

impl Told {
    /// Whether no server before told of the chunk that `event` stands in. A Jump is a server's own:
    /// it says what is not there, and that may be on another server. So is damage.
    fn is_news(&mut self, event: &Event) -> bool {
        if matches!(event.op.as_str(), "jump" | "damaged") {
            return true;
        }
        let log = (event.sensor.clone(), event.lane, event.log.clone());
        let before = self.before.get(&log).map_or(&[] as &[_], Vec::as_slice);
        if before.iter().any(|run| run.contains(&event.seq)) {
            return false;
        }
        let runs = self.now.entry(log).or_default();
        match runs.last_mut() {
            Some(last) if *last.end() == event.seq => {}
            Some(last) if last.end() + 1 == event.seq => *last = *last.start()..=event.seq,
            _ => runs.push(event.seq..=event.seq),
        }
        true
    }

    fn next_server(&mut self) {
        for (log, runs) in std::mem::take(&mut self.now) {
            self.before.entry(log).or_default().extend(runs);
        }
    }
}

#[cfg(test)]
mod tests {
    use lapwing_protocol::console::EventView;
    use lapwing_protocol::id::{Lane, LogId};
    use lapwing_protocol::items::Items;

    use super::*;
    use crate::view::Cell;

    fn event(seq: u64, index: u64, op: &str) -> Event {
        let view = EventView {
            sensor: SensorId([1; 16]),
            machine: "m",
            lane: Lane::Bulk,
            log: LogId([2; 16]),
            seq,
            index,
            source_seq: None,
            time_ns: 0,
            received_ms: 0,
            kind: "",
            op,
            element: ElementGuid([0; 16]),
            fields: Items::EMPTY,
        };
        Event::new(view, "d").unwrap()
    }

    /// DLV-014: whoever reads more than one server merges by sensor, lane, log and sequence.
    #[test]
    fn a_chunk_on_two_servers_is_told_once_and_a_jump_hides_nothing() {
        let mut told = Told::default();
        let mut news = |of: &[(u64, u64, &str)], next: bool| {
            let answers = of.iter().map(|(seq, index, op)| told.is_news(&event(*seq, *index, op)));
            let answers: Vec<bool> = answers.collect();
            if next {
                told.next_server();
            }
            answers
        };
        // The first server has a Jump over chunk 1, whose index is that of the chunk's first fact.
        assert_eq!(news(&[(1, 1, "jump"), (2, 3, "event"), (2, 4, "event")], true), [true; 3]);
        let second = [(1, 1, "event"), (1, 2, "event"), (2, 3, "event"), (3, 5, "event")];
        assert_eq!(news(&second, false), [true, true, false, true]);
    }

    #[test]
    fn what_could_not_be_read_is_said_by_its_log_and_hides_nothing() {
        let fields = |count: u64| {
            [("commit", 9), ("count", count)]
                .map(|(name, value)| (String::from(name), Cell::U64(value)))
        };
        let damaged = |sensor: u8, count| Event {
            sensor: SensorId([sensor; 16]).to_string(),
            fields: fields(count).into_iter().collect(),
            ..event(9, 0, "damaged")
        };
        let mut unread = Unread::default();
        assert!(!unread.take(&event(8, 8, "event")));
        assert!([damaged(1, 1), damaged(1, 1), damaged(0, 300)].iter().all(|it| unread.take(it)));
        let words: Vec<String> = unread.words().collect();
        let log = LogId([2; 16]);
        let named = format!(
            "d: 2 entries of sensor {}, lane bulk, log {log} cannot be read, the first is entry 9",
            SensorId([1; 16])
        );
        let unknown = "d: 300 entries of an unknown sensor cannot be read, the first is entry 9";
        assert_eq!(words, [unknown.to_owned(), named]);

        let mut told = Told::default();
        assert!(told.is_news(&damaged(1, 1)));
        told.next_server();
        assert!(told.is_news(&event(9, 9, "event")), "another server has it");
    }
}
