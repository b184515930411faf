//! Who gets in, on which plane, and what becomes of who misbehaves before or during the handshake.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapwing_net::authority::{self, Authority, Usage};
use lapwing_net::clock;
use lapwing_net::config;
use lapwing_net::identity::{PeerIdentity, Role};
use lapwing_net::limits::{ListenerLimits, LoopbackSources};
use lapwing_net::listener::{Connection, Fault, Listener};
use lapwing_net::runtime::Executor;
use lapwing_net::tls::{
    ClientTls, Credentials, ExpectedPeer, HandshakeError, PeerMismatch, Plane, connect, key_digest,
};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{DAY, Deployment, PATIENCE, Serving, Setup, run};
use crate::wait::until;

const ALL_PLANES: [Plane; 4] = [Plane::Enrol, Plane::Sensor, Plane::Peer, Plane::Http];

/// What the handler saw: plane and peer of each connection.
type Seen = Arc<Mutex<Vec<(Plane, Option<PeerIdentity>)>>>;

/// Greets everyone with one byte and waits for them to close.
fn greeter(seen: &Seen) -> impl Fn(Connection) -> smol::future::Boxed<Result<(), Fault>> + use<> {
    let seen = Arc::clone(seen);
    move |mut connection: Connection| {
        seen.lock().unwrap().push((connection.plane, connection.peer));
        Box::pin(async move {
            connection.stream.write_all(b"!").await?;
            connection.stream.flush().await?;
            // A client that drops its socket without a close is normal.
            let _ = connection.stream.read(&mut [0; 1]).await;
            Ok(())
        })
    }
}

fn serve(
    executor: &Executor,
    deployment: &Deployment,
    planes: &[Plane],
    limits: ListenerLimits,
) -> (Serving, Seen) {
    let seen = Seen::default();
    let credentials = deployment.credentials(Role::Detection, 1);
    let setup = Setup { executor, credentials, deployment: deployment.id, planes, limits };
    (setup.serve(greeter(&seen)), seen)
}

/// Connects and waits for the greeting; the error is the handshake's, or what the server's refusal
/// means.
async fn greet(serving: &Serving, tls: &ClientTls) -> Result<(), HandshakeError> {
    let mut stream = connect(serving.address, tls, PATIENCE).await?;
    match stream.read_exact(&mut [0; 1]).await {
        Ok(()) => Ok(()),
        Err(error) => Err(HandshakeError::from_io(&error)),
    }
}

fn client(credentials: &Credentials, plane: Plane) -> ClientTls {
    ClientTls::new(credentials, plane, ExpectedPeer::default()).unwrap()
}

#[test]
fn one_listener_serves_every_plane_by_alpn_and_knows_who_is_there() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let (serving, seen) = serve(&executor, &deployment, &ALL_PLANES, ListenerLimits::default());
        let sensor = deployment.credentials(Role::Sensor, 7);
        let server = deployment.credentials(Role::Webapp, 8);
        for (credentials, plane) in [
            (&sensor, Plane::Enrol),
            (&sensor, Plane::Sensor),
            (&server, Plane::Peer),
            (&server, Plane::Http),
        ] {
            greet(&serving, &client(credentials, plane)).await.unwrap();
        }
        let expected = [
            (Plane::Enrol, None),
            (Plane::Sensor, Some(deployment.identity(Role::Sensor, 7))),
            (Plane::Peer, Some(deployment.identity(Role::Webapp, 8))),
            (Plane::Http, None),
        ];
        assert_eq!(*seen.lock().unwrap(), expected);
        until("all are closed", || {
            ALL_PLANES.iter().all(|plane| serving.metrics.open(*plane) == 0)
        })
        .await;
    });
}

#[test]
fn a_plane_that_is_not_served_is_refused_with_an_alert() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let (serving, seen) =
            serve(&executor, &deployment, &[Plane::Peer], ListenerLimits::default());
        let sensor = deployment.credentials(Role::Sensor, 7);
        let error = greet(&serving, &client(&sensor, Plane::Sensor)).await.unwrap_err();
        assert!(matches!(error, HandshakeError::NoCommonPlane), "{error}");
        assert!(seen.lock().unwrap().is_empty());
        until("it is counted", || serving.metrics.refused_for("no_common_plane") == 1).await;
    });
}

#[test]
fn a_client_without_a_certificate_is_refused_where_one_is_required() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let (serving, seen) = serve(&executor, &deployment, &ALL_PLANES, ListenerLimits::default());
        for plane in [Plane::Sensor, Plane::Peer] {
            let ca = deployment.authority.certificate_pem();
            let tls = ClientTls::anonymous_from_pem(ca, plane, ExpectedPeer::default()).unwrap();
            let error = greet(&serving, &tls).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "the peer refused us: it requires a certificate and we showed none"
            );
        }
        until("both are counted", || serving.metrics.refused_for("no_certificate") == 2).await;
        assert!(seen.lock().unwrap().is_empty());
    });
}

#[test]
fn a_certificate_from_another_authority_is_refused() {
    run(|executor| async move {
        let ours = Deployment::new(1);
        let theirs = Deployment::new(1);
        let (serving, seen) = serve(&executor, &ours, &ALL_PLANES, ListenerLimits::default());
        let leaf = theirs
            .authority
            .issue(clock::unix_ms(), &ours.identity(Role::Sensor, 7), Usage::Client, DAY)
            .unwrap();
        let stranger = Credentials::from_pem(
            ours.authority.certificate_pem(),
            &leaf.certificate_pem,
            &leaf.key_pem,
        )
        .unwrap();
        let error = greet(&serving, &client(&stranger, Plane::Sensor)).await.unwrap_err();
        assert!(matches!(error, HandshakeError::RefusedByPeer(_)), "{error}");
        until("it is counted", || serving.metrics.refused_for("other_authority") == 1).await;
        assert!(seen.lock().unwrap().is_empty());
    });
}

#[test]
fn a_server_under_another_authority_is_refused_by_the_client() {
    run(|executor| async move {
        let theirs = Deployment::new(1);
        let (serving, _) = serve(&executor, &theirs, &ALL_PLANES, ListenerLimits::default());
        let ours = Deployment::new(1).credentials(Role::Sensor, 7);
        let error = greet(&serving, &client(&ours, Plane::Sensor)).await.unwrap_err();
        assert_eq!(error.to_string(), "the peer's certificate is from another CA");
    });
}

#[test]
fn an_expired_certificate_is_refused_with_the_skew() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let credentials =
            deployment.credentials_at(clock::unix_ms() - 3 * 86_400_000, Role::Detection, 1);
        let setup = Setup {
            executor: &executor,
            credentials,
            deployment: deployment.id,
            planes: &[Plane::Http],
            limits: ListenerLimits::default(),
        };
        let serving = setup.serve(greeter(&Seen::default()));
        let ours = deployment.credentials(Role::Webapp, 7);
        let error = greet(&serving, &client(&ours, Plane::Http)).await.unwrap_err();
        let HandshakeError::Expired { skew_s } = error else { panic!("{error}") };
        assert!((2 * 86_400 - 60..2 * 86_400 + 60).contains(&skew_s), "{skew_s}");
    });
}

#[test]
fn each_plane_takes_only_its_roles_and_its_deployment() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let (serving, seen) = serve(&executor, &deployment, &ALL_PLANES, ListenerLimits::default());
        let sensor = deployment.credentials(Role::Sensor, 7);
        let server = deployment.credentials(Role::Webapp, 8);
        let other = Deployment { id: Deployment::new(2).id, authority: deployment.authority };
        let elsewhere = other.credentials(Role::Sensor, 9);
        for (credentials, plane) in
            [(&sensor, Plane::Peer), (&server, Plane::Sensor), (&elsewhere, Plane::Sensor)]
        {
            let error = greet(&serving, &client(credentials, plane)).await.unwrap_err();
            assert!(matches!(error, HandshakeError::RefusedByPeer(_)), "{error}");
        }
        until("all are counted", || serving.metrics.refused_for("mismatch") == 3).await;
        assert!(seen.lock().unwrap().is_empty());
    });
}

#[test]
fn a_client_checks_the_role_and_id_it_expects() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let (serving, _) = serve(&executor, &deployment, &ALL_PLANES, ListenerLimits::default());
        let ours = deployment.credentials(Role::Webapp, 8);
        let right = ExpectedPeer {
            id: Some([1; 16]),
            ..ExpectedPeer::of_role(deployment.id, Role::Detection)
        };
        let wrong = [
            ExpectedPeer::of_role(deployment.id, Role::Registration),
            ExpectedPeer::of_role(Deployment::new(2).id, Role::Detection),
            ExpectedPeer { id: Some([2; 16]), ..right },
        ];
        greet(&serving, &ClientTls::new(&ours, Plane::Peer, right).unwrap()).await.unwrap();
        for expected in wrong {
            let tls = ClientTls::new(&ours, Plane::Peer, expected).unwrap();
            let error = greet(&serving, &tls).await.unwrap_err();
            let found = deployment.identity(Role::Detection, 1);
            let HandshakeError::Mismatch(mismatch) = error else { panic!("{error}") };
            assert_eq!(mismatch, PeerMismatch::OtherPeer { expected, found });
        }
    });
}

#[test]
fn a_signed_request_gives_only_its_key_away() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let (serving, seen) = serve(&executor, &deployment, &ALL_PLANES, ListenerLimits::default());
        let (key_pem, request) = authority::make_request().unwrap();
        let subject = deployment.identity(Role::Sensor, 42);
        let now = clock::unix_ms();
        let sign = |request: &[u8]| {
            deployment.authority.sign_request(now, request, &subject, Usage::Client, DAY)
        };
        let certificate = sign(&request).unwrap();
        let mut tampered = request.clone();
        *tampered.last_mut().unwrap() ^= 1;
        assert!(sign(&tampered).is_err());
        assert!(sign(&[]).is_err());
        assert!(sign(&vec![0x30; 4096]).is_err());
        let folder = tempfile::tempdir().unwrap();
        let [ca, key] = ["ca.pem", "key.pem"].map(|name| folder.path().join(name));
        deployment.authority.save(&ca, &key).unwrap();
        let reloaded = Authority::load(&ca, &key).unwrap();
        assert_eq!(reloaded.certificate_der(), deployment.authority.certificate_der());
        assert_eq!(PeerIdentity::from_certificate(&certificate.der), Ok(subject));
        let enrolled =
            Credentials::from_pem(reloaded.certificate_pem(), &certificate.pem, &key_pem).unwrap();
        greet(&serving, &client(&enrolled, Plane::Sensor)).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [(Plane::Sensor, Some(subject))]);
    });
}

#[test]
fn a_damaged_certificate_is_never_somebody_else_and_never_a_panic() {
    let deployment = Deployment::new(1);
    let (_, request) = authority::make_request().unwrap();
    let subject = deployment.identity(Role::Sensor, 42);
    let sign = |request: &[u8]| {
        deployment.authority.sign_request(clock::unix_ms(), request, &subject, Usage::Client, DAY)
    };
    let certificate = sign(&request).unwrap().der;
    for at in 0..certificate.len() {
        for damage in [0x01, 0x80, 0xff] {
            let mut damaged = certificate.clone();
            damaged[at] ^= damage;
            let _ = PeerIdentity::from_certificate(&damaged);
        }
        assert!(PeerIdentity::from_certificate(&certificate[..at]).is_err());
    }
    for at in 0..request.len() {
        let mut damaged = request.clone();
        damaged[at] ^= 0x01;
        // The name of the signature's algorithm is not under the signature.
        if let Ok(signed) = sign(&damaged) {
            assert_eq!(key_digest(&signed.der), key_digest(&certificate), "damaged at {at}");
        }
    }
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let tls = config::Tls {
            cert: path("cert.pem"),
            key: path("key.pem"),
            ca: path("ca.pem"),
            client_ca: Vec::new(),
        };
        let issue = |id| {
            let subject = deployment.identity(Role::Detection, id);
            let usage = Usage::Server(&[]);
            let leaf = deployment.authority.issue(clock::unix_ms(), &subject, usage, DAY).unwrap();
            leaf.save(&tls.cert, &tls.key).unwrap();
        };
        issue(1);
        std::fs::write(&tls.ca, deployment.authority.certificate_pem()).unwrap();
        let credentials = Credentials::load(&tls).unwrap();
        let setup = Setup {
            executor: &executor,
            credentials: credentials.clone(),
            deployment: deployment.id,
            planes: &[Plane::Http],
            limits: ListenerLimits::default(),
        };
        let serving = setup.serve(greeter(&Seen::default()));
        let ours = deployment.credentials(Role::Webapp, 8);
        let expected = |id| ExpectedPeer { id: Some([id; 16]), ..ExpectedPeer::default() };
        let client = |id| ClientTls::new(&ours, Plane::Http, expected(id)).unwrap();
        greet(&serving, &client(1)).await.unwrap();
        issue(2);
        credentials.reload(&tls).unwrap();
        greet(&serving, &client(2)).await.unwrap();
        std::fs::write(&tls.key, "no key").unwrap();
        let error = credentials.reload(&tls).unwrap_err();
        assert!(error.to_string().contains("this is not a private key in PEM"), "{error}");
        greet(&serving, &client(2)).await.unwrap();
    });
}

#[test]
fn garbage_and_plain_http_are_closed_and_harm_nobody() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let (serving, _) = serve(&executor, &deployment, &ALL_PLANES, ListenerLimits::default());
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            &[0; 512],
            &[0xff; 512],
            &[0x16, 3, 1, 0xff, 0xff],
        ] {
            let mut socket = smol::net::TcpStream::connect(serving.address).await.unwrap();
            socket.write_all(bytes).await.unwrap();
            socket.shutdown(smol::net::Shutdown::Write).unwrap();
            // An alert or nothing, then the end; a reset counts as the end.
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
        let ours = deployment.credentials(Role::Webapp, 8);
        greet(&serving, &client(&ours, Plane::Peer)).await.unwrap();
    });
}

#[test]
fn a_peer_that_never_finishes_its_handshake_is_dropped() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let limits = ListenerLimits {
            handshake_time: Duration::from_millis(100),
            ..ListenerLimits::default()
        };
        let (serving, _) = serve(&executor, &deployment, &ALL_PLANES, limits);
        let mut socket = smol::net::TcpStream::connect(serving.address).await.unwrap();
        socket.write_all(&[0x16, 3, 1]).await.unwrap();
        let _ = socket.read_to_end(&mut Vec::new()).await;
        until("it is counted", || serving.metrics.refused_for("timed_out") == 1).await;
    });
}

#[test]
fn a_peer_that_sends_too_much_before_its_handshake_is_dropped() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let (serving, _) = serve(&executor, &deployment, &ALL_PLANES, ListenerLimits::default());
        let mut socket = smol::net::TcpStream::connect(serving.address).await.unwrap();
        // A ClientHello that says it has 65,000 bytes, in records of 16 KiB.
        let mut record = vec![0x16, 3, 1, 0x40, 0];
        record.extend([1, 0, 0xfd, 0xe8]);
        record.resize(5 + 0x4000, 0);
        for _ in 0..4 {
            // The server stops reading in the middle of it.
            let _ = socket.write_all(&record).await;
        }
        let _ = socket.read_to_end(&mut Vec::new()).await;
        until("it is counted", || serving.metrics.refused_for("too_many_bytes") == 1).await;
    });
}

#[test]
fn an_honest_peer_gets_its_turn_behind_silent_ones() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let limits = ListenerLimits {
            handshakes_max: 2,
            handshake_time: Duration::from_millis(100),
            handshake_wait: PATIENCE,
            ..ListenerLimits::default()
        };
        let (serving, _) = serve(&executor, &deployment, &ALL_PLANES, limits);
        let mut silent = Vec::new();
        for _ in 0..6 {
            silent.push(smol::net::TcpStream::connect(serving.address).await.unwrap());
        }
        let tls = client(&deployment.credentials(Role::Webapp, 8), Plane::Peer);
        greet(&serving, &tls).await.unwrap();
        until("all are dropped", || serving.metrics.refused_for("timed_out") == 6).await;
    });
}

#[test]
fn connections_beyond_the_bound_are_closed_and_let_in_when_there_is_room() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let limits = ListenerLimits { connections_max: 1, ..ListenerLimits::default() };
        let (serving, _) = serve(&executor, &deployment, &ALL_PLANES, limits);
        let tls = client(&deployment.credentials(Role::Webapp, 8), Plane::Peer);
        let first = connect(serving.address, &tls, PATIENCE).await.unwrap();
        greet(&serving, &tls).await.unwrap_err();
        until("it is counted", || serving.metrics.refused_for("connections_max") == 1).await;
        drop(first);
        until("the first has gone", || serving.metrics.open(Plane::Peer) == 0).await;
        loop {
            // The place is free a moment after the count.
            if greet(&serving, &tls).await.is_ok() {
                break;
            }
        }
    });
}

#[test]
fn strangers_cannot_take_the_places_of_those_with_a_certificate() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let limits = ListenerLimits { anonymous_max: 1, ..ListenerLimits::default() };
        let (serving, _) = serve(&executor, &deployment, &ALL_PLANES, limits);
        let ours = deployment.credentials(Role::Webapp, 8);
        let stranger = client(&ours, Plane::Http);
        let mut first = connect(serving.address, &stranger, PATIENCE).await.unwrap();
        first.read_exact(&mut [0; 1]).await.unwrap();
        greet(&serving, &stranger).await.unwrap_err();
        until("it is counted", || serving.metrics.refused_for("anonymous_max") == 1).await;
        greet(&serving, &client(&ours, Plane::Peer)).await.unwrap();
    });
}

#[test]
fn a_network_that_knocks_too_often_is_closed_before_the_handshake() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let limits = ListenerLimits {
            source_burst: 2,
            source_rate_per_s: 0,
            loopback: LoopbackSources::Bounded,
            ..ListenerLimits::default()
        };
        let (serving, _) = serve(&executor, &deployment, &ALL_PLANES, limits);
        let tls = client(&deployment.credentials(Role::Webapp, 8), Plane::Peer);
        greet(&serving, &tls).await.unwrap();
        greet(&serving, &tls).await.unwrap();
        greet(&serving, &tls).await.unwrap_err();
        until("it is counted", || serving.metrics.refused_for("too_often") == 1).await;
    });
}

#[test]
fn a_handler_that_panics_ends_its_connection_alone() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let setup = Setup {
            executor: &executor,
            credentials: deployment.credentials(Role::Detection, 1),
            deployment: deployment.id,
            planes: &ALL_PLANES,
            limits: ListenerLimits::default(),
        };
        let greeter = greeter(&Seen::default());
        let serving = setup.serve(move |connection: Connection| {
            assert!(connection.plane != Plane::Http, "a fault of the handler");
            greeter(connection)
        });
        let ours = deployment.credentials(Role::Webapp, 8);
        greet(&serving, &client(&ours, Plane::Http)).await.unwrap_err();
        greet(&serving, &client(&ours, Plane::Peer)).await.unwrap();
        until("it is counted", || serving.metrics.refused_for("panic") == 1).await;
    });
}

#[test]
fn a_shutdown_lets_connections_end_and_then_cuts_them() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let limits =
            ListenerLimits { drain_time: Duration::from_millis(50), ..ListenerLimits::default() };
        let (serving, _) = serve(&executor, &deployment, &ALL_PLANES, limits);
        let tls = client(&deployment.credentials(Role::Webapp, 8), Plane::Peer);
        let mut stream = connect(serving.address, &tls, PATIENCE).await.unwrap();
        stream.read_exact(&mut [0; 1]).await.unwrap();
        serving.trigger.begin();
        serving.ended.await;
        // The greeter waits for us, we do not close: only the cut ends it.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        let error = connect(serving.address, &tls, PATIENCE).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Unreachable { .. }), "{error}");
    });
}

#[test]
fn a_port_in_use_is_named_with_a_remedy() {
    run(|_| async move {
        let first = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let error = Listener::bind(first.address()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot listen on {}: another process listens there; \
                 stop it (`ss -ltnp` names it) or change `server.listen`",
                first.address()
            )
        );
    });
}
