//! A whole Detection server in this process, for a scripted sensor.

use std::net::SocketAddr;
use std::sync::Arc;

use lapwing_detection::{Config, Server};
use lapwing_net::identity::Role;
use lapwing_net::peer::PeerClient;
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::{self, ShutdownTrigger};

use crate::deployment::{Deployment, until};

pub(crate) struct Running {
    pub(crate) sensors: SocketAddr,
    pub(crate) console: PeerClient,
    trigger: ShutdownTrigger,
    serving: smol::Task<()>,
}

impl Running {
    pub(crate) async fn start(deployment: &Deployment, executor: &Executor) -> Self {
        let text = deployment.server_section(Role::Detection, "d1", 1)
            + "[detection]\nid = \"01010101010101010101010101010101\"\n\
               console_listen = \"127.0.0.1:0\"\nmalware_listen = \"127.0.0.1:0\"\n";
        let (trigger, shutdown) = shutdown::pair();
        let server =
            until("the stores are free", || {
                let (executor, shutdown) = (Arc::clone(executor), shutdown.clone());
                let config: Config = deployment.config(&text);
                async move {
                    smol::unblock(move || Server::open(config, &executor, &shutdown)).await.ok()
                }
            })
            .await;
        let at = server.addresses().clone();
        let console = deployment.client(executor, (Role::Ctl, 2), Role::Detection, at.console);
        let serving = executor.spawn(async move { server.serve().await.unwrap() });
        Self { sensors: at.sensors[0], console, trigger, serving }
    }

    pub(crate) async fn stop(self) {
        self.trigger.begin();
        self.serving.await;
    }

    /// Ends without draining, without closing the stores.
    pub(crate) async fn kill(self) {
        self.serving.cancel().await;
        self.trigger.begin();
    }
}
