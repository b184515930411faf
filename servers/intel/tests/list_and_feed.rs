//! Threat Intel servers over real TLS sockets: who may change a list, and the feed of changes.
#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

#[path = "../../net/tests/deployment/mod.rs"]
mod deployment;

use std::sync::Arc;
use std::time::Duration;

use deployment::{Deployment, call, refusal, run};
use lapwing_intel::{Config, Server};
use lapwing_net::authority::{ServedName, Usage};
use lapwing_net::clock;
use lapwing_net::identity::{PeerIdentity, Role};
use lapwing_net::peer::{PeerClient, to_body};
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::{self, ShutdownTrigger};
use lapwing_net::tls::{ClientTls, Credentials, ExpectedPeer, Plane};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::id::{DeploymentId, Incarnation};
use lapwing_protocol::intel::{
    Classification, Indicator, KeyType, ReputationChange, ReputationPut,
};

struct Running {
    address: std::net::SocketAddr,
    _trigger: ShutdownTrigger,
    _serving: smol::Task<()>,
}

impl Running {
    async fn start(deployment: &Deployment, executor: &Executor, role: Role) -> Self {
        let config: Config = deployment.config(&deployment.server_section(role, "intel", 1));
        let (trigger, shutdown) = shutdown::pair();
        let server = {
            let executor = Arc::clone(executor);
            smol::unblock(move || Server::open(&config, &executor, &shutdown)).await.unwrap()
        };
        let address = server.addresses()[0];
        let serving = executor.spawn(async move { server.serve().await.unwrap() });
        Self { address, _trigger: trigger, _serving: serving }
    }
}

fn put(domain: &str) -> Vec<u8> {
    to_body(&ReputationPut {
        indicator: Indicator { key_type: KeyType::Domain, key: domain },
        classification: Classification::Blocked,
        comment: "",
        owner: "a test",
        expires_ms: None,
    })
    .unwrap()
}

/// The incarnation, the domains that changed behind `cursor`, and the next cursor.
async fn changes(
    client: &PeerClient,
    incarnation: Option<Incarnation>,
    cursor: u64,
    wait_ms: u32,
) -> (Incarnation, Vec<String>, u64) {
    let request = to_body(&FeedRequest { incarnation, cursor, limit: 10, wait_ms }).unwrap();
    let reply = call(client, Method::REPUTATION_CHANGES, &request).await.unwrap();
    let page: FeedPage<'_, ReputationChange<'_>> = from_bytes(&reply).unwrap();
    let domains = page.items.iter().map(|change| change.unwrap().verdict.indicator.key.to_owned());
    (page.incarnation, domains.collect(), page.next_cursor)
}

#[test]
fn the_shared_list_is_changed_by_its_vendor_alone() {
    run(async |executor| {
        let deployment = Deployment::new();
        let global = Running::start(&deployment, &executor, Role::IntelGlobal).await;
        let client = |identity: PeerIdentity| {
            let names = [ServedName::Address([127, 0, 0, 1].into())];
            let usage = Usage::Server(&names);
            let day = Duration::from_secs(86_400);
            let leaf = deployment.authority.issue(clock::unix_ms(), &identity, usage, day).unwrap();
            let ca = deployment.authority.certificate_pem();
            let shown = Credentials::from_pem(ca, &leaf.certificate_pem, &leaf.key_pem).unwrap();
            let expected = ExpectedPeer::of_role(deployment.id, Role::IntelGlobal);
            let tls = ClientTls::new(&shown, Plane::Peer, expected).unwrap();
            PeerClient::new(&executor, "the server", vec![global.address], tls)
        };
        let vendor = client(deployment.identity(Role::IntelGlobal, 2));
        let customer = PeerIdentity {
            deployment: DeploymentId([0xd1; 16]),
            ..deployment.identity(Role::IntelGlobal, 3)
        };
        let customer = client(customer);
        let body = put("rival.example");
        assert_eq!(refusal(&customer, Method::REPUTATION_PUT, &body).await.0, Code::FORBIDDEN);
        call(&vendor, Method::REPUTATION_PUT, &put("evil.example")).await.unwrap();
        assert_eq!(changes(&customer, None, 0, 0).await.1, ["evil.example"]);
    });
}

#[test]
fn a_reader_of_changes_is_woken_and_a_cursor_behind_the_end_starts_again() {
    run(async |executor| {
        let deployment = Deployment::new();
        let private = Running::start(&deployment, &executor, Role::IntelPrivate).await;
        let role = (Role::Webapp, 2);
        let client = deployment.client(&executor, role, Role::IntelPrivate, private.address);
        let (incarnation, none, start) = changes(&client, None, 0, 0).await;
        assert_eq!((none.len(), start), (0, 0));
        let waiting = changes(&client, Some(incarnation), start, 19_000);
        let body = put("a.example");
        let putting = call(&client, Method::REPUTATION_PUT, &body);
        let ((_, changed, cursor), stored) = smol::future::zip(waiting, putting).await;
        stored.unwrap();
        assert_eq!((changed, cursor), (vec!["a.example".to_owned()], 1));

        // The same entry again is no change; another one is.
        call(&client, Method::REPUTATION_PUT, &put("a.example")).await.unwrap();
        assert_eq!(changes(&client, Some(incarnation), cursor, 0).await.1.len(), 0);
        call(&client, Method::REPUTATION_PUT, &put("b.example")).await.unwrap();
        let (_, changed, cursor) = changes(&client, Some(incarnation), cursor, 0).await;
        assert_eq!((changed, cursor), (vec!["b.example".to_owned()], 2));
        for beyond in [3, u64::MAX] {
            let (_, changed, cursor) = changes(&client, Some(incarnation), beyond, 0).await;
            assert_eq!((changed.len(), cursor), (2, 2), "cursor {beyond}");
        }
    });
}
