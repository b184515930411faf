//! What the disk does to a sensor that runs: it refuses for long, or the process ends between two
//! writes that belong together.

use std::path::Path;

use lapwing_protocol::command::{Action, Outcome};
use lapwing_protocol::id::Lane;
use lapwing_protocol::op::DropReason;
use lapwing_sensor_os::config::Collect;
use lapwing_sensor_os::status::State;
use lapwing_sensor_os::{OwnFact, SendError, Stored};

use crate::servers::Servers;
use crate::wait::until;
use crate::{DOOR, Running, outcomes};

/// The folder of the bulk lane's only log.
fn bulk_folder(state: &Path) -> std::path::PathBuf {
    let entries = std::fs::read_dir(state.join("spool")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_bulk =
        |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("bulk");
    paths.into_iter().find(is_bulk).unwrap()
}

#[test]
fn a_disk_that_refuses_more_than_memory_holds_is_used_again_when_it_takes_chunks() {
    for sync in ["each", "interval"] {
        let servers = Servers::start();
        let state = tempfile::tempdir().unwrap();
        let more = format!("[spool]\nsync = \"{sync}\"\n");
        let sensor = Running::with(&servers, state.path(), &more, Collect::none());
        sensor.store("before");
        let folder = bulk_folder(state.path());
        std::fs::remove_dir_all(&folder).unwrap();
        // A lost session begins a new segment, and so a new file.
        servers.cut();
        until("another greeting", || (servers.memory().greetings.len() > 1).then_some(()));
        let text = "x".repeat(4_000);
        let sent: Vec<_> = (0..200)
            .map(|_| sensor.handle.send(OwnFact::event(DOOR).text(3, &text)).unwrap())
            .collect();
        let refused = Err(SendError::NotStored(Stored::Dropped(DropReason::SpoolFailed)));
        for receipt in sent {
            assert_eq!(receipt.wait(), refused);
        }
        std::fs::create_dir(&folder).unwrap();
        sensor.store("after");
        sensor.stop();
        let dropped = servers.jumped(Lane::Bulk, DropReason::SpoolFailed);
        let stored: u64 = servers.chunks(Lane::Bulk).iter().map(|(.., facts)| facts).sum();
        assert_eq!((stored, dropped), (2, 200));
    }
}

/// Rewrites the memory of the last command as a crash may leave it: accepted, its end not marked.
fn unmark(state: &Path, seq: u8) {
    let file = state.join("command");
    let mut bytes = std::fs::read(&file).unwrap();
    // Version, checksum, then issuer, sequence, action and state.
    let last = bytes.len() - 1;
    assert_eq!((bytes[5], bytes[last]), (1, 1), "issuer 1, ended");
    bytes[6] = seq;
    bytes[last] = 0;
    let checksum = crc32c::crc32c(&bytes[5..]).to_le_bytes();
    bytes[1..5].copy_from_slice(&checksum);
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_command_has_one_outcome_whenever_the_process_ends() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let sensor = Running::start(&servers, state.path());
    sensor.await_state(State::Online);
    servers.command(Action::StopCollection);
    until("its outcome", || (!outcomes(&servers).is_empty()).then_some(()));
    sensor.stop();
    let done = (1, Outcome::Done as u64);

    // The outcome was spooled, and the process ended before it could mark that.
    unmark(state.path(), 1);
    let sensor = Running::start(&servers, state.path());
    sensor.store("later");
    sensor.stop();
    assert_eq!(outcomes(&servers), [done]);

    // The process ended before the command did.
    unmark(state.path(), 2);
    for name in ["interrupted", "told once"] {
        let sensor = Running::start(&servers, state.path());
        sensor.store(name);
        until("two outcomes", || (outcomes(&servers).len() >= 2).then_some(()));
        sensor.stop();
        assert_eq!(outcomes(&servers), [done, (2, Outcome::Interrupted as u64)]);
    }
}
