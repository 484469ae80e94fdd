//! Starts the engines, restarts those that die, and adds up what they tell.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::super::target::{dial, token};
use super::super::super::{Context, Error};
use super::engine::Report;
use super::figures::Figures;
use crate::config::Addresses;
use crate::exit::Exit;
use crate::presets::{BLOCK_TOKENS, Preset};
use crate::serve::signals;
use crate::trace::Reader;
use crate::units::human;

/// Deaths of an engine in a row, without a request played in between, before it is given up.
const DEATHS_MAX: u32 = 5;

/// A replay to be run.
#[derive(Debug, Clone)]
pub(crate) struct Replay {
    /// The trace, a file that every engine reads.
    pub(crate) trace: PathBuf,
    /// The model.
    pub(crate) preset: Preset,
    /// Bytes of one token: the model's, or fewer.
    pub(crate) token_bytes: u64,
    /// Engine processes.
    pub(crate) engines: u64,
    /// Requests to play; all without.
    pub(crate) requests: Option<u64>,
    /// How fast the timestamps pass; as fast as possible without.
    pub(crate) speed: Option<f64>,
    /// Whether engines that die are started again.
    pub(crate) restart: bool,
    /// How often programs are told of progress, requests.
    pub(crate) every: Option<u64>,
    /// For whom.
    pub(crate) tenant: String,
    /// The configuration file that was given, for the engines too.
    pub(crate) config: Option<PathBuf>,
    /// File with the secret of the fabrics between hosts, if not as configured.
    pub(crate) token_file: Option<PathBuf>,
}

/// What the coordinator waits for.
enum Event {
    /// A line of an engine.
    Report(usize, Report),
    /// An engine closed its standard output.
    Closed(usize),
    /// Somebody wants an end.
    Interrupted,
}

/// One engine process, as the coordinator knows it.
struct Engine {
    child: Child,
    /// The first request not known to be played.
    next: u64,
    ended: bool,
    deaths: u32,
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Replay {
    /// Reads the trace once, to find what is wrong with it before anything is started; how many
    /// requests will be played.
    pub(crate) fn count(&self, context: &Context) -> Result<u64, Error> {
        let total = fs::metadata(&self.trace).map_or(0, |file| file.len());
        let mut progress = context.output.progress("reading", total);
        let mut reader = Reader::open(&self.trace)?;
        let mut requests = 0;
        while self.requests.is_none_or(|limit| requests < limit)
            && let Some(request) = reader.next()
        {
            request?;
            requests += 1;
            progress.at(reader.bytes());
        }
        Ok(requests)
    }

    /// Plays the trace against the daemon at `to` and prints the figures; `daemon` is its process
    /// where that is known.
    pub(crate) fn run(
        &self,
        context: &Context,
        requests: u64,
        to: &Addresses,
        daemon: Option<u32>,
    ) -> Result<Exit, Error> {
        // Engines take a daemon that is not there or lets nobody in for misses, so it is asked once.
        let config = context.config_with(None)?.config;
        let token = token(&config, &self.tenant);
        dial(config, Some(to), self.token_file.as_deref())?
            .connect(|client| client.tenant(self.tenant.as_str(), token.as_str()))?;
        let began = Instant::now();
        let mut figures = self.play(context, requests, to, began)?;
        let elapsed = began.elapsed();
        if let Some(memory) = daemon.and_then(memory) {
            figures.memory.daemon_bytes = Some(memory.own);
            figures.memory.arena_bytes = Some(memory.shared);
        }
        self.print(context, &figures, elapsed)?;
        figures.check().map_err(Error::Sum)?;
        Ok(if figures.counts.misses.corrupt > 0 { Exit::Corrupt } else { Exit::Done })
    }

    fn play(
        &self,
        context: &Context,
        requests: u64,
        to: &Addresses,
        began: Instant,
    ) -> Result<Figures, Error> {
        let (events, inbox) = channel();
        let interrupted = events.clone();
        signals::watch(move || drop(interrupted.send(Event::Interrupted)))
            .map_err(|source| Error::System { doing: "watch for signals", source })?;
        let spawn = |number: usize, from: u64| {
            self.spawn(number, from, requests, to, began.elapsed(), &events)
        };
        let count = usize::try_from(self.engines).unwrap_or(usize::MAX);
        let mut engines = Vec::with_capacity(count);
        for number in 0..count {
            let child = spawn(number, 0)?;
            engines.push(Engine { child, next: 0, ended: false, deaths: 0 });
        }
        let mut figures = Figures::default();
        let mut progress = context.output.progress("requests", requests);
        while engines.iter().any(|engine| !engine.ended) {
            // This side holds a sender, so there is always somebody to wait for.
            let Ok(event) = inbox.recv() else { break };
            match event {
                Event::Report(number, Report::Played(played)) => {
                    engines[number].next = played.index + 1;
                    engines[number].deaths = 0;
                    figures.add(&played);
                    progress.at(figures.requests);
                    if self.every.is_some_and(|every| figures.requests.is_multiple_of(every)) {
                        report(context, &figures, &engines)?;
                    }
                }
                Event::Report(number, Report::Ended { own_bytes }) => {
                    figures.memory.engines_bytes += own_bytes;
                    engines[number].ended = true;
                }
                Event::Closed(number) => {
                    let engine = &mut engines[number];
                    let status = engine
                        .child
                        .wait()
                        .map_err(|source| Error::System { doing: "wait for an engine", source })?;
                    if engine.ended {
                        continue;
                    }
                    figures.engine_deaths += 1;
                    engine.deaths += 1;
                    if !self.restart || engine.deaths > DEATHS_MAX {
                        let next = engine.next;
                        let message = format!("engine {number} ended at request {next}: {status}");
                        return Err(Error::Child { message, exit: Exit::Failure });
                    }
                    tracing::warn!(engine = number, %status, next = engine.next, "engine restarted");
                    engine.child = spawn(number, engine.next)?;
                }
                Event::Interrupted => {
                    let message = "interrupted".to_owned();
                    return Err(Error::Child { message, exit: Exit::Failure });
                }
            }
        }
        Ok(figures)
    }

    /// Starts an engine, and a thread that passes its lines on.
    fn spawn(
        &self,
        number: usize,
        from: u64,
        until: u64,
        to: &Addresses,
        elapsed: Duration,
        events: &Sender<Event>,
    ) -> Result<Child, Error> {
        let failed = |source| Error::System { doing: "start an engine process", source };
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        let flag = |command: &mut Command, name: &str, value: String| {
            command.arg(format!("--{name}={value}"));
        };
        command.args(["trace", "replay-engine"]).arg("--trace").arg(&self.trace);
        flag(&mut command, "engine", number.to_string());
        flag(&mut command, "engines", self.engines.to_string());
        flag(&mut command, "model", self.preset.name.to_owned());
        flag(&mut command, "token-bytes", self.token_bytes.to_string());
        flag(&mut command, "connect", to.to_string());
        flag(&mut command, "tenant", self.tenant.clone());
        if let Some(file) = &self.token_file {
            command.arg("--token-file").arg(file);
        }
        if let Some(file) = &self.config {
            command.arg("--config").arg(file);
        }
        flag(&mut command, "from", from.to_string());
        flag(&mut command, "until", until.to_string());
        flag(&mut command, "parent", std::process::id().to_string());
        if let Some(speed) = self.speed {
            flag(&mut command, "speed", speed.to_string());
            let clock_ms = elapsed.as_secs_f64() * 1e3 * speed;
            flag(&mut command, "clock-ms", (clock_ms as u64).to_string());
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let Some(stdout) = child.stdout.take() else { return Ok(child) };
        let events = events.clone();
        thread::Builder::new()
            .name(format!("engine-{number}"))
            .spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // What a killed engine left half written is no report.
                    if let Ok(report) = serde_json::from_str(&line) {
                        let _ = events.send(Event::Report(number, report));
                    }
                }
                let _ = events.send(Event::Closed(number));
            })
            .map_err(failed)?;
        Ok(child)
    }

    fn print(&self, context: &Context, figures: &Figures, elapsed: Duration) -> Result<(), Error> {
        let block_bytes = self.token_bytes * u64::from(BLOCK_TOKENS);
        if context.output.is_json() {
            let mut object = figures.object();
            let own = json!({
                "trace": self.trace,
                "model": self.preset.name,
                "engines": self.engines,
                "token_bytes": self.token_bytes,
                "block_bytes": block_bytes,
                "seconds": elapsed.as_secs_f64(),
            });
            object.extend(own.as_object().cloned().unwrap_or_default());
            return Ok(context.output.object("replay", &object)?);
        }
        context.output.line(format_args!(
            "trace     {} · {} engines · {}",
            self.trace.display(),
            self.engines,
            self.geometry(block_bytes),
        ))?;
        context.output.table(&figures.table(elapsed))?;
        Ok(context.output.line(format_args!("corrupt={}", figures.counts.misses.corrupt))?)
    }

    /// What a block is, and how that differs from the model's.
    fn geometry(&self, block_bytes: u64) -> String {
        let (model, full) = (self.preset.name, self.preset.bytes_per_token());
        let block = human::size(block_bytes);
        if self.token_bytes == full {
            return format!("blocks of {block} ({BLOCK_TOKENS} tokens of {model})");
        }
        format!(
            "blocks of {block} ({BLOCK_TOKENS} tokens of {} in place of the {} of {model})",
            human::size(self.token_bytes),
            human::size(full)
        )
    }
}

/// Tells programs how far the replay is.
fn report(context: &Context, figures: &Figures, engines: &[Engine]) -> Result<(), Error> {
    if !context.output.is_json() {
        return Ok(());
    }
    let running = engines.iter().filter(|engine| !engine.ended);
    let object = json!({
        "requests": figures.requests,
        "lookups": figures.counts.lookups,
        "misses": figures.counts.misses.sum(),
        "corrupt": figures.counts.misses.corrupt,
        "engine_deaths": figures.engine_deaths,
        "engine_pids": running.map(|engine| engine.child.id()).collect::<Vec<_>>(),
    });
    Ok(context.output.object("replay-progress", &object)?)
}

/// Memory of a process, bytes.
pub(crate) struct ProcessMemory {
    /// Private and file pages.
    pub(crate) own: u64,
    /// Shared memory: the arena.
    pub(crate) shared: u64,
}

/// What `/proc/PID/status` says (proc_pid_status(5)).
pub(crate) fn memory(pid: u32) -> Option<ProcessMemory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    };
    Some(ProcessMemory {
        own: field("RssAnon:")? + field("RssFile:")?,
        shared: field("RssShmem:")?,
    })
}
