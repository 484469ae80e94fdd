//! A directory for one test, and the built binary in it.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Seed of what a test draws, unless the variable gives another.
const SEED: u64 = 20_251_121;
const SEED_VARIABLE: &str = "TRANSHIP_TEST_SEED";

/// The seed of this run.
pub(crate) fn seed() -> u64 {
    std::env::var(SEED_VARIABLE).map_or(SEED, |text| text.parse().expect("a number"))
}

/// SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) % sides as u64) as usize
    }
}

/// A directory for one test, which is the runtime directory too; nothing of the caller's
/// environment reaches the binary.
pub(crate) struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the temporary directory is writable");
        path.display().to_string()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tranship"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.directory.path())
            .env("XDG_RUNTIME_DIR", self.directory.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    /// Runs, expects success, and returns standard output.
    pub(crate) fn stdout(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs, expects the exit code, and returns the one line of standard error.
    pub(crate) fn error(&self, exit: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {stderr}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        stderr.trim_end().to_owned()
    }

    /// Starts a daemon in the runtime directory, and waits until it is ready.
    pub(crate) fn serve(&self, args: &[&str]) -> Daemon {
        self.serve_with(args, &[])
    }

    /// The same, with variables in its environment.
    pub(crate) fn serve_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Daemon {
        let mut command = self.command(&["serve", "--json", "--metrics", "off"]);
        if !args.contains(&"--capacity") {
            command.args(["--capacity", "16MiB"]);
        }
        command.args(["--log-level", "error"]).args(args).stdout(Stdio::piped());
        command.envs(variables.iter().copied());
        let mut child = command.spawn().expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let told = |line: std::io::Result<String>| -> Value {
            serde_json::from_str(&line.expect("UTF-8")).expect("a line of JSON")
        };
        // A slow machine tells of its progress first.
        let is_ready = |told: &Value| told["schema"] == "tranship.serve/1";
        let ready = stdout.by_ref().lines().map(told).find(is_ready);
        let ready = ready.expect("it ended before it was ready");
        Daemon { child, ready, _stdout: stdout }
    }
}

/// A running daemon; dropping it kills it.
pub(crate) struct Daemon {
    child: Child,
    ready: Value,
    _stdout: BufReader<ChildStdout>,
}

impl Daemon {
    /// Where it listens over TCP, with the port that was found.
    pub(crate) fn tcp(&self) -> String {
        self.listen("tcp")
    }

    /// Where it listens over a fabric, with the port that was found.
    pub(crate) fn listen(&self, fabric: &str) -> String {
        let listen = self.ready["listen"].as_str().expect("text");
        let over = |address: &&str| address.split_once("://").is_some_and(|(it, _)| it == fabric);
        listen.split(',').find(over).expect("it listens over the fabric").to_owned()
    }

    /// Asks it to end; its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        signal(self.child.id(), Signal::TERM);
        self.child.wait().expect("it is ours").code()
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process that is killed when this is dropped.
pub(crate) struct Ended(pub(crate) Child);

impl Ended {
    /// The first line of its standard output, which is piped.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.0.stdout.as_mut().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("UTF-8");
        line
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process that may be gone by now.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = kill_process(pid, signal);
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Every line as an object of the schema.
pub(crate) fn objects(lines: &str, schema: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str::<Value>(line).expect("a line of JSON");
    let objects: Vec<Value> = lines.lines().map(parse).collect();
    assert!(!objects.is_empty());
    assert!(objects.iter().all(|object| object["schema"] == schema), "{lines}");
    objects
}
