//! Counts for the operator: a Prometheus registry, and the routes `/metrics` and `/healthz`.
//!
//! Not here: a role's own metrics (it registers them). Invariants: labels take values from fixed
//! sets, never from what a peer sent; `/metrics` needs the token; `/healthz` tells a stranger no
//! more than "up" or "down".

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::config::TokenDigest;
use crate::http::bearer;
use crate::tls::Plane;

/// The registry of one server. Every name in it begins with `lapwing_`.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Default for Metrics {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Registry::with_prefix("lapwing"))))
    }
}

impl Metrics {
    /// Registers a role's metrics. Give names without the prefix and, for counters, without
    /// `_total`.
    pub fn register(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Everything in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.0.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }
}

/// How a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does its work.
    Up,
    /// It cannot, and why; shown to who has the token.
    Down(String),
}

/// The routes `/metrics` and `/healthz`, for every server.
pub fn router(
    metrics: Metrics,
    token: Option<TokenDigest>,
    health: impl Fn() -> Health + Clone + Send + Sync + 'static,
) -> Router {
    let metrics_route = move |headers: HeaderMap| async move {
        if bearer::is_authorized(&headers, token.as_ref()) {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content_type)], metrics.text()).into_response()
        } else {
            bearer::unauthorized()
        }
    };
    let health_route = move |headers: HeaderMap| async move {
        answer_health(health(), bearer::is_authorized(&headers, token.as_ref()))
    };
    Router::new().route("/metrics", get(metrics_route)).route("/healthz", get(health_route))
}

fn answer_health(health: Health, authorized: bool) -> Response {
    match health {
        Health::Up => (StatusCode::OK, "up\n").into_response(),
        Health::Down(reason) if authorized => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("down: {reason}\n")).into_response()
        }
        Health::Down(_) => (StatusCode::SERVICE_UNAVAILABLE, "down\n").into_response(),
    }
}

/// What a listener counts.
#[derive(Debug, Clone, Default)]
pub struct ListenerMetrics {
    open: Family<PlaneLabel, Gauge>,
    accepted: Family<PlaneLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlaneLabel {
    plane: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl ListenerMetrics {
    /// New counts, registered.
    #[must_use]
    pub fn registered(metrics: &Metrics) -> Self {
        let counts = Self::default();
        metrics.register(|registry| {
            registry.register("connections", "Open connections", counts.open.clone());
            registry.register(
                "connections_accepted",
                "Connections whose handshake succeeded",
                counts.accepted.clone(),
            );
            registry.register(
                "connections_refused",
                "Connections closed for cause, before or after their handshake",
                counts.refused.clone(),
            );
        });
        counts
    }

    /// Open connections of a plane.
    #[must_use]
    pub fn open(&self, plane: Plane) -> i64 {
        self.open.get_or_create(&PlaneLabel { plane: plane.name() }).get()
    }

    /// Connections closed for a reason.
    #[must_use]
    pub fn refused_for(&self, reason: &'static str) -> u64 {
        self.refused.get_or_create(&ReasonLabel { reason }).get()
    }

    pub(crate) fn opened(&self, plane: Plane) {
        self.accepted.get_or_create(&PlaneLabel { plane: plane.name() }).inc();
        self.open.get_or_create(&PlaneLabel { plane: plane.name() }).inc();
    }

    pub(crate) fn closed(&self, plane: Plane) {
        self.open.get_or_create(&PlaneLabel { plane: plane.name() }).dec();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }
}
