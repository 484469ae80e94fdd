//! What can be wrong with a configuration.

use std::io;
use std::path::PathBuf;

use crate::units::{Size, human};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: not TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser says, on one line.
        message: String,
    },
    /// The file has a section or key that does not exist.
    #[error("{}:{line}: unknown key {key:?}{hint}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Section and key.
        key: String,
        /// The closest known key, as a question.
        hint: String,
    },
    /// The file has a table where a value belongs, or the other way round.
    #[error("{}:{line}: {key} is {found}; expected {expected}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Section and key.
        key: String,
        /// What is there.
        found: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// An environment variable names a section but no field of it.
    #[error("unknown environment variable {name}{hint}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The closest known variable, as a question.
        hint: String,
    },
    /// A value cannot be read.
    #[error("{place} {reason}")]
    Value {
        /// File, line and key; or the variable; or the flag.
        place: String,
        /// The quoted value and what is wrong with it.
        reason: String,
    },
    /// Values that contradict each other.
    #[error("{0}")]
    Conflict(String),
    /// The arena is larger than the memory that is free.
    #[error(
        "arena of {} does not fit: {} of memory, {} free; use --capacity {} or less",
        human::size(capacity.bytes()),
        human::size(total.bytes()),
        human::size(available.bytes()),
        suggestion(*available)
    )]
    DoesNotFit {
        /// What was asked for.
        capacity: Size,
        /// What the machine has.
        total: Size,
        /// What is free.
        available: Size,
    },
}

/// Three quarters of what is free, as a number people would type.
fn suggestion(available: Size) -> Size {
    let room = available.bytes() / 4 * 3;
    let unit = if room >= 2 << 30 { 1 << 30 } else { 1 << 20 };
    Size::new(room / unit * unit)
}
