//! `/events`: tells a browser what changed, by server-sent events; what it is, the browser asks
//! for.
//!
//! Invariants: browsers cost the peers nothing (live/ asks once for all); events of one name come
//! at most each `EVENTS_GAP`; the stream ends with the server.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use lapwing_protocol::code::Code;
use smol::{Timer, stream};

use super::{ApiActor, ApiError, App};
use crate::limits::{EVENTS_GAP, EVENTS_KEEP_ALIVE};
use crate::live::{Listener, Seen};

/// What wakes the stream.
enum Wake {
    Changed,
    Quiet,
    End,
}

/// Where one browser's stream stands.
struct Feed {
    app: App,
    listener: Listener,
    seen: Seen,
}

/// `GET /events`.
pub(super) async fn events(_: ApiActor, State(app): State<App>) -> Result<Response, ApiError> {
    let listener = app
        .live
        .listen()
        .ok_or_else(|| ApiError::new(Code::BUSY, "too many pages listen already; close some"))?;
    let seen = app.live.now();
    let feed = Feed { app, listener, seen };
    let opening = String::from("retry: 2000\n: listening\n\n");
    let first = stream::once(Ok::<_, Infallible>(opening));
    let rest = stream::unfold(feed, |mut feed| async move {
        let text = next(&mut feed).await?;
        Some((Ok::<_, Infallible>(text), feed))
    });
    let body = Body::from_stream(stream::StreamExt::chain(first, rest));
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], body).into_response())
}

async fn next(feed: &mut Feed) -> Option<String> {
    loop {
        let now = feed.app.live.now();
        let text = feed.seen.events_until(&now);
        feed.seen = now;
        if !text.is_empty() {
            // The pause comes before the news, so that what changes meanwhile is in it.
            return Some(text);
        }
        let changed = async {
            feed.listener.changed().await;
            Wake::Changed
        };
        let quiet = async {
            Timer::after(EVENTS_KEEP_ALIVE).await;
            Wake::Quiet
        };
        let end = async {
            feed.app.shutdown.begun().await;
            Wake::End
        };
        match smol::future::or(end, smol::future::or(changed, quiet)).await {
            Wake::Changed => {
                Timer::after(EVENTS_GAP).await;
            }
            Wake::Quiet => return Some(String::from(": still here\n\n")),
            Wake::End => return None,
        }
    }
}
