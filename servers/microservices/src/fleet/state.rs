//! The fleet in memory and in the store, together, and the connections to its Detection servers.
//!
//! Invariant: rows are submitted under the lock under which they were decided, so the store sees
//! decisions in their order.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lapwing_net::clock;
use lapwing_net::metrics::Metrics;
use lapwing_net::peer::PeerClient;
use lapwing_protocol::id::{SensorId, ServerId};
use lapwing_server_core::fleet::record::key;
use lapwing_server_core::fleet::{Fleet, Stored};
use lapwing_server_core::rows::{self, Row};
use lapwing_store::{Committing, RowStore, StoreError};
use smol::channel::{Receiver, Sender};

use super::counts::Counts;
use crate::stored;

/// Rows in one batch, where they do not belong together: half of what a batch takes.
const ROWS_AT_ONCE: usize = 4_096;

/// The fleet over its store.
pub(crate) struct State {
    fleet: Mutex<Fleet>,
    rows: RowStore,
    pub(crate) counts: Counts,
    links: Mutex<BTreeMap<ServerId, PeerClient>>,
    /// What is wrong with each Detection server, by its name.
    troubles: Mutex<BTreeMap<String, String>>,
    woken: (Sender<()>, Receiver<()>),
}

impl State {
    /// What the store holds; the first time, makes the issuer. Blocks on the disk.
    pub(crate) fn open(rows: RowStore, metrics: &Metrics) -> Result<Self, String> {
        let id_of = |prefix: &'static [u8]| move |stored_at: &[u8]| key::id_of(prefix, stored_at);
        let sensors = stored::load(&rows, key::SENSORS, id_of(key::SENSORS[0]))?;
        let cursors = stored::load(&rows, key::CURSORS, id_of(key::CURSORS[0]))?;
        let stored = Stored {
            sensors: sensors.into_iter().map(|(id, record)| (SensorId(id), record)).collect(),
            batches: stored::load(&rows, key::BATCHES, key::batch_of)?,
            actions: stored::load(&rows, key::ACTIONS, key::action_of)?,
            cursors: cursors.into_iter().map(|(id, record)| (ServerId(id), record)).collect(),
        };
        let issuer = issuer(&rows)?;
        Ok(Self {
            fleet: Mutex::new(Fleet::restore(issuer, stored)),
            rows,
            counts: Counts::registered(metrics),
            links: Mutex::default(),
            troubles: Mutex::default(),
            woken: smol::channel::bounded(1),
        })
    }

    /// Looks at the fleet.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Fleet) -> T) -> T {
        look(&lock(&self.fleet))
    }

    /// Changes something that needs no row.
    pub(crate) fn touch<T>(&self, touch: impl FnOnce(&mut Fleet) -> T) -> T {
        touch(&mut lock(&self.fleet))
    }

    /// Changes something and submits its rows as one batch.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Fleet) -> (T, Vec<Row>),
    ) -> Result<(T, Committing), StoreError> {
        let mut fleet = lock(&self.fleet);
        let (changed, rows) = change(&mut fleet);
        Ok((changed, self.rows.submit(rows)?))
    }

    /// Changes something and waits until it is durable. Its rows may be many, and each stands for
    /// itself.
    pub(crate) async fn change_many<T>(
        &self,
        change: impl FnOnce(&mut Fleet) -> (T, Vec<Row>),
    ) -> Result<T, StoreError> {
        let (changed, committing) = self.submit_many(change)?;
        for committing in committing {
            committing.durable().await?;
        }
        Ok(changed)
    }

    fn submit_many<T>(
        &self,
        change: impl FnOnce(&mut Fleet) -> (T, Vec<Row>),
    ) -> Result<(T, Vec<Committing>), StoreError> {
        let mut fleet = lock(&self.fleet);
        let (changed, rows) = change(&mut fleet);
        let batches = rows.chunks(ROWS_AT_ONCE).map(|rows| self.rows.submit(rows.to_vec()));
        Ok((changed, batches.collect::<Result<_, _>>()?))
    }

    /// The connection to a Detection server.
    pub(crate) fn link(&self, server: ServerId) -> Option<PeerClient> {
        lock(&self.links).get(&server).cloned()
    }

    /// There is a connection to `server`.
    pub(crate) fn set_link(&self, server: ServerId, client: &PeerClient) {
        lock(&self.links).insert(server, client.clone());
        self.wake();
    }

    /// What is wrong with the Detection server `name`; `None` when it answers.
    pub(crate) fn set_trouble(&self, name: &str, trouble: Option<String>) {
        let mut troubles = lock(&self.troubles);
        match trouble {
            Some(trouble) => {
                if troubles.insert(name.to_owned(), trouble.clone()).is_none() {
                    log::warn!("{name}: {trouble}");
                }
            }
            None => {
                if troubles.remove(name).is_some() {
                    log::info!("{name} answers");
                }
            }
        }
    }

    /// What is not as it should be, for a person; empty when all is well.
    pub(crate) fn trouble(&self) -> String {
        if let Some(error) = self.rows.failure() {
            return error.to_string();
        }
        let troubles = lock(&self.troubles);
        let lines: Vec<String> =
            troubles.iter().map(|(name, trouble)| format!("{name}: {trouble}")).collect();
        lines.join("; ")
    }

    /// There may be something to put.
    pub(crate) fn wake(&self) {
        // Full means that it was woken already.
        let _ = self.woken.0.try_send(());
    }

    /// Ends when there may be something to put.
    pub(crate) async fn woken(&self) {
        // The sender lives as long as this.
        let _ = self.woken.1.recv().await;
    }
}

/// The issuer's incarnation: the moment its store was made, so that a store made anew, after a
/// loss, has a higher one. It stays the same as long as the store does.
fn issuer(rows: &RowStore) -> Result<u64, String> {
    if let Some(value) = rows.get(key::ISSUER).map_err(|error| error.to_string())? {
        return rows::read(&value)
            .map_err(|error| format!("the stored issuer cannot be read: {error}"));
    }
    let issuer = clock::unix_ms().max(1);
    let row = Row::put(key::ISSUER.to_vec(), &issuer);
    let durable = rows.submit(vec![row]).map_err(|error| error.to_string())?.durable();
    smol::block_on(durable).map_err(|error| error.to_string())?;
    Ok(issuer)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
