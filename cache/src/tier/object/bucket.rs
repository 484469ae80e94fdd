//! The tier as the cache sees it.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::super::Tier;
use super::super::codec::Advisor;
use super::super::cold::{
    Cold, Done, Failure, Figures, Found, Health, Job, Lane, Name, Notify, Refusal, Refused, micros,
};
use super::collect::{Collected, Collector};
use super::ended::{Ask, Ended};
use super::error::OpenError;
use super::gates::Right;
use super::image::Imager;
use super::load::{self, Load};
use super::manifests::Publisher;
use super::options::Options;
use super::packer::{Order, Packer, Store};
use super::place::Place;
use super::refresh::refresh;
use super::service::Service;
use super::shared::{Shared, count};
use super::tasks::{collect, first_look, poll, probe, session, watch};
use super::upload;
use crate::limits::SCAN_BLOCKS;

/// Blocks do not move so long after somebody went through some of them.
const VISIT: Duration = Duration::from_secs(60);

/// A bucket, or a directory, that blocks are kept in.
pub struct Bucket {
    shared: Arc<Shared>,
    orders: Mutex<Sender<Order>>,
    demand: UnboundedSender<Load>,
    prefetch: UnboundedSender<Load>,
    publisher: Arc<Publisher>,
    collector: Arc<tokio::sync::Mutex<Collector>>,
    runtime: Mutex<Option<Runtime>>,
    recovery: Duration,
}

impl Bucket {
    /// Opens it: shows that it can be read and written, and reads what is in it. `notify` is called
    /// when jobs have ended.
    ///
    /// # Errors
    /// When the options cannot be, or the service does not let itself be used.
    pub fn open(options: Options, notify: Notify) -> Result<Self, OpenError> {
        options.check()?;
        let place = Place::new(&options.url, &options.settings)?;
        let thread = |error: std::io::Error| OpenError::Thread(error.to_string());
        let runtime = Builder::new_multi_thread()
            .worker_threads(options.threads)
            .thread_name("tranship-object")
            .enable_all()
            .build()
            .map_err(thread)?;
        let session = session();
        let service = Service::new(place, options.clone());
        let deadline = Instant::now() + options.open_within;
        let read_only = runtime.block_on(probe(&service, &options, session, deadline))?;
        let ended = Arc::new(Ended::new(notify));
        let imager = Imager::new(Advisor::new(options.codec), options.codec_width);
        let shared = Arc::new(Shared::new(options, service, session, ended, read_only));
        let began = Instant::now();
        runtime.block_on(first_look(&shared, deadline))?;
        let recovery = began.elapsed();

        let (orders, given) = std::sync::mpsc::channel();
        let (close, closed) = unbounded_channel();
        let packer = Packer::new(Arc::clone(&shared), given, close, imager);
        let spawned = std::thread::Builder::new().name("tranship-pack".to_owned());
        spawned.spawn(move || packer.run()).map_err(thread)?;
        let publisher = Arc::new(Publisher::new(Arc::clone(&shared)));
        runtime.spawn(upload::run(
            Arc::clone(&shared),
            Arc::clone(&publisher),
            closed,
            orders.clone(),
        ));
        let (demand, loads) = unbounded_channel();
        runtime.spawn(load::run(Arc::clone(&shared), Lane::Demand, loads));
        let (prefetch, loads) = unbounded_channel();
        runtime.spawn(load::run(Arc::clone(&shared), Lane::Prefetch, loads));
        runtime.spawn(watch(Arc::clone(&shared)));
        if !shared.options.poll.is_zero() {
            runtime.spawn(poll(Arc::clone(&shared)));
        }
        let collector = Collector::new(Arc::clone(&shared), Arc::clone(&publisher), orders.clone());
        let collector = Arc::new(tokio::sync::Mutex::new(collector));
        if shared.read_only.is_none() {
            runtime.spawn(collect(Arc::clone(&shared), Arc::clone(&collector)));
        }
        let (orders, runtime) = (Mutex::new(orders), Mutex::new(Some(runtime)));
        Ok(Self { shared, orders, demand, prefetch, publisher, collector, runtime, recovery })
    }

    /// Where it is and what it is, for people; no secret is in it.
    #[must_use]
    pub fn describe(&self) -> String {
        let shared = &self.shared;
        let parts = if shared.service.has_parts() { "object store" } else { "directory" };
        format!("{parts} {}, node {}", shared.service.name(), shared.options.node)
    }

    /// Looks for packs of other nodes now; how many came.
    ///
    /// # Errors
    /// What went wrong, in short; what could be read is known all the same.
    pub fn refresh(&self, within: Duration) -> Result<u64, Failure> {
        let shared = Arc::clone(&self.shared);
        let refreshed =
            self.wait_for(within, async move { refresh(&shared, Instant::now() + within).await });
        let refreshed = refreshed?.map_err(|fault| Failure::Io(fault.text))?;
        refreshed.missed.map_or(Ok(refreshed.packs), |why| Err(Failure::Io(why)))
    }

    /// Makes room now, as it is done from time to time anyhow; what was done.
    ///
    /// # Errors
    /// What went wrong, in short.
    pub fn collect(&self, within: Duration) -> Result<Collected, Failure> {
        if let Some(why) = &self.shared.read_only {
            return Err(Failure::Unavailable(format!("read-only: {why}")));
        }
        let collector = Arc::clone(&self.collector);
        let collected = self.wait_for(within, async move {
            collector.lock().await.round(Instant::now() + within).await
        });
        collected?.map_err(|fault| Failure::Io(fault.text))
    }

    /// Runs a request and waits for it.
    fn wait_for<T: Send + 'static>(
        &self,
        within: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failure> {
        let (tell, told) = std::sync::mpsc::channel();
        match self.runtime.lock() {
            Ok(runtime) if runtime.is_some() => {
                let runtime = runtime.as_ref().expect("just seen");
                runtime.spawn(async move { tell.send(work.await) });
            }
            _ => return Err(Failure::Unavailable("closed".to_owned())),
        }
        told.recv_timeout(within).map_err(|_| Failure::Deadline)
    }

    fn order(&self, order: Order) {
        if let Ok(orders) = self.orders.lock() {
            // After the end of the packer, what is asked is answered as it is dropped.
            let _ = orders.send(order);
        }
    }

    fn store(&self, job: Job) -> Result<(), Box<Refused>> {
        let Job::Store { token, record, from, durable } = job else { unreachable!("a store") };
        let refuse = |why| {
            let job = Job::Store { token, record, from: from.clone(), durable };
            Err(Box::new(Refused { job, why }))
        };
        let shared = &self.shared;
        let ended = &shared.ended;
        if shared.state.lock().closing {
            return refuse(Refusal::Closed);
        }
        let read_only = || shared.takes_no_writes().map(|why| format!("read-only: {why}"));
        if let Some(text) = shared.service.broken().or_else(read_only) {
            Ask::new(ended, token, Lane::Write).answer(Err(Failure::Unavailable(text)));
            return Ok(());
        }
        if from.len() as u64 != record.len {
            let text = format!("{} bytes were given for a block of {}", from.len(), record.len);
            Ask::new(ended, token, Lane::Write).answer(Err(Failure::Io(text)));
            return Ok(());
        }
        if record.len > shared.options.capacity_bytes {
            Ask::new(ended, token, Lane::Write).answer(Err(Failure::NoRoom));
            return Ok(());
        }
        let buffered = shared.buffered.load(Ordering::Relaxed);
        let full = buffered > 0 && buffered + record.len > shared.options.buffer_bytes;
        if full || ended.in_flight(Lane::Write) >= shared.options.jobs_max {
            return refuse(Refusal::Full);
        }
        count(&shared.buffered, record.len);
        let ask = Ask::new(ended, token, Lane::Write);
        // Numbered as it is queued: a removal after this voids it.
        let number = shared.state.lock().queue.take(record.name());
        self.order(Order::Store(Store { record, from, durable, ask, number }));
        Ok(())
    }

    fn load(&self, job: Job) -> Result<(), Box<Refused>> {
        let Job::Load { token, name, range, into, lane, within } = job else {
            unreachable!("a load")
        };
        let shared = &self.shared;
        let refused = {
            let closing = shared.state.lock().closing;
            let full = shared.ended.in_flight(lane) >= shared.options.jobs_max;
            closing.then_some(Refusal::Closed).or(full.then_some(Refusal::Full))
        };
        if let Some(why) = refused {
            let job = Job::Load { token, name, range, into, lane, within };
            return Err(Box::new(Refused { job, why }));
        }
        let ask = Ask::new(&shared.ended, token, lane);
        let hit = shared.state.lock().index.find(&name, shared.wall());
        let Some(hit) = hit else {
            ask.answer(Err(Failure::Gone));
            return Ok(());
        };
        let fits = range.start <= range.end
            && range.end <= hit.listed.len
            && into.len() as u64 == range.end - range.start;
        if !fits {
            let len = hit.listed.len;
            let text = format!("bytes {range:?} of a block of {len} into {} bytes", into.len());
            ask.answer(Err(Failure::Io(text)));
            return Ok(());
        }
        if let (super::index::Source::Stored(_), Some(why)) = (&hit.source, shared.service.broken())
        {
            ask.answer(Err(Failure::Unavailable(why)));
            return Ok(());
        }
        let deadline = Instant::now() + within;
        let load = Load { hit, range, into, deadline, ask };
        let lane = if lane == Lane::Demand { &self.demand } else { &self.prefetch };
        // After the end of the runtime, what is asked is answered as it is dropped.
        let _ = lane.send(load);
        Ok(())
    }
}

impl Cold for Bucket {
    fn tier(&self) -> Tier {
        Tier::Object
    }

    fn find(&self, name: &Name) -> Option<Found> {
        let state = self.shared.state.lock();
        if self.shared.service.broken().is_some() {
            // Only what is in memory can be had.
            let hit = state.index.find(name, self.shared.wall())?;
            let here = matches!(hit.source, super::index::Source::Memory(_));
            return state.index.found(name, self.shared.wall()).filter(|_| here);
        }
        state.index.found(name, self.shared.wall())
    }

    fn submit(&self, job: Job) -> Result<(), Box<Refused>> {
        let shared = &self.shared;
        match job {
            Job::Store { .. } => self.store(job),
            Job::Load { .. } => self.load(job),
            Job::Remove { name } => {
                let mut state = shared.state.lock();
                if state.closing {
                    drop(state);
                    return Err(Box::new(Refused {
                        job: Job::Remove { name },
                        why: Refusal::Closed,
                    }));
                }
                state.remove(name, shared.wall());
                Ok(())
            }
            Job::Clear { identity } => {
                let mut state = shared.state.lock();
                if state.closing {
                    drop(state);
                    let job = Job::Clear { identity };
                    return Err(Box::new(Refused { job, why: Refusal::Closed }));
                }
                state.clear(identity, shared.wall());
                Ok(())
            }
            Job::Sync { token } => {
                if shared.state.lock().closing {
                    return Err(Box::new(Refused {
                        job: Job::Sync { token },
                        why: Refusal::Closed,
                    }));
                }
                let ask = Ask::new(&shared.ended, token, Lane::Write);
                self.order(Order::Sync { ask });
                Ok(())
            }
        }
    }

    fn finished(&self, out: &mut Vec<Done>) {
        self.shared.ended.take(out);
    }

    fn visit(&self, from: u64, visit: &mut dyn FnMut(&Name, &Found)) -> Option<u64> {
        let (found, next) = {
            let mut state = self.shared.state.lock();
            state.visited_until = self.shared.options.clock.now() + VISIT;
            state.index.visit(from, SCAN_BLOCKS, self.shared.wall())
        };
        for (name, found) in &found {
            visit(name, found);
        }
        next
    }

    fn health(&self) -> Health {
        let shared = &self.shared;
        if shared.state.lock().closing {
            return Health::Off("closed".to_owned());
        }
        if let Some(why) = shared.service.broken() {
            return Health::Off(why);
        }
        if let Some(why) = shared.takes_no_writes() {
            return Health::ReadOnly(why);
        }
        let refused = [Right::List, Right::Delete].map(|right| shared.service.refused(right));
        if let Some(why) = refused.into_iter().flatten().next() {
            return Health::Degraded(why);
        }
        let state = shared.state.lock();
        if state.twin {
            let node = &shared.options.node;
            let text =
                format!("another daemon uses the name {node:?} in this bucket; name one anew");
            return Health::Degraded(text);
        }
        let unread =
            state.unreadable.first().or(state.missed.first_key_value().map(|(name, _)| name));
        if let Some(name) = unread {
            let (path, why) = (shared.paths.manifest(name), state.missed.get(name));
            let why = why.map_or("it makes no sense here", String::as_str);
            return Health::Degraded(format!("what {path} names is not known: {why}"));
        }
        match state.left_out.len() {
            0 => Health::Ready,
            packs => Health::Degraded(format!(
                "{packs} packs of other nodes are not known here: the index has {} bytes at most",
                shared.options.index_bytes_max
            )),
        }
    }

    fn figures(&self) -> Figures {
        let shared = &self.shared;
        let ((blocks, bytes), index_bytes) = {
            let state = shared.state.lock();
            (state.index.totals(), state.memory_bytes())
        };
        let (device_written_bytes, device_read_bytes) = shared.service.moved();
        let counts = &shared.counts;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            blocks,
            bytes,
            capacity_bytes: shared.options.capacity_bytes,
            index_bytes,
            stored: read(&counts.stored),
            stored_bytes: read(&counts.stored_bytes),
            loaded: read(&counts.loaded),
            loaded_bytes: read(&counts.loaded_bytes),
            failed: shared.ended.failed(),
            corrupt: read(&counts.corrupt),
            evicted: read(&counts.evicted),
            reinserted: read(&counts.reinserted),
            device_written_bytes,
            device_read_bytes,
            recovered: read(&counts.recovered),
            recovery_us: micros(self.recovery),
        }
    }

    fn close(&self, within: Duration) {
        let began = std::time::Instant::now();
        self.shared.state.lock().closing = true;
        self.order(Order::Close);
        self.shared.quiet.wait(within, || self.shared.is_quiet());
        let left = within.saturating_sub(began.elapsed());
        if self.shared.read_only.is_none() && self.shared.service.broken().is_none() {
            // What was removed or cleared shall not be found by the next run.
            let cleared = self.shared.state.lock().index.has_cleared();
            if cleared {
                self.shared.sweep();
            }
            let publisher = Arc::clone(&self.publisher);
            let rewrite =
                async move { publisher.rewrite(usize::MAX, true, Instant::now() + left).await };
            if let Ok(Err(fault)) = self.wait_for(left, rewrite) {
                tracing::debug!(why = %fault, "removed blocks may come back");
            }
        }
        let runtime = self.runtime.lock().ok().and_then(|mut runtime| runtime.take());
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(within.saturating_sub(began.elapsed()));
        }
        let left = self.shared.state.lock().uploads.give_up();
        // Dropped, they are answered.
        drop(left);
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.order(Order::Close);
        if let Some(runtime) = self.runtime.lock().ok().and_then(|mut runtime| runtime.take()) {
            runtime.shutdown_background();
        }
    }
}
