//! Which Detection servers there are: those the configuration names, and those Registration knows.
//! Each address is followed by a task of its own.
//!
//! Invariant: that Registration is away ends no following.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

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
use super::limits::{CALL_TIME, DIRECTORY_EVERY, SERVERS_MAX};
use super::state::State;

const REGISTRATION: &str = "Registration";
const TOO_MANY: &str = "the list of Detection servers";

/// The Detection servers that are followed.
pub(crate) struct Directory {
    executor: Executor,
    state: Arc<State>,
    tls: ClientTls,
    registration: Option<PeerClient>,
    named: BTreeMap<SocketAddr, String>,
    followed: BTreeMap<SocketAddr, (String, Task<()>)>,
}

impl Directory {
    pub(crate) fn new(peers: &Peers, host: &Host, state: &Arc<State>) -> Result<Self, HostError> {
        let identity = host.myself().identity;
        let expected = ExpectedPeer::of_role(identity.deployment, Role::Detection);
        let tls = ClientTls::new(host.credentials(), Plane::Peer, expected);
        let registration = match peers.registration.as_slice() {
            [] => None,
            addresses => Some(host.client(REGISTRATION, Role::Registration, addresses.to_vec())?),
        };
        let named = peers.detection.iter().map(|peer| (peer.console, peer.name.clone()));
        Ok(Self {
            executor: Arc::clone(host.executor()),
            state: Arc::clone(state),
            tls: tls.map_err(HostError::Tls)?,
            registration,
            named: named.collect(),
            followed: BTreeMap::new(),
        })
    }

    /// Follows the servers. Never ends; when it is dropped, all its tasks end.
    pub(crate) async fn run(mut self) {
        self.follow(self.named.clone());
        let Some(registration) = self.registration.clone() else {
            return std::future::pending().await;
        };
        loop {
            let asked = registration.call(Method::SERVERS, &[], CALL_TIME).await;
            match asked {
                Ok(body) => {
                    self.state.set_trouble(REGISTRATION, None);
                    let mut wanted = listed(&body);
                    wanted.extend(self.named.clone());
                    self.follow(wanted);
                }
                Err(error) => self.state.set_trouble(REGISTRATION, Some(error.to_string())),
            }
            Timer::after(DIRECTORY_EVERY).await;
        }
    }

    fn follow(&mut self, wanted: BTreeMap<SocketAddr, String>) {
        let beyond = wanted.len().saturating_sub(SERVERS_MAX);
        let trouble = format!("{beyond} servers beyond {SERVERS_MAX} are not followed");
        self.state.set_trouble(TOO_MANY, (beyond > 0).then_some(trouble));
        let state = &self.state;
        self.followed.retain(|address, (name, _)| {
            let is_wanted = wanted.contains_key(address);
            if !is_wanted {
                state.set_trouble(name, None);
            }
            is_wanted
        });
        for (address, name) in wanted {
            if self.followed.len() >= SERVERS_MAX || self.followed.contains_key(&address) {
                continue;
            }
            let client = PeerClient::new(&self.executor, &name, vec![address], self.tls.clone());
            let called = format!("{name} at {address}");
            let follower =
                Follower { state: Arc::clone(&self.state), client, name: called.clone() };
            let task = self.executor.spawn(follower.run());
            self.followed.insert(address, (called, task));
        }
    }
}

fn listed(body: &[u8]) -> BTreeMap<SocketAddr, String> {
    let servers = Items::<ServerView<'_>>::from_bytes(body);
    let known = servers.iter().map_while(Result::ok);
    known
        .filter_map(|server| Some((server.console_address.parse().ok()?, server.name.to_owned())))
        .collect()
}
