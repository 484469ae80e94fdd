//! `tranship doctor peer`: how a daemon is reached from here.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context as Scope, Layer, SubscriberExt as _};
use tranship_cache::Identity;

use crate::commands::target::{dial, token};
use crate::commands::{Context, Error};
use crate::config::{Address, Addresses};
use crate::exit::Exit;
use crate::output::{Cell, Table, style};
use crate::units::Span;

/// Round trips that are timed.
const PINGS: usize = 200;
/// What of the log tells of rails: names of modules begin with this.
const FABRICS: &str = "tranship_transport::fabric";

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
    /// A request and its answer, half of them no longer, µs.
    ping_p50_us: f64,
    /// 99 of 100 no longer, µs.
    ping_p99_us: f64,
    /// Whether blocks are read and filled in place.
    mapped: bool,
    /// What the fabric says of its rails: which, by which addresses, and why.
    rails: Vec<String>,
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
        let heard = Heard::default();
        let listener = tracing_subscriber::registry().with(heard.clone());
        // The engine is driven by this thread, so that all it says is heard.
        tracing::subscriber::with_default(listener, || {
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
            let mut times = Vec::with_capacity(PINGS);
            while times.len() < PINGS && began.elapsed() < self.timeout.duration() {
                times.push(client.ping()?);
            }
            times.sort_unstable();
            Ok(Reached {
                address: address.to_string(),
                fabric: address.fabric().name(),
                connect_ms,
                ping_p50_us: percentile_us(&times, 50),
                ping_p99_us: percentile_us(&times, 99),
                mapped: client.is_mapped()?,
                rails: heard.take(),
            })
        })
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
        row(
            "ping",
            format!("{:.1} µs, 99 of 100 within {:.1}", self.ping_p50_us, self.ping_p99_us),
        );
        let blocks = if self.mapped { "in place, in shared memory" } else { "by transfers" };
        row("blocks", blocks.to_owned());
        for rail in &self.rails {
            row("rail", rail.clone());
        }
        table
    }
}

/// What the fabrics say while a peer is dialled.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: Subscriber> Layer<S> for Heard {
    fn on_event(&self, event: &Event<'_>, _: Scope<'_, S>) {
        let about = event.metadata();
        if about.target().starts_with(FABRICS) && *about.level() <= Level::DEBUG {
            let mut line = Line::default();
            event.record(&mut line);
            let said = line.said + &line.fields;
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(said);
        }
    }
}

/// One event as text: the message, then its fields.
#[derive(Default)]
struct Line {
    said: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing into a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.said, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fabrics_say_is_heard_and_nothing_else() {
        let heard = Heard::default();
        let listener = tracing_subscriber::registry().with(heard.clone());
        tracing::subscriber::with_default(listener, || {
            tracing::info!(
                target: "tranship_transport::fabric::verbs::config",
                rail = "mlx5_0:1",
                mtu = 4096,
                "rail at 10.0.0.7: RoCE v2 over IPv4"
            );
            tracing::trace!(target: "tranship_transport::fabric::rdma", "a word");
            tracing::warn!(target: "tranship_cache", "something else");
        });
        assert_eq!(
            heard.take(),
            ["rail at 10.0.0.7: RoCE v2 over IPv4 rail=\"mlx5_0:1\" mtu=4096"]
        );
        assert!(heard.take().is_empty());
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
