//! Group commit: durable before acknowledged, gathered while a flush runs, refused when full,
//! stopped for good after a failed flush.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use lapwing_store::{
    Batch, Blame, MemoryDisk, Refusal, Sink, Store, StoreError, StoreSink, Writer, WriterOptions,
};

fn batch(key: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, b"value").unwrap();
    batch
}

fn writer_on(disk: &MemoryDisk) -> Writer<StoreSink> {
    Writer::start(StoreSink::new(Arc::new(disk.open().unwrap())), WriterOptions::default()).unwrap()
}

/// A sink whose syncs wait for the test and which tells what each group held.
struct Stepped {
    begun: Sender<Vec<u32>>,
    go: Receiver<Result<(), StoreError>>,
    group: Vec<u32>,
}

impl Sink for Stepped {
    type Item = u32;
    type Receipt = u32;

    fn place(&self) -> Arc<str> {
        "stepped".into()
    }

    fn weigh(_: &u32) -> usize {
        10
    }

    fn apply(&mut self, item: u32) -> Result<u32, StoreError> {
        self.group.push(item);
        Ok(item * 10)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.begun.send(std::mem::take(&mut self.group)).unwrap();
        self.go.recv().unwrap()
    }
}

struct Steps {
    writer: Arc<Writer<Stepped>>,
    begun: Receiver<Vec<u32>>,
    go: Sender<Result<(), StoreError>>,
}

fn stepped(options: WriterOptions) -> Steps {
    let (begun_sender, begun) = channel();
    let (go, go_receiver) = channel();
    let sink = Stepped { begun: begun_sender, go: go_receiver, group: Vec::new() };
    Steps { writer: Arc::new(Writer::start(sink, options).unwrap()), begun, go }
}

fn failure() -> StoreError {
    StoreError::new(lapwing_store::Operation::Sync, &"stepped".into(), Blame::Simulated)
}

#[test]
fn an_idle_writer_flushes_the_first_at_once_and_gathers_behind_it() {
    let Steps { writer, begun, go } = stepped(WriterOptions::default());
    let first = writer.submit(1).unwrap();
    assert_eq!(begun.recv().unwrap(), [1]);
    let later: Vec<_> = (2..40).map(|n| writer.submit(n).unwrap()).collect();
    go.send(Ok(())).unwrap();
    assert_eq!(first.wait().unwrap(), 10);
    assert_eq!(begun.recv().unwrap(), (2..40).collect::<Vec<_>>());
    go.send(Ok(())).unwrap();
    for (n, ticket) in (2..).zip(later) {
        assert_eq!(ticket.wait().unwrap(), n * 10);
    }
}

#[test]
fn a_ticket_is_pending_until_the_sync_is_done() {
    let Steps { writer, begun, go } = stepped(WriterOptions::default());
    let mut ticket = writer.submit(1).unwrap();
    begun.recv().unwrap();
    let polled = futures_lite::future::block_on(futures_lite::future::poll_once(&mut ticket));
    assert!(polled.is_none());
    go.send(Ok(())).unwrap();
    assert_eq!(futures_lite::future::block_on(ticket).unwrap(), 10);
}

#[test]
fn a_group_has_a_bound() {
    let options = WriterOptions { group_max: 3, ..WriterOptions::default() };
    let Steps { writer, begun, go } = stepped(options);
    let tickets: Vec<_> = (0..7).map(|n| writer.submit(n).unwrap()).collect();
    let mut seen = Vec::new();
    while seen.len() < 7 {
        let group = begun.recv().unwrap();
        assert!(group.len() <= 3, "{group:?}");
        seen.extend(group);
        go.send(Ok(())).unwrap();
    }
    assert_eq!(seen, (0..7).collect::<Vec<_>>());
    assert!(tickets.into_iter().all(|ticket| ticket.wait().is_ok()));
}

#[test]
fn a_full_queue_gives_the_item_back_and_says_when_there_is_room() {
    for options in [
        WriterOptions { queue_max: 2, ..WriterOptions::default() },
        WriterOptions { queue_bytes_max: 25, ..WriterOptions::default() },
    ] {
        let Steps { writer, begun, go } = stepped(options);
        let mut tickets = vec![writer.submit(1).unwrap()];
        begun.recv().unwrap();
        tickets.push(writer.submit(2).unwrap());
        tickets.push(writer.submit(3).unwrap());
        let refused = writer.submit(4).unwrap_err();
        assert_eq!((refused.item, refused.why), (4, Refusal::Full));
        assert_eq!(writer.backlog(), (2, 20));

        let waiting = thread::spawn({
            let writer = Arc::clone(&writer);
            move || {
                futures_lite::future::block_on(writer.room());
                writer.submit_blocking(4).unwrap().wait()
            }
        });
        for _ in 0..3 {
            // The last answer is for the group of item 4; it may come together with 2 and 3.
            go.send(Ok(())).unwrap();
        }
        assert_eq!(waiting.join().unwrap().unwrap(), 40);
        assert!(tickets.into_iter().all(|ticket| ticket.wait().is_ok()));
    }
}

#[test]
fn after_a_failed_flush_nothing_is_acknowledged_any_more() {
    let Steps { writer, begun, go } = stepped(WriterOptions::default());
    let in_flush = writer.submit(1).unwrap();
    begun.recv().unwrap();
    let gathered = writer.submit(2).unwrap();
    go.send(Err(failure())).unwrap();
    assert_eq!(in_flush.wait(), Err(failure()));
    assert_eq!(gathered.wait(), Err(failure()));
    assert_eq!(writer.failure(), Some(failure()));
    let refused = writer.submit(3).unwrap_err();
    assert_eq!((refused.item, refused.why), (3, Refusal::Stopped(failure())));
    futures_lite::future::block_on(writer.room());
}

#[test]
fn a_sink_that_panics_leaves_nobody_waiting() {
    struct Panicking;
    impl Sink for Panicking {
        type Item = ();
        type Receipt = ();
        fn place(&self) -> Arc<str> {
            "panicking".into()
        }
        fn weigh((): &()) -> usize {
            1
        }
        fn apply(&mut self, (): ()) -> Result<(), StoreError> {
            panic!("ordered by the test")
        }
        fn sync(&mut self) -> Result<(), StoreError> {
            Ok(())
        }
    }
    let writer = Writer::start(Panicking, WriterOptions::default()).unwrap();
    assert_eq!(writer.submit(()).unwrap().wait().unwrap_err().blame, Blame::Stopped);
    writer.close();
    assert!(matches!(writer.submit(()).unwrap_err().why, Refusal::Stopped(_)));
}

#[test]
fn acknowledged_batches_survive_a_power_cut() {
    let disk = MemoryDisk::new("acknowledged");
    let writer = writer_on(&disk);
    let tickets: Vec<_> = (0..200_u8).map(|n| writer.submit(batch(&[n])).unwrap()).collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    disk.cut_power(0);
    drop(writer);
    let store = disk.open().unwrap();
    assert!((0..200_u8).all(|n| store.get(&[n]).unwrap().is_some()));
}

#[test]
fn a_failing_disk_stops_the_writer() {
    for order in [MemoryDisk::fail_next_sync, MemoryDisk::fail_next_apply] {
        let disk = MemoryDisk::new("failing");
        let writer = writer_on(&disk);
        writer.submit(batch(b"before")).unwrap().wait().unwrap();
        order(&disk);
        assert_eq!(writer.submit(batch(b"a")).unwrap().wait().unwrap_err().blame, Blame::Simulated);
        writer.close();
        assert!(matches!(writer.submit(batch(b"b")).unwrap_err().why, Refusal::Stopped(_)));
    }
}

#[test]
fn closing_commits_what_waits() {
    let disk = MemoryDisk::new("closing");
    let writer = writer_on(&disk);
    let tickets: Vec<_> = (0..100_u8).map(|n| writer.submit(batch(&[n])).unwrap()).collect();
    writer.close();
    assert!(tickets.into_iter().all(|ticket| ticket.wait().is_ok()));
    assert!(matches!(writer.submit(batch(b"late")).unwrap_err().why, Refusal::Closed));
}

#[test]
fn many_tasks_of_one_executor_share_flushes() {
    let disk = MemoryDisk::new("tasks");
    let writer = Arc::new(writer_on(&disk));
    let order = Arc::new(Mutex::new(Vec::new()));
    smol::block_on(async {
        let tasks: Vec<_> = (0..100_u8)
            .map(|n| {
                let (writer, order) = (Arc::clone(&writer), Arc::clone(&order));
                smol::spawn(async move {
                    writer.submit(batch(&[n])).unwrap().await.unwrap();
                    order.lock().unwrap().push(n);
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    });
    assert_eq!(order.lock().unwrap().len(), 100);
    assert!((1..=100).contains(&disk.syncs()));
}
