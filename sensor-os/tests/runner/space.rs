//! Where chunks are kept: on a disk that is full, and in memory alone.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use lapwing_protocol::element::Type;
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::Lane;
use lapwing_protocol::op::DropReason;
use lapwing_sensor_os::OwnFact;
use lapwing_sensor_os::config::{Collect, Size};
use lapwing_sensor_os::status::{State, Status};
use lapwing_sensor_os::{Agent, Config, OwnKind};

use crate::servers::{Servers, config};
use crate::wait::until;
use crate::{DOOR, Running};

/// A small file system of its own, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one on `folder`; `None`, and says so, where this process may not.
    fn mount(test: &str, folder: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let options = format!("size={size},mode=0700");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder)
            .output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder.to_path_buf()));
        }
        let is_required = std::env::var("LAPWING_REQUIRE").is_ok_and(|what| what == "all");
        assert!(!is_required, "{test}: a file system cannot be mounted");
        println!("SKIPPED {test}: it needs root, to mount a small file system");
        None
    }

    /// Fills it to the last byte.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        let page = [0_u8; 4_096];
        while file.write_all(&page).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_of_and_used_again_and_every_fact_is_accounted_for() {
    let state = tempfile::tempdir().unwrap();
    let test = "a_full_disk_is_told_of_and_used_again_and_every_fact_is_accounted_for";
    let Some(disk) = SmallDisk::mount(test, &state.path().join("spool"), "1m") else { return };
    let servers = Servers::start();
    let sensor = Running::start(&servers, state.path());
    sensor.store("before");
    let ballast = disk.fill();
    let text = "x".repeat(3_000);
    let mut refused = 0;
    let sent = 40;
    for _ in 0..sent {
        let receipt = sensor.handle.send(OwnFact::event(DOOR).text(3, &text)).unwrap();
        refused += u64::from(receipt.wait().is_err());
    }
    assert!(refused > 20, "{refused}");
    let status = until("the status says it", || {
        Some(sensor.status())
            .filter(|status| !status.spool_trouble.is_empty() && status.facts_lost == refused)
    });
    assert!(status.spool_trouble.contains("make room on the disk"), "{}", status.spool_trouble);
    assert_eq!(status.state, State::Online);

    std::fs::remove_file(&ballast).unwrap();
    sensor.store("after");
    until("the status forgets it", || sensor.status().spool_trouble.is_empty().then_some(()));
    until("a finding", || (!servers.chunk_bytes(Lane::Urgent).is_empty()).then_some(()));
    sensor.stop();
    let dropped = servers.jumped(Lane::Bulk, DropReason::SpoolFailed);
    let stored: u64 = servers.chunks(Lane::Bulk).iter().map(|(.., facts)| facts).sum();
    assert_eq!((dropped, stored), (refused, sent + 2 - refused));

    // A sensor that starts on a full disk, and needs a new log, waits for room and says so.
    std::fs::remove_file(disk.0.join("clean")).unwrap();
    let ballast = disk.fill();
    let sensor = Running::start(&servers, state.path());
    let status = until("it waits", || {
        Some(sensor.status()).filter(|status| !status.spool_trouble.is_empty())
    });
    assert!(status.reason.contains("make room on the disk"), "{}", status.reason);
    std::fs::remove_file(&ballast).unwrap();
    sensor.store("again");
    sensor.stop();
}

#[test]
fn without_a_spool_nothing_is_on_the_disk_and_the_server_knows() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let more = "[spool]\nmode = \"memory\"\n";
    let mut logs = Vec::new();
    for name in ["first", "second"] {
        let sensor = Running::with(&servers, state.path(), more, Collect::none());
        sensor.store(name);
        let status = sensor.await_state(State::Online);
        assert_eq!((status.spool_mode.as_str(), status.spool_bytes), ("memory", 0));
        sensor.stop();
        assert_eq!(servers.memory().greetings.last().unwrap().memory, Memory::RamOnly);
        assert!(!state.path().join("spool").exists());
        logs.push(servers.chunks(Lane::Bulk).last().unwrap().0);
    }
    assert_ne!(logs[0], logs[1], "every start is a new log");
    let stored: u64 = servers.chunks(Lane::Bulk).iter().map(|(.., facts)| facts).sum();
    assert_eq!(stored, 2);
}

#[test]
fn without_a_spool_what_memory_cannot_hold_is_announced_to_the_fact() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    Running::start(&servers, state.path()).stop();

    // The server takes nothing while much more is seen than memory holds.
    servers.hold();
    let text = config(&servers, state.path(), "[spool]\nmode = \"memory\"\n");
    let mut config = Config::parse("/sensor.toml".as_ref(), &text).unwrap();
    config.spool.memory_max = Size(300_000);
    let door = OwnKind::event(DOOR, "door").feature(3, "name", Type::Text);
    let agent = Agent::builder(config).collect(Collect::none()).define(door).build().unwrap();
    let handle = agent.handle();
    let thread = std::thread::spawn(move || smol::block_on(agent.run()));
    let text = "x".repeat(1_000);
    let sent = 1_500;
    for _ in 0..sent {
        handle.send(OwnFact::event(DOOR).text(3, &text)).unwrap();
    }
    until("facts are lost", || {
        (Status::read(state.path()).unwrap().facts_lost > 500).then_some(())
    });
    servers.release();
    handle.send(OwnFact::event(DOOR).text(3, "last")).unwrap().wait().unwrap();
    handle.stop();
    thread.join().unwrap().unwrap();
    let dropped = servers.jumped(Lane::Bulk, DropReason::MemoryFull);
    let stored: u64 = servers.chunks(Lane::Bulk).iter().map(|(.., facts)| facts).sum();
    assert!(dropped > 500, "{dropped}");
    assert_eq!(stored + dropped, sent + 1, "stored {stored}, dropped {dropped}");
}
