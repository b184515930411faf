//! The calls that sensor management answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use lapwing_net::clock;
use lapwing_net::host::Myself;
use lapwing_net::identity::Role;
use lapwing_net::peer::{Caller, Failure, Service, from_body, to_body};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::fleet::{BatchQuery, FleetAction, FleetBatch};
use lapwing_protocol::id::SensorId;
use lapwing_server_core::fleet::{ActRefused, Order};
use lapwing_store::StoreError;

use super::state::State;

/// Where the WebApp asks and orders.
pub(crate) struct Desk {
    state: Arc<State>,
    myself: Arc<Myself>,
}

impl Desk {
    pub(crate) fn new(state: Arc<State>, myself: Arc<Myself>) -> Self {
        Self { state, myself }
    }

    fn sensors(&self) -> Result<Vec<u8>, Failure> {
        let (now_ms, unix_ms) = (clock::monotonic_ms(), clock::unix_ms());
        self.state.look(|fleet| {
            let mut list = Vec::new();
            for view in fleet.views(now_ms, unix_ms) {
                list.extend(to_body(&view)?);
            }
            Ok(list)
        })
    }

    async fn act(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let action: FleetAction<'_> = from_body(body)?;
        let sensors: BTreeSet<SensorId> =
            action.sensors.iter().collect::<Result<_, _>>().map_err(|error| {
                Failure::new(Code::MALFORMED, format!("the list of sensors: {error}"))
            })?;
        let order = Order {
            sensors,
            action: action.action,
            expires_after_ms: action.expires_after_ms,
            author: action.author,
        };
        let changed = self.state.change(|fleet| match fleet.act(clock::unix_ms(), &order) {
            Ok(acted) => (Ok((acted.batch, acted.sensors)), acted.rows),
            Err(why) => (Err(why), Vec::new()),
        });
        let (acted, committing) = changed.map_err(store_failed)?;
        let (batch, sensors) = acted.map_err(refused)?;
        committing.durable().await.map_err(store_failed)?;
        self.state.touch(|fleet| fleet.handle_durable(batch));
        self.state.wake();
        self.state.counts.ordered();
        log::info!("{} ordered {} on {sensors} sensors", order.author, order.action.name());
        to_body(&FleetBatch { batch, sensors })
    }

    fn batch(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: BatchQuery = from_body(body)?;
        self.state.look(|fleet| {
            let results = fleet.results(query.batch).ok_or_else(|| {
                let text = format!("no batch {} is known, or not any more", query.batch);
                Failure::new(Code::NOT_FOUND, text)
            })?;
            let mut list = Vec::new();
            for result in results {
                list.extend(to_body(&result)?);
            }
            Ok(list)
        })
    }
}

impl Service for Desk {
    async fn call(
        &self,
        caller: Caller,
        method: Method,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, Failure> {
        let role = caller.identity.map(|identity| identity.role);
        match method {
            Method::FLEET_SENSORS => self.sensors(),
            Method::FLEET_ACTION => match role {
                Some(Role::Webapp | Role::Ctl) => self.act(&body).await,
                _ => Err(Failure::new(
                    Code::FORBIDDEN,
                    "only an operator acts on sensors, by the WebApp",
                )),
            },
            Method::FLEET_BATCH => self.batch(&body),
            Method::STATUS => self.myself.status(&self.state.trouble()),
            other => Err(Failure::new(
                Code::UNSUPPORTED,
                format!("sensor management has no method {}", other.0),
            )),
        }
    }
}

fn refused(why: ActRefused) -> Failure {
    let code = match why {
        ActRefused::NoSensors | ActRefused::BadAuthor | ActRefused::BadExpiry => Code::BAD_ARGUMENT,
        ActRefused::TooManySensors => Code::TOO_LARGE,
        ActRefused::TooManyOpen => Code::BUSY,
    };
    Failure::new(code, why.to_string())
}

fn store_failed(error: StoreError) -> Failure {
    Failure::new(Code::STORE_FAILED, error.to_string())
}
