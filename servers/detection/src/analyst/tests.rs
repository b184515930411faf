//! Tests of the analyst: from entries and an intel server of the test's own to durable evidence.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapwing_net::peer::CallError;
use lapwing_protocol::call::Method;
use lapwing_protocol::command::Outcome;
use lapwing_protocol::console::{EvidenceView, OutcomeView};
use lapwing_protocol::element::{Feature, Kind, command_outcome, kind, process};
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::id::{ElementGuid, Incarnation, Lane, LogId, SensorId};
use lapwing_protocol::intel::{Classification, ClassifyRequest, Source, Verdict};
use lapwing_server_core::change::{Change, KindModel, OwnedValue, What};
use lapwing_server_core::decode::Decoded;
use lapwing_server_core::evidence::Evidence;
use lapwing_server_core::view::push_item;
use lapwing_store::MemoryDisk;

use super::feed::{Item, Letters};
use super::intel::Replying;
use super::*;

const SENSOR: SensorId = SensorId([1; 16]);
const LETTERS: Letters = Letters { item: b'e', id: b'i' };

#[test]
fn a_blocked_hash_becomes_one_durable_evidence_and_stays_one_after_a_restart() {
    let disk = MemoryDisk::new("analyst");
    let intel = Arc::new(BlockEverything::default());
    let mut analyst = analyst(&disk, &intel);
    smol::block_on(async {
        analyst.take(1, vec![a_process(7)]).await;
        analyst.answer().await;
    });
    assert_eq!(evidence(&analyst).len(), 1);
    assert_eq!(evidence(&analyst)[0].rule, "blocklisted_hash");
    assert_eq!(intel.asked.load(Ordering::Relaxed), 1);
    smol::block_on(analyst.save()).unwrap();
    drop(analyst);

    disk.cut_power(0);
    let mut again = self::analyst(&disk, &intel);
    assert_eq!(again.record.cursor(), 2);
    smol::block_on(async {
        again.take(1, vec![a_process(7)]).await;
        again.answer().await;
        again.take(2, vec![a_process(8)]).await;
    });
    smol::block_on(again.write()).unwrap();
    assert_eq!(evidence(&again).len(), 2, "one for each process");
}

#[test]
fn while_intel_is_away_the_cursor_stays_and_the_answer_judges_what_was_seen() {
    let disk = MemoryDisk::new("analyst");
    let intel = Arc::new(BlockEverything::default());
    intel.away.store(true, Ordering::Relaxed);
    let mut analyst = analyst(&disk, &intel);
    smol::block_on(async {
        analyst.take(5, vec![a_process(7)]).await;
        analyst.answer().await;
        analyst.save().await.unwrap();
    });
    assert_eq!(analyst.record.cursor(), 5);
    assert!(evidence(&analyst).is_empty());

    intel.away.store(false, Ordering::Relaxed);
    smol::block_on(async {
        let deadline_ms = analyst.knowledge.judge.lock().await.deadline_ms().unwrap();
        let wait = Duration::from_millis(deadline_ms.saturating_sub(clock::unix_ms()) + 1);
        Timer::at(Instant::now() + wait).await;
        analyst.answer().await;
        analyst.save().await.unwrap();
    });
    assert_eq!(evidence(&analyst).len(), 1);
    assert_eq!(analyst.record.cursor(), 6);
}

#[test]
fn without_an_intel_server_nothing_waits() {
    let disk = MemoryDisk::new("analyst");
    let mut analyst = open(&disk, None);
    smol::block_on(async {
        analyst.take(1, vec![a_process(7)]).await;
        analyst.answer().await;
        analyst.save().await.unwrap();
    });
    assert_eq!(analyst.record.cursor(), 2);
}

#[test]
fn the_outcome_of_a_command_is_told_once() {
    let disk = MemoryDisk::new("analyst");
    let mut analyst = open(&disk, None);
    let fields = vec![
        (command_outcome::issuer, OwnedValue::U64(3)),
        (command_outcome::command_seq, OwnedValue::U64(9)),
        (command_outcome::outcome, OwnedValue::U64(1)),
        (command_outcome::detail, OwnedValue::Text(b"no such file".as_slice().into())),
    ];
    let outcome = change(What::Happened, 50, command_outcome::KIND, fields);
    smol::block_on(async {
        analyst.take(1, vec![outcome.clone()]).await;
        analyst.take(2, vec![outcome]).await;
        analyst.write().await.unwrap();
    });
    let reply = read(&analyst.knowledge.outcomes, FeedRequest { wait_ms: 0, ..beginning() });
    let page: FeedPage<'_, OutcomeView<'_>> = from_bytes(&reply).unwrap();
    let outcomes: Vec<_> = page.items.iter().map(Result::unwrap).collect();
    assert_eq!(outcomes.len(), 1);
    assert_eq!((outcomes[0].outcome, outcomes[0].detail), (Outcome::Failed, "no such file"));
    assert_eq!((outcomes[0].number.issuer, outcomes[0].number.seq), (3, 9));
}

#[test]
fn a_feed_gives_each_item_once_in_order_over_pages_and_openings() {
    let disk = MemoryDisk::new("feed");
    let rows = rows(&disk);
    let feed = Arc::new(Feed::open(rows.clone(), LETTERS, Incarnation([7; 16]), 100).unwrap());
    add(&rows, &feed, &[1, 2, 3]);
    add(&rows, &feed, &[3, 4]);
    let feed = Arc::new(Feed::open(rows, LETTERS, Incarnation([7; 16]), 100).unwrap());
    let mut request = FeedRequest { limit: 3, ..beginning() };
    let mut given = Vec::new();
    loop {
        let reply = read(&feed, request);
        let page: FeedPage<'_, (u8, &str)> = from_bytes(&reply).unwrap();
        given.extend(page.items.iter().map(|item| item.unwrap().0));
        request.incarnation = Some(page.incarnation);
        request.cursor = page.next_cursor;
        if page.at_end {
            break;
        }
    }
    assert_eq!(given, [1, 2, 3, 4]);
    request.incarnation = Some(Incarnation([8; 16]));
    let reply = read(&feed, request);
    let page: FeedPage<'_, (u8, &str)> = from_bytes(&reply).unwrap();
    assert_eq!(page.items.iter().count(), 3, "a cursor of another life begins anew");
}

#[test]
fn a_feed_at_its_bound_deletes_the_oldest_with_its_id() {
    let disk = MemoryDisk::new("feed");
    let rows = rows(&disk);
    let feed = Arc::new(Feed::open(rows.clone(), LETTERS, Incarnation([7; 16]), 2).unwrap());
    for number in 1..=5 {
        add(&rows, &feed, &[number]);
    }
    let reply = read(&feed, beginning());
    let page: FeedPage<'_, (u8, &str)> = from_bytes(&reply).unwrap();
    let given: Vec<u8> = page.items.iter().map(|item| item.unwrap().0).collect();
    assert_eq!((given, page.next_cursor), (vec![4, 5], 5));
    assert_eq!(rows.scan(b"i", b"j").unwrap().len(), 2);
}

#[test]
fn a_reader_that_waits_is_woken_by_what_it_wants_alone() {
    let disk = MemoryDisk::new("feed");
    let rows = rows(&disk);
    let feed = Arc::new(Feed::open(rows.clone(), LETTERS, Incarnation([7; 16]), 100).unwrap());
    let request = FeedRequest { wait_ms: 20_000, ..beginning() };
    let reader = {
        let feed = Arc::clone(&feed);
        std::thread::spawn(move || smol::block_on(feed.answer(request, |body| body[0] == 2)))
    };
    add(&rows, &feed, &[1]);
    add(&rows, &feed, &[2]);
    let reply = reader.join().unwrap().unwrap();
    let page: FeedPage<'_, (u8, &str)> = from_bytes(&reply).unwrap();
    assert_eq!(page.items.iter().map(|item| item.unwrap().0).collect::<Vec<_>>(), [2]);
}

/// An intel server that blocks whatever it is asked about, where it is there.
#[derive(Default)]
pub(super) struct BlockEverything {
    away: AtomicBool,
    asked: AtomicUsize,
}

impl Ask for BlockEverything {
    fn ask(&self, method: Method, body: Vec<u8>, _time: Duration) -> Replying<'_> {
        Box::pin(async move {
            if method != Method::CLASSIFY || self.away.load(Ordering::Relaxed) {
                let peer = "intel".to_owned();
                return Err(CallError::Unreachable { peer, reason: "away".to_owned() });
            }
            self.asked.fetch_add(1, Ordering::Relaxed);
            let request: ClassifyRequest<'_> = from_bytes(&body).unwrap();
            let mut reply = Vec::new();
            for indicator in request.indicators.iter() {
                let verdict = Verdict {
                    indicator: indicator.unwrap(),
                    classification: Classification::Blocked,
                    source: Source::Private,
                    comment: "",
                    checked_ms: clock::unix_ms(),
                    recheck_ms: clock::unix_ms() + 86_400_000,
                    stale: false,
                };
                push_item(&mut reply, &verdict);
            }
            Ok(reply)
        })
    }
}

struct NoWatcher;

impl Watcher for NoWatcher {
    fn handle_followed(&self, _followed: &Followed) {}
    fn handle_rebuilt(&self, _followed: &Followed) {}
    fn handle_standing(&self, _sensor: SensorId, _rows: usize, _divergent: bool) {}
    fn handle_graph(&self, _is_over: bool) {}
}

impl Analyst {
    /// Takes one entry with these changes.
    async fn take(&mut self, commit_id: u64, changes: Vec<Change>) {
        let followed = Followed {
            commit_id,
            sensor: SENSOR,
            lane: Lane::Bulk,
            log: LogId([1; 16]),
            segment: 1,
            seq: commit_id,
            first_index: 1,
            received_ms: clock::unix_ms(),
            content: Content::Changes(Decoded { changes, ..Decoded::default() }),
        };
        self.judge(followed).await.unwrap();
        self.taken = self.taken.max(commit_id);
    }

    /// Asks what there is to ask, and hears the answer.
    async fn answer(&mut self) {
        self.ask().await;
        let heard = self.heard.recv().await.unwrap();
        self.hear(heard).await.unwrap();
    }
}

fn rows(disk: &MemoryDisk) -> RowStore {
    RowStore::over(Arc::new(disk.open().unwrap())).unwrap()
}

fn analyst(disk: &MemoryDisk, intel: &Arc<BlockEverything>) -> Analyst {
    open(disk, Some(Arc::clone(intel) as Arc<dyn Ask>))
}

/// An executor on a thread that lives as long as the tests.
fn executor() -> Executor {
    static EXECUTOR: Mutex<Option<Executor>> = Mutex::new(None);
    Arc::clone(EXECUTOR.lock().unwrap().get_or_insert_with(|| {
        let executor: Executor = Arc::default();
        let running = Arc::clone(&executor);
        std::thread::spawn(move || smol::block_on(running.run(std::future::pending::<()>())));
        executor
    }))
}

/// An analyst over what `disk` holds.
pub(super) fn open(disk: &MemoryDisk, server: Option<Arc<dyn Ask>>) -> Analyst {
    Analyst::open(executor(), rows(disk), server, Arc::new(NoWatcher), 1).unwrap()
}

/// What an analyst knows that took these changes of one sensor.
pub(crate) fn knowledge_for_tests(changes: Vec<Change>) -> Arc<Knowledge> {
    let mut analyst = open(&MemoryDisk::new("knowledge"), None);
    smol::block_on(analyst.take(1, changes));
    analyst.knowledge()
}

fn beginning() -> FeedRequest {
    FeedRequest { incarnation: None, cursor: 0, limit: 0, wait_ms: 0 }
}

fn read(feed: &Arc<Feed>, request: FeedRequest) -> Vec<u8> {
    smol::block_on(Arc::clone(feed).answer(request, |_| true)).unwrap()
}

fn evidence(analyst: &Analyst) -> Vec<Evidence> {
    let reply = read(&analyst.knowledge.evidence, beginning());
    let page: FeedPage<'_, EvidenceView<'_>> = from_bytes(&reply).unwrap();
    page.items.iter().map(|view| Evidence::from_view(&view.unwrap()).unwrap()).collect()
}

/// Adds items `(number, long text)` durably, as the record does.
fn add(rows: &RowStore, feed: &Feed, numbers: &[u8]) {
    let items = numbers.iter().map(|number| {
        let mut body = Vec::new();
        push_item(&mut body, &(*number, "x".repeat(9_000).as_str()));
        Item { id: [*number; 16], body }
    });
    let mut last = feed.durable();
    let mut written = Vec::new();
    for item in feed.unknown(items.collect()).unwrap() {
        last += 1;
        written.extend(feed.rows_of(last, &item));
    }
    let (removed, floor) = feed.trim(last).unwrap();
    written.extend(removed);
    smol::block_on(rows.submit(written).unwrap().durable()).unwrap();
    feed.publish(last, floor);
}

fn change(what: What, number: u8, of: Kind, fields: Vec<(Feature, OwnedValue)>) -> Change {
    Change {
        guid: ElementGuid([number; 16]),
        model: Arc::new(KindModel::new(kind(of).unwrap())),
        what,
        time_ns: 1,
        wall_ns: 1,
        index: Some(1),
        source_seq: None,
        fields,
    }
}

fn a_process(pid: u8) -> Change {
    let fields = vec![
        (process::pid, OwnedValue::U64(u64::from(pid))),
        (process::image_hash, OwnedValue::Hash([0xbb; 32].as_slice().into())),
    ];
    change(What::Put, pid, process::KIND, fields)
}
