//! A daemon killed with -9 and restarted during a replay, engines killed at random, 20 times in
//! all: the replay goes on, its sums come out, and no byte is wrong.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Stdio;

use crate::common::{Dice, Scene, objects, seed, signal, text};
use rustix::process::Signal;
use serde_json::Value;

/// What is killed, and how often.
const KILLS: usize = 20;
/// Requests between two kills.
const EVERY: u64 = 60;
/// Enough requests for all kills, and for life to go on after the last.
const REQUESTS: u64 = EVERY * (KILLS as u64 + 8);
/// Synthetic requests come a second or two apart. This makes more than a hundred a second of them,
/// few enough that the time a daemon takes to come back does not use the trace up.
const SPEED: &str = "200";

#[test]
fn kills_cost_misses_and_nothing_else() {
    let scene = Scene::new();
    let address = format!("unix://{}", scene.path("tranship.sock").display());
    kill_and_replay(&scene, &address);
}

#[test]
fn kills_cost_misses_and_nothing_else_over_tcp() {
    // A port that is free now: the daemon comes back to the one it had.
    let port =
        TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    kill_and_replay(&Scene::new(), &format!("tcp://127.0.0.1:{port}"));
}

fn kill_and_replay(scene: &Scene, address: &str) {
    let trace = scene.path("trace.jsonl").display().to_string();
    let requests = REQUESTS.to_string();
    scene.stdout(&["trace", "synth", "--requests", &requests, "--output", &trace]);
    let serve = ["--capacity", "64MiB", "--listen", address];
    let every = EVERY.to_string();
    let mut daemon = scene.serve(&serve);
    let mut replay = scene
        .command(&["trace", "replay", "--trace", &trace, "--connect", address, "--json"])
        .args(["--engines", "2", "--bytes-per-token", "16", "--speed", SPEED, "--every", &every])
        .args(["--log-level", "error"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let seed = seed();
    let mut dice = Dice(seed);
    let (mut daemons, mut engines) = (0, 0);
    let mut killed = Vec::new();
    let mut last = String::new();
    for line in BufReader::new(replay.stdout.take().expect("piped")).lines() {
        last = line.expect("UTF-8");
        let progress: Value = serde_json::from_str(&last).expect("a line of JSON");
        if progress["schema"] != "tranship.replay-progress/1" || daemons + engines == KILLS {
            continue;
        }
        assert_eq!(progress["corrupt"], 0, "{progress}");
        let pids = progress["engine_pids"].as_array().expect("an array").iter();
        let pids: Vec<u64> = pids.map(|pid| pid.as_u64().expect("a number")).collect();
        // The line may be older than the last kill.
        let living: Vec<u64> = pids.into_iter().filter(|pid| !killed.contains(pid)).collect();
        if dice.roll(2) == 0 {
            daemons += 1;
            daemon.kill();
            daemon = scene.serve(&serve);
        } else if !living.is_empty() {
            let pid = living[dice.roll(living.len())];
            engines += 1;
            killed.push(pid);
            signal(u32::try_from(pid).expect("a process id"), Signal::KILL);
        }
    }
    let output = replay.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "seed {seed}: {}", text(&output.stderr));
    let replay = &objects(&last, "tranship.replay/1")[0];
    let number = |name: &str| replay[name].as_u64().expect(name);
    assert_eq!(daemons + engines, KILLS, "{replay}");
    assert!(daemons > 0 && engines > 0, "seed {seed}: {daemons} daemons, {engines} engines");
    assert_eq!(number("requests"), REQUESTS, "every request was played once");
    assert_eq!(number("engine_deaths"), engines as u64);
    assert_eq!(number("corrupt"), 0);
    let hits: u64 = replay["hits"]
        .as_object()
        .expect("tiers")
        .values()
        .map(|hits| hits.as_u64().expect("a count"))
        .sum();
    assert!(hits > 0, "{replay}");
    assert_eq!(hits + number("misses"), number("lookups"));
    assert_eq!(daemon.terminate(), Some(0), "the last daemon is well");
}
