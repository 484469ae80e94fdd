//! The header is what the code says.

use std::path::Path;

/// The files it is made from, in the order in which they are read.
const FILES: [&str; 27] = [
    "abi", "status", "engine", "peer", "region", "window", "remote", "pages", "queue", "transfer",
    "reason", "submit", "counter", "watcher", "barrier", "message", "client", "identity", "cache",
    "keys", "blocks", "lease", "room", "jobs", "reasons", "events", "call",
];

#[test]
fn the_committed_header_is_what_the_code_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in FILES {
        builder = builder.with_src(root.join(format!("src/{file}.rs")));
    }
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let path = root.join("include/tranship.h");
    if std::env::var_os("TRANSHIP_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(made == committed, "ffi/include/tranship.h is not what the code says: `make header`");
}

/// Every function is in the header, so that a new file of the crate is not forgotten above.
#[test]
fn every_function_is_in_the_header() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = std::fs::read_to_string(root.join("include/tranship.h")).unwrap();
    let mut functions = 0;
    for entry in std::fs::read_dir(root.join("src")).unwrap() {
        let code = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for part in code.split("extern \"C\" fn ").skip(1) {
            let name = part.split('(').next().unwrap();
            if name.starts_with("tranship_") {
                assert!(header.contains(&format!("{name}(")), "{name}");
                functions += 1;
            }
        }
    }
    assert!(functions > 100, "{functions}");
}
