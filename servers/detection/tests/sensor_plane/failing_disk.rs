//! A disk that does not sync any more: nothing is acknowledged, the server says so and ends, and
//! the next start goes on from what is durable.

use super::*;

/// STO-006, STO-021, STO-029, DLV-001.
#[test]
fn a_server_whose_disk_fails_acknowledges_nothing_says_so_and_ends() {
    run(async |executor| {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor, "").await;
        let mut bulk = Log::new(&deployment, SENSOR, Lane::Bulk, 1);
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        sensor.greet(&[&bulk], None).await;
        for _ in 0..3 {
            sensor.send_chunk(&bulk.lookup()).await;
        }
        bulk.acked_seq = sensor.ack_of(Lane::Bulk, 3).await.stored_seq;

        // The durability guard syncs this folder with each flush, and fails without it.
        let side_files = deployment.path("d1-data/journal/p-0000000000000001/blobs");
        std::fs::remove_dir_all(&side_files).unwrap();
        sensor.send_chunk(&bulk.lookup()).await;
        let ended = sensor
            .until(|message| match message {
                Message::Refused(refused) => Some(refused.code),
                Message::Ack(ack) => panic!("acknowledged after a failed flush: {ack:?}"),
                _ => None,
            })
            .await;
        assert_eq!(ended, Code::STORE_FAILED);
        let Running { serving, trigger, .. } = server;
        let said = serving.await.unwrap_err().to_string();
        // The process would end here; what is left of it in this one lets go of the stores.
        trigger.begin();
        assert!(said.contains("nothing more is acknowledged"), "{said}");
        assert!(said.contains("start again"), "{said}");

        std::fs::create_dir(&side_files).unwrap();
        let server = Running::start(&deployment, &executor, "").await;
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        let grant = sensor.greet(&[&bulk], None).await[0];
        assert!(grant.next_seq > 3, "{} is acknowledged again", grant.next_seq);
        for bytes in bulk.chunks.clone().iter().skip(grant.next_seq as usize - 1) {
            sensor.send_chunk(bytes).await;
        }
        // The fourth may have been durable, though nobody could say so.
        sensor.send_chunk(&bulk.lookup()).await;
        sensor.ack_of(Lane::Bulk, 5).await;
        assert_eq!(server.exported().await, once_each(5));
        server.stop().await;
    });
}
