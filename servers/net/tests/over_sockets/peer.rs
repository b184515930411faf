//! Calls over real sockets: round trips, parts, bounds, misbehaviour, and a server that restarts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lapwing_net::identity::Role;
use lapwing_net::limits::ListenerLimits;
use lapwing_net::listener::{Connection, Listener};
use lapwing_net::peer::{self, CallError, Caller, Failure, PeerClient};
use lapwing_net::runtime::Executor;
use lapwing_net::tls::{ClientTls, ExpectedPeer, Plane, connect};
use lapwing_protocol::call::{Call, Method};
use lapwing_protocol::code::Code;
use lapwing_protocol::frame::Deframer;
use lapwing_protocol::limits::{CALLS_MAX, REPLY_BYTES_MAX};
use lapwing_protocol::message::Message;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Deployment, PATIENCE, Serving, Setup, run};
use crate::wait::until;

const ECHO: Method = Method(1);
/// Replies with as many bytes as its body (a u32) says.
pub(crate) const GROW: Method = Method(2);
const FAIL: Method = Method(3);
const WHO: Method = Method(4);
/// Never replies.
const HANG: Method = Method(5);
const PANIC: Method = Method(6);

async fn answer(caller: Caller, method: Method, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
    match method {
        ECHO => Ok(body),
        GROW => {
            let length: u32 = peer::from_body(&body)?;
            Ok((0..length).map(|at| (at % 251) as u8).collect())
        }
        FAIL => Err(Failure::new(Code::NOT_FOUND, "no such\nthing")),
        WHO => Ok(caller.identity.map_or("nobody".into(), |identity| identity.to_string()).into()),
        HANG => std::future::pending().await,
        PANIC => panic!("a fault of the service"),
        other => Err(Failure::new(Code::UNSUPPORTED, format!("method {}", other.0))),
    }
}

fn serve_at(executor: &Executor, deployment: &Deployment, address: SocketAddr) -> Serving {
    let setup = Setup {
        executor,
        credentials: deployment.credentials(Role::Detection, 1),
        deployment: deployment.id,
        planes: &[Plane::Peer, Plane::Enrol],
        limits: ListenerLimits::default(),
    };
    let executor = Arc::clone(executor);
    let service = Arc::new(answer);
    setup.serve_at(address, move |connection: Connection| {
        peer::serve(Arc::clone(&executor), connection, Arc::clone(&service))
    })
}

pub(crate) fn serve(executor: &Executor, deployment: &Deployment) -> Serving {
    serve_at(executor, deployment, ([127, 0, 0, 1], 0).into())
}

pub(crate) fn tls(deployment: &Deployment, plane: Plane) -> ClientTls {
    let expected = ExpectedPeer::of_role(deployment.id, Role::Detection);
    ClientTls::new(&deployment.credentials(Role::Webapp, 8), plane, expected).unwrap()
}

fn client(executor: &Executor, deployment: &Deployment, address: SocketAddr) -> PeerClient {
    PeerClient::new(executor, "d1", vec![address], tls(deployment, Plane::Peer))
}

#[test]
fn calls_are_answered_each_by_its_own_reply() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve(&executor, &deployment);
        let client = client(&executor, &deployment, serving.address);
        assert_eq!(client.call(ECHO, b"hello", PATIENCE).await.unwrap(), b"hello");
        assert_eq!(client.call(ECHO, b"", PATIENCE).await.unwrap(), b"");
        let who = client.call(WHO, b"", PATIENCE).await.unwrap();
        assert_eq!(
            String::from_utf8(who).unwrap(),
            deployment.identity(Role::Webapp, 8).to_string()
        );
        let calls: Vec<_> = (0..200_u32)
            .map(|number| {
                let client = client.clone();
                executor
                    .spawn(async move { client.call(ECHO, &number.to_le_bytes(), PATIENCE).await })
            })
            .collect();
        for (number, call) in (0..200_u32).zip(calls) {
            assert_eq!(call.await.unwrap(), number.to_le_bytes());
        }
    });
}

#[test]
fn a_reply_longer_than_a_frame_comes_whole_up_to_its_bound() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve(&executor, &deployment);
        let client = client(&executor, &deployment, serving.address);
        for length in [65_516_u32, 65_517, 200_000, REPLY_BYTES_MAX as u32] {
            let body = peer::to_body(&length).unwrap();
            let reply = client.call(GROW, &body, PATIENCE).await.unwrap();
            assert_eq!(reply.len(), length as usize);
            assert!(reply.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
        }
        let body = peer::to_body(&(REPLY_BYTES_MAX as u32 + 1)).unwrap();
        let error = client.call(GROW, &body, PATIENCE).await.unwrap_err();
        assert_eq!(error.code(), Code::TOO_LARGE, "{error}");
        let error = client.call(ECHO, &vec![0; 70_000], PATIENCE).await.unwrap_err();
        assert_eq!(error, CallError::TooLarge);
    });
}

#[test]
fn failures_come_back_typed_and_harmless() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve(&executor, &deployment);
        let client = client(&executor, &deployment, serving.address);
        let error = client.call(FAIL, b"", PATIENCE).await.unwrap_err();
        assert_eq!(error, CallError::Remote(Failure::new(Code::NOT_FOUND, "no such\\nthing")));
        let error = client.call(GROW, b"\xff", PATIENCE).await.unwrap_err();
        assert_eq!(error.code(), Code::MALFORMED);
        let error = client.call(PANIC, b"", PATIENCE).await.unwrap_err();
        assert_eq!(error.code(), Code::INTERNAL);
        let error = client.call(HANG, b"", Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error, CallError::TimedOut { peer: "d1".into() });
        assert!(error.is_outcome_unknown());
        assert_eq!(client.call(ECHO, b"still here", PATIENCE).await.unwrap(), b"still here");
    });
}

#[test]
fn calls_that_stay_unanswered_do_not_block_others_for_ever() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve(&executor, &deployment);
        let client = client(&executor, &deployment, serving.address);
        let hanging: Vec<_> = (0..CALLS_MAX)
            .map(|_| {
                let client = client.clone();
                executor
                    .spawn(async move { client.call(HANG, b"", Duration::from_millis(50)).await })
            })
            .collect();
        for call in hanging {
            call.await.unwrap_err();
        }
        let error = client.call(ECHO, b"x", PATIENCE).await.unwrap_err();
        assert_eq!(error.code(), Code::BUSY, "{error}");
        assert_eq!(answered(&client).await, b"x");
    });
}

/// Calls until the client is connected again.
async fn answered(client: &PeerClient) -> Vec<u8> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match client.call(ECHO, b"x", PATIENCE).await {
            Ok(reply) => return reply,
            Err(error) => assert!(std::time::Instant::now() < deadline, "never answered: {error}"),
        }
    }
}

#[test]
fn a_client_finds_its_server_again_after_a_restart() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        // An address of its own: nobody else's connection takes the port meanwhile.
        let serving = serve_at(&executor, &deployment, ([127, 77, 0, 1], 0).into());
        let address = serving.address;
        let client = client(&executor, &deployment, address);
        assert_eq!(answered(&client).await, b"x");
        let hanging = {
            let client = client.clone();
            executor.spawn(async move { client.call(HANG, b"", PATIENCE).await })
        };
        until("the call is under way", || serving.metrics.open(Plane::Peer) == 1).await;
        client.call(ECHO, b"", PATIENCE).await.unwrap();
        serving.trigger.begin();
        serving.ended.await;
        let error = hanging.await.unwrap_err();
        assert!(matches!(error, CallError::Lost { .. }), "{error}");
        until("the client knows", || !client.is_connected()).await;
        let error = client.call(ECHO, b"x", PATIENCE).await.unwrap_err();
        assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
        let _again = serve_at(&executor, &deployment, address);
        assert_eq!(answered(&client).await, b"x");
    });
}

#[test]
fn a_client_goes_on_to_the_next_address_and_says_when_there_is_none() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve(&executor, &deployment);
        let dead = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap().address();
        let tls = tls(&deployment, Plane::Peer);
        let both = vec![dead, serving.address];
        let client = PeerClient::new(&executor, "d1", both, tls.clone());
        assert_eq!(answered(&client).await, b"x");
        let lost = PeerClient::new(&executor, "d2", vec![dead], tls);
        let error = lost.call(ECHO, b"", PATIENCE).await.unwrap_err();
        assert_eq!(error.code(), Code::UNREACHABLE);
        assert!(error.to_string().starts_with("d2 cannot be reached: "), "{error}");
        lost.set_addresses(vec![serving.address]);
        assert_eq!(answered(&lost).await, b"x");
    });
}

#[test]
fn a_server_that_refuses_our_certificate_says_so() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve(&executor, &deployment);
        let expected = ExpectedPeer::of_role(deployment.id, Role::Detection);
        let sensor = deployment.credentials(Role::Sensor, 8);
        let tls = ClientTls::new(&sensor, Plane::Peer, expected).unwrap();
        let client = PeerClient::new(&executor, "d1", vec![serving.address], tls);
        let error = client.call(ECHO, b"", PATIENCE).await.unwrap_err();
        assert!(matches!(error, CallError::Refused { .. } | CallError::Lost { .. }), "{error}");
    });
}

#[test]
fn the_enrol_plane_is_served_by_the_same_code_without_identity_and_with_small_frames() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve(&executor, &deployment);
        let tls = tls(&deployment, Plane::Enrol);
        let client = PeerClient::new(&executor, "r", vec![serving.address], tls);
        assert_eq!(client.call(WHO, b"", PATIENCE).await.unwrap(), b"nobody");
        let error = client.call(ECHO, &[0; 4096], PATIENCE).await.unwrap_err();
        assert!(matches!(error, CallError::Lost { .. }), "{error}");
        until("it is counted", || serving.metrics.refused_for("fault") == 1).await;
    });
}

#[test]
fn malformed_frames_close_their_own_connection() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve(&executor, &deployment);
        let good = client(&executor, &deployment, serving.address);
        assert_eq!(good.call(ECHO, b"before", PATIENCE).await.unwrap(), b"before");
        let hostile: [(&[u8], Code); 5] = [
            (&[0xff, 0xff, 14, 0], Code::TOO_LARGE),
            (&[1, 0, 14, 0, 0xff], Code::MALFORMED),
            (&[5, 0, 14, 0, 1, 1, 0, 9, 9], Code::MALFORMED), // bytes after the Call
            (&[4, 0, 15, 0, 0, 0, 0, 0], Code::OUT_OF_PLACE), // a Reply to nothing
            (&[0, 0, 0xff, 0x0f], Code::UNKNOWN_KIND),        // and it may not be skipped
        ];
        for (index, (bytes, code)) in hostile.into_iter().enumerate() {
            let tls = tls(&deployment, Plane::Peer);
            let mut stream = connect(serving.address, &tls, PATIENCE).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream.flush().await.unwrap();
            let mut told = Vec::new();
            stream.read_to_end(&mut told).await.unwrap();
            assert_eq!(refusal(&mut told), Some(code), "{bytes:?}");
            drop(stream);
            let counted = || serving.metrics.refused_for("fault") == index as u64 + 1;
            until("it is counted", counted).await;
        }
        assert_eq!(good.call(ECHO, b"after", PATIENCE).await.unwrap(), b"after");
        assert!(good.is_connected());
    });
}

/// A call that is answered with `length` bytes, as it travels.
pub(crate) fn asks_for_bytes(call: u32, length: u32) -> Vec<u8> {
    let body = peer::to_body(&length).unwrap();
    let mut frame = vec![0; 32];
    let written = Message::Call(Call { call, method: GROW, body: &body }).encode(&mut frame);
    frame.truncate(written.unwrap());
    frame
}

/// The code of a Refused that is the whole of what came.
pub(crate) fn refusal(stream: &mut [u8]) -> Option<Code> {
    let length = stream.len();
    let mut deframer = Deframer::new(stream);
    deframer.filled(length);
    let frame = deframer.next_frame().unwrap()?;
    match Message::decode(&frame).unwrap()? {
        Message::Refused(refused) => Some(refused.code),
        _ => None,
    }
}
