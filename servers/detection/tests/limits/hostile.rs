//! Peers that break a bound of frames, time, memory or places.

use std::time::Duration;

use lapwing_detection::SessionLimits;
use lapwing_protocol::chunk::ChunkFlags;
use lapwing_protocol::code::Code;
use lapwing_protocol::delivery::Ping;
use lapwing_protocol::id::Lane;
use lapwing_protocol::limits::FRAME_BYTES_UNAUTHENTICATED_MAX;
use lapwing_protocol::message::Message;
use lapwing_server_core::delivery::Patience;

use crate::deployment::{Deployment, pause, run, until};
use crate::running::Running;
use crate::scripted::{Connection, Log};

/// A frame of a kind that nobody knows and that may be skipped.
fn skippable(length: usize) -> Vec<u8> {
    let mut frame = vec![0; length];
    frame[..2].copy_from_slice(&((length - 4) as u16).to_le_bytes());
    frame[2..4].copy_from_slice(&0x8fff_u16.to_le_bytes());
    frame
}

async fn answers_pings(peer: &mut Connection) {
    peer.send(&Message::Ping(Ping { nonce: 5 })).await;
    let nonce = peer
        .until(|message| match message {
            Message::Pong(pong) => Some(pong.nonce),
            _ => None,
        })
        .await;
    assert_eq!(nonce, 5);
}

fn impatient(patience: Patience) -> SessionLimits {
    SessionLimits { patience, ..SessionLimits::default() }
}

#[test]
fn a_frame_one_byte_over_the_bound_closes_and_one_at_the_bound_does_not() {
    // FRM-005: 4 KiB before there is a session, then what HelloAck says.
    run(async |executor| {
        let deployment = Deployment::new();
        let limits = SessionLimits::default();
        let server = Running::start(&deployment, &executor, limits, "").await;
        let mut peer = Connection::of_sensor(&deployment, 7, server.sensors).await;
        peer.send_bytes(&skippable(FRAME_BYTES_UNAUTHENTICATED_MAX)).await;
        answers_pings(&mut peer).await;
        peer.send_bytes(&skippable(FRAME_BYTES_UNAUTHENTICATED_MAX + 1)[..4]).await;
        assert_eq!(peer.refusal().await, Code::TOO_LARGE.0, "the head alone is enough");

        let mut peer = Connection::of_sensor(&deployment, 7, server.sensors).await;
        let largest = peer.greet_largest(&[&Log::new(&deployment, 7, Lane::Bulk, 1)]).await;
        peer.send_bytes(&skippable(largest)).await;
        answers_pings(&mut peer).await;
        peer.send_bytes(&skippable(largest + 1)[..4]).await;
        assert_eq!(peer.refusal().await, Code::TOO_LARGE.0);
        let refused = "lapwing_sensor_refused_total{cause=\"too_large\"}";
        until("both are counted", || async {
            (server.metric(&deployment, refused).await >= 2.0).then_some(())
        })
        .await;
        server.stop().await;
    });
}

#[test]
fn whoever_drips_is_closed_whether_it_stops_or_goes_on() {
    run(async |executor| {
        let deployment = Deployment::new();
        let patience = Patience { frame_ms: 400, progress_ms: 150, ..Patience::default() };
        let server = Running::start(&deployment, &executor, impatient(patience), "").await;
        let mut stops = Connection::of_sensor(&deployment, 7, server.sensors).await;
        stops.send_bytes(&skippable(100)[..50]).await;
        assert_eq!(stops.refusal().await, Code::TIMED_OUT.0);

        let mut goes_on = Connection::of_sensor(&deployment, 8, server.sensors).await;
        for byte in &skippable(60) {
            goes_on.send_bytes(&[*byte]).await;
            pause(Duration::from_millis(20)).await;
        }
        assert_eq!(goes_on.refusal().await, Code::TIMED_OUT.0);
        server.stop().await;
    });
}

#[test]
fn whoever_is_silent_or_never_says_hello_is_given_up() {
    // FRM-010: a half-open connection.
    run(async |executor| {
        let deployment = Deployment::new();
        let patience =
            Patience { ping_ms: 100, idle_ms: 300, hello_ms: 300, ..Patience::default() };
        let server = Running::start(&deployment, &executor, impatient(patience), "").await;
        let mut silent = Connection::of_sensor(&deployment, 7, server.sensors).await;
        silent.greet(&[&Log::new(&deployment, 7, Lane::Bulk, 1)], None).await;
        let is_ping = |message: &Message<'_>| matches!(message, Message::Ping(_)).then_some(());
        silent.until(is_ping).await;
        assert_eq!(silent.refusal().await, Code::IDLE.0);

        let mut mute = Connection::of_sensor(&deployment, 8, server.sensors).await;
        for nonce in 0..40 {
            mute.send(&Message::Ping(Ping { nonce })).await;
            pause(Duration::from_millis(20)).await;
        }
        assert_eq!(mute.refusal().await, Code::IDLE.0);
        server.stop().await;
    });
}

#[test]
fn whoever_never_reads_is_dropped_and_fills_no_memory() {
    run(async |executor| {
        let deployment = Deployment::new();
        let limits = SessionLimits {
            send_time: Duration::from_millis(300),
            // Else its pings are taken so slowly that the answers fill no buffer.
            frames_burst: u32::MAX,
            ..SessionLimits::default()
        };
        let server = Running::start(&deployment, &executor, limits, "").await;
        let mut peer = Connection::of_sensor(&deployment, 7, server.sensors).await;
        peer.greet(&[&Log::new(&deployment, 7, Lane::Bulk, 1)], None).await;
        let mut buffer = [0; 64];
        let length = Message::Ping(Ping { nonce: u64::MAX }).encode(&mut buffer).unwrap();
        let pings = buffer[..length].repeat(4_096);
        let flood = async {
            loop {
                peer.send_bytes(&pings).await;
                // Writing to a closed connection fails at once, over and over.
                smol::future::yield_now().await;
            }
        };
        let dropped =
            until("it is dropped", || async { (server.connected().await == 0).then_some(()) });
        smol::future::or(flood, dropped).await;
        server.stop().await;
    });
}

#[test]
fn whoever_only_talks_is_served_slowly_and_loses_nothing_by_it() {
    // FRM-016: two frames at a stroke here.
    run(async |executor| {
        let deployment = Deployment::new();
        let limits = SessionLimits { frames_burst: 2, ..SessionLimits::default() };
        let server = Running::start(&deployment, &executor, limits, "").await;
        let mut peer = Connection::of_sensor(&deployment, 7, server.sensors).await;
        let mut buffer = [0; 64];
        let length = Message::Ping(Ping { nonce: 9 }).encode(&mut buffer).unwrap();
        // In one write, and half a frame behind them: what waits is neither lost nor a drip.
        let half = &skippable(100)[..50];
        peer.send_bytes(&[&buffer[..length].repeat(20), half].concat()).await;
        for _ in 0..20 {
            let pong = |message: &Message<'_>| matches!(message, Message::Pong(_)).then_some(());
            peer.until(pong).await;
        }
        assert!(server.metric(&deployment, "lapwing_sensor_paced_total").await >= 1.0);
        peer.send_bytes(&skippable(100)[50..]).await;
        answers_pings(&mut peer).await;
        server.stop().await;
    });
}

#[test]
fn of_many_that_come_at_once_no_more_than_the_capacity_get_in() {
    // DLV-018.
    run(async |executor| {
        let deployment = Deployment::new();
        let limits = SessionLimits::default();
        let server = Running::start(&deployment, &executor, limits, "capacity = 3\n").await;
        let mut coming = Vec::new();
        for number in 1..=12 {
            let credentials = deployment.credentials(lapwing_net::identity::Role::Sensor, number);
            let log = Log::new(&deployment, number, Lane::Bulk, 1);
            let deployment = &deployment;
            let at = server.sensors;
            coming.push(async move {
                let mut peer = Connection::with(deployment, &credentials, at).await;
                let code = peer.greet_or_refusal(&log).await;
                (peer, code)
            });
        }
        let mut all = Vec::new();
        let mut running: Vec<_> = coming.into_iter().map(Box::pin).collect();
        while !running.is_empty() {
            let (done, rest) = first_of(running).await;
            all.push(done);
            running = rest;
        }
        let refused: Vec<_> = all.iter().filter_map(|(_, code)| *code).collect();
        assert_eq!(refused, [Code::BUSY.0; 9]);
        assert_eq!(server.connected().await, 3);
        server.stop().await;
    });
}

/// Runs all and gives the first that is done, with those that are not.
async fn first_of<F: Future + Unpin>(mut running: Vec<F>) -> (F::Output, Vec<F>) {
    std::future::poll_fn(move |context| {
        for at in 0..running.len() {
            let polled = std::pin::Pin::new(&mut running[at]).poll(context);
            if let std::task::Poll::Ready(done) = polled {
                drop(running.swap_remove(at));
                return std::task::Poll::Ready((done, std::mem::take(&mut running)));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

#[test]
fn a_chunk_with_flags_that_mean_nothing_closes_and_bytes_that_mean_nothing_are_kept() {
    run(async |executor| {
        let deployment = Deployment::new();
        let limits = SessionLimits::default();
        let server = Running::start(&deployment, &executor, limits, "").await;
        // LOG-021.
        let mut log = Log::new(&deployment, 7, Lane::Bulk, 1);
        let mut peer = Connection::of_sensor(&deployment, 7, server.sensors).await;
        peer.greet(&[&log], None).await;
        peer.send_chunk(&log.with_flags(ChunkFlags::SELF_CONTAINED | 0x40)).await;
        assert_eq!(peer.refusal().await, Code::MALFORMED.0);
        // DLV-010: a bomb of ops that mean nothing is stored as it is, and the next chunk is read.
        let mut log = Log::new(&deployment, 8, Lane::Bulk, 1);
        let mut peer = Connection::of_sensor(&deployment, 8, server.sensors).await;
        peer.greet(&[&log], None).await;
        for byte in [0x00, 0x07, 0x1f, 0x38, 0x80, 0xff] {
            let bomb = log.garbage(&[byte; 8_000]);
            peer.send_chunk(&bomb).await;
        }
        peer.send_chunk(&log.lookup()).await;
        peer.ack_of(Lane::Bulk, 7).await;
        let exported = server.exported().await;
        assert_eq!(exported.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
        server.stop().await;
    });
}
