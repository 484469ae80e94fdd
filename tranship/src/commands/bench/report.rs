//! How the results of both benchmarks are printed.

use crate::bench::line::{Beside, Called, Load, Noise, Paged, Posts};
use crate::bench::{self, Line};
use crate::commands::{Context, Error};
use crate::output::Table;
use crate::units::{Size, human};

/// Prints the lines: as they come with `--json`, else as a table in the end.
pub(super) fn print(
    context: &Context,
    rule: &str,
    count: usize,
    lines: impl Iterator<Item = Result<Line, bench::Error>>,
) -> Result<(), Error> {
    let output = &context.output;
    let mut progress = output.progress("measuring", count as u64);
    let mut table = Table::new([
        "op", "size", "batch", "GB/s", "limit", "ratio", "keys/s", "latency", "p50 µs", "p99 µs",
        "n", "besides",
    ]);
    for column in [1, 2, 3, 4, 5, 6, 8, 9, 10] {
        table = table.right(column);
    }
    let mut last = None;
    for (done, line) in (1..).zip(lines) {
        let line = line?;
        if output.is_json() {
            output.object("bench", &line)?;
        } else {
            table.row(row(&line));
        }
        progress.at(done);
        last = Some(line);
    }
    drop(progress);
    if let Some(line) = last.filter(|_| !output.is_json()) {
        let Noise { cpu, cores, load_1m } = &line.noise;
        output.line(format_args!(
            "{} over {} · {} polling · {cpu}, {cores} cores, load {load_1m}",
            line.bench, line.fabric, line.polling
        ))?;
        output.line(format_args!("counted: {rule}"))?;
        output.table(&table)?;
    }
    Ok(())
}

fn row(line: &Line) -> [String; 12] {
    let (rate, limit, ratio) = line.throughput.map_or_else(Default::default, |it| {
        let two = |value: f64| format!("{value:.2}");
        let known = |value: Option<f64>| value.map_or_else(String::new, two);
        (two(it.gb_per_s), known(it.limit_gb_per_s), known(it.ratio))
    });
    [
        line.op.to_owned(),
        if line.size == 0 { String::new() } else { Size::new(line.size).to_string() },
        line.batch.to_string(),
        rate,
        limit,
        ratio,
        line.keys_per_s.map_or_else(String::new, |keys| human::count(keys as u64)),
        line.latency.name().to_owned(),
        format!("{:.2}", line.p50_us),
        format!("{:.2}", line.p99_us),
        human::count(line.n),
        besides(line),
    ]
}

/// What only some operations have.
fn besides(line: &Line) -> String {
    if let Some(Paged { pages, pages_per_s, post_p50_us, .. }) = line.paged {
        let rate = human::count(pages_per_s as u64);
        return format!("{rate} pages/s, {pages} posted in {post_p50_us:.2} µs");
    }
    if let Some(Posts { writes_per_s, post_ns }) = line.posts {
        return format!("{} writes/s, {post_ns:.0} ns each", human::count(writes_per_s as u64));
    }
    if let Some(Called { caller, rust_p50_us, time_to_rust }) = line.called {
        return format!("{caller}: {time_to_rust:.3} times Rust, whose p50 is {rust_p50_us:.2} µs");
    }
    if let Some(p50) = line.limit_p50_us {
        let limit = if line.bench == "object" { "bare requests" } else { "plain sockets" };
        return format!("{limit}: p50 {p50:.2} µs");
    }
    match line.beside {
        Some(Beside { load: Load::None, .. }) => Load::None.name().to_owned(),
        Some(Beside { load, load_gb_per_s, p99_to_idle, .. }) => {
            let what = load.name();
            format!("{what} at {load_gb_per_s:.2} GB/s: p99 {p99_to_idle:.1} times that alone")
        }
        None => String::new(),
    }
}
