//! The ledger of a whole Detection server over real TLS sockets: as it is kept, and by a scan that
//! must name the first chunk that is not as it was acknowledged.
#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

#[path = "../../net/tests/deployment/mod.rs"]
mod deployment;
mod scripted;

use std::path::Path;

use deployment::{Deployment, call, run, until};
use lapwing_net::peer::to_body;
use lapwing_net::runtime::Executor;
use lapwing_protocol::call::{Method, Reply};
use lapwing_protocol::code::Code;
use lapwing_protocol::console::{EventView, SensorReport};
use lapwing_protocol::error::{from_bytes, to_slice};
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::id::{Incarnation, Lane};
use lapwing_protocol::items::Items;
use lapwing_protocol::ledger::{
    CollectorCount, LedgerPage, LedgerRequest, LedgerRun, LedgerTold, LedgerVerified, LedgerVerify,
    LogStatement, RunKind,
};
use lapwing_protocol::message::Message;
use lapwing_protocol::registration::ServerStatus;
use lapwing_store::{Batch, DiskOptions, DiskStore, Scan, Store as _};
use scripted::running::Running;
use scripted::{Connection, Log};

/// The sensor, by the first byte of its id.
const SENSOR: u8 = 7;

/// A scan that ended.
#[derive(Debug)]
struct Scanned {
    stored: u64,
    partial: String,
    /// Sequence and commit of each fault, and what it says.
    faults: Vec<(u64, u64, String)>,
}

impl Running {
    /// The sensor's bulk row once everything is counted: its runs, and what it said.
    async fn kept(&self) -> (Vec<LedgerRun>, Option<LedgerTold>, u64) {
        until("everything is counted", || async {
            let body = to_body(&LedgerRequest { sensor: None, after: None }).unwrap();
            let reply = call(&self.console, Method::LEDGER, &body).await.unwrap();
            let page: LedgerPage<'_> = from_bytes(&reply).unwrap();
            let row = page.rows.iter().map(Result::unwrap).find(|row| row.lane == Lane::Bulk)?;
            let seen = page.sensors.iter().map(Result::unwrap);
            let seen = seen.flat_map(|it| it.collected.iter()).map(|it| it.unwrap().seen).sum();
            let runs = row.runs.iter().collect::<Result<Vec<_>, _>>().unwrap();
            (page.behind == 0).then_some((runs, row.told, seen))
        })
        .await
    }

    /// Sequence and op of each row of the export.
    async fn exported(&self) -> Vec<(u64, String)> {
        let request = FeedRequest { incarnation: None, cursor: 0, limit: 0, wait_ms: 0 };
        let reply = call(&self.console, Method::EVENTS, &to_body(&request).unwrap()).await.unwrap();
        let page: FeedPage<'_, EventView<'_>> = from_bytes(&reply).unwrap();
        assert!(page.at_end);
        let rows = page.items.iter().map(Result::unwrap);
        rows.map(|row| (row.seq, row.op.to_owned())).collect()
    }

    /// What is not as it should be, as the status says.
    async fn trouble(&self) -> String {
        let reply = call(&self.console, Method::STATUS, &[]).await.unwrap();
        from_bytes::<ServerStatus<'_>>(&reply).unwrap().trouble.to_owned()
    }

    /// The life of the journal, as whoever reads on by a cursor sees it.
    async fn incarnation(&self) -> Incarnation {
        let request = FeedRequest { incarnation: None, cursor: 0, limit: 1, wait_ms: 0 };
        let reply = call(&self.console, Method::EVENTS, &to_body(&request).unwrap()).await.unwrap();
        from_bytes::<FeedPage<'_, EventView<'_>>>(&reply).unwrap().incarnation
    }

    async fn verify(&self) -> Scanned {
        let mut scan = 0;
        loop {
            let request = LedgerVerify { scan, after: None, wait_ms: 1_000 };
            let body = to_body(&request).unwrap();
            let reply = call(&self.console, Method::LEDGER_VERIFY, &body).await.unwrap();
            let page: LedgerVerified<'_> = from_bytes(&reply).unwrap();
            assert!(page.scanned <= page.of, "{} of {}", page.scanned, page.of);
            scan = page.scan;
            if page.ended {
                assert_eq!(page.scanned, page.of);
                let rows = page.rows.iter().map(Result::unwrap);
                let runs = rows.flat_map(|row| {
                    let before = std::iter::once(0)
                        .chain(row.runs.iter().map(|run| run.unwrap().to_index))
                        .collect::<Vec<_>>();
                    let runs = row.runs.iter().map(Result::unwrap).zip(before);
                    runs.collect::<Vec<_>>()
                });
                let stored = runs.filter(|(run, _)| run.kind == RunKind::Stored);
                let faults = page.faults.iter().map(Result::unwrap);
                return Scanned {
                    stored: stored.map(|(run, before)| run.to_index - before).sum(),
                    partial: page.partial.to_owned(),
                    faults: faults.map(|it| (it.seq, it.commit, it.what.to_owned())).collect(),
                };
            }
        }
    }
}

/// Answers the server's question for a report.
async fn report(sensor: &mut Connection, log: &Log, (next_index, held): (u64, u64)) {
    let asked = sensor
        .until(|message| match message {
            Message::Call(call) if call.method == Method::REPORT => Some(call.call),
            _ => None,
        })
        .await;
    let statement = LogStatement { lane: Lane::Bulk, log: log.id(), next_index, held };
    let (mut logs, mut counts) = ([0; 64], [0; 64]);
    let count = CollectorCount { component: "dns", seen: 31, refused: 0, overflowed: 0 };
    let report = SensorReport {
        collecting: true,
        produced: [next_index - 1, 0],
        spool_bytes: 0,
        health: Items::EMPTY,
        wall_ms: lapwing_net::clock::unix_ms(),
        logs: Items::encode([statement], &mut logs).unwrap(),
        unchanged: 1,
        collected: Items::encode([count], &mut counts).unwrap(),
    };
    let mut body = [0; 512];
    let body = to_slice(&report, &mut body).unwrap();
    sensor.send(&Message::Reply(Reply { call: asked, more: false, code: Code::OK, body })).await;
}

/// A server with thirty stored chunks of one fact each, of a sensor that holds five more.
async fn thirty(deployment: &Deployment, executor: &Executor) -> (Running, Log, Connection) {
    let server = Running::start(deployment, executor).await;
    let mut bulk = Log::new(deployment, SENSOR, Lane::Bulk, 1);
    let mut sensor = Connection::of_sensor(deployment, SENSOR, server.sensors).await;
    sensor.greet(&[&bulk], None).await;
    report(&mut sensor, &bulk, (36, 35)).await;
    for _ in 0..30 {
        sensor.send_chunk(&bulk.lookup()).await;
    }
    sensor.ack_of(Lane::Bulk, 30).await;
    (server, bulk, sensor)
}

#[test]
fn what_is_stored_is_counted_and_what_the_sensor_holds_is_its_own_word() {
    run(async |executor| {
        let deployment = Deployment::new();
        let (server, _, _sensor) = thirty(&deployment, &executor).await;
        let stored = vec![LedgerRun { kind: RunKind::Stored, to_index: 30 }];
        let (runs, told, seen) = server.kept().await;
        assert_eq!((&runs, seen), (&stored, 31));
        let told = told.unwrap();
        assert_eq!((told.produced, told.held), (35, 35), "what is stored since is not held");
        let scanned = server.verify().await;
        assert_eq!((scanned.stored, scanned.faults.len()), (30, 0), "{scanned:?}");
        assert_eq!(scanned.partial, "");

        // A kill: what was counted and not written is counted again, and nothing twice.
        server.kill().await;
        let server = Running::start(&deployment, &executor).await;
        let (runs, told, _) = server.kept().await;
        assert_eq!(runs, stored);
        assert_eq!(told.unwrap().produced, 0, "the report died with the server, the Hello did not");
        assert_eq!(server.verify().await.faults, []);
        server.stop().await;
        let server = Running::start(&deployment, &executor).await;
        assert_eq!(server.kept().await.0, stored);
        server.stop().await;
    });
}

/// Changes the partition that the journal of a stopped server has.
fn change(deployment: &Deployment, change: impl FnOnce(&DiskStore, &mut Batch)) {
    let journal = deployment.folder().join("d1-data").join("journal");
    let mut partitions: Vec<_> =
        std::fs::read_dir(&journal).unwrap().map(|it| it.unwrap().path()).collect();
    partitions.retain(|path| path.is_dir());
    assert_eq!(partitions.len(), 1, "{partitions:?}");
    let store = DiskStore::open(&partitions[0], &DiskOptions::default()).unwrap();
    let mut batch = Batch::new();
    change(&store, &mut batch);
    store.apply(batch).unwrap();
    store.sync().unwrap();
}

/// The key of the first part of an entry.
fn entry(commit: u64) -> Vec<u8> {
    [&b"c"[..], &commit.to_be_bytes(), &[0, 0]].concat()
}

async fn verified_after(
    executor: &Executor,
    damage: impl FnOnce(&DiskStore, &mut Batch),
) -> Scanned {
    let deployment = Deployment::new();
    let (server, _, sensor) = thirty(&deployment, executor).await;
    server.kept().await;
    server.stop().await;
    drop(sensor);
    change(&deployment, damage);
    let server = Running::start(&deployment, executor).await;
    let scanned = server.verify().await;
    server.stop().await;
    scanned
}

#[test]
fn a_scan_names_the_first_chunk_that_is_not_as_it_was() {
    run(async |executor| {
        // One bit of the body of chunk 17, below every checksum: only the chain tells.
        let scanned = verified_after(&executor, |store, batch| {
            let mut value = store.get(&entry(17)).unwrap().unwrap();
            *value.last_mut().unwrap() ^= 1;
            batch.put(&entry(17), &value).unwrap();
        })
        .await;
        let [(17, 17, what)] = scanned.faults.as_slice() else { panic!("{scanned:?}") };
        assert!(what.contains("chain"), "{what}");

        // A value whose own checksum fails.
        let scanned =
            verified_after(&executor, |_, batch| batch.put_sealed(&entry(9), &[7; 60]).unwrap())
                .await;
        let [(9, 9, _)] = scanned.faults.as_slice() else { panic!("{scanned:?}") };
        assert_eq!(scanned.stored, 29, "{scanned:?}");

        // A record that is gone; the last one, which only the head remembers.
        let scanned = verified_after(&executor, |_, batch| batch.delete(&entry(21)).unwrap()).await;
        let [(21, 21, _)] = scanned.faults.as_slice() else { panic!("{scanned:?}") };
    });
}

#[test]
fn a_log_that_is_wholly_gone_is_named_with_its_head() {
    run(async |executor| {
        let scanned = verified_after(&executor, |store, batch| {
            let all = store.scan(&Scan::range(&[], &[0xff; 4], 10_000)).unwrap();
            // Everything but what the journal says of itself and of its partition.
            let of_log = all.iter().filter(|(key, _)| matches!(key.first(), Some(b'c' | b'h')));
            let keys: Vec<_> = of_log.map(|(key, _)| key).collect();
            assert!(keys.len() > 30, "{all:?}");
            keys.into_iter().for_each(|key| batch.delete(key).unwrap());
        })
        .await;
        let [(1, _, what)] = scanned.faults.as_slice() else { panic!("{scanned:?}") };
        assert!(what.contains("the journal has nothing of it"), "{what}");
        assert_eq!(scanned.stored, 0, "{scanned:?}");
    });
}

#[test]
fn a_damaged_entry_ends_neither_following_nor_the_export_and_stays_said() {
    run(async |executor| {
        let deployment = Deployment::new();
        let (server, mut bulk, sensor) = thirty(&deployment, &executor).await;
        server.kept().await;
        server.stop().await;
        drop(sensor);
        change(&deployment, |_, batch| batch.put_sealed(&entry(9), &[7; 60]).unwrap());
        // Without its state the server follows its journal from the beginning.
        std::fs::remove_dir_all(deployment.folder().join("d1-data").join("state")).unwrap();

        let server = Running::start(&deployment, &executor).await;
        let hole = [(RunKind::Stored, 8), (RunKind::Missing, 9), (RunKind::Stored, 30)];
        let hole = hole.map(|(kind, to_index)| LedgerRun { kind, to_index });
        assert_eq!(server.kept().await.0, hole);
        let trouble = server.trouble().await;
        assert!(trouble.contains("entry 9 (chunk 9 of sensor 0707"), "{trouble}");
        let mut expected: Vec<_> = (1..=30).map(|seq| (seq, String::from("event"))).collect();
        expected[8].1 = String::from("damaged");
        assert_eq!(server.exported().await, expected);

        // What comes later is followed too.
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors).await;
        sensor.greet(&[&bulk], None).await;
        report(&mut sensor, &bulk, (37, 6)).await;
        sensor.send_chunk(&bulk.lookup()).await;
        sensor.ack_of(Lane::Bulk, 31).await;
        let runs = server.kept().await.0;
        assert_eq!(runs.last(), Some(&LedgerRun { kind: RunKind::Stored, to_index: 31 }));
        server.stop().await;
        drop(sensor);

        // The entry is behind the cursor now, and as damaged as it was.
        let server = Running::start(&deployment, &executor).await;
        server.kept().await;
        let trouble = server.trouble().await;
        assert!(trouble.contains("entry 9 (chunk 9 of sensor 0707"), "{trouble}");
        server.stop().await;
    });
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A server whose journal was put back to where it had 30 chunks of 35: after a clean end, or a
/// kill before anything but the mark beside it said so.
async fn rolled_back(executor: &Executor, is_killed: bool) {
    let deployment = Deployment::new();
    let data = deployment.folder().join("d1-data");
    let (journal, older) = (data.join("journal"), deployment.folder().join("older"));
    let (server, mut bulk, sensor) = thirty(&deployment, executor).await;
    server.kept().await;
    server.stop().await;
    drop(sensor);
    copy(&journal, &older);
    let server = Running::start(&deployment, executor).await;
    let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors).await;
    sensor.greet(&[&bulk], None).await;
    for _ in 0..5 {
        sensor.send_chunk(&bulk.lookup()).await;
    }
    sensor.ack_of(Lane::Bulk, 35).await;
    let life = server.incarnation().await;
    if is_killed {
        until("the mark names the last entry", || async {
            let mark = std::fs::read_to_string(data.join("journal.mark")).ok()?;
            mark.contains("35").then_some(())
        })
        .await;
        server.kill().await;
    } else {
        server.kept().await;
        server.stop().await;
    }
    drop(sensor);
    std::fs::remove_dir_all(&journal).unwrap();
    std::fs::rename(&older, &journal).unwrap();

    let server = Running::start(&deployment, executor).await;
    let said = "ends with entry 30, and entries up to 35 were stored";
    let trouble = server.trouble().await;
    assert!(trouble.contains(said), "{trouble}");
    assert_ne!(server.incarnation().await, life, "entry 31 will be another one");
    let run = |kind, to_index| LedgerRun { kind, to_index };
    let mut expected = vec![run(RunKind::Stored, 30)];
    // Of a kill the accounts know what they had written before.
    expected.extend((!is_killed).then(|| run(RunKind::Missing, 35)));
    assert_eq!(server.kept().await.0, expected);
    server.stop().await;

    let server = Running::start(&deployment, executor).await;
    assert_eq!(server.kept().await.0, expected, "over a restart too");
    let trouble = server.trouble().await;
    assert!(trouble.contains(said), "until somebody knows: {trouble}");
    std::fs::remove_file(data.join("journal.lost")).unwrap();
    until("nothing more is said", || async { server.trouble().await.is_empty().then_some(()) })
        .await;

    // The sensor has it still.
    let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors).await;
    assert_eq!(sensor.greet(&[&bulk], None).await[0].next_seq, 31);
    for chunk in &bulk.chunks[30..] {
        sensor.send_chunk(chunk).await;
    }
    sensor.ack_of(Lane::Bulk, 35).await;
    assert_eq!(server.kept().await.0, [run(RunKind::Stored, 35)]);
    assert_eq!(server.verify().await.faults, []);
    server.stop().await;
}

#[test]
fn a_journal_that_was_rolled_back_has_a_new_life_and_is_said_until_somebody_knows() {
    run(async |executor| rolled_back(&executor, false).await);
}

#[test]
fn a_rollback_that_is_shorter_than_what_the_accounts_lag_is_noticed_by_the_mark() {
    run(async |executor| rolled_back(&executor, true).await);
}
