//! One thread, apart from the data path, that serves administration and metrics.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::observe::{Observe, Started};
use super::socket::{Listening, SocketError};
use super::{admin, http};

/// Name of the thread.
const THREAD: &str = "tranship-admin";
/// Calls that may run at once apart from that thread.
const BLOCKING_MAX: usize = 2;
/// How long a daemon that just drops its administration waits for open calls.
const DROP_GRACE: Duration = Duration::from_secs(1);

/// What is served, and where.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Path of the UNIX socket of the gRPC service.
    pub(crate) admin_socket: PathBuf,
    /// Address of `/metrics`, `/healthz` and `/readyz`; port 0 takes a free one.
    pub(crate) metrics: Option<SocketAddr>,
    /// Let other machines see the metrics: there is neither encryption nor a password.
    pub(crate) allow_remote: bool,
}

/// Why administration did not start, or did not end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The UNIX socket.
    #[error("admin socket {0}")]
    Socket(#[from] SocketError),
    /// The address is not of this machine alone.
    #[error(
        "metrics address {0} can be reached from other machines, without encryption or password; \
         use 127.0.0.1:{port}", port = .0.port()
    )]
    NotLoopback(SocketAddr),
    /// Somebody listens there.
    #[error(
        "metrics address {0}: port {port} is in use; stop who listens there, choose another port, \
         or turn metrics off", port = .0.port()
    )]
    PortInUse(SocketAddr),
    /// The system refused the address.
    #[error("metrics address {address}: {why}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// The system refused a thread or its means to wait.
    #[error("cannot start thread {THREAD}: {0}")]
    Thread(#[source] io::Error),
    /// Calls were cut off.
    #[error("administration still had calls or connections open after {0:?}; they were cut off")]
    Overdue(Duration),
}

/// When to be done, once somebody wants an end.
pub(super) type Stop = Option<Instant>;

/// Waits until somebody wants an end.
pub(super) async fn stopped(mut stop: watch::Receiver<Stop>) {
    // An error says that nobody is left to want anything.
    let _ = stop.wait_for(Option::is_some).await;
}

/// The socket and the address, taken and not yet served. Whoever connects waits.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: Listening,
    grpc: UnixListener,
    http: Option<TcpListener>,
    metrics: Option<SocketAddr>,
}

/// Takes the socket and the address.
///
/// # Errors
/// When they cannot be had.
pub(crate) fn bind(options: &Options) -> Result<Bound, Error> {
    options.check()?;
    let (socket, grpc) = Listening::open(&options.admin_socket)?;
    let http = options.metrics.map(bind_tcp).transpose()?;
    let metrics = http.as_ref().map(TcpListener::local_addr).transpose().map_err(Error::Thread)?;
    Ok(Bound { socket, grpc, http, metrics })
}

impl Bound {
    /// Starts serving. Until [`Running::ready`] is called, the daemon is told to be starting.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn run(self, observe: Observe) -> Result<Running, Error> {
        let Self { socket, grpc, http, metrics } = self;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_MAX)
            .thread_name("tranship-admin-work")
            .build()
            .map_err(Error::Thread)?;
        let (stop, stopping) = watch::channel(None);
        let started = observe.started.clone();
        let thread = std::thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(move || {
                let in_time = runtime.block_on(serve(grpc, http, observe, stopping));
                runtime.shutdown_background();
                in_time
            })
            .map_err(Error::Thread)?;
        Ok(Running { stop, thread: Some(thread), socket, metrics, started })
    }
}

impl Options {
    /// Finds what can be refused before anything is started.
    ///
    /// # Errors
    /// When metrics would be seen by other machines without leave.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.metrics.filter(|address| !address.ip().is_loopback() && !self.allow_remote) {
            Some(address) => Err(Error::NotLoopback(address)),
            None => Ok(()),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> Result<TcpListener, Error> {
    let open = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    open().map_err(|why: io::Error| match why.kind() {
        io::ErrorKind::AddrInUse => Error::PortInUse(address),
        _ => Error::Address { address, why },
    })
}

/// Serves until told to stop; whether all calls ended in time.
async fn serve(
    grpc: UnixListener,
    http: Option<TcpListener>,
    observe: Observe,
    stop: watch::Receiver<Stop>,
) -> bool {
    let overdue = async {
        stopped(stop.clone()).await;
        let until = *stop.borrow();
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
    };
    let grpc = async {
        if let Err(error) = admin::serve(grpc, observe.clone(), stop.clone()).await {
            tracing::error!(error, "the admin service ended");
        }
    };
    let http = async {
        let Some(http) = http else { return };
        if let Err(error) = http::serve(http, observe.clone(), stop.clone()).await {
            tracing::error!(%error, "the metrics server ended");
        }
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(grpc, http) } => true,
        () = overdue => false,
    }
}

/// Administration that is being served. Dropping it ends it.
#[must_use = "dropping it ends administration"]
pub(crate) struct Running {
    stop: watch::Sender<Stop>,
    thread: Option<JoinHandle<bool>>,
    socket: Listening,
    metrics: Option<SocketAddr>,
    started: Started,
}

impl Running {
    /// Path of the UNIX socket of the gRPC service.
    pub(crate) fn admin_socket(&self) -> &Path {
        self.socket.path()
    }

    /// Address of `/metrics`, with the port that was found.
    pub(crate) fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// From now on the daemon is told to be ready.
    pub(crate) fn ready(&self) {
        self.started.set();
    }

    /// Takes no more calls, waits up to `deadline` for those that are open, and removes the socket.
    ///
    /// # Errors
    /// When calls had to be cut off.
    pub(crate) fn shutdown(mut self, deadline: Duration) -> Result<(), Error> {
        if self.end(deadline) { Ok(()) } else { Err(Error::Overdue(deadline)) }
    }

    fn end(&mut self, deadline: Duration) -> bool {
        let Some(thread) = self.thread.take() else { return true };
        self.stop.send_replace(Some(Instant::now() + deadline));
        // Its panic, if any, was printed when it happened.
        thread.join().unwrap_or(false)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(DROP_GRACE);
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("admin_socket", &self.admin_socket())
            .field("metrics", &self.metrics)
            .finish_non_exhaustive()
    }
}
