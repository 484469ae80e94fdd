//! Jobs of a queue against a daemon in this process.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tranship_cache::Link;
use tranship_cache::client::{Cache, Client, Stored};
use tranship_kv::filling::BeginError;
use tranship_kv::paged::Tensor;
use tranship_kv::queue::QueueError;
use tranship_kv::{Ended, LoadResult, Paged, Queue};
use tranship_tests::daemon::Daemon;
use tranship_tests::world::{chain, identity};
use tranship_transport::memory::Spans;
use tranship_transport::{HostMemory, Kind};

const SOON: Duration = Duration::from_secs(60);
const LAYERS: usize = 3;
const PAGES: usize = 80;
const PAGE_BYTES: usize = 1000;

fn open(daemon: &Daemon) -> Cache {
    let builder = Client::builder().timeout(Duration::from_millis(500));
    builder.connect(&daemon.address(Kind::Shm)).unwrap().cache(identity())
}

/// Layers whose every byte tells the layer and the page.
fn layers(filled: bool) -> Paged {
    let byte = |layer: usize, at: usize| (layer * 80 + at / PAGE_BYTES + 1) as u8;
    let layer = |layer| -> Box<[u8]> {
        let bytes = 0..PAGES * PAGE_BYTES;
        bytes.map(|at| if filled { byte(layer, at) } else { 0 }).collect()
    };
    let mut memory: Vec<Box<[u8]>> = (0..LAYERS).map(layer).collect();
    let tensor = |bytes: &mut Box<[u8]>| Tensor {
        base: bytes.as_mut_ptr(),
        shape: vec![PAGES, PAGE_BYTES],
        strides: vec![PAGE_BYTES as isize, 1],
        item_bytes: 1,
    };
    let tensors: Vec<Tensor> = memory.iter_mut().map(tensor).collect();
    // SAFETY: the tensors are those of the memory, which the pages keep.
    unsafe { Paged::new(&tensors, Arc::new(memory)) }.unwrap()
}

fn bytes(pages: &Paged, page: usize) -> Vec<u8> {
    let spans = pages.block(page as u64).unwrap();
    let memory = HostMemory::new(spans.len()).build().unwrap();
    memory.gather(0, &spans).unwrap();
    let mut copy = vec![0; spans.len()];
    memory.read_at(0, &mut copy).unwrap();
    copy
}

fn blocks<T: Copy>(pages: &Paged, keys: &[T]) -> Vec<(T, Spans)> {
    keys.iter().enumerate().map(|(i, key)| (*key, pages.block(i as u64).unwrap())).collect()
}

fn paged(links: &[Link]) -> Vec<(Link, u64)> {
    links.iter().enumerate().map(|(i, link)| (*link, i as u64)).collect()
}

fn readable(fd: BorrowedFd<'_>, within: Duration) -> bool {
    let limit = Timespec::try_from(within).unwrap();
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap() == 1
}

/// What is there of the links, page by page; all of it is right.
fn load(cache: &Cache, links: &[Link]) -> Vec<LoadResult> {
    let (from, into) = (layers(true), layers(false));
    let keys: Vec<_> = links.iter().map(|link| link.key).collect();
    let results = tranship_kv::load(cache, &blocks(&into, &keys), Duration::ZERO).unwrap();
    for (page, result) in results.iter().enumerate() {
        let expected = if *result == LoadResult::Ready {
            bytes(&from, page)
        } else {
            vec![0; LAYERS * PAGE_BYTES]
        };
        assert_eq!(bytes(&into, page), expected, "page {page}");
    }
    results
}

fn stored(ended: Ended) -> Vec<Stored> {
    let Ended::Stored(results) = ended else { panic!("{ended:?}") };
    results
}

#[test]
fn jobs_of_many_parts_come_back_whole_and_are_announced() {
    let daemon = Daemon::start(16 << 20);
    let (cache, queue) = (open(&daemon), Queue::new(3).unwrap());
    let links = chain(1, PAGES as u32);
    let (from, into) = (layers(true), layers(false));
    assert!(!readable(queue.fd(), Duration::ZERO));
    let job = queue.store(&cache, blocks(&from, &links), None).unwrap();
    assert!(readable(queue.fd(), SOON));
    let done = queue.drain().remove(0);
    assert_eq!((done.job, done.bytes), (job, (PAGES * LAYERS * PAGE_BYTES) as u64));
    assert_eq!(stored(done.ended), vec![Stored::Stored; PAGES]);
    assert!(!readable(queue.fd(), Duration::ZERO), "draining resets it");
    assert!(queue.is_empty());

    let keys: Vec<_> = links.iter().map(|link| link.key).collect();
    let one = queue.load(&cache, blocks(&into, &keys), Duration::ZERO).unwrap();
    let none = queue.load(&cache, Vec::new(), Duration::ZERO).unwrap();
    assert_ne!(one, none);
    let done = queue.wait(one, SOON).unwrap();
    assert!(matches!(done.ended, Ended::Loaded(all) if all == vec![LoadResult::Ready; PAGES]));
    for page in 0..PAGES {
        assert_eq!(bytes(&into, page), bytes(&from, page));
    }
    assert!(queue.wait(one, Duration::ZERO).is_none(), "it was taken");
    let rest = queue.wait(none, SOON).unwrap();
    assert!(matches!(rest.ended, Ended::Loaded(all) if all.is_empty()));
}

#[test]
fn a_closed_queue_takes_no_jobs_and_what_ended_can_be_drained() {
    let daemon = Daemon::start(16 << 20);
    let (cache, queue) = (open(&daemon), Queue::new(1).unwrap());
    let (from, links) = (layers(true), chain(1, PAGES as u32));
    let jobs: Vec<_> =
        (0..8).map(|_| queue.store(&cache, blocks(&from, &links), None).unwrap()).collect();
    queue.close();
    queue.close();
    assert_eq!(queue.store(&cache, Vec::new(), None), Err(QueueError::Closed));
    assert_eq!(queue.load(&cache, Vec::new(), Duration::ZERO), Err(QueueError::Closed));
    let begun = queue.begin(&cache, &from, paged(&links));
    assert_eq!(begun.unwrap_err(), BeginError::Queue(QueueError::Closed));
    let mut ended: Vec<_> = queue.drain().into_iter().map(|done| done.job).collect();
    ended.sort_unstable();
    assert_eq!(ended, jobs, "each has an end, done or closed");
    assert!(queue.is_empty());
}

#[test]
fn a_daemon_that_is_gone_fails_jobs() {
    let daemon = Daemon::start(16 << 20);
    let (cache, queue) = (open(&daemon), Queue::new(2).unwrap());
    let (from, links) = (layers(true), chain(1, PAGES as u32));
    let filling = queue.begin(&cache, &from, paged(&links[..4])).unwrap();
    filling.layer(0);
    drop(daemon);
    filling.layer(1);
    let keys: Vec<_> = links.iter().map(|link| link.key).collect();
    let jobs = [
        queue.store(&cache, blocks(&from, &links), None).unwrap(),
        queue.load(&cache, blocks(&layers(false), &keys), Duration::ZERO).unwrap(),
    ];
    for job in jobs {
        let done = queue.wait(job, SOON).unwrap();
        assert!(matches!(done.ended, Ended::Failed(_)), "{done:?}");
        assert_eq!(done.bytes, 0);
    }
    let done = queue.wait(filling.finish(), SOON).unwrap();
    match done.ended {
        Ended::Failed(_) => {}
        Ended::Stored(results) => {
            assert!(results.iter().all(|it| matches!(it, Stored::Refused { .. })), "{results:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(done.bytes, 0);
}

#[test]
fn layers_come_in_any_order() {
    let daemon = Daemon::start(16 << 20);
    let (cache, queue) = (open(&daemon), Queue::new(2).unwrap());
    let from = layers(true);
    for (salt, order) in [(1, [0, 1, 2]), (2, [2, 0, 1]), (3, [1, 2, 0])] {
        let links = chain(salt, 5);
        let filling = queue.begin(&cache, &from, paged(&links)).unwrap();
        order.into_iter().for_each(|layer| filling.layer(layer));
        let done = queue.wait(filling.finish(), SOON).unwrap();
        assert_eq!(done.bytes, (5 * LAYERS * PAGE_BYTES) as u64);
        assert_eq!(stored(done.ended), vec![Stored::Stored; 5]);
        assert_eq!(load(&cache, &links), vec![LoadResult::Ready; 5]);
    }
}

#[test]
fn of_a_layer_that_is_told_twice_the_last_bytes_count() {
    let daemon = Daemon::start(16 << 20);
    let (cache, queue) = (open(&daemon), Queue::new(1).unwrap());
    let (from, links) = (layers(true), chain(1, 3));
    let filling = queue.begin(&cache, &from, paged(&links)).unwrap();
    for layer in [1, 0, 1, 2, 1] {
        filling.layer(layer);
    }
    let done = queue.wait(filling.finish(), SOON).unwrap();
    assert_eq!(stored(done.ended), vec![Stored::Stored; 3]);
    assert_eq!(load(&cache, &links), vec![LoadResult::Ready; 3]);
}

#[test]
fn blocks_that_are_there_are_not_filled_again() {
    let daemon = Daemon::start(16 << 20);
    let (cache, queue) = (open(&daemon), Queue::new(1).unwrap());
    let (from, links) = (layers(true), chain(1, 3));
    tranship_kv::store(&cache, &blocks(&from, &links[..2]), None).unwrap();
    let filling = queue.begin(&cache, &from, paged(&links)).unwrap();
    (0..LAYERS).for_each(|layer| filling.layer(layer));
    let done = queue.wait(filling.finish(), SOON).unwrap();
    assert_eq!(done.bytes, (LAYERS * PAGE_BYTES) as u64);
    assert_eq!(stored(done.ended), [Stored::Exists, Stored::Exists, Stored::Stored]);
    assert_eq!(load(&cache, &links), vec![LoadResult::Ready; 3]);
}

#[test]
fn a_filling_that_is_dropped_gives_its_room_back() {
    let daemon = Daemon::start(16 << 20);
    let (cache, queue) = (open(&daemon), Queue::new(1).unwrap());
    let (from, links) = (layers(true), chain(1, 3));
    let filling = queue.begin(&cache, &from, paged(&links)).unwrap();
    filling.layer(0);
    drop(filling);
    assert!(readable(queue.fd(), SOON));
    let done = queue.drain().remove(0);
    assert!(matches!(done.ended, Ended::Closed), "{done:?}");
    let again = tranship_kv::store(&cache, &blocks(&from, &links), None).unwrap();
    assert_eq!(again, vec![Stored::Stored; 3], "nobody is filling them any more");
}

#[test]
fn a_page_that_is_not_there_begins_nothing() {
    let daemon = Daemon::start(1 << 20);
    let (cache, queue) = (open(&daemon), Queue::new(1).unwrap());
    let begun = queue.begin(&cache, &layers(true), vec![(chain(1, 1)[0], PAGES as u64)]);
    assert!(matches!(begun, Err(BeginError::Page(_))));
    assert!(queue.is_empty());
}

#[test]
fn a_filling_that_outlives_its_queue_ends_closed() {
    let daemon = Daemon::start(16 << 20);
    let (cache, queue) = (open(&daemon), Queue::new(1).unwrap());
    let (from, links) = (layers(true), chain(1, 3));
    let finished = queue.begin(&cache, &from, paged(&links)).unwrap();
    let dropped = queue.begin(&cache, &from, paged(&chain(2, 3))).unwrap();
    finished.layer(0);
    queue.close();
    finished.layer(1);
    finished.layer(2);
    let done = queue.wait(finished.finish(), Duration::ZERO).unwrap();
    assert!(matches!(done.ended, Ended::Closed), "{done:?}");
    drop(dropped);
    assert!(matches!(queue.drain().remove(0).ended, Ended::Closed));
    assert!(queue.is_empty());
    let again = tranship_kv::store(&cache, &blocks(&from, &links), None).unwrap();
    assert_eq!(again, vec![Stored::Stored; 3], "its room was given back");
}
