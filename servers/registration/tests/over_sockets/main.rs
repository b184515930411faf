//! A whole Registration server over real TLS sockets: enrolment, assignment, supervision, restart.
#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

#[path = "../../../net/tests/deployment/mod.rs"]
mod deployment;

use std::net::SocketAddr;
use std::sync::Arc;

use deployment::{Deployment, TOKEN, call, enrolment, enrolment_with, refusal, run, until};
use lapwing_net::authority::make_request;
use lapwing_net::identity::{PeerIdentity, Role};
use lapwing_net::peer::{PeerClient, from_body, to_body};
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::{self, ShutdownTrigger};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::enrol::Enrolled;
use lapwing_protocol::feed::{Page, PageRequest};
use lapwing_protocol::id::{Incarnation, SensorId, ServerId};
use lapwing_protocol::items::Items;
use lapwing_protocol::registration::{
    AssignReason, AssignRequest, Assignment, AssignmentView, Heartbeat, HeartbeatReply,
    ServerChange, ServerRole, ServerSetting, ServerState, ServerStatus, ServerView,
};
use lapwing_registration::{Config, Server};

const ENROLMENT: &str =
    "[enrolment]\nca_cert = \"ca.pem\"\nca_key = \"ca-key.pem\"\ntokens_file = \"tokens.sha256\"\n";

struct Running {
    address: SocketAddr,
    trigger: ShutdownTrigger,
    ended: smol::Task<()>,
}

impl Running {
    async fn start(deployment: &Deployment, executor: &Executor) -> Self {
        let text = deployment.server_section(Role::Registration, "registration", 1) + ENROLMENT;
        let config: Config = deployment.config(&text);
        let (trigger, shutdown) = shutdown::pair();
        let server = {
            let executor = Arc::clone(executor);
            smol::unblock(move || Server::open(&config, &executor, &shutdown)).await.unwrap()
        };
        let address = server.addresses()[0];
        let ended = executor.spawn(async move { server.serve().await.unwrap() });
        Self { address, trigger, ended }
    }

    async fn stop(self) {
        self.trigger.begin();
        self.ended.await;
    }
}

fn heartbeat(id: u8, capacity: u32) -> Vec<u8> {
    let name = format!("d{id}");
    to_body(&Heartbeat {
        server: ServerId([id; 16]),
        name: &name,
        sensor_address: "127.0.0.1:443",
        console_address: "127.0.0.1:8443",
        malware_address: "127.0.0.1:7075",
        capacity,
        sensors: 0,
        load_permille: 0,
        draining: false,
        version: "0.1.0",
        incarnation: Incarnation([1; 16]),
    })
    .unwrap()
}

fn first() -> Vec<u8> {
    to_body(&AssignRequest { reason: AssignReason::First, trouble_with: None }).unwrap()
}

async fn assigned(sensor: &PeerClient, request: &[u8]) -> (ServerId, String) {
    let body = call(sensor, Method::ASSIGN, request).await.unwrap();
    let assignment: Assignment<'_> = from_body(&body).unwrap();
    (assignment.server, assignment.name.to_owned())
}

async fn metric(deployment: &Deployment, address: SocketAddr, line: &str) -> bool {
    let text = deployment.metrics(Role::Registration, address).await;
    text.lines().any(|found| found == line)
}

#[test]
fn a_good_token_gets_an_identity_and_the_same_key_gets_the_same_one() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor).await;
        let stranger = deployment.stranger(&executor, Role::Registration, server.address);
        let (_, request) = make_request().unwrap();
        let body = enrolment_with(TOKEN, "host-1", &request);
        let reply = call(&stranger, Method::ENROL, &body).await.unwrap();
        let enrolled: Enrolled<'_> = from_body(&reply).unwrap();
        assert_eq!(enrolled.deployment, deployment.id);
        assert_eq!(enrolled.authority, deployment.authority.certificate_der());
        let identity = PeerIdentity::from_certificate(enrolled.certificate).unwrap();
        assert_eq!(identity.sensor(), Some(enrolled.sensor));
        let again = call(&stranger, Method::ENROL, &body).await.unwrap();
        let again: Enrolled<'_> = from_body(&again).unwrap();
        assert_eq!(again.sensor, enrolled.sensor, "a repeated request makes no second sensor");
        let other = call(&stranger, Method::ENROL, &enrolment(TOKEN, "host-2").1).await.unwrap();
        assert_ne!(from_body::<Enrolled<'_>>(&other).unwrap().sensor, enrolled.sensor);
        server.stop().await;
    });
}

#[test]
fn bad_tokens_and_bad_requests_are_refused_with_a_remedy() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor).await;
        let stranger = deployment.stranger(&executor, Role::Registration, server.address);
        let (code, text) = refusal(&stranger, Method::ENROL, &enrolment("guess", "host").1).await;
        assert_eq!(code, Code::BAD_TOKEN);
        assert!(text.contains("make a new one"), "{text}");
        let unsound = enrolment_with(TOKEN, "host", b"no request");
        let (code, _) = refusal(&stranger, Method::ENROL, &unsound).await;
        assert_eq!(code, Code::BAD_REQUEST_FOR_CERTIFICATE);
        let (code, _) = refusal(&stranger, Method::ENROL, b"\xff\xff").await;
        assert_eq!(code, Code::MALFORMED);
        let (code, _) = refusal(&stranger, Method::ASSIGN, &first()).await;
        assert_eq!(code, Code::UNSUPPORTED, "the enrol plane enrols and nothing else");
        let line = "lapwing_enrolments_total{result=\"bad_token\"} 1";
        assert!(metric(&deployment, server.address, line).await);
        server.stop().await;
    });
}

#[test]
fn an_assignment_is_kept_over_a_restart_and_requests_are_counted() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor).await;
        let sensor =
            deployment.client(&executor, (Role::Sensor, 9), Role::Registration, server.address);
        let (code, text) = refusal(&sensor, Method::ASSIGN, &first()).await;
        assert!(code == Code::ALL_FULL && text.contains("ask again in"), "{text}");
        for id in [1, 2] {
            let detection = deployment.client(
                &executor,
                (Role::Detection, id),
                Role::Registration,
                server.address,
            );
            let reply = call(&detection, Method::HEARTBEAT, &heartbeat(id, 10)).await.unwrap();
            let reply: HeartbeatReply = from_body(&reply).unwrap();
            assert_eq!(reply, HeartbeatReply { capacity: None, drain: false });
        }
        let given = assigned(&sensor, &first()).await;
        assert_eq!(assigned(&sensor, &first()).await, given);
        let line = "lapwing_registration_requests_total 3";
        assert!(metric(&deployment, server.address, line).await);
        server.stop().await;

        let server = Running::start(&deployment, &executor).await;
        let sensor =
            deployment.client(&executor, (Role::Sensor, 9), Role::Registration, server.address);
        assert_eq!(assigned(&sensor, &first()).await, given, "before any heartbeat");
        server.stop().await;
    });
}

#[test]
fn an_operator_drains_a_server_and_sees_it() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor).await;
        let client =
            |role, id| deployment.client(&executor, (role, id), Role::Registration, server.address);
        let detection = client(Role::Detection, 1);
        call(&detection, Method::HEARTBEAT, &heartbeat(1, 10)).await.unwrap();
        let drain = ServerChange { name: "d1", change: ServerSetting::Drain };
        let drain = to_body(&drain).unwrap();
        let (code, _) = refusal(&detection, Method::SERVER_CHANGE, &drain).await;
        assert_eq!(code, Code::FORBIDDEN);
        let webapp = client(Role::Webapp, 2);
        call(&webapp, Method::SERVER_CHANGE, &drain).await.unwrap();
        let body = call(&webapp, Method::SERVERS, &[]).await.unwrap();
        let servers: Vec<ServerView<'_>> =
            Items::from_bytes(&body).iter().collect::<Result<_, _>>().unwrap();
        assert_eq!((servers[0].name, servers[0].state), ("d1", ServerState::Draining));
        let reply = call(&detection, Method::HEARTBEAT, &heartbeat(1, 10)).await.unwrap();
        assert!(from_body::<HeartbeatReply>(&reply).unwrap().drain);
        let unknown = ServerChange { name: "d9", change: ServerSetting::Drain };
        let (code, _) = refusal(&webapp, Method::SERVER_CHANGE, &to_body(&unknown).unwrap()).await;
        assert_eq!(code, Code::NOT_FOUND);
        server.stop().await;
    });
}

#[test]
fn the_list_of_assignments_holds_who_enrolled_and_who_asked() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor).await;
        let stranger = deployment.stranger(&executor, Role::Registration, server.address);
        let reply = call(&stranger, Method::ENROL, &enrolment(TOKEN, "host-1").1).await.unwrap();
        let enrolled = from_body::<Enrolled<'_>>(&reply).unwrap().sensor;
        let client =
            |role, id| deployment.client(&executor, (role, id), Role::Registration, server.address);
        call(&client(Role::Detection, 1), Method::HEARTBEAT, &heartbeat(1, 10)).await.unwrap();
        assigned(&client(Role::Sensor, 9), &first()).await;
        let page = to_body(&PageRequest { offset: 0, limit: 10 }).unwrap();
        let webapp = client(Role::Webapp, 2);
        let body = call(&webapp, Method::ASSIGNMENTS, &page).await.unwrap();
        let page: Page<'_, AssignmentView<'_>> = from_body(&body).unwrap();
        let views: Vec<AssignmentView<'_>> = page.items.iter().map(Result::unwrap).collect();
        assert_eq!(page.total, 2);
        let named = views.iter().find(|view| view.sensor == enrolled).unwrap();
        assert_eq!((named.name, named.server), ("host-1", None));
        let placed = views.iter().find(|view| view.sensor == SensorId([9; 16])).unwrap();
        assert_eq!(placed.server, Some(ServerId([1; 16])));
        let body = call(&webapp, Method::STATUS, &[]).await.unwrap();
        let status: ServerStatus<'_> = from_body(&body).unwrap();
        assert_eq!((status.name, status.role), ("registration", ServerRole::Registration));
        let counted = "lapwing_registration_servers{state=\"up\"} 1";
        until("the server is counted", || async {
            metric(&deployment, server.address, counted).await.then_some(())
        })
        .await;
        server.stop().await;
    });
}

#[test]
fn a_server_that_speaks_for_another_is_refused() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor).await;
        let detection =
            deployment.client(&executor, (Role::Detection, 1), Role::Registration, server.address);
        let (code, _) = refusal(&detection, Method::HEARTBEAT, &heartbeat(2, 10)).await;
        assert_eq!(code, Code::FORBIDDEN);
        server.stop().await;
    });
}

#[test]
fn what_is_missing_is_named_with_the_remedy() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let (_trigger, shutdown) = shutdown::pair();
        let section = deployment.server_section(Role::Registration, "registration", 1);
        let told = |text: &str| {
            let config: Config = deployment.config(text);
            Server::open(&config, &executor, &shutdown).err().unwrap().to_string()
        };
        let missing = told(&format!("{section}{}", ENROLMENT.replace("ca-key.pem", "gone.pem")));
        assert!(missing.contains("gone.pem"), "{missing}");
        std::fs::write(deployment.path("tokens.sha256"), "not a digest\n").unwrap();
        let tokens = told(&format!("{section}{ENROLMENT}"));
        assert!(tokens.contains("tokens.sha256: line 1"), "{tokens}");
        let other = deployment.server_section(Role::Update, "other", 2);
        let other = other.replace("\"update\"", "\"registration\"");
        let other = told(&format!("{other}{ENROLMENT}"));
        assert!(other.contains("the certificate is of"), "{other}");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().to_string();
        let busy = told(&format!("{}{ENROLMENT}", section.replace("127.0.0.1:0", &port)));
        assert!(busy.contains("another process listens there"), "{busy}");
    });
}
