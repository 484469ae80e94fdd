//! The tier: the log on a thread of its own.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::desk::Desk;
use super::disk::{Disk, Waker};
use super::engine::{Engine, OpenError};
use super::format::Uuid;
use super::options::{Judge, Now, Options};
use crate::tier::Tier;
use crate::tier::cold::{Cold, Done, Figures, Found, Health, Job, Name, Notify, Refused};
use crate::time::Millis;

/// Tells the time; the daemon's clock, or a test's.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// Longest wait for a device that has nothing to do.
const IDLE_MAX: Millis = Millis(1000);

/// The NVMe tier. Dropping it closes it within a few seconds.
pub struct Nvme {
    desk: Arc<Desk>,
    control: Arc<Control>,
    wake: Waker,
    clock: Clock,
    describe: String,
    uuid: Uuid,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread is told beside jobs, and tells beside answers.
#[derive(Default)]
struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// The tier is to be closed within this time.
    close: Option<Millis>,
    finished: bool,
}

impl Control {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }
}

impl Nvme {
    /// Time that dropping the tier gives it to close.
    pub const DROP_WITHIN: Duration = Duration::from_secs(10);

    /// Opens the store on a disk, or makes one on an empty one, and starts the thread. `random` must
    /// differ at each opening.
    ///
    /// # Errors
    /// Why the store cannot be opened.
    pub fn open(
        disk: Box<dyn Disk>,
        options: &Options,
        judge: Box<dyn Judge>,
        random: [u8; 16],
        clock: Clock,
        notify: Notify,
    ) -> Result<Self, OpenError> {
        let engine = Engine::open(disk, options, judge, random, &*clock)?;
        let (desk, wake) = (engine.desk(), engine.waker());
        let (describe, uuid) = (engine.describe(), engine.uuid());
        let control = Arc::new(Control::default());
        let driver =
            Driver { engine, control: Arc::clone(&control), clock: Arc::clone(&clock), notify };
        let thread = thread::Builder::new().name("tranship-nvme".to_owned());
        let thread = thread.spawn(move || driver.run());
        let thread = Mutex::new(Some(thread.map_err(|why| OpenError::Memory(why.to_string()))?));
        Ok(Self { desk, control, wake, clock, describe, uuid, thread })
    }

    /// What it runs on, for people.
    #[must_use]
    pub fn describe(&self) -> &str {
        &self.describe
    }

    /// The store's name.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }
}

impl Cold for Nvme {
    fn tier(&self) -> Tier {
        Tier::Nvme
    }

    fn find(&self, name: &Name) -> Option<Found> {
        self.desk.find(name, (self.clock)().wall)
    }

    fn submit(&self, job: Job) -> Result<(), Box<Refused>> {
        self.desk.submit(job)?;
        (self.wake)();
        Ok(())
    }

    fn finished(&self, out: &mut Vec<Done>) {
        self.desk.finished(out);
    }

    fn visit(&self, from: u64, visit: &mut dyn FnMut(&Name, &Found)) -> Option<u64> {
        self.desk.visit(from, (self.clock)().wall, visit)
    }

    fn health(&self) -> Health {
        self.desk.health()
    }

    fn figures(&self) -> Figures {
        self.desk.figures()
    }

    fn close(&self, within: Duration) {
        let until = Instant::now() + within + Duration::from_secs(1);
        self.desk.close();
        let mut state = self.control.state();
        state.close.get_or_insert(Millis::from(within));
        drop(state);
        (self.wake)();
        let mut state = self.control.state();
        while !state.finished {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The device holds the thread up; it ends with the device.
                return;
            }
            let waited = self.control.changed.wait_timeout(state, left);
            state = waited.expect("nothing panics under this lock").0;
        }
        drop(state);
        let thread = self.thread.lock().expect("nothing panics under this lock").take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Nvme {
    fn drop(&mut self) {
        self.close(Self::DROP_WITHIN);
    }
}

impl fmt::Debug for Nvme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nvme").field("on", &self.describe).finish_non_exhaustive()
    }
}

/// The thread.
struct Driver {
    engine: Engine,
    control: Arc<Control>,
    clock: Clock,
    notify: Notify,
}

impl Driver {
    fn run(mut self) {
        // A panic is a bug; who waits for answers must hear of it all the same.
        let (desk, control, notify) =
            (self.engine.desk(), Arc::clone(&self.control), Arc::clone(&self.notify));
        let _last = Last(Some(move || {
            let bug = thread::panicking();
            desk.abandon(if bug { "its thread has ended by a bug" } else { "closed" });
            control.state().finished = true;
            control.changed.notify_all();
            notify();
        }));
        loop {
            let close = self.control.state().close;
            let now = (self.clock)();
            if let Some(within) = close {
                self.engine.close(now, within);
            }
            let mut told = false;
            let due = self.engine.step(now, &mut told);
            if told {
                (self.notify)();
            }
            if self.engine.closed() {
                return;
            }
            let left = due.map_or(IDLE_MAX, |due| (due - now.mono).min(IDLE_MAX));
            if left > Millis::ZERO {
                self.engine.wait(left.into());
            }
        }
    }
}

/// Runs something when the thread ends, however it does.
struct Last<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Last<F> {
    fn drop(&mut self) {
        if let Some(last) = self.0.take() {
            last();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tranship_transport::memory::HostMemory;

    use super::*;
    use crate::identity::IdentityId;
    use crate::key::Key;
    use crate::lineage::Link;
    use crate::tier::Span;
    use crate::tier::cold::{Failure, Lane, Record};
    use crate::tier::nvme::Hits;
    use crate::tier::nvme::disk::sim::Device;
    use crate::time::Wall;

    struct Bench {
        tier: Nvme,
        told: mpsc::Receiver<()>,
        done: Vec<Done>,
    }

    fn open(device: &Device) -> Bench {
        let (tell, told) = mpsc::channel();
        let notify: Notify = Arc::new(move || tell.send(()).unwrap_or_default());
        let start = Instant::now();
        let clock: Clock = Arc::new(move || Now {
            mono: Millis::from(start.elapsed()),
            wall: Wall(1_000_000).after(Millis::from(start.elapsed())),
        });
        let options = Options { segment_bytes: 1 << 20, ..Options::default() };
        let tier = Nvme::open(device.open(), &options, Box::new(Hits), [7; 16], clock, notify);
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

    fn span(bytes: &[u8]) -> Span {
        let memory = HostMemory::new(bytes.len()).build().unwrap();
        memory.write_at(0, bytes).unwrap();
        Span::whole(Arc::new(memory))
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
        let mut bench = open(&device);
        assert_eq!(bench.tier.find(&record.name()), None);
        bench.tier.submit(Job::Store { token: 1, record, from, durable: true }).unwrap();
        assert_eq!(bench.wait(1), Ok(None));
        for _ in 0..2 {
            let found = bench.tier.find(&record.name()).unwrap();
            assert_eq!((found.len, found.checksum), (len, checksum));
            for (token, range) in [(2, 0..len), (3, 70_001..150_003), (4, len - 1..len)] {
                let into = span(&vec![0; (range.end - range.start) as usize]);
                let (lane, within, name) = (Lane::Demand, Duration::from_secs(20), record.name());
                let load = Job::Load {
                    token,
                    name,
                    range: range.clone(),
                    into: into.clone(),
                    lane,
                    within,
                };
                bench.tier.submit(load).unwrap();
                assert_eq!(bench.wait(token), Ok(Some(record)));
                let mut read = vec![0; into.len()];
                into.read_at(0, &mut read);
                assert!(read == bytes[range.start as usize..range.end as usize]);
            }
            bench.tier.close(Duration::from_secs(20));
            bench = open(&device);
            assert_eq!(bench.tier.figures().recovered, 1);
        }
    }
}
