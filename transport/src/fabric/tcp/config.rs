//! How the fabric is opened.

use std::fmt;
use std::os::fd::RawFd;
use std::time::Duration;

use super::fabric::Tcp;
use super::greeting::ADDRESS_BYTES_MAX;
use crate::address::Kind;
use crate::fabric::{Fabric, OpenError, Provider, Setup};

/// Bulk streams of one connection at most.
pub(super) const STREAMS_MAX: u8 = 32;
/// The longest heartbeat: longer ones would leave the dead unnoticed.
pub(super) const HEARTBEAT_MAX: Duration = Duration::from_secs(60);

/// How to open the TCP fabric.
///
/// ```
/// use tranship_transport::fabric::tcp;
///
/// let fabric = tcp::Config::new().listen("0.0.0.0:7420").advertise("node7:7420").token("secret");
/// ```
#[derive(Clone)]
pub struct Config {
    pub(super) listen: Option<String>,
    pub(super) advertise: Option<String>,
    pub(super) token: Vec<u8>,
    pub(super) streams: u8,
    pub(super) heartbeat: Duration,
    pub(super) missed_max: u32,
    pub(super) handshake_timeout: Duration,
    pub(super) backoff: (Duration, Duration),
    pub(super) connections_max: usize,
    /// The least descriptor of the listener and of connections.
    pub(super) floor: RawFd,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// The defaults: a port of the loopback interface that the system chooses, no token.
    #[must_use]
    pub fn new() -> Self {
        Self {
            listen: Some("127.0.0.1:0".to_owned()),
            advertise: None,
            token: Vec::new(),
            streams: 2,
            heartbeat: Duration::from_secs(1),
            missed_max: 3,
            handshake_timeout: Duration::from_secs(5),
            backoff: (Duration::from_millis(50), Duration::from_secs(2)),
            connections_max: 1024,
            floor: 0,
        }
    }

    /// Listens at HOST:PORT; 0 is any free port.
    #[must_use]
    pub fn listen(mut self, endpoint: impl Into<String>) -> Self {
        self.listen = Some(endpoint.into());
        self
    }

    /// What peers are told to dial, HOST:PORT. Needed when listening on all addresses
    /// (`0.0.0.0`, `[::]`), which is nowhere to others. Port 0 is the port that is listened at.
    #[must_use]
    pub fn advertise(mut self, endpoint: impl Into<String>) -> Self {
        self.advertise = Some(endpoint.into());
        self
    }

    /// Does not listen: peers are dialled and do not dial.
    #[must_use]
    pub fn dial_only(mut self) -> Self {
        self.listen = None;
        self
    }

    /// A secret that both sides of every connection prove to know; it is never sent. What follows
    /// the handshake is neither encrypted nor signed.
    #[must_use]
    pub fn token(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.token = secret.as_ref().to_vec();
        self
    }

    /// Streams for bulk payload of each connection dialled from here, 1 to 32. More of them help
    /// where one stream is held back by a processor or by the network's window.
    #[must_use]
    pub const fn streams(mut self, n: u8) -> Self {
        self.streams = n;
        self
    }

    /// How often peers hear from this engine at least, and how many times in a row they may miss
    /// it before they take it for gone. 1 s and 3 times unless told otherwise; at most a minute.
    #[must_use]
    pub const fn heartbeat(mut self, every: Duration, missed_max: u32) -> Self {
        self.heartbeat = every;
        self.missed_max = missed_max;
        self
    }

    /// How long a handshake may take before it is given up; 5 s unless told otherwise.
    #[must_use]
    pub const fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How long dialling waits after a failure to dial the same address: `first`, doubling up to
    /// `most`; 50 ms and 2 s unless told otherwise.
    #[must_use]
    pub const fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = (first, most);
        self
    }

    /// How many connections there can be at once; more callers are turned away.
    #[must_use]
    pub const fn connections_max(mut self, n: usize) -> Self {
        self.connections_max = n;
        self
    }

    /// The host that is listened at, if it is one.
    pub(in crate::fabric) fn listen_host(&self) -> Option<String> {
        let (host, _) = self.listen.as_ref()?.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let unspecified = |it: std::net::IpAddr| it.is_unspecified();
        (!host.parse().is_ok_and(unspecified)).then(|| host.to_owned())
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.streams == 0 || self.streams > STREAMS_MAX {
            return Err(format!("{} streams; give 1 to {STREAMS_MAX}", self.streams));
        }
        if self.heartbeat < Duration::from_millis(1) || self.heartbeat > HEARTBEAT_MAX {
            let beat = self.heartbeat;
            return Err(format!("a heartbeat of {beat:?}; give 1 ms to {HEARTBEAT_MAX:?}"));
        }
        if self.missed_max == 0 {
            return Err("peers gone after 0 missed heartbeats; allow at least 1".to_owned());
        }
        if let Some(long) = self.advertise.as_ref().filter(|it| it.len() > ADDRESS_BYTES_MAX) {
            let len = long.len();
            return Err(format!("an address of {len} bytes; {ADDRESS_BYTES_MAX} are possible"));
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token stays out of logs.
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("advertise", &self.advertise)
            .field("token", &!self.token.is_empty())
            .field("streams", &self.streams)
            .field("heartbeat", &self.heartbeat)
            .finish_non_exhaustive()
    }
}

impl Provider for Config {
    fn kind(&self) -> Kind {
        Kind::Tcp
    }

    fn open(self: Box<Self>, setup: &Setup) -> Result<Box<dyn Fabric>, OpenError> {
        self.check()
            .and_then(|()| Tcp::open(*self, setup))
            .map(|fabric| Box::new(fabric) as Box<dyn Fabric>)
            .map_err(|what| OpenError { kind: Kind::Tcp, what })
    }
}
