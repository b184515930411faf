//! The list and its feed of changes, in memory and in the store together.
//!
//! Keys: `l` + type + key = an entry; `f` + number (u64, big-endian) = a change; `i` = the
//! incarnation. A change names the indicator alone: what is thought of it is looked up when it is
//! read, so a reader never sees an opinion older than the present one.
//!
//! Invariant: an entry and its change are in one batch. The feed keeps its newest
//! [`CHANGES_MAX`]; a reader that is further behind starts again from its beginning.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use event_listener::Event;
use lapwing_net::peer::Failure;
use lapwing_protocol::code::Code;
use lapwing_protocol::id::Incarnation;
use lapwing_protocol::intel::{Indicator, KeyType, ReputationPut, ReputationView, Source};
use lapwing_server_core::intel_cache::IndicatorKey;
use lapwing_server_core::reputation::{Listing, ReputationList};
use lapwing_server_core::rows::{self, Row};
use lapwing_store::{Committing, RowStore, StoreError};

const LISTING: u8 = b'l';
const CHANGE: u8 = b'f';
pub(crate) const INCARNATION: &[u8] = b"i";
/// Changes kept for readers of the feed: days of an operator's work, or one import.
const CHANGES_MAX: usize = 100_000;

/// The list over its store.
pub(crate) struct Book {
    rows: RowStore,
    incarnation: Incarnation,
    state: Mutex<State>,
    /// Notified when the feed grows.
    pub(crate) changed: Event,
}

struct State {
    list: ReputationList,
    /// The newest changes, with their numbers.
    changes: VecDeque<(u64, IndicatorKey)>,
    next_change: u64,
    /// The last change that is durable: readers see none behind it, since its number would be
    /// another change's if it were lost.
    durable_change: u64,
}

/// A run of the feed of changes.
pub(crate) struct Changes {
    pub(crate) keys: Vec<IndicatorKey>,
    pub(crate) next_cursor: u64,
    pub(crate) at_end: bool,
}

impl Book {
    /// What the store holds. Blocks on the disk.
    pub(crate) fn open(source: Source, entries_max: usize, rows: RowStore) -> Result<Self, String> {
        let mut list = ReputationList::new(source, entries_max);
        let scan = |from: u8| rows.scan(&[from], &[from + 1]).map_err(|error| error.to_string());
        for (_, value) in scan(LISTING)? {
            let view: ReputationView<'_> = rows::read(&value).map_err(|_| unreadable())?;
            list.put(Listing::from_view(&view).ok_or_else(unreadable)?);
        }
        let mut changes = VecDeque::new();
        for (stored_at, value) in scan(CHANGE)? {
            let number: [u8; 8] =
                stored_at.get(1..).and_then(|rest| rest.try_into().ok()).ok_or_else(unreadable)?;
            let indicator: Indicator<'_> = rows::read(&value).map_err(|_| unreadable())?;
            let key = IndicatorKey::from_indicator(indicator).ok_or_else(unreadable)?;
            changes.push_back((u64::from_be_bytes(number), key));
        }
        let next_change = changes.back().map_or(1, |(number, _)| number + 1);
        let incarnation = incarnation(&rows)?;
        let state =
            Mutex::new(State { list, changes, next_change, durable_change: next_change - 1 });
        Ok(Self { rows, incarnation, state, changed: Event::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Looks at the list.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&ReputationList) -> T) -> T {
        look(&self.lock().list)
    }

    /// Puts an entry; ends when it is durable. One that is there already, word for word, is no
    /// change: a file of indicators is put again at each start.
    ///
    /// # Errors
    /// The entry is no entry, or the store takes nothing.
    pub(crate) async fn put(&self, now_ms: u64, put: &ReputationPut<'_>) -> Result<(), Failure> {
        let committing = {
            let mut state = self.lock();
            let listing = state
                .list
                .check(now_ms, put)
                .map_err(|error| Failure::new(Code::BAD_ARGUMENT, error.to_string()))?;
            if state.list.has(&listing) {
                return Ok(());
            }
            let row = listing.with_view(|view| Row::put(listing_key(&listing.key), view));
            let rows = [row].into_iter().chain(state.change_rows(&listing.key)).collect();
            let committing = self.rows.submit(rows).map_err(store_failed)?;
            state.changed(listing.key.clone());
            state.list.put(listing);
            (committing, state.next_change - 1)
        };
        self.finish(committing).await
    }

    /// Takes an entry off; ends when that is durable.
    ///
    /// # Errors
    /// There is no such entry, or the store takes nothing.
    pub(crate) async fn remove(&self, indicator: Indicator<'_>) -> Result<(), Failure> {
        let not_listed = || {
            let text =
                format!("{:?} is not on the list; `reputation list` shows what is", indicator.key);
            Failure::new(Code::NOT_FOUND, text)
        };
        let key = IndicatorKey::from_indicator(indicator).ok_or_else(not_listed)?;
        let committing = {
            let mut state = self.lock();
            state.list.remove(&key).ok_or_else(not_listed)?;
            self.forget(&mut state, key)?
        };
        self.finish(committing).await
    }

    /// Takes off what has expired; gives when to look again.
    pub(crate) async fn expire(&self, now_ms: u64) -> Result<Option<u64>, Failure> {
        loop {
            let committing = {
                let mut state = self.lock();
                let Some(expired) = state.list.poll_expired(now_ms) else {
                    return Ok(state.list.deadline_ms());
                };
                log::info!("the entry of {} has expired", expired.key.root_cause());
                self.forget(&mut state, expired.key)?
            };
            self.finish(committing).await?;
        }
    }

    fn forget(&self, state: &mut State, key: IndicatorKey) -> Result<(Committing, u64), Failure> {
        let removed = [Row::remove(listing_key(&key))];
        let rows = removed.into_iter().chain(state.change_rows(&key)).collect();
        let committing = self.rows.submit(rows).map_err(store_failed)?;
        state.changed(key);
        Ok((committing, state.next_change - 1))
    }

    async fn finish(&self, (committing, change): (Committing, u64)) -> Result<(), Failure> {
        committing.durable().await.map_err(store_failed)?;
        let mut state = self.lock();
        state.durable_change = state.durable_change.max(change);
        drop(state);
        self.changed.notify(usize::MAX);
        Ok(())
    }

    /// The changes behind `cursor`; all that are kept, when some of them are gone or the cursor
    /// lies behind the end: then it is of a feed that no longer is.
    pub(crate) fn changes(&self, cursor: u64, limit: usize) -> Changes {
        let state = self.lock();
        let durable = state.durable_change;
        let cursor = if cursor > durable { 0 } else { cursor };
        let shown = state.changes.iter().take_while(|(number, _)| *number <= durable);
        let newer = shown.filter(|(number, _)| *number > cursor);
        let page: Vec<_> = newer.take(limit).cloned().collect();
        let next_cursor = page.last().map_or(cursor, |(number, _)| *number);
        let at_end = next_cursor >= durable;
        Changes { keys: page.into_iter().map(|(_, key)| key).collect(), next_cursor, at_end }
    }
}

impl State {
    /// The rows that note a change of `key`, and that drop the oldest change.
    fn change_rows(&self, key: &IndicatorKey) -> Vec<Row> {
        let text = key.to_string();
        let indicator = Indicator { key_type: key.key_type(), key: &text };
        let mut rows = vec![Row::put(change_key(self.next_change), &indicator)];
        if self.changes.len() >= CHANGES_MAX {
            rows.extend(self.changes.front().map(|(number, _)| Row::remove(change_key(*number))));
        }
        rows
    }

    fn changed(&mut self, key: IndicatorKey) {
        if self.changes.len() >= CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back((self.next_change, key));
        self.next_change += 1;
    }
}

fn listing_key(key: &IndicatorKey) -> Vec<u8> {
    let sort = match key.key_type() {
        KeyType::Hash => b'h',
        KeyType::Ip => b'i',
        KeyType::Domain => b'd',
    };
    let mut stored_at = vec![LISTING, sort];
    // A domain may be longer than a key may be; its digest stands for it then.
    let text = key.to_string();
    if text.len() <= 100 {
        stored_at.extend_from_slice(text.as_bytes());
    } else {
        let digest = lapwing_protocol::digest::derived_id(b"lapwing-listing-1", &[text.as_bytes()]);
        stored_at.push(0);
        stored_at.extend_from_slice(&digest);
    }
    stored_at
}

fn change_key(number: u64) -> Vec<u8> {
    [&[CHANGE][..], &number.to_be_bytes()].concat()
}

fn incarnation(rows: &RowStore) -> Result<Incarnation, String> {
    if let Some(stored) = rows.get(INCARNATION).map_err(|error| error.to_string())? {
        return rows::read(&stored).map_err(|_| unreadable());
    }
    let mut fresh = [0; 16];
    getrandom::fill(&mut fresh).map_err(|error| format!("no random bytes: {error}"))?;
    let incarnation = Incarnation(fresh);
    let written = rows.submit(vec![Row::put(INCARNATION.to_vec(), &incarnation)]);
    written
        .and_then(|committing| smol::block_on(committing.durable()))
        .map_err(|error| error.to_string())?;
    Ok(incarnation)
}

fn unreadable() -> String {
    String::from(
        "a stored reputation cannot be read: it was written by another version; start that one, or \
         restore the store from a backup",
    )
}

fn store_failed(error: StoreError) -> Failure {
    Failure::new(Code::STORE_FAILED, error.to_string())
}
