//! The collector of what changes seldom: accounts, services, the machine; and the teller of counts.
//!
//! One thread that looks every two seconds whether the sources changed (some calls of `stat`), and
//! reads only those that did. Once a minute the machine is looked at, and each collector's count is
//! told if it moved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use lapwing_protocol::element::{Change, collector_count, service, user};

use super::fact::{CollectedFact, FactBuilder, Room};
use super::health::{Parts, Report};
use super::limits::{INVENTORY_PERIOD, SCAN_PERIOD, SERVICES_MAX};
use super::machine::{Collection, machine_fact};
use super::period::Period;
use super::queue::{Count, Source};
use super::services::{FileUnits, ServiceCollector, UnitSource};
use super::shared::{Shared, Stop};
use super::systemd::{SystemdPaths, SystemdUnits};
use super::users::UserCollector;
use crate::sys::clock;
use crate::sys::host::name_thread;

/// What stays when collection stops, so that its next start knows what was told.
#[derive(Debug)]
pub(crate) struct InventoryMemory {
    users: UserCollector,
    services: ServiceCollector,
    machine: Option<CollectedFact>,
    counts: BTreeMap<Source, Count>,
}

impl InventoryMemory {
    /// `unit_source` lists the services where no init system is to be asked.
    pub(crate) fn new(unit_source: Option<&Path>) -> Self {
        let units: Box<dyn UnitSource> = match unit_source {
            Some(path) => Box::new(FileUnits::new(path)),
            None => Box::new(SystemdUnits::new(SystemdPaths::default())),
        };
        let (passwd, utmp) = (Path::new("/etc/passwd"), Path::new("/run/utmp"));
        Self {
            users: UserCollector::new(passwd, utmp),
            services: ServiceCollector::new(units),
            machine: None,
            counts: BTreeMap::new(),
        }
    }
}

/// The collector, opened but not running.
#[derive(Debug)]
pub(crate) struct InventoryCollector {
    shared: Shared,
    stop: Stop,
    memory: InventoryMemory,
    sources: BTreeSet<Source>,
    scans: Period,
}

impl InventoryCollector {
    /// Collects those of users, services and machine that are among `sources`.
    pub(crate) fn open(
        shared: Shared,
        stop: Stop,
        memory: InventoryMemory,
        sources: BTreeSet<Source>,
    ) -> Self {
        for (source, mechanism) in
            [(Source::Users, "/etc/passwd + utmp"), (Source::Machine, "kernel + /etc")]
        {
            if sources.contains(&source) {
                shared.health.report(source, Report::active(mechanism));
            }
        }
        Self { shared, stop, memory, sources, scans: Period::new(SCAN_PERIOD) }
    }

    /// Collects until it is asked to stop.
    pub(crate) fn run(mut self) -> InventoryMemory {
        name_thread(c"lapwing-invent");
        self.machine(Collection::Enabled);
        let mut looks = Period::new(INVENTORY_PERIOD);
        loop {
            self.look();
            let timeout_ns = looks.due_ns().saturating_sub(clock::boottime_ns());
            let timeout = Some(Duration::from_nanos(timeout_ns));
            let waited = self.stop.wait(&[self.stop.wake.watched()], timeout);
            if let Err(error) = waited {
                log::error!("the collector of accounts and services ends: {error}");
                return self.memory;
            }
            if self.stop.is_asked() {
                self.machine(Collection::Disabled);
                return self.memory;
            }
            self.stop.wake.clear();
            let now_ns = clock::boottime_ns();
            looks.is_due(now_ns);
            if self.scans.is_due(now_ns) {
                self.scan();
            }
        }
    }

    fn look(&mut self) {
        let now_ns = clock::boottime_ns();
        self.shared.users.refresh();
        let sender = &self.shared.sender;
        if self.sources.contains(&Source::Users) {
            let rescan = sender.take_alarm(Source::Users).then(|| {
                self.memory.users.tell_again();
                sender.begin_scan(Source::Users, user::KIND)
            });
            self.memory.users.collect(now_ns, |fact| sender.give(fact));
            if let Some(rescan) = rescan {
                sender.end_scan(rescan);
            }
        }
        if !self.sources.contains(&Source::Services) {
            return;
        }
        let rescan = sender.take_alarm(Source::Services).then(|| {
            self.memory.services.tell_again();
            sender.begin_scan(Source::Services, service::KIND)
        });
        let services = &mut self.memory.services;
        let read = services.collect(now_ns, &self.shared.processes, |fact| sender.give(fact));
        // Where nobody answers, nothing is known to have ended.
        if let Some(rescan) = rescan.filter(|_| read.is_ok()) {
            sender.end_scan(rescan);
        }
        self.report_services(read);
    }

    fn report_services(&self, read: Result<(), String>) {
        let mut parts = Parts::default();
        let services = &self.memory.services;
        match read {
            Ok(()) => {
                parts.works(services.source().mechanism());
                let unseen = services.source().unseen();
                if !unseen.is_empty() {
                    parts.lacks(format!("not seen: {unseen}"));
                }
                if services.left_out() > 0 {
                    parts.lacks(format!("only the first {SERVICES_MAX} services are followed"));
                }
            }
            Err(reason) => {
                parts.lacks(reason);
                parts.mended_by("list the services in a file, and name it as unit_source");
            }
        }
        self.shared.health.report(Source::Services, parts.report());
    }

    fn scan(&mut self) {
        if self.shared.sender.take_alarm(Source::Machine) {
            self.memory.machine = None;
        }
        self.machine(Collection::Enabled);
        self.tell_counts();
    }

    fn machine(&mut self, collection: Collection) {
        if !self.sources.contains(&Source::Machine) {
            return;
        }
        let now_ns = clock::boottime_ns();
        let fact = machine_fact(now_ns, collection);
        let unchanged =
            self.memory.machine.as_ref().is_some_and(|told| told.fields() == fact.fields());
        if !unchanged {
            self.shared.sender.give(fact.clone());
            self.memory.machine = Some(fact);
        }
    }

    /// Tells the counts that moved. A told count is itself a fact of this collector, so its own
    /// count is told as it will be when all are told: a machine at rest then tells nothing.
    fn tell_counts(&mut self) {
        let sender = &self.shared.sender;
        let mut moved: BTreeMap<Source, Count> = Source::ALL
            .into_iter()
            .map(|source| (source, sender.count(source)))
            .filter(|(source, count)| self.memory.counts.get(source) != Some(count))
            .collect();
        if moved.is_empty() {
            return;
        }
        moved.entry(Source::Machine).or_insert_with(|| sender.count(Source::Machine));
        let told = u64::try_from(moved.len()).unwrap_or(0);
        if let Some(own) = moved.get_mut(&Source::Machine) {
            own.seen += told;
        }
        for (source, count) in moved {
            sender.give(count_fact(source, count));
            self.memory.counts.insert(source, count);
        }
    }
}

fn count_fact(source: Source, count: Count) -> CollectedFact {
    let now_ns = clock::boottime_ns();
    FactBuilder::new(Source::Machine, collector_count::KIND, Change::Event, now_ns)
        .text(collector_count::component, source.name(), Room::Path)
        .number(collector_count::seen, count.seen)
        .number(collector_count::overflowed, count.overflowed)
        .number(collector_count::refused, count.refused)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fact::ScanMark;
    use crate::collect::health::HealthBoard;
    use crate::collect::queue::fact_queue_of;
    use crate::collect::shared::ProcessDirectory;
    use crate::collect::users::UserNames;
    use std::sync::Arc;

    #[test]
    fn an_end_that_the_full_queue_refused_is_told_by_telling_all_again() {
        let folder = tempfile::tempdir().unwrap();
        let units = folder.path().join("units");
        std::fs::write(&units, "a active\nb active\n").unwrap();
        let (sender, facts) = fact_queue_of(4);
        let shared = Shared {
            health: Arc::new(HealthBoard::new(fact_queue_of(8).0)),
            processes: Arc::<ProcessDirectory>::default(),
            users: Arc::new(UserNames::new(Path::new("/nowhere"))),
            sender: sender.clone(),
        };
        let memory = InventoryMemory::new(Some(&units));
        let sources = [Source::Services].into();
        let mut collector = InventoryCollector::open(shared, Stop::new().unwrap(), memory, sources);
        let told = || -> Vec<_> {
            let facts = std::iter::from_fn(|| facts.try_recv().ok());
            facts.map(|fact| (fact.scan(), fact.text(service::name).map(str::to_owned))).collect()
        };
        collector.look();
        assert_eq!(told().len(), 2);
        // Nobody takes facts while b ends.
        (0..4).for_each(|_| sender.give(count_fact(Source::Services, Count::default())));
        let new = folder.path().join("new");
        std::fs::write(&new, "a active\n").unwrap();
        std::fs::rename(&new, &units).unwrap();
        collector.look();
        assert_eq!(told().len(), 4, "and the end was refused");
        collector.look();
        let (begin, end) = (Some(ScanMark::Begin), Some(ScanMark::End));
        assert_eq!(told(), [(begin, None), (None, Some("a".into())), (end, None)]);
        collector.look();
        assert_eq!(told(), []);
    }

    #[test]
    fn counts_are_told_once_and_then_rest() {
        let (sender, facts) = fact_queue_of(64);
        let shared = Shared {
            health: Arc::new(HealthBoard::new(sender.clone())),
            processes: Arc::<ProcessDirectory>::default(),
            users: Arc::new(UserNames::new(Path::new("/nowhere"))),
            sender: sender.clone(),
        };
        let memory = InventoryMemory::new(Some(Path::new("/nowhere")));
        let sources = Source::ALL.into_iter().collect();
        let mut collector = InventoryCollector::open(shared, Stop::new().unwrap(), memory, sources);
        collector.tell_counts();
        let drain = || std::iter::from_fn(|| facts.try_recv().ok()).collect::<Vec<_>>();
        let told = drain();
        let counts = told.iter().filter(|fact| fact.kind == collector_count::KIND).count();
        assert_eq!(counts, 7, "each collector's first count");
        assert_eq!(sender.count(Source::Machine).seen, 8, "seven counts and one health");
        collector.tell_counts();
        assert_eq!(drain(), []);
    }
}
