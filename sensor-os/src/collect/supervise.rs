//! Starts and stops the collectors, and keeps what each knows in between.

use std::collections::BTreeMap;
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

/// What is to be collected, beyond what every machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectorConfig {
    /// Folders in which changes of files are told, what is below them included.
    pub watched_folders: Vec<PathBuf>,
    /// A file that lists the services, in place of the init system: see `docs/sensor-linux.md`.
    pub unit_file: Option<PathBuf>,
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
        let inventory = InventoryMemory::new(config.unit_file.as_deref());
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
        let processes = self.start_processes();
        let connections = self.start_connections();
        let threads = Threads {
            processes: self.note(Source::Processes, processes),
            connections: self.note(Source::Connections, connections),
            files: self.note(Source::Files, self.start_files()),
            names: self.note(Source::Names, self.start_names()),
            inventory: {
                let inventory = self.start_inventory();
                self.note(Source::Machine, inventory)
            },
        };
        self.threads = Some(threads);
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
        for source in Source::ALL {
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

    /// Reports a collector that could not start.
    fn note<M>(&self, source: Source, started: io::Result<Running<M>>) -> Option<Running<M>> {
        match started {
            Ok(running) => Some(running),
            Err(error) => {
                let mut parts = Parts::default();
                parts.fails("start of the collector", source.name(), &error);
                self.shared.health.report(source, parts.report());
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

    fn start_files(&self) -> io::Result<Running<()>> {
        let stop = Stop::new()?;
        let wanted = self.config.watched_folders.clone();
        let collector = FolderCollector::open(self.shared.clone(), stop.clone(), wanted);
        Running::start("lapwing-files", stop, move || collector.run())
    }

    fn start_names(&self) -> io::Result<Running<()>> {
        let stop = Stop::new()?;
        let collector = NameCollector::open(self.shared.clone(), stop.clone());
        Running::start("lapwing-names", stop, move || collector.run())
    }

    fn start_inventory(&mut self) -> io::Result<Running<InventoryMemory>> {
        let stop = Stop::new()?;
        let unit_file = self.config.unit_file.as_deref();
        let memory = self.inventory.take().unwrap_or_else(|| InventoryMemory::new(unit_file));
        let collector = InventoryCollector::open(self.shared.clone(), stop.clone(), memory);
        Running::start("lapwing-invent", stop, move || collector.run())
    }
}

impl Drop for Collectors {
    fn drop(&mut self) {
        self.stop();
    }
}
