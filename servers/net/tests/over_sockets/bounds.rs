//! What becomes of who misbehaves, comes too often or comes too late; and that nobody else feels
//! it.

use std::time::Duration;

use lapwing_net::identity::Role;
use lapwing_net::limits::{ListenerLimits, LoopbackSources, PEER_BYTES, SENSOR_BYTES};
use lapwing_net::listener::{Connection, Listener};
use lapwing_net::tls::{HandshakeError, Plane, connect};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::greeting::{ALL_PLANES, Seen, client, greet, greeter, serve};
use crate::support::{Deployment, PATIENCE, Setup, run};
use crate::wait::until;

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
fn an_honest_peer_crowds_out_silent_ones() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let limits = ListenerLimits {
            hellos_max: 2,
            handshake_time: 10 * PATIENCE,
            ..ListenerLimits::default()
        };
        let (serving, _) = serve(&executor, &deployment, &ALL_PLANES, limits);
        let mut silent = Vec::new();
        for _ in 0..6 {
            let mut socket = smol::net::TcpStream::connect(serving.address).await.unwrap();
            // Half a ClientHello is as good as none.
            socket.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
            silent.push(socket);
        }
        let tls = client(&deployment.credentials(Role::Webapp, 8), Plane::Peer);
        greet(&serving, &tls).await.unwrap();
        until("the oldest went", || serving.metrics.refused_for("crowded_out") == 5).await;
        assert_eq!(serving.metrics.refused_for("timed_out"), 0);
    });
}

#[test]
fn handshakes_beyond_the_bound_wait_for_their_turn() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let limits = ListenerLimits {
            handshakes_max: 1,
            handshake_time: Duration::from_millis(500),
            ..ListenerLimits::default()
        };
        let (serving, _) = serve(&executor, &deployment, &ALL_PLANES, limits);
        let tls = client(&deployment.credentials(Role::Webapp, 8), Plane::Peer);
        // A whole ClientHello, of one who never answers the server's.
        let name = serving.address.ip().into();
        let mut hello = Vec::new();
        let mut stalled = rustls::ClientConnection::new(tls.config(), name).unwrap();
        stalled.write_tls(&mut hello).unwrap();
        let mut socket = smol::net::TcpStream::connect(serving.address).await.unwrap();
        socket.write_all(&hello).await.unwrap();
        socket.read_exact(&mut [0; 1]).await.unwrap();
        loop {
            // Its turn may come too late for the first time.
            if greet(&serving, &tls).await.is_ok() {
                break;
            }
        }
        assert!(serving.metrics.refused_for("timed_out") >= 1);
    });
}

#[test]
fn connections_share_one_memory_by_what_their_planes_hold() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        // Room for one connection of HTTP or of peers, and none beside it.
        let connections_max = PEER_BYTES / SENSOR_BYTES;
        let limits = ListenerLimits { connections_max, ..ListenerLimits::default() };
        let (serving, _) = serve(&executor, &deployment, &ALL_PLANES, limits);
        let ours = deployment.credentials(Role::Webapp, 8);
        let tls = client(&ours, Plane::Peer);
        let mut first = connect(serving.address, &tls, PATIENCE).await.unwrap();
        first.read_exact(&mut [0; 1]).await.unwrap();
        greet(&serving, &client(&ours, Plane::Http)).await.unwrap_err();
        until("it is counted", || serving.metrics.refused_for("memory") == 1).await;
        drop(first);
        until("the first has gone", || serving.metrics.open(Plane::Peer) == 0).await;
        loop {
            // Its memory is free a moment after the count.
            if greet(&serving, &tls).await.is_ok() {
                break;
            }
        }
    });
}

#[test]
fn connections_beyond_the_bound_are_closed_and_let_in_when_there_is_room() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let limits = ListenerLimits { connections_max: 1, ..ListenerLimits::default() };
        let (serving, _) = serve(&executor, &deployment, &ALL_PLANES, limits);
        let tls = client(&deployment.credentials(Role::Sensor, 8), Plane::Sensor);
        let first = connect(serving.address, &tls, PATIENCE).await.unwrap();
        greet(&serving, &tls).await.unwrap_err();
        until("it is counted", || serving.metrics.refused_for("connections_max") == 1).await;
        drop(first);
        until("the first has gone", || serving.metrics.open(Plane::Sensor) == 0).await;
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
