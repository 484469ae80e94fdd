//! One engine in a network namespace, told what to do line by line; see `tests/netns.rs`.
//!
//! Memory is divided into slots. Every word of a slot that was written says which slot and which
//! round it belongs to, so that a byte that lands where or when it must not is seen.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tranship_tests::netns::{CANARY, SLOT_BYTES, SLOTS, Target, fabric, word};
use tranship_transport::{
    Counter, Engine, HostMemory, Memory, Outcome, Region, RemoteWindow, Transfer, Window,
};

/// Writes in flight.
const FLYING: usize = 16;
/// How long anything but a transfer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is written to pages that are used for something else.
const REUSED: u8 = 0xee;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let listen = std::env::args().nth(1);
    let engine = Engine::builder().fabric(fabric(listen.as_deref())).build()?;
    say(&json!({ "up": engine.id().to_string() }));
    let mut node = Node { engine, opened: Vec::new(), target: None, lost: Vec::new(), round: 0 };
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match command {
            "open" => node.open(),
            "arrivals" => Ok(json!(node.opened[rest.parse::<usize>()?].arrivals.count())),
            "check" => node.check(rest),
            "revoke" => node.revoke(rest.parse()?),
            "target" => node.aim(serde_json::from_str(rest)?),
            "write" => node.write(rest),
            "prove" => node.prove(),
            other => Err(format!("{other:?} is no command").into()),
        };
        say(&answer.unwrap_or_else(|error| json!({ "error": error.to_string() })));
    }
    Ok(())
}

fn say(answer: &Value) {
    let mut out = io::stdout().lock();
    // The test reads until the end; when it is gone nobody has to be told.
    let _ = writeln!(out, "{answer}").and_then(|()| out.flush());
}

struct Node {
    engine: Engine,
    opened: Vec<Opened>,
    target: Option<Aimed>,
    /// Transfers that ended without proof.
    lost: Vec<Transfer>,
    round: u32,
}

/// Memory that the peer may write to, between two stretches that it may not.
struct Opened {
    region: Region,
    window: Option<Window>,
    arrivals: Counter,
}

/// Where to write, and from where.
struct Aimed {
    target: Target,
    window: RemoteWindow,
    source: Region,
}

impl Node {
    fn open(&mut self) -> Result<Value, Failure> {
        let bytes = (SLOTS * SLOT_BYTES) as u64;
        let region = self.engine.alloc(HostMemory::new(bytes as usize + 2 * CANARY))?;
        let window = region.window(CANARY as u64..CANARY as u64 + bytes)?;
        let arrivals = self.engine.counter()?;
        let target = Target { window: window.descriptor(), slot: arrivals.slot() };
        self.opened.push(Opened { region, window: Some(window), arrivals });
        // As text: a value of JSON has no numbers of 128 bits.
        Ok(json!(serde_json::to_string(&target)?))
    }

    /// `check N`: every word belongs where it is. `check N ROUND`: and is of that round. `check N
    /// reused`: nobody wrote since the pages are used for something else.
    fn check(&self, what: &str) -> Result<Value, Failure> {
        let (number, round) = what.split_once(' ').unwrap_or((what, ""));
        let memory = self.opened[number.parse::<usize>()?].region.memory();
        for at in [0, CANARY + SLOTS * SLOT_BYTES] {
            if read(memory, at, CANARY)?.iter().any(|&byte| byte != 0) {
                return Err(format!("bytes outside of the window changed, beside {at}").into());
            }
        }
        for slot in 0..SLOTS {
            let bytes = read(memory, CANARY + slot * SLOT_BYTES, SLOT_BYTES)?;
            if round == "reused" {
                if let Some(at) = bytes.iter().position(|&byte| byte != REUSED) {
                    return Err(format!("slot {slot} changed at {at} after the fence").into());
                }
                continue;
            }
            let only: Option<u32> = if round.is_empty() { None } else { Some(round.parse()?) };
            for (at, found) in bytes.chunks_exact(8).enumerate() {
                let found = u64::from_le_bytes(found.try_into()?);
                let fits = match only {
                    Some(round) => found == word(slot, round),
                    None => found == 0 || found == word(slot, (found >> 32) as u32),
                };
                if !fits {
                    return Err(format!("slot {slot}, word {at}: {found:#x}").into());
                }
            }
        }
        Ok(json!("as it must be"))
    }

    /// Fences the window and uses its pages for something else.
    fn revoke(&mut self, number: usize) -> Result<Value, Failure> {
        let opened = &mut self.opened[number];
        let began = Instant::now();
        opened.window.take().ok_or("it is revoked")?.revoke_within(PATIENCE)?;
        let took = began.elapsed();
        opened.region.memory().fill(CANARY..CANARY + SLOTS * SLOT_BYTES, REUSED)?;
        Ok(json!({ "revoked_ms": took.as_millis() as u64 }))
    }

    fn aim(&mut self, target: Target) -> Result<Value, Failure> {
        let window = self.engine.open(&target.window)?;
        let source = self.engine.alloc(HostMemory::new(SLOTS * SLOT_BYTES))?;
        self.target = Some(Aimed { target, window, source });
        Ok(json!("aimed"))
    }

    /// `write ROUNDS SECONDS DEADLINE_MS`: so many rounds over all slots, or as many as fit into
    /// the time; tells when the first round is done, and at the end how all transfers ended.
    fn write(&mut self, how: &str) -> Result<Value, Failure> {
        let mut numbers = how.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next().ok_or("three numbers are needed")?.map_err(Failure::from);
        let (rounds, seconds, deadline) = (next()?, next()?, Duration::from_millis(next()?));
        let aimed = self.target.as_ref().ok_or("there is no target")?;
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut tally = Tally::default();
        for done in 0..rounds {
            if Instant::now() >= until {
                break;
            }
            self.round += 1;
            for first in (0..SLOTS).step_by(FLYING) {
                let flying =
                    aimed.submit(&self.engine, first..first + FLYING, self.round, deadline)?;
                for (began, transfer) in flying {
                    let outcome = transfer.wait();
                    tally.count(outcome, began.elapsed(), deadline);
                    if !outcome.pages_are_free() {
                        self.lost.push(transfer);
                    }
                }
                if !self.lost.is_empty() {
                    // Its pages are not ours before there is proof, and other pages do as well.
                    break;
                }
            }
            if done == 0 {
                say(&json!("begun"));
            }
            if !self.lost.is_empty() {
                break;
            }
        }
        Ok(tally.told(self.round))
    }

    /// Waits for the proof that lost transfers move no byte any more.
    fn prove(&mut self) -> Result<Value, Failure> {
        let began = Instant::now();
        let lost = &self.lost;
        self.engine.wait_until(PATIENCE, || lost.iter().all(Transfer::fenced));
        self.lost.retain(|transfer| !transfer.fenced());
        let took = began.elapsed().as_millis() as u64;
        Ok(json!({ "unproven": self.lost.len(), "proof_ms": took }))
    }
}

impl Aimed {
    fn submit(
        &self,
        engine: &Engine,
        slots: std::ops::Range<usize>,
        round: u32,
        deadline: Duration,
    ) -> Result<Vec<(Instant, Transfer)>, Failure> {
        slots
            .map(|slot| {
                let at = slot * SLOT_BYTES;
                let bytes = word(slot, round).to_le_bytes().repeat(SLOT_BYTES / 8);
                self.source.memory().write_at(at, &bytes)?;
                let range = at as u64..(at + SLOT_BYTES) as u64;
                let (from, to) = (self.source.slice(range.clone())?, self.window.slice(range)?);
                let began = Instant::now();
                let write = engine.write(from, to).immediate(self.target.slot).deadline(deadline);
                Ok((began, write.submit()?))
            })
            .collect()
    }
}

/// How transfers ended.
#[derive(Default)]
struct Tally {
    ends: BTreeMap<&'static str, u64>,
    reasons: BTreeMap<String, u64>,
    /// By how much the latest was late.
    late: Duration,
}

impl Tally {
    fn count(&mut self, outcome: Outcome, took: Duration, deadline: Duration) {
        let name = match outcome {
            Outcome::Done => "done",
            Outcome::Rejected(_) => "rejected",
            Outcome::Fenced(_) => "fenced",
            Outcome::Lost(_) => "lost",
        };
        *self.ends.entry(name).or_default() += 1;
        if let Some(reason) = outcome.reason() {
            *self.reasons.entry(format!("{name}: {reason}")).or_default() += 1;
        }
        self.late = self.late.max(took.saturating_sub(deadline));
    }

    fn told(&self, round: u32) -> Value {
        let of = |name| self.ends.get(name).copied().unwrap_or(0);
        json!({
            "round": round,
            "done": of("done"),
            "rejected": of("rejected"),
            "fenced": of("fenced"),
            "lost": of("lost"),
            "reasons": self.reasons,
            "late_ms": self.late.as_millis() as u64,
        })
    }
}

fn read(memory: &Memory, at: usize, len: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![0; len];
    memory.read_at(at, &mut bytes)?;
    Ok(bytes)
}
