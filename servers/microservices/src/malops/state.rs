//! The MalOps in memory and in the store, together, and where each feed was left.
//!
//! Invariants: rows are submitted under the lock under which they were decided, so the store sees
//! decisions in their order; one page at a time is taken, from looking up its ids to its being
//! durable, so no evidence is taken twice; readers of changes see durable ones only, so that no
//! number is ever given to another change.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;
use lapwing_net::clock;
use lapwing_net::metrics::Metrics;
use lapwing_net::peer::Failure;
use lapwing_protocol::code::Code;
use lapwing_protocol::id::{Incarnation, MalOpId, ServerId};
use lapwing_server_core::evidence::Evidence;
use lapwing_server_core::malop::{
    self, Comment, MalOpLimits, MalOps, Score, WorkRefused, fresh, key,
};
use lapwing_server_core::rows::{self, Row};
use lapwing_store::{Committing, RowStore, StoreError};
use serde::{Deserialize, Serialize};
use smol::Timer;

use super::counts::Counts;
use super::limits::{FORGET_RUNS, LIST_BYTES, SETTLE_TIME};
use crate::stored;

const CURSORS: [&[u8]; 2] = [b"c", b"d"];
pub(super) const INCARNATION: &[u8] = b"f";

/// How far the feed of a Detection server was read, as stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CursorRecord {
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) cursor: u64,
}

/// A run of the feed of a Detection server.
pub(crate) struct EvidencePage {
    pub(crate) server: ServerId,
    pub(crate) evidences: Vec<Evidence>,
    /// Where the feed goes on.
    pub(crate) next: CursorRecord,
}

/// A run of the feed of changes.
pub(crate) struct Changes {
    /// `Items<MalOpView>`.
    pub(crate) items: Vec<u8>,
    pub(crate) next_cursor: u64,
    pub(crate) at_end: bool,
}

/// MalOps over their store.
pub(crate) struct State {
    rows: RowStore,
    incarnation: Incarnation,
    malops: Mutex<MalOps>,
    cursors: Mutex<BTreeMap<ServerId, CursorRecord>>,
    claims: Mutex<BTreeSet<ServerId>>,
    troubles: Mutex<BTreeMap<String, String>>,
    /// Held by whoever takes a page.
    taking: Arc<smol::lock::Mutex<()>>,
    durable_change: AtomicU64,
    /// Notified when changes became durable.
    pub(crate) changed: Event,
    pub(crate) counts: Counts,
}

/// The right to read a server's feed; others stand back while it is held.
pub(crate) struct Claim {
    state: Arc<State>,
    server: ServerId,
    name: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.state.claims).remove(&self.server);
        self.state.counts.set_up(&self.name, false);
    }
}

impl State {
    /// What the store holds. Blocks on the disk.
    pub(crate) fn open(
        limits: MalOpLimits,
        rows: RowStore,
        metrics: &Metrics,
    ) -> Result<Self, String> {
        let failed = |error: StoreError| error.to_string();
        let groups = rows.scan(key::GROUPS[0], key::GROUPS[1]).map_err(failed)?;
        let numbers = rows.get(key::NUMBERS).map_err(failed)?;
        let malops = MalOps::restore(limits, groups, numbers.as_deref()).map_err(|error| {
            format!(
                "a stored MalOp cannot be read ({error}): it was written by another version; start \
                 that one, or restore the store from a backup"
            )
        })?;
        let server_of = |key: &[u8]| Some(ServerId(key.get(1..)?.try_into().ok()?));
        let cursors = stored::load(&rows, CURSORS, server_of)?;
        let incarnation = incarnation(&rows)?;
        let counts = Counts::registered(metrics);
        counts.look_at(&malops);
        Ok(Self {
            rows,
            incarnation,
            durable_change: AtomicU64::new(malops.last_change()),
            malops: Mutex::new(malops),
            cursors: Mutex::new(cursors.into_iter().collect()),
            claims: Mutex::default(),
            troubles: Mutex::default(),
            taking: Arc::default(),
            changed: Event::new(),
            counts,
        })
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Looks at the MalOps.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&MalOps) -> T) -> T {
        look(&lock(&self.malops))
    }

    /// Where the feed of `server` goes on.
    pub(crate) fn cursor(&self, server: ServerId) -> CursorRecord {
        lock(&self.cursors).get(&server).copied().unwrap_or_default()
    }

    /// The right to read the feed of `server`, unless somebody has it.
    pub(crate) fn claim(self: &Arc<Self>, server: ServerId, name: &str) -> Option<Claim> {
        let is_free = lock(&self.claims).insert(server);
        is_free.then(|| Claim { state: Arc::clone(self), server, name: name.to_owned() })
    }

    /// Takes a page; ends when what it changed and its cursor are durable. Whoever drops the future
    /// ends the waiting, not the taking.
    pub(crate) async fn take(self: &Arc<Self>, page: EvidencePage) -> Result<(), StoreError> {
        let taking = self.taking.lock_arc().await;
        let state = Arc::clone(self);
        smol::unblock(move || {
            let taken = state.take_page(page);
            drop(taking);
            taken
        })
        .await
    }

    fn take_page(&self, page: EvidencePage) -> Result<(), StoreError> {
        let told = page.evidences.len();
        let is_stored = |id| Ok(self.rows.get(&key::identity(id))?.is_some());
        let evidences = fresh(page.evidences, is_stored)?;
        self.counts.repeats(told - evidences.len());
        let (committing, change) = {
            let mut malops = lock(&self.malops);
            for evidence in &evidences {
                self.counts.decided(decide(&mut malops, evidence));
                if malops.is_batch_full() {
                    // Durable before the cursor, since batches are so in order.
                    drop(self.rows.submit(malops.poll_rows())?);
                }
            }
            self.forget(&mut malops)?;
            let mut rows = malops.poll_rows();
            let stored_at = [CURSORS[0], &page.server.0].concat();
            rows.push(Row::put(stored_at, &page.next));
            (self.rows.submit(rows)?, malops.last_change())
        };
        smol::block_on(committing.durable())?;
        lock(&self.cursors).insert(page.server, page.next);
        self.publish(change);
        Ok(())
    }

    /// Forgets the ids of evidence that is beyond the bound.
    fn forget(&self, malops: &mut MalOps) -> Result<(), StoreError> {
        for _ in 0..FORGET_RUNS {
            let Some((from, to)) = malops.forgettable() else { break };
            let [first, last] = key::bodies(from, to);
            malops.handle_forgotten(to, self.rows.scan(&first, &last)?);
        }
        Ok(())
    }

    /// Does a person's work; ends when it is durable.
    pub(crate) async fn work(
        &self,
        work: impl FnOnce(&mut MalOps) -> Result<(), WorkRefused>,
    ) -> Result<(), Failure> {
        let (committing, change) = self.submit_work(work)?;
        committing.durable().await.map_err(|error| store_failed(&error))?;
        self.publish(change);
        // Where nothing was to be done, somebody else's same work may be on its way.
        self.settle().await
    }

    fn submit_work(
        &self,
        work: impl FnOnce(&mut MalOps) -> Result<(), WorkRefused>,
    ) -> Result<(Committing, u64), Failure> {
        let mut malops = lock(&self.malops);
        let before = malops.last_change();
        work(&mut malops).map_err(work_refused)?;
        let rows = malops.poll_rows();
        // Without rows nothing is waited for, so nothing may be said to be durable.
        let change = if rows.is_empty() { 0 } else { malops.last_change().max(before) };
        let committing = self.rows.submit(rows).map_err(|error| store_failed(&error))?;
        Ok((committing, change))
    }

    fn publish(&self, change: u64) {
        self.durable_change.fetch_max(change, Ordering::AcqRel);
        self.changed.notify(usize::MAX);
        self.look(|malops| self.counts.look_at(malops));
    }

    /// Waits until everything that is in memory now is durable.
    ///
    /// # Errors
    /// The store has failed or is stuck.
    pub(crate) async fn settle(&self) -> Result<(), Failure> {
        let change = self.look(MalOps::last_change);
        let settled = async {
            loop {
                let changed = self.changed.listen();
                if self.durable_change.load(Ordering::Acquire) >= change {
                    return Ok(());
                }
                if let Some(error) = self.rows.failure() {
                    return Err(store_failed(&error));
                }
                changed.await;
            }
        };
        let late = async {
            Timer::after(SETTLE_TIME).await;
            let why = self.rows.failure().map(|error| error.to_string());
            let stuck = || String::from("the store takes too long; look at its disk");
            Err(Failure::new(Code::STORE_FAILED, why.unwrap_or_else(stuck)))
        };
        smol::future::or(settled, late).await
    }

    /// What `look` sees, once all of it is durable: what comes meanwhile is not shown before its
    /// rows can be read.
    ///
    /// # Errors
    /// The store has failed or is stuck.
    pub(crate) async fn look_durable<T>(
        &self,
        look: impl FnOnce(&MalOps) -> T,
    ) -> Result<T, Failure> {
        let seen = self.look(look);
        self.settle().await?;
        Ok(seen)
    }

    /// Durable changes behind `cursor`.
    pub(crate) fn changes(&self, cursor: u64, limit: usize) -> Changes {
        let last = self.durable_change.load(Ordering::Acquire);
        // A cursor behind the end was given by a feed that no longer is; ids tell repeats.
        let cursor = if cursor > last { 0 } else { cursor };
        self.look(|malops| {
            let mut changes = Changes { items: Vec::new(), next_cursor: last, at_end: true };
            let mut before = cursor;
            for (place, group) in malops.changes(cursor, last).enumerate() {
                if place >= limit || changes.items.len() >= LIST_BYTES {
                    return Changes { next_cursor: before, at_end: false, ..changes };
                }
                group.push_to(&mut changes.items);
                before = group.change;
            }
            changes.next_cursor = last;
            changes
        })
    }

    /// The `EvidenceView`s of these numbers, as far as they are kept and fit a list. Blocks.
    pub(crate) fn bodies(&self, numbers: Vec<u64>) -> Result<Vec<u8>, StoreError> {
        let mut items = Vec::new();
        for number in numbers {
            let [from, to] = key::bodies(number, number + 1);
            for (_, bytes) in key::join_parts(self.rows.scan(&from, &to)?) {
                items.extend_from_slice(malop::stored_evidence(&bytes).unwrap_or_default());
            }
            if items.len() >= LIST_BYTES {
                break;
            }
        }
        Ok(items)
    }

    /// `Items<MalOpComment>` of a MalOp. Blocks.
    pub(crate) fn comments(&self, malop: MalOpId) -> Result<Vec<u8>, StoreError> {
        let [from, to] = key::comments(malop);
        let mut items = Vec::new();
        for (_, bytes) in key::join_parts(self.rows.scan(&from, &to)?) {
            // One that cannot be read was written by another version: the others still can.
            if let Ok(comment) = rows::read::<Comment>(&bytes) {
                comment.push_to(&mut items);
            }
        }
        Ok(items)
    }

    /// Notes that something does not work, or does again; logs when that is new.
    pub(crate) fn set_trouble(&self, of: &str, trouble: Option<String>) {
        let mut troubles = lock(&self.troubles);
        match trouble {
            Some(trouble) => {
                if !troubles.contains_key(of) {
                    log::warn!("{of}: {trouble}");
                }
                troubles.insert(of.to_owned(), trouble);
            }
            None => {
                if troubles.remove(of).is_some() {
                    log::info!("{of}: all is well again");
                }
            }
        }
    }

    /// What is not as it should be, for a person; empty when all is well.
    pub(crate) fn trouble(&self) -> String {
        if let Some(error) = self.rows.failure() {
            return error.to_string();
        }
        let troubles = lock(&self.troubles);
        let told = troubles.iter().map(|(of, trouble)| format!("{of}: {trouble}"));
        told.take(8).collect::<Vec<_>>().join("; ")
    }
}

fn decide(malops: &mut MalOps, evidence: &Evidence) -> malop::Decision {
    let id = malop::group_id(evidence);
    let was_malop = malops.malop(id).is_some();
    let decision = malops.handle_evidence(clock::unix_ms(), evidence);
    if !was_malop && let Some(group) = malops.malop(id) {
        log::info!("MalOp {id} of {:?}: score {}", group.root_cause, Score::of(group));
    }
    decision
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn incarnation(rows: &RowStore) -> Result<Incarnation, String> {
    if let Some(stored) = rows.get(INCARNATION).map_err(|error| error.to_string())? {
        return rows::read(&stored)
            .map_err(|error| format!("the incarnation of the feed cannot be read: {error}"));
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| format!("no random bytes: {error}"))?;
    let incarnation = Incarnation(random);
    let written = rows.submit(vec![Row::put(INCARNATION.to_vec(), &incarnation)]);
    written
        .and_then(|committing| smol::block_on(committing.durable()))
        .map_err(|error| error.to_string())?;
    Ok(incarnation)
}

pub(crate) fn store_failed(error: &StoreError) -> Failure {
    Failure::new(Code::STORE_FAILED, error.to_string())
}

fn work_refused(why: WorkRefused) -> Failure {
    let code = match why {
        WorkRefused::NotFound => Code::NOT_FOUND,
        WorkRefused::BadAuthor | WorkRefused::BadComment => Code::BAD_ARGUMENT,
        WorkRefused::TooManyComments => Code::TOO_LARGE,
        WorkRefused::NotClosed => Code::CONFLICT,
    };
    Failure::new(code, why.to_string())
}
