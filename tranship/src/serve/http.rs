//! `/metrics`, `/healthz` and `/readyz` over HTTP.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;

use super::metrics::Exporter;
use super::observe::{Observe, State};
use super::runtime::{Stop, stopped};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    observe: Observe,
    stop: watch::Receiver<Stop>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    axum::serve(listener, router(observe)).with_graceful_shutdown(stopped(stop)).await
}

fn router(observe: Observe) -> Router {
    let exporter = Arc::new(Exporter::new(observe.clone()));
    Router::new()
        .route("/", get(async || "tranship: /metrics /healthz /readyz\n"))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readyz).with_state(observe))
        .route("/metrics", get(metrics).with_state(exporter))
}

async fn readyz(Shared(observe): Shared<Observe>) -> impl IntoResponse {
    match observe.state() {
        State::Serving => (StatusCode::OK, "serving\n"),
        State::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting: come back soon\n"),
        State::Draining => {
            (StatusCode::SERVICE_UNAVAILABLE, "draining: takes no new blocks, reads go on\n")
        }
    }
}

async fn metrics(Shared(exporter): Shared<Arc<Exporter>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], exporter.scrape())
}
