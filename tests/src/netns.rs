//! Two hosts as network namespaces, joined by one cable that can be cut.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tranship_transport::fabric::tcp;
use tranship_transport::{Descriptor, Slot};

/// Slots that are written in turn.
pub const SLOTS: usize = 64;
/// How long a slot is.
pub const SLOT_BYTES: usize = 256 << 10;
/// How much memory on either side of the window must never change.
pub const CANARY: usize = 1 << 20;

/// How long a peer may take to answer before that counts as a hang.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where to write, as it is handed over.
#[derive(Debug, Serialize, Deserialize)]
pub struct Target {
    /// The window.
    pub window: Descriptor,
    /// Counts arrivals.
    pub slot: Slot,
}

/// What every word of a slot is after a round.
#[must_use]
pub const fn word(slot: usize, round: u32) -> u64 {
    ((round as u64) << 32) | (slot as u64 + 1)
}

/// The fabric of both sides: short patience, so that the test sees what happens after it.
#[must_use]
pub fn fabric(listen: Option<&str>) -> tcp::Config {
    let config = tcp::Config::new().token("netns").heartbeat(Duration::from_millis(500), 3);
    match listen {
        Some(at) => config.listen(at),
        None => config.dial_only(),
    }
}

/// Two hosts and the cable between them; they are gone when it is dropped.
#[derive(Debug)]
pub struct Hosts {
    names: [String; 2],
}

impl Hosts {
    /// The address of each host.
    pub const ADDRESSES: [&str; 2] = ["10.231.0.1", "10.231.0.2"];

    /// Makes them; `None` when this machine or user cannot, which is said.
    #[must_use]
    pub fn new() -> Option<Self> {
        Self::make().map_err(|why| tell(&format!("skipped: {why}"))).ok()
    }

    fn make() -> Result<Self, String> {
        static EVER: AtomicU32 = AtomicU32::new(0);
        let number = EVER.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("tranship-{}-{number}-{side}", std::process::id());
        let hosts = Self { names: [name("a"), name("b")] };
        let [a, b] = &hosts.names;
        ip(&["netns", "add", a])?;
        ip(&["netns", "add", b])?;
        // Made inside, so that nothing outside ever sees it.
        ip(&[
            "-n", a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b,
        ])?;
        for (name, address) in hosts.names.iter().zip(Self::ADDRESSES) {
            ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", "cable"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "link", "set", "cable", "up"])?;
        }
        Ok(hosts)
    }

    /// A command that runs on a host.
    #[must_use]
    pub fn command(&self, host: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[host], program]);
        command
    }

    /// Cuts the cable: both hosts see that it is gone.
    pub fn cut(&self) {
        self.set("down");
    }

    /// Plugs it in again, on both sides.
    pub fn heal(&self) {
        self.set("up");
    }

    /// Loses every packet that a host sends, without a sign of it on either side: the other host
    /// is taken to have a hardware address that nobody has.
    pub fn silence(&self, host: usize) {
        let to = Self::ADDRESSES[1 - host];
        let nobody = ["lladdr", "02:00:00:00:00:99", "dev", "cable", "nud", "permanent"];
        must(ip(&[&["-n", &self.names[host], "neigh", "replace", to], &nobody[..]].concat()));
    }

    /// Undoes [`Hosts::silence`].
    pub fn unsilence(&self, host: usize) {
        let to = Self::ADDRESSES[1 - host];
        must(ip(&["-n", &self.names[host], "neigh", "del", to, "dev", "cable"]));
    }

    fn set(&self, state: &str) {
        must(ip(&["-n", &self.names[0], "link", "set", "cable", state]));
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            // It may never have been made.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// Tells whoever runs a test something that is no failure.
#[expect(clippy::print_stderr, reason = "tests have no other way to say why they are skipped")]
pub fn tell(what: &str) {
    eprintln!("{what}");
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    let Output { status, stderr, .. } =
        output.map_err(|error| format!("`ip` cannot be run ({error}); install iproute2"))?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&stderr);
    let command = arguments.join(" ");
    Err(format!("`ip {command}`: {}; it needs root with CAP_NET_ADMIN", said.trim()))
}

fn must(result: Result<(), String>) {
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// An engine on a host: a process that is told what to do.
#[derive(Debug)]
pub struct Node {
    process: Child,
    commands: Option<ChildStdin>,
    answers: Receiver<Value>,
}

impl Node {
    /// Starts one, listening if it is told where.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(mut command: Command, listen: Option<&str>) -> Self {
        command.args(listen).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the peer starts");
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let (told, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let answer = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if told.send(answer).is_err() {
                    break;
                }
            }
        });
        let commands = process.stdin.take();
        let node = Self { process, commands, answers };
        let up = node.answer();
        assert!(up.get("up").is_some(), "it says {up}");
        node
    }

    /// Tells it something.
    ///
    /// # Panics
    /// When it is gone.
    pub fn tell(&mut self, command: &str) {
        let commands = self.commands.as_mut().expect("it lives");
        writeln!(commands, "{command}").expect("it listens");
    }

    /// What it says next.
    ///
    /// # Panics
    /// When it does not, for so long that it hangs.
    #[must_use]
    pub fn answer(&self) -> Value {
        let answer = self.answers.recv_timeout(PATIENCE);
        answer.unwrap_or_else(|error| panic!("the peer says nothing: {error}"))
    }

    /// Tells it something and returns what it answers.
    ///
    /// # Panics
    /// When that is an error.
    pub fn ask(&mut self, command: &str) -> Value {
        self.tell(command);
        let answer = self.answer();
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.commands.take());
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
