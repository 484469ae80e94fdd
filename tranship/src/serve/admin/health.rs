//! `grpc.health.v1`: serving once started, and not while draining.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::serve::observe::{Observe, State};
use crate::serve::runtime::{Stop, stopped};

/// How often a watched state is looked at.
const WATCH: Duration = Duration::from_millis(50);

pub(super) struct Service {
    observe: Observe,
    stop: watch::Receiver<Stop>,
}

impl Service {
    pub(super) fn new(observe: Observe, stop: watch::Receiver<Stop>) -> Self {
        Self { observe, stop }
    }
}

/// The state of a service; all of them share the daemon's.
fn status(observe: &Observe, service: &str) -> ServingStatus {
    match observe.state() {
        _ if !matches!(service, "" | super::NAME) => ServingStatus::ServiceUnknown,
        State::Serving => ServingStatus::Serving,
        State::Starting | State::Draining => ServingStatus::NotServing,
    }
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match status(&self.observe, &service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!(
                "no service {service:?}; there are \"\" and {:?}",
                super::NAME
            ))),
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let (observe, stop) = (self.observe.clone(), self.stop.clone());
        let (to, from) = mpsc::channel(1);
        tokio::spawn(async move {
            let tell = async {
                let mut last = None;
                loop {
                    let status = status(&observe, &service);
                    if last != Some(status)
                        && to.send(Ok(HealthCheckResponse { status: status.into() })).await.is_err()
                    {
                        return;
                    }
                    last = Some(status);
                    tokio::time::sleep(WATCH).await;
                }
            };
            tokio::select! {
                () = tell => {}
                () = to.closed() => {}
                () = stopped(stop) => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(from)))
    }
}
