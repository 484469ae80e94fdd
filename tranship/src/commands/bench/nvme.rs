//! `tranship bench nvme`

use std::path::PathBuf;

use clap::ValueEnum;
use tranship_cache::tier::nvme::disk::{Engine, PAGE_BYTES};

use crate::bench::line::{Beside, Load, Noise};
use crate::bench::nvme::content::Checksums;
use crate::bench::nvme::{Bench, Fio, Line, MISSING, Op, Plan, RULE};
use crate::commands::{Context, Error};
use crate::exit::Exit;
use crate::output::Table;
use crate::units::{Size, Span, human};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Operation {
    /// Reads at places drawn by chance.
    Read,
    /// Writes one after the other.
    Write,
    /// Urgent reads of 64 KiB: alone, beside a flood of writes, and in one lane with it.
    Lanes,
}

/// What reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// io_uring where it is to be had.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// Threads.
    Threads,
}

/// Who takes checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sums {
    /// A thread of their own for pieces of 256KiB and more, the one that submits for smaller ones.
    Thread,
    /// The thread that submits.
    Inline,
    /// Nobody: the same work as fio.
    None,
}

/// Arguments of `bench nvme`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to measure: a directory, in which a file is made and removed again, or with --overwrite
    /// a file or a block device [default: the directory for temporary files]
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    /// Write over the file or block device that --path names; all in it is lost
    #[arg(long, requires = "path")]
    overwrite: bool,
    /// Bytes of the disk
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    size: Size,
    /// Memory that pieces go round and round through, at least two of each in flight: more than the
    /// caches hold
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    memory: Size,
    /// Operations, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "read,write,lanes")]
    ops: Vec<Operation>,
    /// Bytes of one operation, separated by commas
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = pages, default_value = "64KiB,1MiB,4MiB")]
    sizes: Vec<Size>,
    /// Operations in flight, separated by commas
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=256), default_value = "1,8,32")]
    depths: Vec<u32>,
    /// Time for each side of each line of the result
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    seconds: Span,
    /// What reads and writes
    #[arg(long, value_enum, default_value_t = By::Auto)]
    engine: By,
    /// Who takes checksums
    #[arg(long, value_enum, default_value_t = Sums::Thread)]
    checksums: Sums,
}

/// Whole pages.
fn pages(text: &str) -> Result<Size, String> {
    match super::payload(text)? {
        size if size.bytes().is_multiple_of(PAGE_BYTES) => Ok(size),
        _ => Err(format!("{text:?}: expected a multiple of {PAGE_BYTES} bytes")),
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let path = self.path.clone().unwrap_or_else(std::env::temp_dir);
        let write = |source| Error::Write { path: path.clone(), source };
        // A directory and all in it goes when this does.
        let (target, _made) = if self.overwrite {
            (path, None)
        } else if path.is_dir() {
            let made = tempfile::Builder::new().prefix("tranship-bench-").tempdir_in(&path);
            let made = made.map_err(write)?;
            (made.path().join("nvme"), Some(made))
        } else {
            let path = path.display();
            let why = format!(
                "{path} is no directory; --overwrite measures a file or a block device and loses what is in it"
            );
            return Err(Error::Usage(why));
        };
        let bytes = self.size.bytes() / PAGE_BYTES * PAGE_BYTES;
        let engine = match self.engine {
            By::Auto => Engine::Auto,
            By::Uring => Engine::Uring,
            By::Threads => Engine::Threads,
        };
        let plan = Plan {
            target,
            bytes,
            memory_bytes: self.memory.bytes(),
            time: self.seconds.duration(),
            engine,
            checksums: match self.checksums {
                Sums::Thread => Checksums::Thread,
                Sums::Inline => Checksums::Inline,
                Sums::None => Checksums::None,
            },
        };
        let ops = self.operations();
        let mut bench = Bench::new(plan, &ops)?;
        let lines = print(context, &mut bench, &ops)?;
        if let Some(noise) =
            lines.last().map(|line| &line.noise).filter(|_| !context.output.is_json())
        {
            head(context, &bench, noise)?;
            context.output.table(&table(&lines))?;
        }
        Ok(Exit::Done)
    }

    fn operations(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        for operation in &self.ops {
            for size in self.sizes.iter().map(|size| size.bytes()) {
                for &depth in &self.depths {
                    match operation {
                        Operation::Read => ops.push(Op::Read { size, depth }),
                        Operation::Write => ops.push(Op::Write { size, depth }),
                        Operation::Lanes => {}
                    }
                }
            }
            if *operation == Operation::Lanes {
                ops.push(Op::Lanes);
            }
        }
        ops
    }
}

/// Measures; with `--json` lines are printed as they come.
fn print(context: &Context, bench: &mut Bench, ops: &[Op]) -> Result<Vec<Line>, Error> {
    let mut progress = context.output.progress("measuring", ops.len() as u64);
    let mut lines = Vec::new();
    for (done, op) in (1..).zip(ops) {
        for line in bench.measure(*op)? {
            if context.output.is_json() {
                context.output.object("bench", &line)?;
            }
            lines.push(line);
        }
        progress.at(done);
    }
    Ok(lines)
}

/// Where, and with what.
fn head(context: &Context, bench: &Bench, noise: &Noise) -> Result<(), Error> {
    let Noise { cpu, cores, load_1m } = noise;
    context.output.line(bench.disk())?;
    let fio = bench.fio().map_or(MISSING, Fio::version);
    context.output.line(format_args!("{fio} · {cpu}, {cores} cores, load {load_1m}"))?;
    context.output.line(format_args!("memory of both: {}", bench.backing()))?;
    context.output.line(format_args!("counted: {RULE}"))?;
    Ok(())
}

fn table(lines: &[Line]) -> Table {
    let mut table = Table::new([
        "op", "size", "depth", "GB/s", "fio", "ratio", "CPU s/GB", "fio", "p50 µs", "fio",
        "p99 µs", "fio", "n", "besides",
    ]);
    for column in 1..=12 {
        table = table.right(column);
    }
    for line in lines {
        table.row(row(line));
    }
    table
}

fn row(line: &Line) -> [String; 14] {
    let (two, three) = (|value: f64| format!("{value:.2}"), |value: f64| format!("{value:.3}"));
    let whole = |value: f64| format!("{value:.0}");
    let limit = line.limit.map_or_else(Default::default, |limit| {
        [
            two(limit.limit_gb_per_s),
            two(limit.ratio),
            three(limit.limit_cpu_s_per_gb),
            whole(limit.limit_p50_us),
            whole(limit.limit_p99_us),
        ]
    });
    let [rate, ratio, cpu, p50, p99] = limit;
    [
        line.op.to_owned(),
        Size::new(line.size).to_string(),
        line.depth.to_string(),
        two(line.gb_per_s),
        rate,
        ratio,
        three(line.cpu_s_per_gb),
        cpu,
        whole(line.p50_us),
        p50,
        whole(line.p99_us),
        p99,
        human::count(line.n),
        besides(line),
    ]
}

/// What only some lines have.
fn besides(line: &Line) -> String {
    match (line.beside, line.skipped) {
        (Some(Beside { load: Load::None, .. }), _) => Load::None.name().to_owned(),
        (Some(Beside { load, load_gb_per_s, p50_to_idle, p99_to_idle }), _) => {
            let what = load.name();
            format!(
                "{what} at {load_gb_per_s:.2} GB/s: p50 {p50_to_idle:.1}, p99 {p99_to_idle:.1} times \
                 that alone"
            )
        }
        (None, Some(why)) => format!("skipped: {why}"),
        (None, None) => String::new(),
    }
}
