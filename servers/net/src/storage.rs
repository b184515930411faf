//! What a server keeps on disk, put together: its stores, the room they have, their failures, and
//! their backups.
//!
//! Not here: what is stored. Invariants: a store that failed ends the server, so that it starts
//! again from what is durable; pressure is measured before it is asked for; one backup at a time.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::Event;
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_server_core::pressure::Pressure;
use lapwing_store::journal::{
    DirectoryPartitions, Head, Incarnation, Journal, JournalOptions, LaneKey,
};
use lapwing_store::transfer::{self, Sources, TransferError};
use lapwing_store::{DiskOptions, DiskStore, RowStore, SpaceGauge, Store, StoreError};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use smol::Timer;

use crate::clock;
use crate::config::{Backup, Server};
use crate::identity::PeerIdentity;
use crate::metrics::Metrics;
use crate::notice::Notice;
use crate::peer::{Caller, Failure, Service};
use crate::tls::Plane;

/// How often the room is measured: what is given to a journal meanwhile counts with its bytes, so
/// only what the stores need beside these is not known.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// The stores of one server, opened as its configuration says. Share it in an `Arc`.
pub struct Storage {
    folder: PathBuf,
    options: DiskOptions,
    backup: Option<Backup>,
    backing: smol::lock::Mutex<()>,
    finished: Event,
    backups: AtomicU64,
    gauge: SpaceGauge,
    /// The pressure that was last told.
    told: Mutex<Pressure>,
    opened: Mutex<Opened>,
    notice: Notice,
    metrics: StorageMetrics,
}

/// What was opened, by its name in the folder.
#[derive(Clone, Default)]
struct Opened {
    stores: Vec<(String, Arc<dyn Store>)>,
    rows: Vec<RowStore>,
    journals: Vec<(String, Arc<Journal>)>,
}

#[derive(Clone, Debug, Default)]
struct StorageMetrics {
    used: Gauge<u64, AtomicU64>,
    free: Gauge<u64, AtomicU64>,
    pressure: Gauge,
    backup_ms: Gauge<u64, AtomicU64>,
    backup_failures: Counter,
}

impl Storage {
    /// The stores of the server that `server` configures; none is opened yet. The room is measured
    /// once. Blocks on the disk.
    #[must_use]
    pub fn new(server: &Server, metrics: &Metrics, notice: Notice) -> Self {
        let storage = Self {
            folder: server.data_dir.clone(),
            options: DiskOptions::of(server.store.engine),
            backup: server.backup.clone(),
            backing: smol::lock::Mutex::new(()),
            finished: Event::new(),
            backups: AtomicU64::new(0),
            gauge: SpaceGauge::new(&server.data_dir, server.store.bounds()),
            told: Mutex::default(),
            opened: Mutex::default(),
            notice,
            metrics: StorageMetrics::registered(metrics),
        };
        storage.measure();
        storage
    }

    /// Opens or creates the store of rows `name`. Blocks on the disk.
    ///
    /// # Errors
    /// As for `RowStore::open`.
    pub fn rows(&self, name: &str) -> Result<RowStore, StoreError> {
        let rows = RowStore::open(&self.folder.join(name), &self.options)?;
        let mut opened = self.opened();
        opened.stores.push((name.to_owned(), Arc::clone(rows.store())));
        opened.rows.push(rows.clone());
        Ok(rows)
    }

    /// Opens or creates the store `name`, for who commits by itself; `.` is the folder itself.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// As for `DiskStore::open`.
    pub fn store(&self, name: &str) -> Result<Arc<dyn Store>, StoreError> {
        let store: Arc<dyn Store> =
            Arc::new(DiskStore::open(&self.folder.join(name), &self.options)?);
        self.opened().stores.push((name.to_owned(), Arc::clone(&store)));
        Ok(store)
    }

    /// Opens or creates the journal `name`. One that `is_whole` does not find to be what it was is
    /// opened once more, as another life of it: its commit ids are used again, and who keeps a
    /// cursor must notice. Blocks on the disk.
    ///
    /// # Errors
    /// As for `Journal::open`.
    pub fn journal(
        &self,
        name: &str,
        options: &JournalOptions,
        is_whole: impl FnOnce(&Journal) -> bool,
    ) -> Result<Arc<Journal>, StoreError> {
        let open = |incarnation| {
            let partitions = DirectoryPartitions::new(&self.folder.join(name), self.options);
            Journal::open(Arc::new(partitions), &JournalOptions { incarnation, ..*options })
        };
        let mut journal = open(options.incarnation)?;
        if !is_whole(&journal) {
            // One process owns one store: it is closed first.
            drop(journal);
            journal = open(Incarnation::Renew(options.incarnation.bytes()))?;
        }
        let journal = Arc::new(journal);
        self.opened().journals.push((name.to_owned(), Arc::clone(&journal)));
        Ok(journal)
    }

    /// The folder of the stores.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// How the room is, as measured a moment ago; reading it is free.
    #[must_use]
    pub fn gauge(&self) -> SpaceGauge {
        self.gauge.clone()
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures the room again and again, until a store fails: then gives its error.
    pub async fn watch(self: Arc<Self>) -> StoreError {
        let upkeep =
            smol::future::or(self.measure_again_and_again(), self.back_up_again_and_again());
        smol::future::or(self.failed(), upkeep).await
    }

    async fn failed(&self) -> StoreError {
        let Opened { rows, journals, .. } = self.opened().clone();
        let rows = rows.iter().map(|rows| smol::future::FutureExt::boxed(rows.stopped()));
        let journals =
            journals.iter().map(|(_, journal)| smol::future::FutureExt::boxed(journal.stopped()));
        let never = smol::future::FutureExt::boxed(smol::future::pending());
        rows.chain(journals)
            .fold(never, |one, other| smol::future::FutureExt::boxed(smol::future::or(one, other)))
            .await
    }

    /// Whether backups are configured.
    #[must_use]
    pub const fn is_backed_up(&self) -> bool {
        self.backup.is_some()
    }

    /// Resolves when more than `count` backups were finished since the start; gives how many were.
    pub async fn backed_up_past(&self, count: u64) -> u64 {
        loop {
            let listener = self.finished.listen();
            let finished = self.backups.load(Ordering::Acquire);
            if finished > count {
                return finished;
            }
            listener.await;
        }
    }

    /// What the last finished backup holds of `journal`, called `name`; nothing where there is none
    /// of this life of the journal. Blocks.
    ///
    /// # Errors
    /// The backup is damaged or cannot be read.
    pub fn protected(
        &self,
        name: &str,
        journal: &Journal,
    ) -> Result<Vec<(LaneKey, Head)>, TransferError> {
        let Some(backup) = &self.backup else { return Ok(Vec::new()) };
        let protected = transfer::protected(&backup.folder, name)?;
        let ours = protected.filter(|protected| protected.incarnation == journal.incarnation());
        Ok(ours.map(|protected| protected.heads).unwrap_or_default())
    }

    /// Backs all stores up now, and ends when that is finished.
    ///
    /// # Errors
    /// No folder is configured, or what failed. The backup before is then still the last one.
    pub async fn back_up(self: &Arc<Self>) -> Result<(), Failure> {
        let Some(backup) = self.backup.clone() else {
            let text = "no backup is configured; add [server.backup] with a folder";
            return Err(Failure::new(Code::UNSUPPORTED, text));
        };
        let _one = self.backing.lock().await;
        let Opened { stores, journals, .. } = self.opened().clone();
        let sources = Sources { rows: stores, journals };
        let done = smol::unblock(move || {
            transfer::back_up(&sources, &backup.folder, clock::unix_ms(), &mut |_| {})
        });
        match done.await {
            Ok(report) => {
                log::info!(
                    "backup {} is finished: {} files of {} bytes, {} bytes of them new",
                    report.number,
                    report.files,
                    report.bytes,
                    report.written_bytes
                );
                self.notice.set("backup", None);
                self.metrics.backup_ms.set(clock::unix_ms());
                self.backups.fetch_add(1, Ordering::AcqRel);
                self.finished.notify(usize::MAX);
                Ok(())
            }
            Err(error) => {
                log::error!("the backup failed: {error}");
                let text = format!("the backup failed: {error}; sensors keep what it lacks");
                self.notice.set("backup", Some(text.clone()));
                self.metrics.backup_failures.inc();
                Err(Failure::new(Code::STORE_FAILED, text))
            }
        }
    }

    async fn back_up_again_and_again(self: &Arc<Self>) -> StoreError {
        let Some(backup) = self.backup.clone() else { return smol::future::pending().await };
        let folder = backup.folder.clone();
        let last = smol::unblock(move || transfer::finished(&folder)).await;
        let last_ms = last.ok().flatten().map_or(0, |(wall_ms, _)| wall_ms);
        let age = Duration::from_millis(clock::unix_ms().saturating_sub(last_ms));
        let mut pause = backup.every.0.saturating_sub(age);
        loop {
            Timer::after(pause).await;
            // What failed is told where it failed, and tried again at the next time.
            let _ = self.back_up().await;
            pause = backup.every.0;
        }
    }

    async fn measure_again_and_again(self: &Arc<Self>) -> StoreError {
        loop {
            Timer::after(MEASURE_EVERY).await;
            let storage = Arc::clone(self);
            smol::unblock(move || storage.measure()).await;
        }
    }

    fn measure(&self) {
        let now = match self.gauge.measure() {
            Ok(pressure) => pressure,
            Err(error) => {
                self.notice.set("space", Some(error.to_string()));
                return;
            }
        };
        let space = self.gauge.space();
        self.metrics.used.set(space.used);
        self.metrics.free.set(space.free);
        self.metrics.pressure.set(now as i64);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *told, now) != now {
            log::warn!(
                "{}: pressure on the disk is {now}: {} bytes in the stores, {} bytes free",
                self.folder.display(),
                space.used,
                space.free
            );
        }
        let trouble = match now {
            Pressure::None => None,
            Pressure::High => Some("the disk fills up: sensors get little credit"),
            Pressure::Full => Some("the disk is full: sensors get no credit and keep their facts"),
        };
        let remedy = "free space, raise server.store.quota, or keep facts for a shorter time";
        self.notice.set("space", trouble.map(|trouble| format!("{trouble}; {remedy}")));
    }
}

/// A service whose server can be told to back itself up.
pub struct Stored<S> {
    storage: Arc<Storage>,
    itself: PeerIdentity,
    service: Arc<S>,
}

impl<S> Stored<S> {
    /// `service`, on the server that `itself` identifies.
    pub fn new(storage: &Arc<Storage>, itself: PeerIdentity, service: Arc<S>) -> Self {
        Self { storage: Arc::clone(storage), itself, service }
    }
}

impl<S: Service> Service for Stored<S> {
    async fn call(
        &self,
        caller: Caller,
        method: Method,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, Failure> {
        match (caller.plane, method) {
            (Plane::Peer, Method::BACKUP) if caller.identity == Some(self.itself) => {
                self.storage.back_up().await.map(|()| Vec::new())
            }
            (Plane::Peer, Method::BACKUP) => {
                let text = "a backup is ordered with the server's own certificate: lapwing backup";
                Err(Failure::new(Code::FORBIDDEN, text))
            }
            _ => self.service.call(caller, method, body).await,
        }
    }
}

impl StorageMetrics {
    fn registered(metrics: &Metrics) -> Self {
        let counts = Self::default();
        metrics.register(|registry| {
            let rows = [
                ("store_bytes", "Bytes that the stores take on the disk", &counts.used),
                ("store_free_bytes", "Bytes free on the file system of the stores", &counts.free),
            ];
            for (name, help, gauge) in rows {
                registry.register(name, help, gauge.clone());
            }
            let help = "When the last backup was finished, in milliseconds since 1970";
            registry.register("backup_finished_ms", help, counts.backup_ms.clone());
            let help = "Backups that failed";
            registry.register("backup_failures", help, counts.backup_failures.clone());
            let help = "Pressure on the disk: 0 none, 1 high, 2 full";
            registry.register("store_pressure", help, counts.pressure.clone());
        });
        counts
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").field("folder", &self.folder).finish_non_exhaustive()
    }
}
