//! A budget so small that many sensors at once are beyond it: nothing is lost, nothing doubled, and
//! the greedy one gets no more than the others.

use std::collections::BTreeMap;
use std::time::Duration;

use lapwing_detection::SessionLimits;
use lapwing_protocol::delivery::NackReason;
use lapwing_protocol::frame::{Frame, FrameKind};
use lapwing_protocol::id::{Lane, SensorId};
use lapwing_protocol::message::Message;
use lapwing_server_core::delivery::limits::SHARE_BYTES_MIN;

use crate::deployment::{Deployment, pause, run};
use crate::running::Running;
use crate::scripted::{Connection, Log};

/// Sensors at once: each begins with credit for four chunks, and the budget is sixteen.
const SENSORS: u8 = 12;
/// Chunks of each.
const CHUNKS: u64 = 48;

/// What a sensor went through.
#[derive(Debug, Default)]
struct Course {
    throttled: u64,
    resent: u64,
}

/// Sends a whole log by the rules of DLV-007 to DLV-009. A greedy sensor does not wait for
/// `retry_after_ms`.
async fn deliver(peer: &mut Connection, log: &mut Log, is_greedy: bool) -> Course {
    (0..CHUNKS).for_each(|_| drop(log.long_lookup(3_900)));
    let grant = peer.greet(&[log], None).await[0];
    let (mut limit_seq, mut limit_bytes) = (grant.credit.limit_seq, grant.credit.limit_bytes);
    let (mut cursor, mut furthest, mut stored) = (1u64, 0u64, 0u64);
    let mut course = Course::default();
    while stored < CHUNKS {
        while cursor <= CHUNKS && cursor <= limit_seq {
            let bytes: usize = log.chunks[..cursor as usize].iter().map(Vec::len).sum();
            if bytes as u64 > limit_bytes {
                break;
            }
            peer.send_chunk(&log.chunks[cursor as usize - 1].clone()).await;
            course.resent += u64::from(cursor <= furthest);
            furthest = furthest.max(cursor);
            cursor += 1;
        }
        let (kind, body) = peer.frame().await.unwrap();
        let frame = Frame { kind: FrameKind(kind), skippable: false, body: &body };
        match Message::decode(&frame).unwrap().unwrap() {
            Message::Ack(ack) => {
                assert!(ack.credit.limit_seq >= limit_seq && ack.credit.limit_bytes >= limit_bytes);
                (limit_seq, limit_bytes) = (ack.credit.limit_seq, ack.credit.limit_bytes);
                stored = ack.stored_seq;
            }
            Message::Nack(nack) => {
                assert_eq!(nack.reason, NackReason::Throttled);
                course.throttled += 1;
                cursor = nack.next_seq;
                if !is_greedy {
                    pause(Duration::from_millis(u64::from(nack.retry_after_ms))).await;
                }
            }
            // A question of the ledger's: nobody has to answer it.
            Message::Call(_) => {}
            other => panic!("{other:?}"),
        }
    }
    course
}

#[test]
fn what_is_throttled_is_sent_again_and_arrives_once() {
    run(async |executor| {
        let deployment = Deployment::new();
        let limits =
            SessionLimits { in_flight_bytes_max: SHARE_BYTES_MIN, ..SessionLimits::default() };
        let server = Running::start(&deployment, &executor, limits, "").await;
        let mut tasks = Vec::new();
        for number in 1..=SENSORS {
            let mut peer = Connection::of_sensor(&deployment, number, server.sensors).await;
            let mut log = Log::new(&deployment, number, Lane::Bulk, 1);
            tasks.push(executor.spawn(async move {
                let course = deliver(&mut peer, &mut log, number == 1).await;
                (peer, course)
            }));
        }
        let mut throttled = 0;
        let mut resent = 0;
        for task in tasks {
            let (_peer, course) = task.await;
            throttled += course.throttled;
            resent += course.resent;
        }
        assert!(throttled > 0, "nobody was throttled");
        assert!(resent >= throttled, "{resent} sent again after {throttled} refusals");
        let counted = server.metric(&deployment, "lapwing_sensor_throttled_total").await;
        assert!(counted >= throttled as f64, "{counted} of {throttled} are counted");
        let mut times: BTreeMap<(SensorId, u64), u64> = BTreeMap::new();
        for row in server.exported().await {
            *times.entry(row).or_default() += 1;
        }
        assert_eq!(times.len() as u64, u64::from(SENSORS) * CHUNKS, "none is missing");
        assert!(times.values().all(|count| *count == 1), "none is there twice");
        let waiting = server.metric(&deployment, "lapwing_sensors_waiting").await;
        assert!(waiting <= f64::from(SENSORS));
        server.stop().await;
    });
}

#[test]
fn an_urgent_chunk_passes_while_bulk_is_throttled() {
    run(async |executor| {
        let deployment = Deployment::new();
        let limits =
            SessionLimits { in_flight_bytes_max: SHARE_BYTES_MIN, ..SessionLimits::default() };
        let server = Running::start(&deployment, &executor, limits, "").await;
        let mut tasks = Vec::new();
        for number in 2..=SENSORS {
            let mut peer = Connection::of_sensor(&deployment, number, server.sensors).await;
            let mut log = Log::new(&deployment, number, Lane::Bulk, 1);
            tasks.push(executor.spawn(async move {
                deliver(&mut peer, &mut log, true).await;
                peer
            }));
        }
        // DLV-013: it is never refused, whatever the bulk lanes do.
        let mut urgent = Log::new(&deployment, 1, Lane::Urgent, 1);
        let mut peer = Connection::of_sensor(&deployment, 1, server.sensors).await;
        peer.greet(&[&urgent], None).await;
        for seq in 1..=30 {
            peer.send_chunk(&urgent.lookup()).await;
            let acked = peer
                .until(|message| match message {
                    Message::Ack(ack) if ack.stored_seq >= seq => Some(true),
                    Message::Nack(_) => Some(false),
                    _ => None,
                })
                .await;
            assert!(acked, "chunk {seq} was refused");
        }
        for task in tasks {
            drop(task.await);
        }
        server.stop().await;
    });
}
