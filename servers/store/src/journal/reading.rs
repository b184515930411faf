//! Reading the journal: the feed by commit id, single entries, and the entries of one log.
//!
//! Invariants: only durable entries are shown, so that no cursor is ever ahead of what a restart
//! keeps; a hole that retention made is reported, any other hole is damage. All of it blocks.

use std::ops::{ControlFlow, Range, RangeInclusive};
use std::sync::atomic::Ordering;

use super::record::{self, Assembly, Entry, HEAD, Head, INDEX, LaneKey, LogKey, SEGMENT_END};
use super::shared::{Location, Shared, Span};
use crate::error::{Operation, StoreError};
use crate::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX, SCAN_ENTRIES_MAX, WALK_COMMITS_MAX};
use crate::store::{Scan, Store};

/// How much one page of the feed may hold; more than the limits of the store counts as those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit {
    /// The most entries.
    pub entries: usize,
    /// Header and body bytes at which the page ends; the entry that reaches them is still in it.
    pub bytes: usize,
}

impl Default for PageLimit {
    fn default() -> Self {
        Self { entries: PAGE_ENTRIES_MAX, bytes: PAGE_BYTES_MAX }
    }
}

/// A page of the feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries in order of their commit ids.
    pub entries: Vec<Entry>,
    /// The commit id to continue from.
    pub next: u64,
    /// Ranges within this page that retention has dropped.
    pub dropped: Vec<Range<u64>>,
}

/// The entries of a range of segments of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRange {
    /// Their commit ids, ascending.
    pub commits: Vec<u64>,
    /// Whether the walk reached the start of the range; false where retention has dropped a part
    /// of it or the walk met its bound.
    pub complete: bool,
}

pub(crate) fn read_from(shared: &Shared, from: u64, limit: PageLimit) -> Result<Page, StoreError> {
    let durable = shared.durable.load(Ordering::Acquire);
    let mut page = Page { next: from.max(1), ..Page::default() };
    let mut left = PageLimit {
        entries: limit.entries.min(PAGE_ENTRIES_MAX),
        bytes: limit.bytes.min(PAGE_BYTES_MAX),
    };
    while page.next <= durable && left.entries > 0 && left.bytes > 0 {
        match shared.locate(page.next) {
            Location::In(span) => {
                let end = span.end.unwrap_or(durable + 1).min(durable + 1);
                let read = shared.with_partition(span.first, |store| {
                    read_range(store, page.next..end, &mut left, &mut page.entries)
                })?;
                match read {
                    Some(next) => page.next = next,
                    // Dropped since it was located; locating it again says so.
                    None => continue,
                }
            }
            Location::Dropped { next } => {
                page.dropped.push(page.next..next);
                page.next = next;
            }
        }
    }
    Ok(page)
}

/// Reads entries of `range` into `entries` until `left` is used up; returns where to continue.
fn read_range(
    store: &dyn Store,
    range: Range<u64>,
    left: &mut PageLimit,
    entries: &mut Vec<Entry>,
) -> Result<u64, StoreError> {
    let mut next = range.start;
    let mut assembly: Option<Assembly> = None;
    let (from, to) = (record::entry_key(range.start, 0), record::entry_key(range.end, 0));
    let mut is_whole = true;
    store.visit(&Scan::range(&from, &to, SCAN_ENTRIES_MAX), &mut |key, value| {
        is_whole = match (record::commit_of_entry_key(key), &mut assembly) {
            (Some((commit_id, 0)), None) if commit_id == next => {
                assembly = Assembly::begin(commit_id, value);
                assembly.is_some()
            }
            (Some((commit_id, part)), Some(assembly)) => assembly.add(commit_id, part, value),
            _ => false,
        };
        if !is_whole {
            return ControlFlow::Break(());
        }
        if let Some(complete) = assembly.take_if(|assembly| assembly.is_complete()) {
            let entry = complete.into_entry();
            left.entries -= 1;
            left.bytes = left.bytes.saturating_sub(entry.header.len() + entry.body.len());
            entries.push(entry);
            next += 1;
        }
        if left.entries == 0 || left.bytes == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    // A page that ended by its limit stands between two entries; otherwise the range must be used
    // up, and an entry must never be cut.
    let ended_by_limit = left.entries == 0 || left.bytes == 0;
    if is_whole && assembly.is_none() && (ended_by_limit || next == range.end) {
        Ok(next)
    } else {
        let what = format!("entry {next} of the journal is missing or cut");
        Err(StoreError::corrupt(Operation::Read, store.place(), what))
    }
}

/// The entry `commit_id` of a partition that must hold it.
pub(crate) fn entry_in(store: &dyn Store, commit_id: u64) -> Result<Entry, StoreError> {
    let mut entries = Vec::with_capacity(1);
    let mut one = PageLimit { entries: 1, bytes: PAGE_BYTES_MAX };
    read_range(store, commit_id..commit_id + 1, &mut one, &mut entries)?;
    entries.pop().ok_or_else(|| {
        StoreError::corrupt(Operation::Read, store.place(), format!("entry {commit_id} is gone"))
    })
}

pub(crate) fn entry(shared: &Shared, commit_id: u64) -> Result<Option<Entry>, StoreError> {
    if commit_id == 0 || commit_id > shared.durable.load(Ordering::Acquire) {
        return Ok(None);
    }
    match shared.locate(commit_id) {
        Location::In(Span { first, .. }) => {
            shared.with_partition(first, |store| entry_in(store, commit_id))
        }
        Location::Dropped { .. } => Ok(None),
    }
}

pub(crate) fn head(shared: &Shared, lane: &LaneKey) -> Result<Option<Head>, StoreError> {
    shared.with_newest(|store| {
        let Some(value) = store.get(&record::head_key(lane))? else { return Ok(None) };
        let unreadable =
            || StoreError::corrupt(Operation::Read, store.place(), "a head is unreadable");
        Head::decode(&value).ok_or_else(unreadable).map(Some)
    })
}

/// All heads from `after` (excluded) on, at most `limit`.
pub(crate) fn heads(
    shared: &Shared,
    after: Option<&LaneKey>,
    limit: usize,
) -> Result<Vec<(LaneKey, Head)>, StoreError> {
    let mut from = after.map_or_else(|| vec![HEAD], |lane| record::head_key(lane).to_vec());
    if after.is_some() {
        from.push(0);
    }
    shared.with_newest(|store| {
        let mut rows = Vec::new();
        let mut is_readable = true;
        store.visit(&Scan::range(&from, &[HEAD + 1], limit), &mut |key, value| {
            match record::lane_of_head_key(key).zip(Head::decode(value)) {
                Some(row) => {
                    rows.push(row);
                    ControlFlow::Continue(())
                }
                None => {
                    is_readable = false;
                    ControlFlow::Break(())
                }
            }
        })?;
        if is_readable {
            Ok(rows)
        } else {
            Err(StoreError::corrupt(Operation::Read, store.place(), "a head is unreadable"))
        }
    })
}

/// The segments of `log` from number `from` on with the commit ids that opened them, ascending.
pub(crate) fn segments(
    shared: &Shared,
    log: &LogKey,
    from: u64,
    limit: usize,
) -> Result<Vec<(u64, u64)>, StoreError> {
    let mut found = Vec::new();
    for span in shared.spans() {
        let wanted = limit.saturating_sub(found.len());
        if wanted == 0 {
            break;
        }
        let (low, high) = (record::index_key(log, from), record::index_key(log, SEGMENT_END));
        let rows = shared
            .with_partition(span.first, |store| store.scan(&Scan::range(&low, &high, wanted)))?;
        for (key, value) in rows.into_iter().flatten() {
            let row = record::segment_of_index_key(&key).zip(number(&value));
            found.push(row.ok_or_else(|| unreadable_index(shared))?);
        }
    }
    Ok(found)
}

/// The commit ids of the entries of `segments` of `log`, found by walking back from the last.
pub(crate) fn log_range(
    shared: &Shared,
    log: &LogKey,
    segments: RangeInclusive<u64>,
) -> Result<LogRange, StoreError> {
    let mut range = LogRange { commits: Vec::new(), complete: true };
    let Some(mut at) = last_commit_of(shared, log, *segments.end())? else { return Ok(range) };
    let durable = shared.durable.load(Ordering::Acquire);
    while at != 0 {
        let Location::In(span) = shared.locate(at) else {
            range.complete = false;
            break;
        };
        let fixed = shared.with_partition(span.first, |store| {
            let value = store.get(&record::entry_key(at, 0))?;
            value.as_deref().and_then(record::entry_fixed).map(|(fixed, _)| fixed).ok_or_else(
                || {
                    let what = format!("entry {at} of the journal is missing");
                    StoreError::corrupt(Operation::Read, store.place(), what)
                },
            )
        })?;
        let Some(fixed) = fixed else {
            range.complete = false;
            break;
        };
        if fixed.log != *log || fixed.previous >= at {
            let what = format!("entry {at} of the journal is linked wrongly");
            return Err(StoreError::corrupt(Operation::Read, &shared.place, what));
        }
        if fixed.segment < *segments.start() {
            break;
        }
        if segments.contains(&fixed.segment) && at <= durable {
            if range.commits.len() >= WALK_COMMITS_MAX {
                range.complete = false;
                break;
            }
            range.commits.push(at);
        }
        if fixed.segment == *segments.start() && at == fixed.segment_start {
            break;
        }
        let at_entry = std::mem::replace(&mut at, fixed.previous);
        if at == 0 && fixed.segment > *segments.start() {
            at = end_before(shared, log, span.first, at_entry)?;
        }
    }
    range.commits.reverse();
    Ok(range)
}

/// The last commit of `log` that may belong to a segment up to `segment`.
fn last_commit_of(shared: &Shared, log: &LogKey, segment: u64) -> Result<Option<u64>, StoreError> {
    let head = head(shared, &log.lane)?.filter(|head| head.log == log.log);
    if let Some(head) = head.as_ref().filter(|head| head.segment <= segment) {
        return Ok(Some(head.last_commit));
    }
    // The next segment's opening entry is linked to the last entry of the segment that is asked
    // for; walking starts at the opening entry itself, which the range then leaves out.
    let later = segment.checked_add(1).filter(|later| *later != SEGMENT_END);
    if let Some(later) = later
        && let Some((_, opened)) = segments(shared, log, later, 1)?.first()
    {
        return Ok(Some(*opened));
    }
    if let Some(head) = head {
        return Ok(Some(head.last_commit));
    }
    let end = end_before(shared, log, u64::MAX, u64::MAX)?;
    Ok((end != 0).then_some(end))
}

/// Where `log` ended before entry `before` when its lane last left it, as far as the partitions up
/// to `first` know; 0 if they do not. A log that is entered again in a later partition, or after
/// its head was forgotten, is not linked back.
fn end_before(shared: &Shared, log: &LogKey, first: u64, before: u64) -> Result<u64, StoreError> {
    let key = record::index_key(log, SEGMENT_END);
    for span in shared.spans().iter().rev().filter(|span| span.first <= first) {
        if let Some(value) = shared.with_partition(span.first, |store| store.get(&key))?.flatten() {
            let end = number(&value).ok_or_else(|| unreadable_index(shared))?;
            if end < before {
                return Ok(end);
            }
        }
    }
    Ok(0)
}

fn number(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_le_bytes)
}

fn unreadable_index(shared: &Shared) -> StoreError {
    let what = format!("an index record (prefix {:?}) is unreadable", char::from(INDEX));
    StoreError::corrupt(Operation::Read, &shared.place, what)
}
