//! A Detection server with lowered bounds.

use std::net::SocketAddr;
use std::sync::Arc;

use lapwing_detection::{Config, Server, SessionLimits};
use lapwing_net::identity::Role;
use lapwing_net::peer::{PeerClient, to_body};
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::{self, ShutdownTrigger};
use lapwing_protocol::call::Method;
use lapwing_protocol::console::{EventView, SensorView};
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::id::SensorId;
use lapwing_protocol::items::Items;

use crate::deployment::{Deployment, call};

pub(crate) struct Running {
    pub(crate) sensors: SocketAddr,
    console: PeerClient,
    trigger: ShutdownTrigger,
    serving: smol::Task<()>,
}

impl Running {
    /// Starts a server; `more` is what its `[detection]` section has besides.
    pub(crate) async fn start(
        deployment: &Deployment,
        executor: &Executor,
        limits: SessionLimits,
        more: &str,
    ) -> Self {
        let text = deployment.server_section(Role::Detection, "d1", 1)
            + "[detection]\nid = \"01010101010101010101010101010101\"\n\
               console_listen = \"127.0.0.1:0\"\nmalware_listen = \"127.0.0.1:0\"\n"
            + more;
        let (trigger, shutdown) = shutdown::pair();
        let config: Config = deployment.config(&text);
        let executing = Arc::clone(executor);
        let opening =
            smol::unblock(move || Server::open_within(config, limits, &executing, &shutdown));
        let server = opening.await.unwrap();
        let at = server.addresses().clone();
        let console = deployment.client(executor, (Role::Ctl, 2), Role::Detection, at.console);
        let serving = executor.spawn(async move { server.serve().await.unwrap() });
        Self { sensors: at.sensors[0], console, trigger, serving }
    }

    pub(crate) async fn stop(self) {
        self.trigger.begin();
        self.serving.await;
    }

    /// What the export has of each sensor's bulk lane: sensor and sequence.
    pub(crate) async fn exported(&self) -> Vec<(SensorId, u64)> {
        let mut rows = Vec::new();
        let mut request = FeedRequest { incarnation: None, cursor: 0, limit: 0, wait_ms: 0 };
        loop {
            let body = to_body(&request).unwrap();
            let reply = call(&self.console, Method::EVENTS, &body).await.unwrap();
            let page: FeedPage<'_, EventView<'_>> = from_bytes(&reply).unwrap();
            rows.extend(page.items.iter().map(|row| {
                let row = row.unwrap();
                (row.sensor, row.seq)
            }));
            request.incarnation = Some(page.incarnation);
            request.cursor = page.next_cursor;
            if page.at_end {
                return rows;
            }
        }
    }

    /// Sensors with an open session, as the list of sensors says.
    pub(crate) async fn connected(&self) -> usize {
        let reply = call(&self.console, Method::SENSORS, &[]).await.unwrap();
        let sensors = Items::<SensorView<'_>>::from_bytes(&reply);
        sensors.iter().filter(|sensor| sensor.as_ref().unwrap().connected).count()
    }

    /// The value of a metric, 0 where it is not there yet.
    pub(crate) async fn metric(&self, deployment: &Deployment, name: &str) -> f64 {
        let text = deployment.metrics(Role::Detection, self.sensors).await;
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
    }
}
