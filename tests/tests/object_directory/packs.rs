//! What becomes of manifests and packs: merged, moved, left out, deleted.

use super::*;

#[test]
fn manifests_are_merged_and_say_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let a = Rig::open(options(&directory, "a")).unwrap();
    for number in 0..70 {
        let (record, bytes) = block(number, 3000);
        a.store(record, &bytes, true).unwrap();
    }
    // After a moment: nobody waits for the last merge.
    a.until(|| files(&directory, "manifests").len() <= 16);
    assert_eq!(files(&directory, "packs").len(), 70);
    let b = Rig::open(options(&directory, "b")).unwrap();
    for number in 0..70 {
        check(&b, number, 3000);
    }
    // Small packs become large ones.
    let moved = a.bucket.collect(PATIENCE).unwrap().moved;
    assert_eq!(moved, 70);
    a.sync().unwrap();
    assert_eq!(a.bucket.collect(PATIENCE).unwrap().dropped, 0);
    assert_eq!(files(&directory, "packs").len(), 71);
    b.bucket.refresh(PATIENCE).unwrap();
    for number in 0..70 {
        check(&a, number, 3000);
        check(&b, number, 3000);
    }
    let figures = a.bucket.figures();
    assert_eq!((figures.blocks, figures.reinserted, figures.evicted), (70, 70, 0));
}

#[test]
fn what_is_left_of_a_pack_moves_and_the_rest_goes() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(Turned::default());
    let mut turned = options(&directory, "a");
    turned.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    turned.pack_age = HOUR * 1000;
    let rig = Rig::open(turned).unwrap();
    for number in 0..9 {
        let (record, bytes) = block(number, 100_000);
        rig.store(record, &bytes, false).unwrap();
    }
    rig.sync().unwrap();
    for number in 0..7 {
        rig.submit(Job::Remove { name: block(number, 100_000).0.name() });
    }
    let before = files(&directory, "packs");
    assert_eq!(rig.bucket.collect(PATIENCE).unwrap().moved, 1);
    rig.sync().unwrap();
    for _ in 0..3 {
        rig.bucket.collect(PATIENCE).unwrap();
        clock.forward(Duration::from_secs(601));
    }
    let after = files(&directory, "packs");
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before, after);
    assert!(after[0].metadata().unwrap().len() < 250_000);
    for number in 7..9 {
        check(&rig, number, 100_000);
    }
    drop(rig);
    let rig = Rig::open(options(&directory, "a")).unwrap();
    assert_eq!(rig.bucket.figures().blocks, 2);
}

#[test]
fn what_is_nobodys_goes_when_both_clocks_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(Turned::default());
    let open = |name: &str| node(&directory, name, &clock);
    let a = open("a");
    let (record, bytes) = block(1, 1000);
    a.store(record, &bytes, true).unwrap();
    drop(a);
    let manifests = files(&directory, "manifests");
    let kept = std::fs::read(&manifests[0]).unwrap();
    std::fs::remove_file(&manifests[0]).unwrap();

    let b = open("b");
    let round = |strays: u64, deleted: u64| {
        let collected = b.bucket.collect(PATIENCE).unwrap();
        assert_eq!((collected.strays, collected.deleted, collected.adopted), (strays, deleted, 0));
    };
    round(1, 0);
    clock.forward(HOUR * 2);
    round(1, 0);
    // Old by both, but a manifest has come that nobody can read, and then one that names it.
    age(&files(&directory, "packs"), HOUR * 2);
    let unreadable = manifests[0].with_file_name(format!("0-{:016x}-{:032x}", 7, 7));
    std::fs::write(&unreadable, b"TSHMANI1 of another version").unwrap();
    b.bucket.refresh(PATIENCE).unwrap();
    round(0, 0);
    std::fs::remove_file(&unreadable).unwrap();
    std::fs::write(&manifests[0], kept).unwrap();
    round(0, 0);
    check(&b, 1, 1000);
    std::fs::remove_file(&manifests[0]).unwrap();
    // Seen anew, so watched anew.
    round(1, 0);
    clock.forward(HOUR / 2);
    round(1, 0);
    clock.forward(HOUR);
    round(1, 1);
    assert!(files(&directory, "packs").is_empty());
}

#[test]
fn a_node_that_is_gone_for_a_week_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(Turned::default());
    let open = |name: &str| node(&directory, name, &clock);
    let a = open("a");
    let (record, bytes) = block(1, 1000);
    a.store(record, &bytes, true).unwrap();
    a.bucket.collect(PATIENCE).unwrap();
    drop(a);
    let b = open("b");
    let (record, bytes) = block(2, 1000);
    b.store(record, &bytes, true).unwrap();
    b.bucket.collect(PATIENCE).unwrap();
    assert_eq!(files(&directory, "manifests").len(), 2);
    // A pack that nobody names makes every round ask for the service's time.
    let stray = directory.path().join("v1/packs/ab").join("ab".repeat(32));
    std::fs::create_dir_all(stray.parent().unwrap()).unwrap();
    std::fs::write(&stray, b"no pack").unwrap();
    // All that node a ever wrote is eight days old, all of node b but its sign of life too.
    age(&files(&directory, "manifests"), HOUR * 24 * 8);
    age(&files(&directory, "packs"), HOUR * 24 * 8);
    age(&[directory.path().join("v1/nodes/a")], HOUR * 24 * 8);
    clock.forward(HOUR * 5);
    b.bucket.collect(PATIENCE).unwrap();
    assert_eq!(files(&directory, "manifests").len(), 2, "it is not yet time to look");
    clock.forward(HOUR * 6);
    b.bucket.collect(PATIENCE).unwrap();
    assert_eq!(files(&directory, "manifests").len(), 1, "of b");
    b.bucket.collect(PATIENCE).unwrap();
    assert!(!b.finds(&block(1, 1000).0));
    clock.forward(HOUR * 2);
    b.bucket.collect(PATIENCE).unwrap();
    assert_eq!(files(&directory, "packs").len(), 1);
    check(&b, 2, 1000);
}

#[test]
fn a_small_index_leaves_others_packs_out_and_deletes_none() {
    let directory = tempfile::tempdir().unwrap();
    let a = Rig::open(options(&directory, "a")).unwrap();
    for number in 0..400 {
        let (record, bytes) = block(number, 100);
        a.store(record, &bytes, number % 100 == 99).unwrap();
    }
    let clock = Arc::new(Turned::default());
    let mut small = options(&directory, "b");
    small.index_bytes_max = 20_000;
    small.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    let b = Rig::open(small).unwrap();
    let known = b.bucket.figures();
    assert_eq!(known.blocks, 200);
    assert!(known.index_bytes < 20_000);
    assert!(matches!(b.bucket.health(), Health::Degraded(_)), "{:?}", b.bucket.health());
    age(&files(&directory, "packs"), HOUR * 2);
    for _ in 0..3 {
        assert_eq!(b.bucket.collect(PATIENCE).unwrap().deleted, 0);
        clock.forward(HOUR * 2);
    }
    for number in 0..400 {
        check(&a, number, 100);
    }
    // With the manifests of what is known gone there is room for the rest, and then nothing is left out.
    let (mut manifests, all) = (files(&directory, "manifests"), 400);
    manifests.sort();
    for known in manifests.drain(..2) {
        std::fs::remove_file(known).unwrap();
    }
    b.bucket.refresh(PATIENCE).unwrap();
    b.bucket.refresh(PATIENCE).unwrap();
    assert_eq!((b.bucket.figures().blocks, b.bucket.health()), (200, Health::Ready));
    for number in all / 2..all {
        check(&b, number, 100);
    }
    for left in manifests {
        std::fs::remove_file(left).unwrap();
    }
    b.bucket.refresh(PATIENCE).unwrap();
    assert_eq!((b.bucket.figures().blocks, b.bucket.health()), (0, Health::Ready));
}

#[test]
fn what_was_left_out_is_forgotten_with_its_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let a = Rig::open(options(&directory, "a")).unwrap();
    for number in 0..200 {
        let (record, bytes) = block(number, 100);
        a.store(record, &bytes, number % 100 == 99).unwrap();
    }
    let mut small = options(&directory, "b");
    small.index_bytes_max = 10_000;
    let b = Rig::open(small).unwrap();
    assert!(matches!(b.bucket.health(), Health::Degraded(_)), "{:?}", b.bucket.health());
    for manifest in files(&directory, "manifests") {
        std::fs::remove_file(manifest).unwrap();
    }
    b.bucket.refresh(PATIENCE).unwrap();
    assert_eq!(b.bucket.health(), Health::Ready);
    assert_eq!(b.bucket.collect(PATIENCE).unwrap().strays, 2, "nobody names them any more");
}
