//! The one error every command ends in.

use std::io;
use std::path::PathBuf;

use tranship_cache::client;
use tranship_cache::tier::nvme::disk::OpenError;
use tranship_cache::tier::{nvme, object};
use tranship_cache::wire::FaultCode;

use crate::config::{Address, TokenError};
use crate::exit::Exit;
use crate::net::DialError;
use crate::serve::admin::{CallError, ConnectError};
use crate::serve::{Failed, StartError, TierError};
use crate::{bench, config, logging, presets, trace};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// Logging cannot be set up.
    #[error(transparent)]
    Log(#[from] logging::FilterError),
    /// A trace cannot be read or made.
    #[error(transparent)]
    Trace(#[from] trace::Error),
    /// No model of that name.
    #[error(transparent)]
    Preset(#[from] presets::Unknown),
    /// Options that make no sense together.
    #[error("{0}")]
    Usage(String),
    /// A daemon did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A daemon ended by itself.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// Administration at an address that this command cannot reach.
    #[error("{0}: administration is reached over UNIX sockets only; use unix:///PATH")]
    NotUnix(Address),
    /// The secret of the fabrics between hosts cannot be had.
    #[error(transparent)]
    Token(#[from] config::TokenError),
    /// No daemon can be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The daemon could not do what was asked.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The daemon's administration could not do what was asked.
    #[error("{0}")]
    Admin(String, Exit),
    /// A block that is not there.
    #[error("no block {name:?} here (key {key}); tranship ls lists what there is")]
    NoBlock {
        /// As given.
        name: String,
        /// Its key.
        key: tranship_cache::Key,
    },
    /// A block that is not what was stored.
    #[error("block {name:?}: {why}")]
    Corrupt {
        /// As given.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A block that was not taken, or not given.
    #[error("block {name:?}: {why}")]
    Refused {
        /// As given.
        name: String,
        /// Why, and what to do.
        why: String,
    },
    /// Figures that do not add up: a bug.
    #[error("{0}; please report this")]
    Sum(String),
    /// A process that was started for the command failed.
    #[error("{message}")]
    Child {
        /// What it said.
        message: String,
        /// How it ended.
        exit: Exit,
    },
    /// A measurement failed.
    #[error(transparent)]
    Bench(#[from] bench::Error),
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The system refused a process, a thread or a signal handler.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Standard output cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    /// The exit code that tells this failure from others.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(error) | Self::Start(StartError::Config(error)) => configuration(error),
            Self::Log(_) | Self::Preset(_) | Self::Usage(_) | Self::NotUnix(_) => Exit::Usage,
            Self::Start(StartError::NotUnix(_) | StartError::Open(_)) => Exit::Usage,
            Self::Token(error) | Self::Start(StartError::Token(error)) => token(error),
            Self::Start(StartError::Tier(error)) => tier(error),
            Self::Start(_) | Self::Refused { .. } => Exit::Refused,
            Self::Trace(trace::Error::Read { source, .. }) | Self::Read { source, .. } => {
                not_found(source)
            }
            Self::Trace(_) | Self::Corrupt { .. } => Exit::Corrupt,
            Self::NoBlock { .. } => Exit::NotFound,
            Self::Client(error) | Self::Dial(DialError::One(error)) => client(error),
            Self::Dial(DialError::All(_)) => Exit::Unreachable,
            Self::Admin(_, exit) | Self::Child { exit, .. } => *exit,
            Self::Bench(bench::Error::Cache(error)) => client(error),
            Self::Bench(bench::Error::Open(error)) => disk(error),
            Self::Bench(bench::Error::Small { .. }) => Exit::Usage,
            Self::Bench(bench::Error::Wrong { .. }) => Exit::Corrupt,
            Self::Bench(
                bench::Error::Memory(_)
                | bench::Error::Buffers(_)
                | bench::Error::Region(_)
                | bench::Error::Room { .. },
            ) => Exit::Refused,
            Self::Bench(_)
            | Self::Failed(_)
            | Self::Sum(_)
            | Self::Write { .. }
            | Self::System { .. }
            | Self::Output(_) => Exit::Failure,
        }
    }

    /// One word for programs, in the error object.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Config(_) | Self::Start(StartError::Config(_)) => "config",
            Self::Log(_) => "log",
            Self::Trace(_) => "trace",
            Self::Preset(_) => "preset",
            Self::Usage(_) => "usage",
            Self::Start(_) => "start",
            Self::Failed(_) => "daemon",
            Self::NotUnix(_) => "address",
            Self::Token(_) => "token",
            Self::Dial(_) => "client",
            Self::Client(_) => "client",
            Self::Admin(..) => "admin",
            Self::NoBlock { .. } => "missing",
            Self::Corrupt { .. } => "corrupt",
            Self::Refused { .. } => "refused",
            Self::Sum(_) => "sum",
            Self::Child { .. } => "child",
            Self::Read { .. } => "read",
            Self::Bench(_) => "bench",
            Self::Write { .. } => "write",
            Self::System { .. } => "system",
            Self::Output(_) => "output",
        }
    }

    /// Whether the reader of our output has gone, which is not a failure.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        let exit = match error {
            ConnectError::Denied(_) => Exit::Refused,
            ConnectError::NoDaemon(_) | ConnectError::Failed { .. } => Exit::Unreachable,
        };
        Self::Admin(error.to_string(), exit)
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let exit = match &error {
            CallError::Refused(status) if status.code() == tonic::Code::NotFound => Exit::NotFound,
            CallError::Refused(_) => Exit::Refused,
            CallError::TimedOut(_) | CallError::Gone(_) => Exit::Unreachable,
        };
        Self::Admin(error.to_string(), exit)
    }
}

fn configuration(error: &config::Error) -> Exit {
    match error {
        // A file that is not text is a wrong configuration, as is one that is not TOML.
        config::Error::Read { source, .. } if source.kind() != io::ErrorKind::InvalidData => {
            not_found(source)
        }
        config::Error::DoesNotFit { .. } => Exit::Refused,
        _ => Exit::Usage,
    }
}

fn client(error: &client::Error) -> Exit {
    match error {
        client::Error::Unreachable { .. }
        | client::Error::Disconnected { .. }
        | client::Error::Backoff { .. }
        | client::Error::Timeout { .. }
        | client::Error::NotSent { .. } => Exit::Unreachable,
        client::Error::Refused(fault) => match fault.code {
            FaultCode::Version | FaultCode::Denied | FaultCode::Unknown | FaultCode::Limit => {
                Exit::Refused
            }
            _ => Exit::Failure,
        },
        client::Error::Identity(_) => Exit::Usage,
        _ => Exit::Failure,
    }
}

fn disk(error: &OpenError) -> Exit {
    match error {
        OpenError::Missing { .. } | OpenError::NoParent { .. } => Exit::NotFound,
        OpenError::Size(_) | OpenError::Kind { .. } => Exit::Usage,
        OpenError::System { .. } => Exit::Failure,
        _ => Exit::Refused,
    }
}

fn tier(error: &TierError) -> Exit {
    use nvme::OpenError as Log;
    use object::OpenError as Bucket;
    match error {
        TierError::Disk(error) => disk(error),
        TierError::Capacity { .. }
        | TierError::Log { why: Log::Segments { .. } | Log::Stripes { .. }, .. }
        | TierError::Bucket(
            Bucket::Option(_) | Bucket::Url(_) | Bucket::Setting { .. } | Bucket::Settings { .. },
        ) => Exit::Usage,
        TierError::Log { .. } | TierError::Bucket(_) => Exit::Refused,
    }
}

fn token(error: &TokenError) -> Exit {
    match error {
        TokenError::Read { source, .. } => not_found(source),
        TokenError::Empty(_) | TokenError::TooLong(_) => Exit::Usage,
    }
}

fn not_found(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::NotFound => Exit::NotFound,
        _ => Exit::Failure,
    }
}
