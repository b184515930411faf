//! What becomes of who drips, stalls or never reads, where the bound is one in time.
//!
//! Each test waits until its bound is reached, a minute or two; they wait beside each other. That
//! a connection ends is what is asserted, never how soon.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use lapwing_net::http::Bounds;
use lapwing_net::identity::Role;
use lapwing_net::limits::{
    ENROL_TIME, HTTP_ANSWER_TIME, HTTP_BODY_TIME, HTTP_HEADERS_MAX, WRITE_STALL_TIME,
};
use lapwing_net::tls::{ClientTls, ExpectedPeer, Plane, connect};
use lapwing_protocol::code::Code;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::http::serve_within;
use crate::peer::{self, refusal};
use crate::support::{Deployment, PATIENCE, Serving, Stream, run, run_within};
use crate::wait::{pause, until, until_within};

/// The system of a peer that reads nothing may still take some, each time anew: it finds room by
/// packing what waits more tightly.
const STALLS_TIME: Duration = WRITE_STALL_TIME.saturating_mul(4);
/// A Ping, as it travels: 1 byte of kind 9.
const PING: [u8; 5] = [1, 0, 9, 0, 7];

async fn browser(deployment: &Deployment, serving: &Serving) -> Stream {
    let expected = ExpectedPeer::of_role(deployment.id, Role::Webapp);
    let ca = deployment.authority.certificate_pem();
    let tls = ClientTls::anonymous_from_pem(ca, Plane::Http, expected).unwrap();
    connect(serving.address, &tls, PATIENCE).await.unwrap()
}

/// Sends `piece` over and over, slowly, until the other side has closed; what it said.
async fn drip(stream: Stream, first: &[u8], piece: &[u8]) -> Vec<u8> {
    let (mut reading, mut writing) = smol::io::split(stream);
    let dripping = async {
        // Writing fails when it is closed; reading then says so too.
        let _ = writing.write_all(first).await;
        loop {
            let _ = writing.write_all(piece).await;
            let _ = writing.flush().await;
            pause().await;
        }
    };
    let mut said = Vec::new();
    let listening = async {
        let _ = reading.read_to_end(&mut said).await;
    };
    smol::future::or(listening, dripping).await;
    said
}

#[test]
fn a_head_that_drips_is_closed() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve_within(&executor, &deployment, &Bounds::default(), Router::new());
        let stream = browser(&deployment, &serving).await;
        drip(stream, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ", b"x").await;
    });
}

#[test]
fn a_body_that_drips_is_refused() {
    run_within(HTTP_BODY_TIME + 2 * PATIENCE, |executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve_within(&executor, &deployment, &Bounds::default(), Router::new());
        let stream = browser(&deployment, &serving).await;
        let head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
        let said = String::from_utf8(drip(stream, head, b"x").await).unwrap();
        assert!(said.starts_with("HTTP/1.1 4"), "{said}");
    });
}

#[test]
fn a_request_with_too_many_headers_is_refused() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve_within(&executor, &deployment, &Bounds::default(), Router::new());
        for (headers, status) in [(HTTP_HEADERS_MAX, "200"), (HTTP_HEADERS_MAX + 1, "431")] {
            let mut stream = browser(&deployment, &serving).await;
            let mut head =
                String::from("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
            for number in 2..headers {
                head.push_str(&format!("X-{number}: x\r\n"));
            }
            head.push_str("\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut said = Vec::new();
            let _ = stream.read_to_end(&mut said).await;
            let said = String::from_utf8(said).unwrap();
            assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{headers}: {said}");
        }
    });
}

#[test]
fn an_answer_that_does_not_come_is_given_up() {
    run_within(HTTP_ANSWER_TIME + PATIENCE, |executor| async move {
        let deployment = Deployment::new(1);
        let never = Router::new().route("/never", get(std::future::pending::<()>));
        let serving = serve_within(&executor, &deployment, &Bounds::default(), never);
        let mut stream = browser(&deployment, &serving).await;
        let head = b"GET /never HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        assert!(said.starts_with(b"HTTP/1.1 504"), "{}", String::from_utf8_lossy(&said));
    });
}

#[test]
fn a_browser_that_never_reads_is_dropped() {
    run_within(STALLS_TIME + PATIENCE, |executor| async move {
        let deployment = Deployment::new(1);
        let flood = || async {
            let pieces = smol::stream::repeat(Ok::<_, Infallible>(Bytes::from(vec![7; 16_384])));
            Body::from_stream(pieces)
        };
        let flood = Router::new().route("/flood", get(flood));
        let serving = serve_within(&executor, &deployment, &Bounds::default(), flood);
        let mut stream = browser(&deployment, &serving).await;
        stream.write_all(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        until("it is served", || serving.metrics.open(Plane::Http) == 1).await;
        until_within(STALLS_TIME, "it is dropped", || serving.metrics.open(Plane::Http) == 0).await;
        drop(stream);
    });
}

/// Asks for long replies, and reads none.
#[test]
fn a_peer_that_never_reads_is_dropped() {
    run_within(STALLS_TIME + PATIENCE, |executor| async move {
        let deployment = Deployment::new(1);
        let serving = peer::serve(&executor, &deployment);
        let tls = peer::tls(&deployment, Plane::Peer);
        let mut stream = connect(serving.address, &tls, PATIENCE).await.unwrap();
        for number in 0..4 {
            stream.write_all(&peer::asks_for_bytes(number, 8_000_000)).await.unwrap();
        }
        stream.flush().await.unwrap();
        until("it is served", || serving.metrics.open(Plane::Peer) == 1).await;
        until_within(STALLS_TIME, "it is dropped", || serving.metrics.open(Plane::Peer) == 0).await;
        drop(stream);
    });
}

/// One without an identity who is never silent.
#[test]
fn who_enrols_for_too_long_is_told_so() {
    run_within(ENROL_TIME + PATIENCE, |executor| async move {
        let deployment = Deployment::new(1);
        let serving = peer::serve(&executor, &deployment);
        let tls = peer::tls(&deployment, Plane::Enrol);
        let stream = connect(serving.address, &tls, PATIENCE).await.unwrap();
        let mut said = drip(stream, &[], &PING).await;
        // A Pong for each Ping; the last frame is the refusal.
        let pongs = said.chunks_exact(PING.len()).take_while(|frame| frame[2] == 10).count();
        assert!(pongs > 0, "{said:?}");
        assert_eq!(refusal(&mut said[pongs * PING.len()..]), Some(Code::IDLE));
    });
}
