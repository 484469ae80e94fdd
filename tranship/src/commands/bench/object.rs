//! `tranship bench object`

use clap::ValueEnum;

use super::{Options, payload, report};
use crate::bench::object::{Bench, Op, RULE, Target};
use crate::commands::{Context, Error};
use crate::exit::Exit;
use crate::units::Size;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Operation {
    /// Blocks out of the bucket, of each size and with each number in flight.
    Load,
    /// Blocks into the bucket, a pack at a time.
    Store,
}

/// Arguments of `bench object`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Bucket, as object.url takes it; without it a server of its own is measured (s3s-fs or moto, if
    /// the PATH has one), or a directory
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Setting of the service; may be given several times
    #[arg(long, value_name = "NAME=VALUE", requires = "url", value_parser = setting)]
    setting: Vec<(String, String)>,
    /// Operations, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "load,store")]
    ops: Vec<Operation>,
    /// Block sizes, separated by commas
    #[arg(
        long,
        value_name = "SIZE",
        value_delimiter = ',',
        value_parser = payload,
        default_value = "64KiB,1MiB,4MiB"
    )]
    sizes: Vec<Size>,
    /// Loads in flight, separated by commas
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "1,8,32",
        value_parser = clap::value_parser!(u32).range(1..=1024)
    )]
    in_flight: Vec<u32>,
    #[command(flatten)]
    options: Options,
}

/// What is given may be a secret, so it is not repeated.
fn setting(text: &str) -> Result<(String, String), &'static str> {
    let pair = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let target = self.url.clone().map(|url| Target { url, settings: self.setting.clone() });
        let bench = Bench::new(self.options.plan(), target)?;
        let mut ops = Vec::new();
        for op in &self.ops {
            for size in self.sizes.iter().map(|size| size.bytes()) {
                match op {
                    Operation::Load => {
                        let in_flight = self.in_flight.iter();
                        ops.extend(in_flight.map(|&at_once| Op::Load { size, at_once }));
                    }
                    Operation::Store => ops.push(Op::Store { size }),
                }
            }
        }
        report::print(context, RULE, ops.len(), ops.iter().map(|op| bench.measure(*op)))?;
        Ok(Exit::Done)
    }
}
