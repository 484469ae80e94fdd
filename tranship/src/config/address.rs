//! Where a service is reached.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The address of a daemon: `unix:///run/user/0/tranship.sock` or `tcp://host:7420`.
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
}

/// Bytes of a socket path that fit into `sockaddr_un` with its final zero, see unix(7).
const PATH_BYTES_MAX: usize = 107;

impl Address {
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
    /// Neither `unix://` nor `tcp://`.
    #[error("{0:?}: expected unix:///PATH or tcp://HOST:PORT")]
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
    /// A TCP address without a host or a valid port.
    #[error("{0:?}: expected tcp://HOST:PORT with a port from 0 to 65535")]
    Port(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix://") {
            return match path.len() {
                _ if !Path::new(path).is_absolute() => Err(AddressError::Relative(text.to_owned())),
                length if length > PATH_BYTES_MAX => {
                    Err(AddressError::TooLong { path: path.to_owned(), length })
                }
                _ => Ok(Self::Unix(path.into())),
            };
        }
        let rest =
            text.strip_prefix("tcp://").ok_or_else(|| AddressError::Scheme(text.to_owned()))?;
        rest.rsplit_once(':')
            .filter(|(host, _)| !host.is_empty() && (!host.contains(':') || host.ends_with(']')))
            .and_then(|(host, port)| {
                Some(Self::Tcp { host: host.to_owned(), port: port.parse().ok()? })
            })
            .ok_or_else(|| AddressError::Port(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_it_prints() {
        for text in ["unix:///run/user/0/tranship.sock", "tcp://host:7420", "tcp://[::1]:7420"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_with_the_reason() {
        let reason = |text: &str| text.parse::<Address>().unwrap_err().to_string();
        assert!(reason("/run/x.sock").contains("expected unix:///PATH or tcp://HOST:PORT"));
        assert!(reason("unix://x.sock").contains("must be absolute"));
        let long = format!("unix:///{}", "x".repeat(107));
        assert!(reason(&long).contains("of 108 bytes is too long; 107 are possible"));
        assert!(reason("tcp://host").contains("tcp://HOST:PORT"));
        assert!(reason("tcp://::1:80").contains("tcp://HOST:PORT"));
        assert!(reason("tcp://host:70000").contains("0 to 65535"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(unix://|tcp://)?.{0,120}") {
            let _ = text.parse::<Address>();
        }
    }
}
