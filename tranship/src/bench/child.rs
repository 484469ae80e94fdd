//! The other process: this program again, started with a hidden command.
//!
//! It prints its address on standard output; everything else is said over the fabric.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use tranship_transport::{Address, Engine};

use super::Error;

/// The process that answers; one of ours ends, at the latest, when this is dropped.
#[derive(Debug)]
pub struct Other {
    child: Option<Child>,
    address: Address,
}

impl Other {
    /// Starts this program with `args` and waits for its address.
    ///
    /// # Errors
    /// When it does not start or does not tell an address; it has then said why on standard error.
    pub fn start<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Self, Error> {
        let failed = |what| move |source| Error::Child { what, source };
        let program = std::env::current_exe().map_err(failed("has no program"))?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed("did not start"))?;
        let stdout = child.stdout.take().expect("piped");
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let address = read.and_then(|_| line.trim_end().parse().map_err(io::Error::other));
        match address {
            Ok(address) => Ok(Self { child: Some(child), address }),
            Err(source) => {
                end(&mut child);
                Err(Error::Child { what: "told no address", source })
            }
        }
    }

    /// A server that somebody has started elsewhere.
    #[must_use]
    pub fn at(address: Address) -> Self {
        Self { child: None, address }
    }

    /// Whether it was started here, and so runs on this host.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.child.is_some()
    }

    /// Where it is reached.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Tells the process that waits in [`Other::start`] where `engine` is.
///
/// # Errors
/// When standard output is closed.
pub fn tell_address(engine: &Engine) -> Result<(), Error> {
    let address = &engine.addresses()[0];
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{address}")
        .and_then(|()| stdout.flush())
        .map_err(|source| Error::Child { what: "cannot tell its address", source })
}
