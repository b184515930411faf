//! Starts and stops the collectors, and keeps what each knows in between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connections::{ConnectionCollector, ConnectionMemory};
use super::folders::FolderCollector;
use super::health::{HealthBoard, Parts, Report, Trouble};
use super::inventory::{InventoryCollector, InventoryMemory};
use super::names::NameCollector;
use super::processes::{ProcessCollector, ProcessMemory};
use super::queue::{Count, FactSender, Source};
use super::shared::{ProcessDirectory, Shared, Stop};
use super::thread::{Ended, Running};
use super::users::UserNames;

/// How long a stop waits for the threads: longer than any of them works at one thing.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Work at one thing for this long is trouble: a whole scan takes a tenth of it.
const HANGING: Duration = Duration::from_secs(30);

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
        let sender = self.shared.sender.clone();
        let until = (&sender, Instant::now() + STOP_PATIENCE);
        self.processes = take_memory(threads.processes, Source::Processes, until);
        self.connections = take_memory(threads.connections, Source::Connections, until);
        self.inventory = take_memory(threads.inventory, Source::Machine, until);
        take_memory(threads.files, Source::Files, until);
        take_memory(threads.names, Source::Names, until);
        for source in self.config.sources.iter().copied() {
            self.shared.health.report(source, Report::stopped());
        }
    }

    /// Looks after the threads, to be called now and then while they run: one that ended unasked is
    /// told of in health and started again, and of one that hangs health says so.
    pub fn tend(&mut self) {
        let Some(mut threads) = self.threads.take() else { return };
        let Threads { processes, connections, files, names, inventory } = &mut threads;
        if let Some(ended) = self.tend_one(processes, &[Source::Processes]) {
            self.processes = ended.memory();
            *processes = self.start_one(Source::Processes, Self::start_processes);
        }
        if let Some(ended) = self.tend_one(connections, &[Source::Connections]) {
            self.connections = ended.memory();
            *connections = self.start_one(Source::Connections, Self::start_connections);
        }
        if self.tend_one(files, &[Source::Files]).is_some() {
            *files = self.start_one(Source::Files, Self::start_files);
        }
        if self.tend_one(names, &[Source::Names]).is_some() {
            *names = self.start_one(Source::Names, Self::start_names);
        }
        let of_inventory = [Source::Users, Source::Services, Source::Machine];
        if let Some(ended) = self.tend_one(inventory, &of_inventory) {
            self.inventory = ended.memory();
            *inventory = self.start_inventory_if_any();
        }
        self.threads = Some(threads);
    }

    /// Takes out a thread that ended; of one that lives it notes whether it hangs.
    fn tend_one<M: Send + 'static>(
        &self,
        running: &mut Option<Running<M>>,
        sources: &[Source],
    ) -> Option<Ended<M>> {
        let sources = || sources.iter().copied().filter(|of| self.config.sources.contains(of));
        let alive = running.as_ref()?;
        if !alive.has_ended() {
            let busy = alive.busy();
            for source in sources() {
                let reason = (busy >= HANGING).then(|| {
                    String::from("it waits for something of the system that does not answer")
                });
                self.shared.health.trouble(source, Trouble::Hanging, reason);
            }
            return None;
        }
        let ended = running.take()?.join(Instant::now());
        for source in sources() {
            log::error!("collector {source}: {}; it is started again", ended.reason());
            self.shared.sender.overflowed(source);
            let mut parts = Parts::default();
            parts.lacks(format!("{}; it is started again", ended.reason()));
            self.shared.health.report(source, parts.report());
        }
        Some(ended)
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

/// Waits for a thread that was asked to stop, not beyond `until`, and takes what it knows.
fn take_memory<M: Send + 'static>(
    running: Option<Running<M>>,
    source: Source,
    (sender, until): (&FactSender, Instant),
) -> Option<M> {
    let ended = running?.join(until);
    match &ended {
        Ended::Knowing(_) => {}
        Ended::Panicked | Ended::Hanging => {
            sender.overflowed(source);
            let reason = ended.reason();
            log::error!("collector {source}: {reason}; it starts again knowing nothing");
        }
    }
    ended.memory()
}

impl Drop for Collectors {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::health::Status;
    use crate::collect::queue::fact_queue_of;
    use lapwing_protocol::element::health;

    /// Collectors of services alone, with a thread in place of the inventory's.
    fn with_inventory(
        run: impl FnOnce() -> InventoryMemory + Send + 'static,
    ) -> (Collectors, Stop) {
        let (sender, _) = fact_queue_of(64);
        let config = CollectorConfig {
            sources: [Source::Services].into(),
            unit_source: Some("/nowhere".into()),
            ..CollectorConfig::default()
        };
        let mut collectors = Collectors::new(config, sender);
        collectors.shared.health.report(Source::Services, Report::active("a test"));
        let stop = Stop::new().unwrap();
        let inventory = Running::start("test", stop.clone(), run).unwrap();
        let inventory = Some(inventory);
        collectors.threads = Some(Threads { inventory, ..Threads::default() });
        (collectors, stop)
    }

    fn inventory(collectors: &Collectors) -> &Running<InventoryMemory> {
        collectors.threads.as_ref().unwrap().inventory.as_ref().unwrap()
    }

    #[test]
    fn a_collector_that_panics_is_told_of_and_started_again() {
        let (mut collectors, _) = with_inventory(|| panic!("as wanted"));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !inventory(&collectors).has_ended() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        let (sender, facts) = fact_queue_of(64);
        collectors.shared.health = Arc::new(HealthBoard::new(sender));
        collectors.tend();
        let told = facts.try_recv().unwrap();
        assert_eq!(told.text(health::status), Some("missing"));
        let reason = told.text(health::reason).unwrap();
        assert!(reason.contains("panicked; it is started again"), "{reason}");
        assert!(!inventory(&collectors).has_ended());
        collectors.stop();
    }

    #[test]
    fn a_collector_that_hangs_is_told_of_and_is_well_again_when_it_goes_on() {
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let (mut collectors, stop) = with_inventory(move || {
            let _ = wait.recv();
            InventoryMemory::new(None)
        });
        let status = |collectors: &Collectors| collectors.reports()[&Source::Services].status;
        collectors.tend();
        assert_eq!(status(&collectors), Status::Active);
        stop.works_since(1);
        collectors.tend();
        assert_eq!(status(&collectors), Status::Degraded);
        stop.works();
        collectors.tend();
        assert_eq!(status(&collectors), Status::Active);
        drop(go_on);
    }
}
