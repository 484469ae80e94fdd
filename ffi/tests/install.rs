//! What is installed, and what it exports.

#![expect(clippy::print_stdout, reason = "says what is skipped")]

mod toolchain;

use std::process::Command;

use toolchain::{Toolchain, root, run};

#[test]
fn every_symbol_is_of_the_interface_and_has_a_version() {
    let tools = Toolchain::get();
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only", "--with-symbol-versions"]).arg(tools.library());
    if Command::new("nm").arg("--version").output().is_err() {
        println!("skipped: nm of binutils is not installed");
        return;
    }
    let said = run(&mut nm);
    let symbols: Vec<&str> = said.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    let (versions, symbols): (Vec<&str>, Vec<&str>) =
        symbols.into_iter().partition(|symbol| !symbol.contains('@'));
    assert_eq!(versions, ["TRANSHIP_1"]);
    let header = std::fs::read_to_string(root().join("ffi/include/tranship.h")).unwrap();
    for symbol in &symbols {
        let name = symbol.strip_suffix("@@TRANSHIP_1").unwrap_or_else(|| panic!("{symbol}"));
        assert!(header.contains(&format!("{name}(")), "{name} is exported, and not in the header");
    }
    assert!(symbols.len() > 100, "{symbols:?}");
}

/// No library that a machine may lack is needed to load it.
#[test]
fn it_needs_the_c_library_alone() {
    let tools = Toolchain::get();
    if Command::new("readelf").arg("--version").output().is_err() {
        println!("skipped: readelf of binutils is not installed");
        return;
    }
    let said = run(Command::new("readelf").arg("-d").arg(tools.library()));
    let named = |tag: &str| -> Vec<String> {
        let lines = said.lines().filter(|line| line.contains(tag));
        let name = |line: &str| Some(line.split_once('[')?.1.trim_end_matches(']').to_owned());
        lines.filter_map(name).collect()
    };
    assert_eq!(named("(SONAME)"), ["libtranship.so.1"]);
    for library in named("(NEEDED)") {
        let usual = ["libc.so", "libgcc_s.so", "libm.so", "libdl.so", "libpthread.so", "ld-linux"];
        assert!(usual.iter().any(|usual| library.starts_with(usual)), "{library}");
    }
    assert!(said.contains("NODELETE"), "its threads outlive a dlclose(3): {said}");
}

#[test]
fn programs_are_compiled_against_what_was_installed() {
    let tools = Toolchain::get();
    let prefix = tempfile::tempdir().unwrap();
    let install = || Command::new(root().join("scripts/install-ffi"));
    let said = run(install().arg(prefix.path()).arg(tools.archive()));
    assert!(said.contains("installed libtranship 0."), "{said}");
    let relative = install().arg("somewhere").arg(tools.archive()).output().unwrap();
    assert!(!relative.status.success());
    if Command::new("pkg-config").arg("--version").output().is_err() {
        println!("skipped: pkg-config is not installed");
        return;
    }
    let ask = |flags: &[&str]| {
        let mut command = Command::new("pkg-config");
        command.env("PKG_CONFIG_PATH", prefix.path().join("lib/pkgconfig")).args(flags);
        run(command.arg("tranship"))
    };
    let flags = ask(&["--cflags", "--libs"]);
    let program = prefix.path().join("cache");
    run(Command::new("cc")
        .arg(root().join("ffi/examples/cache.c"))
        .args(flags.split_whitespace())
        .arg("-o")
        .arg(&program));
    let output = Command::new(&program)
        .env("LD_LIBRARY_PATH", prefix.path().join("lib"))
        .arg("unix:///nowhere/at/all.sock")
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("/nowhere/at/all.sock: nobody answers there"), "{told}");
}
