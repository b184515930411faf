//! HTTP over our TLS: the routes every server has, bounds, event streams, and a shutdown.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::response::sse::{Event, Sse};
use axum::routing::{get, post};
use futures_rustls::TlsConnector;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use lapwing_net::config::TokenDigest;
use lapwing_net::http::{self, Client, HttpError};
use lapwing_net::identity::Role;
use lapwing_net::limits::ListenerLimits;
use lapwing_net::listener::Connection;
use lapwing_net::metrics::{self, Health, Metrics};
use lapwing_net::runtime::Executor;
use lapwing_net::socket::Socket;
use lapwing_net::tls::{ClientTls, ExpectedPeer, Plane};
use smol_hyper::rt::{FuturesIo, SmolExecutor, SmolTimer};

use crate::support::{Deployment, Serving, Setup, run};

fn routes(metrics: &Metrics) -> Router {
    let ticks = || async {
        let events = ["0", "1", "2"].map(|tick| Ok::<_, Infallible>(Event::default().data(tick)));
        Sse::new(smol::stream::iter(events))
    };
    let endless = || async { Sse::new(smol::stream::pending::<Result<Event, Infallible>>()) };
    metrics::router(metrics.clone(), Some(TokenDigest::of("right")), || Health::Up)
        .route("/echo", post(|body: Bytes| async move { body }))
        .route("/ticks", get(ticks))
        .route("/endless", get(endless))
}

fn serve(executor: &Executor, deployment: &Deployment) -> Serving {
    let setup = Setup {
        executor,
        credentials: deployment.credentials(Role::Webapp, 1),
        deployment: deployment.id,
        planes: &[Plane::Http],
        limits: ListenerLimits::default(),
    };
    let executor = Arc::clone(executor);
    let metrics = Metrics::default();
    let router = routes(&metrics);
    setup.serve(move |connection: Connection| {
        http::serve(Arc::clone(&executor), connection, router.clone())
    })
}

fn client(deployment: &Deployment) -> Client {
    let expected = ExpectedPeer::of_role(deployment.id, Role::Webapp);
    let ca = deployment.authority.certificate_pem();
    Client::new(ClientTls::anonymous_from_pem(ca, Plane::Http, expected).unwrap())
}

#[test]
fn metrics_need_the_token_and_health_does_not() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve(&executor, &deployment);
        let client = client(&deployment);
        let url = |path: &str| format!("https://{}{path}", serving.address);
        assert_eq!(client.get(&url("/healthz")).await.unwrap().text(), "up\n");
        let refused = client.get(&url("/metrics")).await.unwrap();
        assert_eq!(refused.status, 401);
        let wrong = client.clone().with_token("wrong").get(&url("/metrics")).await.unwrap();
        assert_eq!(wrong.status, 401);
        let answer = client.clone().with_token("right").get(&url("/metrics")).await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.text().ends_with("# EOF\n"), "{}", answer.text());
        assert_eq!(client.get(&url("/nowhere")).await.unwrap().status, 404);
    });
}

#[test]
fn a_listener_counts_what_it_does() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve(&executor, &deployment);
        client(&deployment).get(&format!("https://{}/healthz", serving.address)).await.unwrap();
        let text = serving.registry.text();
        assert!(text.contains("lapwing_connections_accepted_total{plane=\"http\"} 1\n"), "{text}");
    });
}

#[test]
fn bodies_are_taken_up_to_their_bound() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve(&executor, &deployment);
        let client = client(&deployment);
        let url = format!("https://{}/echo", serving.address);
        let body = vec![7; 1 << 20];
        let answer = client.post(&url, "application/octet-stream", body.clone()).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body == body), (200, true));
        let refused = client.post(&url, "application/octet-stream", vec![7; (1 << 20) + 1]).await;
        // The server answers and closes without reading; the client may still be writing then.
        match refused {
            Ok(answer) => assert_eq!(answer.status, 413),
            Err(error) => assert!(matches!(error, HttpError::Exchange(_)), "{error}"),
        }
    });
}

#[test]
fn an_event_stream_arrives_piece_by_piece() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve(&executor, &deployment);
        let url = format!("https://{}/ticks", serving.address);
        let mut answering =
            client(&deployment).open(axum::http::Method::GET, &url, &[], Vec::new()).await.unwrap();
        assert_eq!(answering.headers["content-type"], "text/event-stream");
        let mut text = String::new();
        while let Some(piece) = answering.next().await.unwrap() {
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
        assert_eq!(text, "data: 0\n\ndata: 1\n\ndata: 2\n\n");
    });
}

#[test]
fn browsers_may_speak_h2() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve(&executor, &deployment);
        let expected = ExpectedPeer::of_role(deployment.id, Role::Webapp);
        let ca = deployment.authority.certificate_pem();
        let tls = ClientTls::anonymous_from_pem(ca, Plane::Http, expected).unwrap();
        let mut config = (*tls.config()).clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let socket = Socket::connect(serving.address).await.unwrap();
        let name = serving.address.ip().into();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let tasks = SmolExecutor::new(Arc::clone(&executor));
        let (mut sender, connection) = http2::Builder::new(tasks)
            .timer(SmolTimer::new())
            .handshake::<_, Empty<Bytes>>(FuturesIo::new(stream))
            .await
            .unwrap();
        let driver = executor.spawn(connection);
        for _ in 0..3 {
            let uri = format!("https://{}/healthz", serving.address);
            let request = hyper::Request::get(uri).body(Empty::new()).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!((answer.version(), answer.status().as_u16()), (hyper::Version::HTTP_2, 200));
            assert_eq!(answer.collect().await.unwrap().to_bytes(), "up\n");
        }
        drop(sender);
        driver.await.unwrap();
    });
}

#[test]
fn an_endless_stream_does_not_hold_up_a_shutdown() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let serving = serve(&executor, &deployment);
        let url = format!("https://{}/endless", serving.address);
        let mut answering =
            client(&deployment).open(axum::http::Method::GET, &url, &[], Vec::new()).await.unwrap();
        serving.trigger.begin();
        serving.ended.await;
        assert!(!matches!(answering.next().await, Ok(Some(_))));
    });
}

#[test]
fn addresses_that_are_none_are_refused() {
    run(|_| async move {
        let client = client(&Deployment::new(1));
        for url in ["http://127.0.0.1/", "127.0.0.1", "https://", "ftp://x/"] {
            let error = client.get(url).await.unwrap_err();
            assert!(matches!(error, HttpError::BadUrl(_)), "{url}: {error}");
        }
    });
}
