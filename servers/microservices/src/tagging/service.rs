//! The calls that the tagging service answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapwing_net::clock;
use lapwing_net::host::{Host, Myself};
use lapwing_net::identity::Role;
use lapwing_net::peer::{Caller, Failure, Service, from_body, to_body};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::tagging::{TagQuery, TagSet};
use lapwing_server_core::tags::{AuditRecord, TagRecord, TagRefused, Tags, key};
use lapwing_store::{Committing, RowStore, StoreError};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::stored;

/// All tags, over their store.
pub(crate) struct Tagging {
    tags: Mutex<Tags>,
    rows: RowStore,
    myself: Arc<Myself>,
    changes: Counter,
    held: Gauge,
}

impl Tagging {
    /// Blocks on the disk.
    pub(crate) fn open(host: &Host, rows: RowStore) -> Result<Self, String> {
        let stored: Vec<(_, TagRecord)> = stored::load(&rows, key::TAGS, key::tag_of)?;
        let audit: Vec<(u64, AuditRecord)> = stored::load(&rows, key::AUDIT, key::audit_of)?;
        let tags = Tags::restore(audit.last().map_or(0, |(number, _)| *number), stored);
        let (changes, held) = (Counter::default(), Gauge::default());
        held.set(count(tags.len()));
        host.metrics().register(|registry| {
            registry.register("tag_changes", "Tags set, changed or taken off", changes.clone());
            registry.register("tags", "Tags of all machines", held.clone());
        });
        Ok(Self { tags: Mutex::new(tags), rows, myself: host.myself(), changes, held })
    }

    async fn set(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let set: TagSet<'_> = from_body(body)?;
        self.submit(&set)?.durable().await.map_err(store_failed)?;
        self.changes.inc();
        Ok(Vec::new())
    }

    fn submit(&self, set: &TagSet<'_>) -> Result<Committing, Failure> {
        let mut tags = self.tags();
        let rows = tags.set(clock::unix_ms(), set).map_err(refused)?;
        self.held.set(count(tags.len()));
        self.rows.submit(rows).map_err(store_failed)
    }

    fn list(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: TagQuery = from_body(body)?;
        let mut list = Vec::new();
        for tag in self.tags().views(query.sensor) {
            list.extend(to_body(&tag)?);
        }
        Ok(list)
    }

    fn tags(&self) -> MutexGuard<'_, Tags> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for Tagging {
    async fn call(
        &self,
        caller: Caller,
        method: Method,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, Failure> {
        let role = caller.identity.map(|identity| identity.role);
        match method {
            Method::TAG_SET => match role {
                Some(Role::Webapp | Role::Ctl) => self.set(&body).await,
                _ => {
                    Err(Failure::new(Code::FORBIDDEN, "only an operator sets tags, by the WebApp"))
                }
            },
            Method::TAGS => self.list(&body),
            Method::STATUS => {
                let failure = self.rows.failure().map(|error| error.to_string());
                self.myself.status(failure.as_deref().unwrap_or_default())
            }
            other => Err(Failure::new(
                Code::UNSUPPORTED,
                format!("the tagging service has no method {}", other.0),
            )),
        }
    }
}

fn refused(why: TagRefused) -> Failure {
    let code = match why {
        TagRefused::BadName
        | TagRefused::BadValue
        | TagRefused::NotTrueOrFalse
        | TagRefused::BadAuthor => Code::BAD_ARGUMENT,
        TagRefused::TooManyOfMachine | TagRefused::TooMany => Code::TOO_LARGE,
    };
    Failure::new(code, why.to_string())
}

fn store_failed(error: StoreError) -> Failure {
    Failure::new(Code::STORE_FAILED, error.to_string())
}

fn count(tags: usize) -> i64 {
    i64::try_from(tags).unwrap_or(i64::MAX)
}
