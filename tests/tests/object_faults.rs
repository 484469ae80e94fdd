//! The object tier over a service that fails in every way: a load ends in the right bytes, a miss or an
//! error, in time, and never in wrong bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tranship_cache::tier::cold::{Cold, Failure, Health, Job, Refusal};
use tranship_cache::tier::object::{OpenError, Options};
use tranship_tests::cold::{Rig, block, span_of};
use tranship_tests::proxy::{Fate, Proxy, Request};
use tranship_tests::s3::{Server, options_at, servers};

const PATIENCE: Duration = Duration::from_secs(60);
/// Several pieces of a body, so that there is a middle to fail in.
const LEN: usize = 400_000;

fn options(endpoint: &str, node: &str) -> Options {
    let mut options = options_at(endpoint, node);
    options.pack_age = PATIENCE;
    (options.poll, options.collect) = (Duration::ZERO, Duration::ZERO);
    options.silence = Duration::from_millis(500);
    options.retries.pause = Duration::from_millis(20);
    options.retries.pause_max = Duration::from_millis(100);
    // Opens in no test but the one that is about it.
    options.breaker.over = PATIENCE;
    options
}

fn fates() -> Vec<Fate> {
    let pause = Duration::from_millis(1);
    vec![
        Fate::Status(500, "InternalError"),
        Fate::Status(503, "SlowDown"),
        Fate::Status(429, "TooManyRequests"),
        Fate::Slow { piece: 8192, pause },
        Fate::Stall { after: 0 },
        Fate::Stall { after: 100_000 },
        Fate::Silence,
        Fate::Truncate { after: 1 },
        Fate::Truncate { after: 100_000 },
        Fate::Flip { at: 0 },
        Fate::Flip { at: 30 },
        Fate::Flip { at: 37_900 },
        Fate::Flip { at: 200_000 },
        Fate::Flip { at: usize::MAX },
        Fate::Reset,
        Fate::ResetAfter,
    ]
}

fn is_pack(request: &Request, method: &str) -> bool {
    request.method == method && request.path.contains("/packs/")
}

/// Spoils the first `times` requests for packs.
fn spoil(proxy: &Proxy, method: &'static str, fate: Fate, times: u64) {
    let mut left = times;
    proxy.decide(move |request| {
        if left > 0 && is_pack(request, method) {
            left -= 1;
            return fate;
        }
        Fate::Pass
    });
}

fn with_proxies(test: impl Fn(&Server, &Proxy)) {
    for server in servers() {
        test(&server, &Proxy::start(&server.address));
    }
}

#[test]
fn a_load_is_tried_again() {
    with_proxies(|_, proxy| {
        let rig = Rig::open(options(&proxy.endpoint(), "a")).unwrap();
        for (number, fate) in (0..).zip(fates()) {
            let (record, bytes) = block(number, LEN);
            rig.store(record, &bytes, true).unwrap();
            for times in [1, 2] {
                // Twice wrong is taken for damaged where it is kept.
                if times == 2 && matches!(fate, Fate::Flip { .. }) {
                    continue;
                }
                spoil(proxy, "GET", fate, times);
                let loaded = rig.load(record.name(), 0..record.len);
                assert!(loaded.as_ref() == Ok(&bytes), "{fate:?}: {:?}", loaded.map(|_| "other"));
            }
            spoil(proxy, "GET", fate, 1);
            let part = rig.load(record.name(), 300_000..300_100).unwrap();
            assert_eq!(part, bytes[300_000..300_100], "{fate:?}");
        }
        assert_eq!(rig.bucket.figures().corrupt, 0);
    });
}

#[test]
fn what_never_works_ends_in_time_and_never_in_wrong_bytes() {
    with_proxies(|server, proxy| {
        let rig = Rig::open(options(&proxy.endpoint(), "a")).unwrap();
        for (number, fate) in (0..).zip(fates()) {
            let (record, bytes) = block(number, LEN);
            proxy.decide(|_| Fate::Pass);
            rig.store(record, &bytes, true).unwrap();
            spoil(proxy, "GET", fate, u64::MAX);
            let (began, within) = (Instant::now(), Duration::from_secs(5));
            let result = rig.load_within(record.name(), 0..record.len, within);
            assert!(began.elapsed() < within + Duration::from_secs(2), "{fate:?}");
            match (fate, result) {
                (Fate::Slow { .. }, Ok(loaded)) => assert!(loaded == bytes),
                (Fate::Flip { .. }, Err(failure)) => {
                    assert_eq!(failure, Failure::Corrupt, "{fate:?}");
                    assert!(!rig.finds(&record), "it is not asked for again");
                }
                (_, Err(Failure::Io(text))) => assert!(!text.contains('\n'), "{text}"),
                (_, Err(failure)) => assert_eq!(failure, Failure::Deadline, "{fate:?}"),
                (_, Ok(_)) => panic!("{fate:?} cannot be loaded through"),
            }
            proxy.decide(|_| Fate::Pass);
            if !matches!(fate, Fate::Flip { .. }) {
                assert!(rig.load(record.name(), 0..record.len).unwrap() == bytes, "{fate:?}");
            }
        }
        // It was the way that was wrong, not what is kept.
        let direct = Rig::open(options(&server.endpoint(), "b")).unwrap();
        for (number, _) in (0..).zip(fates()) {
            let (record, bytes) = block(number, LEN);
            if direct.finds(&record) {
                assert!(direct.load(record.name(), 0..record.len).unwrap() == bytes);
            }
        }
    });
}

#[test]
fn an_upload_is_tried_again() {
    with_proxies(|server, proxy| {
        let mut several = options(&proxy.endpoint(), "a");
        several.part_bytes = 5 << 20;
        let rig = Rig::open(several).unwrap();
        // In one request, and in parts: of an upload in parts the beginning, a part, the end.
        let (small, large) = (5_000, 10 << 20);
        let steps = [
            (small, "PUT", ""),
            (large, "POST", "uploads"),
            (large, "PUT", "partNumber"),
            (large, "POST", "uploadId"),
        ];
        let mut number = 0;
        for fate in fates() {
            // The bodies of answers to writes are no longer than this.
            let fate = match fate {
                Fate::Stall { .. } => Fate::Stall { after: 0 },
                fate => fate,
            };
            if matches!(fate, Fate::Flip { .. } | Fate::Truncate { after: 2.. }) {
                continue;
            }
            for (len, method, query) in steps {
                // Twice, but for the end: once it was done there is nothing left to be ended.
                let times = if query == "uploadId" { 1 } else { 2 };
                let spoilt = Arc::new(AtomicU64::new(0));
                let spoils = Arc::clone(&spoilt);
                proxy.decide(move |request| {
                    let is_it = is_pack(request, method) && request.path.contains(query);
                    if is_it && spoils.fetch_add(1, Ordering::Relaxed) < times {
                        fate
                    } else {
                        Fate::Pass
                    }
                });
                number += 1;
                let (record, bytes) = block(number, len);
                let stored = rig.store(record, &bytes, true);
                assert!(stored.is_ok(), "{fate:?} {method} {query}: {stored:?}");
                assert!(spoilt.load(Ordering::Relaxed) > 0, "{fate:?} met no {method} {query}");
                let direct = Rig::open(options(&server.endpoint(), "b")).unwrap();
                assert!(direct.finds(&record), "{fate:?} {method} {query}");
                assert!(direct.load(record.name(), 0..record.len).unwrap() == bytes, "{fate:?}");
            }
        }
    });
}

#[test]
fn an_upload_that_never_works_is_given_up_and_said() {
    with_proxies(|_, proxy| {
        let mut short = options(&proxy.endpoint(), "a");
        short.upload_within = Duration::from_secs(2);
        let rig = Rig::open(short).unwrap();
        spoil(proxy, "PUT", Fate::Status(503, "SlowDown"), u64::MAX);
        let (first, bytes) = block(1, LEN);
        rig.store(first, &bytes, false).unwrap();
        assert!(rig.load(first.name(), 0..first.len).unwrap() == bytes, "from memory");
        let failed = rig.sync();
        let Err(Failure::Io(text)) = failed else { panic!("{failed:?}") };
        assert!(text.contains("could not be uploaded"), "{text}");
        assert!(!rig.finds(&first));
        let (second, bytes) = block(2, LEN);
        let failed = rig.store(second, &bytes, true);
        let Err(Failure::Io(text)) = failed else { panic!("{failed:?}") };
        assert!(text.contains("503 SlowDown"), "{text}");
        proxy.decide(|_| Fate::Pass);
        rig.store(second, &bytes, true).unwrap();
        assert!(rig.load(second.name(), 0..second.len).unwrap() == bytes);
    });
}

#[test]
fn a_deadline_is_kept_by_whoever_is_silent() {
    with_proxies(|_, proxy| {
        let mut patient = options(&proxy.endpoint(), "a");
        patient.silence = PATIENCE;
        let rig = Rig::open(patient).unwrap();
        let (record, bytes) = block(1, LEN);
        rig.store(record, &bytes, true).unwrap();
        for fate in [Fate::Silence, Fate::Stall { after: 0 }, Fate::Stall { after: 100_000 }] {
            spoil(proxy, "GET", fate, u64::MAX);
            let began = Instant::now();
            let within = Duration::from_millis(300);
            let result = rig.load_within(record.name(), 0..record.len, within);
            assert_eq!(result.err(), Some(Failure::Deadline), "{fate:?}");
            let took = began.elapsed();
            assert!(took >= within && took < within + Duration::from_secs(2), "{fate:?}: {took:?}");
        }
    });
}

#[test]
fn a_service_that_is_down_is_left_alone_until_it_works_again() {
    with_proxies(|_, proxy| {
        let mut quick = options(&proxy.endpoint(), "a");
        quick.breaker.failures = 4;
        quick.breaker.over = Duration::ZERO;
        quick.breaker.pause = Duration::from_millis(300);
        let rig = Rig::open(quick).unwrap();
        let (record, bytes) = block(1, LEN);
        rig.store(record, &bytes, true).unwrap();

        proxy.decide(|_| Fate::Status(503, "SlowDown"));
        let failed = rig.load(record.name(), 0..record.len);
        assert!(matches!(failed, Err(Failure::Io(_) | Failure::Unavailable(_))), "{failed:?}");
        let Health::Off(why) = rig.bucket.health() else { panic!("{:?}", rig.bucket.health()) };
        assert!(why.contains("503 SlowDown"), "{why}");
        assert!(!rig.finds(&record), "a miss at once");
        let asked = proxy.requests();
        for _ in 0..100 {
            let failed = rig.load(record.name(), 0..record.len);
            assert!(matches!(failed, Err(Failure::Unavailable(_))), "{failed:?}");
            let failed = rig.store(record, &bytes, false);
            assert!(matches!(failed, Err(Failure::Unavailable(_))), "{failed:?}");
        }
        assert!(proxy.requests() < asked + 20, "{} requests", proxy.requests() - asked);

        proxy.decide(|_| Fate::Pass);
        rig.until(|| rig.bucket.health() == Health::Ready);
        assert!(rig.load(record.name(), 0..record.len).unwrap() == bytes);
    });
}

#[test]
fn who_is_silent_is_left_alone_however_short_the_deadlines_are() {
    with_proxies(|_, proxy| {
        let mut patient = options(&proxy.endpoint(), "a");
        patient.silence = PATIENCE;
        patient.breaker.failures = 4;
        patient.breaker.over = Duration::ZERO;
        let rig = Rig::open(patient).unwrap();
        let (record, bytes) = block(1, LEN);
        rig.store(record, &bytes, true).unwrap();
        proxy.decide(|_| Fate::Silence);
        for tried in 0..4 {
            assert_eq!(rig.bucket.health(), Health::Ready, "after {tried}");
            let within = Duration::from_millis(50);
            let failed = rig.load_within(record.name(), 0..record.len, within);
            assert_eq!(failed, Err(Failure::Deadline));
        }
        assert!(matches!(rig.bucket.health(), Health::Off(_)));
    });
}

#[test]
fn who_may_not_write_reads_and_who_may_not_read_is_told() {
    with_proxies(|server, proxy| {
        let (record, bytes) = block(1, LEN);
        let direct = Rig::open(options(&server.endpoint(), "a")).unwrap();
        direct.store(record, &bytes, true).unwrap();
        let denied = Fate::Status(403, "AccessDenied");
        proxy.decide(move |request| if request.method == "PUT" { denied } else { Fate::Pass });
        let rig = Rig::open(options(&proxy.endpoint(), "b")).unwrap();
        let Health::ReadOnly(why) = rig.bucket.health() else {
            panic!("{:?}", rig.bucket.health())
        };
        assert!(
            why.contains("writing is not allowed") && why.contains("403 AccessDenied"),
            "{why}"
        );
        assert!(rig.load(record.name(), 0..record.len).unwrap() == bytes);
        let mut strict = options(&proxy.endpoint(), "b");
        strict.or_read_only = false;
        let error = Rig::open(strict).err().unwrap();
        assert!(matches!(error, OpenError::Denied { what: "write", .. }), "{error}");
        proxy.decide(move |request| if request.method == "GET" { denied } else { Fate::Pass });
        let error = Rig::open(options(&proxy.endpoint(), "b")).err().unwrap();
        assert!(matches!(error, OpenError::Denied { what: "read", .. }), "{error}");
        proxy.decide(|_| Fate::Status(403, "SignatureDoesNotMatch"));
        let error = Rig::open(options(&proxy.endpoint(), "b")).err().unwrap();
        assert!(matches!(error, OpenError::Credentials { .. }), "{error}");
    });
}

#[test]
fn what_is_lost_at_run_time_is_told_until_it_is_back() {
    with_proxies(|_, proxy| {
        let mut quick = options(&proxy.endpoint(), "a");
        quick.breaker.pause = Duration::from_millis(50);
        quick.breaker.pause_max = Duration::from_millis(100);
        let rig = Rig::open(quick).unwrap();
        let (record, bytes) = block(1, LEN);
        rig.store(record, &bytes, true).unwrap();
        let denied = Fate::Status(403, "AccessDenied");
        let back = || {
            proxy.decide(|_| Fate::Pass);
            rig.until(|| rig.bucket.health() == Health::Ready);
            assert!(rig.load(record.name(), 0..record.len).unwrap() == bytes);
        };
        // The right to write; and room, which a service says with this status.
        for (number, fate, said) in
            [(2, denied, "access is denied"), (3, Fate::Status(507, "StorageFull"), "no more room")]
        {
            let (other, others) = block(number, LEN);
            proxy.decide(move |request| if request.method == "PUT" { fate } else { Fate::Pass });
            assert!(matches!(rig.store(other, &others, true), Err(Failure::Io(_))), "{fate:?}");
            let Health::ReadOnly(why) = rig.bucket.health() else {
                panic!("{fate:?}: {:?}", rig.bucket.health())
            };
            assert!(why.starts_with("writing does not work: ") && why.contains(said), "{why}");
            let failed = rig.store(other, &others, false);
            let Err(Failure::Unavailable(why)) = failed else { panic!("{failed:?}") };
            assert!(why.starts_with("read-only: ") && why.contains(said), "{why}");
            assert!(rig.load(record.name(), 0..record.len).unwrap() == bytes, "it is read");
            back();
            rig.store(other, &others, true).unwrap();
        }
        // Credentials, for everything: at once where it is written, after some loads where it is read.
        proxy.decide(|_| Fate::Status(403, "ExpiredToken"));
        for _ in 0..3 {
            let failed = rig.load(record.name(), 0..record.len);
            assert!(matches!(failed, Err(Failure::Io(_) | Failure::Unavailable(_))), "{failed:?}");
        }
        let Health::Off(why) = rig.bucket.health() else { panic!("{:?}", rig.bucket.health()) };
        assert!(why.contains("the credentials are refused (403 ExpiredToken)"), "{why}");
        assert!(!rig.finds(&record), "a miss at once");
        back();
        // The right to list.
        let lists =
            |request: &Request| request.method == "GET" && request.path.contains("list-type");
        proxy.decide(move |request| if lists(request) { denied } else { Fate::Pass });
        assert!(rig.bucket.refresh(PATIENCE).is_err());
        let Health::Degraded(why) = rig.bucket.health() else {
            panic!("{:?}", rig.bucket.health())
        };
        assert!(why.contains("listing does not work"), "{why}");
        back();
    });
}

#[test]
fn one_manifest_that_cannot_be_had_holds_no_other_up() {
    with_proxies(|server, proxy| {
        for node in ["a", "b"] {
            let rig = Rig::open(options(&server.endpoint(), node)).unwrap();
            let (record, bytes) = block(u32::from(node.as_bytes()[0]), 5000);
            rig.store(record, &bytes, true).unwrap();
        }
        let (own, other) = (block(u32::from(b'a'), 5000).0, block(u32::from(b'b'), 5000).0);
        // In the first look too, so that what this node told is not all known.
        let lost =
            |request: &Request| request.method == "GET" && request.path.contains("/manifests/a/");
        let fate = Fate::Status(500, "InternalError");
        proxy.decide(move |request| if lost(request) { fate } else { Fate::Pass });
        let rig = Rig::open(options(&proxy.endpoint(), "a")).unwrap();
        assert!(rig.finds(&other) && !rig.finds(&own));
        let Health::Degraded(why) = rig.bucket.health() else {
            panic!("{:?}", rig.bucket.health())
        };
        assert!(why.contains("v1/manifests/a/0-") && why.contains("500 InternalError"), "{why}");
        let failed = rig.bucket.refresh(PATIENCE);
        let Err(Failure::Io(text)) = &failed else { panic!("{failed:?}") };
        assert!(text.contains("v1/manifests/a/0-") && text.contains("500 InternalError"), "{text}");
        proxy.decide(|_| Fate::Pass);
        assert_eq!(rig.bucket.refresh(PATIENCE), Ok(1));
        assert!(rig.finds(&own));
        // It was of an earlier run of this node, and of no other daemon.
        assert_eq!(rig.bucket.health(), Health::Ready);
    });
}

#[test]
fn what_cannot_be_taken_comes_back_whole() {
    with_proxies(|_, proxy| {
        let mut small = options(&proxy.endpoint(), "a");
        (small.pack_bytes, small.buffer_bytes) = (1 << 20, 4 << 20);
        let rig = Rig::open(small).unwrap();
        spoil(proxy, "PUT", Fate::Silence, u64::MAX);
        let mut taken = 0_u32;
        let back = loop {
            let (record, bytes) = block(taken, LEN);
            let job =
                Job::Store { token: rig.token(), record, from: span_of(&bytes), durable: false };
            match rig.bucket.submit(job) {
                Ok(()) => taken += 1,
                Err(back) => break back,
            }
            assert!(taken < 20, "nothing is refused");
        };
        assert_eq!((back.why, taken), (Refusal::Full, 10));
        let Job::Store { record, from, .. } = back.job else { panic!("another job") };
        let (expected, bytes) = block(taken, LEN);
        let mut there = vec![0; from.len()];
        from.read_at(0, &mut there);
        assert!(record == expected && there == bytes);
        proxy.decide(|_| Fate::Pass);
        rig.sync().unwrap();
        rig.store(record, &bytes, true).unwrap();
        for number in 0..=taken {
            let (record, bytes) = block(number, LEN);
            assert!(rig.load(record.name(), 0..record.len).unwrap() == bytes);
        }
    });
}

#[test]
fn a_deadline_in_a_pause_is_kept() {
    with_proxies(|_, proxy| {
        let mut slow = options(&proxy.endpoint(), "a");
        (slow.retries.pause, slow.retries.pause_max) = (PATIENCE, PATIENCE);
        let rig = Rig::open(slow).unwrap();
        let blocks = [block(1, LEN), block(2, LEN)];
        for (record, bytes) in &blocks {
            rig.store(*record, bytes, false).unwrap();
        }
        rig.sync().unwrap();
        spoil(proxy, "GET", Fate::Status(503, "SlowDown"), u64::MAX);
        let began = Instant::now();
        let token = rig.submit_load(&blocks[0].0, PATIENCE * 2);
        let failed = rig.load_within(blocks[1].0.name(), 0..LEN as u64, Duration::from_millis(200));
        assert!(matches!(failed, Err(Failure::Deadline | Failure::Io(_))), "{failed:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        rig.bucket.close(Duration::ZERO);
        assert!(matches!(rig.answer(token), Err(Failure::Unavailable(_))), "answered at the end");
    });
}

#[test]
fn chaos_reads_no_wrong_byte() {
    with_proxies(|server, proxy| {
        for seed in 1..=3_u64 {
            proxy.decide(|_| Fate::Pass);
            let node = format!("chaos-{seed}");
            let mut quick = options(&proxy.endpoint(), &node);
            quick.pack_bytes = 1 << 20;
            quick.silence = Duration::from_millis(200);
            let rig = Rig::open(quick).unwrap();
            let fates = fates();
            let mut state = seed;
            proxy.decide(move |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed);
                let draw = (state >> 33) as usize;
                if draw.is_multiple_of(3) { fates[draw / 3 % fates.len()] } else { Fate::Pass }
            });
            let base = seed as u32 * 1000;
            let mut safe = Vec::new();
            for step in 0..40 {
                let number = base + step;
                let (record, bytes) = block(number, 100_000 + step as usize * 1000);
                if rig.store(record, &bytes, true).is_ok() {
                    safe.push(number);
                }
                let (record, bytes) = block(base + step / 2, 100_000 + step as usize / 2 * 1000);
                if let Ok(loaded) = rig.load(record.name(), 10..record.len) {
                    assert!(loaded == bytes[10..], "seed {seed}, block {}", base + step / 2);
                }
            }
            proxy.decide(|_| Fate::Pass);
            assert!(safe.len() > 20, "{safe:?}");
            // What was said to be safe is, whatever became of it on the way back.
            let direct = Rig::open(options(&server.endpoint(), "direct")).unwrap();
            for number in safe {
                let (record, bytes) = block(number, 100_000 + (number - base) as usize * 1000);
                assert!(direct.finds(&record), "seed {seed}, block {number}");
                assert!(direct.load(record.name(), 0..record.len).unwrap() == bytes);
            }
        }
    });
}
