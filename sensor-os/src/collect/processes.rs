//! The collector of processes: reads the kernel's events and `/proc`, and feeds the join.
//!
//! Four ways of hearing, each optional but the last: fanotify for programs opened to be executed,
//! the process connector for fork, exec, user and exit, the exec tracer for arguments, and scans
//! of `/proc`. Where the connector is missing, scans come five times a second. What is decided
//! from all this is decided in [`Join`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use lapwing_protocol::element::process;

use super::btf::kernel_exec_layout;
use super::fact::ProcessKey;
use super::hash::{HashCache, Hasher, Hashing, Reach};
use super::health::{Parts, Trouble};
use super::join::{
    Arguments, Followed, Hash, Join, Opened, ProcessChange, ProgramFormat, format_of,
};
use super::limits::{EVENTS_AT_ONCE, PROCESS_POLL_PERIOD, SCAN_PERIOD};
use super::period::Period;
use super::process_facts::process_fact;
use super::procfs::{self, Image, Stat};
use super::queue::Source;
use super::shared::{ProcessBrief, Shared, Stop};
use super::unreadable::Unreadable;
use crate::sys::bpf::{ExecTracer, TracerReading};
use crate::sys::fanotify::{ExecOpen, ExecWatch, Reading};
use crate::sys::host::{FileIdentity, name_thread};
use crate::sys::proc_connector::{self, ProcConnector, ProcEvent, ProcHappening};
use crate::sys::wait::Interest;
use crate::sys::{clock, host};

/// Without the connector an open is the only word of an exec: this is when `/proc` shows it.
const EXEC_AFTER_OPEN: Duration = Duration::from_millis(3);
/// Bytes of a program that tell its format: the ELF header and the table that follows it.
const HEAD_BYTES: usize = 1_024;

/// What stays when collection stops, so that its next start knows what ended meanwhile.
#[derive(Debug)]
pub(crate) struct ProcessMemory {
    join: Join,
    cache: HashCache,
}

impl Default for ProcessMemory {
    fn default() -> Self {
        Self { join: Join::new(clock::ticks_per_second()), cache: HashCache::default() }
    }
}

/// The collector, opened but not running.
#[derive(Debug)]
pub(crate) struct ProcessCollector {
    shared: Shared,
    stop: Stop,
    memory: ProcessMemory,
    hasher: Hasher,
    hashing: Hashing,
    unreadable: Unreadable,
    /// How the parts were opened, until it is reported.
    parts: Parts,
    connector: Option<ProcConnector>,
    execs: Option<ExecWatch>,
    tracer: Option<ExecTracer>,
    /// Changes of it tell of new mounts, which want a mark.
    mounts: Option<File>,
    marked: BTreeSet<String>,
    /// Without the connector: when to look at `/proc` for processes that opened a program.
    exec_hints: BTreeMap<u32, u64>,
    scans: Period,
    looks: Period,
    tick_ns: u64,
}

impl ProcessCollector {
    /// Opens what can be opened without touching a filesystem that may not answer.
    ///
    /// # Errors
    ///
    /// The system has no thread or descriptor left.
    pub(crate) fn open(shared: Shared, stop: Stop, memory: ProcessMemory) -> io::Result<Self> {
        let mut parts = Parts::default();
        let connector = parts.keep(
            "process connector",
            "exit codes, and processes that live shorter than 200 ms",
            ProcConnector::open(),
        );
        let execs = parts.keep(
            "fanotify",
            "hashes of programs that end before they are read",
            ExecWatch::open(),
        );
        let tracer = parts.keep(
            "exec tracer",
            "command lines of programs that end before they are read",
            open_tracer(),
        );
        parts.works("/proc");
        if !host::is_root() {
            parts.lacks_privilege(
                "/proc shows image and working folder of this user's processes only",
            );
        }
        Ok(Self {
            hasher: Hasher::start(stop.wake.clone())?,
            hashing: Hashing::default(),
            unreadable: Unreadable::default(),
            parts,
            mounts: execs.as_ref().and_then(|_| File::open("/proc/self/mountinfo").ok()),
            marked: BTreeSet::new(),
            exec_hints: BTreeMap::new(),
            scans: Period::new(SCAN_PERIOD),
            looks: Period::new(PROCESS_POLL_PERIOD),
            tick_ns: 1_000_000_000 / clock::ticks_per_second(),
            shared,
            stop,
            memory,
            connector,
            execs,
            tracer,
        })
    }

    /// Collects until it is asked to stop.
    pub(crate) fn run(mut self) -> ProcessMemory {
        name_thread(c"lapwing-process");
        let mut parts = std::mem::take(&mut self.parts);
        if let Some(refused) = self.mark_mounts() {
            parts.lacks(refused);
        }
        self.shared.health.report(Source::Processes, parts.report());
        self.memory.join.handle_hasher_restart(clock::boottime_ns());
        self.scan();
        self.tell();
        loop {
            let now_ns = clock::boottime_ns();
            let mut due_ns = self.scans.due_ns();
            if self.connector.is_none() {
                due_ns = due_ns.min(self.looks.due_ns());
                due_ns = self.exec_hints.values().copied().fold(due_ns, u64::min);
            }
            let others = [self.memory.join.poll_timeout(), self.hasher.stall_due_ns()];
            due_ns = others.into_iter().flatten().fold(due_ns, u64::min);
            let timeout = Duration::from_nanos(due_ns.saturating_sub(now_ns));
            let mounts_changed = match self.wait(timeout) {
                Ok(changed) => changed,
                Err(error) => {
                    log::error!("the collector of processes cannot wait, and ends: {error}");
                    return self.memory;
                }
            };
            if self.stop.is_asked() {
                return self.memory;
            }
            self.stop.wake.clear();
            self.step(mounts_changed);
        }
    }

    /// Waits for events, and answers whether the mounts changed.
    fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let readable = |file| (file, Interest::Readable);
        let mut watched = vec![self.stop.wake.watched()];
        watched.extend(self.connector.as_ref().map(|connector| readable(connector.as_fd())));
        watched.extend(self.execs.as_ref().map(|execs| readable(execs.as_fd())));
        let mounts = self.mounts.as_ref().map(|mounts| (mounts.as_fd(), Interest::Priority));
        watched.extend(mounts);
        let ready = self.stop.wait(&watched, Some(timeout))?;
        Ok(mounts.is_some() && ready.last() == Some(&true))
    }

    fn step(&mut self, mounts_changed: bool) {
        if mounts_changed && let Some(refused) = self.mark_mounts() {
            log::warn!("{refused}");
        }
        self.read_events();
        self.take_hashes();
        let now_ns = clock::boottime_ns();
        self.tend_hasher(now_ns);
        if self.connector.is_none() {
            self.follow_hints(now_ns);
            if self.looks.is_due(now_ns) {
                self.look();
            }
        }
        if self.scans.is_due(now_ns) {
            self.shared.processes.expire(now_ns);
            self.scan();
            if self.shared.sender.take_alarm(Source::Processes) {
                self.tell_all();
            }
        }
        self.memory.join.handle_timeout(clock::boottime_ns());
        self.tell();
    }

    /// Reads the connector first and feeds it last: an exec that it tells of has its opens in what
    /// fanotify gives afterwards.
    fn read_events(&mut self) {
        let mut events = Vec::new();
        if let Some(connector) = &mut self.connector {
            match connector.read(EVENTS_AT_ONCE, |event| events.push(event)) {
                Ok(proc_connector::Reading::Complete) => {}
                Ok(proc_connector::Reading::Lost) => self.lost("process connector"),
                Err(error) => log::warn!("the process connector cannot be read: {error}"),
            }
        }
        // Each is fed as it is read: it holds a descriptor until then.
        if let Some(mut execs) = self.execs.take() {
            match execs.read(EVENTS_AT_ONCE, |open| self.feed_open(open)) {
                Ok(Reading::Complete) => {}
                Ok(Reading::Lost) => self.lost("fanotify"),
                Err(error) => log::warn!("fanotify cannot be read: {error}"),
            }
            self.execs = Some(execs);
        }
        self.read_tracer();
        // What ended within this reading is not worth looking for in /proc.
        let ended: BTreeSet<u32> = events
            .iter()
            .filter(|event| matches!(event.what, ProcHappening::Exited { .. }))
            .map(|event| event.pid)
            .collect();
        for event in events {
            self.feed_event(event, &ended);
        }
    }

    /// The tracer is not waited for: what it tells comes just before word of the same exec.
    fn read_tracer(&mut self) {
        let Some(tracer) = &mut self.tracer else { return };
        let join = &mut self.memory.join;
        let reading = tracer.read(|seen| {
            let arguments = Arguments {
                time_ns: seen.time_ns,
                command_line: procfs::parse_command_line(seen.arguments),
                is_cut: seen.is_cut,
            };
            join.handle_arguments(seen.pid, arguments);
        });
        if reading == TracerReading::MayHaveLost {
            self.shared.sender.overflowed(Source::Processes);
        }
    }

    fn lost(&mut self, what: &str) {
        log::warn!("the kernel lost events of the {what}; scanning all processes");
        self.shared.sender.overflowed(Source::Processes);
        self.scans.make_due();
    }

    fn feed_open(&mut self, open: ExecOpen) {
        if open.pid == 0 {
            // A process of a namespace that has no number here.
            return;
        }
        let now_ns = clock::boottime_ns();
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open.program));
        let path = std::fs::read_link(link).unwrap_or_default();
        let Ok((identity, file)) = FileIdentity::of_open(open.program) else { return };
        let mut head = [0; HEAD_BYTES];
        let length = file.read_at(&mut head, 0).unwrap_or(0);
        let format = format_of(head.get(..length).unwrap_or(&[]));
        let hash = match (format, self.memory.cache.hash_of(&identity)) {
            (ProgramFormat::Script, _) => Hash::Unseen,
            (_, Some(hash)) => Hash::Known(hash),
            _ if self.unreadable.has(identity.device) => Hash::Unseen,
            _ if self.hashing.has(&identity, Reach::Open) => Hash::Awaited,
            _ if self.hasher.hash_open(identity, file) => {
                self.hashing.asked(identity, Reach::Open);
                Hash::Awaited
            }
            // Too many are open already: this one is reached by its process, if that lives.
            _ => self.hash_by_process(identity, open.pid),
        };
        let opened = Opened { image: Image::new(&path, identity), format, hash };
        self.memory.join.handle_open(now_ns, open.pid, opened);
        if self.connector.is_none() {
            let due_ns = now_ns + u64::try_from(EXEC_AFTER_OPEN.as_nanos()).unwrap_or(0);
            self.exec_hints.entry(open.pid).or_insert(due_ns);
        }
    }

    fn feed_event(&mut self, event: ProcEvent, ended: &BTreeSet<u32>) {
        let now_ns = clock::boottime_ns();
        let (pid, time_ns) = (event.pid, event.time_ns);
        let join = &mut self.memory.join;
        let followed = match event.what {
            ProcHappening::Forked { parent } => {
                join.handle_fork(now_ns, (pid, parent), time_ns, procfs::read_stat(pid))
            }
            ProcHappening::Executed => {
                let readable = !ended.contains(&pid);
                let snapshot = readable.then(|| procfs::read_snapshot(pid)).flatten();
                join.handle_exec(now_ns, pid, time_ns, snapshot)
            }
            ProcHappening::UserChanged { user } => {
                join.handle_user(now_ns, pid, user);
                Followed::Yes
            }
            ProcHappening::Exited { status } => {
                join.handle_exit(now_ns, pid, time_ns, Some(status));
                Followed::Yes
            }
        };
        self.note(followed);
    }

    fn note(&self, followed: Followed) {
        if followed == Followed::TooMany {
            self.shared.sender.not_followed(Source::Processes);
        }
    }

    fn take_hashes(&mut self) {
        while let Some(hashed) = self.hasher.poll_hashed() {
            if !self.hashing.settle(&hashed) {
                continue;
            }
            if let Hash::Known(hash) = hashed.hash {
                self.memory.cache.remember(hashed.identity, hash);
            }
            let now_ns = clock::boottime_ns();
            self.memory.join.handle_hash(now_ns, hashed.identity, hashed.hash);
        }
    }

    /// Executes what opens hinted at.
    fn follow_hints(&mut self, now_ns: u64) {
        let due: Vec<u32> = self
            .exec_hints
            .iter()
            .filter(|(_, due_ns)| **due_ns <= now_ns)
            .map(|(pid, _)| *pid)
            .collect();
        for pid in due {
            self.exec_hints.remove(&pid);
            let snapshot = procfs::read_snapshot(pid);
            let followed = self.memory.join.handle_exec(now_ns, pid, now_ns, snapshot);
            self.note(followed);
        }
    }

    /// Looks only at which numbers there are: cheap enough for five times a second.
    fn look(&mut self) {
        let began_ns = clock::boottime_ns();
        let seen: BTreeSet<u32> = procfs::process_numbers().into_iter().collect();
        let new = seen.iter().filter(|pid| !self.memory.join.runs(**pid));
        let stats = new.filter_map(|pid| procfs::read_stat(*pid)).collect();
        self.read_new(stats);
        self.memory.join.handle_scanned(clock::boottime_ns(), began_ns, &seen);
    }

    /// Looks at every process.
    fn scan(&mut self) {
        let began_ns = clock::boottime_ns();
        let stats: Vec<Stat> =
            procfs::process_numbers().into_iter().filter_map(procfs::read_stat).collect();
        let running = stats.iter().filter(|stat| !stat.has_ended());
        let seen: BTreeSet<u32> = running.map(|stat| stat.key.pid).collect();
        self.read_new(stats);
        // An exit that is told of is better than one that is concluded.
        self.read_events();
        self.memory.join.handle_scanned(clock::boottime_ns(), began_ns, &seen);
    }

    /// Reads the processes that the join does not know, parents before their children.
    fn read_new(&mut self, mut stats: Vec<Stat>) {
        stats.retain(|stat| !stat.has_ended() && !self.memory.join.knows(stat));
        stats.sort_by_key(|stat| (stat.key.start_ticks, stat.key.pid));
        for stat in stats {
            if let Some(snapshot) = procfs::read_snapshot(stat.key.pid) {
                let now_ns = clock::boottime_ns();
                let followed = self.memory.join.handle_snapshot(now_ns, &snapshot);
                self.note(followed);
            }
        }
    }

    /// Something was lost on the way: tells all that is, and so what is not any more.
    fn tell_all(&mut self) {
        self.tell();
        let rescan = self.shared.sender.begin_scan(Source::Processes, process::KIND);
        self.memory.join.tell_all();
        self.tell();
        self.shared.sender.end_scan(rescan);
    }

    /// Gives what the join tells, and asks for the hashes it wants.
    fn tell(&mut self) {
        while let Some((key, image)) = self.memory.join.poll_hash_wanted() {
            self.want_hash(key, &image);
        }
        while let Some(change) = self.memory.join.poll_change() {
            let now_ns = clock::boottime_ns();
            match &change {
                ProcessChange::Is(process) => {
                    let brief = ProcessBrief::new(process.key, process.image_path(), process.user);
                    self.shared.processes.insert(brief);
                }
                ProcessChange::Ended { key, .. } => self.shared.processes.ended(*key, now_ns),
            }
            let fact = process_fact(&change, self.tick_ns, now_ns, &self.shared.users);
            self.shared.sender.give(fact);
        }
    }

    fn want_hash(&mut self, key: ProcessKey, image: &Image) {
        let identity = image.identity;
        if let Some(hash) = self.memory.cache.hash_of(&identity) {
            let now_ns = clock::boottime_ns();
            self.memory.join.handle_hash(now_ns, identity, Hash::Known(hash));
        } else if self.hash_by_process(identity, key.pid) == Hash::Unseen {
            self.memory.join.handle_hash(clock::boottime_ns(), identity, Hash::Unseen);
        }
    }

    /// Asks for a hash that is reached by a process, and says what is to be expected of it.
    fn hash_by_process(&mut self, identity: FileIdentity, pid: u32) -> Hash {
        if self.hashing.has(&identity, Reach::Process(pid)) {
            return Hash::Awaited;
        }
        if self.unreadable.has(identity.device) || !self.hasher.hash_process(identity, pid) {
            return Hash::Unseen;
        }
        self.hashing.asked(identity, Reach::Process(pid));
        Hash::Awaited
    }

    /// Replaces a hashing thread that does not come back from a file, whose filesystem is then left
    /// alone for a while, and asks anew for the hashes that it owed.
    fn tend_hasher(&mut self, now_ns: u64) {
        let recovered = self.unreadable.expire(now_ns);
        let is_stalled = self.hasher.is_stalled(now_ns);
        if is_stalled {
            match Hasher::start(self.stop.wake.clone()) {
                Ok(hasher) => {
                    let stalled = std::mem::replace(&mut self.hasher, hasher);
                    if let Some(file) = stalled.current() {
                        self.unreadable.add(now_ns, file.device);
                    }
                    self.hashing = Hashing::default();
                    self.memory.join.handle_hasher_restart(now_ns);
                }
                Err(error) => log::error!("no thread to hash programs: {error}"),
            }
        }
        if recovered || is_stalled {
            let reason = self.unreadable.reason();
            self.shared.health.trouble(Source::Processes, Trouble::Unreadable, reason);
        }
    }

    /// Marks the filesystems that may hold programs; answers which could not be.
    fn mark_mounts(&mut self) -> Option<String> {
        let execs = self.execs.as_ref()?;
        let (mut refused, mut unmarked) = (Vec::new(), Vec::new());
        let mut present = BTreeSet::new();
        for mount in procfs::read_mounts() {
            if !mount.may_hold_programs() {
                continue;
            }
            if mount.waits_for_others() {
                // To take an event the kernel opens the file for us, and this thread would wait.
                unmarked.push(mount.path.display().to_string());
                continue;
            }
            let known = self.marked.contains(&mount.device) || present.contains(&mount.device);
            if !known && let Err(error) = execs.mark(&mount.path) {
                refused.push(format!("{} ({error})", mount.path.display()));
                continue;
            }
            present.insert(mount.device);
        }
        self.marked = present;
        unmarked.sort();
        refused.extend(unmarked);
        let refused = refused.join(", ");
        (!refused.is_empty())
            .then(|| format!("fanotify does not watch {refused}; hashes there come from /proc"))
    }
}

fn open_tracer() -> io::Result<ExecTracer> {
    ExecTracer::attach(&kernel_exec_layout()?)
}
