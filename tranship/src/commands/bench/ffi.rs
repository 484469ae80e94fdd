//! `tranship bench ffi`

use std::path::PathBuf;

use super::{payload, report};
use crate::bench::ffi::interpreter::Interpreter;
use crate::bench::ffi::library::{Library, usual_path};
use crate::bench::ffi::{self, Caller, Op};
use crate::bench::{self, Plan};
use crate::commands::server::{Server, Settings};
use crate::commands::target::{dial, token};
use crate::commands::{Context, Error, Target};
use crate::config::{Addresses, Polling};
use crate::exit::Exit;
use crate::units::{Size, Span};

/// What the results count.
const RULE: &str = "payload bytes count once; 1 GB is 10^9 bytes; limit: the same calls in Rust, over a connection \
     of their own, in turns with the others";

/// Arguments of `bench ffi`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which libtranship.so [default: next to this binary, in ../lib, or where the system looks]
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// An interpreter with the package `tranship`, to be measured too
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
    /// Block sizes, separated by commas
    #[arg(
        long,
        value_name = "SIZE",
        value_delimiter = ',',
        value_parser = payload,
        default_value = "1MiB"
    )]
    sizes: Vec<Size>,
    /// Keys of one lookup
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    keys: u32,
    /// Time for each line of the result
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    time: Span,
    /// Bytes of the blocks that are used in turn, at least 4 of each size
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    working_set: Size,
    /// Which daemon; without --connect, one is started for the measurement.
    #[command(flatten)]
    target: Target,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        // The library waits as it always does.
        let plan =
            Plan { time: self.time.duration(), busy: false, working_set: self.working_set.bytes() };
        let path = self.library.clone().unwrap_or_else(usual_path);
        let library = Library::load(&path).map_err(Error::Bench)?;
        if let Some(addresses) = &self.target.to {
            return self.measure(context, plan, library, addresses);
        }
        let sizes = self.sizes.iter().map(|size| ffi::capacity(&plan, size.bytes()));
        let capacity = Size::new(sizes.max().unwrap_or(64 << 20));
        let polling = Some(Polling::Adaptive);
        let settings = Settings { capacity: Some(capacity), polling, ..Settings::default() };
        let daemon = Server::start(context, &settings)?;
        let exit = self.measure(context, plan, library, &Addresses::one(daemon.address().clone()));
        daemon.stop()?;
        exit
    }

    fn measure(
        &self,
        context: &Context,
        plan: Plan,
        library: Library,
        to: &Addresses,
    ) -> Result<Exit, Error> {
        let tenant = self.target.tenant.as_str();
        let config = context.config_with(None)?.config;
        let token = token(&config, tenant);
        let dial = dial(config, Some(to), self.target.token_file.as_deref())?;
        let client = dial.connect(|client| {
            client
                .name("tranship bench")
                .timeout(self.target.timeout.duration())
                .tenant(tenant, token.as_str())
        })?;
        let identity = ffi::identity(&client, tenant);
        let cache = client.cache(identity.clone());
        let address = to.iter().next().map(ToString::to_string).unwrap_or_default();
        let connection =
            library.connect(&address, token.as_str(), &identity).map_err(Error::Bench)?;
        let mut callers: Vec<Box<dyn Caller>> = vec![Box::new(connection)];
        if let Some(python) = &self.python {
            let memory = self.sizes.iter().map(|size| plan.working_set_for(size.bytes())).max();
            let memory = memory.unwrap_or_default();
            let python = Interpreter::start(python, &address, token.as_str(), &identity, memory);
            callers.push(Box::new(python.map_err(Error::Bench)?));
        }
        let mut ops = vec![Op::Lookup { keys: self.keys }];
        ops.extend(self.sizes.iter().map(|size| Op::Get { size: size.bytes() }));
        let count = callers.len() * ops.len();
        let lines = callers.iter_mut().flat_map(|caller| {
            let (plan, cache) = (&plan, &cache);
            ops.iter().map(move |op| bench::ffi::measure(plan, cache, caller.as_mut(), *op))
        });
        report::print(context, RULE, count, lines)?;
        Ok(Exit::Done)
    }
}
