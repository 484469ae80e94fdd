//! The object tier over a local directory.

use tranship_cache::tier::cold::{Cold, Failure, Job};
use tranship_cache::tier::object::Options;
use tranship_tests::cold::{Rig, block, identity};

fn options(directory: &tempfile::TempDir, node: &str) -> Options {
    let mut options = Options::new(directory.path().to_str().unwrap(), node);
    options.pack_bytes = 1 << 20;
    options.buffer_bytes = 8 << 20;
    options
}

#[test]
fn blocks_are_found_and_loaded_before_and_after_they_are_in_the_bucket() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::open(options(&directory, "a")).unwrap();
    let blocks: Vec<_> = (0..20).map(|n| block(n, 100_000 + n as usize * 7)).collect();
    for (record, bytes) in &blocks {
        assert_eq!(rig.bucket.find(&record.name()), None);
        rig.store(*record, bytes, false).unwrap();
        assert!(rig.finds(record));
        assert_eq!(&rig.load(record.name(), 0..record.len).unwrap(), bytes);
    }
    rig.sync().unwrap();
    for (record, bytes) in &blocks {
        assert_eq!(&rig.load(record.name(), 0..record.len).unwrap(), bytes);
        for range in [0..1, 5..5, 65_535..65_537, 70_000..record.len, record.len - 1..record.len] {
            let part = rig.load(record.name(), range.clone()).unwrap();
            assert_eq!(part, bytes[range.start as usize..range.end as usize], "{range:?}");
        }
    }
    let figures = rig.bucket.figures();
    assert_eq!((figures.blocks, figures.stored, figures.corrupt, figures.failed), (20, 20, 0, 0));
    rig.bucket.close(std::time::Duration::from_secs(10));
    drop(rig);

    let rig = Rig::open(options(&directory, "a")).unwrap();
    assert_eq!(rig.bucket.figures().recovered, 20);
    for (record, bytes) in &blocks {
        assert!(rig.finds(record));
        assert_eq!(&rig.load(record.name(), 0..record.len).unwrap(), bytes);
    }
    let mut all = rig.all();
    all.sort_by_key(|(name, _)| *name);
    let mut names: Vec<_> = blocks.iter().map(|(record, _)| record.name()).collect();
    names.sort();
    assert_eq!(all.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
}

#[test]
fn what_was_removed_or_cleared_is_gone_at_once() {
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
    rig.store(second, &bytes, false).unwrap();
    assert!(rig.finds(&second));
}
