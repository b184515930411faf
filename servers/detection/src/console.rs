//! The console port: what other servers ask a Detection server.
//!
//! Not here: what is known (analyst.rs, and who implements [`Sources`]). Invariants: a role calls
//! only what [`ACCESS`] gives it; a query holds the graph for one slice at a time; nothing here
//! changes a sensor but a command of sensor management.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapwing_net::clock;
use lapwing_net::identity::Role;
use lapwing_net::peer::{Caller, Failure, Service, from_body};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::console::{CommandPut, ElementQuery, ProcessTreeRequest};
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::id::Incarnation;
use lapwing_protocol::items::Items;
use lapwing_protocol::ledger::{LedgerRequest, LedgerVerify};
use lapwing_protocol::limits::{FEED_PAGE_MAX, FEED_WAIT_MS_MAX};
use lapwing_server_core::query::limits::SLICE_WORK;
use lapwing_server_core::query::{Progress, QueryLimits, Search, Vocabulary, parse};
use lapwing_server_core::view::{OwnedElement, elements_bytes, message_bytes};
use smol::Timer;

use crate::analyst::Knowledge;

/// A reply on its way.
pub(crate) type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// A page of the export of facts.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// `Items<EventView>`.
    pub(crate) items: Vec<u8>,
    /// The cursor behind it.
    pub(crate) next_cursor: u64,
    /// Whether it reaches the present end.
    pub(crate) at_end: bool,
}

/// What the rest of the server knows and does. Methods that may take long say so by waiting.
pub(crate) trait Sources: Send + Sync + 'static {
    /// `Items<SensorView>`.
    fn sensors(&self) -> Answering<'_, Vec<u8>>;

    /// `LedgerPage`.
    fn ledger(&self, request: LedgerRequest) -> Answering<'_, Vec<u8>>;

    /// `LedgerVerified`.
    fn ledger_verify(&self, request: LedgerVerify) -> Answering<'_, Vec<u8>>;

    /// `ServerStatus`.
    fn status(&self) -> Answering<'_, Vec<u8>>;

    /// The incarnation of the journal.
    fn facts_incarnation(&self) -> Incarnation;

    /// Facts from `cursor` on, about `limit` of them.
    fn facts(&self, cursor: u64, limit: u32) -> Answering<'_, Facts>;

    /// Ends when there are facts behind `cursor`.
    fn facts_behind(&self, cursor: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Queues a command, durably.
    fn command(&self, put: CommandPut) -> Answering<'_, ()>;
}

/// Every method of this port with the roles that may call it.
pub(crate) const ACCESS: &[(Method, &[Role])] = &[
    (Method::SENSORS, &[Role::Webapp, Role::Fleet, Role::Ctl]),
    (Method::ELEMENTS, &[Role::Webapp, Role::Malops, Role::Ctl]),
    (Method::EVIDENCE, &[Role::Webapp, Role::Malops, Role::Ctl]),
    (Method::EVENTS, &[Role::Webapp, Role::Ctl]),
    (Method::COMMAND, &[Role::Fleet]),
    (Method::OUTCOMES, &[Role::Webapp, Role::Fleet, Role::Ctl]),
    (Method::LEDGER, &[Role::Webapp, Role::Fleet, Role::Ctl]),
    (Method::LEDGER_VERIFY, &[Role::Webapp, Role::Fleet, Role::Ctl]),
    (Method::PROCESS_TREE, &[Role::Webapp, Role::Malops, Role::Ctl]),
    (Method::STATUS, &[Role::Webapp, Role::Malops, Role::Fleet, Role::Registration, Role::Ctl]),
];

/// Parents and children in one answer about a process, at the most of each.
const TREE_MAX: u32 = 256;

/// Refuses a caller that `access` does not let call `method`.
///
/// # Errors
/// [`Code::UNSUPPORTED`] where nobody may, [`Code::FORBIDDEN`] where this role may not.
pub(crate) fn authorise(
    access: &[(Method, &[Role])],
    role: Option<Role>,
    method: Method,
) -> Result<(), Failure> {
    let Some((_, roles)) = access.iter().find(|(of, _)| *of == method) else {
        let text = format!("method {} is not served on this port", method.0);
        return Err(Failure::new(Code::UNSUPPORTED, text));
    };
    if role.is_some_and(|role| roles.contains(&role)) {
        return Ok(());
    }
    let who = role.map_or("nobody", Role::name);
    let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    let text = format!("the role {who} may not call this; it is for {}", names.join(", "));
    Err(Failure::new(Code::FORBIDDEN, text))
}

/// The service of the console port.
pub(crate) struct Console {
    knowledge: Arc<Knowledge>,
    sources: Arc<dyn Sources>,
}

impl Service for Console {
    async fn call(
        &self,
        caller: Caller,
        method: Method,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, Failure> {
        let role = caller.identity.map(|identity| identity.role);
        self.answer(role, method, &body).await
    }
}

impl Console {
    /// A console over what is known.
    pub(crate) fn new(knowledge: Arc<Knowledge>, sources: Arc<dyn Sources>) -> Self {
        Self { knowledge, sources }
    }

    /// Answers one call of a peer of `role`.
    ///
    /// # Errors
    /// The caller may not, the body is not what the method takes, or what the method says.
    pub(crate) async fn answer(
        &self,
        role: Option<Role>,
        method: Method,
        body: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        authorise(ACCESS, role, method)?;
        let all: fn(&[u8]) -> bool = |_| true;
        match method {
            Method::SENSORS => self.sources.sensors().await,
            Method::LEDGER => self.sources.ledger(from_body(body)?).await,
            Method::LEDGER_VERIFY => self.sources.ledger_verify(from_body(body)?).await,
            Method::STATUS => self.sources.status().await,
            Method::ELEMENTS => self.elements(&from_body(body)?).await,
            Method::PROCESS_TREE => self.process_tree(from_body(body)?).await,
            Method::EVENTS => self.events(from_body(body)?).await,
            Method::EVIDENCE => {
                Arc::clone(&self.knowledge.evidence).answer(from_body(body)?, all).await
            }
            Method::OUTCOMES => {
                Arc::clone(&self.knowledge.outcomes).answer(from_body(body)?, all).await
            }
            Method::COMMAND => {
                self.sources.command(from_body(body)?).await?;
                Ok(Vec::new())
            }
            // `authorise` lets nothing else through.
            _ => Err(Failure::new(Code::UNSUPPORTED, "this method is not served here")),
        }
    }

    async fn elements(&self, query: &ElementQuery<'_>) -> Result<Vec<u8>, Failure> {
        let vocabulary = Vocabulary::of(self.knowledge.judge.lock().await.graph());
        let parsed = parse(clock::unix_ms(), query.expression, &vocabulary)
            .map_err(|error| Failure::new(Code::BAD_ARGUMENT, error.to_string()))?;
        let mut search = Search::new(parsed, QueryLimits::new(query.limit, query.timeout_ms));
        loop {
            let judge = self.knowledge.judge.lock().await;
            if search.advance(judge.graph(), SLICE_WORK) == Progress::Done {
                return Ok(search.finish(judge.graph()).to_bytes());
            }
            drop(judge);
            smol::future::yield_now().await;
        }
    }

    /// The process, its parents nearest first, then its children.
    async fn process_tree(&self, request: ProcessTreeRequest) -> Result<Vec<u8>, Failure> {
        let judge = self.knowledge.judge.lock().await;
        let graph = judge.graph();
        let Some(process) = graph.find(request.process) else {
            let text = format!(
                "no element {} is in memory; if it ended long ago its facts are in the journal",
                request.process
            );
            return Err(Failure::new(Code::NOT_FOUND, text));
        };
        let parents_max = request.parents_max.min(TREE_MAX) as usize + 1;
        let children_max = request.children_max.min(TREE_MAX) as usize;
        let chain = graph.chain(process, parents_max);
        let children = graph.children(request.process, children_max);
        let views: Vec<OwnedElement> =
            chain.into_iter().chain(children).map(|element| graph.describe(element)).collect();
        Ok(elements_bytes(&views))
    }

    async fn events(&self, request: FeedRequest) -> Result<Vec<u8>, Failure> {
        let incarnation = self.sources.facts_incarnation();
        let mut cursor = if request.incarnation == Some(incarnation) { request.cursor } else { 0 };
        let limit =
            if request.limit == 0 { FEED_PAGE_MAX } else { request.limit.min(FEED_PAGE_MAX) };
        let wait_ms = u64::from(request.wait_ms.min(FEED_WAIT_MS_MAX));
        let until = Instant::now() + Duration::from_millis(wait_ms);
        loop {
            let facts = self.sources.facts(cursor, limit).await?;
            if !facts.items.is_empty() || !facts.at_end || Instant::now() >= until {
                return Ok(message_bytes(&FeedPage::<()> {
                    incarnation,
                    next_cursor: facts.next_cursor,
                    at_end: facts.at_end,
                    items: Items::from_bytes(&facts.items),
                }));
            }
            cursor = facts.next_cursor;
            let late = async {
                Timer::at(until).await;
            };
            smol::future::or(self.sources.facts_behind(cursor), late).await;
        }
    }
}
