//! `tranship trace replay`

use std::path::PathBuf;

use crate::config::Address;
use crate::presets::{Preset, Unknown};
use crate::units::Size;

/// Arguments of `trace replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Trace to replay
    #[arg(long, value_name = "FILE")]
    pub trace: PathBuf,
    /// Model whose KV geometry gives the bytes of a token
    #[arg(long, value_name = "PRESET", default_value = "qwen3-0.6b")]
    pub model: String,
    /// Bytes of a token in place of the model's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub bytes_per_token: Option<u64>,
    /// Engine processes
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub engines: usize,
    /// Memory of the cache [default: dram.capacity of the configuration]
    #[arg(long, value_name = "SIZE")]
    pub capacity: Option<Size>,
    /// Stop after so many requests [default: all]
    #[arg(long, value_name = "N")]
    pub requests: Option<u64>,
    /// Running daemon to use [default: start one for the replay]
    #[arg(long, value_name = "ADDRESS")]
    pub to: Option<Address>,
}

impl Args {
    /// Bytes of one token: as given, else those of the model.
    ///
    /// # Errors
    /// No model of that name.
    pub fn token_bytes(&self) -> Result<u64, Unknown> {
        let preset = Preset::find(&self.model)?;
        Ok(self.bytes_per_token.unwrap_or(preset.bytes_per_token()))
    }
}
