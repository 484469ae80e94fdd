//! The object tier over the wire, against real servers.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tranship_cache::tier::codec::{Choice, Codec};
use tranship_cache::tier::cold::{Cold, Failure, Health, Job};
use tranship_cache::tier::object::{Clock, OpenError, Options};
use tranship_cache::time::Wall;
use tranship_tests::cold::{Rig, Turned, block, block_until};
use tranship_tests::s3::{BUCKET, KEY, Kind, SECRET, Server, servers};

const PATIENCE: Duration = Duration::from_secs(60);

/// Packs of at least two parts, and nothing that happens by itself.
fn options(server: &Server, node: &str) -> Options {
    let mut options = server.options(node);
    options.pack_bytes = 12 << 20;
    options.part_bytes = 5 << 20;
    options.buffer_bytes = 64 << 20;
    options.pack_age = PATIENCE;
    (options.poll, options.collect) = (Duration::ZERO, Duration::ZERO);
    options
}

/// The block is there, as it was stored.
fn check(rig: &Rig, number: u32, len: usize) {
    let (record, bytes) = block(number, len);
    assert!(rig.finds(&record), "block {number} is not found");
    let loaded = rig.load(record.name(), 0..record.len).unwrap();
    assert!(loaded == bytes, "block {number} has other bytes");
}

#[test]
fn what_is_stored_survives_a_restart_of_everything() {
    for server in &mut servers() {
        for choice in [Choice::Off, Choice::Always(Codec::Zstd)] {
            let node = if choice == Choice::Off { "plain" } else { "coded" };
            let (first, len) = if choice == Choice::Off { (0, 700_001) } else { (100, 300_001) };
            let open = |server: &Server| {
                let mut options = options(server, node);
                options.codec = choice;
                Rig::open(options).unwrap()
            };
            let rig = open(server);
            assert_eq!(rig.bucket.health(), Health::Ready);
            for number in first..first + 40 {
                let (record, bytes) = block(number, len);
                rig.store(record, &bytes, number == first + 39).unwrap();
            }
            rig.sync().unwrap();
            let written = rig.bucket.figures().device_written_bytes;
            assert!(written > 4 << 20, "{written}");
            rig.bucket.close(PATIENCE);
            drop(rig);
            // moto keeps everything in memory.
            if server.kind.verifies() {
                server.restart();
            }
            let rig = open(server);
            for number in first..first + 40 {
                check(&rig, number, len);
            }
            let (record, bytes) = block(first + 5, len);
            for range in [0..1, 65_530..65_540, 131_072..196_608, 250_000..record.len] {
                let part = rig.load(record.name(), range.clone()).unwrap();
                assert_eq!(part, bytes[range.start as usize..range.end as usize], "{range:?}");
            }
            let read = rig.bucket.figures().device_read_bytes;
            rig.load(record.name(), record.len - 100..record.len).unwrap();
            let part = rig.bucket.figures().device_read_bytes - read;
            assert!(part < 80_000 && part > 0, "100 bytes took {part}");
            rig.bucket.close(PATIENCE);
        }
    }
}

#[test]
fn nodes_find_what_others_stored_and_lose_what_they_dropped() {
    for server in &servers() {
        let clock = Arc::new(Turned::default());
        let open = |node: &str| {
            let mut options = options(server, node);
            options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
            Rig::open(options).unwrap()
        };
        let (a, b) = (open("a"), open("b"));
        for number in 0..10 {
            let (record, bytes) = block_until(number, 200_000, Wall(1_000_000));
            a.store(record, &bytes, number % 5 == 4).unwrap();
            assert!(!b.finds(&record));
        }
        assert_eq!(b.bucket.refresh(PATIENCE).unwrap(), 2);
        for number in 0..10 {
            let (record, bytes) = block_until(number, 200_000, Wall(1_000_000));
            assert!(b.finds(&record), "{number}");
            assert_eq!(b.load(record.name(), 0..record.len).unwrap(), bytes);
        }
        let c = open("c");
        assert_eq!(c.bucket.figures().blocks, 10, "who comes later finds them at once");
        // What both have is stored once, and by whoever came first.
        let (record, bytes) = block_until(3, 200_000, Wall(1_000_000));
        let written = b.bucket.figures().device_written_bytes;
        b.store(record, &bytes, true).unwrap();
        assert_eq!(b.bucket.figures().device_written_bytes, written);

        // Their time is over: nobody finds them, and the node that made them deletes them.
        clock.forward(Duration::from_secs(1000));
        assert!(!a.finds(&record) && !b.finds(&record));
        let collected = a.bucket.collect(PATIENCE).unwrap();
        assert_eq!((collected.dropped, collected.deleted), (2, 0), "others may not know it yet");
        b.bucket.refresh(PATIENCE).unwrap();
        assert_eq!(b.bucket.figures().blocks, 0);
        clock.forward(Duration::from_secs(601));
        assert_eq!(a.bucket.collect(PATIENCE).unwrap().deleted, 2);
    }
}

#[test]
fn a_pack_that_was_deleted_is_a_miss() {
    for server in &servers() {
        let clock = Arc::new(Turned::default());
        let open = |node: &str, capacity: u64| {
            let mut options = options(server, node);
            options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
            options.capacity_bytes = capacity;
            Rig::open(options).unwrap()
        };
        let (a, b) = (open("a", 1 << 20), open("b", 1 << 30));
        for number in 0..4 {
            let (record, bytes) = block(number, 400_000);
            a.store(record, &bytes, true).unwrap();
        }
        b.bucket.refresh(PATIENCE).unwrap();
        let dropped = a.bucket.collect(PATIENCE).unwrap();
        // What is too much may have gone as it was stored.
        let figures = a.bucket.figures();
        assert_eq!((figures.evicted, figures.blocks), (2, 2), "{dropped:?}");
        clock.forward(Duration::from_secs(601));
        assert_eq!(a.bucket.collect(PATIENCE).unwrap().deleted, 2);
        // The other node has not looked since.
        let mut gone = 0;
        for number in 0..4 {
            let (record, bytes) = block(number, 400_000);
            match b.load(record.name(), 0..record.len) {
                Ok(loaded) => assert_eq!(loaded, bytes),
                Err(failure) => {
                    assert_eq!(failure, Failure::Gone);
                    assert!(!b.finds(&record), "it is not found again");
                    gone += 1;
                }
            }
        }
        assert_eq!(gone, 2);
    }
}

#[test]
fn who_is_killed_loses_nothing_that_was_safe() {
    for server in &servers() {
        let len = 1_500_000;
        let mut first = 0;
        for round in 0..3 {
            let mut child = Command::new(env!("CARGO_BIN_EXE_object-writer"))
                .arg(format!("s3://{BUCKET}/cache"))
                .args(["w", &first.to_string(), &len.to_string()])
                .arg(format!("endpoint={}", server.endpoint()))
                .args(["region=us-east-1".to_owned(), format!("access_key_id={KEY}")])
                .arg(format!("secret_access_key={SECRET}"))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut safe = Vec::new();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            while safe.len() < 3 + round {
                safe.push(lines.next().unwrap().unwrap().parse::<u32>().unwrap());
            }
            // In the middle of whatever it is doing.
            child.kill().unwrap();
            child.wait().unwrap();
            safe.extend(lines.map_while(Result::ok).filter_map(|line| line.parse::<u32>().ok()));
            let last = *safe.last().unwrap();
            let rig = Rig::open(options(server, "w")).unwrap();
            for number in safe {
                check(&rig, number, len);
            }
            for number in first..last + 30 {
                let (record, bytes) = block(number, len);
                if rig.finds(&record) {
                    assert!(rig.load(record.name(), 0..record.len).unwrap() == bytes, "{number}");
                }
            }
            rig.bucket.close(PATIENCE);
            first = last + 30;
        }
    }
}

#[test]
fn what_a_crash_left_is_adopted_while_it_is_young_and_deleted_when_it_is_old() {
    for server in &servers() {
        let (len, clock) = (300_000, Arc::new(Turned::default()));
        let open = |node: &str| {
            let mut options = options(server, node);
            options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
            options.collect_shards = 256;
            Rig::open(options).unwrap()
        };
        let a = open("a");
        let (record, bytes) = block(1, len);
        a.store(record, &bytes, true).unwrap();
        a.bucket.close(PATIENCE);
        drop(a);
        // As if it had been killed before it told of its pack.
        let removed = server.remove("cache/v1/manifests/");
        assert_eq!(removed, 1);

        let b = open("b");
        assert!(!b.finds(&record));
        let collected = b.bucket.collect(PATIENCE).unwrap();
        assert_eq!(
            (collected.strays, collected.adopted, collected.deleted),
            (1, 0, 0),
            "another's"
        );
        let a = open("a");
        let collected = a.bucket.collect(PATIENCE).unwrap();
        assert_eq!((collected.strays, collected.adopted), (1, 1));
        check(&a, 1, len);
        b.bucket.refresh(PATIENCE).unwrap();
        check(&b, 1, len);
        // However far the local clocks jump, what is named stays.
        for _ in 0..3 {
            clock.forward(Duration::from_secs(1 << 20));
            let (a, b) = (a.bucket.collect(PATIENCE), b.bucket.collect(PATIENCE));
            assert_eq!((a.unwrap().deleted, b.unwrap().deleted), (0, 0));
        }
        check(&b, 1, len);
        // What is not named stays too while the service says that it is young.
        drop(a);
        assert_eq!(server.remove("cache/v1/manifests/"), 1);
        let b = {
            drop(b);
            open("b")
        };
        for _ in 0..3 {
            let collected = b.bucket.collect(PATIENCE).unwrap();
            assert_eq!((collected.strays, collected.deleted), (1, 0));
            clock.forward(Duration::from_secs(1 << 20));
        }
    }
}

#[test]
fn two_nodes_store_and_collect_at_once_and_no_wrong_byte_is_read() {
    for server in &servers() {
        let open = |node: &str| {
            let mut options = options(server, node);
            options.capacity_bytes = 3 << 20;
            options.pack_bytes = 1 << 20;
            options.pack_age = Duration::from_millis(50);
            options.poll = Duration::from_millis(50);
            options.collect = Duration::from_millis(50);
            options.collect_shards = 256;
            options.linger = Duration::ZERO;
            Rig::open(options).unwrap()
        };
        let nodes = [open("a"), open("b")];
        let len = 150_000;
        let loaded = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for (seed, rig) in (1_u32..).zip(&nodes) {
                let loaded = &loaded;
                scope.spawn(move || {
                    for step in 0..150_u32 {
                        let number = step.wrapping_mul(7 + seed) % 60;
                        let (record, bytes) = block(number, len);
                        if step % 3 == 0 {
                            rig.store(record, &bytes, step % 30 == 0).unwrap();
                        }
                        match rig.load(record.name(), 0..record.len) {
                            Ok(there) => {
                                assert!(there == bytes, "block {number}");
                                loaded.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(failure) => assert_eq!(failure, Failure::Gone),
                        }
                    }
                });
            }
        });
        assert!(loaded.load(Ordering::Relaxed) > 100, "{loaded:?}");
        for rig in &nodes {
            assert_eq!(rig.bucket.figures().corrupt, 0);
            rig.bucket.close(PATIENCE);
        }
        drop(nodes);
        // Everything that a manifest names is there.
        let c = Rig::open(options(server, "c")).unwrap();
        let all = c.all();
        assert!(!all.is_empty());
        for (name, found) in all {
            c.load(name, 0..found.len).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_used_is_said_in_one_line() {
    for server in &servers() {
        let open = |options: Options| match Rig::open(options) {
            Ok(_) => panic!("it opened"),
            Err(error) => {
                let text = error.to_string();
                assert!(!text.contains('\n') && !text.contains(SECRET), "{text}");
                error
            }
        };
        // s3s-fs makes whatever is written to.
        if server.kind != Kind::S3sFs {
            let mut other = options(server, "a");
            other.url = "s3://no-such-bucket/x".to_owned();
            assert!(matches!(open(other), OpenError::NoBucket { .. }), "{}", server.kind.name());
        }
        if server.kind.verifies() {
            let mut other = options(server, "a");
            other.settings.retain(|(name, _)| name != "secret_access_key");
            let error = open(other.with("secret_access_key", "wrong"));
            assert!(matches!(error, OpenError::Credentials { .. }), "{error}");
        }
        let mut nowhere = options(server, "a").with("endpoint", "http://127.0.0.1:1");
        nowhere.open_within = Duration::from_secs(2);
        let error = open(nowhere);
        assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("nobody answers"), "{error}");
    }
}

#[test]
fn who_only_reads_writes_nothing() {
    for server in &servers() {
        let a = Rig::open(options(server, "a")).unwrap();
        let (record, bytes) = block(1, 5000);
        a.store(record, &bytes, true).unwrap();
        let mut read_only = options(server, "r");
        read_only.read_only = true;
        let r = Rig::open(read_only).unwrap();
        assert!(matches!(r.bucket.health(), Health::ReadOnly(_)));
        check(&r, 1, 5000);
        let (record, bytes) = block(2, 5000);
        assert!(matches!(r.store(record, &bytes, false), Err(Failure::Unavailable(_))));
        r.submit(Job::Remove { name: block(1, 5000).0.name() });
        assert!(!r.finds(&block(1, 5000).0));
        r.bucket.close(PATIENCE);
        assert_eq!(r.bucket.figures().device_written_bytes, 0);
        check(&a, 1, 5000);
    }
}
