//! The one error every command ends in.

use std::io;
use std::path::PathBuf;

use crate::exit::Exit;
use crate::{config, presets, trace};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A trace cannot be read or made.
    #[error(transparent)]
    Trace(#[from] trace::Error),
    /// No model of that name.
    #[error(transparent)]
    Preset(#[from] presets::Unknown),
    /// A file or directory cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why not.
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
            Self::Config(config::Error::Read { source, .. }) => not_found(source),
            Self::Config(config::Error::DoesNotFit { .. }) => Exit::Refused,
            Self::Config(_) | Self::Preset(_) => Exit::Usage,
            Self::Trace(trace::Error::Read { source, .. }) => not_found(source),
            Self::Trace(_) => Exit::Corrupt,
            Self::Write { .. } | Self::Output(_) => Exit::Failure,
        }
    }

    /// One word for programs, in the error object.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Trace(_) => "trace",
            Self::Preset(_) => "preset",
            Self::Write { .. } => "write",
            Self::Output(_) => "output",
        }
    }

    /// Whether the reader of our output has gone, which is not a failure.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

fn not_found(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::NotFound => Exit::NotFound,
        _ => Exit::Failure,
    }
}
