//! A whole sensor against a scripted server, in memory: the shape of every shell.
//!
//! `cargo run -p lapwing-sensor-core --example loopback` prints what each end does. The sensor has
//! no spool here, so there is nothing to append; a shell with one drains `poll_chunk` as well.

#[path = "loopback/server.rs"]
mod server;

use std::error::Error;

use lapwing_protocol::element::{Change, Fact, Field, Value, service};
use lapwing_protocol::hello::{LogCause, Memory};
use lapwing_protocol::id::{BootId, DeploymentId, Lane, LogId, SensorId};
use lapwing_sensor_core::*;
use server::Server;

fn main() -> Result<(), Box<dyn Error>> {
    // All memory is lent; a microcontroller has it in statics.
    const SIZES: Sizes = Sizes::MICROCONTROLLER;
    let (mut rows, mut index) = ([RowEntry::default(); SIZES.rows], [0; SIZES.index]);
    let (mut row_bytes, mut receive) = ([0; SIZES.row_bytes], [0; SIZES.receive]);
    let (mut open, mut window) = ([0; SIZES.bulk.open], [0; SIZES.bulk.window]);
    let mut flight = [Flight::NONE; SIZES.bulk.flight];
    let (mut holes, mut stored) = ([Hole::NONE; 1], [Stored::NONE; 1]);
    let bulk = LaneStorage {
        open: &mut open,
        window: &mut window,
        flight: &mut flight,
        holes: &mut holes,
        stored: &mut stored,
    };
    let storage = Storage {
        rows: &mut rows,
        index: &mut index,
        row_bytes: &mut row_bytes,
        receive: &mut receive,
        bulk,
        ..Storage::default()
    };

    // Who it is. Ids come from the certificate, log ids and seeds from a source of chance.
    let ids = (DeploymentId([1; 16]), SensorId([2; 16]));
    let config = Config {
        deployment: ids.0,
        sensor: ids.1,
        boot: BootId([3; 16]),
        memory: Memory::RamOnly,
        agent: "loopback/1",
        name: "board-7",
        os: "none",
        installation: Installation { has_detection: true, ..Installation::default() },
        last_command: None,
        hash_key: [4; 16],
        seed: 5,
    };
    let log = |lane, id| LogPositions::open(ids, lane, LogId([id; 16]), LogCause::Started, None);
    let logs = [log(Lane::Bulk, 6), log(Lane::Urgent, 7)];
    let mut sensor = Sensor::new(config, storage, logs)?;

    // One change, then drain until all is quiet: that is all a shell does.
    let mut server = Server::new(ids);
    let mut now = Now { monotonic_ns: 1_000_000_000, wall_ms: 1_700_000_000_000 };
    sensor.start(now);
    for state in ["starting", "active", "active", "failed"] {
        let fields = [
            Field::new(service::name, Value::text("pump")),
            Field::new(service::state, Value::text(state)),
        ];
        let time_ns = now.monotonic_ns;
        let fact = Fact { kind: service::KIND, change: Change::Whole, time_ns, fields: &fields };
        let intake = sensor.handle_fact(now, Lane::Bulk, &fact)?;
        println!("sensor: pump is {state}: {intake:?}");
        drain(&mut sensor, now, &mut server)?;
        now.monotonic_ns += 1_000_000_000;
        sensor.handle_timeout(now);
    }
    assert_eq!(sensor.positions(Lane::Bulk).acked, sensor.positions(Lane::Bulk).made);
    println!("all {} facts are stored", sensor.stats().lanes[0].facts_produced);
    Ok(())
}

fn drain(sensor: &mut Sensor<'_>, now: Now, server: &mut Server) -> Result<(), Box<dyn Error>> {
    let mut buffer = [0; 1_024];
    loop {
        while let Some(event) = sensor.poll_event(now) {
            match event {
                Event::DialDetection(_) => sensor.handle_connected(now),
                Event::Acked { acked, .. } => println!("sensor: stored up to {}", acked.seq),
                other => println!("sensor: {other:?}"),
            }
        }
        let length = sensor.poll_transmit(now, &mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let answer = server.handle(&buffer[..length])?;
        sensor.handle_input(now, &answer);
    }
}
