//! Hashes of programs: one thread that computes, and a cache that it shares.
//!
//! A program comes as an open descriptor (from fanotify) or as a process whose image is opened
//! when its turn comes. Open ones go first: they hold a descriptor, and somebody waits for them.
//! The cache is keyed by what changes when the content does: device, inode, size and both change
//! times.
//!
//! Overflow: more than the bound of open programs, or of processes, are refused, and their hash is
//! not seen. A file that does not answer (a network that is gone) holds up this thread alone:
//! [`Hasher::is_stalled`] says so, and whoever owns it begins another.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use sha2::{Digest, Sha256};

use super::join::Hash;
use super::limits::{HASH_STALL, HASHED_BYTES_MAX, HASHES_MAX, OPEN_PROGRAMS_MAX, PROCESSES_MAX};
use crate::sys::clock;
use crate::sys::host::{FileIdentity, name_thread};
use crate::sys::wait::Wake;

/// How a file is reached to be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// By a descriptor, which always works.
    Open,
    /// By the process with this number, which works as long as it runs the file.
    Process(u32),
}

/// A hash that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashed {
    pub(crate) reach: Reach,
    pub(crate) identity: FileIdentity,
    pub(crate) hash: Hash,
}

/// The files whose hash is being computed, and how each is reached: one may be asked for both
/// ways, and only when all ways failed is its hash not to be had.
#[derive(Debug, Default)]
pub(crate) struct Hashing {
    asked: BTreeMap<FileIdentity, Vec<Reach>>,
}

impl Hashing {
    /// Whether `identity` is being hashed by that way already.
    pub(crate) fn has(&self, identity: &FileIdentity, reach: Reach) -> bool {
        self.asked.get(identity).is_some_and(|asked| asked.contains(&reach))
    }

    pub(crate) fn asked(&mut self, identity: FileIdentity, reach: Reach) {
        self.asked.entry(identity).or_default().push(reach);
    }

    /// Takes note of an answer, and says whether it is the file's last word.
    pub(crate) fn settle(&mut self, hashed: &Hashed) -> bool {
        let Some(asked) = self.asked.get_mut(&hashed.identity) else { return false };
        asked.retain(|reach| *reach != hashed.reach);
        let settled = asked.is_empty() || matches!(hashed.hash, Hash::Known(_));
        if asked.is_empty() {
            self.asked.remove(&hashed.identity);
        }
        settled
    }
}

/// The hashes of the files seen most recently.
#[derive(Debug, Default)]
pub(crate) struct HashCache {
    hashes: BTreeMap<FileIdentity, ([u8; 32], u64)>,
    uses: u64,
}

impl HashCache {
    /// The hash of `identity`, if it is remembered.
    pub(crate) fn hash_of(&mut self, identity: &FileIdentity) -> Option<[u8; 32]> {
        self.uses += 1;
        let (hash, used) = self.hashes.get_mut(identity)?;
        *used = self.uses;
        Some(*hash)
    }

    pub(crate) fn remember(&mut self, identity: FileIdentity, hash: [u8; 32]) {
        self.uses += 1;
        if self.hashes.len() >= HASHES_MAX {
            // Forgets the older half at once, so that the search costs little a hash.
            let mut ages: Vec<u64> = self.hashes.values().map(|(_, used)| *used).collect();
            let middle = ages.len() / 2;
            let (_, middle, _) = ages.select_nth_unstable(middle);
            let middle = *middle;
            self.hashes.retain(|_, (_, used)| *used > middle);
        }
        self.hashes.insert(identity, (hash, self.uses));
    }
}

#[derive(Debug, Default)]
struct Work {
    open: VecDeque<(FileIdentity, File)>,
    processes: VecDeque<(FileIdentity, u32)>,
    /// What is being read.
    current: Option<FileIdentity>,
    closing: bool,
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    more: Condvar,
    /// Since when one piece of a file is being read, in boot time; 0 where none is.
    reading_since_ns: AtomicU64,
}

impl Shared {
    fn reads(&self, current: FileIdentity) {
        lock(&self.work).current = Some(current);
        self.reading_since_ns.store(clock::boottime_ns(), Ordering::Relaxed);
    }

    fn rests(&self) {
        self.reading_since_ns.store(0, Ordering::Relaxed);
    }
}

/// The hashing thread. Dropping it ends the thread after the piece of a file it is at; that is not
/// waited for, since it may never come.
#[derive(Debug)]
pub(crate) struct Hasher {
    shared: Arc<Shared>,
    hashed: Receiver<Hashed>,
    thread: Option<JoinHandle<()>>,
}

impl Hasher {
    /// Starts it; `wake` is signalled after each hash.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub(crate) fn start(wake: Arc<Wake>) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (sender, hashed) = channel();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("lapwing-hash".into())
            .stack_size(256 << 10)
            .spawn(move || run(&theirs, &sender, &wake))?;
        Ok(Self { shared, hashed, thread: Some(thread) })
    }

    /// Asks for the hash of an open program; answers whether it will come.
    pub(crate) fn hash_open(&self, identity: FileIdentity, file: File) -> bool {
        let mut work = lock(&self.shared.work);
        if work.open.len() >= OPEN_PROGRAMS_MAX {
            return false;
        }
        work.open.push_back((identity, file));
        self.shared.more.notify_one();
        true
    }

    /// When a read that is under way has taken too long, in boot time.
    pub(crate) fn stall_due_ns(&self) -> Option<u64> {
        let since_ns = self.shared.reading_since_ns.load(Ordering::Relaxed);
        let patience_ns = u64::try_from(HASH_STALL.as_nanos()).unwrap_or(u64::MAX);
        (since_ns > 0).then(|| since_ns.saturating_add(patience_ns))
    }

    /// Whether no further hash is to be expected: a read takes too long, or the thread is gone.
    pub(crate) fn is_stalled(&self, now_ns: u64) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
            || self.stall_due_ns().is_some_and(|due_ns| due_ns <= now_ns)
    }

    /// The file that was read last.
    pub(crate) fn current(&self) -> Option<FileIdentity> {
        lock(&self.shared.work).current
    }

    /// Asks for the hash of the image of a process. Many processes of one image may ask: any may
    /// end before its turn, and the image is read once. Answers whether it will come.
    pub(crate) fn hash_process(&self, identity: FileIdentity, pid: u32) -> bool {
        let mut work = lock(&self.shared.work);
        if work.processes.len() >= PROCESSES_MAX {
            return false;
        }
        work.processes.push_back((identity, pid));
        self.shared.more.notify_one();
        true
    }

    /// The next hash that is there.
    pub(crate) fn poll_hashed(&self) -> Option<Hashed> {
        self.hashed.try_recv().ok()
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        lock(&self.shared.work).closing = true;
        self.shared.more.notify_all();
    }
}

fn lock(work: &Mutex<Work>) -> MutexGuard<'_, Work> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(shared: &Shared, hashed: &Sender<Hashed>, wake: &Wake) {
    name_thread(c"lapwing-hash");
    let answer = |reach, identity, hash: Option<[u8; 32]>| {
        let hash = hash.map_or(Hash::Unseen, Hash::Known);
        // Nobody listens any more when the collector ends, and this thread is then told to.
        let _ = hashed.send(Hashed { reach, identity, hash });
        wake.signal();
    };
    // Open programs are small in number, mostly in size, and somebody waits for each: they go
    // before the rest of a file that is reached by its process.
    let hash_open_ones = || loop {
        let mut work = lock(&shared.work);
        if work.closing {
            return Next::Stop;
        }
        let Some((identity, file)) = work.open.pop_front() else { return Next::Continue };
        drop(work);
        let between = || Next::unless(lock(&shared.work).closing);
        let hash = hash_file(shared, &file, &identity, between);
        answer(Reach::Open, identity, hash);
    };
    let mut read = HashCache::default();
    while hash_open_ones() == Next::Continue {
        let work = lock(&shared.work);
        let idle =
            |work: &mut Work| work.open.is_empty() && work.processes.is_empty() && !work.closing;
        let mut work = shared.more.wait_while(work, idle).unwrap_or_else(PoisonError::into_inner);
        if !work.open.is_empty() {
            continue;
        }
        let Some((identity, pid)) = work.processes.pop_front() else { continue };
        drop(work);
        let known = read.hash_of(&identity);
        let hash = known.or_else(|| {
            shared.reads(identity);
            let image = open_image(identity, pid);
            shared.rests();
            hash_file(shared, &image?, &identity, hash_open_ones)
        });
        if let Some(hash) = hash {
            read.remember(identity, hash);
        }
        answer(Reach::Process(pid), identity, hash);
    }
}

/// What to do between two pieces of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Continue,
    Stop,
}

impl Next {
    fn unless(closing: bool) -> Self {
        if closing { Self::Stop } else { Self::Continue }
    }
}

/// Opens the image of `pid`, if it is still the file `identity`.
fn open_image(identity: FileIdentity, pid: u32) -> Option<File> {
    let file = File::open(format!("/proc/{pid}/exe")).ok()?;
    let now = FileIdentity::of(&file.metadata().ok()?);
    (now == identity).then_some(file)
}

/// SHA-256 of `file`, or nothing when it is too large, cannot be read, changed meanwhile, or
/// `stop`.
fn hash_file(
    shared: &Shared,
    mut file: &File,
    identity: &FileIdentity,
    between: impl Fn() -> Next,
) -> Option<[u8; 32]> {
    if identity.bytes > HASHED_BYTES_MAX {
        return None;
    }
    // Looking at the first bytes may have moved the position.
    file.seek(SeekFrom::Start(0)).ok()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        shared.reads(*identity);
        let read = file.read(&mut buffer);
        shared.rests();
        match read.ok()? {
            0 => break,
            read => hasher.update(buffer.get(..read)?),
        }
        if between() == Next::Stop {
            return None;
        }
    }
    // A program cannot be written while it runs, but one that has ended can. The inode's change
    // time is not compared: unlinking the file changes it, and the content is the same.
    let after = FileIdentity::of(&file.metadata().ok()?);
    let unchanged = after.bytes == identity.bytes && after.modified_ns == identity.modified_ns;
    unchanged.then(|| hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn identity(inode: u64) -> FileIdentity {
        FileIdentity { device: 1, inode, bytes: 1, modified_ns: 1, changed_ns: 1 }
    }

    #[test]
    fn the_cache_forgets_what_was_used_least() {
        let mut cache = HashCache::default();
        cache.remember(identity(0), [0; 32]);
        for inode in 1..=HASHES_MAX as u64 {
            assert!(cache.hash_of(&identity(0)).is_some());
            cache.remember(identity(inode), [1; 32]);
        }
        assert!(cache.hashes.len() <= HASHES_MAX);
        assert!(cache.hash_of(&identity(0)).is_some(), "used all along");
        assert!(cache.hash_of(&identity(1)).is_none(), "used long ago");
    }

    #[test]
    fn a_file_that_is_asked_for_both_ways_is_not_given_up_when_one_fails() {
        let mut hashing = Hashing::default();
        hashing.asked(identity(1), Reach::Process(7));
        hashing.asked(identity(1), Reach::Open);
        let answer = |reach, hash| Hashed { reach, identity: identity(1), hash };
        assert!(!hashing.settle(&answer(Reach::Process(7), Hash::Unseen)));
        assert!(hashing.has(&identity(1), Reach::Open));
        assert!(hashing.settle(&answer(Reach::Open, Hash::Unseen)));
        assert!(!hashing.has(&identity(1), Reach::Open));
    }

    #[test]
    fn a_file_that_does_not_answer_is_seen_to_stall_and_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, b"abc").unwrap();
        let identity = FileIdentity::of(&std::fs::metadata(&path).unwrap());
        let hasher = Hasher::start(Arc::new(Wake::new().unwrap())).unwrap();
        assert!(!hasher.is_stalled(clock::boottime_ns()));
        hasher.shared.reads(identity);
        let due_ns = hasher.stall_due_ns().unwrap();
        assert!(!hasher.is_stalled(due_ns - 1) && hasher.is_stalled(due_ns));
        assert_eq!(hasher.current(), Some(identity));
        hasher.shared.rests();
        assert!(!hasher.is_stalled(u64::MAX));
    }

    #[test]
    fn a_file_is_hashed_through_its_descriptor_when_its_name_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, b"abc").unwrap();
        let file = File::open(&path).unwrap();
        let identity = FileIdentity::of(&file.metadata().unwrap());
        std::fs::remove_file(&path).unwrap();
        let hasher = Hasher::start(Arc::new(Wake::new().unwrap())).unwrap();
        assert!(hasher.hash_open(identity, file));
        let deadline = Instant::now() + Duration::from_secs(10);
        let hashed = loop {
            match hasher.poll_hashed() {
                Some(hashed) => break hashed,
                None => assert!(Instant::now() < deadline),
            }
        };
        let Hash::Known(hash) = hashed.hash else { panic!("{hashed:?}") };
        assert_eq!(hash[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
