//! Each row of the decision table that tells of something wrong, and a thousand honest restarts
//! that do not.

use lapwing_protocol::chunk::{Chunk, ChunkFlags, ChunkHeader};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::hello::{Hello, LogHead, LogParent, Memory, StoredRange};
use lapwing_protocol::id::ServerId;
use lapwing_protocol::items::Items;

use super::*;
use crate::delivery::{GreetedLog, Receiver};

const DEPLOYMENT: DeploymentId = DeploymentId([1; 16]);
const SENSOR: SensorId = SensorId([2; 16]);
const SERVER: ServerId = ServerId([3; 16]);
const OTHER: ServerId = ServerId([4; 16]);

/// The sensor's side of one log, as far as its disk has it.
#[derive(Clone)]
struct Disk {
    log: LogId,
    cause: LogCause,
    parent: Option<LogParent>,
    chunks: Vec<Vec<u8>>,
    chains: Vec<Chain>,
    acked: u64,
    first: u64,
}

impl Disk {
    fn new(log: u64, cause: LogCause, parent: Option<LogParent>) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&log.to_be_bytes());
        let start = Chain::start(DEPLOYMENT, SENSOR, Lane::Bulk, LogId(id));
        let (chunks, chains) = (Vec::new(), vec![start]);
        Self { log: LogId(id), cause, parent, chunks, chains, acked: 0, first: 1 }
    }

    fn made(&self) -> u64 {
        self.chunks.len() as u64
    }

    fn chunk(&mut self, salt: u8) {
        let seq = self.made() + 1;
        let header = ChunkHeader {
            flags: ChunkFlags(ChunkFlags::SELF_CONTAINED),
            encoding: 1,
            seq,
            first_index: seq,
            count: 1,
            part: 0,
            time_base_ns: 0,
            digest: [0; 4],
        };
        let mut buffer = [0; 128];
        let bytes = Chunk { header, body: &[salt] }.encode(&mut buffer).unwrap().to_vec();
        self.chains.push(self.chains.last().unwrap().next(&bytes));
        self.chunks.push(bytes);
    }

    fn as_parent(&self) -> LogParent {
        let next = self.made() + 1;
        let chain = *self.chains.last().unwrap();
        LogParent { log: self.log, next_seq: next, next_index: next, chain }
    }
}

/// A server with what it remembers of the sensor.
struct Side {
    receiver: Receiver,
    watch: DeliveryWatch,
    epoch: u64,
    now_ms: u64,
}

impl Side {
    fn new() -> Self {
        let receiver = Receiver::new((DEPLOYMENT, SERVER), SENSOR, [None, None]);
        Self { receiver, watch: DeliveryWatch::default(), epoch: 0, now_ms: 1_000 }
    }

    /// A new session of `disk` in `boot`; what `elsewhere` says is in the Hello.
    fn greet(&mut self, disk: &Disk, boot: u64, elsewhere: &[StoredRange]) -> Vec<Suspicion> {
        self.epoch += 1;
        self.now_ms += 1_000;
        self.receiver.begin_session(self.epoch);
        let mut buffer = [0; 512];
        let head = LogHead {
            lane: Lane::Bulk,
            log: disk.log,
            cause: disk.cause,
            parent: disk.parent,
            first_seq: disk.first,
            next_seq: disk.made() + 1,
            next_index: disk.made() + 1,
            acked_seq: disk.acked,
            acked_chain: disk.chains[disk.acked as usize],
            elsewhere: Items::encode(elsewhere.iter().copied(), &mut buffer).unwrap(),
        };
        let mut id = [0; 16];
        id[..8].copy_from_slice(&boot.to_be_bytes());
        let boot = BootId(id);
        let mut logs = heapless::Vec::new();
        logs.push(head.clone()).unwrap();
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            capabilities: heapless::Vec::new(),
            agent: "a/1",
            name: "m",
            os: "o",
            boot,
            receive_bytes_max: 4_096,
            memory: Memory::Disk,
            collecting: true,
            last_command: None,
            logs,
        };
        let grant = self.receiver.handle_hello(self.epoch, &hello).unwrap()[0];
        let greeting = Greeting {
            name: "m".into(),
            os: "o".into(),
            agent: "a/1".into(),
            boot,
            collecting: true,
            memory: Memory::Disk,
            last_command: None,
            logs: vec![GreetedLog {
                cause: head.cause,
                parent: head.parent,
                first_seq: head.first_seq,
                made_seq: head.next_seq,
                made_index: head.next_index,
                acked_seq: head.acked_seq,
                acked_chain: head.acked_chain,
                grant,
            }],
        };
        self.watch.handle_greeting(self.now_ms, &greeting)
    }

    /// Takes and stores the chunks of `disk` up to `to`.
    fn take(&mut self, disk: &Disk, to: u64) {
        for (seq, bytes) in (1..=to).zip(&disk.chunks) {
            let chunk = Chunk::decode(bytes).unwrap();
            if let Some(entry) = self.receiver.handle_chunk(self.epoch, &chunk, bytes).unwrap() {
                self.receiver.handle_stored(entry.lane, entry.log, seq);
            }
        }
    }
}

fn with_chunks(count: u8) -> Disk {
    let mut disk = Disk::new(1, LogCause::First, None);
    (0..count).for_each(|salt| disk.chunk(salt));
    disk
}

fn here(to_seq: u64) -> [StoredRange; 1] {
    [StoredRange { server: SERVER, from_seq: 1, to_seq }]
}

fn rules(found: &[Suspicion]) -> Vec<String> {
    let subject =
        Subject { deployment: DEPLOYMENT, sensor: SENSOR, machine: "web-7", server: "d1" };
    found.iter().map(|it| it.evidence(7, subject).rule).collect()
}

/// HEL-023.
#[test]
fn a_disk_that_was_rolled_back_is_found() {
    let (mut server, disk) = (Side::new(), with_chunks(9));
    assert_eq!(server.greet(&disk, 1, &[]), []);
    server.take(&disk, 9);
    let mut old = with_chunks(4);
    old.acked = 2;
    let found = server.greet(&old, 2, &here(2));
    assert_eq!(rules(&found), ["sensor_rolled_back"]);
    // The new log that the sensor opens tells of the same thing, with the same id.
    let new = Disk::new(2, LogCause::RolledBack, Some(old.as_parent()));
    let again = server.greet(&new, 2, &[]);
    assert_eq!(again, found);
}

/// HEL-024.
#[test]
fn a_disk_that_was_rolled_back_and_ran_on_is_found() {
    let (mut server, disk) = (Side::new(), with_chunks(9));
    server.greet(&disk, 1, &[]);
    server.take(&disk, 9);
    let mut other = with_chunks(4);
    (0..5).for_each(|_| other.chunk(99));
    other.acked = 9;
    assert_eq!(rules(&server.greet(&other, 2, &here(9))), ["sensor_forked"]);
}

/// HEL-025.
#[test]
fn two_machines_with_one_identity_are_found() {
    let (mut server, disk) = (Side::new(), with_chunks(9));
    server.greet(&disk, 1, &[]);
    server.take(&disk, 9);
    let mut copy = disk.clone();
    copy.acked = 9;
    let mut original = copy.clone();
    copy.chunk(50);
    original.chunk(60);
    assert_eq!(server.greet(&copy, 2, &here(9)), []);
    server.take(&copy, 10);
    // The original, which knows nothing of the copy, comes with the boot that seemed over.
    let found = rules(&server.greet(&original, 1, &here(9)));
    assert_eq!(found, ["sensor_cloned"]);

    // Two copies that run on from one moment have one boot: they end each other, and branch.
    let mut server = Side::new();
    server.greet(&disk, 1, &[]);
    for _ in 0..3 {
        server.now_ms += 60_000;
        server.watch.handle_fence(server.now_ms);
    }
    server.take(&disk, 9);
    assert_eq!(server.greet(&copy, 1, &here(9)), [], "ended sessions alone are no copy");
    let mut behind = with_chunks(3);
    behind.acked = 3;
    let found = rules(&server.greet(&behind, 1, &here(3)));
    assert_eq!(found, ["sensor_rolled_back", "sensor_cloned"]);
}

/// HEL-026.
#[test]
fn another_key_is_refused_and_the_first_one_stays() {
    let mut watch = DeliveryWatch::default();
    assert_eq!(watch.admit(Some([1; 32])), Ok(()));
    assert_eq!(watch.admit(Some([1; 32])), Ok(()));
    let refused = watch.admit(Some([2; 32])).unwrap_err();
    assert_eq!(rules(&[refused]), ["sensor_other_key"]);
    assert_eq!(watch.admit(Some([1; 32])), Ok(()));
}

/// HEL-027 to HEL-029.
#[test]
fn a_server_that_lost_what_it_acknowledged_is_found() {
    let mut disk = with_chunks(9);
    let mut server = Side::new();
    server.greet(&disk, 1, &[]);
    server.take(&disk, 5);
    disk.acked = 8;
    assert_eq!(rules(&server.greet(&disk, 1, &here(8))), ["server_restored"]);
    disk.first = 7;
    assert_eq!(rules(&server.greet(&disk, 1, &here(8))), ["server_restored"]);
    assert_eq!(rules(&Side::new().greet(&disk, 1, &here(8))), ["server_data_lost"]);
}

/// HEL-035.
#[test]
fn a_clock_that_is_off_is_found_once_a_boot() {
    let mut server = Side::new();
    server.greet(&with_chunks(1), 1, &[]);
    let now_ms = 10_000_000;
    assert_eq!(server.watch.handle_clock(now_ms, now_ms + SKEW_MS_MAX), None);
    assert_eq!(server.watch.handle_clock(now_ms, 0), None, "a sensor without a clock");
    let ahead = server.watch.handle_clock(now_ms, now_ms + SKEW_MS_MAX + 1).unwrap();
    let later = server.watch.handle_clock(now_ms + 5, now_ms + SKEW_MS_MAX + 900).unwrap();
    let subject =
        Subject { deployment: DEPLOYMENT, sensor: SENSOR, machine: "web-7", server: "d1" };
    let (ahead, later) = (ahead.evidence(7, subject), later.evidence(8, subject));
    assert_eq!((ahead.rule.as_str(), ahead.evidence), ("clock_skew", later.evidence));
}

/// DLV-012.
#[test]
fn the_third_segment_that_differs_within_an_hour_is_told() {
    let mut watch = DeliveryWatch::default();
    let at = |segment| (Lane::Bulk, LogId([1; 16]), segment);
    assert_eq!(watch.handle_divergent(0, at(1)), None);
    assert_eq!(watch.handle_divergent(1, at(1)), None, "the same segment");
    assert_eq!(watch.handle_divergent(2, at(9)), None);
    assert!(watch.handle_divergent(3, at(17)).is_some());
    assert_eq!(watch.handle_divergent(3 + WATCH_MS, at(25)), None, "an hour later");
}

/// Clean stops, kills, power cuts, and a move to another server and back: none of them is a reason
/// for suspicion, however often.
#[test]
fn a_thousand_honest_restarts_raise_nothing() {
    let mut server = Side::new();
    let mut disk = Disk::new(1, LogCause::First, None);
    let (mut boot, mut elsewhere) = (1, Vec::new());
    for round in 2..1_002_u64 {
        assert_eq!(server.greet(&disk, boot, &elsewhere), [], "round {round}");
        let from = disk.made();
        (0..1 + round % 5).for_each(|salt| disk.chunk(salt as u8));
        // The acknowledgement of the last ones is lost now and then.
        let stored = disk.made() - round % 2;
        server.take(&disk, stored);
        disk.acked = from.max(stored.saturating_sub(round % 3));
        elsewhere = here(disk.acked).to_vec();
        match round % 4 {
            // A clean stop, or a connection that broke: the same log, the same boot.
            0 => {}
            // A half-open connection, of which the server has not heard yet.
            1 => server.watch.handle_fence(server.now_ms),
            // A power cut: what was not synced is gone and was not sent, the log is not written to
            // any more, and its tail goes first.
            2 => {
                boot += 1;
                assert_eq!(server.greet(&disk, boot, &elsewhere), [], "round {round}, its tail");
                server.take(&disk, disk.made());
                let parent = disk.as_parent();
                disk = Disk::new(round, LogCause::Unclean, Some(parent));
                elsewhere.clear();
            }
            // Away and back: another server acknowledged the rest, and the sensor let go of it.
            _ => {
                let stored = StoredRange { server: SERVER, from_seq: 1, to_seq: disk.acked };
                let away = disk.acked + 1;
                (0..3).for_each(|salt| disk.chunk(salt));
                disk.acked = disk.made();
                let other = StoredRange { server: OTHER, from_seq: away, to_seq: disk.made() };
                elsewhere = vec![stored, other];
                assert_eq!(server.greet(&disk, boot, &elsewhere), [], "round {round}, back");
                let parent = disk.as_parent();
                disk = Disk::new(round, LogCause::Unclean, Some(parent));
                elsewhere.clear();
                boot += 1;
            }
        }
    }
}
