//! The thread: what it answers, and how it ends.

use std::sync::mpsc;

use super::*;
use crate::identity::IdentityId;
use crate::key::Key;
use crate::lineage::Link;
use crate::tier::cold::{Failure, Lane, Record, Refusal};
use crate::tier::nvme::Hits;
use crate::tier::nvme::disk::sim::Device;
use crate::tier::nvme::disk::{Ended, Op};
use crate::tier::nvme::testing::{self, span};
use crate::time::Wall;

struct Bench {
    tier: Nvme,
    told: mpsc::Receiver<()>,
    done: Vec<Done>,
}

fn open(disk: Box<dyn Disk>) -> Bench {
    let (tell, told) = mpsc::channel();
    let notify: Notify = Arc::new(move || tell.send(()).unwrap_or_default());
    let start = Instant::now();
    let clock: Clock = Arc::new(move || Now {
        mono: Millis::from(start.elapsed()),
        wall: Wall(1_000_000).after(Millis::from(start.elapsed())),
    });
    let options = Options { segment_bytes: 1 << 20, ..Options::default() };
    let tier = Nvme::open(disk, &options, Box::new(Hits), [7; 16], clock, notify);
    Bench { tier: tier.unwrap(), told, done: Vec::new() }
}

impl Bench {
    fn wait(&mut self, token: u64) -> Result<Option<Record>, Failure> {
        loop {
            if let Some(at) = self.done.iter().position(|done| done.token == token) {
                return self.done.swap_remove(at).result;
            }
            self.told.recv_timeout(Duration::from_secs(30)).unwrap();
            self.tier.finished(&mut self.done);
        }
    }
}

#[test]
fn what_was_stored_comes_back_and_survives_a_close() {
    let device = Device::new(16 << 20, 1);
    let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at * 7 + at / 256) as u8).collect();
    let key = Key::from_bytes([3; 16]);
    let link = Link { key, parent: Some(Key::from_bytes([2; 16])), position: 4 };
    let identity = IdentityId::from_bytes([1; 16]);
    let from = span(&bytes);
    let (len, checksum) = (bytes.len() as u64, from.checksum());
    let record = Record { identity, link, len, checksum, expires: None };
    let mut bench = open(device.open());
    assert_eq!(bench.tier.find(&record.name()), None);
    bench.tier.submit(Job::Store { token: 1, record, from, durable: true }).unwrap();
    assert_eq!(bench.wait(1), Ok(None));
    for _ in 0..2 {
        let found = bench.tier.find(&record.name()).unwrap();
        assert_eq!((found.len, found.checksum), (len, checksum));
        for (token, range) in [(2, 0..len), (3, 70_001..150_003), (4, len - 1..len)] {
            let into = span(&vec![0; (range.end - range.start) as usize]);
            let (lane, within, name) = (Lane::Demand, Duration::from_secs(20), record.name());
            let load =
                Job::Load { token, name, range: range.clone(), into: into.clone(), lane, within };
            bench.tier.submit(load).unwrap();
            assert_eq!(bench.wait(token), Ok(Some(record)));
            let mut read = vec![0; into.len()];
            into.read_at(0, &mut read);
            assert!(read == bytes[range.start as usize..range.end as usize]);
        }
        bench.tier.close(Duration::from_secs(20));
        bench = open(device.open());
        assert_eq!(bench.tier.figures().recovered, 1);
    }
}

/// What a disk does when it is looked at: goes on, hangs, or has a bug.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Holds,
    Panics,
}

/// A disk whose code panics when it is told to.
struct Panicking {
    disk: Box<dyn Disk>,
    mood: Arc<Mutex<Mood>>,
    /// Its device hangs, also at the end.
    hangs: bool,
    /// Told of its end, with the answers that there were by then.
    dropped: mpsc::Sender<usize>,
    answers: Arc<dyn Fn() -> usize + Send + Sync>,
}

impl Disk for Panicking {
    fn describe(&self) -> String {
        self.disk.describe()
    }

    fn bytes(&self) -> u64 {
        self.disk.bytes()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.disk.submit(op)
    }

    fn poll(&mut self, ended: &mut Vec<Ended>) {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Well => self.disk.poll(ended),
            Mood::Holds => {}
            Mood::Panics => panic!("a bug in a disk"),
        }
    }

    fn wait(&mut self, within: Duration) {
        self.disk.wait(within);
    }

    fn waker(&self) -> Waker {
        self.disk.waker()
    }

    fn in_flight(&self) -> usize {
        self.disk.in_flight()
    }

    fn end(self: Box<Self>) -> bool {
        !self.hangs
    }
}

impl Drop for Panicking {
    fn drop(&mut self) {
        self.dropped.send((self.answers)()).unwrap();
    }
}

#[test]
fn a_bug_ends_every_job_once_the_disk_is_gone() {
    a_bug(false);
}

#[test]
fn a_bug_ends_no_load_that_a_device_may_still_write_for() {
    a_bug(true);
}

fn a_bug(hangs: bool) {
    let device = Device::new(16 << 20, 1);
    let (tell, dropped) = mpsc::channel();
    let mood = Arc::new(Mutex::new(Mood::Well));
    let looks = Arc::new(Mutex::new(None::<Arc<Desk>>));
    let desk = Arc::clone(&looks);
    let answers = Arc::new(move || {
        let mut done = Vec::new();
        desk.lock().unwrap().as_ref().expect("it was told").finished(&mut done);
        done.len()
    });
    let disk = device.open();
    let disk = Panicking { disk, mood: Arc::clone(&mood), hangs, dropped: tell, answers };
    let mut bench = open(Box::new(disk));
    *looks.lock().unwrap() = Some(Arc::clone(&bench.tier.desk));
    let bytes = testing::bytes(1, 50_000);
    let record = testing::record(1, &bytes);
    let store = |token| Job::Store { token, record, from: span(&bytes), durable: true };
    bench.tier.submit(store(1)).unwrap();
    assert_eq!(bench.wait(1), Ok(None));
    // Some are with the device when it happens, some with the log, some maybe on the desk still.
    *mood.lock().unwrap() = Mood::Holds;
    for token in 10..30 {
        bench.tier.submit(store(token)).unwrap();
        let (name, range, into) = (record.name(), 0..record.len, span(&bytes));
        let (lane, within) = (Lane::Demand, Duration::from_secs(60));
        let load = Job::Load { token: 100 + token, name, range, into, lane, within };
        bench.tier.submit(load).unwrap();
    }
    bench.tier.submit(Job::Sync { token: 99 }).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while bench.tier.desk.in_hand() < 41 {
        assert!(Instant::now() < until, "the thread takes no job");
        thread::yield_now();
    }
    *mood.lock().unwrap() = Mood::Panics;
    (bench.tier.wake)();
    let loads = (110..130).filter(|_| !hangs);
    for token in (10..30).chain([99]).chain(loads) {
        let ended = bench.wait(token);
        assert!(matches!(ended, Err(Failure::Unavailable(_))), "job {token}: {ended:?}");
    }
    let before = dropped.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(before, 0, "jobs are answered before the disk is gone");
    bench.tier.finished(&mut bench.done);
    assert!(bench.done.is_empty(), "a job is answered twice");
    // Everybody else goes on.
    assert!(matches!(bench.tier.health(), Health::Off(why) if why.contains("bug")));
    assert_eq!(bench.tier.find(&record.name()), None);
    assert_eq!(bench.tier.visit(0, &mut |_, _| panic!("there is nothing")), None);
    let refused = bench.tier.submit(Job::Remove { name: record.name() }).unwrap_err();
    assert_eq!(refused.why, Refusal::Closed);
    bench.tier.close(Duration::from_secs(20));
}

#[test]
fn an_index_that_was_left_half_changed_is_not_looked_at() {
    let device = Device::new(16 << 20, 1);
    let bench = open(device.open());
    let desk = Arc::clone(&bench.tier.desk);
    let halfway = catch_unwind(AssertUnwindSafe(|| {
        let _held = desk.index.lock();
        panic!("halfway");
    }));
    assert!(halfway.is_err());
    let name = testing::record(1, &[]).name();
    // Before the thread has met with it, and after.
    for _ in 0..2 {
        assert_eq!(bench.tier.find(&name), None);
        assert_eq!(bench.tier.visit(0, &mut |_, _| {}), None);
        let _ = bench.tier.submit(Job::Remove { name });
        let _ = bench.tier.submit(Job::Clear { identity: name.identity });
        bench.tier.close(Duration::from_secs(20));
    }
    assert!(matches!(bench.tier.health(), Health::Off(why) if why.contains("bug")));
}
