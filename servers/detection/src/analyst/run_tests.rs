//! Tests of the analyst on a real journal: chunks in, evidence out, over restarts.

use std::thread::JoinHandle;

use lapwing_net::shutdown::{self, ShutdownTrigger};
use lapwing_protocol::chunk::{Chunk, ChunkFlags, ChunkHeader};
use lapwing_protocol::console::EvidenceView;
use lapwing_protocol::digest::row_digest;
use lapwing_protocol::element::{Field, Value, dns, service};
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::id::{BootId, DeploymentId, Lane, LogId, SensorId};
use lapwing_protocol::op::{ENCODING_PLAIN_ROWS, Literal, OpWriter, Preamble, RowChange};
use lapwing_protocol::row;
use lapwing_store::journal::{
    Append, Incarnation, JournalOptions, LogKey, MemoryPartitions, Partitions as _,
};
use lapwing_store::{Batch, MemoryDisk};

use super::tests::{BlockEverything, open};
use super::*;
use crate::follow::Decoders;
use crate::ingest::{EntryForm, EntryHeader};
use crate::roster::lane_key;

const SENSOR: SensorId = SensorId([1; 16]);
const LOG: LogId = LogId([2; 16]);
const DEPLOYMENT: DeploymentId = DeploymentId([3; 16]);

#[test]
fn facts_in_the_journal_become_evidence_at_once_and_once_over_restarts() {
    let (partitions, state) = (Arc::new(MemoryPartitions::new("run")), MemoryDisk::new("state"));
    let run = Run::start(&partitions, &state);
    run.append(1, 1, &lookup(1, "evil.example"));
    let (page, cursor) = run.evidence_behind(0);
    assert_eq!(page, ["domain:evil.example"]);
    run.append(2, 1, &lookup(2, "evil.example"));
    assert_eq!(run.evidence_behind(cursor).0, ["domain:evil.example"], "another lookup");
    run.stop();

    let run = Run::start(&partitions, &state);
    run.append(3, 1, &lookup(3, "worse.example"));
    let (page, _) = run.evidence_behind(2);
    assert_eq!(page, ["domain:worse.example"]);
    run.stop();
}

#[test]
fn a_journal_that_was_lost_is_judged_from_its_beginning_and_said() {
    let (partitions, state) = (Arc::new(MemoryPartitions::new("run")), MemoryDisk::new("state"));
    let run = Run::start(&partitions, &state);
    run.append(1, 1, &lookup(1, "evil.example"));
    assert_eq!(run.evidence_behind(0).1, 1);
    run.append(2, 1, &lookup(2, "worse.example"));
    let (_, cursor) = run.evidence_behind(1);
    assert_eq!((cursor, run.trouble.as_deref()), (2, None));
    run.stop();

    // The same incarnation, and its end cut off: a store that takes damage for a torn tail.
    let cut = Arc::new(MemoryPartitions::new("cut"));
    let run = Run::start(&cut, &state);
    let trouble = run.trouble.clone().unwrap();
    assert!(trouble.contains("ends with entry 0") && trouble.contains("up to 2"), "{trouble}");
    run.append(1, 1, &lookup(1, "third.example"));
    assert_eq!(run.evidence_behind(2).0, ["domain:third.example"]);
    run.stop();
    let run = Run::start(&cut, &state);
    assert_eq!(run.trouble, None, "what the journal has now is known");
    run.stop();
}

#[test]
fn another_journal_that_is_as_long_is_judged_from_its_beginning() {
    let (partitions, state) = (Arc::new(MemoryPartitions::new("run")), MemoryDisk::new("state"));
    let run = Run::start(&partitions, &state);
    run.append(1, 1, &lookup(1, "evil.example"));
    run.append(2, 1, &lookup(2, "evil.example"));
    assert_eq!(run.evidence_behind(1).1, 2);
    run.stop();

    // The live segment is judged at each start, so what must be judged lies in one before it.
    let other = Arc::new(MemoryPartitions::new("other"));
    let options = JournalOptions::new(Incarnation::Keep([8; 16]), 1);
    let journal = Journal::open(Arc::clone(&other) as _, &options).unwrap();
    append(&journal, 1, 1, &lookup(1, "worse.example"));
    append(&journal, 2, 2, &lookup(2, "third.example"));
    let mut analyst = open(&state, None);
    assert_eq!(analyst.record.cursor(), 3);
    assert_eq!(analyst.compare(&journal).unwrap(), None, "it is another one, and lost nothing");
    drop((analyst, journal));
    // A start that did not come further has been written down all the same.
    let analyst = open(&state, None);
    assert_eq!(analyst.record.cursor(), 1);
    drop(analyst);

    let run = Run::start(&other, &state);
    let (mut causes, cursor) = run.evidence_behind(2);
    if cursor == 3 {
        causes.extend(run.evidence_behind(3).0);
    }
    causes.sort();
    assert_eq!(causes, ["domain:third.example", "domain:worse.example"]);
    run.stop();

    // From here on its cursor counts.
    let mut analyst = open(&state, None);
    analyst.compare(&self::journal(&other)).unwrap();
    assert_eq!(analyst.taken, 2);
}

/// A watcher that counted nine entries.
#[derive(Default)]
struct CountedNine(std::sync::atomic::AtomicU64);

impl Watcher for CountedNine {
    fn follow_from(&self) -> u64 {
        10
    }

    fn begin_anew(&self, first: u64) -> Result<(), StoreError> {
        self.0.store(first, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    fn handle_followed(&self, _followed: &Followed) {}
    fn handle_rebuilt(&self, _followed: &Followed) {}
    fn handle_standing(&self, _sensor: SensorId, _rows: usize, _divergent: bool) {}
    fn handle_graph(&self, _is_over: bool) {}
}

#[test]
fn a_journal_that_ends_before_what_was_counted_is_counted_anew() {
    let watcher = Arc::new(CountedNine::default());
    let watching = Arc::clone(&watcher) as Arc<dyn Watcher>;
    let state = RowStore::over(Arc::new(MemoryDisk::new("state").open().unwrap())).unwrap();
    let executor = Executor::default();
    let mut analyst = Analyst::open(executor, state, None, watching, 1).unwrap();
    let trouble = analyst.compare(&journal(&Arc::new(MemoryPartitions::new("short")))).unwrap();
    assert!(trouble.is_some_and(|text| text.contains("up to 9 were stored")));
    assert_eq!(watcher.0.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn a_cursor_in_an_older_segment_finds_the_rows_it_builds_on() {
    let partitions = Arc::new(MemoryPartitions::new("segments"));
    let journal = journal(&partitions);
    for (segment, chunk) in
        [(1, keyframe(1, "active")), (1, patch(2, "failed")), (2, keyframe(3, "stopped"))]
    {
        append(&journal, segment, segment + 1, &chunk);
    }
    let decoders = Decoders::new(DEPLOYMENT, 100);
    let mut rebuilt = 0;
    let mut follower = Follower::rebuild(journal, decoders, 2, |_| rebuilt += 1).unwrap();
    assert_eq!(rebuilt, 0, "the live segment lies behind the cursor");
    let page = follower.page().unwrap();
    let states: Vec<String> = page
        .iter()
        .map(|followed| match &followed.content {
            Content::Changes(decoded) => {
                let change = &decoded.changes[0];
                format!("{} {}", change.what.name(), change.value(service::state).unwrap())
            }
            other => panic!("commit {} is {other:?}", followed.commit_id),
        })
        .collect();
    assert_eq!(states, ["patch failed", "restated stopped"]);
}

#[test]
fn a_damaged_entry_of_the_live_segment_ends_neither_rebuilding_nor_following() {
    for next in [1, 3, 4] {
        let partitions = Arc::new(MemoryPartitions::new("damaged"));
        let journal = journal(&partitions);
        for (seq, chunk) in
            [(1, keyframe(1, "active")), (2, patch(2, "failed")), (3, patch(3, "stopped"))]
        {
            append(&journal, 1, seq, &chunk);
        }
        drop(journal);
        // The second entry opened a partition: its day is a later one than that of the opening.
        let store = partitions.open(2).unwrap();
        let mut batch = Batch::new();
        batch.put_sealed(b"c\0\0\0\0\0\0\0\x02\0\0", &[7; 60]).unwrap();
        store.apply(batch).unwrap();
        store.sync().unwrap();
        drop(store);

        let journal = self::journal(&partitions);
        let mut told = Vec::new();
        let tell = |it: &Followed| (it.commit_id, matches!(it.content, Content::Changes(_)));
        let decoders = Decoders::new(DEPLOYMENT, 100);
        let following = Arc::clone(&journal);
        let mut follower =
            Follower::rebuild(following, decoders, next, |it| told.push(tell(&it))).unwrap();
        append(&journal, 2, 4, &keyframe(4, "active"));
        append(&journal, 2, 5, &patch(5, "failed"));
        told.extend(follower.page().unwrap().iter().map(tell));
        // What builds on it does not decode; the next keyframe does.
        assert_eq!(told, [(1, true), (3, false), (4, true), (5, true)], "from {next}");
        let damaged: Vec<u64> =
            follower.take_damaged().into_iter().flat_map(|it| it.commits).collect();
        assert_eq!(damaged, [2], "from {next}");
    }
}

/// An analyst that runs, with its journal.
struct Run {
    journal: Arc<Journal>,
    knowledge: Arc<Knowledge>,
    trigger: ShutdownTrigger,
    running: JoinHandle<Result<(), AnalystError>>,
    /// What the comparison at the start said.
    trouble: Option<String>,
}

impl Run {
    fn start(partitions: &Arc<MemoryPartitions>, state: &MemoryDisk) -> Self {
        let journal = journal(partitions);
        let mut analyst = open(state, Some(Arc::new(BlockEverything::default())));
        let trouble = analyst.compare(&journal).unwrap();
        let knowledge = analyst.knowledge();
        let (trigger, shutdown) = shutdown::pair();
        let following = Arc::clone(&journal);
        let decoders = Decoders::new(DEPLOYMENT, 100);
        let running =
            std::thread::spawn(move || smol::block_on(analyst.run(following, decoders, shutdown)));
        Self { journal, knowledge, trigger, running, trouble }
    }

    fn append(&self, seq: u64, segment: u64, chunk: &[u8]) {
        append(&self.journal, segment, seq, chunk);
    }

    /// The root causes of the next page behind `cursor`, once there is one.
    fn evidence_behind(&self, cursor: u64) -> (Vec<String>, u64) {
        let feed = Arc::clone(&self.knowledge.evidence);
        let incarnation = Some(feed.incarnation());
        let request = FeedRequest { incarnation, cursor, limit: 10, wait_ms: 20_000 };
        let reply = smol::block_on(feed.answer(request, |_| true)).unwrap();
        let page: FeedPage<'_, EvidenceView<'_>> = from_bytes(&reply).unwrap();
        let causes = page.items.iter().map(|view| view.unwrap().root_cause.to_owned());
        (causes.collect(), page.next_cursor)
    }

    fn stop(self) {
        self.trigger.begin();
        self.running.join().unwrap().unwrap();
        self.journal.close();
    }
}

fn journal(partitions: &Arc<MemoryPartitions>) -> Arc<Journal> {
    let options = JournalOptions::new(Incarnation::Keep([9; 16]), 1);
    Arc::new(Journal::open(Arc::clone(partitions) as _, &options).unwrap())
}

fn append(journal: &Journal, segment: u64, seq: u64, chunk: &[u8]) {
    let header = EntryHeader { form: EntryForm::Chunk, seq, first_index: seq, chain: None };
    let ticket = journal.append(Append {
        log: LogKey { lane: lane_key(SENSOR, Lane::Bulk), log: LOG.0 },
        segment,
        received_wall_ms: clock::unix_ms(),
        header: lapwing_server_core::view::message_bytes(&header),
        body: chunk.to_vec(),
        head: vec![1],
    });
    ticket.unwrap().wait().unwrap();
}

/// A self-contained chunk of one fact: the name was looked up.
fn lookup(seq: u64, question: &str) -> Vec<u8> {
    let fields = [Field::new(dns::question, Value::text(question))];
    chunk((seq, ChunkFlags::SELF_CONTAINED, 1), 0, |ops| {
        ops.event((dns::KIND, seq), &fields, &mut Literal).unwrap();
    })
}

/// A keyframe of one service.
fn keyframe(seq: u64, state: &str) -> Vec<u8> {
    let digest = digest(state);
    let flags = ChunkFlags::KEYFRAME | ChunkFlags::KEYFRAME_LAST;
    chunk((seq, flags, 0), digest, |ops| {
        ops.row(RowChange::Put, 0, (service::KIND, seq), &fields(state), &mut Literal).unwrap();
        ops.keyframe_end(1, digest).unwrap();
    })
}

/// A chunk that changes the service's state.
fn patch(seq: u64, state: &str) -> Vec<u8> {
    let field = [Field::new(service::state, Value::text(state))];
    chunk((seq, 0, 1), digest(state), |ops| {
        ops.row(RowChange::Patch, 0, (service::KIND, seq), &field, &mut Literal).unwrap();
    })
}

fn fields(state: &str) -> [Field<'_>; 2] {
    let name = Field::new(service::name, Value::text("ssh"));
    [name, Field::new(service::state, Value::text(state))]
}

fn digest(state: &str) -> u64 {
    let mut buffer = [0; 64];
    row_digest(LOG, service::KIND, row::write(&fields(state), &mut buffer).unwrap())
}

fn chunk(
    (seq, flags, count): (u64, u8, u64),
    digest: u64,
    write: impl FnOnce(&mut OpWriter<'_>),
) -> Vec<u8> {
    let mut body = [0; 1_024];
    let mut ops = OpWriter::new(&mut body, 0);
    if flags != 0 {
        let boot = BootId([4; 16]);
        ops.preamble(&Preamble { boot, wall_ms: 1_000, string_slots: 0 }).unwrap();
    }
    write(&mut ops);
    let [low0, low1, low2, low3, ..] = digest.to_le_bytes();
    let header = ChunkHeader {
        flags: ChunkFlags(flags),
        encoding: ENCODING_PLAIN_ROWS,
        seq,
        first_index: seq,
        count,
        part: 0,
        time_base_ns: 0,
        digest: [low0, low1, low2, low3],
    };
    let mut bytes = [0; 2_048];
    Chunk { header, body: ops.written() }.encode(&mut bytes).unwrap().to_vec()
}
