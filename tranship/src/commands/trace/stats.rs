//! `tranship trace stats FILE`

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::commands::{Context, Error};
use crate::exit::Exit;
use crate::output::Table;
use crate::presets::{BLOCK_TOKENS, Preset};
use crate::trace::Reader;
use crate::trace::stats::{Counter, Stats};
use crate::units::human;

/// Arguments of `trace stats`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Trace to read; - is standard input
    file: PathBuf,
    /// Model whose KV geometry turns blocks into bytes
    #[arg(long, value_name = "PRESET")]
    model: Option<String>,
}

/// The counts as an object.
#[derive(Serialize)]
struct Object<'a> {
    file: String,
    #[serde(flatten)]
    stats: &'a Stats,
    ideal_hit_ratio: f64,
    block_tokens: u32,
    #[serde(flatten)]
    bytes: Option<Bytes>,
}

/// What the blocks weigh for one model.
#[derive(Serialize)]
struct Bytes {
    model: &'static str,
    block_bytes: u64,
    lookup_bytes: u64,
    unique_bytes: u64,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let preset = self.model.as_deref().map(Preset::find).transpose()?;
        let total_bytes = std::fs::metadata(&self.file).map_or(0, |file| file.len());
        let mut progress = context.output.progress("reading", total_bytes);
        let mut reader = Reader::open(&self.file)?;
        let mut counter = Counter::default();
        while let Some(request) = reader.next() {
            counter.add(&request?);
            progress.at(reader.bytes());
        }
        drop(progress);
        let stats = counter.stats();
        let bytes = preset.map(|preset| Bytes {
            model: preset.name,
            block_bytes: preset.bytes_per_block(),
            lookup_bytes: stats.lookups.saturating_mul(preset.bytes_per_block()),
            unique_bytes: stats.unique_full_blocks.saturating_mul(preset.bytes_per_block()),
        });
        if context.output.is_json() {
            context.output.object(
                "trace-stats",
                &Object {
                    file: self.file.display().to_string(),
                    ideal_hit_ratio: stats.ideal_hit_ratio(),
                    stats: &stats,
                    block_tokens: BLOCK_TOKENS,
                    bytes,
                },
            )?;
        } else {
            context.output.table(&table(&stats, bytes.as_ref()))?;
        }
        Ok(Exit::Done)
    }
}

fn table(stats: &Stats, bytes: Option<&Bytes>) -> Table {
    let count = human::count;
    let mut table = Table::pairs();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    let duration = human::time(Duration::from_millis(stats.duration_ms));
    row("requests", format!("{} over {duration}", count(stats.requests)));
    row("tokens", format!("{} in, {} out", count(stats.input_tokens), count(stats.output_tokens)));
    row("blocks", format!("{} of {BLOCK_TOKENS} tokens", count(stats.blocks)));
    row(
        "unique",
        format!(
            "{} ({})",
            count(stats.unique_blocks),
            human::percent(stats.unique_blocks, stats.blocks)
        ),
    );
    row("lookups", format!("{} full blocks", count(stats.lookups)));
    row(
        "ideal hits",
        format!(
            "{} ({})",
            count(stats.ideal_hits),
            human::percent(stats.ideal_hits, stats.lookups)
        ),
    );
    if let Some(bytes) = bytes {
        row("block", format!("{} for {}", human::size(bytes.block_bytes), bytes.model));
        row("looked up", human::size(bytes.lookup_bytes));
        row("working set", human::size(bytes.unique_bytes));
    }
    table
}
