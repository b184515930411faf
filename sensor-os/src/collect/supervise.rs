//! Starts and stops the collectors, and keeps what each knows in between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use super::connections::{ConnectionCollector, ConnectionMemory};
use super::folders::FolderCollector;
use super::health::{HealthBoard, Parts, Report};
use super::inventory::{InventoryCollector, InventoryMemory};
use super::names::NameCollector;
use super::processes::{ProcessCollector, ProcessMemory};
use super::queue::{Count, FactSender, Source};
use super::shared::{ProcessDirectory, Shared, Stop};
use super::users::UserNames;

/// Stack of a collector's thread. Paths and packets live on the heap.
const STACK_BYTES: usize = 256 << 10;

/// What is to be collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorConfig {
    /// The collectors that are to run. Counts are told when any is.
    pub sources: BTreeSet<Source>,
    /// Folders in which changes of files are told, what is below them included.
    pub watched_folders: Vec<PathBuf>,
    /// A file that lists the services, in place of the init system: see `docs/sensor-linux.md`.
    pub unit_source: Option<PathBuf>,
}

impl Default for CollectorConfig {
    /// Every collector, no folder watched, services from the init system.
    fn default() -> Self {
        Self {
            sources: Source::ALL.into_iter().collect(),
            watched_folders: Vec::new(),
            unit_source: None,
        }
    }
}

/// A collector's thread, and how to end it.
#[derive(Debug)]
struct Running<M> {
    stop: Stop,
    thread: JoinHandle<M>,
}

impl<M: Send + 'static> Running<M> {
    fn start(name: &str, stop: Stop, run: impl FnOnce() -> M + Send + 'static) -> io::Result<Self> {
        let thread = Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(run)?;
        Ok(Self { stop, thread })
    }

    /// Waits for the thread's end and takes what it knows; nothing when it panicked.
    fn join(self, source: Source) -> Option<M> {
        let memory = self.thread.join().ok();
        if memory.is_none() {
            log::error!("the collector of {source} panicked; it starts again knowing nothing");
        }
        memory
    }
}

#[derive(Debug, Default)]
struct Threads {
    processes: Option<Running<ProcessMemory>>,
    connections: Option<Running<ConnectionMemory>>,
    files: Option<Running<()>>,
    names: Option<Running<()>>,
    inventory: Option<Running<InventoryMemory>>,
}

/// The collectors of this machine. They end when this is dropped.
#[derive(Debug)]
pub struct Collectors {
    config: CollectorConfig,
    shared: Shared,
    threads: Option<Threads>,
    processes: Option<ProcessMemory>,
    connections: Option<ConnectionMemory>,
    inventory: Option<InventoryMemory>,
}

impl Collectors {
    /// Collectors that give to `sender`, not started yet.
    #[must_use]
    pub fn new(config: CollectorConfig, sender: FactSender) -> Self {
        let shared = Shared {
            health: Arc::new(HealthBoard::new(sender.clone())),
            processes: Arc::<ProcessDirectory>::default(),
            users: Arc::new(UserNames::new(Path::new("/etc/passwd"))),
            sender,
        };
        let inventory = InventoryMemory::new(config.unit_source.as_deref());
        Self {
            config,
            shared,
            threads: None,
            processes: Some(ProcessMemory::default()),
            connections: Some(ConnectionMemory::default()),
            inventory: Some(inventory),
        }
    }

    /// Starts all collectors. One that cannot start is reported as missing, and the others run.
    /// What ended while collection was stopped is told as ended; starting twice changes nothing.
    pub fn start(&mut self) {
        if self.threads.is_some() {
            return;
        }
        for source in Source::ALL.into_iter().filter(|source| !self.config.sources.contains(source))
        {
            self.shared.health.report(source, Report::not_configured());
        }
        self.threads = Some(Threads {
            processes: self.start_one(Source::Processes, Self::start_processes),
            connections: self.start_one(Source::Connections, Self::start_connections),
            files: self.start_one(Source::Files, Self::start_files),
            names: self.start_one(Source::Names, Self::start_names),
            inventory: self.start_inventory_if_any(),
        });
    }

    /// Stops all collectors and waits for their threads. What they know is kept for the next start.
    pub fn stop(&mut self) {
        let Some(threads) = self.threads.take() else { return };
        // All are asked before any is waited for.
        let stops = [
            threads.processes.as_ref().map(|running| &running.stop),
            threads.connections.as_ref().map(|running| &running.stop),
            threads.files.as_ref().map(|running| &running.stop),
            threads.names.as_ref().map(|running| &running.stop),
            threads.inventory.as_ref().map(|running| &running.stop),
        ];
        stops.into_iter().flatten().for_each(Stop::ask);
        self.processes = threads.processes.and_then(|running| running.join(Source::Processes));
        self.connections =
            threads.connections.and_then(|running| running.join(Source::Connections));
        self.inventory = threads.inventory.and_then(|running| running.join(Source::Machine));
        for (source, running) in [(Source::Files, threads.files), (Source::Names, threads.names)] {
            running.and_then(|running| running.join(source));
        }
        for source in self.config.sources.iter().copied() {
            self.shared.health.report(source, Report::stopped());
        }
    }

    /// Whether they run.
    #[must_use]
    pub fn are_running(&self) -> bool {
        self.threads.is_some()
    }

    /// How each collector fares, as it last reported.
    #[must_use]
    pub fn reports(&self) -> BTreeMap<Source, Report> {
        self.shared.health.reports()
    }

    /// What each collector counted since the sensor started.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Source, Count> {
        let count = |source| (source, self.shared.sender.count(source));
        Source::ALL.into_iter().map(count).collect()
    }

    /// Starts a collector that is configured; one that cannot start is reported.
    fn start_one<M>(
        &mut self,
        source: Source,
        start: fn(&mut Self) -> io::Result<Running<M>>,
    ) -> Option<Running<M>> {
        if !self.config.sources.contains(&source) {
            return None;
        }
        match start(self) {
            Ok(running) => Some(running),
            Err(error) => {
                let mut parts = Parts::default();
                parts.fails("start of the collector", source.name(), &error);
                self.shared.health.report(source, parts.report());
                None
            }
        }
    }

    /// The inventory tells the counts of all, so it runs when any other does.
    fn start_inventory_if_any(&mut self) -> Option<Running<InventoryMemory>> {
        if self.config.sources.is_empty() {
            return None;
        }
        match self.start_inventory() {
            Ok(running) => Some(running),
            Err(error) => {
                for source in [Source::Users, Source::Services, Source::Machine] {
                    let mut parts = Parts::default();
                    parts.fails("start of the collector", source.name(), &error);
                    self.shared.health.report(source, parts.report());
                }
                None
            }
        }
    }

    fn start_processes(&mut self) -> io::Result<Running<ProcessMemory>> {
        let stop = Stop::new()?;
        let memory = self.processes.take().unwrap_or_default();
        let collector = ProcessCollector::open(self.shared.clone(), stop.clone(), memory)?;
        Running::start("lapwing-process", stop, move || collector.run())
    }

    fn start_connections(&mut self) -> io::Result<Running<ConnectionMemory>> {
        let stop = Stop::new()?;
        let memory = self.connections.take().unwrap_or_default();
        let collector = ConnectionCollector::open(self.shared.clone(), stop.clone(), memory)?;
        Running::start("lapwing-connect", stop, move || collector.run())
    }

    fn start_files(&mut self) -> io::Result<Running<()>> {
        let stop = Stop::new()?;
        let wanted = self.config.watched_folders.clone();
        let collector = FolderCollector::open(self.shared.clone(), stop.clone(), wanted);
        Running::start("lapwing-files", stop, move || collector.run())
    }

    fn start_names(&mut self) -> io::Result<Running<()>> {
        let stop = Stop::new()?;
        let collector = NameCollector::open(self.shared.clone(), stop.clone());
        Running::start("lapwing-names", stop, move || collector.run())
    }

    fn start_inventory(&mut self) -> io::Result<Running<InventoryMemory>> {
        let stop = Stop::new()?;
        let unit_source = self.config.unit_source.as_deref();
        let memory = self.inventory.take().unwrap_or_else(|| InventoryMemory::new(unit_source));
        let sources = self.config.sources.clone();
        let collector =
            InventoryCollector::open(self.shared.clone(), stop.clone(), memory, sources);
        Running::start("lapwing-invent", stop, move || collector.run())
    }
}

impl Drop for Collectors {
    fn drop(&mut self) {
        self.stop();
    }
}
