//! A feed in the state store: items in the order in which they were added, read by cursor.
//!
//! Not here: what the items are. Keys: the feed's letter, the item's number from 1 and its part,
//! with the item's id and message as value; and the letter of its ids with each id, so that what
//! comes twice is added once. The numbers are dense. When there are more than `items_max`, the
//! oldest is deleted with its id; a reader whose cursor lies before goes on at the oldest that is
//! left.
//!
//! Invariants: one task adds; readers see an item only when it is durable.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use event_listener::Event;
use lapwing_net::peer::Failure;
use lapwing_protocol::code::Code;
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::id::Incarnation;
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::{FEED_PAGE_MAX, FEED_WAIT_MS_MAX};
use lapwing_server_core::rows::Row;
use lapwing_server_core::view::message_bytes;
use lapwing_store::limits::{SCAN_ENTRIES_MAX, VALUE_BYTES_MAX};
use lapwing_store::{RowStore, Scan, StoreError, part_key, split_parts};
use smol::Timer;

use super::limits::{FEED_PAGE_BYTES, FEED_SCAN_MAX, RECORD_ITEMS_MAX};

/// Bytes of an id, in front of the item's message.
const ID_BYTES: usize = 16;

/// The first bytes of a feed's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Letters {
    /// Of its items.
    pub(crate) item: u8,
    /// Of their ids.
    pub(crate) id: u8,
}

/// An item that is to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Tells a repeat.
    pub(crate) id: [u8; ID_BYTES],
    /// Its message.
    pub(crate) body: Vec<u8>,
}

/// Which items a reader wants: shown an item's message, says so.
pub(crate) type Wanted = fn(&[u8]) -> bool;

/// A feed.
#[derive(Debug)]
pub(crate) struct Feed {
    store: RowStore,
    letters: Letters,
    incarnation: Incarnation,
    items_max: u64,
    /// The number before the oldest item.
    floor: AtomicU64,
    /// The number of the last durable item.
    durable: AtomicU64,
    changed: Event,
}

/// A run of a feed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Run {
    items: Vec<u8>,
    next_cursor: u64,
    at_end: bool,
}

impl Feed {
    /// The feed of these letters as `store` has it. Blocks.
    pub(crate) fn open(
        store: RowStore,
        letters: Letters,
        incarnation: Incarnation,
        items_max: u64,
    ) -> Result<Self, StoreError> {
        let (from, to) = ([letters.item], [letters.item + 1]);
        let all = Scan::range(&from, &to, 1);
        let number = |entries: Vec<(Vec<u8>, Vec<u8>)>| {
            entries.first().and_then(|(key, _)| number_of(key)).unwrap_or(0)
        };
        let first = number(store.store().scan(&all)?);
        let last = number(store.store().scan(&all.descending())?);
        Ok(Self {
            store,
            letters,
            incarnation,
            items_max,
            floor: AtomicU64::new(first.saturating_sub(1)),
            durable: AtomicU64::new(last),
            changed: Event::new(),
        })
    }

    /// Its incarnation.
    #[cfg(test)]
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The number of the last durable item.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Those of `items` that the feed does not have. Blocks.
    pub(crate) fn unknown(&self, items: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        let mut unknown: Vec<Item> = Vec::new();
        for item in items {
            let is_known = self.store.get(&self.id_key(&item.id))?.is_some();
            if !is_known && !unknown.iter().any(|other| other.id == item.id) {
                unknown.push(item);
            }
        }
        Ok(unknown)
    }

    /// The rows that put `item` under `number`.
    pub(crate) fn rows_of(&self, number: u64, item: &Item) -> Vec<Row> {
        let stored = [item.id.as_slice(), &item.body].concat();
        let parts = (0..).zip(split_parts(&stored, VALUE_BYTES_MAX));
        let mut rows: Vec<Row> = parts
            .map(|(part, bytes)| Row {
                key: part_key(self.letters.item, number, part).to_vec(),
                value: Some(bytes.to_vec()),
            })
            .collect();
        rows.push(Row {
            key: self.id_key(&item.id).to_vec(),
            value: Some(number.to_be_bytes().to_vec()),
        });
        rows
    }

    /// The rows that delete what is too old once items up to `last` are there, and the floor they
    /// make. Deletes at most twice [`RECORD_ITEMS_MAX`] items at a time. Blocks.
    pub(crate) fn trim(&self, last: u64) -> Result<(Vec<Row>, u64), StoreError> {
        let mut rows = Vec::new();
        let before = self.floor.load(Ordering::Acquire);
        let mut floor = before;
        while last - floor > self.items_max && floor - before < 2 * RECORD_ITEMS_MAX as u64 {
            let from = part_key(self.letters.item, floor + 1, 0);
            let to = part_key(self.letters.item, floor + 2, 0);
            let parts = self.store.store().scan(&Scan::range(&from, &to, SCAN_ENTRIES_MAX))?;
            let id = parts.first().and_then(|(_, value)| value.first_chunk::<ID_BYTES>());
            rows.extend(id.map(|id| Row::remove(self.id_key(id).to_vec())));
            rows.extend(parts.into_iter().map(|(key, _)| Row::remove(key)));
            floor += 1;
        }
        Ok((rows, floor))
    }

    /// Says that items up to `last` are durable and those up to `floor` deleted; wakes readers.
    pub(crate) fn publish(&self, last: u64, floor: u64) {
        self.floor.store(floor, Ordering::Release);
        self.durable.store(last, Ordering::Release);
        self.changed.notify(usize::MAX);
    }

    /// Answers a read with a `FeedPage`; waits for the first item as long as the request allows.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: FeedRequest,
        wanted: Wanted,
    ) -> Result<Vec<u8>, Failure> {
        let wait_ms = u64::from(request.wait_ms.min(FEED_WAIT_MS_MAX));
        let wait_ms =
            if cfg!(mutant = "feed_waits_on") { u64::from(request.wait_ms) } else { wait_ms };
        let until = Instant::now() + Duration::from_millis(wait_ms);
        let is_ours = request.incarnation == Some(self.incarnation);
        let mut cursor = if is_ours { request.cursor } else { 0 };
        loop {
            let changed = self.changed.listen();
            let feed = Arc::clone(&self);
            let run = smol::unblock(move || feed.read(cursor, request.limit, wanted)).await;
            let run = run.map_err(|error| Failure::new(Code::STORE_FAILED, error.to_string()))?;
            if !run.items.is_empty() || !run.at_end || Instant::now() >= until {
                return Ok(self.page(&run));
            }
            cursor = run.next_cursor;
            let late = async {
                Timer::at(until).await;
            };
            smol::future::or(changed, late).await;
        }
    }

    fn page(&self, run: &Run) -> Vec<u8> {
        message_bytes(&FeedPage::<()> {
            incarnation: self.incarnation,
            next_cursor: run.next_cursor,
            at_end: run.at_end,
            items: Items::from_bytes(&run.items),
        })
    }

    fn read(&self, cursor: u64, limit: u32, wanted: Wanted) -> Result<Run, StoreError> {
        let last = self.durable();
        let floor = self.floor.load(Ordering::Acquire);
        // A cursor behind the end was given by a feed that no longer is; ids tell repeats.
        let cursor = if cursor > last { floor } else { cursor.max(floor) };
        let limit = if limit == 0 { FEED_PAGE_MAX } else { limit.min(FEED_PAGE_MAX) };
        let from = part_key(self.letters.item, cursor + 1, 0);
        let to = part_key(self.letters.item, last + 1, 0);
        let mut run = Run { next_cursor: cursor, ..Run::default() };
        let mut reading = Reading { number: cursor, body: Vec::new() };
        let (mut count, mut is_full, mut visited) = (0, false, 0);
        self.store.store().visit(&Scan::range(&from, &to, FEED_SCAN_MAX), &mut |key, part| {
            visited += 1;
            let number = number_of(key).unwrap_or(reading.number);
            if number != reading.number {
                count += reading.end(&mut run, wanted);
                is_full = count >= limit || run.items.len() >= FEED_PAGE_BYTES;
                if is_full {
                    return ControlFlow::Break(());
                }
                reading.number = number;
            }
            reading.body.extend_from_slice(part);
            ControlFlow::Continue(())
        })?;
        // The last item ends with the range; one that the scan's own bound cut is read again.
        if !is_full && visited < FEED_SCAN_MAX {
            reading.end(&mut run, wanted);
        }
        run.at_end = run.next_cursor >= last;
        Ok(run)
    }

    fn id_key(&self, id: &[u8; ID_BYTES]) -> [u8; 17] {
        let mut key = [self.letters.id; 17];
        key[1..].copy_from_slice(id);
        key
    }
}

/// The item that is put together from its parts.
struct Reading {
    number: u64,
    body: Vec<u8>,
}

impl Reading {
    /// Adds the item to `run`, where it is one that is wanted; gives how many were added.
    fn end(&mut self, run: &mut Run, wanted: Wanted) -> u32 {
        run.next_cursor = self.number;
        let message = self.body.get(ID_BYTES..).unwrap_or_default();
        let is_wanted = !message.is_empty() && wanted(message);
        if is_wanted {
            run.items.extend_from_slice(message);
        }
        self.body.clear();
        u32::from(is_wanted)
    }
}

fn number_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?))
}
