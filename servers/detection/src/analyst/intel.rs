//! The talk with the Private Threat Intel server: questions, and its feed of changes.
//!
//! Not here: what is asked and what follows from an answer (`lapwing_server_core`). Without such a
//! server every indicator is unknown, and nothing is asked.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lapwing_net::peer::{CallError, PeerClient};
use lapwing_net::runtime::Executor;
use lapwing_protocol::call::Method;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::id::Incarnation;
use lapwing_protocol::intel::{Classification, ClassifyRequest, ReputationChange, Source, Verdict};
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::{FEED_PAGE_MAX, FEED_WAIT_MS_MAX};
use lapwing_server_core::evidence::Evidence;
use lapwing_server_core::intel_cache::limits::RECHECK_MS_MAX;
use lapwing_server_core::intel_cache::{OwnedVerdict, Question};
use lapwing_server_core::view::message_bytes;
use smol::Timer;
use smol::channel::Sender;

use super::limits::{CHANGES_PAUSE, CHANGES_TIME, QUESTION_TIME};

/// A reply on its way.
pub(crate) type Replying<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<u8>, CallError>> + Send + 'a>>;

/// Who is asked.
pub(crate) trait Ask: Send + Sync + 'static {
    /// Calls `method` and waits at most `time` for the whole reply.
    fn ask(&self, method: Method, body: Vec<u8>, time: Duration) -> Replying<'_>;
}

impl Ask for PeerClient {
    fn ask(&self, method: Method, body: Vec<u8>, time: Duration) -> Replying<'_> {
        Box::pin(async move { self.call(method, &body, time).await })
    }
}

/// What the talk brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// An answer to a question.
    Verdicts(u64, Vec<OwnedVerdict>),
    /// A question got no answer.
    Unreachable(u64),
    /// Verdicts that changed, and where to go on reading.
    Changes(Vec<OwnedVerdict>, Reading),
    /// What sensors' deliveries gave cause for; it is durable already.
    Found(Vec<Evidence>),
}

/// Where the feed of changes was read to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Reading {
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) cursor: u64,
}

/// The line to the Private Threat Intel server, or that there is none.
#[derive(Clone)]
pub(crate) struct Intel {
    executor: Executor,
    server: Option<Arc<dyn Ask>>,
    pub(super) heard: Sender<Heard>,
}

impl Intel {
    pub(crate) fn new(
        executor: Executor,
        server: Option<Arc<dyn Ask>>,
        heard: Sender<Heard>,
    ) -> Self {
        Self { executor, server, heard }
    }

    /// Asks, without waiting for the answer.
    pub(crate) fn ask(&self, now_ms: u64, question: Question) {
        let (server, heard) = (self.server.clone(), self.heard.clone());
        let asking = async move {
            let answer = match server {
                None => Heard::Verdicts(question.number, unknown(now_ms, &question)),
                Some(server) => classify(&*server, &question).await,
            };
            // The analyst ended; so does this.
            let _ = heard.send(answer).await;
        };
        self.executor.spawn(asking).detach();
    }

    /// Reads the feed of changes from `reading` on, until the analyst ends.
    pub(crate) fn follow_changes(&self, reading: Reading) {
        let Some(server) = self.server.clone() else { return };
        self.executor.spawn(follow(server, reading, self.heard.clone())).detach();
    }
}

/// What every indicator is where nobody can be asked.
fn unknown(now_ms: u64, question: &Question) -> Vec<OwnedVerdict> {
    let verdicts = question.keys.iter().map(|key| OwnedVerdict {
        key: key.clone(),
        classification: Classification::Unknown,
        source: Source::None,
        comment: String::new(),
        checked_ms: now_ms,
        recheck_ms: now_ms.saturating_add(RECHECK_MS_MAX),
        stale: false,
    });
    verdicts.collect()
}

async fn classify(server: &dyn Ask, question: &Question) -> Heard {
    let indicators = question.indicators_bytes();
    let body = message_bytes(&ClassifyRequest { indicators: Items::from_bytes(&indicators) });
    match server.ask(Method::CLASSIFY, body, QUESTION_TIME).await {
        Ok(reply) => Heard::Verdicts(question.number, verdicts(&reply)),
        Err(error) => {
            log::warn!("indicators wait for their verdicts: {error}");
            Heard::Unreachable(question.number)
        }
    }
}

/// The verdicts of an answer; what is not sound in it counts as not answered.
fn verdicts(reply: &[u8]) -> Vec<OwnedVerdict> {
    let items = Items::<Verdict<'_>>::from_bytes(reply);
    let sound = items.iter().filter_map(|verdict| OwnedVerdict::from_wire(&verdict.ok()?));
    sound.collect()
}

async fn follow(server: Arc<dyn Ask>, mut reading: Reading, heard: Sender<Heard>) {
    let mut is_reachable = true;
    while !heard.is_closed() {
        let request = FeedRequest {
            incarnation: reading.incarnation,
            cursor: reading.cursor,
            limit: FEED_PAGE_MAX,
            wait_ms: FEED_WAIT_MS_MAX,
        };
        let body = message_bytes(&request);
        let reply = server.ask(Method::REPUTATION_CHANGES, body, CHANGES_TIME).await;
        let page = reply.map_err(|error| error.to_string()).and_then(|reply| {
            changes(&reply).map_err(|error| format!("the feed of changes is malformed: {error}"))
        });
        match page {
            Ok((changes, next)) => {
                is_reachable = true;
                reading = next;
                if !changes.is_empty() && heard.send(Heard::Changes(changes, next)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if is_reachable {
                    log::warn!("changes of verdicts are not heard for now: {error}");
                }
                is_reachable = false;
                Timer::after(CHANGES_PAUSE).await;
            }
        }
    }
}

fn changes(
    reply: &[u8],
) -> Result<(Vec<OwnedVerdict>, Reading), lapwing_protocol::error::DecodeError> {
    let page: FeedPage<'_, ReputationChange<'_>> = from_bytes(reply)?;
    let mut changes = Vec::new();
    for change in page.items.iter() {
        changes.extend(OwnedVerdict::from_wire(&change?.verdict));
    }
    let reading = Reading { incarnation: Some(page.incarnation), cursor: page.next_cursor };
    Ok((changes, reading))
}
