//! Texts: descriptors, traces, configuration files, sizes and durations.

use std::fmt::{Debug, Display};
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use tranship_cache::{IdentityId, Key};
use tranship_cli::config::{self, Inputs, Loaded};
use tranship_cli::trace::Reader;
use tranship_cli::units::{Size, Span};
use tranship_transport::{Address, Descriptor};

/// A descriptor handed over as JSON, and an address.
pub fn descriptor(bytes: &[u8]) {
    if let Ok(descriptor) = serde_json::from_slice::<Descriptor>(bytes) {
        let again = serde_json::to_vec(&descriptor).expect("it can be written");
        assert_eq!(serde_json::from_slice::<Descriptor>(&again).expect("and read"), descriptor);
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    round_trips::<Address>(text);
}

/// A trace: every error names the line, and the reader ends after it.
pub fn trace(bytes: &[u8]) {
    let mut reader = Reader::new("fuzz", bytes);
    let mut lines = 0;
    while let Some(request) = reader.next() {
        lines += 1;
        assert!(lines <= bytes.len() + 1, "more requests than bytes");
        if let Err(error) = request {
            assert!(error.to_string().starts_with("fuzz"), "{error}");
            assert!(reader.next().is_none(), "it goes on after an error");
        }
    }
}

/// A configuration file: what was loaded can be explained, and every error names the file.
pub fn config(bytes: &[u8]) {
    thread_local! {
        // In memory, and one for each process that fuzzes.
        static FILE: PathBuf =
            PathBuf::from(format!("/dev/shm/tranship-fuzz-{}.toml", std::process::id()));
    }
    FILE.with(|path| {
        fs::write(path, bytes).expect("/dev/shm can be written to");
        let loaded = Loaded::load(&Inputs { file: Some(path), ..Inputs::default() });
        fs::remove_file(path).expect("it was there");
        match loaded {
            Ok(loaded) => {
                assert!(loaded.explain().count() > 0);
                loaded.explain_tenants().for_each(drop);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

/// Sizes, durations, addresses, keys: what was read prints as something that reads the same.
pub fn units(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    round_trips::<Size>(text);
    round_trips::<Span>(text);
    round_trips::<config::Address>(text);
    round_trips::<Key>(text);
    round_trips::<IdentityId>(text);
}

fn round_trips<T>(text: &str)
where
    T: FromStr<Err: Debug + Display> + Display + PartialEq + Debug,
{
    match text.parse::<T>() {
        Ok(value) => {
            let printed = value.to_string();
            let again = printed.parse::<T>();
            assert!(
                again.as_ref().is_ok_and(|it| *it == value),
                "{text:?}: {printed:?}: {again:?}"
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
