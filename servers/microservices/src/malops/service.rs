//! The calls that the MalOp service answers.
//!
//! Invariant: a role calls only what [`ACCESS`] gives it.

use std::sync::Arc;
use std::time::Duration;

use lapwing_net::clock;
use lapwing_net::host::Myself;
use lapwing_net::identity::Role;
use lapwing_net::peer::{Caller, Failure, Service, from_body, to_body};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::feed::{FeedPage, FeedRequest, Page, PageRequest};
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::{FEED_PAGE_MAX, FEED_WAIT_MS_MAX};
use lapwing_protocol::malop::{MalOpAddComment, MalOpFilter, MalOpSetStatus, MalOpShow};
use lapwing_server_core::malop::MalOps;
use lapwing_store::StoreError;
use smol::Timer;

use super::limits::LIST_BYTES;
use super::state::{State, store_failed};

const READERS: &[Role] = &[Role::Webapp, Role::Ctl, Role::Fleet];
const OPERATORS: &[Role] = &[Role::Webapp, Role::Ctl];

/// Every method with the roles that may call it.
const ACCESS: &[(Method, &[Role])] = &[
    (Method::MALOPS, READERS),
    (Method::MALOP, READERS),
    (Method::MALOP_CHANGES, READERS),
    (Method::SUSPICIONS, READERS),
    (Method::MALOP_STATUS, OPERATORS),
    (Method::MALOP_COMMENT, OPERATORS),
    (Method::STATUS, READERS),
];

/// Answers calls.
pub(crate) struct Desk {
    state: Arc<State>,
    myself: Arc<Myself>,
}

impl Service for Desk {
    async fn call(
        &self,
        caller: Caller,
        method: Method,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, Failure> {
        authorise(caller.identity.map(|identity| identity.role), method)?;
        match method {
            Method::MALOPS => self.malops(&body).await,
            Method::MALOP => self.malop(&body).await,
            Method::MALOP_CHANGES => self.changes(&body).await,
            Method::SUSPICIONS => self.suspicions(&body).await,
            Method::MALOP_STATUS => self.set_status(&body).await,
            Method::MALOP_COMMENT => self.comment(&body).await,
            Method::STATUS => self.myself.status(&self.state.trouble()),
            // `authorise` lets nothing else through.
            _ => Err(Failure::new(Code::UNSUPPORTED, "this method is not served here")),
        }
    }
}

impl Desk {
    pub(crate) fn new(state: Arc<State>, myself: Arc<Myself>) -> Self {
        Self { state, myself }
    }

    /// The last changed first.
    async fn malops(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let filter: MalOpFilter = from_body(body)?;
        let list = |malops: &MalOps| {
            let mut items = Vec::new();
            for group in malops.malops(filter.status).take(filter.limit as usize) {
                group.push_to(&mut items);
                if items.len() >= LIST_BYTES {
                    break;
                }
            }
            items
        };
        self.state.look_durable(list).await
    }

    async fn malop(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let MalOpShow { malop } = from_body(body)?;
        let group = self.state.look_durable(|malops| malops.malop(malop).cloned()).await?;
        let Some(group) = group else {
            let text = format!("there is no MalOp {malop}; `malops list` shows those there are");
            return Err(Failure::new(Code::NOT_FOUND, text));
        };
        let numbers = group.kept.iter().rev().map(|kept| kept.number).collect();
        let comments = self.read(move |state| state.comments(malop)).await?;
        let evidence = self.read(move |state| state.bodies(numbers)).await?;
        Ok(group.detail_bytes(&evidence, &comments))
    }

    async fn suspicions(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let request: PageRequest = from_body(body)?;
        let (offset, limit) = (request.offset as usize, request.limit.min(FEED_PAGE_MAX) as usize);
        let page = |malops: &MalOps| {
            let all = malops.suspicions();
            (all.len(), all.skip(offset).take(limit).collect())
        };
        let (total, numbers) = self.state.look_durable(page).await?;
        let items = self.read(move |state| state.bodies(numbers)).await?;
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        to_body(&Page::<()> { total, items: Items::from_bytes(&items) })
    }

    async fn changes(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let request: FeedRequest = from_body(body)?;
        let incarnation = self.state.incarnation();
        let is_ours = request.incarnation == Some(incarnation);
        let cursor = if is_ours { request.cursor } else { 0 };
        let limit =
            if request.limit == 0 { FEED_PAGE_MAX } else { request.limit.min(FEED_PAGE_MAX) };
        let limit = limit as usize;
        let grown = async {
            loop {
                let changed = self.state.changed.listen();
                let changes = self.state.changes(cursor, limit);
                if !changes.items.is_empty() {
                    return changes;
                }
                changed.await;
            }
        };
        let late = async {
            let wait_ms = request.wait_ms.min(FEED_WAIT_MS_MAX);
            Timer::after(Duration::from_millis(wait_ms.into())).await;
            self.state.changes(cursor, limit)
        };
        let changes = smol::future::or(grown, late).await;
        to_body(&FeedPage::<()> {
            incarnation,
            next_cursor: changes.next_cursor,
            at_end: changes.at_end,
            items: Items::from_bytes(&changes.items),
        })
    }

    async fn set_status(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let MalOpSetStatus { malop, status, author } = from_body(body)?;
        let now_ms = clock::unix_ms();
        self.state.work(|malops| malops.handle_status(now_ms, (malop, status), author)).await?;
        log::info!("{author:?} moved MalOp {malop} to {}", status.name());
        Ok(Vec::new())
    }

    async fn comment(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let MalOpAddComment { malop, author, text } = from_body(body)?;
        let now_ms = clock::unix_ms();
        self.state.work(|malops| malops.handle_comment(now_ms, (malop, text), author)).await?;
        Ok(Vec::new())
    }

    /// Reads from the disk.
    async fn read(
        &self,
        read: impl FnOnce(&State) -> Result<Vec<u8>, StoreError> + Send + 'static,
    ) -> Result<Vec<u8>, Failure> {
        let state = Arc::clone(&self.state);
        smol::unblock(move || read(&state)).await.map_err(|error| store_failed(&error))
    }
}

fn authorise(role: Option<Role>, method: Method) -> Result<(), Failure> {
    let Some((_, roles)) = ACCESS.iter().find(|(of, _)| *of == method) else {
        let text = format!("the MalOp service has no method {}", method.0);
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
