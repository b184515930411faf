//! What a Detection server finds in how a sensor delivers, over real TLS sockets: each becomes an
//! evidence, once; an honest sensor gives none.
#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

#[path = "../../net/tests/deployment/mod.rs"]
mod deployment;
mod scripted;

use deployment::{Deployment, call, run, until};
use lapwing_net::identity::Role;
use lapwing_net::peer::to_body;
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::console::EvidenceView;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::hello::LogVerdict;
use lapwing_protocol::id::Lane;
use scripted::running::Running;
use scripted::{Connection, Log};

/// The sensor, by the first byte of its id.
const SENSOR: u8 = 7;

impl Running {
    /// Rule and machine of every evidence, once there are `count`.
    async fn found(&self, count: usize) -> Vec<(String, String)> {
        until("the evidence is in the feed", || async {
            let request = FeedRequest { incarnation: None, cursor: 0, limit: 0, wait_ms: 200 };
            let body = to_body(&request).unwrap();
            let reply = call(&self.console, Method::EVIDENCE, &body).await.unwrap();
            let page: FeedPage<'_, EvidenceView<'_>> = from_bytes(&reply).unwrap();
            let rows = page.items.iter().map(|it| {
                let it = it.unwrap();
                assert!(it.suspicious);
                (it.rule.to_owned(), it.machine.to_owned())
            });
            let rows: Vec<_> = rows.collect();
            (rows.len() >= count).then_some(rows)
        })
        .await
    }
}

fn of_machine(rules: &[&str]) -> Vec<(String, String)> {
    rules.iter().map(|rule| ((*rule).to_owned(), "machine".to_owned())).collect()
}

/// HEL-023, and the same over a kill of the server: once.
#[test]
fn a_rolled_back_disk_is_an_evidence_once() {
    run(async |executor| {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor).await;
        let mut bulk = Log::new(&deployment, SENSOR, Lane::Bulk, 1);
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors).await;
        sensor.greet(&[&bulk], None).await;
        for _ in 0..9 {
            sensor.send_chunk(&bulk.lookup()).await;
        }
        bulk.acked_seq = sensor.ack_of(Lane::Bulk, 9).await.stored_seq;
        let old = bulk.rolled_back(4);
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors).await;
        let grant = sensor.greet(&[&old], None).await[0];
        assert_eq!((grant.verdict, grant.next_seq), (LogVerdict::SensorBehind, 10));
        // Killed at once: what was found is durable before the Hello is answered.
        server.kill().await;
        let server = Running::start(&deployment, &executor).await;
        assert_eq!(server.found(1).await, of_machine(&["sensor_rolled_back"]));
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors).await;
        sensor.greet(&[&old], None).await;
        let new = Log::new(&deployment, SENSOR, Lane::Bulk, 2);
        sensor.greet(&[&new], None).await;
        server.stop().await;
        let server = Running::start(&deployment, &executor).await;
        assert_eq!(server.found(1).await, of_machine(&["sensor_rolled_back"]));
        server.stop().await;
    });
}

/// HEL-026.
#[test]
fn another_key_for_the_same_identity_is_refused_before_hello_and_told() {
    run(async |executor| {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor).await;
        let bulk = Log::new(&deployment, SENSOR, Lane::Bulk, 1);
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors).await;
        sensor.greet(&[&bulk], None).await;
        let other = deployment.new_credentials(Role::Sensor, SENSOR);
        let mut stranger = Connection::with(&deployment, &other, server.sensors).await;
        assert_eq!(stranger.refusal().await, Code::REVOKED.0);
        assert_eq!(server.found(1).await, of_machine(&["sensor_other_key"]));
        // The sensor itself is not disturbed, nor after a restart of the server.
        let mut again = Connection::of_sensor(&deployment, SENSOR, server.sensors).await;
        again.greet(&[&bulk], None).await;
        server.stop().await;
        let server = Running::start(&deployment, &executor).await;
        let mut stranger = Connection::with(&deployment, &other, server.sensors).await;
        assert_eq!(stranger.refusal().await, Code::REVOKED.0);
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors).await;
        sensor.greet(&[&bulk], None).await;
        server.stop().await;
    });
}

/// A log of which the server has five chunks, and more logs since than a head remembers.
async fn a_log_from_long_ago(deployment: &Deployment, server: &Running) -> Log {
    let mut first = Log::new(deployment, SENSOR, Lane::Bulk, 1);
    let mut sensor = Connection::of_sensor(deployment, SENSOR, server.sensors).await;
    sensor.greet(&[&first], None).await;
    for _ in 0..5 {
        sensor.send_chunk(&first.lookup()).await;
    }
    sensor.ack_of(Lane::Bulk, 5).await;
    for number in 2..=14 {
        let mut log = Log::new(deployment, SENSOR, Lane::Bulk, number);
        sensor.greet(&[&log], None).await;
        sensor.send_chunk(&log.lookup()).await;
        sensor.ack_of(Lane::Bulk, 1).await;
    }
    first
}

/// HEL-034: more logs than a head remembers came since, and the server restarted.
#[test]
fn a_log_from_long_ago_goes_on_where_it_stood() {
    run(async |executor| {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor).await;
        let mut first = a_log_from_long_ago(&deployment, &server).await;
        first.acked_seq = 5;
        server.stop().await;
        let server = Running::start(&deployment, &executor).await;
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors).await;
        let grant = sensor.greet(&[&first], None).await[0];
        assert_eq!((grant.verdict, grant.next_seq), (LogVerdict::Resume, 6));
        sensor.send_chunk(&first.lookup()).await;
        sensor.ack_of(Lane::Bulk, 6).await;
        server.stop().await;
    });
}

/// HEL-034: an image of the disk may be of before the first acknowledgement.
#[test]
fn a_log_from_long_ago_is_known_though_its_sensor_says_that_nothing_was_acknowledged() {
    run(async |executor| {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor).await;
        let first = a_log_from_long_ago(&deployment, &server).await;
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors).await;
        let grant = sensor.greet(&[&first.rolled_back(0)], None).await[0];
        assert_eq!((grant.verdict, grant.next_seq), (LogVerdict::SensorBehind, 6));
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors).await;
        let grant = sensor.greet(&[&first], None).await[0];
        assert_eq!((grant.verdict, grant.next_seq), (LogVerdict::Resume, 6));
        server.stop().await;
    });
}

/// DLV-010: what cannot be true of what a chunk says is told, even where the slot that it
/// names is merely empty; what only waits for an opening behind it is not told as well.
#[test]
fn a_chunk_that_speaks_of_an_empty_slot_is_an_evidence() {
    run(async |executor| {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor).await;
        let mut bulk = Log::new(&deployment, SENSOR, Lane::Bulk, 1);
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors).await;
        sensor.greet(&[&bulk], None).await;
        sensor.send_chunk(&bulk.forgets_nothing()).await;
        sensor.send_chunk(&bulk.with_flags(0)).await;
        sensor.send_chunk(&bulk.forgets_nothing()).await;
        sensor.ack_of(Lane::Bulk, 3).await;
        assert_eq!(server.found(2).await, of_machine(&["chunk_undecodable"; 2]));
        server.stop().await;
    });
}
