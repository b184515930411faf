//! Which Detection servers there are: those the configuration names, and those Registration knows.
//! Each is followed by a task of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lapwing_net::host::{Host, HostError};
use lapwing_net::identity::Role;
use lapwing_net::peer::PeerClient;
use lapwing_net::runtime::Executor;
use lapwing_net::tls::{ClientTls, ExpectedPeer, Plane};
use lapwing_protocol::call::Method;
use lapwing_protocol::items::Items;
use lapwing_protocol::registration::ServerView;
use smol::{Task, Timer};

use super::config::Peers;
use super::follow::Follower;
use super::state::State;

/// How often Registration is asked which servers there are.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long it may take to answer.
const ASK_TIME: Duration = Duration::from_secs(5);

/// The Detection servers that are followed.
pub(crate) struct Directory {
    executor: Executor,
    state: Arc<State>,
    tls: ClientTls,
    registration: Option<PeerClient>,
    named: BTreeMap<SocketAddr, String>,
    poll_every: Duration,
    followed: BTreeMap<SocketAddr, Task<()>>,
}

impl Directory {
    pub(crate) fn new(peers: &Peers, host: &Host, state: &Arc<State>) -> Result<Self, HostError> {
        let identity = host.myself().identity;
        let expected = ExpectedPeer::of_role(identity.deployment, Role::Detection);
        let tls = ClientTls::new(host.credentials(), Plane::Peer, expected);
        let registration = match peers.registration.as_slice() {
            [] => None,
            addresses => {
                Some(host.client("Registration", Role::Registration, addresses.to_vec())?)
            }
        };
        let named = peers.detection.iter().map(|peer| (peer.console, peer.name.clone()));
        Ok(Self {
            executor: Arc::clone(host.executor()),
            state: Arc::clone(state),
            tls: tls.map_err(HostError::Tls)?,
            registration,
            named: named.collect(),
            poll_every: peers.poll_every.0,
            followed: BTreeMap::new(),
        })
    }

    /// Follows the servers. Never ends; when it is dropped, all its tasks end.
    pub(crate) async fn run(mut self) {
        self.follow(&self.named.clone());
        loop {
            let Some(registration) = &self.registration else {
                return std::future::pending().await;
            };
            let asked = registration.call(Method::SERVERS, &[], ASK_TIME).await;
            match asked {
                Ok(body) => {
                    self.state.set_trouble("Registration", None);
                    let mut wanted = self.named.clone();
                    wanted.extend(listed(&body));
                    self.follow(&wanted);
                }
                // Those that are followed stay so: that Registration is away says nothing of them.
                Err(error) => self.state.set_trouble("Registration", Some(error.to_string())),
            }
            Timer::after(ASK_EVERY).await;
        }
    }

    fn follow(&mut self, wanted: &BTreeMap<SocketAddr, String>) {
        self.followed.retain(|address, _| wanted.contains_key(address));
        for (address, name) in wanted {
            if self.followed.contains_key(address) {
                continue;
            }
            let client = PeerClient::new(&self.executor, name, vec![*address], self.tls.clone());
            let follower = Follower {
                state: Arc::clone(&self.state),
                client,
                name: name.clone(),
                poll_every: self.poll_every,
            };
            self.followed.insert(*address, self.executor.spawn(follower.run()));
        }
    }
}

fn listed(body: &[u8]) -> Vec<(SocketAddr, String)> {
    let servers = Items::<ServerView<'_>>::from_bytes(body);
    let known = servers.iter().map_while(Result::ok);
    known
        .filter_map(|server| Some((server.console_address.parse().ok()?, server.name.to_owned())))
        .collect()
}
