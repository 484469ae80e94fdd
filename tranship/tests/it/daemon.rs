//! The daemon and the commands that use it: blocks in and out, sockets, signals, bad input.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use crate::common::{Scene, objects, text};

#[test]
fn a_block_goes_in_and_out() {
    let scene = Scene::new();
    let mut daemon = scene.serve(&[]);
    let file = scene.file("block", "some bytes");
    assert!(scene.stdout(&["put", "name", &file]).contains("stored, 10 B"));
    assert!(scene.stdout(&["put", "name", &file]).contains("there already"));
    assert_eq!(scene.stdout(&["get", "name"]), "some bytes");
    let key = scene.stdout(&["put", "name", &file, "--json"]);
    let key = objects(&key, "tranship.put/1")[0]["key"].as_str().expect("text").to_owned();
    assert_eq!(scene.stdout(&["get", &key]), "some bytes", "a key is a name too");
    assert!(scene.stdout(&["ls"]).contains(&key));
    let block = &objects(&scene.stdout(&["stat", "name", "--json"]), "tranship.block/1")[0];
    assert_eq!((&block["bytes"], &block["pinned"]), (&10.into(), &false.into()));
    let daemon_stat = &objects(&scene.stdout(&["stat", "--json"]), "tranship.stat/1")[0];
    assert_eq!(daemon_stat["tenants"][0]["resident_blocks"], 1);
    assert!(scene.error(3, &["get", "name", "--model", "other"]).contains("no block \"name\""));
    assert!(scene.stdout(&["rm", "name"]).contains("removed"));
    scene.error(3, &["get", "name"]);
    scene.error(3, &["stat", "name"]);
    scene.stdout(&["rm", "--force", "name"]);
    assert_eq!(daemon.terminate(), Some(0));
    assert!(!scene.path("tranship.sock").exists() && !scene.path("tranship-admin.sock").exists());
}

/// What a command line is told: exit code, and a part of the one line on standard error.
type Refusal<'a> = (&'a [&'a str], i32, &'a str);

fn check(scene: &Scene, table: &[Refusal<'_>]) {
    for (args, exit, part) in table {
        let line = scene.error(*exit, args);
        assert!(line.contains(part), "{args:?}: {line}");
    }
}

#[test]
fn without_a_daemon_every_command_says_so() {
    let scene = Scene::new();
    let file = scene.file("block", "some bytes");
    check(
        &scene,
        &[
            (&["put", "x", &file], 5, "start one with `tranship serve`"),
            (&["get", "x"], 5, "start one with `tranship serve`"),
            (&["rm", "x"], 5, "start one with `tranship serve`"),
            (&["prefetch", "x"], 5, "start one with `tranship serve`"),
            (&["persist", "x"], 5, "start one with `tranship serve`"),
            (&["ls"], 5, "no daemon listens here"),
            (&["stat"], 5, "no daemon listens here"),
            (&["put", "x", "/no/such/file"], 3, "/no/such/file"),
            (&["get", "x", "--to", "tcp://127.0.0.1:1"], 5, "nobody answers there"),
        ],
    );
}

#[test]
fn bad_input_of_replay_and_serve_is_one_line() {
    let scene = Scene::new();
    let good =
        "{\"timestamp\": 5, \"input_length\": 600, \"output_length\": 3, \"hash_ids\": [1, 2]}\n";
    let trace = scene.file("trace.jsonl", good);
    let bad = scene.file("bad.jsonl", &format!("{good}{}", good.replace("600", "-1")));
    let empty = scene.file("empty.jsonl", "");
    let plain = scene.file("plain", "");
    let plain = format!("unix://{plain}");
    let deep = format!("unix://{}", scene.path("no/such/directory/a.sock").display());
    let long = format!("unix:///tmp/{}", "x".repeat(108));
    let replay = ["trace", "replay", "--trace"];
    let with = |rest: &[&'static str]| -> Vec<String> {
        replay
            .iter()
            .copied()
            .chain([trace.as_str()])
            .chain(rest.iter().copied())
            .map(str::to_owned)
            .collect()
    };
    let cases: Vec<(Vec<String>, i32, &str)> = vec![
        (with(&["--model", "qwen3-0.5b"]), 2, "did you mean \"qwen3-0.6b\"?"),
        (with(&["--capacity", "4Gb"]), 2, "unknown unit \"Gb\""),
        (with(&["--capacity", "900TiB"]), 6, "does not fit"),
        (with(&["--bytes-per-token", "0"]), 2, "0 is not in 1..="),
        (with(&["--engines", "0"]), 2, "0 is not in 1..="),
        (with(&["--speed", "-1"]), 2, "-1"),
        (with(&["--to", "unix://relative"]), 2, "must be absolute"),
        (with(&["--to", "unix:///no/such/daemon"]), 5, "start one with `tranship serve`"),
    ];
    for (args, exit, part) in &cases {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        check(&scene, &[(&args, *exit, part)]);
    }
    check(
        &scene,
        &[
            (&["trace", "replay", "--trace", &bad], 4, "bad.jsonl:2: field \"input_length\""),
            (&["trace", "replay", "--trace", &empty], 4, "no requests in it"),
            (&["trace", "replay", "--trace", "/no/such/trace"], 3, "/no/such/trace"),
            (&["trace", "replay", "--trace", "-"], 2, "give a file"),
            (&["serve", "--capacity", "900TiB"], 6, "use --capacity"),
            (&["serve", "--listen", &long], 2, "socket path of"),
            (&["serve", "--listen", &deep], 6, "directory cannot be made"),
            (&["serve", "--listen", &plain], 6, "is no socket"),
            (&["serve", "--admin", "tcp://127.0.0.1:1"], 2, "use unix:///PATH"),
            (
                &[
                    "serve",
                    "--capacity",
                    "16MiB",
                    "--log-level",
                    "error",
                    "--metrics",
                    "192.0.2.1:7421",
                ],
                6,
                "192.0.2.1",
            ),
            (&["serve", "--dram-numa-node", "1000"], 6, "NUMA node 1000 is not there"),
        ],
    );
}

#[test]
fn a_socket_in_use_is_left_alone_and_a_stale_one_is_replaced() {
    let scene = Scene::new();
    let mut daemon = scene.serve(&[]);
    let line = scene.error(6, &["serve", "--capacity", "16MiB", "--metrics", "off"]);
    assert!(line.contains("in use"), "{line}");
    let file = scene.file("block", "some bytes");
    scene.stdout(&["put", "still", &file]);
    daemon.kill();
    assert!(scene.path("tranship.sock").exists(), "a killed daemon leaves its socket behind");
    scene.error(5, &["get", "still"]);
    let mut daemon = scene.serve(&[]);
    scene.error(3, &["get", "still"]);
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let scene = Scene::new();
    fs::set_permissions(scene.path(""), Permissions::from_mode(0o777)).expect("it is ours");
    let line = scene.error(6, &["serve", "--capacity", "16MiB", "--metrics", "off"]);
    assert!(line.contains("others may write to this directory"), "{line}");
}

#[test]
fn blocks_that_cannot_be_taken_are_refused_and_the_daemon_goes_on() {
    let scene = Scene::new();
    let mut daemon = scene.serve(&["--capacity", "4MiB"]);
    let large = scene.file("large", &"x".repeat(8 << 20));
    let small = scene.file("small", "some bytes");
    assert!(scene.error(6, &["put", "large", &large]).contains("too large"));
    // Three of four MiB are pinned: no more than that can be taken in any way.
    let third = scene.file("third", &"x".repeat(3 << 20));
    scene.stdout(&["put", "third", &third, "--pin"]);
    let half = scene.file("half", &"x".repeat(2 << 20));
    scene.error(6, &["put", "half", &half]);
    scene.stdout(&["put", "small", &small]);
    assert_eq!(scene.stdout(&["get", "small"]), "some bytes");
    let line = scene.error(6, &["put", "x", &small, "--tenant", "nobody"]);
    assert!(line.contains("no tenant \"nobody\""), "{line}");
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn something_else_at_the_socket_is_no_daemon() {
    let scene = Scene::new();
    let _listener = UnixListener::bind(scene.path("tranship.sock")).expect("a socket");
    scene.error(5, &["get", "x", "--timeout", "200ms"]);
}

#[test]
fn a_replay_that_is_let_in_nowhere_says_so() {
    let scene = Scene::new();
    let trace = scene.path("trace.jsonl").display().to_string();
    scene.stdout(&["trace", "synth", "--requests", "2", "--output", &trace]);
    let file = scene.file("tranship.toml", "[[tenant]]\nname = \"search\"\n");
    let args = ["trace", "replay", "--trace", &trace, "--capacity", "16MiB", "--config", &file];
    let output = scene.run(&args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    let last = stderr.lines().last().expect("an error");
    assert_eq!(last, "error: no tenant \"default\" here; configure it under [[tenant]]");
}

#[test]
fn a_replay_adds_up() {
    let scene = Scene::new();
    let trace = scene.path("trace.jsonl").display().to_string();
    scene.stdout(&["trace", "synth", "--requests", "40", "--output", &trace]);
    let args = ["trace", "replay", "--trace", &trace, "--bytes-per-token", "8"];
    let lines = scene.stdout(&[&args[..], &["--capacity", "64MiB", "--json"]].concat());
    let replay = &objects(&lines, "tranship.replay/1")[0];
    let number = |name: &str| replay[name].as_u64().expect(name);
    assert_eq!(number("requests"), 40);
    let hits: u64 = replay["hits"]
        .as_object()
        .expect("tiers")
        .values()
        .map(|n| n.as_u64().expect("a count"))
        .sum();
    assert!(hits > 0 && hits + number("misses") == number("lookups"), "{replay}");
    assert_eq!((number("corrupt"), number("engine_deaths")), (0, 0));
    // Room for little: refused or evicted, never wrong.
    let table = scene.stdout(&[&args[..], &["--capacity", "256KiB", "--engines", "3"]].concat());
    assert!(table.contains("(sum checked)") && table.ends_with("\ncorrupt=0\n"), "{table}");
    assert!(!text(table.as_bytes()).contains('\u{1b}'), "no colours without a terminal");
}
