//! Power cuts: the writer works on an ext4 of its own in a loop device, which goes down at any
//! moment without writing out what it holds in memory; then it is mounted again.

use std::path::{Path, PathBuf};
use std::process::Command;

use lapwing_store::Engine;

use crate::writer::{Running, open, verify};
use crate::{Random, rounds, shutdown};

/// Bytes of the file system; the image is sparse.
const DISK_BYTES: u64 = 512 << 20;
/// After so many entries a new store is begun.
const ENTRIES_MAX: u64 = 4_000;

/// A file system in a file.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Makes one below `folder`, mounted; or says why this machine cannot.
    fn make(folder: &Path) -> Result<Self, String> {
        let (image, mount) = (folder.join("image"), folder.join("mount"));
        std::fs::create_dir(&mount).map_err(|error| error.to_string())?;
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(DISK_BYTES).map_err(|error| error.to_string())?;
        let text = image.display().to_string();
        run("mkfs.ext4", &["-q", "-F", &text])?;
        let mut disk = Self { image, mount, mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&mut self) -> Result<(), String> {
        let (image, mount) = (self.image.display().to_string(), self.mount.display().to_string());
        run("mount", &["-o", "loop", &image, &mount])?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        let mount = self.mount.display().to_string();
        self.mounted = false;
        run("umount", &[&mount]).or_else(|_| run("umount", &["-l", &mount]))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = self.unmount();
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Says that the test is skipped; under LAPWING_REQUIRE=all that is a failure.
fn skip(why: &str) {
    let is_required = std::env::var("LAPWING_REQUIRE").is_ok_and(|value| value == "all");
    assert!(!is_required, "power cuts may not be skipped under LAPWING_REQUIRE=all: {why}");
    println!("SKIPPED power cuts: {why}; they need root and loop devices");
}

fn every_acknowledged_entry_survives(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let mut disk = match Disk::make(directory.path()) {
        Ok(disk) => disk,
        Err(why) => return skip(&why),
    };
    let (mut random, mut acked_in_all, mut fresh) = (Random(0xc0ffee), 0, 0);
    let (mut store, mut acked, mut during) = (0, 0, 0);
    let count = rounds("LAPWING_POWER_CUTS", 6);
    for round in 0..count {
        let root = disk.mount.join(format!("journal {store}"));
        fresh += u64::from(!root.exists());
        let writer = Running::start(&root, engine);
        // Soon after the opening, where files are new, and later, over switches of the partition.
        let soon = round % 3 == 0;
        let before = writer.listen(1 + random.below(if soon { 60 } else { 900 }));
        shutdown::cut(&disk.mount).unwrap();
        // What was acknowledged before the cut counts. During it the file system may answer a sync
        // with success whose data it no longer writes; a machine without power answers nothing.
        acked = before.acked.max(acked);
        let after = writer.end();
        during += after.acked - before.acked;
        let stopped = after.stopped.unwrap_or_default();
        assert!(stopped.contains("cannot"), "a writer whose disk is gone says so: {stopped}");
        disk.unmount().unwrap();
        disk.mount().unwrap();
        let journal = open(&root, engine);
        verify(&journal, acked);
        let is_enough = journal.durable() > ENTRIES_MAX || round % 4 == 3;
        drop(journal);
        if is_enough {
            acked_in_all += acked;
            std::fs::remove_dir_all(&root).unwrap();
            (store, acked) = (store + 1, 0);
        }
    }
    let entries = acked_in_all + acked;
    println!(
        "{engine}: {count} power cuts, {fresh} of them of a fresh store, {entries} acknowledged \
         before them, 0 missing, 0 doubled ({during} more heard after)"
    );
}

#[test]
fn every_acknowledged_entry_survives_power_cuts_on_sled() {
    every_acknowledged_entry_survives(Engine::Sled);
}

#[test]
fn every_acknowledged_entry_survives_power_cuts_on_redb() {
    every_acknowledged_entry_survives(Engine::Redb);
}
