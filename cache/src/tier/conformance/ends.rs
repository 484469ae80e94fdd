//! How jobs end, and how a tier does.

use std::time::{Duration, Instant};

use super::harness::{Harness, skip};
use super::kit::{Kit, PATIENCE, bytes, read, record, span};
use crate::tier::cold::{Failure, Health, Job, Lane, Refusal, Refused};

/// Every job is answered once, and its span is left alone after that.
pub fn every_job_is_answered_once<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let mut spans = Vec::new();
    for token in 0..40 {
        let bytes = bytes(token, 30_000);
        let from = span(&bytes, if token % 2 == 0 { 0 } else { 9 });
        spans.push(from.clone());
        let record = record(token, &bytes);
        kit.submit(Job::Store { token, record, from, durable: token % 5 == 0 });
    }
    for (token, from) in (0..).zip(&spans) {
        assert_eq!(kit.wait(token), Ok(None));
        // Its bytes are not the block's any more.
        from.write_at(0, &vec![0x11; from.len()]);
    }
    kit.submit(Job::Sync { token: 99 });
    assert_eq!(kit.wait(99), Ok(None));
    for (token, from) in (0..).zip(&spans) {
        let bytes = bytes(token, 30_000);
        kit.expect(100, &record(token, &bytes), &bytes);
        assert!(
            read(from).iter().all(|byte| *byte == 0x11),
            "a span is written to after the answer"
        );
    }
    assert!(kit.is_quiet(), "a job is answered twice");
    kit.close();
}

/// A lane that is full gives jobs back whole, and takes them after some answers.
pub fn a_full_lane_refuses_jobs_whole<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    if !harness.hold(true) {
        skip("the tier cannot be held up");
    }
    let bytes = bytes(1, 5000);
    let record = record(1, &bytes);
    let store = |token| Job::Store { token, record, from: span(&bytes, 0), durable: true };
    let mut taken = 0;
    let refused = loop {
        match kit.tier.submit(store(taken)) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
        assert!(taken <= H::LANE_JOBS as u64, "more jobs are taken than the lane has room for");
    };
    let Refused { job, why } = *refused;
    assert_eq!(why, Refusal::Full);
    let whole = matches!(&job, Job::Store { token, record: back, from, durable: true }
        if *token == taken && *back == record && from.len() == 5000);
    assert!(whole, "a refused job is not what it was: {job:?}");
    // Another lane still takes jobs.
    let (name, lane, into) = (record.name(), Lane::Demand, span(&bytes, 0));
    let load = Job::Load { token: 1000, name, range: 0..5000, into, lane, within: PATIENCE };
    kit.tier.submit(load).expect("this lane is empty");
    assert!(harness.hold(false));
    for token in 0..taken {
        assert_eq!(kit.wait(token), Ok(None));
    }
    let _ = kit.wait(1000);
    kit.submit(job);
    assert_eq!(kit.wait(taken), Ok(None));
    kit.close();
}

/// A load that is not finished in time is answered so, once nothing can land in its span any more.
pub fn a_late_load_ends_by_its_deadline<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let bytes = bytes(1, 50_000);
    let record = record(1, &bytes);
    assert_eq!(kit.store(1, record, &bytes, true), Ok(None));
    if !harness.hold(true) {
        skip("the tier cannot be held up");
    }
    // To a span that is not on pages nothing lands directly: the answer need not wait.
    let (name, lane) = (record.name(), Lane::Demand);
    let within = Duration::from_millis(20);
    let into = span(&vec![0x22; 50_000], 9);
    kit.submit(Job::Load { token: 2, name, range: 0..50_000, into: into.clone(), lane, within });
    assert_eq!(kit.wait(2), Err(Failure::Deadline));
    into.write_at(0, &vec![0x33; 50_000]);
    let direct = span(&vec![0x22; 50_000], 0);
    let load = Job::Load { token: 3, name, range: 0..50_000, into: direct.clone(), lane, within };
    kit.submit(load);
    kit.submit(Job::Load { token: 4, name, range: 0..10, into: span(&[0; 10], 1), lane, within });
    assert_eq!(kit.wait(4), Err(Failure::Deadline));
    assert!(harness.hold(false));
    let late = kit.wait(3);
    assert!(matches!(late, Err(Failure::Deadline) | Ok(Some(_))), "{late:?}");
    kit.expect(5, &record, &bytes);
    assert!(read(&into).iter().all(|byte| *byte == 0x33), "a late read lands after the answer");
    kit.close();
}

/// A closed tier gives jobs back whole.
pub fn a_closed_tier_refuses_jobs_whole<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    kit.close();
    let bytes = bytes(1, 100);
    let (record, from) = (record(1, &bytes), span(&bytes, 0));
    let job = Job::Store { token: 7, record, from, durable: false };
    let Refused { job, why } = *kit.tier.submit(job).expect_err("the tier is closed");
    assert_eq!(why, Refusal::Closed);
    assert!(matches!(job, Job::Store { token: 7, .. }));
    assert_eq!(kit.tier.submit(Job::Sync { token: 8 }).expect_err("closed").why, Refusal::Closed);
    kit.close();
    assert!(kit.is_quiet(), "a job that was refused is answered");
}

/// A close while jobs are under way answers all of them, and keeps what it says it stored.
pub fn a_close_under_load_answers_everything<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let ours = bytes(1, 10_000);
    let first = record(1, &ours);
    assert_eq!(kit.store(1000, first, &ours, false), Ok(None));
    let mut taken = Vec::new();
    for token in 0..H::LANE_JOBS as u64 / 2 {
        let bytes = bytes(10 + token, 10_000);
        let (record, from) = (record(10 + token, &bytes), span(&bytes, 0));
        let store = Job::Store { token, record, from, durable: false };
        taken.extend(kit.tier.submit(store).ok().map(|()| token));
        let (name, lane, into) = (first.name(), Lane::Prefetch, span(&ours, 3));
        let within = PATIENCE;
        let load = Job::Load { token: 500 + token, name, range: 0..10_000, into, lane, within };
        taken.extend(kit.tier.submit(load).ok().map(|()| 500 + token));
    }
    kit.close();
    let ends: Vec<_> = taken.iter().map(|token| (*token, kit.wait(*token))).collect();
    assert!(kit.is_quiet(), "a job is answered twice");
    drop(kit);
    let after = Kit::open(harness);
    for (token, end) in ends {
        if token < 500 && end.is_ok() {
            let bytes = bytes(10 + token, 10_000);
            after.expect(1, &record(10 + token, &bytes), &bytes);
        }
    }
    after.close();
}

/// A close ends within its time though the device does not answer.
pub fn a_close_ends_in_time<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    if !harness.hold(true) {
        skip("the tier cannot be held up");
    }
    let bytes = bytes(1, 10_000);
    let (record, from) = (record(1, &bytes), span(&bytes, 0));
    kit.submit(Job::Store { token: 1, record, from, durable: true });
    let began = Instant::now();
    kit.tier.close(Duration::from_millis(50));
    // Its time, and what a busy machine takes to run its threads.
    assert!(began.elapsed() < Duration::from_secs(5), "the close took {:?}", began.elapsed());
    assert!(harness.hold(false));
    let _ = kit.wait(1);
}

/// A tier whose device or service is gone says so, finds nothing wrong, and still ends every job.
pub fn a_tier_that_fails_says_why<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let bytes = bytes(1, 10_000);
    let record = record(1, &bytes);
    assert_eq!(kit.store(1, record, &bytes, true), Ok(None));
    assert_eq!(kit.tier.health(), Health::Ready);
    if !harness.lose() {
        skip("the device or the service cannot be lost");
    }
    let loaded = kit.load(2, &record, 0..10_000, 0);
    assert!(loaded.is_err(), "something is loaded from a device that is gone");
    assert!(kit.store(3, record, &bytes, true).is_err());
    let health = kit.tier.health();
    let told = |why: &str| !why.is_empty();
    let says = matches!(&health, Health::Off(why) | Health::ReadOnly(why) | Health::Degraded(why) if told(why));
    assert!(says, "the tier is {health:?}");
    kit.close();
}
