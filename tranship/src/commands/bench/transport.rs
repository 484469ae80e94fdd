//! `tranship bench transport`

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;
use tranship_transport::Address as Endpoint;

use super::child::LOOPBACK;
use super::rails::Rails;
use super::{Options, child, payload, report};
use crate::bench::child::Other;
use crate::bench::transport::{Bench, Fabric, Op, peer, rate};
use crate::bench::{Plan, RULE};
use crate::commands::{Context, Error};
use crate::config::{self, Address, AddressError, Config, Secret};
use crate::exit::Exit;
use crate::units::Size;

/// Sizes of plain transfers, if nothing else is said.
const SIZES: [u64; 8] =
    [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20];
/// Sizes of pages.
const PAGES: [u64; 3] = [4 << 10, 16 << 10, 64 << 10];
/// Sizes of what is urgent.
const URGENT: [u64; 1] = [64];

/// Writes posted together, over sim.
const BATCHES: [u32; 2] = [1, 16];

/// The fabrics that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Over {
    /// Shared memory of one host.
    Shm,
    /// TCP; over the loopback interface the limit is plain sockets.
    Tcp,
    /// RDMA by libibverbs.
    Verbs,
    /// RDMA by libfabric.
    Ofi,
    /// No network at all: what the engine costs.
    Sim,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Operation {
    /// One-sided writes.
    Write,
    /// One-sided reads.
    Read,
    /// A write with an immediate each way; times are one way.
    Pingpong,
    /// Writes of many pages, scattered on both sides.
    Paged,
    /// Small writes that end at once, one by one and 16 posted together; over sim alone.
    Rate,
    /// A ping-pong in the latency lane: alone, beside a full load, and in one lane with it.
    Lanes,
}

impl Operation {
    /// Between two processes.
    fn op(self, pages: u32) -> Option<Op> {
        Some(match self {
            Self::Write => Op::Write,
            Self::Read => Op::Read,
            Self::Pingpong => Op::Pingpong,
            Self::Paged => Op::Paged { pages },
            Self::Lanes => Op::Lanes,
            Self::Rate => return None,
        })
    }

    /// What it is measured with, unless something else is said.
    fn sizes(self) -> &'static [u64] {
        match self {
            Self::Write | Self::Read | Self::Pingpong => &SIZES,
            Self::Paged => &PAGES,
            Self::Lanes | Self::Rate => &URGENT,
        }
    }
}

/// Arguments of `bench transport`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fabric to measure
    #[arg(long, value_enum, default_value_t = Over::Shm)]
    fabric: Over,
    /// Operations, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "write,read,pingpong",
        default_value_if("fabric", "sim", "rate")
    )]
    ops: Vec<Operation>,
    /// Payload sizes, separated by commas; from 4KiB to 64MiB where nothing is said, pages of up to
    /// 64KiB, and 64 bytes for lanes
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = payload)]
    sizes: Vec<Size>,
    /// Pages of one paged write
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pages: u32,
    /// Writes or reads in flight at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Threads that share one large copy, as transport.copy_threads of the daemon
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    copy_threads: u8,
    /// Streams for payload of tcp
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=32))]
    streams: u8,
    #[command(flatten)]
    rails: Rails,
    /// Measure nothing, answer a client at this address of tcp, verbs or ofi until ended, and print how
    /// to start the client
    #[arg(
        long,
        value_name = "HOST:PORT",
        num_args = 0..=1,
        default_missing_value = LOOPBACK,
        conflicts_with = "connect"
    )]
    server: Option<String>,
    /// Measure against a server, at the address that it printed [default: a process of its own]
    #[arg(long, value_name = "ADDRESS")]
    connect: Option<Endpoint>,
    /// File with the secret of server and client [default: tcp.token_file of the configuration]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

impl Over {
    const fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            Self::Verbs => "verbs",
            Self::Ofi => "ofi",
            Self::Sim => "sim",
        }
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let plan = self.options.plan();
        if self.fabric == Over::Sim {
            return self.rate(context, plan);
        }
        if self.server.is_some() {
            return self.serve(context, plan);
        }
        let cases = self.cases(|operation| {
            operation.op(self.pages).ok_or("rate is measured with --fabric sim, without a network")
        })?;
        let config = context.config_with(None)?.config;
        let (fabric, other) = match &self.connect {
            Some(address) if address.kind.name() != self.fabric.name() => {
                let (given, kind) = (self.fabric.name(), address.kind);
                return Err(Error::Usage(format!(
                    "--connect {address} with --fabric {given}; use --fabric {kind}"
                )));
            }
            Some(address) => {
                let secret = config::token(self.token_file.as_deref(), &config.tcp)?;
                (self.open(config, None, secret.as_ref())?, Other::at(address.clone()))
            }
            None => {
                let file = context.globals.config.as_deref();
                let name = self.fabric.name();
                let line = child::PeerArgs::command_line(name, &self.rails, file, plan.busy);
                (self.open(config, None, None)?, Other::start(line)?)
            }
        };
        let bench = Bench::new(fabric, plan, usize::from(self.copy_threads), other)?;
        let count = cases.iter().map(|(op, _)| op.lines()).sum();
        let lines =
            cases.into_iter().flat_map(|(op, size)| match bench.measure(op, size, self.batch) {
                Ok(lines) => lines.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            });
        report::print(context, RULE, count, lines)?;
        Ok(Exit::Done)
    }

    fn open(
        &self,
        config: Config,
        listen: Option<&str>,
        secret: Option<&Secret>,
    ) -> Result<Fabric, Error> {
        self.rails.fabric(self.fabric.name(), config, (listen, secret), self.streams)
    }

    /// Answers clients.
    fn serve(&self, context: &Context, plan: Plan) -> Result<Exit, Error> {
        let config = context.config_with(None)?.config;
        let secret = config::token(self.token_file.as_deref(), &config.tcp)?;
        let listen = self.server.as_deref().unwrap_or(LOOPBACK);
        if self.fabric != Over::Shm && secret.is_none() && !config.tcp.insecure {
            let address: Address = format!("{}://{listen}", self.fabric.name())
                .parse()
                .map_err(|error: AddressError| Error::Usage(error.to_string()))?;
            if !address.is_local() {
                return Err(Error::Usage(format!(
                    "{address} can be reached from other hosts, and there is no token to keep \
                     strangers out; give one with --token-file or TRANSHIP_TOKEN"
                )));
            }
        }
        let fabric = self.open(config, Some(listen), secret.as_ref())?;
        peer::serve(&fabric, plan.busy, |address| {
            let mut line = format!("tranship bench transport --fabric {}", self.fabric.name());
            for (flag, value) in self.rails.flags() {
                line += &format!(" {flag} '{value}'");
            }
            if let Some(file) = &self.token_file {
                line += &format!(" --token-file '{}'", file.display());
            }
            line += &format!(" --connect '{address}'");
            if context.output.is_json() {
                let server = json!({ "address": address.to_string(), "client": line });
                return Ok::<_, Error>(context.output.object("bench-server", &server)?);
            }
            Ok(context.output.line(line)?)
        })?;
        Ok(Exit::Done)
    }

    /// What the engine costs without a network.
    fn rate(&self, context: &Context, plan: Plan) -> Result<Exit, Error> {
        let cases = self.cases(|operation| match operation {
            Operation::Rate => Ok(()),
            _ => Err("--fabric sim measures rate alone; choose shm or tcp for transfers"),
        })?;
        let lines = cases.iter().flat_map(|((), size)| {
            BATCHES.into_iter().map(|batch| rate::measure(plan, *size, batch))
        });
        report::print(context, RULE, cases.len() * BATCHES.len(), lines)?;
        Ok(Exit::Done)
    }

    /// Each operation with each of its sizes.
    fn cases<T: Copy>(
        &self,
        can: impl Fn(Operation) -> Result<T, &'static str>,
    ) -> Result<Vec<(T, u64)>, Error> {
        let mut cases = Vec::new();
        for &operation in &self.ops {
            let op = can(operation).map_err(|why| Error::Usage(why.to_owned()))?;
            let given = self.sizes.iter().map(|size| size.bytes());
            match self.sizes.as_slice() {
                [] => cases.extend(operation.sizes().iter().map(|&size| (op, size))),
                _ => cases.extend(given.map(|size| (op, size))),
            }
        }
        Ok(cases)
    }
}
