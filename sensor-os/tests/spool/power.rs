//! Power cuts of a spool on a real file system: ext4 on a loop device, which is told to lose all
//! that did not reach its disk, its journal included.
//!
//! `LAPWING_ROUNDS` says how often; few where it is not set. It needs root.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lapwing_protocol::hello::LogCause;
use lapwing_protocol::id::{Lane, LogId};
use lapwing_sensor_os::config::Sync;
use lapwing_sensor_os::spool::{LogState, Spool, SpoolOptions};

use crate::disk::Chance;
use crate::{OWNER, SERVER, Sort, append, check_all};

/// Tells the test process to be the writer of another one: a folder and a seed.
const WRITER: &str = "LAPWING_TEST_POWER_WRITER";
const ROUNDS: u64 = 6;
const OPTIONS: SpoolOptions =
    SpoolOptions { bytes_max: 4 << 20, age_ms_max: u64::MAX, sync: Sync::Each };
/// `ioctl(FS_IOC_SHUTDOWN, NOLOGFLUSH)`, without a line of unsafe code here.
const CUT: &str = "import fcntl,os,struct,sys;\
                   fcntl.ioctl(os.open(sys.argv[1],os.O_RDONLY),0x8004587d,struct.pack('I',2))";

fn run(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// An ext4 in a file, mounted while it lives.
struct LoopDisk {
    image: PathBuf,
    mount: PathBuf,
}

impl LoopDisk {
    fn make(folder: &Path) -> Option<Self> {
        let (image, mount) = (folder.join("image"), folder.join("mount"));
        std::fs::File::create(&image).unwrap().set_len(48 << 20).unwrap();
        std::fs::create_dir(&mount).unwrap();
        let disk = Self { image, mount };
        let is_there = run("mkfs.ext4", &["-q", "-F", disk.image.to_str().unwrap()])
            && run("python3", &["-c", "import fcntl"])
            && disk.mount();
        is_there.then_some(disk)
    }

    fn mount(&self) -> bool {
        let (image, mount) = (self.image.to_str().unwrap(), self.mount.to_str().unwrap());
        run("mount", &["-o", "loop", image, mount])
    }

    /// The power goes and comes back.
    fn cut(&self) {
        let mount = self.mount.to_str().unwrap();
        assert!(run("python3", &["-c", CUT, mount]), "the file system takes no shutdown");
    }

    fn remount(&self) {
        assert!(run("umount", &[self.mount.to_str().unwrap()]), "it cannot be unmounted");
        assert!(self.mount(), "it cannot be mounted again");
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        run("umount", &["--lazy", self.mount.to_str().unwrap()]);
    }
}

/// Not a test of its own: the process under which the power is cut.
#[test]
fn power_writer() {
    let Ok(order) = std::env::var(WRITER) else { return };
    let (folder, seed) = order.rsplit_once(' ').unwrap();
    let mut chance = Chance(seed.parse().unwrap());
    let mut spool = Spool::open(Path::new(folder), OWNER, OPTIONS).unwrap();
    let log = LogId([seed.parse::<u64>().unwrap() as u8; 16]);
    let parent = spool.newest_old(Lane::Bulk).map(|old| old.as_parent());
    spool.open_log(Lane::Bulk, log, LogCause::Unclean, parent).unwrap();
    for at in 0_u64.. {
        let sort = if at.is_multiple_of(9) { Sort::Keyframe } else { Sort::Delta };
        let Ok(place) = append(&mut spool, sort, chance.below(6_000) as usize) else { return };
        if chance.below(3) == 0 {
            if spool.sync(at).is_err() {
                return;
            }
            println!("synced {}", place.seq);
        }
        if chance.below(40) == 0 {
            // Up to here a server has it: files go, and what is known of them is written.
            spool.handle_stored((Lane::Bulk, log), SERVER, place, place.seq);
            if spool.trim().is_err() {
                return;
            }
        }
    }
}

/// Lets a writer work until it said `said` times that it synced; answers with the last of them.
fn write_until_cut(disk: &LoopDisk, seed: u64, said: u64) -> u64 {
    let order = format!("{} {seed}", disk.mount.join("spool").display());
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["power::power_writer", "--exact", "--nocapture"])
        .env(WRITER, order)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut synced, mut lines_left) = (0, said);
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    for line in lines.by_ref().map_while(Result::ok) {
        let Some(seq) = line.rsplit_once("synced ").and_then(|(_, seq)| seq.parse().ok()) else {
            continue;
        };
        synced = seq;
        lines_left = lines_left.saturating_sub(1);
        if lines_left == 0 {
            break;
        }
    }
    // What it says from here on does not count: a sync that is under way while the file system goes
    // down may be told that it succeeded, which no disk without power can do.
    disk.cut();
    drop(lines);
    let _ = writer.kill();
    writer.wait().unwrap();
    synced
}

#[test]
fn spl_013_power_cuts_of_a_real_file_system_lose_nothing_that_was_synced() {
    let test = "spl_013_power_cuts_of_a_real_file_system_lose_nothing_that_was_synced";
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = LoopDisk::make(folder.path()) else {
        let is_required = std::env::var("LAPWING_REQUIRE").is_ok_and(|what| what == "all");
        assert!(!is_required, "{test}: no ext4 can be mounted");
        println!("SKIPPED {test}: it needs root, mkfs.ext4, python3 and a loop device");
        return;
    };
    let rounds = std::env::var("LAPWING_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds: u64 = rounds.unwrap_or(ROUNDS);
    let mut chance = Chance(u64::from(std::process::id()));
    let mut all = 0;
    for round in 1..=rounds {
        let synced = write_until_cut(&disk, round, 1 + chance.below(60));
        disk.remount();
        let mut spool = Spool::open(&disk.mount.join("spool"), OWNER, OPTIONS).unwrap();
        let state = spool.newest_old(Lane::Bulk).unwrap();
        assert_eq!(state.log, LogId([round as u8; 16]), "round {round}");
        assert!(state.made.seq >= synced, "round {round}: {} of {synced}", state.made.seq);
        assert!(spool.holes(Lane::Bulk, state.log).is_empty(), "round {round}: no damage");
        check_all(&mut spool, &state);
        all += synced;
        // The next writer begins without what this one left, so that the disk does not fill.
        let LogState { log, made, .. } = state;
        spool.handle_stored((Lane::Bulk, log), SERVER, made, made.seq);
        spool.trim().unwrap();
    }
    println!("{rounds} power cuts: {all} chunks synced, none lost, the spool always opened");
}
