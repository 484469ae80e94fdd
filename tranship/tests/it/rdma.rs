//! The daemon and its commands over ofi and verbs, in processes of their own.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::common::{Scene, objects, text};

/// A provider that every machine with libfabric has.
const PROVIDER: (&str, &str) = ("TRANSHIP_OFI_PROVIDER", "tcp;ofi_rxm");

/// Whether `doctor` says that the fabric works here; it says why not otherwise.
fn works(scene: &Scene, fabric: &str) -> bool {
    let output = scene.command(&["doctor", "--json"]).env(PROVIDER.0, PROVIDER.1).output();
    let report = text(&output.expect("the binary starts").stdout);
    let fabrics = objects(&report, "tranship.doctor/1").remove(0)["fabrics"].take();
    let rows = fabrics.as_array().expect("a list");
    let row = rows.iter().find(|row| row["name"] == fabric).expect("a row");
    // A machine that has what it takes must not be passed over because something is broken.
    assert_ne!(row["state"], "warning", "{row}");
    if row["state"] != "ready" {
        let _ = writeln!(std::io::stderr(), "skipped: {fabric}: {}", row["detail"]);
    }
    row["state"] == "ready"
}

/// What a command prints that has to succeed.
fn stdout(scene: &Scene, args: &[&str]) -> String {
    let output = scene.command(args).env(PROVIDER.0, PROVIDER.1).output().expect("it starts");
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn serves(fabric: &str) {
    let scene = Scene::new();
    if !works(&scene, fabric) {
        return;
    }
    let listen = format!("{fabric}://127.0.0.1:0");
    let mut daemon = scene.serve_with(&["--listen", &listen], &[PROVIDER]);
    let to = daemon.listen(fabric);
    let content: String = (0..100_000).map(|n| format!("{n} ")).collect();
    let file = scene.file("block", &content);
    let connect = ["--connect", to.as_str()];
    assert!(stdout(&scene, &[&["put", "name", &file][..], &connect].concat()).contains("stored"));
    assert_eq!(stdout(&scene, &[&["get", "name"][..], &connect].concat()), content);
    assert!(stdout(&scene, &[&["stat"][..], &connect].concat()).contains("1 blocks, 576 KiB"));
    // Administration names the fabric.
    let stat = objects(&stdout(&scene, &["stat", "--json"]), "tranship.stat/1").remove(0);
    assert_eq!(stat["listen"][0], to);
    let peer = stdout(&scene, &["doctor", "peer", &to, "--json"]);
    let peer = objects(&peer, "tranship.doctor-peer/1").remove(0);
    assert_eq!((&peer["fabric"], &peer["mapped"]), (&fabric.into(), &false.into()));
    assert!(peer["ping_p50_us"].as_f64().is_some_and(|time| time > 0.0), "{peer}");
    let rails = peer["rails"].as_array().expect("a list");
    let paths = peer["paths"].as_array().expect("a list");
    assert!(!rails.is_empty() && rails.iter().all(|rail| rail["state"] == "up"), "{peer}");
    let works = |path: &Value| {
        path["state"] == "up" && path["ping_p50_us"].as_f64().is_some_and(|time| time > 0.0)
    };
    assert!(!paths.is_empty() && paths.iter().all(works), "{peer}");
    assert!(paths.iter().all(|path| path["facts"]["to"].is_string()), "{peer}");
    let bench = ["bench", "cache", "--ops", "get", "--sizes", "64KiB", "--time", "20ms", "--json"];
    let lines = stdout(&scene, &[&bench[..], &["--working-set", "1MiB"], &connect].concat());
    let fabric = format!("\"fabric\":\"{fabric}\"");
    assert!(lines.lines().all(|line| line.contains(&fabric)), "{lines}");
    // Libraries under libfabric would end it with 1.
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn a_block_goes_in_and_out_over_ofi() {
    serves("ofi");
}

#[test]
fn a_block_goes_in_and_out_over_verbs() {
    serves("verbs");
}

fn strangers(fabric: &str) {
    let scene = Scene::new();
    if !works(&scene, fabric) {
        return;
    }
    let (token, wrong) = (scene.file("token", "swordfish\n"), scene.file("wrong", "guess\n"));
    let listen = format!("{fabric}://127.0.0.1:0");
    let serve = ["--listen", &listen, "--token-file", &token];
    let daemon = scene.serve_with(&serve, &[PROVIDER]);
    let to = daemon.listen(fabric);
    let stat = ["stat", "--connect", &to];
    for with in [&[][..], &["--token-file", &wrong]] {
        let output =
            scene.command(&[&stat[..], with].concat()).env(PROVIDER.0, PROVIDER.1).output();
        let output = output.expect("it starts");
        let line = text(&output.stderr);
        assert_eq!((output.status.code(), line.lines().count()), (Some(5), 1), "{line}");
        assert!(line.contains(&to.replace("://", ":")), "{line}");
        assert!(line.contains("refuses the token") && line.contains("--token-file"), "{line}");
        // Who knows it is let in all the same.
        stdout(&scene, &[&stat[..], &["--token-file", &token]].concat());
    }
}

#[test]
fn a_stranger_is_turned_away_over_ofi() {
    strangers("ofi");
}

#[test]
fn a_stranger_is_turned_away_over_verbs() {
    strangers("verbs");
}

fn replays(fabric: &str) {
    let scene = Scene::new();
    if !works(&scene, fabric) {
        return;
    }
    let trace = scene.path("trace.jsonl").display().to_string();
    scene.stdout(&["trace", "synth", "--requests", "6", "--output", &trace]);
    let replay = ["trace", "replay", "--trace", &trace, "--bytes-per-token", "8"];
    let token = scene.file("token", "swordfish\n");
    let over = ["--fabric", fabric, "--capacity", "64MiB", "--token-file", &token, "--json"];
    let lines = stdout(&scene, &[&replay[..], &over].concat());
    assert!(lines.contains("\"unavailable\":0") && lines.contains("\"corrupt\":0"), "{lines}");
}

#[test]
fn a_trace_is_replayed_over_ofi() {
    replays("ofi");
}

#[test]
fn a_trace_is_replayed_over_verbs() {
    replays("verbs");
}

fn measures(fabric: &str) {
    let scene = Scene::new();
    if !works(&scene, fabric) {
        return;
    }
    let server = ["bench", "transport", "--fabric", fabric, "--server", "--json"];
    let mut server = scene.command(&server);
    let server = server.env(PROVIDER.0, PROVIDER.1).stdout(Stdio::piped()).spawn();
    let mut server = crate::common::Ended(server.expect("the binary starts"));
    let told = server.line();
    let told = objects(&told, "tranship.bench-server/1").remove(0);
    // The line it prints is the line to be run.
    let client = told["client"].as_str().expect("text").replace('\'', "");
    let client: Vec<&str> = client.split(' ').skip(1).collect();
    let short =
        ["--sizes", "64KiB", "--time", "20ms", "--working-set", "1MiB", "--ops", "write,pingpong"];
    for _ in 0..2 {
        let lines = stdout(&scene, &[&client[..], &short, &["--json"]].concat());
        let lines = objects(&lines, "tranship.bench/1");
        assert_eq!(lines.len(), 2);
        for line in lines {
            assert_eq!(line["fabric"], fabric);
            assert!(line["gb_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{line}");
            assert!(line.get("ratio").is_none(), "no limit is known: {line}");
        }
    }
    let own = ["bench", "transport", "--fabric", fabric];
    let lines = stdout(&scene, &[&own[..], &short, &["--json"]].concat());
    assert_eq!(objects(&lines, "tranship.bench/1").len(), 2);
}

#[test]
fn ofi_is_measured_between_two_processes() {
    measures("ofi");
}

#[test]
fn verbs_are_measured_between_two_processes() {
    measures("verbs");
}

#[test]
fn what_cannot_be_opened_is_one_line_with_a_remedy() {
    let scene = Scene::new();
    let serve = ["serve", "--capacity", "16MiB", "--metrics", "off", "--listen"];
    let line =
        scene.error(6, &[&serve[..], &["verbs://127.0.0.1:0", "--verbs-devices", "no0"]].concat());
    assert!(line.contains("verbs fabric") || line.contains("libibverbs"), "{line}");
    let line =
        scene.error(6, &[&serve[..], &["ofi://127.0.0.1:0", "--ofi-provider", "none"]].concat());
    assert!(line.contains("doctor") || line.contains("install"), "{line}");
    let open = ["bench", "transport", "--fabric", "ofi", "--server", "0.0.0.0:0"];
    assert!(scene.error(2, &open).contains("--token-file"));
    let wrong = ["bench", "transport", "--provider", "tcp"];
    assert!(scene.error(2, &wrong).contains("--fabric ofi"));
    let other = ["bench", "transport", "--fabric", "ofi", "--connect", "tcp:h:1"];
    assert!(scene.error(2, &other).contains("use --fabric tcp"));
}

/// The binary runs where neither library is: both are loaded when they are asked for.
#[test]
fn the_binary_needs_neither_library() {
    let bytes = std::fs::read(Path::new(env!("CARGO_BIN_EXE_tranship"))).expect("it was built");
    let needed = needed(&bytes);
    assert!(needed.iter().any(|name| name.starts_with("libc.so")), "{needed:?}");
    let rdma = |name: &String| ["ibverbs", "fabric", "rdmacm"].iter().any(|it| name.contains(it));
    assert!(!needed.iter().any(rdma), "{needed:?}");
}

/// The libraries that a 64-bit ELF file names as needed (`elf(5)`, DT_NEEDED).
fn needed(file: &[u8]) -> Vec<String> {
    let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight")) as usize;
    let half = |at: usize| usize::from(u16::from_le_bytes([file[at], file[at + 1]]));
    let (headers, size, count) = (word(0x20), half(0x36), half(0x38));
    let kind = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four"));
    let headers = || (0..count).map(|index| headers + index * size);
    const LOAD: u32 = 1;
    const DYNAMIC: u32 = 2;
    let dynamic = headers().find(|at| kind(*at) == DYNAMIC).expect("dynamically linked");
    let entries = (word(dynamic + 8)..).step_by(16).map(|at| (word(at), word(at + 8)));
    let entries: Vec<_> = entries.take_while(|(tag, _)| *tag != 0).collect();
    const NEEDED: usize = 1;
    const STRINGS: usize = 5;
    let strings = entries.iter().find(|(tag, _)| *tag == STRINGS).expect("a table of strings").1;
    // An address in memory; where that is in the file, the segments say.
    let inside = |at: &usize| {
        kind(*at) == LOAD && (word(at + 16)..word(at + 16) + word(at + 32)).contains(&strings)
    };
    let segment = headers().find(inside).expect("it is in a segment");
    let strings = strings - word(segment + 16) + word(segment + 8);
    let name = |at: usize| {
        let bytes = file[strings + at..].iter().copied().take_while(|byte| *byte != 0);
        text(&bytes.collect::<Vec<_>>())
    };
    entries.iter().filter(|(tag, _)| *tag == NEEDED).map(|(_, at)| name(*at)).collect()
}
