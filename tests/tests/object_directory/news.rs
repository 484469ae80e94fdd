//! What is heard from the bucket, against what was done here.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[test]
fn what_was_removed_is_not_brought_back_by_what_is_heard_later() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(Turned::default());
    let open = |name: &str| node(&directory, name, &clock);
    let (a, b) = (open("a"), open("b"));
    let (first, bytes) = block(1, 5000);
    let (mut second, others) = block(2, 5000);
    second.identity = identity(2);
    b.store(first, &bytes, false).unwrap();
    b.store(second, &others, false).unwrap();
    let (forever, shared) = block(4, 5000);
    b.store(forever, &shared, true).unwrap();
    // Node a has not heard of them.
    for removed in [first, forever] {
        a.submit(Job::Remove { name: removed.name() });
    }
    a.submit(Job::Clear { identity: identity(2) });
    let expires = Some(clock.wall().after(HOUR.into()));
    let for_an_hour = Record { expires, ..forever };
    a.store(for_an_hour, &shared, false).unwrap();
    assert_eq!(a.bucket.refresh(PATIENCE), Ok(1));
    assert!(!a.finds(&first) && !a.finds(&second));
    assert_eq!(a.all().len(), 1, "what was stored here after its removal");
    // What is stored here again is found again, and so is what others store later.
    a.store(first, &bytes, false).unwrap();
    check(&a, 1, 5000);
    clock.forward(HOUR * 2);
    let (mut third, bytes) = block(3, 5000);
    third.identity = identity(2);
    b.store(third, &bytes, true).unwrap();
    a.bucket.refresh(PATIENCE).unwrap();
    assert!(a.finds(&third) && !a.finds(&second));
    assert!(!a.finds(&forever), "what was removed is back when its successor has expired");
}

#[test]
fn what_a_crash_left_does_not_bring_back_what_was_removed_since() {
    let directory = tempfile::tempdir().unwrap();
    let a = Rig::open(options(&directory, "a")).unwrap();
    for number in 1..3 {
        let (record, bytes) = block(number, 5000);
        a.store(record, &bytes, number == 2).unwrap();
    }
    drop(a);
    std::fs::remove_file(&files(&directory, "manifests")[0]).unwrap();
    let a = Rig::open(options(&directory, "a")).unwrap();
    a.submit(Job::Remove { name: block(1, 5000).0.name() });
    assert_eq!(a.bucket.collect(PATIENCE).unwrap().adopted, 1);
    assert!(!a.finds(&block(1, 5000).0));
    check(&a, 2, 5000);
    a.bucket.close(PATIENCE);
    drop(a);
    let a = Rig::open(options(&directory, "a")).unwrap();
    assert!(!a.finds(&block(1, 5000).0), "nor after a restart");
    check(&a, 2, 5000);
}

#[test]
fn a_manifest_that_makes_no_sense_keeps_what_it_may_name() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(Turned::default());
    let open = |name: &str| node(&directory, name, &clock);
    drop(open("a"));
    // As a later version of the same node may have written.
    let unreadable =
        directory.path().join("v1/manifests/a").join(format!("0-{:016x}-{:032x}", 1, 7));
    std::fs::create_dir_all(unreadable.parent().unwrap()).unwrap();
    std::fs::write(&unreadable, b"TSHMANI1 of another version").unwrap();
    let a = open("a");
    let Health::Degraded(why) = a.bucket.health() else { panic!("{:?}", a.bucket.health()) };
    assert!(why.contains("v1/manifests/a/0-0000000000000001"), "{why}");
    for number in 0..9 {
        let (record, bytes) = block(number, 1000);
        a.store(record, &bytes, true).unwrap();
    }
    // After a moment: nobody waits for the merge.
    a.until(|| files(&directory, "manifests").len() <= 3);
    assert!(unreadable.exists(), "it was merged away");
    for number in 0..9 {
        a.submit(Job::Remove { name: block(number, 1000).0.name() });
    }
    assert_eq!(a.bucket.collect(PATIENCE).unwrap().dropped, 9);
    for _ in 0..3 {
        clock.forward(HOUR);
        assert_eq!(a.bucket.collect(PATIENCE).unwrap().deleted, 0);
    }
    assert_eq!(files(&directory, "packs").len(), 9);
    std::fs::remove_file(&unreadable).unwrap();
    a.bucket.refresh(PATIENCE).unwrap();
    assert_eq!(a.bucket.health(), Health::Ready);
    a.bucket.collect(PATIENCE).unwrap();
    clock.forward(HOUR);
    a.bucket.collect(PATIENCE).unwrap();
    assert!(files(&directory, "packs").is_empty());
}

#[test]
fn many_who_look_at_once_count_once() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (
        Rig::open(options(&directory, "a")).unwrap(),
        Rig::open(options(&directory, "b")).unwrap(),
    );
    for round in 0..5 {
        for number in 0..6 {
            let (record, bytes) = block(round * 6 + number, 1000);
            a.store(record, &bytes, true).unwrap();
        }
        let look = || b.bucket.refresh(PATIENCE).unwrap();
        let found: u64 = std::thread::scope(|scope| {
            let looks: Vec<_> = (0..4).map(|_| scope.spawn(look)).collect();
            looks.into_iter().map(|look| look.join().unwrap()).sum()
        });
        assert_eq!((found, b.bucket.figures().blocks), (6, 6), "round {round}");
        for manifest in files(&directory, "manifests") {
            std::fs::remove_file(manifest).unwrap();
        }
        b.bucket.refresh(PATIENCE).unwrap();
        assert_eq!(b.bucket.figures().blocks, 0, "round {round}: what nobody names is forgotten");
        a.bucket.refresh(PATIENCE).unwrap();
    }
}

#[test]
fn two_under_one_name_notice() {
    let directory = tempfile::tempdir().unwrap();
    let first = Rig::open(options(&directory, "same")).unwrap();
    let second = Rig::open(options(&directory, "same")).unwrap();
    let both_store = |numbers: [u32; 2]| {
        for (number, rig) in numbers.into_iter().zip([&first, &second]) {
            let (record, bytes) = block(number, 1000);
            rig.store(record, &bytes, true).unwrap();
        }
    };
    // What was begun by a daemon that is no more may come once.
    both_store([1, 2]);
    for rig in [&first, &second] {
        rig.bucket.refresh(PATIENCE).unwrap();
        assert_eq!(rig.bucket.health(), Health::Ready);
    }
    both_store([3, 4]);
    for rig in [&first, &second] {
        rig.bucket.refresh(PATIENCE).unwrap();
        let Health::Degraded(why) = rig.bucket.health() else { panic!("not noticed") };
        assert!(why.contains("another daemon uses the name \"same\""), "{why}");
        check(rig, 1, 1000);
        check(rig, 2, 1000);
    }
}

#[test]
fn nothing_is_lost_between_merges_and_looks() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::open(options(&directory, "a")).unwrap();
    let blocks = 100;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    rig.bucket.refresh(PATIENCE).unwrap();
                }
            });
        }
        for number in 0..blocks {
            let (record, bytes) = block(number, 100);
            rig.store(record, &bytes, true).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(rig.bucket.health(), Health::Ready, "it is no other daemon");
    drop(rig);
    let rig = Rig::open(options(&directory, "a")).unwrap();
    for number in 0..blocks {
        check(&rig, number, 100);
    }
}
