//! A server that is backed up, loses its disk, and is restored: what it lacks is sent again,
//! because nothing was called safe that no backup held.

use std::path::Path;

use lapwing_protocol::hello::Memory;
use lapwing_store::DiskOptions;
use lapwing_store::transfer::{self, Life};

use super::*;

const BACKED_UP: &str = "[server.backup]\nfolder = \"backup\"\n";

/// The server itself, which alone may order its backup.
fn itself(deployment: &Deployment, executor: &Executor, server: &Running) -> PeerClient {
    deployment.client(executor, (Role::Detection, 1), Role::Detection, server.at.console)
}

/// Waits for an Ack that calls exactly `seq` safe.
async fn safe_of(sensor: &mut Connection, seq: u64) {
    let is_it = |message: &Message<'_>| match message {
        Message::Ack(ack) => {
            assert!(ack.safe_seq <= seq && ack.safe_seq <= ack.stored_seq, "{ack:?}");
            (ack.safe_seq == seq).then_some(())
        }
        _ => None,
    };
    sensor.until(is_it).await;
}

async fn incarnation(server: &Running) -> Incarnation {
    let request = FeedRequest { incarnation: None, cursor: 0, limit: 1, wait_ms: 0 };
    let reply = call(&server.console, Method::EVENTS, &to_body(&request).unwrap()).await.unwrap();
    from_bytes::<FeedPage<'_, EventView<'_>>>(&reply).unwrap().incarnation
}

fn number(folder: &Path) -> u64 {
    transfer::finished(folder).unwrap().map_or(0, |(_, number)| number)
}

/// Loses the server's disk and puts the last backup in its place.
fn restore(deployment: &Deployment) {
    let (data, options) = (deployment.path("d1-data"), DiskOptions::default());
    std::fs::remove_dir_all(&data).unwrap();
    let life = Life { incarnation: [0xee; 16], forgotten: lapwing_detection::MADE_ANEW };
    let folder = deployment.path("backup");
    transfer::restore(&folder, &data, &options, &life, &mut |_| {}).unwrap();
}

/// CMD-004: what a backup brings back may have run since; a sensor without memory could not tell.
#[test]
fn a_restored_server_sends_no_command_again_to_a_sensor_without_memory() {
    run(async |executor| {
        let deployment = Deployment::new();
        let folder = deployment.path("backup");
        let mut server = Running::start(&deployment, &executor, BACKED_UP).await;
        let put = |seq| CommandPut {
            sensor: SensorId([SENSOR; 16]),
            number: super::number(seq),
            expires_ms: clock::unix_ms() + 600_000,
            action: Action::Restart,
        };
        let order = async |server: &Running, seq| {
            let fleet =
                deployment.client(&executor, (Role::Fleet, 3), Role::Detection, server.at.console);
            call(&fleet, Method::COMMAND, &to_body(&put(seq)).unwrap()).await.unwrap();
        };
        let greet = async |server: &Running, urgent: &Log| {
            let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
            sensor.memory = Memory::RamOnly;
            sensor.greet(&[urgent], None).await;
            sensor
        };
        until("the first backup is made", || async { (number(&folder) > 0).then_some(()) }).await;
        // It was here once, and is away while it is ordered.
        let urgent = Log::new(&deployment, SENSOR, Lane::Urgent, 1);
        drop(greet(&server, &urgent).await);
        until("it is away", || async {
            (!server.sensor(|view| view.connected).await).then_some(())
        })
        .await;
        order(&server, 1).await;
        let owner = itself(&deployment, &executor, &server);
        call(&owner, Method::BACKUP, &[]).await.unwrap();
        until("the next holds it", || async { (number(&folder) > 1).then_some(()) }).await;
        let mut sensor = greet(&server, &urgent).await;
        assert_eq!(sensor.command().await.number, super::number(1));
        drop(sensor);
        server.kill().await;
        restore(&deployment);
        // A restart between does not make it sure.
        server = Running::start(&deployment, &executor, BACKED_UP).await;
        assert_eq!(server.last_command().await, Some(super::number(1)), "it is in the backup");
        server.kill().await;
        server = Running::start(&deployment, &executor, BACKED_UP).await;
        let urgent = Log::new(&deployment, SENSOR, Lane::Urgent, 2);
        let mut sensor = greet(&server, &urgent).await;
        order(&server, 2).await;
        assert_eq!(sensor.command().await.number, super::number(2), "nothing ran twice");
        server.stop().await;
    });
}

/// DLV-005, DLV-006, HEL-027: `safe` is what the last finished backup holds; a restored server asks
/// for the rest, and every fact is there once.
#[test]
fn a_restored_server_gets_what_no_backup_held_and_holds_each_fact_once() {
    run(async |executor| {
        let deployment = Deployment::new();
        let folder = deployment.path("backup");
        let server = Running::start(&deployment, &executor, BACKED_UP).await;
        let owner = itself(&deployment, &executor, &server);
        let (code, _) = refusal(&server.console, Method::BACKUP, &[]).await;
        assert_eq!(code, Code::FORBIDDEN, "a backup is ordered by the server itself");
        // Where there is no backup, one is made at once; this one comes before or behind it.
        call(&owner, Method::BACKUP, &[]).await.unwrap();
        until("both are made", || async { (number(&folder) == 2).then_some(()) }).await;

        let mut bulk = Log::new(&deployment, SENSOR, Lane::Bulk, 1);
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        sensor.greet(&[&bulk], None).await;
        for _ in 0..5 {
            sensor.send_chunk(&bulk.lookup()).await;
        }
        assert_eq!(sensor.ack_of(Lane::Bulk, 5).await.safe_seq, 0, "in no backup yet");
        call(&owner, Method::BACKUP, &[]).await.unwrap();
        safe_of(&mut sensor, 5).await;
        for _ in 0..5 {
            sensor.send_chunk(&bulk.lookup()).await;
        }
        let ack = sensor.ack_of(Lane::Bulk, 10).await;
        assert_eq!((ack.stored_seq, ack.safe_seq), (10, 5));
        bulk.acked_seq = 10;
        let before = incarnation(&server).await;

        server.kill().await;
        restore(&deployment);

        let server = Running::start(&deployment, &executor, BACKED_UP).await;
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        let grant = sensor.greet(&[&bulk], None).await[0];
        assert_eq!((grant.verdict, grant.next_seq), (LogVerdict::ServerBehind, 6));
        for bytes in &bulk.chunks.clone()[5..] {
            sensor.send_chunk(bytes).await;
        }
        sensor.send_chunk(&bulk.lookup()).await;
        let ack = sensor.ack_of(Lane::Bulk, 11).await;
        assert_eq!(ack.safe_seq, 0, "the backup is of another life of this server");
        assert_eq!(server.exported().await, once_each(11));
        assert_ne!(incarnation(&server).await, before, "who follows the feed begins anew");
        call(&itself(&deployment, &executor, &server), Method::BACKUP, &[]).await.unwrap();
        safe_of(&mut sensor, 11).await;
        server.stop().await;
    });
}

#[test]
fn without_a_backup_what_is_stored_is_safe() {
    run(async |executor| {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor, "").await;
        let mut bulk = Log::new(&deployment, SENSOR, Lane::Bulk, 1);
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        sensor.greet(&[&bulk], None).await;
        sensor.send_chunk(&bulk.lookup()).await;
        assert_eq!(sensor.ack_of(Lane::Bulk, 1).await.safe_seq, 1);
        let owner = itself(&deployment, &executor, &server);
        assert_eq!(refusal(&owner, Method::BACKUP, &[]).await.0, Code::UNSUPPORTED);
        server.stop().await;
    });
}
