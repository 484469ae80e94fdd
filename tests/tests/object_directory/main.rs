//! The object tier over a local directory: what does not need a server to be seen.

mod news;
mod packs;
mod places;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tranship_cache::tier::cold::{Cold, Failure, Health, Job, Record};
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

/// A node whose time the test turns.
fn node(directory: &TempDir, name: &str, clock: &Arc<Turned>) -> Rig {
    let mut options = options(directory, name);
    options.clock = Arc::clone(clock) as Arc<dyn Clock>;
    Rig::open(options).unwrap()
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
