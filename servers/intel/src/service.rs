//! The calls that a Threat Intel server answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::Event;
use lapwing_net::clock;
use lapwing_net::host::{Host, Myself};
use lapwing_net::identity::{PeerIdentity, Role};
use lapwing_net::peer::{Caller, Failure, PeerClient, Service, from_body, to_body};
use lapwing_net::tls::{ClientTls, ExpectedPeer, Plane};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::feed::{FeedPage, FeedRequest, Page, PageRequest};
use lapwing_protocol::intel::{
    ClassifyRequest, Indicator, ReputationChange, ReputationPut, ReputationRemove, ReputationView,
    Source, Verdict,
};
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::{CLASSIFY_KEYS_MAX, FEED_PAGE_MAX, FEED_WAIT_MS_MAX};
use lapwing_server_core::intel_cache::{IndicatorKey, OwnedVerdict};
use lapwing_server_core::reputation::{Consultation, nobody_knows};
use lapwing_server_core::view::push_item;
use lapwing_store::RowStore;
use smol::Timer;

use crate::book::Book;
use crate::config::Config;
use crate::counts::Counts;
use crate::{file, global};

/// How long a question waits for somebody else's question about the same indicator.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(4);
/// How often expiries are looked for when none is near.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// Everything a Threat Intel server knows.
pub(crate) struct Intel {
    role: Role,
    book: Book,
    global: Option<PeerClient>,
    consultation: Mutex<Consultation>,
    /// Notified when Global's word on something came.
    answered: Event,
    counts: Counts,
    myself: Arc<Myself>,
    rows: RowStore,
}

impl Intel {
    /// Blocks on the disk.
    pub(crate) fn open(config: &Config, host: &Host, rows: RowStore) -> Result<Self, String> {
        let role = config.server.role;
        let source = match role {
            Role::IntelGlobal => Source::Global,
            _ => Source::Private,
        };
        let book = Book::open(source, config.list.entries_max, rows.clone())?;
        let global = match &config.global {
            Some(global) => Some(client_of_global(global, host)?),
            None => None,
        };
        let intel = Self {
            role,
            book,
            global,
            consultation: Mutex::default(),
            answered: Event::new(),
            counts: Counts::registered(host.metrics()),
            myself: host.myself(),
            rows,
        };
        if let Some(path) = &config.list.file {
            let now_ms = clock::unix_ms();
            let taken = file::read(path, |put| {
                smol::block_on(intel.book.put(now_ms, put)).map_err(|failure| failure.text)
            })?;
            log::info!("{}: {taken} indicators", path.display());
        }
        intel.count_entries();
        Ok(intel)
    }

    fn count_entries(&self) {
        self.counts.set_entries(self.book.look(|list| list.entries().len()));
    }

    fn consultation(&self) -> MutexGuard<'_, Consultation> {
        self.consultation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes entries off when their time is over. Never ends.
    pub(crate) async fn expire(self: Arc<Self>) {
        loop {
            let changed = self.book.changed.listen();
            let wait = match self.book.expire(clock::unix_ms()).await {
                Ok(Some(at_ms)) => {
                    Duration::from_millis(at_ms.saturating_sub(clock::unix_ms())).min(EXPIRE_EVERY)
                }
                Ok(None) => EXPIRE_EVERY,
                Err(failure) => {
                    log::error!("expired entries cannot be taken off: {}", failure.text);
                    EXPIRE_EVERY
                }
            };
            self.count_entries();
            let timer = async {
                Timer::after(wait).await;
            };
            smol::future::or(timer, changed).await;
        }
    }

    async fn classify(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let request: ClassifyRequest<'_> = from_body(body)?;
        let mut keys = Vec::new();
        for indicator in &request.indicators {
            let indicator =
                indicator.map_err(|error| Failure::new(Code::MALFORMED, error.to_string()))?;
            let key = IndicatorKey::from_indicator(indicator).ok_or_else(|| {
                let text = format!("{:?} is no {}", indicator.key, indicator.key_type.name());
                Failure::new(Code::BAD_ARGUMENT, text)
            })?;
            self.counts.asked(key.key_type());
            keys.push(key);
            if keys.len() > CLASSIFY_KEYS_MAX {
                let text = format!("at most {CLASSIFY_KEYS_MAX} indicators at a time");
                return Err(Failure::new(Code::TOO_LARGE, text));
            }
        }
        self.consult(&keys).await;
        let now_ms = clock::unix_ms();
        let mut items = Vec::new();
        for key in &keys {
            push_verdict(&mut items, &self.opinion(now_ms, key), |items, verdict| {
                push_item(items, verdict);
            });
        }
        Ok(items)
    }

    /// The present opinion of `key`, by this server's list or Global's last word.
    fn opinion(&self, now_ms: u64, key: &IndicatorKey) -> OwnedVerdict {
        let own = self.book.look(|list| list.opinion(now_ms, key));
        match (own, &self.global) {
            (Some(own), _) if own.classification.is_definitive() => own,
            (_, Some(_)) => self.consultation().word(now_ms, key),
            (own, None) => own.unwrap_or_else(|| nobody_knows(now_ms, key)),
        }
    }

    /// Asks Global about those of `keys` that this server has no opinion of, and waits for what
    /// others have asked it.
    async fn consult(&self, keys: &[IndicatorKey]) {
        let Some(global) = &self.global else { return };
        let now_ms = clock::unix_ms();
        let has_own = |key: &IndicatorKey| {
            let own = self.book.look(|list| list.opinion(now_ms, key));
            own.is_some_and(|own| own.classification.is_definitive())
        };
        let open: Vec<IndicatorKey> = keys.iter().filter(|key| !has_own(key)).cloned().collect();
        let asked = self.consultation().begin(now_ms, &open);
        if !asked.is_empty() {
            self.ask(global, asked).await;
        }
        let others = async {
            loop {
                let answered = self.answered.listen();
                let waits = {
                    let consultation = self.consultation();
                    open.iter().any(|key| consultation.is_in_flight(key))
                };
                if !waits {
                    return;
                }
                answered.await;
            }
        };
        let late = async {
            Timer::after(WAIT_FOR_OTHERS).await;
        };
        smol::future::or(others, late).await;
    }

    async fn ask(&self, global: &PeerClient, asked: Vec<IndicatorKey>) {
        // Whoever asked goes away when its connection ends; others may wait for the answer.
        let mut question = Question { intel: self, keys: asked, settled: false };
        for key in &question.keys {
            // What leaves the organisation is written down, indicator by indicator.
            log::info!("asked Global about {} {key}", key.key_type().name());
            self.counts.asked_global(key.key_type());
        }
        let answer = global::ask(global, &question.keys).await;
        let now_ms = clock::unix_ms();
        match answer {
            Ok(verdicts) => {
                self.consultation().handle_answer(now_ms, &question.keys, verdicts);
            }
            Err(error) => {
                log::warn!("Global Threat Intel: {error}; its last word stands");
                self.counts.global_unreachable();
                self.consultation().handle_unreachable(now_ms, &question.keys);
            }
        }
        question.settled = true;
        self.answered.notify(usize::MAX);
    }

    async fn changes(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let request: FeedRequest = from_body(body)?;
        let incarnation = self.book.incarnation();
        let known = request.incarnation == Some(incarnation);
        let cursor = if known { request.cursor } else { 0 };
        let limit = request.limit.clamp(1, FEED_PAGE_MAX) as usize;
        let grown = async {
            loop {
                let changed = self.book.changed.listen();
                let changes = self.book.changes(cursor, limit);
                if !changes.keys.is_empty() {
                    return changes;
                }
                changed.await;
            }
        };
        let late = async {
            let wait_ms = request.wait_ms.min(FEED_WAIT_MS_MAX);
            Timer::after(Duration::from_millis(wait_ms.into())).await;
            self.book.changes(cursor, limit)
        };
        let changes = smol::future::or(grown, late).await;
        let now_ms = clock::unix_ms();
        let mut items = Vec::new();
        for key in &changes.keys {
            push_verdict(&mut items, &self.opinion(now_ms, key), |items, verdict| {
                push_item(items, &ReputationChange { verdict: *verdict });
            });
        }
        to_body(&FeedPage::<ReputationChange<'_>> {
            incarnation,
            next_cursor: changes.next_cursor,
            at_end: changes.at_end,
            items: Items::from_bytes(&items),
        })
    }

    fn list(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let request: PageRequest = from_body(body)?;
        let limit = request.limit.min(FEED_PAGE_MAX) as usize;
        self.book.look(|list| {
            let mut items = Vec::new();
            for listing in list.entries().skip(request.offset as usize).take(limit) {
                listing.with_view(|view| push_item(&mut items, view));
            }
            let total = u32::try_from(list.entries().len()).unwrap_or(u32::MAX);
            to_body(&Page::<ReputationView<'_>> { total, items: Items::from_bytes(&items) })
        })
    }

    async fn put(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let put: ReputationPut<'_> = from_body(body)?;
        self.book.put(clock::unix_ms(), &put).await?;
        self.count_entries();
        Ok(Vec::new())
    }

    async fn remove(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let remove: ReputationRemove<'_> = from_body(body)?;
        self.book.remove(remove.indicator).await?;
        self.count_entries();
        Ok(Vec::new())
    }

    fn status(&self) -> Result<Vec<u8>, Failure> {
        let failure = self.rows.failure().map(|error| error.to_string());
        let trouble = failure.or_else(|| {
            let global = self.global.as_ref()?;
            let lost = !global.is_connected();
            lost.then(|| {
                String::from("Global Threat Intel cannot be reached; its last word stands")
            })
        });
        self.myself.status(trouble.as_deref().unwrap_or_default())
    }

    /// Whether this caller may change the list: an operator, and at Global the vendor alone. Global
    /// takes callers of any deployment, so the role alone does not say whose it is.
    fn may_change(&self, caller: Option<PeerIdentity>) -> Result<(), Failure> {
        let own = self.myself.identity.deployment;
        let role = caller.filter(|caller| caller.deployment == own).map(|caller| caller.role);
        match (self.role, role) {
            (Role::IntelPrivate, Some(Role::Webapp | Role::Ctl)) => Ok(()),
            (Role::IntelGlobal, Some(Role::IntelGlobal)) => Ok(()),
            (Role::IntelGlobal, _) => Err(Failure::new(
                Code::FORBIDDEN,
                "the shared list is the vendor's; put the indicator on the organisation's own list",
            )),
            _ => Err(Failure::new(
                Code::FORBIDDEN,
                "only an operator changes the list, by the WebApp",
            )),
        }
    }
}

impl Service for Intel {
    async fn call(
        &self,
        caller: Caller,
        method: Method,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, Failure> {
        match (caller.plane, method) {
            (Plane::Peer, Method::CLASSIFY) => self.classify(&body).await,
            (Plane::Peer, Method::REPUTATION_CHANGES) => self.changes(&body).await,
            (Plane::Peer, Method::REPUTATIONS) => self.list(&body),
            (Plane::Peer, Method::REPUTATION_PUT) => {
                self.may_change(caller.identity)?;
                self.put(&body).await
            }
            (Plane::Peer, Method::REPUTATION_REMOVE) => {
                self.may_change(caller.identity)?;
                self.remove(&body).await
            }
            (Plane::Peer, Method::STATUS) => self.status(),
            _ => Err(Failure::new(
                Code::UNSUPPORTED,
                format!("a Threat Intel server has no method {} on this plane", method.0),
            )),
        }
    }
}

/// A question to Global under way; when it is dropped unanswered, others may ask again.
struct Question<'i> {
    intel: &'i Intel,
    keys: Vec<IndicatorKey>,
    settled: bool,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.intel.consultation().abandon(&self.keys);
            self.intel.answered.notify(usize::MAX);
        }
    }
}

fn client_of_global(global: &crate::config::Global, host: &Host) -> Result<PeerClient, String> {
    let credentials = host
        .credentials()
        .clone()
        .with_server_authority(&global.ca)
        .map_err(|error| format!("global.ca: {error}"))?;
    let expected = ExpectedPeer::of_vendor(Role::IntelGlobal);
    let tls =
        ClientTls::new(&credentials, Plane::Peer, expected).map_err(|error| error.to_string())?;
    let addresses = global.addresses.clone();
    Ok(PeerClient::new(host.executor(), "Global Threat Intel", addresses, tls))
}

fn push_verdict(
    items: &mut Vec<u8>,
    verdict: &OwnedVerdict,
    push: impl FnOnce(&mut Vec<u8>, &Verdict<'_>),
) {
    let text = verdict.key.to_string();
    push(
        items,
        &Verdict {
            indicator: Indicator { key_type: verdict.key.key_type(), key: &text },
            classification: verdict.classification,
            source: verdict.source,
            comment: &verdict.comment,
            checked_ms: verdict.checked_ms,
            recheck_ms: verdict.recheck_ms,
            stale: verdict.stale,
        },
    );
}
