//! What the packer is told, in an order that no race has to bring about.

use std::sync::mpsc::{Sender, channel};

use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tranship_transport::memory::HostMemory;

use super::super::super::codec::{Advisor, Choice};
use super::super::super::cold::{Done, Lane};
use super::super::ended::Ended;
use super::super::options::Options;
use super::super::place;
use super::super::service::Service;
use super::*;
use crate::identity::IdentityId;
use crate::key::Key;
use crate::lineage::Link;

struct Bench {
    shared: Arc<Shared>,
    packer: Option<Packer>,
    orders: Sender<Order>,
    closed: UnboundedReceiver<Closed>,
    _directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::new(directory.path().to_str().unwrap(), "node");
        let place = place::Place::new(&options.url, &[]).unwrap();
        let service = Service::new(place, options.clone());
        let ended = Arc::new(Ended::new(Arc::new(|| {})));
        let shared = Arc::new(Shared::new(options, service, 1, ended, None));
        let (orders, given) = channel();
        let (close, closed) = unbounded_channel();
        let imager = Imager::new(Advisor::new(Choice::Off), 2);
        let packer = Some(Packer::new(Arc::clone(&shared), given, close, imager));
        Self { shared, packer, orders, closed, _directory: directory }
    }

    fn store(&self, token: u64, record: Record, bytes: &[u8], durable: bool) {
        let memory = Arc::new(HostMemory::new(bytes.len()).build().unwrap());
        let from = Span::new(memory, 0..bytes.len() as u64);
        from.write_at(0, bytes);
        let number = self.shared.state.lock().queue.take(record.name());
        self.shared.buffered.fetch_add(record.len, Ordering::Relaxed);
        let ask = Ask::new(&self.shared.ended, token, Lane::Write);
        self.orders.send(Order::Store(Store { record, from, durable, ask, number })).unwrap();
    }

    /// Everything that was ordered is done.
    fn run(&mut self) {
        self.orders.send(Order::Close).unwrap();
        self.packer.take().unwrap().run();
    }

    fn finds(&self, record: &Record) -> bool {
        self.shared.state.lock().index.find(&record.name(), self.shared.wall()).is_some()
    }

    fn answers(&self) -> Vec<(u64, Result<Option<Record>, Failure>)> {
        let mut done = Vec::new();
        self.shared.ended.take(&mut done);
        done.into_iter().map(|Done { token, result }| (token, result)).collect()
    }
}

fn block(number: u8, len: usize) -> (Record, Vec<u8>) {
    let bytes = vec![number; len];
    let key = Key::from_digest(&[number]);
    let record = Record {
        identity: IdentityId::from_bytes([number; 16]),
        link: Link { key, parent: None, position: 0 },
        len: len as u64,
        checksum: crate::arena::checksum(&bytes),
        expires: None,
    };
    (record, bytes)
}

/// A pack in the bucket with one block in it, and the order to move that.
fn moved(bench: &Bench, record: &Record, bytes: &[u8], id: u8) -> (Serial, Order) {
    let memory = Arc::new(HostMemory::new(bytes.len()).build().unwrap());
    let from = Span::new(memory, 0..bytes.len() as u64);
    from.write_at(0, bytes);
    let mut imager = Imager::new(Advisor::new(Choice::Off), 2);
    let (image, codec) = imager.image(record, &from).unwrap();
    let Record { len, checksum, expires, .. } = *record;
    let (name, stored) = (record.name(), image.len() as u64);
    let listed = Listed { name, len, checksum, expires, offset: 16, stored, codec };
    let id = PackId::from_bytes([id; 32]);
    let mut state = bench.shared.state.lock();
    let mut pack = Pack::new(Body::Stored(id), true, Wall(0));
    pack.size = 1000;
    let serial = state.adopt(pack, id, &[listed], Duration::ZERO);
    let from = Place { pack: serial, entry: 0 };
    (serial, Order::Move { from, listed, image: Bytes::from(image) })
}

#[test]
fn what_goes_while_it_is_moved_does_not_come_back() {
    let mut bench = Bench::new();
    let blocks: Vec<_> = (1..=5).map(|number| block(number, 1000)).collect();
    let mut serials = Vec::new();
    for (id, (record, bytes)) in (1..).zip(&blocks) {
        let (serial, order) = moved(&bench, record, bytes, id);
        bench.orders.send(order).unwrap();
        serials.push(serial);
    }
    {
        let mut state = bench.shared.state.lock();
        state.remove(blocks[0].0.name(), Wall(1));
        state.clear(blocks[1].0.identity, Wall(1));
        state.index.drop_pack(serials[2]);
    }
    // One is replaced by other bytes before its turn to move comes.
    let (mut replaced, newer) = block(4, 2000);
    replaced.link = blocks[3].0.link;
    let (_, late) = moved(&bench, &blocks[3].0, &blocks[3].1, 9);
    bench.store(7, replaced, &newer, false);
    bench.orders.send(late).unwrap();
    bench.run();
    let found: Vec<bool> = blocks.iter().map(|(record, _)| bench.finds(record)).collect();
    assert_eq!(found, [false, false, false, true, true]);
    let state = bench.shared.state.lock();
    let four = state.index.found(&replaced.name(), Wall(0)).unwrap();
    assert_eq!(four.len, 2000, "the newer one");
    drop(state);
    assert_eq!(bench.shared.counts.reinserted.load(Ordering::Relaxed), 2);
    let Closed { charged, .. } = bench.closed.try_recv().expect("a pack");
    assert_eq!(bench.shared.buffered.load(Ordering::Relaxed), charged, "nothing else is charged");
}

#[test]
fn what_was_removed_before_it_was_packed_is_not() {
    let mut bench = Bench::new();
    let (first, bytes) = block(1, 1000);
    let (second, others) = block(2, 1000);
    bench.store(1, first, &bytes, true);
    bench.store(2, second, &others, false);
    {
        let mut state = bench.shared.state.lock();
        state.remove(first.name(), Wall(1));
        state.clear(second.identity, Wall(1));
    }
    bench.run();
    assert_eq!(bench.answers(), [(1, Ok(None)), (2, Ok(None))]);
    assert!(!bench.finds(&first) && !bench.finds(&second));
    assert!(bench.closed.try_recv().is_err(), "there is nothing to upload");
    assert_eq!(bench.shared.buffered.load(Ordering::Relaxed), 0);
}

#[test]
fn a_durable_block_that_is_there_waits_for_its_manifest() {
    let mut bench = Bench::new();
    let (record, bytes) = block(1, 1000);
    let (serial, _) = moved(&bench, &record, &bytes, 1);
    let upload = bench.shared.state.lock().uploads.begin();
    bench.store(1, record, &bytes, true);
    bench.run();
    assert_eq!(bench.answers(), [], "no manifest names its pack");
    bench.shared.state.lock().index.pack_mut(serial).unwrap().named = 1;
    let due = bench.shared.state.lock().uploads.end(upload, true);
    Shared::answer_syncs(due);
    assert_eq!(bench.answers(), [(1, Ok(None))]);
}
