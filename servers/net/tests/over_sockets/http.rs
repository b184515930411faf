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
use lapwing_net::http::{self, Bounds, Client, HttpError, HttpLimits};
use lapwing_net::identity::Role;
use lapwing_net::limits::{HTTP_HEAD_BYTES_MAX, ListenerLimits};
use lapwing_net::listener::Connection;
use lapwing_net::metrics::{self, Health, Metrics};
use lapwing_net::runtime::Executor;
use lapwing_net::socket::Socket;
use lapwing_net::tls::{ClientTls, ExpectedPeer, Plane};
use smol_hyper::rt::{FuturesIo, SmolExecutor, SmolTimer};

use crate::support::{Deployment, Serving, Setup, run};
use crate::wait::until;

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
    serve_within(executor, deployment, &Bounds::default(), Router::new())
}

/// Serves the usual routes and `more`.
pub(crate) fn serve_within(
    executor: &Executor,
    deployment: &Deployment,
    bounds: &Bounds,
    more: Router,
) -> Serving {
    let setup = Setup {
        executor,
        credentials: deployment.credentials(Role::Webapp, 1),
        deployment: deployment.id,
        planes: &[Plane::Http],
        limits: ListenerLimits::default(),
    };
    let executor = Arc::clone(executor);
    let metrics = Metrics::default();
    let (router, bounds) = (routes(&metrics).merge(more), bounds.clone());
    setup.serve(move |connection: Connection| {
        let (executor, router) = (Arc::clone(&executor), router.clone());
        let bounds = bounds.clone();
        async move { http::serve(executor, connection, router, &bounds).await }
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

/// The route `/keep` takes a body and keeps it until a word comes through `release`.
fn keeping(release: &smol::channel::Receiver<()>) -> Router {
    let release = release.clone();
    let keep = move |body: Bytes| {
        let release = release.clone();
        async move {
            let _ = release.recv().await;
            body.len().to_string()
        }
    };
    Router::new().route("/keep", post(keep))
}

#[test]
fn bodies_of_all_connections_together_stay_within_one_bound() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        const BODY: usize = 200_000;
        let most = 3 * (HTTP_HEAD_BYTES_MAX + BODY) + HTTP_HEAD_BYTES_MAX;
        let bounds = Bounds::new(HttpLimits { held_bytes_max: most, ..HttpLimits::default() });
        let (release, released) = smol::channel::unbounded();
        let serving = serve_within(&executor, &deployment, &bounds, keeping(&released));
        let keep = |bytes: usize| {
            let (client, url) = (client(&deployment), format!("https://{}/keep", serving.address));
            executor.spawn(async move {
                client.post(&url, "application/octet-stream", vec![7; bytes]).await
            })
        };
        let kept: Vec<_> = (0..3).map(|_| keep(BODY)).collect();
        let full = 3 * (HTTP_HEAD_BYTES_MAX + BODY);
        until("three bodies are held", || bounds.held_bytes() == full).await;

        match keep(BODY).await {
            Ok(answer) => {
                assert_eq!(answer.status, 503);
                assert_eq!(answer.headers["retry-after"], "2");
            }
            // It may still be writing when the server has answered and closed.
            Err(error) => assert!(matches!(error, HttpError::Exchange(_)), "{error}"),
        }
        let url = format!("https://{}/healthz", serving.address);
        until("what was refused is given back", || bounds.held_bytes() == full).await;
        assert_eq!(client(&deployment).get(&url).await.unwrap().status, 200, "others still may");

        for _ in &kept {
            release.send(()).await.unwrap();
        }
        for kept in kept {
            assert_eq!(kept.await.unwrap().text(), BODY.to_string());
        }
        until("all is given back", || bounds.held_bytes() == 0).await;
        release.send(()).await.unwrap();
        assert_eq!(keep(BODY).await.unwrap().text(), BODY.to_string());
    });
}

#[test]
fn bodies_of_one_connection_have_a_bound_of_their_own() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let limits = HttpLimits {
            connection_bytes_max: HTTP_HEAD_BYTES_MAX + 1_000,
            ..HttpLimits::default()
        };
        let bounds = Bounds::new(limits);
        let serving = serve_within(&executor, &deployment, &bounds, Router::new());
        let url = format!("https://{}/echo", serving.address);
        let client = client(&deployment);
        let post = |bytes: usize| client.post(&url, "application/octet-stream", vec![7; bytes]);
        assert_eq!(post(1_000).await.unwrap().status, 200);
        assert_eq!(post(1_001).await.unwrap().status, 503);
        until("all is given back", || bounds.held_bytes() == 0).await;
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
