//! Serves an axum router on one connection, HTTP/1.1 or h2 by what the TLS handshake agreed on.
//!
//! Not here: accepting (listener.rs). Invariants: no request waits for ever; a request that breaks
//! a bound is answered where that is possible and closed where it is not.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use smol::Timer;
use smol_hyper::rt::{FuturesIo, SmolExecutor, SmolTimer};
use tower_service::Service as _;

use super::body::BoundedBody;
use super::bounds::{Bounds, Share};
use crate::limits::{
    HTTP_ANSWER_TIME, HTTP_BODY_BYTES_MAX, HTTP_DRAIN_TIME, HTTP_HEAD_BYTES_MAX, HTTP_HEAD_TIME,
    HTTP_HEADERS_MAX, HTTP_RETRY_AFTER_S, HTTP_STREAMS_MAX, HTTP_WINDOW_BYTES,
};
use crate::listener::{Connection, Fault};
use crate::runtime::Executor;
use crate::shutdown::Shutdown;

/// Where a request comes from; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub SocketAddr);

/// Serves `router` on a connection until the client is done or the server shuts down. What its
/// requests hold is charged to `bounds`.
///
/// # Errors
/// The client broke HTTP or a bound.
pub async fn serve(
    executor: Executor,
    connection: Connection,
    router: Router,
    bounds: &Bounds,
) -> Result<(), Fault> {
    let Connection { stream, source, shutdown, .. } = connection;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = FuturesIo::new(stream);
    let share = bounds.connection();
    let service = service_fn(move |request| answer(router.clone(), source, share.clone(), request));
    let ended = if is_h2 {
        let connection = http2::Builder::new(SmolExecutor::new(executor))
            .timer(SmolTimer::new())
            .max_header_list_size(u32::try_from(HTTP_HEAD_BYTES_MAX).unwrap_or(u32::MAX))
            .max_concurrent_streams(HTTP_STREAMS_MAX)
            .initial_stream_window_size(HTTP_WINDOW_BYTES)
            .initial_connection_window_size(HTTP_WINDOW_BYTES)
            .max_send_buf_size(HTTP_WINDOW_BYTES as usize)
            .keep_alive_interval(HTTP_HEAD_TIME)
            .keep_alive_timeout(HTTP_HEAD_TIME)
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        match begun_or_ended(&shutdown, connection.as_mut()).await {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                smol::future::or(connection, drain_time()).await
            }
        }
    } else {
        let connection = http1::Builder::new()
            .timer(SmolTimer::new())
            .header_read_timeout(HTTP_HEAD_TIME)
            .max_buf_size(HTTP_HEAD_BYTES_MAX)
            .max_headers(HTTP_HEADERS_MAX)
            .half_close(false)
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        match begun_or_ended(&shutdown, connection.as_mut()).await {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                smol::future::or(connection, drain_time()).await
            }
        }
    };
    match ended {
        Err(error) if is_fault(&error) => Err(Box::new(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn begun_or_ended<F: Future>(shutdown: &Shutdown, connection: F) -> Option<F::Output> {
    smol::future::or(async { Some(connection.await) }, async {
        shutdown.begun().await;
        None
    })
    .await
}

async fn drain_time() -> hyper::Result<()> {
    Timer::after(HTTP_DRAIN_TIME).await;
    Ok(())
}

/// Clients leave in the middle of things all the time; only broken HTTP is worth a line in the log.
fn is_fault(error: &hyper::Error) -> bool {
    error.is_parse() || error.is_parse_too_large()
}

async fn answer(
    mut router: Router,
    source: SocketAddr,
    share: Share,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > HTTP_BODY_BYTES_MAX as u64) {
        let text = format!("a request may have {HTTP_BODY_BYTES_MAX} bytes\n");
        return Ok((StatusCode::PAYLOAD_TOO_LARGE, text).into_response());
    }
    let Some(held) = share.begin() else { return Ok(busy()) };
    let charged = Arc::clone(&held);
    let mut request = request.map(|body| Body::new(BoundedBody::new(body, charged)));
    request.extensions_mut().insert(ClientAddress(source));
    let late = async {
        Timer::after(HTTP_ANSWER_TIME).await;
        Ok((StatusCode::GATEWAY_TIMEOUT, "the answer took too long\n").into_response())
    };
    let answered = smol::future::or(router.call(request), late).await;
    // Whatever a route makes of a body that broke off: the reason is ours.
    if held.is_refused() { Ok(busy()) } else { answered }
}

fn busy() -> Response {
    let wait = [(header::RETRY_AFTER, HTTP_RETRY_AFTER_S.to_string())];
    let text = "the server has all the requests it takes; try again\n";
    (StatusCode::SERVICE_UNAVAILABLE, wait, text).into_response()
}
