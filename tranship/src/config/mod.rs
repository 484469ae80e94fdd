//! Configuration: one schema, four places a value can come from.
//!
//! A setting `capacity` of the section `dram` is the key `capacity` under `[dram]` in the TOML
//! file, the environment variable `TRANSHIP_DRAM_CAPACITY` and the flag `--dram-capacity`. Later
//! places win: default, file, environment, flag. Each effective value remembers its [`Source`],
//! and `tranship config explain` prints them all. A name nobody knows is an error, never ignored.
//!
//! The schema is written once, in [`schema`]; names, help texts, flags, variables and the table
//! that `explain` prints follow from it.

mod error;
mod file;
mod flags;
mod load;
pub mod schema;
mod section;
mod token;
mod value;

pub use error::Error;
pub use flags::{Flags, LogFlags};
pub use load::{Inputs, Loaded, Source};
pub use schema::Config;
pub use section::{Field, Section, Setting, settings};
pub use token::{TokenError, token};
pub use tranship_cache::client::daemon::{Address, AddressError, Addresses, runtime_dir};
pub use value::{
    CodecName, DiskIo, FilePath, HugePages, IngestName, LogFormat, LogLevel, Maybe, Name, Names,
    Pairs, Percent, PolicyName, Polling, Secret, Text, Url, Value,
};
