//! The assignments in memory and in the store, together.
//!
//! Invariant: rows are submitted under the lock under which they were decided, so the store sees
//! decisions in their order; a reply is built only after they are durable.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lapwing_net::clock;
use lapwing_net::peer::Failure;
use lapwing_protocol::code::Code;
use lapwing_protocol::id::{SensorId, ServerId};
use lapwing_server_core::assignment::Assignments;
use lapwing_server_core::assignment::record::key;
use lapwing_server_core::rows::{self, Row};
use lapwing_store::{Committing, RowStore, StoreError};

/// Assignments over their store.
pub(crate) struct State {
    assignments: Mutex<Assignments>,
    rows: RowStore,
}

impl State {
    /// What the store holds. Blocks on the disk.
    pub(crate) fn open(rows: RowStore) -> Result<Self, String> {
        let scan = |[from, to]: [&[u8]; 2]| {
            rows.scan(from, to).map_err(|error: StoreError| error.to_string())
        };
        let unreadable = || {
            String::from(
                "a stored assignment cannot be read: it was written by another version; start that \
                 one, or restore the store from a backup",
            )
        };
        let mut servers = Vec::new();
        for (stored_at, value) in scan(key::SERVERS)? {
            let id = key::id_of(key::SERVERS[0], &stored_at).ok_or_else(unreadable)?;
            servers.push((ServerId(id), rows::read(&value).map_err(|_| unreadable())?));
        }
        let mut places = Vec::new();
        for (stored_at, value) in scan(key::PLACES)? {
            let id = key::id_of(key::PLACES[0], &stored_at).ok_or_else(unreadable)?;
            places.push((SensorId(id), rows::read(&value).map_err(|_| unreadable())?));
        }
        let assignments = Assignments::restore(clock::monotonic_ms(), servers, places);
        Ok(Self { assignments: Mutex::new(assignments), rows })
    }

    /// Looks at the assignments.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Assignments) -> T) -> T {
        look(&self.lock())
    }

    /// Decides something and waits until what it changed is durable.
    pub(crate) async fn decide<T>(
        &self,
        decide: impl FnOnce(&mut Assignments) -> Result<(T, Option<Row>), Failure>,
    ) -> Result<T, Failure> {
        let (decided, committing) = self.submit(decide)?;
        committing.durable().await.map_err(store_failed)?;
        Ok(decided)
    }

    fn submit<T>(
        &self,
        decide: impl FnOnce(&mut Assignments) -> Result<(T, Option<Row>), Failure>,
    ) -> Result<(T, Committing), Failure> {
        let mut assignments = self.lock();
        let (decided, row) = decide(&mut assignments)?;
        let rows = row.into_iter().collect();
        let committing = self.rows.submit(rows).map_err(store_failed)?;
        Ok((decided, committing))
    }

    fn lock(&self) -> MutexGuard<'_, Assignments> {
        self.assignments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn store_failed(error: StoreError) -> Failure {
    Failure::new(Code::STORE_FAILED, error.to_string())
}
