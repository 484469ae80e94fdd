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
use super::observe::{Observe, State, TierState};
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
        // The cache goes on without the tiers below memory.
        State::Serving => (StatusCode::OK, format!("serving\n{}", shortfalls(&observe))),
        State::Starting => {
            (StatusCode::SERVICE_UNAVAILABLE, "starting: come back soon\n".to_owned())
        }
        State::Draining => {
            let told = "draining: takes no new blocks, reads go on\n";
            (StatusCode::SERVICE_UNAVAILABLE, format!("{told}{}", shortfalls(&observe)))
        }
    }
}

/// A line for each tier below memory that is not ready.
fn shortfalls(observe: &Observe) -> String {
    let tiers = observe.tiers().into_iter();
    let lacking = tiers.filter(|below| below.state != TierState::Ready);
    lacking
        .map(|below| format!("{} {}: {}\n", below.tier, below.state.name(), below.reason))
        .collect()
}

async fn metrics(Shared(exporter): Shared<Arc<Exporter>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], exporter.scrape())
}
