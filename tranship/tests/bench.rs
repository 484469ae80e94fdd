//! Short runs of the benchmarks: every line is there, whole, and makes sense.

use std::io::Write as _;
use std::process::Command;

use serde_json::Value;

/// Runs with `--json` and returns the lines.
fn lines(args: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_tranship"))
        .args(args)
        .args(["--json", "--time", "50ms", "--working-set", "256KiB"])
        .env_clear()
        .output()
        .expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn number(line: &Value, field: &str) -> f64 {
    line[field].as_f64().unwrap_or_else(|| panic!("no number {field} in {line}"))
}

/// What each line has, whatever it measured.
fn check(line: &Value, bench: &str, latency: &str) {
    assert_eq!(line["schema"], "tranship.bench/1");
    assert_eq!((&line["bench"], &line["fabric"]), (&bench.into(), &"shm".into()));
    assert_eq!(line["latency"], latency);
    assert_eq!(line["polling"], "adaptive");
    assert!(line["cpu"].is_string() && line["op"].is_string(), "{line}");
    for positive in ["batch", "p50_us", "p99_us", "n", "cores"] {
        assert!(number(line, positive) > 0.0, "{positive} of {line}");
    }
    for any in ["size", "copy_threads", "working_set", "load_1m"] {
        assert!(number(line, any) >= 0.0, "{any} of {line}");
    }
    assert!(number(line, "p50_us") <= number(line, "p99_us"), "{line}");
}

fn check_rates(line: &Value) {
    for positive in ["gb_per_s", "limit_gb_per_s", "ratio"] {
        assert!(number(line, positive) > 0.0, "{positive} of {line}");
    }
}

#[test]
fn transport_lines_are_whole() {
    let lines = lines(&["bench", "transport", "--sizes", "4KiB,100,128KiB", "--batch", "3"]);
    assert_eq!(lines.len(), 9);
    let sizes = [4096, 100, 128 << 10].into_iter().cycle();
    for (index, (line, size)) in lines.iter().zip(sizes).enumerate() {
        let (op, latency, batch) =
            [("write", "completion", 3), ("read", "completion", 3), ("pingpong", "one_way", 1)]
                [index / 3];
        check(line, "transport", latency);
        check_rates(line);
        assert_eq!((&line["op"], &line["batch"]), (&op.into(), &batch.into()));
        assert_eq!(line["size"], size);
        assert!(number(line, "working_set") >= 4.0 * f64::from(size));
    }
}

#[test]
fn cache_lines_are_whole() {
    let lines = lines(&["bench", "cache", "--sizes", "16KiB", "--keys", "8"]);
    let ops = [("get", 1), ("get", 16), ("put", 1), ("lookup", 8), ("lookup", 1024)];
    assert_eq!(lines.len(), ops.len());
    for (line, (op, batch)) in lines.iter().zip(ops) {
        check(line, "cache", "call");
        assert_eq!((&line["op"], &line["batch"]), (&op.into(), &batch.into()));
        if op == "lookup" {
            assert!(number(line, "keys_per_s") > 0.0, "{line}");
            assert_eq!(line["resident_keys"], 32_768);
            assert!(line.get("ratio").is_none(), "no payload, no rate: {line}");
        } else {
            check_rates(line);
        }
    }
}

/// The directory that the tests are built in: `/tmp` may be memory, which is no disk.
const DISK: &str = env!("CARGO_TARGET_TMPDIR");

#[test]
fn every_tier_is_measured_and_found_again_after_a_kill() {
    let tiers =
        ["bench", "cache", "--tiers", "dram,nvme,object", "--sizes", "64KiB", "--path", DISK];
    let lines = lines(&tiers);
    let schemas: Vec<_> = lines.iter().map(|line| line["schema"].as_str().unwrap()).collect();
    let [get, restart] = ["tranship.bench-tier/1", "tranship.bench-restart/1"];
    assert_eq!(schemas, [get, get, restart, get, restart, "tranship.bench-tiers/1"]);
    for (line, tier) in lines.iter().zip(["dram", "nvme", "nvme", "object", "object"]) {
        let gets = if line["schema"] == restart { &line["after"] } else { line };
        assert_eq!((&gets["tier"], &gets["n"]), (&tier.into(), &4.into()), "{line}");
        assert!(number(gets, "p50_us") > 0.0 && number(gets, "gb_per_s") > 0.0, "{line}");
        if line["schema"] == restart {
            assert_eq!((&line["blocks"], &line["recovered"]), (&4.into(), &4.into()), "{line}");
        }
    }
    assert_eq!((&lines[5]["corrupt"], &lines[5]["missing"]), (&0.into(), &0.into()));
}

fn nvme(path: Option<&str>) -> Vec<Value> {
    let place = tempfile::tempdir_in(DISK).expect("a directory for a test");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tranship"));
    command.args(["bench", "nvme", "--json", "--size", "72MiB", "--path"]).arg(place.path());
    command.args(["--sizes", "64KiB,1MiB", "--depths", "3", "--seconds", "250ms"]);
    command.args(["--memory", "1MiB"]).env_clear();
    let output = command.envs(path.map(|path| ("PATH", path))).output().expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(place.path().read_dir().expect("a directory").count(), 0, "the file is removed");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn check_nvme(line: &Value) {
    assert_eq!((&line["schema"], &line["bench"]), (&"tranship.bench/1".into(), &"nvme".into()));
    for positive in ["gb_per_s", "cpu_s_per_gb", "p50_us", "p99_us", "n", "size", "depth"] {
        assert!(number(line, positive) > 0.0, "{positive} of {line}");
    }
    assert!(number(line, "p50_us") <= number(line, "p99_us"), "{line}");
    assert!(line["disk"].as_str().is_some_and(|disk| disk.contains(DISK)), "{line}");
    assert!(line["memory"].is_string() && line["latency"] == "completion", "{line}");
    assert_eq!(line["working_set"], 72 << 20);
    let sums = if line["size"] == 65536 { "inline" } else { "thread" };
    assert_eq!(line["checksums"], sums, "{line}");
}

#[test]
fn nvme_lines_are_whole() {
    // Nobody has fio here.
    let lines = nvme(Some("/nowhere"));
    let ops: Vec<_> = lines.iter().map(|line| line["op"].as_str().expect("an op")).collect();
    assert_eq!(ops, ["read", "read", "write", "write", "lanes", "lanes", "lanes"]);
    for line in &lines {
        check_nvme(line);
        if line["op"] == "lanes" {
            assert!(number(line, "p99_to_idle") > 0.0, "{line}");
        } else {
            assert_eq!(line["skipped"], "fio not found; apt install fio");
            assert!(line.get("ratio").is_none(), "{line}");
        }
    }
}

#[test]
fn nvme_is_measured_beside_fio() {
    let path = std::env::var("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|folder| folder.join("fio").is_file()) {
        // Also when the harness captures the output of a passing test.
        let _ = writeln!(std::io::stderr(), "skipped: fio not found; apt install fio");
        return;
    }
    for line in nvme(Some(&path)).iter().filter(|line| line["op"] != "lanes") {
        check_nvme(line);
        for positive in ["limit_gb_per_s", "ratio", "limit_cpu_s_per_gb", "limit_p50_us"] {
            assert!(number(line, positive) > 0.0, "{positive} of {line}");
        }
        assert!(line.get("skipped").is_none(), "{line}");
    }
}

#[test]
fn object_lines_are_whole() {
    let directory = tempfile::tempdir().unwrap();
    let url = directory.path().to_str().unwrap();
    let sizes = ["--sizes", "64KiB,100000", "--in-flight", "1,8"];
    let lines = lines(&[&["bench", "object", "--url", url][..], &sizes].concat());
    let ops =
        [("load", 65_536, 1), ("load", 65_536, 8), ("load", 100_000, 1), ("load", 100_000, 8)];
    let ops = [&ops[..], &[("store", 65_536, 1), ("store", 100_000, 1)]].concat();
    assert_eq!(lines.len(), ops.len());
    for (line, (op, size, batch)) in lines.iter().zip(ops) {
        assert_eq!((&line["bench"], &line["fabric"]), (&"object".into(), &"directory".into()));
        assert_eq!((&line["op"], &line["size"]), (&op.into(), &size.into()), "{line}");
        assert_eq!(line["batch"], batch);
        check_rates(line);
        assert!(number(line, "limit_p50_us") > 0.0 && number(line, "p50_us") > 0.0, "{line}");
    }
    let left = std::fs::read_dir(url).unwrap().flatten().filter(|left| left.path().is_file());
    assert_eq!(left.count(), 0, "it takes away what it wrote");
}

#[test]
fn what_cannot_be_measured_is_said_in_one_line() {
    for (args, exit, words) in [
        (&["transport", "--sizes", "0"][..], 2, "expected at least one byte"),
        (&["transport", "--batch", "0"], 2, "0 is not in 1..=1024"),
        (&["cache", "--working-set", "9000TiB"], 6, "a smaller --working-set needs less"),
        (&["transport", "--working-set", "9000TiB"], 6, "a smaller --working-set needs less"),
        (&["cache", "--connect", "tcp://127.0.0.1:1"], 5, "nobody answers there"),
        (&["cache", "--to", "unix:///nowhere/at.sock"], 5, "start one with `tranship serve`"),
        (&["nvme", "--path", DISK, "--sizes", "1000"], 2, "expected a multiple of 4096 bytes"),
        (&["nvme", "--path", DISK, "--size", "1MiB"], 2, "is too short for what is in flight"),
        (&["nvme", "--path", DISK, "--size", "9000TiB"], 6, "the file system has"),
        (&["nvme", "--path", "/proc/version"], 2, "--overwrite measures a file"),
        (&["nvme", "--path", "/dev/shm", "--size", "1GiB"], 6, "lies on tmpfs, which is memory"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tranship"))
            .arg("bench")
            .args(args)
            .output()
            .expect("the binary starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {stderr}");
        assert!(stderr.contains(words) && stderr.lines().count() == 1, "{args:?}: {stderr}");
    }
}

#[test]
fn a_library_that_is_not_there_is_told_in_one_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_tranship"))
        .args(["bench", "ffi", "--library", "/no/such/libtranship.so"])
        .env_clear()
        .output()
        .expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("/no/such/libtranship.so") && stderr.contains("make ffi"), "{stderr}");
}
