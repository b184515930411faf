//! What bounds a Jump: it uses no credit, and is a write to the disk all the same. It is refused
//! where a chunk of its lane would be, comes again, and is taken; and who says many of them is read
//! more slowly.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use lapwing_protocol::delivery::{Jump, JumpCause, LossReason, NackReason};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::frame::Frame;
use lapwing_protocol::hello::{Hello, LogCause, LogHead, Memory};
use lapwing_protocol::id::{BootId, DeploymentId, Lane, LogId, SensorId, ServerId};
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::CHUNK_BYTES_MAX;
use lapwing_protocol::message::Message;
use lapwing_server_core::delivery::limits::{FRAMES_BURST, FRAMES_PER_S};
use lapwing_server_core::delivery::{
    Entry, FairShare, Offer, Offerings, Receiver, Session, SessionEvent,
};

const DEPLOYMENT: DeploymentId = DeploymentId([1; 16]);
const SENSOR: SensorId = SensorId([2; 16]);
const SERVER: ServerId = ServerId([3; 16]);
const LOG: LogId = LogId([5; 16]);

/// A session that says Jumps.
struct Jumper {
    session: Session,
    receiver: Receiver,
    lane: Lane,
}

impl Jumper {
    /// A session that said Hello at 0, with one log of `lane`.
    fn new(lane: Lane) -> Self {
        let offerings =
            Offerings { server: SERVER, name: "d".into(), receive_bytes_max: 16_640, rows_max: 9 };
        let mut receiver = Receiver::new((DEPLOYMENT, SERVER), SENSOR, [None, None]);
        receiver.begin_session(1);
        let mut jumper = Self { session: Session::new(0, 1, offerings), receiver, lane };
        let mut logs = heapless::Vec::new();
        let head = LogHead {
            lane,
            log: LOG,
            cause: LogCause::First,
            parent: None,
            first_seq: 1,
            next_seq: 1_000_000,
            next_index: 1_000_000,
            acked_seq: 0,
            acked_chain: Chain::start(DEPLOYMENT, SENSOR, lane, LOG),
            elsewhere: Items::EMPTY,
        };
        logs.push(head).unwrap();
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            capabilities: heapless::Vec::new(),
            agent: "test/1",
            name: "machine",
            os: "Linux",
            boot: BootId([9; 16]),
            receive_bytes_max: 4_096,
            memory: Memory::Disk,
            collecting: true,
            last_command: None,
            logs,
        };
        let greeted = jumper.hear(0, &Message::Hello(hello), &mut |_| Ok(()));
        assert!(matches!(greeted, Some(SessionEvent::Greeted(_))));
        jumper
    }

    fn hear(
        &mut self,
        now_ms: u64,
        message: &Message<'_>,
        admit: &mut dyn FnMut(usize) -> Result<(), u32>,
    ) -> Option<SessionEvent> {
        let mut buffer = [0; 1_024];
        let length = message.encode(&mut buffer).unwrap();
        let frame = Frame { kind: message.kind(), skippable: false, body: &buffer[4..length] };
        self.session.handle_frame_if((now_ms, 0), &frame, &mut self.receiver, admit).unwrap()
    }

    /// Says a Jump over chunk `seq` alone; gives it where it is taken.
    fn jump(
        &mut self,
        now_ms: u64,
        seq: u64,
        admit: &mut dyn FnMut(usize) -> Result<(), u32>,
    ) -> Option<Entry> {
        let jump = Jump {
            lane: self.lane,
            from_seq: seq,
            to_seq: seq,
            to_index: Some(seq),
            chain_at_to: Chain([seq as u8; 32]),
            cause: JumpCause::Lost(LossReason::MemoryLost),
        };
        match self.hear(now_ms, &Message::Jump(jump), admit) {
            Some(SessionEvent::Entry(entry)) => Some(entry),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    /// The Nack that is due: sequence, episode, reason, milliseconds.
    fn nack(&mut self) -> Option<(u64, u32, NackReason, u32)> {
        match self.receiver.poll_message(1) {
            Some(Offer::Nack(it)) => Some((it.next_seq, it.episode, it.reason, it.retry_after_ms)),
            _ => None,
        }
    }
}

#[test]
fn a_jump_that_there_is_no_room_for_is_throttled_and_taken_when_it_comes_again() {
    let mut jumper = Jumper::new(Lane::Bulk);
    assert_eq!(jumper.jump(1, 1, &mut |_| Err(50)), None);
    assert_eq!(jumper.nack(), Some((1, 1, NackReason::Throttled, 50)));
    assert_eq!(jumper.jump(51, 1, &mut |_| Err(70)), None);
    assert_eq!(jumper.nack(), Some((1, 2, NackReason::Throttled, 70)), "it came: a new episode");
    let mut asked = 0;
    let taken = jumper.jump(121, 1, &mut |bytes| {
        asked = bytes;
        Ok(())
    });
    let taken = taken.unwrap();
    assert_eq!((taken.seq, asked), (1, taken.bytes.len()));
    // A repeat is no write, and nobody is asked.
    assert_eq!(jumper.jump(122, 1, &mut |_| panic!("a repeat")), None);
    assert_eq!(jumper.nack(), None);
}

#[test]
fn an_overloaded_server_throttles_a_jump_of_the_bulk_lane_and_never_an_urgent_one() {
    let mut jumper = Jumper::new(Lane::Bulk);
    jumper.receiver.overload(Some(500));
    assert_eq!(jumper.jump(1, 1, &mut |_| Ok(())), None);
    assert_eq!(jumper.nack(), Some((1, 1, NackReason::Throttled, 500)));
    jumper.receiver.overload(None);
    assert!(jumper.jump(501, 1, &mut |_| Ok(())).is_some());

    let mut urgent = Jumper::new(Lane::Urgent);
    urgent.receiver.overload(Some(500));
    assert!(urgent.jump(1, 1, &mut |_| Err(50)).is_some());
}

#[test]
fn a_store_that_failed_takes_no_jump() {
    for lane in [Lane::Bulk, Lane::Urgent] {
        let mut jumper = Jumper::new(lane);
        jumper.receiver.handle_store_failed();
        assert_eq!(jumper.jump(1, 1, &mut |_| Ok(())), None);
        assert_eq!(jumper.nack().map(|it| it.2), Some(NackReason::StoreFailed));
    }
}

#[test]
fn who_says_many_jumps_is_read_more_slowly_and_goes_on() {
    let mut jumper = Jumper::new(Lane::Urgent);
    let (mut now_ms, mut seq, mut held) = (0, 0, 0);
    while seq < 10 * u64::from(FRAMES_BURST) {
        match jumper.session.poll_resume().filter(|at_ms| *at_ms > now_ms) {
            Some(at_ms) => {
                now_ms = at_ms;
                held += 1;
            }
            None => {
                seq += 1;
                let entry = jumper.jump(now_ms, seq, &mut |_| Ok(())).unwrap();
                jumper.receiver.handle_stored(Lane::Urgent, LOG, entry.seq);
            }
        }
    }
    let allowed = u64::from(FRAMES_BURST) + now_ms / 1_000 * u64::from(FRAMES_PER_S);
    assert!(held > 0 && seq <= allowed + 1, "{seq} Jumps in {now_ms} ms, held {held} times");
}

/// Others fill the disk's budget with endless backlogs; the Jump has no credit and comes again when
/// it was told to.
#[test]
fn a_jump_among_endless_backlogs_is_taken_after_a_few_turns() {
    const CHUNK: usize = CHUNK_BYTES_MAX;
    let others: Vec<SensorId> = (10..30).map(|id| SensorId([id; 16])).collect();
    let mut share = FairShare::new(16 * CHUNK as u64);
    others.iter().chain([&SENSOR]).for_each(|sensor| share.join(*sensor, 1));
    let (mut now_ms, mut on_disk) = (0, std::collections::VecDeque::new());
    // Each millisecond a chunk becomes durable, and whoever may sends one.
    let mut pass = |share: &mut FairShare, ms: u64| {
        for _ in 0..ms {
            now_ms += 1;
            if let Some(sensor) = on_disk.pop_front() {
                share.stored(now_ms, sensor, CHUNK);
            }
            for sensor in &others {
                if share.admit(now_ms, *sensor, CHUNK).is_ok() {
                    on_disk.push_back(*sensor);
                }
            }
            share.handle_timeout(now_ms);
            while share.poll_raise().is_some() {}
        }
        now_ms
    };
    let mut now_ms = pass(&mut share, 100);
    let mut jumper = Jumper::new(Lane::Bulk);
    for attempt in 1.. {
        let mut admit = |bytes| share.admit(now_ms, SENSOR, bytes);
        if jumper.jump(now_ms, 1, &mut admit).is_some() {
            assert!(attempt > 1, "the budget was full");
            return;
        }
        assert!(attempt < 20, "starved for {now_ms} ms");
        let (_, _, reason, retry_after_ms) = jumper.nack().unwrap();
        assert_eq!(reason, NackReason::Throttled);
        now_ms = pass(&mut share, u64::from(retry_after_ms));
    }
}
