//! Commands on blocks that are below memory.

use std::sync::Arc;

use tranship_cache::arena::checksum;
use tranship_cache::identity::Geometry;
use tranship_cache::tier::Tier;
use tranship_cache::tier::cold::Record;
use tranship_cache::{Chain, Identity, Link};
use tranship_tests::below::Scripted;
use tranship_tests::daemon::Daemon;
use tranship_transport::fabric::shm;

use crate::common::{Scene, objects};

/// A daemon with tiers in this process, where commands look for one.
fn start(scene: &Scene, tiers: &[Arc<Scripted>]) -> Daemon {
    let socket = scene.path("tranship.sock");
    Daemon::above(tiers, 16 << 20, |engine| engine.fabric(shm::Config::new().listen_at(socket)))
}

/// The block that commands mean by a name.
fn block(name: &str) -> (Identity, Link) {
    let mut identity = Identity::new("blob", "", "u8", Geometry::default(), 1);
    identity.layout = "blob".to_owned();
    let link = Chain::new(&identity).push(name.as_bytes());
    (identity, link)
}

fn put_below(tier: &Scripted, name: &str, bytes: &[u8]) {
    let (identity, link) = block(name);
    let (identity, len, checksum) = (identity.id(), bytes.len() as u64, checksum(bytes));
    tier.has(Record { identity, link, len, checksum, expires: None }, bytes);
}

fn listen(scene: &Scene) -> String {
    format!("--connect=unix://{}", scene.path("tranship.sock").display())
}

/// Tier and key of each block that is listed.
fn listed(scene: &Scene, args: &[&str]) -> Vec<(String, String)> {
    let connect = listen(scene);
    let lines = scene.stdout(&[&["ls", "--json", &connect][..], args].concat());
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let all = if lines.is_empty() { Vec::new() } else { objects(&lines, "tranship.block/1") };
    all.iter().map(|block| (text(&block["tier"]), text(&block["key"]))).collect()
}

#[test]
fn a_block_below_memory_is_got_shown_and_removed() {
    let scene = Scene::new();
    let nvme = Scripted::new(Tier::Nvme);
    let _daemon = start(&scene, &[Arc::clone(&nvme)]);
    put_below(&nvme, "name", b"from below");
    put_below(&nvme, "other", b"from below, too");
    let key = block("name").1.key.to_string();
    let connect = listen(&scene);
    // Whose blocks they are is known once a client has said so.
    assert_eq!(listed(&scene, &["--tier", "nvme"]), []);
    assert_eq!(scene.stdout(&["get", "name"]), "from below");
    let mut below = listed(&scene, &["--tier", "nvme"]);
    below.sort();
    let mut both =
        [("nvme".to_owned(), key.clone()), ("nvme".to_owned(), block("other").1.key.to_string())];
    both.sort();
    assert_eq!(below, both);
    assert_eq!(listed(&scene, &[]), [("dram".to_owned(), key.clone())], "it came up");
    assert_eq!(listed(&scene, &["--tier", "object"]), []);
    assert_eq!(listed(&scene, &["--tier", "all"]).len(), 3, "one for each tier that has it");
    let stat = |name| {
        let lines = scene.stdout(&["stat", name, "--json", &connect]);
        objects(&lines, "tranship.block/1").remove(0)
    };
    assert_eq!(
        (&stat("name")["tier"], &stat("name")["tiers"]),
        (&"dram".into(), &serde_json::json!(["dram", "nvme"]))
    );
    let cold = stat("other");
    assert_eq!(
        (&cold["tier"], &cold["bytes"], &cold["age_ms"]),
        (&"nvme".into(), &15.into(), &serde_json::Value::Null)
    );
    let table = scene.stdout(&["ls", "--tier", "all", &connect]);
    assert!(table.contains("  nvme  "), "{table}");
    for name in ["name", "other"] {
        assert!(scene.stdout(&["rm", name]).contains("removed"), "{name}");
        scene.error(3, &["get", name]);
        scene.error(3, &["stat", name, &connect]);
    }
    assert_eq!(listed(&scene, &["--tier", "all"]), []);
}

#[test]
fn blocks_are_brought_up_and_made_safe() {
    let scene = Scene::new();
    let nvme = Scripted::new(Tier::Nvme);
    let _daemon = start(&scene, &[Arc::clone(&nvme)]);
    put_below(&nvme, "cold", b"from below");
    let cold = block("cold").1.key.to_string();
    let told = scene.stdout(&["prefetch", "cold"]);
    assert_eq!(told, format!("{cold}  in memory, or on its way\n"));
    assert_eq!(scene.stdout(&["get", "cold"]), "from below");
    assert_eq!(listed(&scene, &[]), [("dram".to_owned(), cold.clone())]);
    let output = scene.run(&["prefetch", "nowhere", "cold", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let lines = crate::common::text(&output.stdout);
    let coming = objects(&lines, "tranship.prefetch/1");
    assert_eq!((&coming[0]["coming"], &coming[1]["coming"]), (&false.into(), &true.into()));

    let file = scene.file("block", "some bytes");
    scene.stdout(&["put", "warm", &file]);
    let warm = block("warm").1.key.to_string();
    assert_eq!(listed(&scene, &["--tier", "nvme"]), [("nvme".to_owned(), cold.clone())]);
    let told = scene.stdout(&["persist", "warm", "cold"]);
    assert_eq!(told, format!("{warm}  safe\n{cold}  safe\n"));
    assert_eq!(listed(&scene, &["--tier", "nvme"]).len(), 2);
    let output = scene.run(&["persist", "nowhere", "warm", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let safe = objects(&crate::common::text(&output.stdout), "tranship.persist/1");
    assert_eq!((&safe[0]["safe"], &safe[1]["safe"]), (&false.into(), &true.into()));
}

#[test]
fn without_a_tier_below_nothing_is_made_safe() {
    let scene = Scene::new();
    let mut daemon = scene.serve(&[]);
    let file = scene.file("block", "some bytes");
    scene.stdout(&["put", "name", &file]);
    let line = scene.error(6, &["persist", "name"]);
    assert!(line.contains("no tier below memory") && line.contains("nvme.path"), "{line}");
    assert!(scene.stdout(&["prefetch", "name"]).contains("in memory"), "it is there");
    let line = scene.error(3, &["prefetch", "other"]);
    assert!(line.contains("no block \"other\""), "{line}");
    let stat = &objects(&scene.stdout(&["stat", "--json"]), "tranship.stat/1")[0];
    assert_eq!(stat["tiers"], serde_json::json!([]));
    assert!(!scene.stdout(&["stat"]).contains("nvme"));
    assert!(scene.stdout(&["ls"]).contains("  dram  "));
    assert_eq!(scene.stdout(&["ls", "--tier", "nvme"]).lines().count(), 1, "headings alone");
    let line = scene.error(2, &["ls", "--tier", "tape"]);
    assert!(line.contains("possible values: dram, nvme, object, all"), "{line}");
    let report = &objects(&scene.stdout(&["doctor", "--json"]), "tranship.doctor/1")[0];
    assert!(report.get("tiers").is_none());
    assert_eq!(daemon.terminate(), Some(0));
}
