//! The accounts that are kept all along.
//!
//! They stand behind the journal: what is taken is counted when it is followed, and written a
//! little later. After a restart counting goes on where the written accounts end, so nothing counts
//! twice or not at all. Where the journal is another one, everything that it has is counted anew,
//! and what was counted before and is not there is missing, until it comes again or is said to be
//! lost. Keys in the state store: `k`, sensor, lane and log; `b` and the same, what was counted
//! before; `a/counted`.
//!
//! Invariant: an account that was written never holds an entry twice, since it names its last.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapwing_protocol::error::from_bytes;
use lapwing_protocol::id::{Lane, LogId, SensorId};
use lapwing_protocol::ledger::RunKind;
use lapwing_server_core::ledger::limits::LOGS_MAX;
use lapwing_server_core::ledger::{Account, KeptAccount, LogPlace, pieces};
use lapwing_server_core::rows::{self, Row};
use lapwing_store::{RowStore, StoreError};
use serde::{Deserialize, Serialize};
use smol::Timer;

use crate::follow::{Content, Followed};
use crate::roster::lane_of;

/// The first byte of an account's key.
const ACCOUNT: u8 = b'k';
/// The same of what was counted in another life of the journal, and is not balanced yet.
const BEFORE: u8 = b'b';
pub(crate) const COUNTED_KEY: &[u8] = b"a/counted";
/// Rows in one batch.
const ROWS_AT_ONCE: usize = 2_048;
/// The log under which those are summed up that are too old to be told apart.
const OLDER: LogId = LogId([0; 16]);

/// How often what changed is written: what was counted since is counted again after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(30);

/// Writes what changed, again and again. Never ends.
pub(crate) async fn keep(book: &Book) {
    loop {
        Timer::after(SAVE_EVERY).await;
        if let Err(error) = book.save().await {
            log::error!("the ledger's accounts cannot be written: {error}");
        }
    }
}

/// An account and the entry that it ends with.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    account: Account,
    last_commit: u64,
}

/// The accounts of all logs.
pub(crate) struct Book {
    state: RowStore,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    accounts: BTreeMap<LogPlace, Kept>,
    /// What was counted in another life of the journal and is not there so far.
    before: BTreeMap<LogPlace, Kept>,
    /// Every entry up to here is counted.
    counted_to: u64,
    /// The same, as written.
    saved_to: u64,
    changed: BTreeSet<LogPlace>,
    removed: BTreeSet<LogPlace>,
    /// Of those before, which are balanced.
    balanced: BTreeSet<LogPlace>,
}

impl Book {
    /// Reads what was written. Blocks.
    pub(crate) fn open(state: RowStore) -> Result<Self, StoreError> {
        let (accounts, before) = (read(&state, ACCOUNT)?, read(&state, BEFORE)?);
        let mut inner = Inner { accounts, before, ..Inner::default() };
        inner.counted_to =
            state.get(COUNTED_KEY)?.and_then(|bytes| from_bytes(&bytes).ok()).unwrap_or(0);
        inner.saved_to = inner.counted_to;
        Ok(Self { state, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last entry that is counted.
    pub(crate) fn counted_to(&self) -> u64 {
        self.lock().counted_to
    }

    /// Counts an entry, unless it is counted.
    pub(crate) fn take(&self, followed: &Followed) {
        self.lock().take(followed);
    }

    /// Every entry up to `commit_id` was given to [`Self::take`].
    pub(crate) fn reach(&self, commit_id: u64) {
        let mut inner = self.lock();
        inner.counted_to = inner.counted_to.max(commit_id);
    }

    /// The journal is another one, or ends before what was counted: it is counted anew, from its
    /// first entry `first` on. What retention had dropped of it all stays as it was counted.
    /// Blocks.
    pub(crate) fn begin_anew(&self, first: u64) -> Result<(), StoreError> {
        let rows = self.lock().begin_anew(first);
        smol::block_on(async {
            for rows in rows.chunks(ROWS_AT_ONCE) {
                self.state.submit(rows.to_vec())?.durable().await?;
            }
            let reached = Row::put(COUNTED_KEY.to_vec(), &0_u64);
            self.state.submit(vec![reached])?.durable().await?;
            Ok(())
        })
    }

    /// Writes what changed. The accounts first: one that is written and not reached names its last
    /// entry, and takes none twice.
    pub(crate) async fn save(&self) -> Result<(), StoreError> {
        let (rows, reached) = self.lock().rows();
        let Some(reached) = reached else { return Ok(()) };
        for rows in rows.chunks(ROWS_AT_ONCE) {
            self.state.submit(rows.to_vec())?.durable().await?;
        }
        let row = Row::put(COUNTED_KEY.to_vec(), &reached);
        self.state.submit(vec![row])?.durable().await?;
        let mut inner = self.lock();
        inner.saved_to = inner.saved_to.max(reached);
        Ok(())
    }

    /// All accounts, and the entry up to which they count.
    pub(crate) fn snapshot(&self) -> (BTreeMap<LogPlace, KeptAccount>, u64) {
        let inner = self.lock();
        // What was counted before is the word that a scan is held against.
        let accounts = inner.accounts.iter().chain(&inner.before).map(|(place, kept)| {
            let Kept { account, last_commit } = kept.clone();
            (*place, KeptAccount { account, last_commit })
        });
        (accounts.collect(), inner.counted_to)
    }

    /// Shows accounts behind `after` to `look`, of one sensor or of all, until it says that it has
    /// enough. Says whether the end was reached.
    pub(crate) fn each(
        &self,
        sensor: Option<SensorId>,
        after: Option<LogPlace>,
        mut look: impl FnMut(&LogPlace, &Account) -> bool,
    ) -> bool {
        use std::ops::Bound;
        let inner = self.lock();
        let first = sensor.map(|sensor| LogPlace::new(sensor, Lane::Bulk, OLDER));
        let from = match (after, first) {
            (Some(after), _) => Bound::Excluded(after),
            (None, Some(first)) => Bound::Included(first),
            (None, None) => Bound::Unbounded,
        };
        let mut now = inner.accounts.range((from, Bound::Unbounded)).peekable();
        let mut before = inner.before.range((from, Bound::Unbounded)).peekable();
        loop {
            let places = now.peek().map(|it| it.0).into_iter().chain(before.peek().map(|it| it.0));
            let Some(place) = places.min().copied() else { return true };
            if sensor.is_some_and(|sensor| sensor != place.sensor) {
                return true;
            }
            let account = now.next_if(|it| *it.0 == place).map(|(_, kept)| &kept.account);
            let gone = before.next_if(|it| *it.0 == place).map(|(_, kept)| &kept.account);
            let is_enough = match (account, gone) {
                (Some(account), None) => !look(&place, account),
                (account, gone) => {
                    let mut account = account.cloned().unwrap_or_default();
                    let produced = gone.map_or(0, Account::produced);
                    account.fill(produced.saturating_add(1), RunKind::Missing);
                    !look(&place, &account)
                }
            };
            if is_enough {
                return false;
            }
        }
    }
}

/// The accounts under keys that begin with `first`.
fn read(state: &RowStore, first: u8) -> Result<BTreeMap<LogPlace, Kept>, StoreError> {
    let mut accounts = BTreeMap::new();
    for (key, value) in state.scan(&[first], &[first + 1])? {
        match (place_of(&key), rows::read::<Kept>(&value)) {
            (Some(place), Ok(kept)) => drop(accounts.insert(place, kept)),
            (_, error) => log::error!(
                "an account of the ledger is not readable ({:?}); --verify counts anew",
                error.err()
            ),
        }
    }
    Ok(accounts)
}

impl Inner {
    /// Puts aside what was counted; gives the rows that say so.
    fn begin_anew(&mut self, first: u64) -> Vec<Row> {
        let (mut put, mut removed) = (Vec::new(), Vec::new());
        for (place, kept) in std::mem::take(&mut self.accounts) {
            // What is counted again counts here again; of older ones there is no more than a sum.
            let is_dropped = (1..first).contains(&kept.last_commit);
            if is_dropped && place.log != OLDER {
                self.accounts.insert(place, kept);
                continue;
            }
            removed.push(Row::remove(key_of(ACCOUNT, &place)));
            let known = self.before.get(&place).map_or(0, |kept| kept.account.produced());
            if place.log != OLDER && kept.account.produced() > known {
                put.push(Row::put(key_of(BEFORE, &place), &kept));
                self.before.insert(place, kept);
            }
        }
        (self.counted_to, self.saved_to) = (0, 0);
        self.changed.retain(|place| self.accounts.contains_key(place));
        self.removed.clear();
        // First what is kept, then what is forgotten: a crash between leaves both.
        put.extend(removed);
        put
    }

    fn take(&mut self, followed: &Followed) {
        let place = LogPlace::new(followed.sensor, followed.lane, followed.log);
        let is_new = !self.accounts.contains_key(&place);
        let kept = self
            .accounts
            .entry(place)
            .or_insert_with(|| Kept { account: Account::default(), last_commit: 0 });
        if followed.commit_id <= kept.last_commit || followed.commit_id <= self.counted_to {
            return;
        }
        kept.last_commit = followed.commit_id;
        let account = &mut kept.account;
        let (seq, first_index) = (followed.seq, followed.first_index);
        let is_chunk = matches!(followed.content, Content::Changes(_) | Content::Undecoded(..));
        if is_chunk && is_new && seq > 1 {
            // What is in front of it was dropped because of its age before it was counted.
            account.fill(first_index, RunKind::Expired);
        }
        match &followed.content {
            Content::Changes(decoded) => {
                account.take_chunk(seq, first_index, pieces(first_index, decoded));
            }
            Content::Undecoded(_, count) => {
                account.take_chunk(seq, first_index, [(RunKind::Undecoded, *count)]);
            }
            Content::Jump(jump) => account.take_jump(first_index, jump),
            Content::Unreadable(_) => {
                account.undecoded += 1;
                account.reach(seq);
            }
        }
        let produced = account.produced();
        self.changed.insert(place);
        if self.before.get(&place).is_some_and(|before| before.account.produced() <= produced) {
            self.before.remove(&place);
            self.balanced.insert(place);
        }
        if is_new {
            self.sum_up(place);
        }
    }

    /// Sums the oldest log of the lane of `place` up, where there are too many.
    fn sum_up(&mut self, place: LogPlace) {
        let first = LogPlace::new(place.sensor, place.lane(), OLDER);
        let last = LogPlace::new(place.sensor, place.lane(), LogId([0xff; 16]));
        let logs = self.accounts.range(first..=last).filter(|(of, _)| of.log != OLDER);
        if logs.clone().count() <= LOGS_MAX {
            return;
        }
        let oldest = logs.min_by_key(|(_, kept)| kept.last_commit).map(|(of, _)| *of);
        let Some((of, kept)) = oldest.and_then(|of| Some((of, self.accounts.remove(&of)?))) else {
            return;
        };
        let sum = self
            .accounts
            .entry(first)
            .or_insert_with(|| Kept { account: Account::default(), last_commit: 0 });
        sum.account.absorb(&kept.account);
        self.changed.remove(&of);
        self.changed.insert(first);
        self.removed.insert(of);
    }

    fn rows(&mut self) -> (Vec<Row>, Option<u64>) {
        if self.counted_to == self.saved_to && self.changed.is_empty() {
            return (Vec::new(), None);
        }
        let mut rows = Vec::new();
        for place in std::mem::take(&mut self.changed) {
            if let Some(kept) = self.accounts.get(&place) {
                rows.push(Row::put(key_of(ACCOUNT, &place), kept));
            }
        }
        let removed = std::mem::take(&mut self.removed);
        let gone = removed.iter().filter(|place| !self.accounts.contains_key(place));
        rows.extend(gone.map(|place| Row::remove(key_of(ACCOUNT, place))));
        let balanced = std::mem::take(&mut self.balanced);
        rows.extend(balanced.iter().map(|place| Row::remove(key_of(BEFORE, place))));
        (rows, Some(self.counted_to))
    }
}

fn key_of(first: u8, place: &LogPlace) -> Vec<u8> {
    let mut key = vec![first];
    key.extend_from_slice(&place.sensor.0);
    key.push(place.lane() as u8);
    key.extend_from_slice(&place.log.0);
    key
}

fn place_of(key: &[u8]) -> Option<LogPlace> {
    let sensor = SensorId(key.get(1..17)?.try_into().ok()?);
    let lane = lane_of(*key.get(17)?)?;
    let log = LogId(key.get(18..)?.try_into().ok()?);
    Some(LogPlace::new(sensor, lane, log))
}
