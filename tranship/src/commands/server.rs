//! A daemon of a command's own: the same binary as a child process, in a directory of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use super::serve::{Ready, Starting};
use super::{Context, Error};
use crate::config::{Address, Polling};
use crate::exit::Exit;
use crate::output::{self, Progress};
use crate::units::Size;

/// A running daemon; dropping it kills it.
pub(crate) struct Server {
    child: Child,
    address: Address,
    ready: Option<Ready>,
    failure: Arc<Mutex<Option<Failure>>>,
    stderr: Option<JoinHandle<()>>,
    /// Holds its sockets; last, because it goes away when the daemon has.
    directory: TempDir,
}

/// What a daemon says when it fails.
#[derive(Debug, Deserialize)]
struct Failure {
    schema: String,
    message: String,
    exit: u8,
}

/// What such a daemon speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Over {
    /// Shared memory of this host.
    #[default]
    Shm,
    /// TCP over the loopback interface.
    Tcp,
    /// RDMA by libibverbs.
    Verbs,
    /// RDMA by libfabric.
    Ofi,
}

/// What is not as configured.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// Memory.
    pub(crate) capacity: Option<Size>,
    /// What a worker does when nothing happens.
    pub(crate) polling: Option<Polling>,
    /// Tiers below memory, in the daemon's directory.
    pub(crate) below: Option<Below>,
    /// The fabric that clients speak.
    pub(crate) over: Over,
    /// File with the secret of the fabrics between hosts.
    pub(crate) token_file: Option<PathBuf>,
}

/// Tiers below memory, which take every block.
#[derive(Debug, Clone)]
pub(crate) struct Below {
    /// Where they are; the daemon's own directory, with which they go away, if nothing is said.
    pub(crate) at: Option<PathBuf>,
    /// Size of the log and of its segments, if there shall be one.
    pub(crate) nvme: Option<(Size, Size)>,
    /// Size of the objects in a local bucket, if there shall be one.
    pub(crate) pack: Option<Size>,
}

impl Server {
    /// Starts a daemon as configured but for its sockets and what is given here, and waits until it
    /// is ready.
    pub(crate) fn start(context: &Context, settings: &Settings) -> Result<Self, Error> {
        let Settings { capacity, polling, below, over, token_file } = settings;
        let failed = |source| Error::System { doing: "start a daemon", source };
        let directory = tempfile::Builder::new().prefix("tranship-").tempdir().map_err(failed)?;
        let (host, port) = ("127.0.0.1".to_owned(), 0);
        let listen = match over {
            Over::Shm => Address::Unix(directory.path().join("tranship.sock")),
            Over::Tcp => Address::Tcp { host, port },
            Over::Verbs => Address::Verbs { host, port },
            Over::Ofi => Address::Ofi { host, port },
        };
        let admin = Address::Unix(directory.path().join("admin.sock"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["serve", "--json", "--metrics=off"]);
        command.arg(format!("--listen={listen}")).arg(format!("--admin={admin}"));
        command.arg(format!("--parent={}", std::process::id()));
        if let Some(capacity) = capacity {
            command.arg(format!("--capacity={capacity}"));
        }
        if let Some(file) = token_file {
            command.arg(format!("--token-file={}", file.display()));
        }
        if let Some(polling) = polling {
            command.arg(format!("--transport-polling={polling}"));
        }
        if let Some(Below { at, nvme, pack }) = below {
            let at = at.as_deref().unwrap_or(directory.path());
            if let Some((bytes, segment)) = nvme {
                command.arg(format!("--nvme={}", at.join("nvme.log").display()));
                command.arg(format!("--nvme-capacity={bytes}"));
                command.arg(format!("--nvme-segment={segment}"));
            }
            if let Some(pack) = pack {
                command.arg(format!("--object={}", at.join("bucket").display()));
                command.args(["--object-node=own", "--object-ingest=all"]);
                command.arg(format!("--object-pack={pack}"));
            }
        }
        if let Some(file) = &context.globals.config {
            command.arg("--config").arg(file);
        }
        // Only what needs attention: the command has its own things to say.
        if context.globals.verbose == 0 {
            command.arg("--log-level=warn");
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let failure = Arc::default();
        let stderr = child.stderr.take().map(|stderr| pass_on(stderr, Arc::clone(&failure)));
        let ready = child.stdout.take().and_then(|stdout| wait(context, stdout));
        // With the port that was found.
        let found = ready.as_ref().and_then(|ready: &Ready| ready.listen().parse().ok());
        let address = found.unwrap_or(listen);
        let mut server = Self { child, address, ready, failure, stderr, directory };
        if server.ready.is_some() { Ok(server) } else { Err(server.failed()) }
    }

    /// Where engines connect.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Where its administration is.
    pub(crate) fn admin(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said when it was ready.
    pub(crate) fn ready(&self) -> Option<&Ready> {
        self.ready.as_ref()
    }

    /// The directory of its sockets; whatever else is put there goes with it.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        let failed = |source| Error::System { doing: "stop the daemon", source };
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself, which its exit status tells.
            let _ = kill_process(pid, Signal::TERM);
        }
        let status = self.child.wait().map_err(failed)?;
        if status.success() { Ok(()) } else { Err(self.failed()) }
    }

    /// Why it ended.
    fn failed(&mut self) -> Error {
        let status = self.child.wait();
        if let Some(stderr) = self.stderr.take() {
            let _ = stderr.join();
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (failure, status) {
            (Some(Failure { message, exit, .. }), _) => {
                Error::Child { message, exit: Exit::from_code(exit) }
            }
            (None, Ok(status)) => {
                Error::Child { message: format!("the daemon ended: {status}"), exit: Exit::Failure }
            }
            (None, Err(source)) => Error::System { doing: "wait for the daemon", source },
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads what a daemon says until it is ready; `None` if it never is.
fn wait(context: &Context, stdout: ChildStdout) -> Option<Ready> {
    let mut progress: Option<Progress> = None;
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        match serde_json::from_str::<Starting>(&line) {
            Ok(Starting { done_bytes, total_bytes }) => progress
                .get_or_insert_with(|| context.output.progress("arena", total_bytes))
                .at(done_bytes),
            Err(_) => return serde_json::from_str(&line).ok(),
        }
    }
    None
}

/// Passes the daemon's log on, and keeps its last word.
fn pass_on(stderr: ChildStderr, failure: Arc<Mutex<Option<Failure>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            match serde_json::from_str::<Failure>(&line) {
                Ok(last) if last.schema == "tranship.error/1" => {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
                }
                _ => output::note(&line),
            }
        }
    })
}
