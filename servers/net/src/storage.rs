//! What a server keeps on disk, put together: its stores, the room they have, their failures.
//!
//! Not here: what is stored. Invariants: a store that failed ends the server, so that it starts
//! again from what is durable; pressure is measured before it is asked for.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapwing_server_core::pressure::Pressure;
use lapwing_store::journal::{DirectoryPartitions, Journal, JournalOptions};
use lapwing_store::{DiskOptions, RowStore, SpaceGauge, StoreError};
use prometheus_client::metrics::gauge::Gauge;
use smol::Timer;

use crate::config::{Backup, Server};
use crate::metrics::Metrics;
use crate::notice::Notice;

/// How often the room is measured: what all sensors may send meanwhile on the credit they have is
/// below the smallest floor that makes sense.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// The stores of one server, opened as its configuration says. Share it in an `Arc`.
pub struct Storage {
    folder: PathBuf,
    options: DiskOptions,
    pub(crate) backup: Option<Backup>,
    gauge: SpaceGauge,
    opened: Mutex<Opened>,
    notice: Notice,
    metrics: SpaceMetrics,
}

/// What was opened, by its name in the folder.
#[derive(Clone, Default)]
pub(crate) struct Opened {
    pub(crate) rows: Vec<(String, RowStore)>,
    pub(crate) journals: Vec<(String, Arc<Journal>)>,
}

#[derive(Clone, Debug, Default)]
struct SpaceMetrics {
    used: Gauge<u64, AtomicU64>,
    free: Gauge<u64, AtomicU64>,
    pressure: Gauge,
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
            gauge: SpaceGauge::new(&server.data_dir, server.store.bounds()),
            opened: Mutex::default(),
            notice,
            metrics: SpaceMetrics::registered(metrics),
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
        self.opened().rows.push((name.to_owned(), rows.clone()));
        Ok(rows)
    }

    /// Opens or creates the journal `name`. Blocks on the disk.
    ///
    /// # Errors
    /// As for `Journal::open`.
    pub fn journal(
        &self,
        name: &str,
        options: &JournalOptions,
    ) -> Result<Arc<Journal>, StoreError> {
        let partitions = DirectoryPartitions::new(&self.folder.join(name), self.options);
        let journal = Arc::new(Journal::open(Arc::new(partitions), options)?);
        self.opened().journals.push((name.to_owned(), Arc::clone(&journal)));
        Ok(journal)
    }

    /// How the room is, as measured a moment ago; reading it is free.
    #[must_use]
    pub fn gauge(&self) -> SpaceGauge {
        self.gauge.clone()
    }

    pub(crate) fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures the room again and again, until a store fails: then gives its error.
    pub(crate) async fn watch(self: Arc<Self>) -> StoreError {
        smol::future::or(self.failed(), self.measure_again_and_again()).await
    }

    async fn failed(&self) -> StoreError {
        let Opened { rows, journals } = self.opened().clone();
        let rows = rows.iter().map(|(_, rows)| smol::future::FutureExt::boxed(rows.stopped()));
        let journals =
            journals.iter().map(|(_, journal)| smol::future::FutureExt::boxed(journal.stopped()));
        let never = smol::future::FutureExt::boxed(smol::future::pending());
        rows.chain(journals)
            .fold(never, |one, other| smol::future::FutureExt::boxed(smol::future::or(one, other)))
            .await
    }

    async fn measure_again_and_again(self: &Arc<Self>) -> StoreError {
        loop {
            Timer::after(MEASURE_EVERY).await;
            let storage = Arc::clone(self);
            smol::unblock(move || storage.measure()).await;
        }
    }

    fn measure(&self) {
        let before = self.gauge.pressure();
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
        if now != before {
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

impl SpaceMetrics {
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
