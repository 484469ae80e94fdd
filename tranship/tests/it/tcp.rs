//! The daemon and its commands over TCP: addresses, tokens, fallbacks, and what comes to the wrong
//! door.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crate::common::{Scene, objects, text};

/// A port at which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port()
}

#[test]
fn a_block_goes_in_and_out_over_tcp() {
    let scene = Scene::new();
    let mut daemon = scene.serve(&["--listen", "tcp://127.0.0.1:0"]);
    let to = daemon.tcp();
    let content: String = (0..100_000).map(|n| format!("{n} ")).collect();
    let file = scene.file("block", &content);
    let connect = ["--connect", to.as_str()];
    assert!(scene.stdout(&[&["put", "name", &file][..], &connect].concat()).contains("stored"));
    assert!(scene.stdout(&[&["put", "name", &file][..], &connect].concat()).contains("already"));
    assert_eq!(scene.stdout(&[&["get", "name"][..], &connect].concat()), content);
    let listed = scene.stdout(&[&["ls"][..], &connect].concat());
    assert!(listed.contains("575 KiB"), "{listed}");
    let prefix = listed.lines().last().and_then(|line| line.get(..6)).expect("a key").to_owned();
    assert_eq!(scene.stdout(&[&["ls", &prefix][..], &connect].concat()).lines().count(), 2);
    scene.error(2, &[&["ls", "xyz"][..], &connect].concat());
    let stat = scene.stdout(&[&["stat", "name", "--json"][..], &connect].concat());
    assert_eq!(objects(&stat, "tranship.block/1")[0]["bytes"], content.len());
    scene.error(3, &[&["stat", "other"][..], &connect].concat());
    let stat = scene.stdout(&[&["stat", "--json"][..], &connect].concat());
    let stat = &objects(&stat, "tranship.tenant-stat/1")[0];
    assert_eq!(stat["gauges"]["resident"]["blocks"], 1);
    assert!(scene.stdout(&[&["stat"][..], &connect].concat()).contains("1 blocks, 576 KiB"));
    // Administration is local, whatever clients speak.
    assert!(scene.stdout(&["ls"]).contains("575 KiB"), "{}", scene.stdout(&["ls"]));
    let block = &objects(&scene.stdout(&["stat", "name", "--json"]), "tranship.block/1")[0];
    assert_eq!(block["bytes"], content.len());
    assert!(scene.stdout(&[&["rm", "name"][..], &connect].concat()).contains("removed"));
    scene.error(3, &[&["get", "name"][..], &connect].concat());
    assert!(!scene.path("tranship.sock").exists(), "it listens over tcp alone");
    let bench =
        ["bench", "cache", "--ops", "get,put", "--sizes", "64KiB", "--time", "20ms", "--json"];
    let lines = scene.stdout(&[&bench[..], &["--working-set", "1MiB"], &connect].concat());
    assert!(lines.lines().all(|line| line.contains("\"fabric\":\"tcp\"")), "{lines}");
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn a_slower_fabric_in_place_of_a_faster_one_is_announced() {
    let scene = Scene::new();
    let listen = format!("shm:{},tcp://127.0.0.1:0", scene.path("tranship.sock").display());
    let daemon = scene.serve(&["--listen", &listen]);
    let tcp = daemon.tcp();
    let file = scene.file("block", "some bytes");
    let here = format!("{},{tcp}", listen.split(',').next().expect("two"));
    // The best is there: nothing is said.
    let quiet = scene.run(&["put", "name", &file, "--connect", &here]);
    assert_eq!((quiet.status.code(), text(&quiet.stderr).as_str()), (Some(0), ""));
    let elsewhere = format!("shm:/no/such/daemon,{tcp}");
    let output = scene.run(&["get", "name", "--connect", &elsewhere]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "some bytes"));
    let told = text(&output.stderr);
    let start =
        format!("warning: using {tcp} in place of unix:///no/such/daemon, which is slower; ");
    assert!(told.starts_with(&start) && told.lines().count() == 1, "{told}");
    // In the log of engines too.
    let trace = scene.path("trace.jsonl").display().to_string();
    scene.stdout(&["trace", "synth", "--requests", "3", "--output", &trace]);
    let replay = ["trace", "replay", "--trace", &trace, "--bytes-per-token", "8", "--connect"];
    let output = scene.run(&[&replay[..], &[&elsewhere, "--engines", "1"]].concat());
    assert!(text(&output.stdout).ends_with("corrupt=0\n"), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("WARN"), "{}", text(&output.stderr));
    // Nowhere: one line that names both.
    let none = format!("shm:/no/such/daemon,tcp://127.0.0.1:{}", free_port());
    let line = scene.error(5, &["get", "name", "--connect", &none]);
    assert!(line.contains("/no/such/daemon") && line.contains("tcp:127.0.0.1"), "{line}");
}

#[test]
fn tokens_keep_strangers_out() {
    let scene = Scene::new();
    let token = scene.file("token", "swordfish\n");
    let serve = ["--listen", "tcp://0.0.0.0:0", "--tcp-advertise", "tcp://127.0.0.1:0"];
    let daemon = scene.serve(&[&serve[..], &["--token-file", &token]].concat());
    let port = daemon.tcp().rsplit(':').next().expect("a port").to_owned();
    let to = format!("tcp://127.0.0.1:{port}");
    let file = scene.file("block", "some bytes");
    let put = ["put", "name", &file, "--connect", &to];
    let line = scene.error(5, &put);
    assert!(line.contains("refuses the token") && line.contains("--token-file"), "{line}");
    let wrong = scene.file("wrong", "guess");
    scene.error(5, &[&put[..], &["--token-file", &wrong]].concat());
    scene.stdout(&[&put[..], &["--token-file", &token]].concat());
    let output = scene
        .command(&["get", "name", "--connect", &to])
        .env("TRANSHIP_TOKEN", "swordfish")
        .output()
        .expect("the binary starts");
    assert_eq!(text(&output.stdout), "some bytes", "{}", text(&output.stderr));
    // Engines of a replay get the same, by the same ways.
    let trace = scene.path("trace.jsonl").display().to_string();
    scene.stdout(&["trace", "synth", "--requests", "3", "--output", &trace]);
    let replay = ["trace", "replay", "--trace", &trace, "--bytes-per-token", "8", "--connect", &to];
    let lines = scene.stdout(&[&replay[..], &["--token-file", &token, "--json"]].concat());
    assert!(lines.contains("\"unavailable\":0"), "{lines}");
    scene.error(5, &replay);
}

#[test]
fn a_daemon_that_others_reach_wants_a_token_or_leave() {
    let scene = Scene::new();
    let open = ["serve", "--capacity", "16MiB", "--metrics", "off", "--listen", "tcp://0.0.0.0:0"];
    let line = scene.error(2, &open);
    for part in ["tcp://0.0.0.0:0", "other hosts", "--token-file", "TRANSHIP_TOKEN", "--insecure"] {
        assert!(line.contains(part), "{line}");
    }
    let mut daemon = scene.serve(&["--listen", "tcp://0.0.0.0:0", "--insecure"]);
    assert_eq!(daemon.terminate(), Some(0));
    let empty = scene.file("empty", "\n");
    assert!(scene.error(2, &[&open[..], &["--token-file", &empty]].concat()).contains("empty"));
    let missing = scene.path("missing").display().to_string();
    assert!(scene.error(3, &[&open[..], &["--token-file", &missing]].concat()).contains("missing"));
    let both = ["--token-file", &empty, "--tcp-token", "x"];
    assert!(scene.error(2, &[&open[..], &both].concat()).contains("keep one"));
}

#[test]
fn what_is_taken_is_told_before_memory_is_filled_in() {
    let scene = Scene::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    // A node that is not there is noticed by the arena, which comes after.
    let node = ["serve", "--capacity", "16MiB", "--dram-numa-node", "1000"];
    assert!(scene.error(6, &[&node[..], &["--metrics", "off"]].concat()).contains("NUMA node"));
    let listen = format!("tcp://127.0.0.1:{port}");
    let line = scene.error(6, &[&node[..], &["--metrics", "off", "--listen", &listen]].concat());
    assert!(line.contains(&format!("127.0.0.1:{port}")) && line.contains("in use"), "{line}");
    let metrics = format!("127.0.0.1:{port}");
    let line = scene.error(6, &[&node[..], &["--metrics", &metrics]].concat());
    assert!(line.contains(&format!("port {port} is in use")), "{line}");
}

#[test]
fn bad_addresses_are_one_line() {
    let scene = Scene::new();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("tcp://{}", silent.local_addr().expect("bound"));
    let nobody = format!("tcp://127.0.0.1:{}", free_port());
    let cases: [(&[&str], i32, &str); 14] = [
        (&["get", "x", "--connect", "tcp://host"], 2, "tcp://HOST:PORT"),
        (&["get", "x", "--connect", "tcp://h:1,"], 2, "separated by commas"),
        (&["get", "x", "--connect", "rdma://mlx5_0:1"], 2, "expected unix:///PATH"),
        (&["get", "x", "--connect", "verbs://mlx5_0"], 2, "verbs://HOST:PORT"),
        (&["get", "x", "--connect", "localhost:7420"], 2, "expected unix:///PATH"),
        (&["get", "x", "--connect", "tcp://no-such-host.invalid:1"], 5, "check the name"),
        (&["get", "x", "--connect", &nobody], 5, "nobody answers there"),
        (&["get", "x", "--timeout", "300ms", "--connect", &silent], 5, "no answer within 300ms"),
        (&["serve", "--listen", "tcp://127.0.0.1:1,tcp://127.0.0.1:2"], 2, "two tcp addresses"),
        (&["serve", "--listen", "ofi://h:1,ofi://h:2"], 2, "two ofi addresses"),
        (&["serve", "--ofi-advertise", "tcp://h:1"], 2, "expected ofi://HOST:PORT"),
        (&["serve", "--verbs-gid-index", "256"], 2, "use 0 to 255"),
        (&["serve", "--listen", "tcp://h:1", "--tcp-streams", "0"], 2, "use 1 to 32"),
        (
            &["serve", "--capacity", "16MiB", "--insecure", "--listen", "tcp://no-such.invalid:1"],
            6,
            "no-such.invalid",
        ),
    ];
    for (args, exit, part) in cases {
        let line = scene.error(exit, args);
        assert!(line.contains(part), "{args:?}: {line}");
    }
}

#[test]
fn a_peer_that_speaks_http_is_no_daemon_and_a_daemon_is_no_web_server() {
    let scene = Scene::new();
    let http = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp://{}", http.local_addr().expect("bound"));
    let server = thread::spawn(move || {
        let (mut stream, _) = http.accept().expect("the client");
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        // Until the client hangs up.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let line = scene.error(5, &["get", "x", "--connect", &address]);
    assert!(line.contains("no tranship engine") && line.contains("check the port"), "{line}");
    server.join().expect("it ends with the client");
    // Half a handshake, HTTP and garbage at the daemon's door disturb nobody inside.
    let mut daemon = scene.serve(&["--listen", "tcp://127.0.0.1:0"]);
    let to = daemon.tcp();
    let door = to.strip_prefix("tcp://").expect("tcp");
    let knock = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(door).expect("it listens");
        let _ = stream.write_all(bytes);
        stream
    };
    let strangers =
        [knock(b"GET / HTTP/1.1\r\n\r\n"), knock(b"T"), knock(b""), knock(&[0xff; 4096])];
    let file = scene.file("block", "some bytes");
    scene.stdout(&["put", "name", &file, "--connect", &to]);
    assert_eq!(scene.stdout(&["get", "name", "--connect", &to]), "some bytes");
    drop(strangers);
    assert_eq!(daemon.terminate(), Some(0));
}
