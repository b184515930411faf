//! A scan of the whole journal, in the background; one at a time, its result kept until the next.
//!
//! Memory: a page of entries, a decoder for each lane and a record for each log. Invariant: what
//! cannot be read is named and passed over; it ends no scan.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;
use lapwing_net::clock;
use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::id::{DeploymentId, LogId, SensorId};
use lapwing_protocol::ledger::RunKind;
use lapwing_server_core::delivery::HeadRecord;
use lapwing_server_core::ledger::{
    Damage, Fault, HeadWord, LogPlace, SensorWord, StoredEntry, StoredWhat, Verified, Verifier,
    pieces,
};
use lapwing_store::StoreError;
use lapwing_store::journal::{Entry, Journal, LaneKey, PageLimit};
use smol::Timer;

use super::Book;
use crate::follow::{Content, Decoders, Followed};
use crate::ingest::EntryHeader;
use crate::roster::{Roster, lane_of};

/// Entries read at a time; after a page that cannot be read, read one by one.
const PAGE: PageLimit = PageLimit { entries: 1_024, bytes: 4 << 20 };
/// Entries in a row that cannot be read, before the scan gives up and says so.
const DAMAGES_MAX: u64 = 10_000;
/// How long the counters may take to reach the end of what is scanned.
const COUNTING_TIME: Duration = Duration::from_secs(10);
/// How often it is looked whether they have.
const COUNTING_LOOK: Duration = Duration::from_millis(20);

/// A scan, under way or ended.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Its number: when it began, so that one of an earlier life of the server is another.
    pub(crate) number: u64,
    scanned: AtomicU64,
    of: AtomicU64,
    result: OnceLock<ScanResult>,
    ended: Event,
}

/// What a scan came to.
#[derive(Debug)]
pub(crate) struct ScanResult {
    pub(crate) logs: BTreeMap<LogPlace, Verified>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) partial: String,
}

impl Scan {
    /// Entries read, and entries to be read.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.scanned.load(Ordering::Relaxed), self.of.load(Ordering::Relaxed))
    }

    /// What it came to, once it ended.
    pub(crate) fn result(&self) -> Option<&ScanResult> {
        self.result.get()
    }

    /// Ends when the scan does, or after `time`.
    pub(crate) async fn wait(&self, time: Duration) {
        let listener = self.ended.listen();
        if self.result.get().is_some() {
            return;
        }
        let late = async {
            Timer::after(time).await;
        };
        smol::future::or(listener, late).await;
    }
}

/// What is read and compared.
pub(crate) struct Scanner {
    pub(crate) deployment: DeploymentId,
    pub(crate) rows_max: u32,
    pub(crate) journal: Arc<Journal>,
    pub(crate) book: Arc<Book>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) last: Mutex<Option<Arc<Scan>>>,
}

impl Scanner {
    fn last(&self) -> MutexGuard<'_, Option<Arc<Scan>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The scan of that number; for 0 the one that is under way, else a new one. None where that
    /// number is gone.
    pub(crate) fn scan(self: &Arc<Self>, number: u64) -> Option<Arc<Scan>> {
        let mut last = self.last();
        if number != 0 {
            return last.clone().filter(|scan| scan.number == number);
        }
        if let Some(running) = last.as_ref().filter(|scan| scan.result().is_none()) {
            return Some(Arc::clone(running));
        }
        let before = last.as_ref().map_or(0, |scan| scan.number);
        let scan = Arc::new(Scan {
            number: clock::unix_ms().max(before + 1),
            scanned: AtomicU64::new(0),
            of: AtomicU64::new(self.journal.durable()),
            result: OnceLock::new(),
            ended: Event::new(),
        });
        *last = Some(Arc::clone(&scan));
        let (scanner, running) = (Arc::clone(self), Arc::clone(&scan));
        let task = move || {
            let result = scanner.run(&running);
            // Nobody else ends this scan.
            let _ = running.result.set(result);
            running.ended.notify(usize::MAX);
        };
        smol::unblock(task).detach();
        Some(scan)
    }

    /// Waits until what is stored is counted, then reads and compares everything. Blocks.
    fn run(&self, scan: &Scan) -> ScanResult {
        let heads = match self.heads() {
            Ok(heads) => heads,
            Err(error) => {
                let partial = format!("the heads cannot be read: {error}");
                return ScanResult { logs: BTreeMap::new(), faults: Vec::new(), partial };
            }
        };
        let words = self.words();
        let end = heads.1.max(self.journal.durable());
        smol::block_on(self.counted(end));
        let (accounts, counted_to) = self.book.snapshot();
        let is_counted = counted_to >= end;
        let end = if is_counted { counted_to } else { self.journal.durable() };
        scan.of.store(end, Ordering::Relaxed);
        let verifier = Verifier::new(self.deployment, heads, words);
        let decoders = Decoders::new(self.deployment, self.rows_max);
        let mut reading = Reading { journal: &self.journal, scan, verifier, decoders, end };
        let unread = reading.read();
        let outcome = reading.verifier.finish(is_counted.then_some(&accounts));
        let uncounted = (!is_counted).then(|| {
            format!("the counters stand at entry {counted_to} of {end}, so they are not compared")
        });
        let beyond =
            (outcome.beyond > 0).then(|| format!("{} more faults are not named", outcome.beyond));
        let partial: Vec<String> = [unread, uncounted, beyond].into_iter().flatten().collect();
        ScanResult { logs: outcome.logs, faults: outcome.faults, partial: partial.join("; ") }
    }

    /// Ends when everything up to `end` is counted, or takes too long for it.
    async fn counted(&self, end: u64) {
        let until = Instant::now() + COUNTING_TIME;
        while (self.book.counted_to() < end || self.journal.durable() < end)
            && Instant::now() < until
        {
            Timer::after(COUNTING_LOOK).await;
        }
    }

    /// What every head says, and the last entry that they know.
    fn heads(&self) -> Result<(BTreeMap<LogPlace, HeadWord>, u64), StoreError> {
        let mut words = BTreeMap::new();
        let (mut after, mut end): (Option<LaneKey>, u64) = (None, 0);
        loop {
            let page = self.journal.heads(after.as_ref(), 1_024)?;
            let Some((last, _)) = page.last() else { return Ok((words, end)) };
            after = Some(*last);
            for (key, head) in page {
                let (sensor, Some(lane)) = (SensorId(key.sensor), lane_of(key.lane)) else {
                    continue;
                };
                let Ok(record) = HeadRecord::from_bytes(&head.record) else { continue };
                end = end.max(head.last_commit);
                let last_commit = Some(head.last_commit);
                let place = LogPlace::new(sensor, lane, LogId(head.log));
                words.insert(place, HeadWord { log: record.current, last_commit });
                for log in record.retired.into_iter().filter(|log| log.next_seq > 1) {
                    let place = LogPlace::new(sensor, lane, log.log);
                    words.insert(place, HeadWord { log, last_commit: None });
                }
            }
        }
    }

    /// What every sensor said of its chain at its last Hello.
    fn words(&self) -> BTreeMap<LogPlace, SensorWord> {
        let mut words = BTreeMap::new();
        for member in self.roster.all() {
            for (lane, log, word) in member.about().told.words() {
                words.insert(LogPlace::new(member.sensor, lane, log), word);
            }
        }
        words
    }
}

/// A scan at work.
struct Reading<'a> {
    journal: &'a Journal,
    scan: &'a Scan,
    verifier: Verifier,
    decoders: Decoders,
    end: u64,
}

impl Reading<'_> {
    /// Reads everything; says why it is not everything.
    fn read(&mut self) -> Option<String> {
        let mut next = 1;
        let mut damages = 0;
        while next <= self.end {
            match self.journal.read_from(next, PAGE) {
                Ok(page) if page.next == next => break,
                Ok(page) => {
                    damages = 0;
                    page.dropped.into_iter().for_each(|range| self.verifier.handle_expired(range));
                    let end = self.end;
                    page.entries.iter().filter(|it| it.commit_id <= end).for_each(|entry| {
                        self.take(entry);
                    });
                    next = page.next;
                }
                Err(_) => {
                    next = self.read_one_by_one(next, &mut damages);
                    if damages > DAMAGES_MAX {
                        return Some(format!("the journal cannot be read from entry {next} on"));
                    }
                }
            }
            self.scan.scanned.store(next.saturating_sub(1).min(self.end), Ordering::Relaxed);
        }
        None
    }

    /// Reads as many entries as a page has, each by itself.
    fn read_one_by_one(&mut self, from: u64, damages: &mut u64) -> u64 {
        let to = from.saturating_add(PAGE.entries as u64).min(self.end + 1);
        for commit in from..to {
            match self.journal.entry(commit) {
                Ok(Some(entry)) => {
                    *damages = 0;
                    self.take(&entry);
                }
                Ok(None) => self.verifier.handle_expired(commit..commit + 1),
                Err(error) => {
                    *damages += 1;
                    self.verifier.handle_damage(Damage { commit, what: error.to_string() });
                }
            }
            self.scan.scanned.store(commit, Ordering::Relaxed);
        }
        to
    }

    fn take(&mut self, entry: &Entry) {
        let followed = match self.decoders.decode_behind(self.journal, entry) {
            Ok(followed) => followed,
            // What stands before it in its segment cannot be read, and is named for itself.
            Err(_) => self.decoders.decode(entry),
        };
        if let Some(followed) = followed {
            let kept = EntryHeader::decode(&entry.header).ok().and_then(|header| header.chain);
            self.verifier.handle_entry(&stored(entry, kept, &followed));
        }
    }
}

fn stored<'e>(
    entry: &'e Entry,
    kept: Option<lapwing_protocol::digest::Chain>,
    followed: &'e Followed,
) -> StoredEntry<'e> {
    let chunk = Chunk::decode(&entry.body).ok();
    let in_bytes = chunk.as_ref().map_or(0, |chunk| chunk.header.seq);
    let opens = chunk.is_some_and(|chunk| chunk.header.flags.opens(chunk.header.part));
    let is_chunk = |pieces| StoredWhat::Chunk(&entry.body, in_bytes, pieces);
    let (from_seq, what) = match &followed.content {
        Content::Changes(decoded) => {
            (followed.seq, is_chunk(pieces(followed.first_index, decoded)))
        }
        Content::Undecoded(_, count) => {
            (followed.seq, is_chunk(vec![(RunKind::Undecoded, *count)]))
        }
        Content::Jump(jump) => (jump.from_seq, StoredWhat::Jump(jump)),
        Content::Unreadable(_) => (followed.seq, StoredWhat::Unreadable),
    };
    StoredEntry {
        commit: entry.commit_id,
        previous: entry.previous,
        place: LogPlace::new(followed.sensor, followed.lane, followed.log),
        from_seq,
        seq: followed.seq,
        first_index: followed.first_index,
        opens,
        kept,
        what,
    }
}
