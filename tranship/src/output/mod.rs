//! What commands print.
//!
//! Results go to standard output: aligned tables for people, or with `--json` one versioned object
//! a line. Progress, logs and errors go to standard error. Colours and progress bars appear only
//! on a terminal, and `NO_COLOR` is honoured.

mod progress;
pub mod style;
mod table;

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

pub use progress::Progress;
pub use table::{Cell, Table};

/// The way to standard output.
#[derive(Debug)]
pub struct Output {
    json: bool,
}

/// A result object: its schema first, then its own fields.
#[derive(Serialize)]
struct Versioned<'a, T> {
    schema: String,
    #[serde(flatten)]
    body: &'a T,
}

impl Output {
    /// For people, or with `json` for programs.
    #[must_use]
    pub const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are JSON lines.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one line.
    ///
    /// # Errors
    /// When standard output cannot be written; a closed pipe ends the program quietly.
    pub fn line(&self, text: impl Display) -> io::Result<()> {
        writeln!(anstream::stdout().lock(), "{text}")
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// Prints a table.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn table(&self, table: &Table) -> io::Result<()> {
        write!(anstream::stdout().lock(), "{table}")
    }

    /// Prints a result object with the schema `tranship.NAME/1`.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn object(&self, name: &str, body: &impl Serialize) -> io::Result<()> {
        self.line(object(name, body))
    }

    /// A progress bar over `total` steps; it stays invisible with `--json`, without a terminal and
    /// for work shorter than a second.
    #[must_use]
    pub fn progress(&self, label: &'static str, total: u64) -> Progress {
        Progress::new(label, total, !self.json)
    }
}

/// Passes a line of another process on to standard error. It may be closed; nobody reads it then.
pub fn note(line: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// A versioned object as one line of JSON.
pub fn object(name: &str, body: &impl Serialize) -> String {
    let schema = format!("tranship.{name}/1");
    serde_json::to_string(&Versioned { schema, body }).unwrap_or_else(|error| {
        format!("{{\"schema\":\"tranship.error/1\",\"message\":{:?}}}", error.to_string())
    })
}
