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
        let known = stored_issuer(&rows)?;
        let issuer = known.unwrap_or_else(|| clock::unix_ms().max(1));
        let mut fleet = Fleet::restore(issuer, stored);
        if known.is_none() {
            let unsure = fleet.close_unsure(clock::unix_ms());
            for unsure in unsure.chunks(ROWS_AT_ONCE) {
                store(&rows, unsure.to_vec())?;
            }
            store(&rows, vec![Row::put(key::ISSUER.to_vec(), &issuer)])?;
        }
        Ok(Self {
            fleet: Mutex::new(fleet),
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

/// The issuer's incarnation: the moment its store was made or restored, so that each has a higher
/// one. It stays the same as long as the store does; none where it is new.
fn stored_issuer(rows: &RowStore) -> Result<Option<u64>, String> {
    let value = rows.get(key::ISSUER).map_err(|error| error.to_string())?;
    let issuer = value.map(|value| rows::read(&value)).transpose();
    issuer.map_err(|error| format!("the stored issuer cannot be read: {error}"))
}

fn store(rows: &RowStore, batch: Vec<Row>) -> Result<(), String> {
    let durable = rows.submit(batch).map_err(|error| error.to_string())?.durable();
    smol::block_on(durable).map_err(|error| error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lapwing_protocol::command::Action;
    use lapwing_protocol::console::SensorView;
    use lapwing_protocol::fleet::ActionState;
    use lapwing_protocol::hello::Memory;
    use lapwing_protocol::items::Items;
    use lapwing_server_core::fleet::Order;
    use lapwing_store::MemoryDisk;

    use super::*;

    const SENSOR: SensorId = SensorId([1; 16]);

    fn open(disk: &MemoryDisk) -> (State, RowStore) {
        let rows = RowStore::over(Arc::new(disk.open().unwrap())).unwrap();
        (State::open(rows.clone(), &Metrics::default()).unwrap(), rows)
    }

    fn view() -> SensorView<'static> {
        SensorView {
            sensor: SENSOR,
            name: "machine",
            os: "Linux",
            agent: "lapwing-sensor 0.1.0",
            connected: true,
            session_epoch: 1,
            peer_address: "127.0.0.1:5",
            last_seen_ms: 1_000,
            first_seen_ms: 500,
            collecting: true,
            memory: Memory::Disk,
            rows: 0,
            divergent: false,
            health: Items::EMPTY,
            heads: Items::EMPTY,
            last_command: None,
        }
    }

    fn act(state: &State) -> u64 {
        let sensors = [SENSOR].into_iter().collect();
        let order =
            Order { sensors, action: Action::StopCollection, expires_after_ms: 0, author: "admin" };
        let now_ms = clock::unix_ms();
        let (batch, committing) = state
            .change(|fleet| {
                let acted = fleet.act(now_ms, &order).unwrap();
                (acted.batch, acted.rows)
            })
            .unwrap();
        smol::block_on(committing.durable()).unwrap();
        state.touch(|fleet| fleet.handle_durable(batch));
        batch
    }

    fn put(state: &State) -> Option<(u64, u64)> {
        let put = state.touch(|fleet| fleet.poll_put(1, clock::unix_ms()))?;
        Some((put.command.number.issuer, put.command.number.seq))
    }

    /// CMD-001, CMD-002: a backup from before a command was carried out does not repeat it under
    /// the number of a later life.
    #[test]
    fn what_was_open_in_a_backup_is_not_put_again_by_the_restored() {
        let disk = MemoryDisk::new("fleet");
        let (state, rows) = open(&disk);
        let server = ServerId([9; 16]);
        let seen = state.change_many(|fleet| {
            ((), fleet.handle_sensors(0, server, "d1", [view()].into_iter()).0)
        });
        smol::block_on(seen).unwrap();
        let batch = act(&state);
        let issuer = state.look(Fleet::issuer);
        drop((state, rows));
        let (state, rows) = open(&disk);
        assert_eq!(put(&state), Some((issuer, 1)), "a restart goes on");
        // As `lapwing restore` does.
        store(&rows, vec![Row::remove(key::ISSUER.to_vec())]).unwrap();
        drop((state, rows));
        for _ in 0..2 {
            let (state, _) = open(&disk);
            assert_eq!(put(&state), None);
            state.look(|fleet| {
                let result = fleet.results(batch).unwrap().next().unwrap();
                assert_eq!(result.state, ActionState::Expired);
                assert!(result.detail.contains("may have run"), "{}", result.detail);
            });
        }
        let (state, _) = open(&disk);
        act(&state);
        let (later, seq) = put(&state).unwrap();
        assert!(later >= issuer && seq == 2, "{later} {seq}");
    }
}
