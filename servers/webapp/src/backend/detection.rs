//! Questions to Detection servers, side by side over all of them.

use std::time::Duration;

use lapwing_protocol::call::Method;
use lapwing_protocol::console::{ElementQuery, ElementRows, ElementView, EventView};
use lapwing_protocol::console::{EvidenceView, ProcessTreeRequest};
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::id::{ElementGuid, Incarnation};
use lapwing_protocol::items::Items;

use super::{Backend, BackendError, Peer, join_all};
use crate::limits::{CALL_TIME, QUERY_TIME};
use crate::view::{Element, Event, Evidence, Rows, owned};

/// Where a reader of one server's events stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EventCursor {
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) cursor: u64,
}

/// A run of one server's events.
pub(crate) struct EventRun {
    pub(crate) events: Vec<Event>,
    pub(crate) next: EventCursor,
    pub(crate) at_end: bool,
}

impl Backend {
    /// Asks every Detection server the same question and merges the rows; what a server cannot
    /// answer is said in the reason.
    pub(crate) async fn query(&self, expression: &str, limit: u32) -> Result<Rows, BackendError> {
        let servers = self.detections();
        let time_ms = QUERY_TIME.as_millis().saturating_sub(500);
        let request = ElementQuery {
            expression,
            limit,
            timeout_ms: u32::try_from(time_ms).unwrap_or(u32::MAX),
        };
        let answers = join_all(servers.iter().map(|(number, _)| {
            let read = |reply: &[u8]| Ok(reply.to_vec());
            self.ask_within(Peer::Detection(*number), Method::ELEMENTS, &request, QUERY_TIME, read)
        }))
        .await;
        let mut rows = Rows::default();
        let mut failures = Vec::new();
        for ((_, name), answer) in servers.iter().zip(answers) {
            let added = answer.and_then(|reply| {
                from_bytes::<ElementRows<'_>>(&reply)
                    .and_then(|answer| rows.add(&answer, name))
                    .map_err(|error| BackendError::unreadable(name, error))
            });
            failures.extend(added.err());
        }
        if failures.len() == servers.len() {
            return Err(failures.pop().unwrap_or_else(no_server));
        }
        for failure in failures {
            rows.miss(&failure.message);
        }
        rows.cut(limit as usize);
        Ok(rows)
    }

    /// Reads a run of one server's events.
    pub(crate) async fn events(
        &self,
        number: usize,
        from: EventCursor,
        limit: u32,
        wait_ms: u32,
    ) -> Result<EventRun, BackendError> {
        let (incarnation, cursor) = (from.incarnation, from.cursor);
        let request = FeedRequest { incarnation, cursor, limit, wait_ms };
        let time = CALL_TIME + Duration::from_millis(u64::from(wait_ms));
        let peer = Peer::Detection(number);
        let server = self.name_of(peer).unwrap_or_default();
        self.ask_within(peer, Method::EVENTS, &request, time, |reply| {
            let page = from_bytes::<FeedPage<'_, EventView<'_>>>(reply)?;
            Ok(EventRun {
                events: owned(&page.items, |event| Event::new(event, &server))?,
                next: EventCursor { incarnation: Some(page.incarnation), cursor: page.next_cursor },
                at_end: page.at_end,
            })
        })
        .await
    }

    /// The newest malware alerts of every Detection server's malware port, newest first, and what
    /// is missing.
    pub(crate) async fn malware(&self, limit: u32) -> (Vec<Evidence>, Vec<BackendError>) {
        let servers = self.detections();
        let request = FeedRequest { incarnation: None, cursor: 0, limit, wait_ms: 0 };
        let answers = join_all(servers.iter().map(|(number, _)| {
            self.ask(Peer::Malware(*number), Method::MALWARE, &request, |reply| {
                let page = from_bytes::<FeedPage<'_, EvidenceView<'_>>>(reply)?;
                owned(&page.items, Evidence::try_from)
            })
        }))
        .await;
        let (mut alerts, mut failures) = (Vec::new(), Vec::new());
        for answer in answers {
            match answer {
                Ok(found) => alerts.extend(found),
                Err(failure) => failures.push(failure),
            }
        }
        alerts.sort_by_key(|alert: &Evidence| std::cmp::Reverse(alert.raised));
        alerts.truncate(limit as usize);
        (alerts, failures)
    }

    /// A process with its parents and children, from whichever server knows it.
    pub(crate) async fn process_tree(
        &self,
        process: ElementGuid,
    ) -> Result<Vec<Element>, BackendError> {
        let servers = self.detections();
        let request = ProcessTreeRequest { process, parents_max: 32, children_max: 256 };
        let answers = join_all(servers.iter().map(|(number, _)| {
            self.ask(Peer::Detection(*number), Method::PROCESS_TREE, &request, |reply| {
                owned(&Items::<ElementView<'_>>::from_bytes(reply), Element::try_from)
            })
        }))
        .await;
        let mut failure = None;
        for answer in answers {
            match answer {
                Ok(elements) if !elements.is_empty() => return Ok(elements),
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or_else(|| Ok(Vec::new()), Err)
    }
}

pub(super) fn no_server() -> BackendError {
    let message =
        "there is no Detection server here; start one and name it in `[[peers.detection]]`";
    BackendError::new(lapwing_protocol::code::Code::UNREACHABLE, message)
}
