//! Names: of engines, of the fabrics they speak, and of where they are reached.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A provider of one-sided operations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// The deterministic simulated fabric.
    Sim,
    /// Shared memory between processes of one host.
    Shm,
    /// Streams over an IP network.
    Tcp,
    /// RDMA through libibverbs: InfiniBand and RoCE.
    Verbs,
    /// RDMA through libfabric: EFA, Slingshot and others.
    Ofi,
}

impl Kind {
    /// The name used in addresses, flags, messages and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sim => "sim",
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            Self::Verbs => "verbs",
            Self::Ofi => "ofi",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where an engine is reached over one fabric, e.g. `shm:/run/user/1000/tranship.sock`.
///
/// `shm:@NAME` is a socket in Linux's abstract namespace (`unix(7)`), `tcp:HOST:PORT` a listening
/// socket (`tcp://HOST:PORT` means the same); `verbs:HOST:PORT` and `ofi:HOST:PORT` name the socket at
/// which peers agree on the rails; `sim:N` a port of a simulated network.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// The fabric.
    pub kind: Kind,
    /// The endpoint, in that fabric's own terms.
    pub endpoint: String,
}

impl Address {
    /// An address of a fabric.
    #[must_use]
    pub fn new(kind: Kind, endpoint: impl Into<String>) -> Self {
        Self { kind, endpoint: endpoint.into() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.endpoint)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for Address {
    type Error = ParseAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("address {text:?}: expected FABRIC:ENDPOINT, with FABRIC one of shm, tcp, verbs, ofi, sim")]
pub struct ParseAddressError {
    /// The text.
    pub text: String,
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseAddressError { text: text.to_owned() };
        let (kind, endpoint) = text.split_once(':').ok_or_else(wrong)?;
        let kind = match kind {
            "sim" => Kind::Sim,
            "shm" => Kind::Shm,
            "tcp" => Kind::Tcp,
            "verbs" => Kind::Verbs,
            "ofi" => Kind::Ofi,
            _ => return Err(wrong()),
        };
        let endpoint = match kind {
            Kind::Tcp | Kind::Verbs | Kind::Ofi => endpoint.strip_prefix("//").unwrap_or(endpoint),
            _ => endpoint,
        };
        // What is left of `tcp:////HOST` would print as another address.
        let is_socket = matches!(kind, Kind::Tcp | Kind::Verbs | Kind::Ofi);
        if endpoint.is_empty() || is_socket && endpoint.starts_with('/') {
            return Err(wrong());
        }
        Ok(Self::new(kind, endpoint))
    }
}

/// Which engine: random, 128 bits, new at every start, so that a restarted peer is never taken for
/// its predecessor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EngineId(pub u128);

impl EngineId {
    /// An identifier from the system's random source (`getrandom(2)`).
    ///
    /// # Panics
    /// When the system has no random source, which no supported kernel lacks.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("getrandom(2) works on every supported kernel");
        Self(u128::from_le_bytes(bytes))
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "engine {:08x}…", self.0 >> 96)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in
            ["shm:/run/x.sock", "sim:7", "tcp:localhost:7420", "verbs:[::1]:7420", "ofi:node7:7420"]
        {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
        }
    }

    #[test]
    fn wrong_addresses_say_what_is_expected() {
        for text in ["", "shm", "shm:", "ftp:/x", ":x", "tcp:///x:1"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("FABRIC:ENDPOINT"), "{error}");
        }
    }
}
