//! A daemon on one host, engines that replay a trace on the other, and the cable between them cut
//! and healed: it costs misses and nothing else. `make test-netns` runs this: it needs root, and
//! the built binary.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tranship_tests::netns::{Hosts, tell};

const DAEMON: &str = "tcp://10.231.0.2:7420";
/// How long the cable stays cut, each time: longer than it takes to notice.
const CUT: Duration = Duration::from_secs(4);
/// How often it is cut.
const CUTS: u32 = 3;
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(120);
const REQUESTS: &str = "600";

/// A process whose standard output is read as lines of JSON.
struct Running {
    child: Child,
    lines: Receiver<Value>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (told, heard) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let value = serde_json::from_str(&line).expect("a line of JSON");
                if told.send(value).is_err() {
                    break;
                }
            }
        });
        Self { child, lines: heard }
    }

    /// The next line of a schema; `None` at the end.
    fn next(&self, schema: &str) -> Option<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line["schema"] == schema => return Some(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("no {schema} within {PATIENCE:?}"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host with the binary and a directory of its own.
struct Side<'a> {
    hosts: &'a Hosts,
    host: usize,
    binary: &'a str,
    directory: &'a Path,
}

impl Side<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let directory = self.directory.join(self.host.to_string());
        std::fs::create_dir_all(&directory).expect("a directory of its own");
        let mut command = self.hosts.command(self.host, self.binary);
        command
            .args(arguments)
            .env("HOME", &directory)
            .env("XDG_RUNTIME_DIR", &directory)
            .env("TRANSHIP_TOKEN", "a secret of this test")
            .stdin(Stdio::null());
        command
    }

    fn stdout(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the binary starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_cut_cable_costs_a_replay_misses_and_nothing_else() {
    let Ok(binary) = std::env::var("TRANSHIP_BINARY") else {
        tell("skipped: TRANSHIP_BINARY names no binary; make test-netns builds one");
        return;
    };
    let Some(hosts) = Hosts::new() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let side = |host| Side { hosts: &hosts, host, binary: &binary, directory: directory.path() };
    let (client, server) = (side(0), side(1));
    let mut serve = server.command(&["serve", "--json", "--metrics", "off", "--listen", DAEMON]);
    serve.args(["--capacity", "64MiB", "--log-level", "error"]);
    let daemon = Running::start(serve);
    daemon.next("tranship.serve/1").expect("it is ready");

    let block = directory.path().join("block");
    std::fs::write(&block, "some bytes").expect("the directory is writable");
    let block = block.to_str().expect("a path in UTF-8");
    client.stdout(&["put", "name", block, "--pin", "--connect", DAEMON]);

    let trace = directory.path().join("trace.jsonl");
    let trace = trace.to_str().expect("a path in UTF-8");
    client.stdout(&["trace", "synth", "--requests", REQUESTS, "--output", trace]);
    let mut command = client.command(&["trace", "replay", "--trace", trace, "--json"]);
    command.args(["--connect", DAEMON, "--engines", "2", "--bytes-per-token", "16"]);
    command.args(["--speed", "40", "--every", "20", "--log-level", "error"]);
    let replay = Running::start(command);
    for _ in 0..CUTS {
        let told = replay.next("tranship.replay-progress/1").expect("it goes on");
        assert_eq!(told["corrupt"], 0, "{told}");
        hosts.cut();
        // Nothing has to happen while the cable is cut; what does is looked at afterwards.
        let healed = Instant::now() + CUT;
        while let Ok(told) =
            replay.lines.recv_timeout(healed.saturating_duration_since(Instant::now()))
        {
            assert!(told["corrupt"].as_u64().unwrap_or(0) == 0, "{told}");
        }
        hosts.heal();
    }
    let mut last = None;
    while let Some(told) = replay.next("tranship.replay/1") {
        last = Some(told);
    }
    let told = last.expect("the replay ends");
    let number = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("no {name}: {told}"));
    assert_eq!(number("corrupt"), 0, "{told}");
    assert_eq!(number("requests").to_string(), REQUESTS, "every request was played once");
    let hits: u64 =
        told["hits"].as_object().expect("tiers").values().filter_map(Value::as_u64).sum();
    assert!(hits > 0, "{told}");
    assert_eq!(hits + number("misses"), number("lookups"), "{told}");
    // The daemon and the block that was pinned before are well.
    assert_eq!(client.stdout(&["get", "name", "--connect", DAEMON]), "some bytes");
}
