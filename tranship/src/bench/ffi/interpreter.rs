//! A cache called from Python, in an interpreter of its own that tells its times itself.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::json;
use tranship_cache::{Identity, Key};

use super::{Caller, Took};
use crate::bench::Error;

/// What it runs.
const PROGRAM: &str = include_str!("interpreter.py");
/// It answers within so long, or is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// An interpreter with the package `tranship`, connected to a daemon.
pub struct Interpreter {
    child: Child,
    input: ChildStdin,
    lines: Receiver<std::io::Result<String>>,
}

impl Interpreter {
    /// Starts `python` and connects it; it gets blocks into so much `memory` in turn.
    ///
    /// # Errors
    /// When it does not start, lacks the package, or cannot connect.
    pub fn start(
        python: &Path,
        address: &str,
        token: &str,
        identity: &Identity,
        memory: u64,
    ) -> Result<Self, Error> {
        let mut child = Command::new(python)
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("{}: {error}", python.display())))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("the interpreter has no pipes".into()));
        };
        let (sender, lines) = channel();
        // Ends with the interpreter's output.
        std::thread::spawn(move || {
            BufReader::new(output).lines().try_for_each(|line| sender.send(line))
        });
        let mut started = Self { child, input, lines };
        let geometry = identity.geometry;
        let options = json!({
            "address": address, "tenant": identity.tenant, "token": token, "memory": memory,
            "identity": {
                "model": identity.model, "revision": identity.revision, "dtype": identity.dtype,
                "layout": identity.layout, "salt": identity.salt, "layers": geometry.layers,
                "kv_heads": geometry.kv_heads, "head_dim": geometry.head_dim,
                "tp_size": geometry.tp_size, "tp_rank": geometry.tp_rank,
                "pp_size": geometry.pp_size, "pp_rank": geometry.pp_rank,
                "block_tokens": identity.block_tokens,
            },
        });
        match started.ask(&options.to_string())?.as_str() {
            "ready" => Ok(started),
            other => Err(failed(format!("the interpreter said {other:?} in place of \"ready\""))),
        }
    }

    fn ask(&mut self, line: &str) -> Result<String, Error> {
        // One that has ended says why on standard error; the answer that does not come is told below.
        let _ = writeln!(self.input, "{line}").and_then(|()| self.input.flush());
        match self.lines.recv_timeout(PATIENCE) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(RecvTimeoutError::Timeout) => {
                Err(failed(format!("the interpreter did not answer within {PATIENCE:?}")))
            }
            Err(RecvTimeoutError::Disconnected) => Err(failed(
                "the interpreter ended; it needs the package: pip install ./connectors/python"
                    .into(),
            )),
        }
    }

    /// How many blocks, and what it took.
    fn call(&mut self, word: &str, size: usize, keys: &[Key]) -> Result<(usize, Took), Error> {
        let mut line = format!("{word} {size} ");
        for key in keys {
            line.extend(key.as_bytes().iter().map(|byte| format!("{byte:02x}")));
        }
        let answer = self.ask(&line)?;
        let mut numbers = answer.split(' ').map(str::parse::<u64>);
        match [numbers.next(), numbers.next(), numbers.next()] {
            [Some(Ok(blocks)), Some(Ok(calls @ 1..)), Some(Ok(nanos))] => {
                let calls = u32::try_from(calls).unwrap_or(u32::MAX);
                Ok((blocks as usize, Took { calls, time: Duration::from_nanos(nanos) }))
            }
            _ => Err(failed(format!("the interpreter said {answer:?}"))),
        }
    }
}

impl Caller for Interpreter {
    fn name(&self) -> &'static str {
        "python"
    }

    fn lookup(&mut self, keys: &[Key]) -> Result<(usize, Took), Error> {
        self.call("lookup", 0, keys)
    }

    fn get(&mut self, key: Key, into: &mut [u8]) -> Result<Took, Error> {
        match self.call("get", into.len(), &[key])? {
            (1, took) => Ok(took),
            _ => Err(Error::Evicted { missing: 1, asked: 1 }),
        }
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn failed(why: String) -> Error {
    Error::Library { why }
}
