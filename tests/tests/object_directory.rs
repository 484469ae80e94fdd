//! The object tier over a local directory: what does not need a server to be seen.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tranship_cache::tier::cold::{Cold, Failure, Health, Job};
use tranship_cache::tier::object::{Clock, OpenError, Options};
use tranship_tests::cold::{Rig, Turned, block, identity};

const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Nothing happens by itself.
fn options(directory: &TempDir, node: &str) -> Options {
    let mut options = Options::new(directory.path().to_str().unwrap(), node);
    options.pack_bytes = 1 << 20;
    options.buffer_bytes = 8 << 20;
    options.pack_age = PATIENCE;
    options.collect_shards = 256;
    (options.poll, options.collect) = (Duration::ZERO, Duration::ZERO);
    options
}

/// All files below a folder of the bucket.
fn files(directory: &TempDir, below: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => walk(&path, found),
                path => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    walk(&directory.path().join("v1").join(below), &mut found);
    found
}

/// As if they had been written so long ago.
fn age(files: &[PathBuf], by: Duration) {
    for path in files {
        let then = SystemTime::now() - by;
        File::options().append(true).open(path).unwrap().set_modified(then).unwrap();
    }
}

fn check(rig: &Rig, number: u32, len: usize) {
    let (record, bytes) = block(number, len);
    assert!(rig.finds(&record), "block {number} is not found");
    assert!(rig.load(record.name(), 0..record.len).unwrap() == bytes, "block {number}");
}

#[test]
fn blocks_are_found_and_loaded_before_and_after_they_are_in_the_bucket() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::open(options(&directory, "a")).unwrap();
    let blocks: Vec<_> = (0..20).map(|n| block(n, n as usize * 10_007)).collect();
    for (record, bytes) in &blocks {
        assert_eq!(rig.bucket.find(&record.name()), None);
        rig.store(*record, bytes, false).unwrap();
        assert!(rig.finds(record));
        assert_eq!(&rig.load(record.name(), 0..record.len).unwrap(), bytes);
    }
    rig.sync().unwrap();
    for (record, bytes) in &blocks {
        assert_eq!(&rig.load(record.name(), 0..record.len).unwrap(), bytes);
        let len = record.len;
        for range in [0..1, 5..5, 65_535..65_537, 70_000..len, len.saturating_sub(1)..len] {
            if range.start > range.end || range.end > len {
                continue;
            }
            let part = rig.load(record.name(), range.clone()).unwrap();
            assert_eq!(part, bytes[range.start as usize..range.end as usize], "{range:?}");
        }
        let beyond = rig.load(record.name(), 0..len + 1);
        assert!(matches!(beyond, Err(Failure::Io(_))), "{beyond:?}");
    }
    let figures = rig.bucket.figures();
    assert_eq!((figures.blocks, figures.stored, figures.corrupt), (20, 20, 0));
    rig.bucket.close(PATIENCE);
    drop(rig);

    let rig = Rig::open(options(&directory, "a")).unwrap();
    assert_eq!(rig.bucket.figures().recovered, 20);
    for (record, bytes) in &blocks {
        assert!(rig.finds(record));
        assert_eq!(&rig.load(record.name(), 0..record.len).unwrap(), bytes);
        assert_eq!(rig.told(record.name()), *record, "with its place in its chain");
    }
    let mut all = rig.all();
    all.sort_by_key(|(name, _)| *name);
    let mut names: Vec<_> = blocks.iter().map(|(record, _)| record.name()).collect();
    names.sort();
    assert_eq!(all.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
}

#[test]
fn what_was_removed_or_cleared_is_gone_at_once_and_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::open(options(&directory, "a")).unwrap();
    let (first, bytes) = block(1, 5000);
    let (mut second, _) = block(2, 5000);
    second.checksum = first.checksum;
    second.identity = identity(2);
    rig.store(first, &bytes, true).unwrap();
    rig.store(second, &bytes, true).unwrap();
    rig.submit(Job::Remove { name: first.name() });
    assert_eq!(rig.bucket.find(&first.name()), None);
    assert_eq!(rig.load(first.name(), 0..1), Err(Failure::Gone));
    rig.submit(Job::Clear { identity: identity(2) });
    assert_eq!(rig.bucket.find(&second.name()), None);
    assert_eq!(rig.bucket.figures().blocks, 0);
    assert_eq!(rig.all(), []);
    rig.bucket.collect(PATIENCE).unwrap();
    rig.bucket.close(PATIENCE);
    drop(rig);
    let rig = Rig::open(options(&directory, "a")).unwrap();
    assert_eq!(rig.bucket.figures().blocks, 0, "nor after a restart");
    rig.store(second, &bytes, false).unwrap();
    assert!(rig.finds(&second));
}

#[test]
fn bytes_that_changed_under_way_are_not_stored() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::open(options(&directory, "a")).unwrap();
    let (record, mut bytes) = block(1, 100_000);
    bytes[50_000] ^= 1;
    assert_eq!(rig.store(record, &bytes, false), Err(Failure::Corrupt));
    assert_eq!(rig.bucket.find(&record.name()), None);
}

#[test]
fn a_damaged_pack_costs_the_blocks_that_are_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::open(options(&directory, "a")).unwrap();
    for number in 0..4 {
        let (record, bytes) = block(number, 200_000);
        rig.store(record, &bytes, false).unwrap();
    }
    rig.sync().unwrap();
    let [pack] = &files(&directory, "packs")[..] else { panic!("one pack") };
    let mut bytes = std::fs::read(pack).unwrap();
    // In the middle of the second block and of the third, behind their first chunks.
    bytes[300_000] ^= 4;
    bytes[500_000] ^= 4;
    std::fs::write(pack, bytes).unwrap();
    let (second, whole) = block(1, 200_000);
    assert_eq!(rig.load(second.name(), 0..1000).unwrap(), whole[..1000], "a part that is whole");
    assert_eq!(rig.load(second.name(), 0..second.len), Err(Failure::Corrupt));
    assert!(!rig.finds(&second));
    let (third, whole) = block(2, 200_000);
    assert_eq!(rig.load(third.name(), 1..60_000).unwrap(), whole[1..60_000]);
    assert_eq!(rig.load(third.name(), 60_000..third.len), Err(Failure::Corrupt));
    assert!(!rig.finds(&third));
    for number in [0, 3] {
        check(&rig, number, 200_000);
    }
    assert_eq!(rig.bucket.figures().corrupt, 2);
}

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
    let open = |node: &str| {
        let mut options = options(&directory, node);
        options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        Rig::open(options).unwrap()
    };
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
    let open = |node: &str| {
        let mut options = options(&directory, node);
        options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        Rig::open(options).unwrap()
    };
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

#[test]
fn what_was_removed_is_not_brought_back_by_what_is_heard_later() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(Turned::default());
    let open = |node: &str| {
        let mut options = options(&directory, node);
        options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        Rig::open(options).unwrap()
    };
    let (a, b) = (open("a"), open("b"));
    let (first, bytes) = block(1, 5000);
    let (mut second, others) = block(2, 5000);
    second.identity = identity(2);
    b.store(first, &bytes, false).unwrap();
    b.store(second, &others, true).unwrap();
    // Node a has not heard of them.
    a.submit(Job::Remove { name: first.name() });
    a.submit(Job::Clear { identity: identity(2) });
    assert_eq!(a.bucket.refresh(PATIENCE), Ok(1));
    assert!(!a.finds(&first) && !a.finds(&second));
    assert_eq!(a.all(), []);
    // What is stored here again is found again, and so is what others store later.
    a.store(first, &bytes, false).unwrap();
    check(&a, 1, 5000);
    clock.forward(HOUR * 2);
    let (mut third, bytes) = block(3, 5000);
    third.identity = identity(2);
    b.store(third, &bytes, true).unwrap();
    a.bucket.refresh(PATIENCE).unwrap();
    assert!(a.finds(&third) && !a.finds(&second));
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
    let open = |node: &str| {
        let mut options = options(&directory, node);
        options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        Rig::open(options).unwrap()
    };
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
    for (number, rig) in [(1, &first), (2, &second)] {
        let (record, bytes) = block(number, 1000);
        rig.store(record, &bytes, true).unwrap();
    }
    for rig in [&first, &second] {
        rig.bucket.refresh(PATIENCE).unwrap();
        let Health::Degraded(why) = rig.bucket.health() else { panic!("not noticed") };
        assert!(why.contains("another daemon uses the name \"same\""), "{why}");
        check(rig, 1, 1000);
        check(rig, 2, 1000);
    }
}

#[test]
fn options_that_cannot_be_are_refused_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let wrong: [fn(&mut Options); 7] = [
        |options| options.node = "a/b".to_owned(),
        |options| options.pack_bytes = 1,
        |options| options.part_bytes = 1,
        |options| options.buffer_bytes = 1,
        |options| options.grace = Duration::from_secs(1),
        |options| options.demand_requests = 0,
        |options| options.codec_width = 3,
    ];
    for spoil in wrong {
        let mut options = options(&directory, "a");
        spoil(&mut options);
        let Err(OpenError::Option(text)) = Rig::open(options) else { panic!("it opened") };
        assert!(!text.contains('\n'), "{text}");
    }
    let file = directory.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Rig::open(Options::new(file.to_str().unwrap(), "a")).err().unwrap();
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
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

/// A file system of its own; unmounted when dropped.
struct Mount(TempDir);

impl Mount {
    /// With room for so much; none where that is not allowed, and that is said.
    fn new(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        let run = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(directory.path())
            .output();
        let why = match run {
            Ok(output) if output.status.success() => return Some(Self(directory)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
        {
            eprintln!("skipped: no file system can be mounted: {why}");
        }
        None
    }

    fn remount(&self, how: &str) {
        let how = format!("remount,{how}");
        let status = Command::new("mount").args(["-o", &how]).arg(self.0.path()).status();
        assert!(status.unwrap().success(), "{how}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_directory_that_is_full_or_read_only_is_told_until_it_is_not() {
    let Some(mount) = Mount::new("4m") else { return };
    let mut quick = options(&mount.0, "a");
    quick.breaker.pause = Duration::from_millis(20);
    quick.breaker.pause_max = Duration::from_millis(50);
    let rig = Rig::open(quick).unwrap();
    let mut number = 0;
    let mut store = || {
        number += 1;
        let (record, bytes) = block(number, 100_000);
        rig.store(record, &bytes, true)
    };
    store().unwrap();
    let mut refused = |said: &str| {
        let failed = store();
        assert!(matches!(&failed, Err(Failure::Io(text)) if text.contains(said)), "{failed:?}");
        let Health::ReadOnly(why) = rig.bucket.health() else {
            panic!("{:?}", rig.bucket.health())
        };
        assert!(why.contains("writing does not work") && why.contains(said), "{why}");
        assert!(matches!(store(), Err(Failure::Unavailable(_))));
        check(&rig, 1, 100_000);
    };
    let filler = mount.0.path().join("filler");
    let full = std::fs::write(&filler, vec![1; 8 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    refused("No space left on device");
    std::fs::remove_file(&filler).unwrap();
    rig.until(|| rig.bucket.health() == Health::Ready);
    mount.remount("ro");
    refused("Read-only file system");
    let error = Rig::open(Options { or_read_only: false, ..options(&mount.0, "b") }).err().unwrap();
    assert!(matches!(error, OpenError::Denied { what: "write", .. }), "{error}");
    mount.remount("rw");
    rig.until(|| rig.bucket.health() == Health::Ready);
    store().unwrap();
}
