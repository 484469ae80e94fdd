//! `tranship doctor peer`: how a daemon is reached from here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use tranship_cache::Identity;
use tranship_transport::{Path, PathState, Rail};

use crate::commands::target::{dial, token};
use crate::commands::{Context, Error};
use crate::config::{Address, Addresses};
use crate::exit::Exit;
use crate::output::{Cell, Table, style};
use crate::units::Span;

/// Round trips that are timed.
const PINGS: usize = 200;

/// Arguments of `doctor peer`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address of a daemon, such as verbs://HOST:PORT; of several, with commas in between, each
    #[arg(value_name = "ADDRESSES")]
    addresses: Addresses,
    /// File with the secret of the fabrics between hosts [default: tcp.token_file of the configuration]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Tenant to act for; its token is taken from the configuration
    #[arg(long, value_name = "NAME", default_value = Identity::TENANT_DEFAULT)]
    tenant: String,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    timeout: Span,
}

/// How one address is reached.
#[derive(Debug, Serialize)]
struct Reached {
    address: String,
    fabric: &'static str,
    /// Until the daemon has let us in, ms.
    connect_ms: f64,
    /// A request and its answer; none when there was no time for any.
    #[serde(flatten)]
    ping: Option<Ping>,
    /// Whether blocks are read and filled in place.
    mapped: bool,
    /// The rails of this side: by which addresses, and why.
    rails: Vec<RailTold>,
    /// Where they lead.
    paths: Vec<PathTold>,
}

/// Round trips, µs.
#[derive(Debug, Serialize)]
struct Ping {
    /// Half of them are no longer.
    ping_p50_us: f64,
    /// 99 of 100 are no longer.
    ping_p99_us: f64,
}

#[derive(Debug, Serialize)]
struct RailTold {
    name: String,
    state: &'static str,
    /// Why it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    facts: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
struct PathTold {
    rail: String,
    state: &'static str,
    /// Why it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    facts: BTreeMap<&'static str, String>,
    /// Messages that went over it, of those that it took to find out all this.
    messages: u64,
    /// Empty writes that the peer's side acknowledged.
    #[serde(flatten)]
    ping: Option<Ping>,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let config = context.config_with(None)?.config;
        // Whatever is wrong with one is told of the next ones as well; the first failure is the answer.
        let mut failed = None;
        for address in self.addresses.iter() {
            match self.reach(address, &config) {
                Ok(reached) if context.output.is_json() => {
                    context.output.object("doctor-peer", &reached)?;
                }
                Ok(reached) => context.output.table(&reached.table())?,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Exit::Done), Err)
    }

    fn reach(&self, address: &Address, config: &crate::config::Config) -> Result<Reached, Error> {
        let secret = token(config, &self.tenant);
        let to = Addresses::one(address.clone());
        let dial = dial(config.clone(), Some(&to), self.token_file.as_deref())?;
        let began = Instant::now();
        let client = dial.connect(|client| {
            client
                .name(format!("tranship doctor, pid {}", std::process::id()))
                .tenant(self.tenant.as_str(), secret.as_str())
                .timeout(self.timeout.duration())
        })?;
        let connect_ms = began.elapsed().as_secs_f64() * 1e3;
        let left = || self.timeout.duration().saturating_sub(began.elapsed());
        let mut times = Vec::with_capacity(PINGS);
        while times.len() < PINGS && !left().is_zero() {
            times.push(client.ping()?);
        }
        // Rails are joined once the connection is there, and tell of themselves when they are.
        let mut paths = client.probe(left())?;
        let mut trips = vec![Vec::with_capacity(PINGS); paths.len()];
        for _ in 0..PINGS {
            for (trips, path) in trips.iter_mut().zip(&paths) {
                trips.extend(path.round_trip);
            }
            if left().is_zero() || paths.iter().all(|path| path.state != PathState::Up) {
                break;
            }
            paths = client.probe(left())?;
        }
        let paths = paths.into_iter().zip(trips);
        Ok(Reached {
            address: address.to_string(),
            fabric: address.fabric().name(),
            connect_ms,
            ping: Ping::new(times),
            mapped: client.is_mapped()?,
            rails: client.engine().rails().into_iter().map(RailTold::from).collect(),
            paths: paths.map(|(path, trips)| PathTold::new(path, trips)).collect(),
        })
    }
}

impl Ping {
    /// Of these times, if there are any.
    fn new(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let at = |percent| percentile_us(&times, percent);
        (!times.is_empty()).then(|| Self { ping_p50_us: at(50), ping_p99_us: at(99) })
    }
}

impl fmt::Display for Ping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} µs, 99 of 100 within {:.1}", self.ping_p50_us, self.ping_p99_us)
    }
}

impl From<Rail> for RailTold {
    fn from(rail: Rail) -> Self {
        let state = if rail.down.is_some() { "down" } else { "up" };
        Self { name: rail.name, state, why: rail.down, facts: rail.facts.into_iter().collect() }
    }
}

impl PathTold {
    fn new(path: Path, trips: Vec<Duration>) -> Self {
        let (state, why) = match path.state {
            PathState::Up => ("up", None),
            PathState::Joining => ("joining", None),
            PathState::Down(why) => ("down", Some(why)),
        };
        let facts = path.facts.into_iter().collect();
        let (rail, messages) = (path.rail, path.messages);
        Self { rail, state, why, facts, messages, ping: Ping::new(trips) }
    }
}

/// Of times in order, µs.
fn percentile_us(times: &[Duration], percent: usize) -> f64 {
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, Duration::as_secs_f64) * 1e6
}

impl Reached {
    fn table(&self) -> Table {
        let mut table = Table::new(["peer", self.address.as_str()]);
        let mut row = |name: &str, text: String| {
            table.row([Cell::styled(name.to_owned(), style::DIM), text.into()]);
        };
        row("fabric", self.fabric.to_owned());
        row("connected", format!("in {:.1} ms", self.connect_ms));
        if let Some(ping) = &self.ping {
            row("ping", ping.to_string());
        }
        let blocks = if self.mapped { "in place, in shared memory" } else { "by transfers" };
        row("blocks", blocks.to_owned());
        for rail in &self.rails {
            row("rail", told(&rail.name, rail.state, rail.why.as_deref(), &rail.facts));
        }
        for path in &self.paths {
            let text = told(&path.rail, path.state, path.why.as_deref(), &path.facts);
            let ping = path.ping.as_ref().map(|ping| format!("; ping {ping}"));
            let messages = format!("; {} messages", path.messages);
            row("path", text + &ping.unwrap_or_default() + &messages);
        }
        table
    }
}

/// A rail or a path in a line.
fn told(
    name: &str,
    state: &str,
    why: Option<&str>,
    facts: &BTreeMap<&'static str, String>,
) -> String {
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    let facts: String = facts.iter().map(|(name, fact)| format!("; {name} {fact}")).collect();
    format!("{name} {state}{why}{facts}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_in_a_line() {
        let path = Path {
            rail: "mlx5_0:1".to_owned(),
            facts: vec![("to", "RoCE v2 10.0.0.8".to_owned()), ("mtu", "4096".to_owned())],
            state: PathState::Down("the cable".to_owned()),
            round_trip: None,
            bytes_per_second: None,
            messages: 0,
        };
        let it = PathTold::new(path, Vec::new());
        assert!(it.ping.is_none(), "nothing got through");
        assert_eq!(
            told(&it.rail, it.state, it.why.as_deref(), &it.facts),
            "mlx5_0:1 down (the cable); mtu 4096; to RoCE v2 10.0.0.8"
        );
    }

    #[test]
    fn percentiles_are_of_what_there_is() {
        let times: Vec<_> = (1..=100).map(Duration::from_micros).collect();
        assert!((percentile_us(&times, 50) - 51.0).abs() < 1e-9);
        assert!((percentile_us(&times, 99) - 100.0).abs() < 1e-9);
        assert!((percentile_us(&times[..1], 99) - 1.0).abs() < 1e-9);
        assert!(percentile_us(&[], 50).abs() < 1e-9);
    }
}
