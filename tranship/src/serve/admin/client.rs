//! The other end of the service, for commands that are not asynchronous themselves.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::pb::admin_client::AdminClient;

/// A daemon that could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// There is no such socket, or nobody listens on it.
    #[error("{0}: no daemon listens here; start one with `tranship serve`, or name its socket")]
    NoDaemon(PathBuf),
    /// The socket belongs to somebody else.
    #[error("{0}: this daemon's administration is for another user; become that user")]
    Denied(PathBuf),
    /// Anything else.
    #[error("{path}: cannot connect: {why}")]
    Failed {
        /// The socket.
        path: PathBuf,
        /// Why.
        why: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The daemon said no, and why.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// No answer in time.
    #[error("no answer within {0:?}; give it more time, or look at the daemon's log")]
    TimedOut(Duration),
    /// The daemon went away.
    #[error("the daemon went away: {0}")]
    Gone(Box<Status>),
}

/// A connection to a daemon's administration.
pub(crate) struct Client {
    runtime: Runtime,
    admin: AdminClient<Channel>,
    timeout: Duration,
}

/// Connects to the daemon whose administration listens on `path`; every call has `timeout`.
///
/// # Errors
/// When nobody listens there or lets us in.
pub(crate) fn connect(path: &Path, timeout: Duration) -> Result<Client, ConnectError> {
    let failed = |why| ConnectError::Failed { path: path.to_owned(), why };
    // The system's own words are clearer than what is left of them after HTTP.
    drop(UnixStream::connect(path).map_err(|why| match why.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ConnectError::NoDaemon(path.to_owned())
        }
        io::ErrorKind::PermissionDenied => ConnectError::Denied(path.to_owned()),
        _ => failed(why.into()),
    })?);
    // A thread of its own answers the daemon between calls, so that an idle client does not keep it
    // from shutting down.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("tranship-client")
        .enable_all()
        .build()
        .map_err(|why| failed(why.into()))?;
    let text = path.to_str().ok_or_else(|| failed("the path is not UTF-8".into()))?;
    let endpoint = Endpoint::from_shared(format!("unix://{text}"))
        .map_err(|why| failed(why.into()))?
        .connect_timeout(timeout);
    let channel = runtime.block_on(endpoint.connect()).map_err(|why| failed(why.into()))?;
    Ok(Client { runtime, admin: AdminClient::new(channel), timeout })
}

impl Client {
    /// Makes one call: `client.call(request, async |admin, request| admin.stats(request).await)`.
    ///
    /// # Errors
    /// What the daemon said, or that it did not say anything in time.
    pub(crate) fn call<Q, A>(
        &mut self,
        request: Q,
        call: impl AsyncFnOnce(&mut AdminClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, CallError> {
        let mut request = Request::new(request);
        request.set_timeout(self.timeout);
        let answer =
            async { tokio::time::timeout(self.timeout, call(&mut self.admin, request)).await };
        match self.runtime.block_on(answer) {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(match status.code() {
                // This is how a missed deadline looks from the server's side.
                tonic::Code::Cancelled | tonic::Code::DeadlineExceeded => {
                    CallError::TimedOut(self.timeout)
                }
                tonic::Code::Unavailable | tonic::Code::Unknown => {
                    CallError::Gone(Box::new(status))
                }
                _ => CallError::Refused(Box::new(status)),
            }),
            Err(_) => Err(CallError::TimedOut(self.timeout)),
        }
    }
}
