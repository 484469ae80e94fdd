//! Loads and stores on a queue's threads.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use tranship_cache::client::{Error, Stored};
use tranship_kv::queue::{JOBS_MAX, QueueError};
use tranship_kv::{Ended, LoadResult};

use super::*;

#[test]
fn a_job_has_one_result_a_block_in_order_whatever_threads_moved_them() {
    let (daemon, links) = (Daemon::start(ARENA_BYTES), chain(1, 200));
    let (cache, queue) = (open(&daemon), Queue::new(4).unwrap());
    let from = Blocks::of(&links);
    let half = &links[..100];
    for (links, stored, bytes) in [(half, Stored::Stored, 100 * LEN), (half, Stored::Exists, 0)] {
        let done = end_of(&queue, queue.store(&cache, from.to_store(links), None).unwrap());
        assert_eq!(done.bytes, bytes as u64);
        let Ended::Stored(results) = done.ended else { panic!("{done:?}") };
        assert!(results.len() == 100 && results.iter().all(|one| *one == stored), "{results:?}");
    }

    // One block is damaged where it lies, one removed, one has another length than its memory.
    let view = cache.lease(&[links[7].key], Duration::ZERO).unwrap();
    let (at, _) = view.view(0).unwrap();
    // SAFETY: memory of the mapped arena; nobody reads it in this process meanwhile.
    unsafe { at.cast_mut().add(77).write_volatile(!at.add(77).read_volatile()) };
    drop(view);
    assert_eq!(cache.remove(&[links[40].key]).unwrap(), 1);
    let into = Blocks::new(200);
    let mut wanted = into.to_load(&links);
    // SAFETY: the next block's memory, which is not loaded to: that block is not there.
    unsafe { wanted[99].1.push(into.0.as_ptr().wrapping_add(100 * LEN), 1) };
    let done = end_of(&queue, queue.load(&cache, wanted, Duration::ZERO).unwrap());
    assert_eq!(done.bytes, 97 * LEN as u64);
    let Ended::Loaded(results) = done.ended else { panic!("{done:?}") };
    assert_eq!(results.len(), 200);
    for (index, result) in results.into_iter().enumerate() {
        let expected = match index {
            7 => LoadResult::Corrupt,
            99 => LoadResult::Failed,
            40 | 100.. => LoadResult::Gone,
            _ => LoadResult::Ready,
        };
        assert_eq!(result, expected, "block {index}");
        assert!(result != LoadResult::Ready || into.has(index, &links[index]), "block {index}");
    }
}

/// Drains as often as the descriptor says, until as many have ended, each once.
fn drain(queue: &Queue, jobs: usize) {
    let mut ended = HashSet::new();
    while ended.len() < jobs {
        assert!(readable(queue, AMPLE), "{} of {jobs} ends were announced", ended.len());
        for done in queue.drain() {
            assert!(ended.insert(done.job), "job {} has ended twice", done.job);
        }
    }
}

#[test]
fn every_end_is_announced_on_the_descriptor() {
    const JOBS: usize = 400;
    let daemon = Daemon::start(ARENA_BYTES);
    let (cache, queue) = (open(&daemon), Queue::new(3).unwrap());
    assert!(!readable(&queue, Duration::ZERO));
    let (links, into) = (chain(1, 1), Blocks::new(1));
    let load = |blocks| queue.load(&cache, blocks, Duration::ZERO).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..JOBS).for_each(|_| _ = load(into.to_load(&links))));
        }
        drain(&queue, 2 * JOBS);
    });
    // Without blocks a job ends in its submission: here the last of a few while the first are drained and
    // the descriptor is reset.
    let few = |round| 1 + round % 4;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..200 * JOBS {
                (0..few(round)).for_each(|_| _ = load(vec![]));
                until(|| queue.is_empty());
            }
        });
        drain(&queue, (0..200 * JOBS).map(few).sum());
    });
    queue.close();
    assert!(queue.drain().is_empty() && !readable(&queue, Duration::ZERO));
}

#[test]
fn a_queue_has_a_limit_and_draining_makes_room() {
    let daemon = Daemon::start(ARENA_BYTES);
    let (cache, queue) = (open(&daemon), Queue::new(1).unwrap());
    let submit = || queue.load(&cache, vec![], Duration::ZERO);
    for _ in 0..JOBS_MAX {
        submit().unwrap();
    }
    assert_eq!(submit(), Err(QueueError::Full));
    assert!(queue.store(&cache, vec![], None).is_err());
    assert_eq!((queue.drain().len(), queue.len()), (JOBS_MAX, 0));
    submit().unwrap();
}

#[test]
fn what_does_not_come_in_time_is_late_and_no_wait_is_too_long_to_ask_for() {
    let gate = Gate::new();
    let (cache, queue) = (open(&gate.daemon), Queue::new(1).unwrap());
    let load = |wait| queue.load(&cache, gate.into.to_load(&[gate.cold]), wait).unwrap();
    let done = end_of(&queue, load(Duration::from_millis(5)));
    assert!(matches!(done.ended, Ended::Loaded(results) if results == [LoadResult::Late]));
    let job = load(Duration::MAX);
    assert!(queue.wait(job, Duration::ZERO).is_none(), "nobody has answered");
    gate.tier.lets_go();
    let done = queue.wait(job, Duration::MAX).unwrap();
    assert!(matches!(done.ended, Ended::Loaded(results) if results == [LoadResult::Ready]));
    assert!(gate.into.has(0, &gate.cold));
}

#[test]
fn a_closed_queue_has_ended_what_was_under_way_and_begins_nothing() {
    let (gate, links) = (Gate::new(), chain(1, 40));
    let (cache, queue) = (open(&gate.daemon), Queue::new(1).unwrap());
    let (blocks, (pages, _)) = (Blocks::of(&links), pages(&links));
    let under_way = gate.shut(&queue, &cache, AMPLE);
    let waiting = queue.store(&cache, blocks.to_store(&links), None).unwrap();
    let filling = queue.begin(&cache, &pages, at_pages(&links)).unwrap();
    (0..LAYERS).for_each(|layer| filling.layer(layer));
    let filling = filling.finish();
    let open = queue.begin(&cache, &pages, at_pages(&links)).unwrap();
    open.layer(0);
    let load = || queue.load(&cache, blocks.to_load(&links[..1]), Duration::ZERO);
    std::thread::scope(|scope| {
        // Whoever closes returns when the threads are done, the second too.
        let close = || {
            queue.close();
            assert!(readable(&queue, Duration::ZERO), "a job is under way");
        };
        let first = scope.spawn(close);
        until(|| load() == Err(QueueError::Closed));
        let second = scope.spawn(close);
        gate.tier.lets_go();
        first.join().unwrap();
        second.join().unwrap();
    });
    let done = queue.wait(under_way, Duration::ZERO).unwrap();
    assert!(matches!(done.ended, Ended::Loaded(results) if results == [LoadResult::Ready]));
    for job in [waiting, filling] {
        assert!(is_closed(&queue.wait(job, Duration::ZERO).unwrap()));
    }
    open.layer(1);
    let open = open.finish();
    assert!(is_closed(&queue.wait(open, Duration::ZERO).unwrap()));
    // The rest came between.
    assert!(queue.drain().iter().all(is_closed) && queue.is_empty());
    assert_eq!(queue.store(&cache, vec![], None), Err(QueueError::Closed));
    assert_eq!(stats(&gate.daemon).counters.granted, 0, "nothing was begun");
}

/// What is under way when the daemon stops, and what comes after.
fn fails(gate: Gate, hangs: bool) {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let client = Client::builder().timeout(TIMEOUT);
    let cache = client.connect(&gate.daemon.address(Kind::Shm)).unwrap().cache(identity());
    let (links, queue) = (chain(1, 40), Queue::new(2).unwrap());
    let blocks = Blocks::of(&links);
    // Nothing but the deadline ends a call to a daemon that hangs.
    let wait = if hangs { Duration::from_secs(3) } else { AMPLE };
    let under_way = gate.shut(&queue, &cache, wait);
    let Gate { daemon, tier, into: _into, .. } = gate;
    drop(daemon);
    // It has the daemon's engine, which nobody drives now: its peers stay connected.
    let tier = Some(tier).filter(|_| hangs);
    let load = queue.load(&cache, blocks.to_load(&links), Duration::ZERO).unwrap();
    let store = queue.store(&cache, blocks.to_store(&links), None).unwrap();
    for job in [under_way, load, store] {
        let done = end_of(&queue, job);
        let Ended::Failed(error) = &done.ended else { panic!("{done:?}") };
        assert_eq!(matches!(error, Error::Timeout { .. }), hangs, "{error}");
        assert_eq!(done.bytes, 0);
    }
    queue.close();
    assert!(queue.is_empty());
    drop(tier);
}

#[test]
fn a_daemon_that_dies_fails_what_is_under_way_and_what_comes_after() {
    fails(Gate::new(), false);
}

#[test]
fn a_daemon_that_hangs_fails_jobs_at_their_deadlines() {
    fails(Gate::new(), true);
}

/// What lent a queue memory, and does something when it is dropped.
struct Owner<F: FnMut()>(F);

impl<F: FnMut()> Drop for Owner<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Has the queue's only thread be the last to hold an owner that does `on_drop`, then answers.
fn dropped_by_the_thread(
    gate: &Gate,
    cache: &Cache,
    queue: Arc<Queue>,
    on_drop: impl FnMut() + Send + Sync + 'static,
) -> JobId {
    let links = chain(1, 2);
    let (_, memory) = pages(&links);
    let owner = Owner(on_drop);
    let keep = Arc::new((Arc::clone(&memory), owner));
    gate.shut(&queue, cache, AMPLE);
    let filling = queue.begin(cache, &paged(&memory, 2, keep), at_pages(&links)).unwrap();
    (0..LAYERS).for_each(|layer| filling.layer(layer));
    let job = filling.finish();
    drop(queue);
    gate.tier.lets_go();
    job
}

#[test]
fn an_owner_of_memory_that_panics_costs_no_thread() {
    let gate = Gate::new();
    let (cache, queue) = (open(&gate.daemon), Arc::new(Queue::new(1).unwrap()));
    let went_off = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&went_off);
    let job = dropped_by_the_thread(&gate, &cache, Arc::clone(&queue), move || {
        told.store(true, Ordering::Release);
        panic!("this test's owner of memory");
    });
    assert!(matches!(end_of(&queue, job).ended, Ended::Stored(_)));
    let into = Blocks::new(2);
    let next = queue.load(&cache, into.to_load(&chain(1, 2)), Duration::ZERO).unwrap();
    assert_eq!(end_of(&queue, next).bytes, 2 * LEN as u64);
    assert!(went_off.load(Ordering::Acquire));
}

#[test]
fn a_queue_may_be_dropped_by_a_thread_of_its_own() {
    let gate = Gate::new();
    let (cache, queue) = (open(&gate.daemon), Arc::new(Queue::new(1).unwrap()));
    let (gone, is_gone) = mpsc::channel();
    let mut last = Some(Arc::clone(&queue));
    dropped_by_the_thread(&gate, &cache, queue, move || {
        let last = last.take().and_then(Arc::into_inner).expect("nobody else holds it");
        drop(last);
        gone.send(()).unwrap();
    });
    is_gone.recv_timeout(AMPLE).unwrap();
}
