//! Stores over several files.

use std::fs;

use crate::tier::nvme::disk::{self, Target, directory};
use crate::tier::nvme::testing::{Stepped, bytes, record};
use crate::tier::nvme::{OpenError, Options};

const MIB: u64 = 1 << 20;

fn open(path: &std::path::Path, segment_bytes: u64) -> Result<Stepped, OpenError> {
    let target = Target::new(path).unit(segment_bytes).file_bytes(4 * MIB);
    let disk = disk::Options::new(12 * MIB).create().ours(crate::tier::nvme::is_ours);
    let disk = disk::open(&target, &disk).expect("a disk");
    let options = Options { segment_bytes, bounce_bytes: MIB, ..Options::default() };
    Stepped::open(disk, &options, 1)
}

/// Blocks enough to lie in all files.
fn fill(store: &mut Stepped) {
    for number in 0..6 {
        let bytes = bytes(number, 700_000);
        assert_eq!(store.store(record(number, &bytes), &bytes, true), Ok(None));
    }
}

fn is_all_there(store: &mut Stepped) {
    for number in 0..6 {
        let bytes = bytes(number, 700_000);
        let record = record(number, &bytes);
        assert!(store.load(record.name(), record.len) == Ok((record, bytes)), "block {number}");
    }
}

#[test]
fn another_size_of_segments_is_refused_over_several_files() {
    let place = directory();
    let mut store = open(place.path(), MIB).expect("an empty directory");
    fill(&mut store);
    store.close();
    let images = || {
        let mut files: Vec<_> =
            fs::read_dir(place.path()).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), 3);
        files.iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>()
    };
    let before = images();
    for other in [MIB / 2, 2 * MIB] {
        let why = open(place.path(), other).expect_err("bytes would be looked for elsewhere");
        assert_eq!(why, OpenError::Stripes { segment_bytes: MIB, stripe_bytes: other });
        let line = why.to_string();
        assert!(line.contains("set nvme.segment to 1048576") && !line.contains('\n'), "{line}");
        assert!(images() == before, "a store that was refused is changed");
    }
    is_all_there(&mut open(place.path(), MIB).expect("the size that it was made with"));
}

#[test]
fn a_single_file_keeps_its_size_of_segments() {
    let place = directory();
    let path = place.path().join("log");
    let mut store = open(&path, MIB).expect("no file");
    fill(&mut store);
    store.close();
    is_all_there(&mut open(&path, MIB / 2).expect("what is there says its size of segments"));
}

#[test]
fn files_in_another_order_are_refused_and_left_alone() {
    let place = directory();
    let mut store = open(place.path(), MIB).expect("an empty directory");
    fill(&mut store);
    store.close();
    let [one, two, aside] = [1, 2, 9].map(|number| disk::file_in(place.path(), number));
    let swap = || {
        fs::rename(&one, &aside).unwrap();
        fs::rename(&two, &one).unwrap();
        fs::rename(&aside, &two).unwrap();
    };
    swap();
    let before = [fs::read(&one).unwrap(), fs::read(&two).unwrap()];
    let why = open(place.path(), MIB).expect_err("blocks would be overwritten");
    assert!(matches!(why, OpenError::Shuffled { misplaced: 2.. }), "{why}");
    assert!(!why.to_string().contains('\n') && why.to_string().contains("in the order"), "{why}");
    assert!(before == [fs::read(&one).unwrap(), fs::read(&two).unwrap()], "it is changed");
    swap();
    is_all_there(&mut open(place.path(), MIB).expect("as it was"));
}
