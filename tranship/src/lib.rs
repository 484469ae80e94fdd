//! The library behind the `tranship` binary.
//!
//! | module | what it holds |
//! |---|---|
//! | [`mod@bench`] | measurements of the transport and of the cache |
//! | [`cli`] | the command line: global options, parsing, exit codes on the way out |
//! | [`commands`] | one file per command, and the one error they all end in |
//! | [`config`] | the configuration schema, where each value came from, and how to load it |
//! | [`doctor`] | what this machine can do: host, fabrics, limits |
//! | [`exit`] | the meaning of each exit code |
//! | [`logging`] | structured logs on standard error, text or JSON |
//! | [`output`] | tables, colours, progress, JSON lines |
//! | [`presets`] | the KV geometry of public models |
//! | [`serve`] | the daemon: arenas, protocol server, administration, metrics |
//! | [`trace`] | KV-reuse traces: reading, statistics, replay plan, block content, synthesis |
//! | [`units`] | sizes and durations: parsed once, printed the same way everywhere |

#![deny(unsafe_code)]

pub mod bench;
pub mod cli;
pub mod commands;
pub mod config;
pub mod doctor;
pub mod exit;
pub mod logging;
pub mod net;
mod orphan;
pub mod output;
pub mod presets;
pub mod serve;
mod suggest;
pub mod trace;
pub mod units;
