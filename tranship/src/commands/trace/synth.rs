//! `tranship trace synth`

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use serde_json::json;

use crate::commands::{Context, Error};
use crate::exit::Exit;
use crate::suggest;
use crate::trace::Request;
use crate::trace::kinds::Kind;
use crate::trace::synth::Recipe;
use crate::units::human;

/// Arguments of `trace synth`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of requests
    #[arg(long, value_name = "N", default_value_t = 500)]
    requests: usize,
    /// The same seed makes the same trace
    #[arg(long, value_name = "N", default_value_t = 2)]
    seed: u64,
    /// What traffic: conversation, agents, documents, one-shot, loops, phases, tenants, recency or
    /// frequency
    #[arg(long, value_name = "KIND", default_value = "conversation", value_parser = kind)]
    kind: Kind,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn kind(text: &str) -> Result<Kind, String> {
    let known = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    known.ok_or_else(|| {
        let names = Kind::ALL.map(Kind::name);
        let hint = suggest::hint(text, names);
        format!("unknown kind{hint}; known kinds: {}", names.join(", "))
    })
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let requests = self.kind.trace(Recipe { requests: self.requests, seed: self.seed });
        let Some(path) = &self.output else {
            // The trace itself is the result, with or without --json.
            write(&requests, BufWriter::new(io::stdout().lock()))?;
            return Ok(Exit::Done);
        };
        File::create(path)
            .and_then(|file| write(&requests, BufWriter::new(file)))
            .map_err(|source| Error::Write { path: path.clone(), source })?;
        if context.output.is_json() {
            let object = json!({ "file": path, "kind": self.kind.name(), "requests": requests.len(), "seed": self.seed });
            context.output.object("trace-synth", &object)?;
        } else {
            let count = human::count(requests.len() as u64);
            context.output.line(format_args!("{count} requests in {}", path.display()))?;
        }
        Ok(Exit::Done)
    }
}

fn write(requests: &[Request], mut to: impl Write) -> io::Result<()> {
    for request in requests {
        serde_json::to_writer(&mut to, request)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}
