//! The gRPC service `tranship.admin.v1.Admin`, its health and reflection, and its client.
//!
//! | module | what it answers |
//! |---|---|
//! | [`figures`] | `Version`, `Stats`, `Identities`, `Sessions` |
//! | [`blocks`] | `List`, `Evict`, `Remove`, `Clear` |
//! | [`events`] | `Subscribe` |
//! | [`health`] | `grpc.health.v1`: not serving while starting or draining |
//! | [`client`] | the other end, for commands |
//!
//! What may take long runs on a thread of its own and ends early when its caller no longer waits,
//! be it that the deadline (`grpc-timeout`, at most [`DEADLINE_MAX`]) passed or that it hung up.

mod blocks;
mod client;
mod events;
mod figures;
mod health;

use std::os::unix::net::UnixListener;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_server::HealthServer;
use tranship_cache::{IdentityId, Scope, Store, Tenant};

use self::pb::admin_server::AdminServer;
use super::observe::Observe;
use super::runtime::Stop;

pub(crate) use client::{CallError, Client, ConnectError, connect};

/// Messages and stubs made from `proto/`.
pub(crate) mod pb {
    #![expect(unreachable_pub, clippy::allow_attributes, reason = "generated")]
    tonic::include_proto!("tranship.admin.v1");
}

/// Full name of the service.
pub(crate) const NAME: &str = "tranship.admin.v1.Admin";
/// Longest time one call may take, whatever its caller asked for; streams may go on.
const DEADLINE_MAX: Duration = Duration::from_secs(60);
/// Names told when somebody asks for one that does not exist.
const NAMES_MAX: usize = 16;

static DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/admin_descriptor.bin"));

/// Serves until `stop`.
pub(super) async fn serve(
    listener: UnixListener,
    observe: Observe,
    stop: watch::Receiver<Stop>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let incoming = UnixListenerStream::new(tokio::net::UnixListener::from_std(listener)?);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let health = health::Service::new(observe.clone(), stop.clone());
    let service = Service { observe, stop: stop.clone() };
    tonic::transport::Server::builder()
        .timeout(DEADLINE_MAX)
        .add_service(AdminServer::new(service))
        .add_service(HealthServer::new(health))
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, super::runtime::stopped(stop))
        .await?;
    Ok(())
}

struct Service {
    observe: Observe,
    stop: watch::Receiver<Stop>,
}

impl Service {
    async fn blocking<R, T: Send + 'static>(
        &self,
        request: Request<R>,
        work: impl FnOnce(&Observe, R, &Asker) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status>
    where
        R: Send + 'static,
    {
        let waiting = Arc::new(());
        let asker = Asker(Arc::downgrade(&waiting));
        let (observe, request) = (self.observe.clone(), request.into_inner());
        let done = tokio::task::spawn_blocking(move || work(&observe, request, &asker)).await;
        drop(waiting);
        done.map_err(|why| Status::internal(format!("{why}; please report this")))?
            .map(Response::new)
    }
}

/// Whoever waits for an answer, as long as it does.
struct Asker(Weak<()>);

impl Asker {
    /// Ends work that nobody waits for.
    fn waits(&self) -> Result<(), Status> {
        match self.0.strong_count() {
            0 => Err(Status::cancelled("the caller no longer waits")),
            _ => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl pb::admin_server::Admin for Service {
    async fn version(
        &self,
        _: Request<pb::VersionRequest>,
    ) -> Result<Response<pb::VersionResponse>, Status> {
        Ok(Response::new(figures::version()))
    }

    async fn stats(
        &self,
        request: Request<pb::StatsRequest>,
    ) -> Result<Response<pb::StatsResponse>, Status> {
        figures::stats(&self.observe, &request.into_inner()).map(Response::new)
    }

    async fn identities(
        &self,
        request: Request<pb::IdentitiesRequest>,
    ) -> Result<Response<pb::IdentitiesResponse>, Status> {
        figures::identities(&self.observe, &request.into_inner()).map(Response::new)
    }

    async fn sessions(
        &self,
        _: Request<pb::SessionsRequest>,
    ) -> Result<Response<pb::SessionsResponse>, Status> {
        Ok(Response::new(figures::sessions(&self.observe)))
    }

    async fn list(
        &self,
        request: Request<pb::ListRequest>,
    ) -> Result<Response<pb::ListResponse>, Status> {
        self.blocking(request, |observe, request, asker| blocks::list(observe, &request, asker))
            .await
    }

    async fn evict(
        &self,
        request: Request<pb::EvictRequest>,
    ) -> Result<Response<pb::EvictResponse>, Status> {
        self.blocking(request, |observe, request, asker| blocks::evict(observe, &request, asker))
            .await
    }

    async fn remove(
        &self,
        request: Request<pb::RemoveRequest>,
    ) -> Result<Response<pb::RemoveResponse>, Status> {
        self.blocking(request, |observe, request, asker| blocks::remove(observe, &request, asker))
            .await
    }

    async fn clear(
        &self,
        request: Request<pb::ClearRequest>,
    ) -> Result<Response<pb::ClearResponse>, Status> {
        self.blocking(request, |observe, request, asker| blocks::clear(observe, &request, asker))
            .await
    }

    async fn drain(
        &self,
        request: Request<pb::DrainRequest>,
    ) -> Result<Response<pb::DrainResponse>, Status> {
        let store = &self.observe.store;
        let draining = request.into_inner().draining;
        if draining != store.is_draining() {
            store.drain(draining);
            tracing::info!(draining, "drain asked for by an administrator");
        }
        let gauges = store.stats().into_iter().map(|tenant| tenant.gauges);
        let (filling_blocks, leases) = gauges.fold((0, 0), |(filling, leases), gauges| {
            (filling + gauges.filling.blocks, leases + gauges.leases)
        });
        Ok(Response::new(pb::DrainResponse { draining, filling_blocks, leases }))
    }

    async fn audit(
        &self,
        request: Request<pb::AuditRequest>,
    ) -> Result<Response<pb::AuditResponse>, Status> {
        let audit = |observe: &Observe, _, _: &Asker| {
            let fault = observe.store.audit().err().unwrap_or_default();
            if !fault.is_empty() {
                tracing::error!(fault, "the audit failed");
            }
            Ok(pb::AuditResponse { fault })
        };
        self.blocking(request, audit).await
    }

    type SubscribeStream = ReceiverStream<Result<pb::SubscribeResponse, Status>>;

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let stop = self.stop.clone();
        events::subscribe(&self.observe, &request.into_inner(), stop).map(Response::new)
    }
}

/// The tenant of this name.
fn tenant(store: &Store, name: &str) -> Result<Tenant, Status> {
    let unknown = || {
        let tenants = store.tenants();
        let known = some(tenants.iter().map(|tenant| format!("{:?}", tenant.name())));
        match name {
            "" => Status::invalid_argument(format!("tenant is empty; name one of {known}")),
            _ => Status::not_found(format!("no tenant {name:?}; there are {known}")),
        }
    };
    store.tenant(name).ok_or_else(unknown)
}

/// The scope of an identity, which is given as text.
fn scope(tenant: &Tenant, identity: &str) -> Result<Scope, Status> {
    let id: IdentityId = identity.parse().map_err(|_| {
        Status::invalid_argument(format!("identity {identity:?}: an identity is 32 hex digits"))
    })?;
    let scopes = tenant.scopes();
    scopes.iter().find(|scope| scope.id() == id).cloned().ok_or_else(|| {
        let known =
            scopes.iter().map(|scope| format!("{} ({})", scope.id(), scope.identity().model));
        let (name, known) = (tenant.name(), some(known));
        Status::not_found(format!("no identity {id} in tenant {name:?}; there are {known}"))
    })
}

/// The first few of `names`, for a message.
fn some(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let mut told: Vec<_> = names.take(NAMES_MAX).collect();
    match (told.len(), more) {
        (0, _) => return "none".to_owned(),
        (_, 0) => {}
        _ => told.push(format!("{more} more")),
    }
    told.join(", ")
}
