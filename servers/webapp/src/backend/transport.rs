//! Calls to real peers: one kept connection each, over `lapwing-peer/1`.
//!
//! Invariant: a peer is who the configuration says by role; Update and Global Intel may be of the
//! vendor's authority, all others are of this deployment.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use lapwing_net::identity::Role;
use lapwing_net::peer::{CallError, PeerClient};
use lapwing_net::runtime::Executor;
use lapwing_net::tls::{ClientTls, Credentials, ExpectedPeer, HandshakeError, Plane};
use lapwing_protocol::call::Method;
use lapwing_protocol::id::DeploymentId;

use super::{CallResult, Peer, Transport, noun, role};
use crate::config::Peers;

/// The peers of the configuration.
pub(crate) struct PeerTransport {
    client_by_peer: BTreeMap<Peer, PeerClient>,
}

impl PeerTransport {
    /// Clients for every peer that `peers` names; `vendor` verifies Update and Global Intel.
    pub(crate) fn new(
        executor: &Executor,
        deployment: DeploymentId,
        peers: &Peers,
        ours: &Credentials,
        vendor: &Credentials,
    ) -> Result<Self, HandshakeError> {
        let mut client_by_peer = BTreeMap::new();
        for (peer, name, address) in peers.addresses() {
            let credentials = if is_vendor(peer) { vendor } else { ours };
            let expected = match net_role(peer) {
                role if is_vendor(peer) => ExpectedPeer::of_vendor(role),
                role => ExpectedPeer::of_role(deployment, role),
            };
            let tls = ClientTls::new(credentials, Plane::Peer, expected)?;
            client_by_peer.insert(peer, PeerClient::new(executor, &name, vec![address], tls));
        }
        Ok(Self { client_by_peer })
    }
}

const fn is_vendor(peer: Peer) -> bool {
    matches!(peer, Peer::Update | Peer::IntelGlobal)
}

fn net_role(peer: Peer) -> Role {
    role(peer).and_then(|role| role.name().parse().ok()).unwrap_or(Role::Ctl)
}

impl Transport for PeerTransport {
    fn call(
        &self,
        peer: Peer,
        method: Method,
        body: Vec<u8>,
        time: Duration,
    ) -> Pin<Box<dyn Future<Output = CallResult> + Send + '_>> {
        Box::pin(async move {
            match self.client_by_peer.get(&peer) {
                Some(client) => client.call(method, &body, time).await,
                None => Err(CallError::Unreachable {
                    peer: String::from(noun(peer)),
                    reason: String::from("it is not configured"),
                }),
            }
        })
    }

    fn peers(&self) -> Vec<(Peer, String)> {
        self.client_by_peer.iter().map(|(peer, client)| (*peer, client.name().to_owned())).collect()
    }
}
