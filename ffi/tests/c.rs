//! Programs in C and C++ that use all of the interface, and misuse it: compiled here, run plainly, under
//! the address sanitizer (leaks too) and under valgrind.

#![expect(clippy::print_stdout, reason = "says what is skipped")]

mod toolchain;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use tranship_cache::tier::Tier;
use tranship_tests::below::Scripted;
use tranship_tests::daemon::Daemon;
use tranship_transport::Kind;
use tranship_transport::fabric::shm;

use toolchain::{Toolchain, run};

const PROGRAM: [&str; 5] = ["main.c", "transport.c", "cache.c", "misuse.c", "forked.c"];

/// A daemon with a tier below memory, and where it is.
fn daemon(directory: &Path) -> (Daemon, String) {
    let socket = directory.join("tranship.sock");
    let tiers = [Scripted::new(Tier::Nvme)];
    let daemon = Daemon::above(&tiers, 64 << 20, |engine| {
        engine.fabric(shm::Config::new().listen_at(&socket))
    });
    let address = daemon.address(Kind::Shm);
    (daemon, format!("unix://{}", address.endpoint))
}

/// How often the program in C forks, with threads in the middle of calls.
const FORKS: &str = "8";
/// One fork while no other thread is in a call. The address sanitizer's allocator has a lock of its own, which is
/// not let go in a child when another thread held it; valgrind runs one thread at a time, and would take
/// minutes.
const QUIET_FORK: &str = "1";

/// Runs a program with a daemon of its own; it says "done".
fn with_daemon(mut command: Command, forks: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (daemon, address) = daemon(directory.path());
    let output = run(command.arg(address).arg(forks));
    assert_eq!(output, "done\n");
    drop(daemon);
}

fn c() -> Vec<std::path::PathBuf> {
    PROGRAM.iter().map(|name| toolchain::root().join("tests/ffi").join(name)).collect()
}

fn cpp() -> Vec<std::path::PathBuf> {
    vec![toolchain::root().join("tests/ffi/all.cpp")]
}

#[test]
fn c_uses_all_of_it() {
    let tools = Toolchain::get();
    with_daemon(tools.command(&tools.compile("plain", &c(), &[])), FORKS);
}

#[test]
fn cpp_uses_it_too() {
    let tools = Toolchain::get();
    with_daemon(tools.command(&tools.compile("plain", &cpp(), &[])), FORKS);
}

#[test]
fn the_static_library_does_as_well() {
    let tools = Toolchain::get();
    with_daemon(Command::new(tools.compile_static("static", &c())), FORKS);
}

#[test]
fn nothing_leaks_and_no_byte_is_out_of_bounds() {
    let tools = Toolchain::get();
    if !tools.has_sanitizer() {
        println!("skipped: this compiler has no address sanitizer");
        return;
    }
    for sources in [c(), cpp()] {
        let program = tools.compile("asan", &sources, &["-fsanitize=address"]);
        with_daemon(tools.command(&program), QUIET_FORK);
    }
}

#[test]
fn valgrind_has_nothing_to_say() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not installed");
        return;
    }
    let tools = Toolchain::get();
    for sources in [c(), cpp()] {
        let program = tools.compile("plain", &sources, &[]);
        let mut valgrind = tools.command(Path::new("valgrind"));
        valgrind
            .args(["--quiet", "--fair-sched=yes", "--error-exitcode=9", "--leak-check=full"])
            .args(["--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"])
            .arg(program);
        with_daemon(valgrind, QUIET_FORK);
    }
}

#[test]
fn the_examples_run() {
    let tools = Toolchain::get();
    let example = |name: &str| vec![toolchain::root().join("ffi/examples").join(name)];
    let cache = tools.compile("plain", &example("cache.c"), &[]);
    let directory = tempfile::tempdir().unwrap();
    let (daemon, address) = daemon(directory.path());
    let first = run(tools.command(&cache).arg(&address));
    assert_eq!(first, "0 of 8 blocks are there\n8 of 8 blocks were loaded\n");
    let second = run(tools.command(&cache).arg(&address));
    assert_eq!(second, "8 of 8 blocks are there\n8 of 8 blocks were loaded\n");
    drop(daemon);
    let output = tools.command(&cache).arg(&address).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "nobody is there");
    assert!(
        told.contains(&address["unix://".len()..]) && told.contains("tranship serve"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 1, "{told}");
    let transport = tools.compile("plain", &example("transport.c"), &[]);
    let output = run(&mut tools.command(&transport));
    assert!(output.contains("the child has got: hello\n"), "{output}");
    assert!(output.contains("transfer 42 is done\n"), "{output}");
}

/// The programs call every function that there is.
#[test]
fn nothing_is_left_out() {
    let header = std::fs::read_to_string(toolchain::root().join("ffi/include/tranship.h")).unwrap();
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    let programs: String =
        c().into_iter().chain([toolchain::root().join("tests/ffi/check.h")]).map(read).collect();
    let code = header.lines().filter(|line| !line.trim_start().starts_with("//"));
    let names: BTreeSet<String> = code
        .flat_map(|line| line.split("tranship_").skip(1))
        .filter_map(|rest| {
            let (name, _) = rest.split_once('(')?;
            let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            is_name.then(|| format!("tranship_{name}"))
        })
        .collect();
    assert!(names.len() > 100, "{names:?}");
    // For C++ alone.
    for name in names.into_iter().filter(|name| *name != "tranship_init") {
        let called = programs.contains(&format!("{name}("));
        assert!(called || programs.contains(&format!("{name},")), "{name} is never called");
    }
}
