//! Where a daemon is reached, as people write it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tranship_transport::{Address as Endpoint, Kind};

/// The address of a daemon: `unix:///run/user/0/tranship.sock` (`shm:/run/user/0/tranship.sock` means
/// the same), `tcp://host:7420`, `verbs://host:7421` or `ofi://host:7422`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A UNIX socket of this machine.
    Unix(PathBuf),
    /// A host name or IP address (IPv6 in brackets), and a port.
    Tcp {
        /// The host as written.
        host: String,
        /// The port.
        port: u16,
    },
    /// The same, where peers agree on the rails of libibverbs.
    Verbs {
        /// The host as written.
        host: String,
        /// The port.
        port: u16,
    },
    /// The same, where peers agree on the rails of libfabric.
    Ofi {
        /// The host as written.
        host: String,
        /// The port.
        port: u16,
    },
}

/// Bytes of a socket path that fit into `sockaddr_un` with its final zero, see unix(7).
const PATH_BYTES_MAX: usize = 107;

impl Address {
    /// The fabric that engines speak there.
    #[must_use]
    pub const fn fabric(&self) -> Kind {
        match self {
            Self::Unix(_) => Kind::Shm,
            Self::Tcp { .. } => Kind::Tcp,
            Self::Verbs { .. } => Kind::Verbs,
            Self::Ofi { .. } => Kind::Ofi,
        }
    }

    /// The host as written and the port, for those that have them.
    #[must_use]
    pub fn socket(&self) -> Option<(&str, u16)> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp { host, port } | Self::Verbs { host, port } | Self::Ofi { host, port } => {
                Some((host, *port))
            }
        }
    }

    /// The address, as the transport knows it.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        match self {
            Self::Unix(path) => Endpoint::new(Kind::Shm, path.display().to_string()),
            Self::Tcp { host, port } | Self::Verbs { host, port } | Self::Ofi { host, port } => {
                Endpoint::new(self.fabric(), format!("{host}:{port}"))
            }
        }
    }

    /// Whether only this host reaches it, as far as its text tells.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let Some((host, _)) = self.socket() else { return true };
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }

    /// The UNIX socket `name` in [`runtime_dir`].
    #[must_use]
    pub fn in_runtime_dir(name: &str) -> Self {
        Self::Unix(runtime_dir().join(name))
    }
}

/// The directory for this user's sockets: `$XDG_RUNTIME_DIR`, else `/run/user/UID`, else
/// `/tmp/tranship-UID`; the first that exists, and the last if none does.
#[must_use]
pub fn runtime_dir() -> PathBuf {
    let uid = rustix::process::getuid().as_raw();
    let candidates = [
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute()),
        Some(PathBuf::from(format!("/run/user/{uid}"))),
    ];
    candidates
        .into_iter()
        .flatten()
        .find(|path| path.is_dir())
        .unwrap_or_else(|| PathBuf::from(format!("/tmp/tranship-{uid}")))
}

/// Why an address could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Of no fabric that there is.
    #[error(
        "{0:?}: expected unix:///PATH (or shm:/PATH), or tcp, verbs or ofi, as in tcp://HOST:PORT"
    )]
    Scheme(String),
    /// A UNIX address without an absolute path.
    #[error("{0:?}: the socket path must be absolute, as in unix:///run/tranship.sock")]
    Relative(String),
    /// A path longer than the kernel takes.
    #[error("{path:?}: socket path of {length} bytes is too long; {PATH_BYTES_MAX} are possible")]
    TooLong {
        /// The path.
        path: String,
        /// Its length in bytes.
        length: usize,
    },
    /// An address without a host or a valid port.
    #[error("{text:?}: expected {fabric}://HOST:PORT with a port from 0 to 65535")]
    Port {
        /// The address.
        text: String,
        /// The fabric it is of.
        fabric: Kind,
    },
    /// A list with nothing in it, or nothing between two commas.
    #[error("{0:?}: expected addresses, separated by commas")]
    Empty(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let path = text.strip_prefix("unix://").or_else(|| {
            let path = text.strip_prefix("shm:")?;
            Some(path.strip_prefix("//").unwrap_or(path))
        });
        if let Some(path) = path {
            return match path.len() {
                _ if !Path::new(path).is_absolute() => Err(AddressError::Relative(text.to_owned())),
                length if length > PATH_BYTES_MAX => {
                    Err(AddressError::TooLong { path: path.to_owned(), length })
                }
                _ => Ok(Self::Unix(path.into())),
            };
        }
        let (fabric, rest) = match text.split_once(':') {
            Some(("tcp", rest)) => (Kind::Tcp, rest),
            Some(("verbs", rest)) => (Kind::Verbs, rest),
            Some(("ofi", rest)) => (Kind::Ofi, rest),
            _ => return Err(AddressError::Scheme(text.to_owned())),
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        rest.rsplit_once(':')
            .filter(|(host, _)| !host.is_empty() && (!host.contains(':') || host.ends_with(']')))
            .and_then(|(host, port)| {
                let (host, port) = (host.to_owned(), port.parse().ok()?);
                Some(match fabric {
                    Kind::Verbs => Self::Verbs { host, port },
                    Kind::Ofi => Self::Ofi { host, port },
                    _ => Self::Tcp { host, port },
                })
            })
            .ok_or_else(|| AddressError::Port { text: text.to_owned(), fabric })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } | Self::Verbs { host, port } | Self::Ofi { host, port } => {
                write!(f, "{}://{host}:{port}", self.fabric())
            }
        }
    }
}

/// One or more addresses, written with commas in between, the best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(Vec<Address>);

impl Addresses {
    /// One address.
    #[must_use]
    pub fn one(address: Address) -> Self {
        Self(vec![address])
    }

    /// The addresses, the best first.
    pub fn iter(&self) -> impl Iterator<Item = &Address> {
        self.0.iter()
    }
}

impl FromStr for Addresses {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let parts = text.split(',').map(str::trim);
        if parts.clone().any(str::is_empty) {
            return Err(AddressError::Empty(text.to_owned()));
        }
        parts.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(Address::to_string).collect();
        f.pad(&texts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_it_prints() {
        for text in [
            "unix:///run/user/0/tranship.sock",
            "tcp://host:7420",
            "tcp://[::1]:7420",
            "verbs://host:7421",
            "ofi://[::1]:7422",
        ] {
            let address = text.parse::<Address>().unwrap();
            assert_eq!(address.to_string(), text);
            // The transport reads it the same way.
            let endpoint = text.replace("unix:", "shm:").parse::<Endpoint>().unwrap();
            assert_eq!(endpoint.kind, address.fabric());
            let there = endpoint.endpoint.trim_start_matches("//");
            assert_eq!(there, address.endpoint().endpoint.trim_start_matches("//"));
        }
    }

    #[test]
    fn refuses_with_the_reason() {
        let reason = |text: &str| text.parse::<Address>().unwrap_err().to_string();
        assert!(reason("/run/x.sock").contains("expected unix:///PATH (or shm:/PATH), or tcp"));
        assert!(reason("unix://x.sock").contains("must be absolute"));
        let long = format!("unix:///{}", "x".repeat(107));
        assert!(reason(&long).contains("of 108 bytes is too long; 107 are possible"));
        assert!(reason("tcp://host").contains("tcp://HOST:PORT"));
        assert!(reason("tcp://::1:80").contains("tcp://HOST:PORT"));
        assert!(reason("tcp://host:70000").contains("0 to 65535"));
        assert!(reason("verbs://mlx5_0").contains("verbs://HOST:PORT"));
        assert!(reason("ofi://:1").contains("ofi://HOST:PORT"));
        assert!(reason("rdma://host:1").contains("verbs or ofi"));
    }

    #[test]
    fn fabrics_have_names_of_their_own() {
        let same = |a: &str, b: &str| {
            assert_eq!(a.parse::<Address>().unwrap(), b.parse().unwrap());
        };
        same("shm:/run/x.sock", "unix:///run/x.sock");
        same("shm:///run/x.sock", "unix:///run/x.sock");
        same("tcp:host:1", "tcp://host:1");
        same("verbs:host:1", "verbs://host:1");
        same("ofi:host:1", "ofi://host:1");
        let differ = ["tcp://host:1", "verbs://host:1", "ofi://host:1"];
        let endpoints = differ.map(|text| text.parse::<Address>().unwrap().endpoint().to_string());
        assert_eq!(endpoints, ["tcp:host:1", "verbs:host:1", "ofi:host:1"]);
        let tcp = "tcp://[::1]:7420".parse::<Address>().unwrap();
        assert_eq!(tcp.endpoint().to_string(), "tcp:[::1]:7420");
        assert!("cuda:h:1".parse::<Address>().is_err());
    }

    #[test]
    fn what_others_reach_is_told_from_what_they_do_not() {
        let local = |text: &str| text.parse::<Address>().unwrap().is_local();
        assert!(local("unix:///x") && local("tcp://127.9.0.1:1") && local("tcp://[::1]:1"));
        assert!(local("tcp://localhost:1"));
        assert!(!local("tcp://0.0.0.0:1") && !local("tcp://[::]:1") && !local("tcp://node7:1"));
        assert!(local("verbs://127.0.0.1:1") && !local("verbs://node7:1"));
        assert!(local("ofi://localhost:1") && !local("ofi://0.0.0.0:1"));
    }

    #[test]
    fn lists_have_commas() {
        let both: Addresses = "shm:/a, tcp://h:1".parse().unwrap();
        assert_eq!(both.to_string(), "unix:///a,tcp://h:1");
        for wrong in ["", ",", "tcp://h:1,", "tcp://h:1,,tcp://h:2"] {
            let told = wrong.parse::<Addresses>().unwrap_err().to_string();
            assert!(told.contains("separated by commas"), "{told}");
        }
        assert!("tcp://h:1,bogus".parse::<Addresses>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(unix://|tcp://|verbs://|ofi://)?.{0,120}") {
            let _ = text.parse::<Address>();
        }
    }
}
