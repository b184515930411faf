//! A whole Detection server over real TLS sockets, with a scripted sensor: delivery, bad peers,
//! a kill in the middle, two sessions of one sensor, commands, enrolment, heartbeats.
#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

mod backup;
#[path = "../../../net/tests/deployment/mod.rs"]
mod deployment;
mod failing_disk;
#[path = "../scripted/mod.rs"]
mod scripted;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use deployment::{Deployment, TOKEN, call, enrolment, refusal, run, until};
use lapwing_detection::{Addresses, Config, Server};
use lapwing_net::authority::Usage;
use lapwing_net::clock;
use lapwing_net::host::{Clients, Host, HostError};
use lapwing_net::identity::Role;
use lapwing_net::metrics::Health;
use lapwing_net::peer::{Caller, PeerClient, to_body};
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::{self, ShutdownTrigger};
use lapwing_net::tls::{ClientTls, Credentials, ExpectedPeer, Plane};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::command::{Action, CommandNumber, Outcome};
use lapwing_protocol::console::{CommandPut, EventView, OutcomeView, SensorView};
use lapwing_protocol::enrol::Enrolled;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::hello::LogVerdict;
use lapwing_protocol::id::{Incarnation, Lane, SensorId};
use lapwing_protocol::items::Items;
use lapwing_protocol::message::Message;
use lapwing_protocol::registration::{Heartbeat, HeartbeatReply};
use scripted::{Connection, Log};

const DAY: Duration = Duration::from_secs(86_400);
/// The sensor, by the first byte of its id.
const SENSOR: u8 = 7;

struct Running {
    at: Addresses,
    console: PeerClient,
    trigger: ShutdownTrigger,
    serving: smol::Task<Result<(), HostError>>,
}

impl Running {
    async fn start(deployment: &Deployment, executor: &Executor, more: &str) -> Self {
        let text = deployment.server_section(Role::Detection, "d1", 1)
            + "[detection]\nid = \"01010101010101010101010101010101\"\n\
               console_listen = \"127.0.0.1:0\"\nmalware_listen = \"127.0.0.1:0\"\n"
            + more;
        let (trigger, shutdown) = shutdown::pair();
        // The stores of a server that was killed are free once its last task is gone.
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
        let serving = executor.spawn(server.serve());
        Self { at, console, trigger, serving }
    }

    fn sensors(&self) -> SocketAddr {
        self.at.sensors[0]
    }

    /// Ends without draining, without closing the stores.
    async fn kill(self) {
        self.serving.cancel().await;
        self.trigger.begin();
    }

    async fn stop(self) {
        self.trigger.begin();
        self.serving.await.unwrap();
    }

    /// What the export says: the sequence and source_seq of each row.
    async fn exported(&self) -> Vec<(u64, Option<u64>)> {
        let mut rows = Vec::new();
        let mut request = FeedRequest { incarnation: None, cursor: 0, limit: 2, wait_ms: 0 };
        loop {
            let body = to_body(&request).unwrap();
            let reply = call(&self.console, Method::EVENTS, &body).await.unwrap();
            let page: FeedPage<'_, EventView<'_>> = from_bytes(&reply).unwrap();
            rows.extend(page.items.iter().map(|row| {
                let row = row.unwrap();
                (row.seq, row.source_seq)
            }));
            request.incarnation = Some(page.incarnation);
            request.cursor = page.next_cursor;
            if page.at_end {
                return rows;
            }
        }
    }

    /// The commands that became known to be over, of the outcomes feed.
    async fn outcomes(&self, count: usize) -> Vec<(CommandNumber, Outcome)> {
        until("the outcomes are in the feed", || async {
            let request = FeedRequest { incarnation: None, cursor: 0, limit: 0, wait_ms: 1_000 };
            let body = to_body(&request).unwrap();
            let reply = call(&self.console, Method::OUTCOMES, &body).await.unwrap();
            let page: FeedPage<'_, OutcomeView<'_>> = from_bytes(&reply).unwrap();
            let outcomes: Vec<_> = page
                .items
                .iter()
                .map(|view| view.map(|view| (view.number, view.outcome)).unwrap())
                .collect();
            (outcomes.len() >= count).then_some(outcomes)
        })
        .await
    }

    /// The only sensor of the list of sensors.
    async fn sensor<T>(&self, look: impl Fn(&SensorView<'_>) -> T) -> T {
        let reply = call(&self.console, Method::SENSORS, &[]).await.unwrap();
        let sensors = Items::<SensorView<'_>>::from_bytes(&reply);
        look(&sensors.iter().next().unwrap().unwrap())
    }

    /// The last command that waits, as the list of sensors says.
    async fn last_command(&self) -> Option<CommandNumber> {
        self.sensor(|view| view.last_command).await
    }
}

fn number(seq: u64) -> CommandNumber {
    CommandNumber { issuer: 1, seq }
}

fn once_each(count: u64) -> Vec<(u64, Option<u64>)> {
    (1..=count).map(|seq| (seq, Some(seq))).collect()
}

#[test]
fn chunks_are_acknowledged_and_exported_once() {
    run(async |executor| {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor, "").await;
        let mut bulk = Log::new(&deployment, SENSOR, Lane::Bulk, 1);
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        let grants = sensor.greet(&[&bulk], None).await;
        assert_eq!((grants[0].verdict, grants[0].next_seq), (LogVerdict::New, 1));
        for _ in 0..5 {
            sensor.send_chunk(&bulk.lookup()).await;
        }
        assert_eq!(sensor.ack_of(Lane::Bulk, 5).await.stored_seq, 5);
        sensor.send_chunk(&bulk.chunks[1].clone()).await;
        assert_eq!(sensor.ack_of(Lane::Bulk, 0).await.stored_seq, 5, "a repeat");
        assert_eq!(server.exported().await, once_each(5));
        server.stop().await;
    });
}

#[test]
fn bad_peers_end_their_own_connection_and_nothing_else() {
    run(async |executor| {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor, "").await;
        let at = server.sensors();
        let mut bulk = Log::new(&deployment, SENSOR, Lane::Bulk, 1);
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, at).await;
        sensor.greet(&[&bulk], None).await;

        // Garbage: flags without a meaning are set, or a length beyond the limit.
        for (garbage, code) in [([0x10, 0, 0, 0x10], Code::MALFORMED), ([0x55; 4], Code::TOO_LARGE)]
        {
            let mut peer = Connection::of_sensor(&deployment, 8, at).await;
            peer.send_bytes(&garbage.repeat(75)).await;
            assert_eq!(peer.refusal().await, code.0);
        }
        // A frame that is a message of no kind.
        let mut unknown = Connection::of_sensor(&deployment, 8, at).await;
        unknown.send_bytes(&[0, 0, 0xff, 0x0f]).await;
        assert_eq!(unknown.refusal().await, Code::UNKNOWN_KIND.0);
        // A frame over the limit.
        let mut large = Connection::of_sensor(&deployment, 8, at).await;
        large.send_bytes(&[0xff, 0xff, 3, 0]).await;
        assert_eq!(large.refusal().await, Code::TOO_LARGE.0);
        // A chunk before Hello.
        let mut early = Connection::of_sensor(&deployment, 8, at).await;
        early.send_chunk(&Log::new(&deployment, 8, Lane::Bulk, 2).lookup()).await;
        assert_eq!(early.refusal().await, Code::OUT_OF_PLACE.0);
        // A certificate of this deployment's sensor, signed by somebody else.
        let other = Deployment::numbered(0xd1);
        let identity = deployment.identity(Role::Sensor, SENSOR);
        let leaf = other.authority.issue(clock::unix_ms(), &identity, Usage::Client, DAY).unwrap();
        let ca = deployment.authority.certificate_pem();
        let forged = Credentials::from_pem(ca, &leaf.certificate_pem, &leaf.key_pem).unwrap();
        let mut forged = Connection::with(&deployment, &forged, at).await;
        assert_eq!(forged.frame().await, None);
        // No certificate at all.
        let expected = ExpectedPeer::of_role(deployment.id, Role::Detection);
        let nobody = ClientTls::anonymous_from_pem(ca, Plane::Sensor, expected).unwrap();
        let mut nobody = Connection::over(&nobody, at).await;
        assert_eq!(nobody.frame().await, None);
        // A server's certificate on the sensors' plane.
        let server_like = deployment.credentials(Role::Fleet, 9);
        let mut server_like = Connection::with(&deployment, &server_like, at).await;
        assert_eq!(server_like.frame().await, None);

        sensor.send_chunk(&bulk.lookup()).await;
        sensor.ack_of(Lane::Bulk, 1).await;
        assert_eq!(server.exported().await, once_each(1));
        server.stop().await;
    });
}

#[test]
fn after_a_kill_what_was_acknowledged_is_there_and_the_rest_resumes() {
    run(async |executor| {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor, "").await;
        let mut bulk = Log::new(&deployment, SENSOR, Lane::Bulk, 1);
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        sensor.greet(&[&bulk], None).await;
        for _ in 0..3 {
            sensor.send_chunk(&bulk.lookup()).await;
        }
        bulk.acked_seq = sensor.ack_of(Lane::Bulk, 3).await.stored_seq;
        for _ in 0..20 {
            sensor.send_chunk(&bulk.lookup()).await;
        }
        server.kill().await;
        while sensor.frame().await.is_some() {}

        let server = Running::start(&deployment, &executor, "").await;
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        let grant = sensor.greet(&[&bulk], None).await[0];
        assert_eq!(grant.verdict, LogVerdict::Resume);
        assert!(grant.next_seq > 3, "{} is acknowledged again", grant.next_seq);
        for bytes in bulk.chunks.clone().iter().skip(grant.next_seq as usize - 1) {
            sensor.send_chunk(bytes).await;
        }
        sensor.send_chunk(&bulk.lookup()).await;
        sensor.ack_of(Lane::Bulk, 24).await;
        assert_eq!(server.exported().await, once_each(24));
        server.stop().await;
    });
}

#[test]
fn after_a_restart_a_sensor_that_is_away_collects_as_it_last_said() {
    run(async |executor| {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor, "").await;
        let mut urgent = Log::new(&deployment, SENSOR, Lane::Urgent, 1);
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        sensor.greet(&[&urgent], None).await;
        let state =
            async |server: &Running| server.sensor(|view| (view.connected, view.collecting)).await;
        assert_eq!(state(&server).await, (true, true));
        drop(sensor);
        server.kill().await;
        let server = Running::start(&deployment, &executor, "").await;
        assert_eq!(state(&server).await, (false, true), "by its Hello");
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        sensor.greet(&[&urgent], None).await;
        let chunk = urgent.outcome(number(1), Outcome::Done);
        sensor.send_chunk(&chunk).await;
        until("it says so", || async { (!state(&server).await.1).then_some(()) }).await;
        server.stop().await;
        let server = Running::start(&deployment, &executor, "").await;
        assert_eq!(state(&server).await, (false, false), "by the outcome of a command");
        server.stop().await;
    });
}

#[test]
fn of_two_sessions_of_one_sensor_the_newer_goes_on() {
    run(async |executor| {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor, "").await;
        let mut bulk = Log::new(&deployment, SENSOR, Lane::Bulk, 1);
        let mut old = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        old.greet(&[&bulk], None).await;
        // Nothing is waited for: some of these are on their way to the disk when the other comes.
        for _ in 0..20 {
            old.send_chunk(&bulk.lookup()).await;
        }
        let mut new = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        let grant = new.greet(&[&bulk], None).await[0];
        for bytes in bulk.chunks.clone().iter().skip(grant.next_seq as usize - 1) {
            new.send_chunk(bytes).await;
        }
        if grant.next_seq <= 20 {
            new.ack_of(Lane::Bulk, 20).await;
        }
        assert_eq!(old.refusal().await, Code::FENCED.0);
        new.send_chunk(&bulk.lookup()).await;
        new.ack_of(Lane::Bulk, 21).await;
        assert_eq!(server.exported().await, once_each(21));
        server.stop().await;
    });
}

#[test]
fn a_command_reaches_the_sensor_and_its_outcome_closes_it() {
    run(async |executor| {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor, "").await;
        let fleet =
            deployment.client(&executor, (Role::Fleet, 3), Role::Detection, server.at.console);
        let mut urgent = Log::new(&deployment, SENSOR, Lane::Urgent, 1);
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        sensor.greet(&[&urgent], None).await;
        let put = |seq| CommandPut {
            sensor: SensorId([SENSOR; 16]),
            number: number(seq),
            expires_ms: clock::unix_ms() + 600_000,
            action: Action::StopCollection,
        };
        let stranger = &server.console;
        let (code, _) = refusal(stranger, Method::COMMAND, &to_body(&put(1)).unwrap()).await;
        assert_eq!(code, Code::FORBIDDEN);
        for seq in 1..=6 {
            call(&fleet, Method::COMMAND, &to_body(&put(seq)).unwrap()).await.unwrap();
        }
        // A sensor holds four; the others wait until outcomes make room.
        for seq in 1..=6 {
            assert_eq!(sensor.command().await.number, number(seq));
            if seq >= 4 {
                sensor.send_chunk(&urgent.outcome(number(seq - 3), Outcome::Done)).await;
            }
        }
        for seq in 4..=6 {
            sensor.send_chunk(&urgent.outcome(number(seq), Outcome::Failed)).await;
        }
        let outcomes = server.outcomes(6).await;
        let expected: Vec<_> = (1..=6)
            .map(|seq| (number(seq), if seq < 4 { Outcome::Done } else { Outcome::Failed }))
            .collect();
        assert_eq!(outcomes, expected);
        until("nothing waits any more", || async {
            server.last_command().await.is_none().then_some(())
        })
        .await;
        server.stop().await;
    });
}

#[test]
fn a_command_that_was_not_accepted_when_the_connection_broke_is_sent_again() {
    run(async |executor| {
        let deployment = Deployment::new();
        let server = Running::start(&deployment, &executor, "").await;
        let fleet =
            deployment.client(&executor, (Role::Fleet, 3), Role::Detection, server.at.console);
        let urgent = Log::new(&deployment, SENSOR, Lane::Urgent, 1);
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        sensor.greet(&[&urgent], None).await;
        for seq in 1..=2 {
            let put = CommandPut {
                sensor: SensorId([SENSOR; 16]),
                number: number(seq),
                expires_ms: clock::unix_ms() + 600_000,
                action: Action::StartCollection,
            };
            call(&fleet, Method::COMMAND, &to_body(&put).unwrap()).await.unwrap();
            assert_eq!(sensor.command().await.number, number(seq));
        }
        drop(sensor);
        // It accepted the first before the connection broke.
        let mut sensor = Connection::of_sensor(&deployment, SENSOR, server.sensors()).await;
        sensor.greet(&[&urgent], Some(number(1))).await;
        assert_eq!(sensor.command().await.number, number(2));
        server.stop().await;
    });
}

#[test]
fn without_a_registration_server_sensors_enrol_here() {
    run(async |executor| {
        let deployment = Deployment::new();
        let enrolling = "[enrolment]\nca_cert = \"ca.pem\"\nca_key = \"ca-key.pem\"\n\
                         tokens_file = \"tokens.sha256\"\n";
        let server = Running::start(&deployment, &executor, enrolling).await;
        let stranger = deployment.stranger(&executor, Role::Detection, server.sensors());
        let (_, wrong) = enrolment("wrong", "machine");
        assert_eq!(refusal(&stranger, Method::ENROL, &wrong).await.0, Code::BAD_TOKEN);
        let (_, right) = enrolment(TOKEN, "machine");
        let reply = call(&stranger, Method::ENROL, &right).await.unwrap();
        let enrolled: Enrolled<'_> = from_bytes(&reply).unwrap();
        assert_eq!(enrolled.deployment, deployment.id);
        let (code, _) = refusal(&stranger, Method::EVENTS, &[]).await;
        assert_eq!(code, Code::UNSUPPORTED);
        server.stop().await;
    });
}

#[test]
fn registration_is_told_where_sensors_connect() {
    run(async |executor| {
        let deployment = Deployment::new();
        let section = deployment.server_section(Role::Registration, "registration", 4);
        let config: Listening = deployment.config(&section);
        let (_trigger, shutdown) = shutdown::pair();
        let host = Host::open(&config.server, "0.1.0", &executor, &shutdown).unwrap();
        let (told, heard) = smol::channel::unbounded();
        let address = host.addresses()[0];
        let answer = move |_: Caller, _: Method, body: Vec<u8>| {
            let heartbeat: Heartbeat<'_> = from_bytes(&body).unwrap();
            let said = [heartbeat.sensor_address, heartbeat.console_address].map(str::to_owned);
            let _ = told.try_send(said);
            std::future::ready(to_body(&HeartbeatReply { capacity: None, drain: false }))
        };
        let serving = executor.spawn(async move {
            let clients = Clients::OfDeployment;
            host.serve(&[Plane::Peer], clients, Arc::new(answer), || Health::Up).await
        });
        let peers = format!("[peers]\nregistration = [\"{address}\"]\n");
        let server = Running::start(&deployment, &executor, &peers).await;
        let said = heard.recv().await.unwrap();
        assert_eq!(said, [server.sensors().to_string(), server.at.console.to_string()]);
        server.stop().await;
        drop(serving);
    });
}

/// The configuration of something that only listens.
#[derive(Debug, serde::Deserialize)]
struct Listening {
    server: lapwing_net::config::Server,
}

impl lapwing_net::config::Config for Listening {
    const ROLES: &'static [Role] = &[Role::Registration];
    const EXAMPLE: &'static str = "";
    fn server(&self) -> &lapwing_net::config::Server {
        &self.server
    }
    fn paths(&mut self) -> Vec<&mut std::path::PathBuf> {
        self.server.paths()
    }
}
