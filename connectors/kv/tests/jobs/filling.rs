//! Stores whose layers come one after the other.

use tranship_cache::client::Stored;
use tranship_kv::filling::BeginError;
use tranship_kv::load;
use tranship_kv::paged::PagedError;
use tranship_kv::queue::QueueError;
use tranship_kv::{Ended, Filling, LoadResult};
use tranship_transport::fabric::tcp;

use super::*;

fn stored(done: Done) -> Vec<Stored> {
    match done.ended {
        Ended::Stored(results) => results,
        other => panic!("{other:?}"),
    }
}

fn layers_come_in_any_order(daemon: &Daemon, cache: &Cache) {
    let (links, queue) = (chain(1, 5), Queue::new(2).unwrap());
    let (pages, _memory) = pages(&links);
    // Two fillings of the same blocks at a time, and one when they are there.
    let begin = || queue.begin(cache, &pages, at_pages(&links)).unwrap();
    let filling = begin();
    until(|| stats(daemon).gauges.filling.blocks == 5);
    [2, 0, 2].into_iter().for_each(|layer| filling.layer(layer));
    assert_eq!(stored(end_of(&queue, begin().finish())), vec![Stored::InFlight; 5]);
    assert_eq!(cache.lookup(&[links[0].key]).unwrap().prefix, 0, "nothing is there before the end");
    filling.layer(1);
    let done = end_of(&queue, filling.finish());
    assert_eq!(done.bytes, 5 * LEN as u64);
    assert_eq!(stored(done), vec![Stored::Stored; 5]);
    let done = end_of(&queue, begin().finish());
    assert_eq!(done.bytes, 0);
    assert_eq!(stored(done), vec![Stored::Exists; 5]);

    let into = Blocks::new(5);
    let results = load(cache, &into.to_load(&links), Duration::ZERO).unwrap();
    assert_eq!(results, vec![LoadResult::Ready; 5]);
    assert!(links.iter().enumerate().all(|(index, link)| into.has(index, link)));
}

#[test]
fn layers_come_in_any_order_and_again_in_place() {
    let daemon = Daemon::start(ARENA_BYTES);
    let cache = open(&daemon);
    assert!(cache.client().is_mapped().unwrap());
    layers_come_in_any_order(&daemon, &cache);
}

#[test]
fn layers_come_in_any_order_and_again_by_transfers() {
    let daemon = Daemon::over(ARENA_BYTES, |engine| engine.fabric(tcp::Config::new()));
    let client = Client::builder().fabric(tcp::Config::new().dial_only());
    let cache = client.connect(&daemon.address(Kind::Tcp)).unwrap().cache(identity());
    assert!(!cache.client().is_mapped().unwrap());
    layers_come_in_any_order(&daemon, &cache);
}

#[test]
fn a_layer_that_was_not_told_leaves_no_block_with_other_bytes() {
    let (daemon, links) = (Daemon::start(ARENA_BYTES), chain(1, 2));
    let (cache, queue) = (open(&daemon), Queue::new(1).unwrap());
    let (pages, _memory) = pages(&links);
    let filling = queue.begin(&cache, &pages, at_pages(&links)).unwrap();
    // As many as there are, but not all.
    [0, 0, 2].into_iter().for_each(|layer| filling.layer(layer));
    let done = end_of(&queue, filling.finish());
    assert_eq!(done.bytes, 0);
    for result in stored(done) {
        let Stored::Refused { why, .. } = result else { panic!("{result:?}") };
        assert!(why.starts_with("layer 1 of 3 was not told"), "{why}");
    }
    // Its room was given back.
    let filling = queue.begin(&cache, &pages, at_pages(&links)).unwrap();
    (0..LAYERS).for_each(|layer| filling.layer(layer));
    assert_eq!(stored(end_of(&queue, filling.finish())), vec![Stored::Stored; 2]);
    assert_eq!(stats(&daemon).counters.abandoned, 2);
}

#[test]
fn what_cannot_begin_is_no_job_and_what_is_given_up_gives_its_room_back() {
    let (daemon, links) = (Daemon::start(ARENA_BYTES), chain(1, 2));
    let (cache, queue) = (open(&daemon), Queue::new(1).unwrap());
    let (pages, _memory) = pages(&links);
    let begin = |page| queue.begin(&cache, &pages, vec![(links[0], 0), (links[1], page)]);
    let error = begin(2).unwrap_err();
    assert_eq!(error, BeginError::Page(PagedError::Page { page: 2, pages: 2 }));
    assert!(queue.is_empty());

    let filling = begin(1).unwrap();
    (0..LAYERS).for_each(|layer| filling.layer(layer));
    drop(filling);
    assert!(readable(&queue, AMPLE));
    let ended = queue.drain();
    assert!(ended.len() == 1 && is_closed(&ended[0]), "{ended:?}");
    // The abort was sent before the end was told.
    let blocks = Blocks::of(&links);
    let job = queue.store(&cache, blocks.to_store(&links), None).unwrap();
    assert_eq!(stored(end_of(&queue, job)), vec![Stored::Stored; 2]);
}

#[test]
fn a_filling_outlives_its_queue_and_still_ends() {
    let (daemon, links) = (Daemon::start(ARENA_BYTES), chain(1, 4));
    let (cache, queue) = (open(&daemon), Queue::new(2).unwrap());
    let (pages, memory) = pages(&links);
    let begin = |at: usize| queue.begin(&cache, &pages, vec![at_pages(&links)[at]]);
    let open: Vec<Filling> = (0..3).map(|at| begin(at).unwrap()).collect();
    until(|| stats(&daemon).gauges.filling.blocks == 3);
    queue.close();
    assert_eq!(begin(3).unwrap_err(), BeginError::Queue(QueueError::Closed));
    assert_eq!(queue.len(), 3);
    let [told, dropped, outlives] = <[Filling; 3]>::try_from(open).unwrap();
    // Told after the close, it gives its room back at once.
    told.layer(0);
    until(|| stats(&daemon).gauges.filling.blocks == 2);
    told.layer(1);
    told.layer(2);
    let told = told.finish();
    drop(dropped);
    assert!(is_closed(&queue.wait(told, Duration::ZERO).unwrap()));
    assert!(readable(&queue, Duration::ZERO));
    let ended = queue.drain();
    assert!(ended.len() == 1 && is_closed(&ended[0]), "{ended:?}");
    drop(queue);
    outlives.layer(0);
    outlives.finish();
    until(|| stats(&daemon).gauges.filling.blocks == 0);
    assert_eq!(stats(&daemon).counters.committed, 0);
    // Nothing keeps the engine's memory.
    drop(pages);
    assert_eq!(Arc::strong_count(&memory), 1);
}

#[test]
fn nothing_is_stored_when_the_daemon_dies_between_layers() {
    let (daemon, links) = (Daemon::start(ARENA_BYTES), chain(1, 2));
    let (cache, queue) = (open(&daemon), Queue::new(1).unwrap());
    let (pages, _memory) = pages(&links);
    let begin = || queue.begin(&cache, &pages, at_pages(&links)).unwrap();
    let filling = begin();
    filling.layer(0);
    until(|| stats(&daemon).gauges.filling.blocks == 2);
    drop(daemon);
    (1..LAYERS).for_each(|layer| filling.layer(layer));
    let done = end_of(&queue, filling.finish());
    assert_eq!(done.bytes, 0);
    match done.ended {
        // Whichever is noticed first: that the call failed, or that the session was over before it.
        Ended::Failed(_) => {}
        Ended::Stored(results) => {
            assert!(results.iter().all(|result| matches!(result, Stored::Refused { .. })));
        }
        other => panic!("{other:?}"),
    }
    // Room is not even asked for: the job fails as a whole, whatever is told.
    let filling = begin();
    (0..LAYERS).for_each(|layer| filling.layer(layer));
    let done = end_of(&queue, filling.finish());
    assert!(matches!(done.ended, Ended::Failed(_)) && done.bytes == 0, "{done:?}");
}
