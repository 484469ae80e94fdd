//! Reads blocks out of packs.
//!
//! Loads that are asked for together and lie near each other in a pack are read by one request. What
//! comes is copied chunk by chunk into the spans, as it comes: the service's client hands out buffers of
//! its own, so one copy is the least there can be.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::super::Span;
use super::super::cold::{Failure, Lane};
use super::ended::Ask;
use super::fault::{Fault, Kind};
use super::fill::{Filler, Wrong};
use super::gates::Right;
use super::index::{Hit, Place, Source};
use super::paths::PackId;
use super::pieces::Pieces;
use super::shared::{Shared, count};

/// Loads that are looked at together.
const BATCH: usize = 256;

/// A block that is to be loaded.
pub(super) struct Load {
    pub(super) hit: Hit,
    pub(super) range: Range<u64>,
    pub(super) into: Span,
    pub(super) deadline: Instant,
    pub(super) ask: Ask,
}

/// One load on its way.
struct Part {
    place: Place,
    filler: Filler,
    /// First byte of its image in the pack.
    offset: u64,
    deadline: Instant,
    ask: Ask,
    /// It was read once and was wrong.
    was_wrong: bool,
}

/// Loads whose bytes are read by one request.
struct Read {
    pack: PackId,
    range: Range<u64>,
    /// In the order of their offsets.
    parts: Vec<Part>,
}

/// Takes loads of a lane until there can be no more.
pub(super) async fn run(shared: Arc<Shared>, lane: Lane, mut loads: UnboundedReceiver<Load>) {
    let requests = match lane {
        Lane::Demand => shared.options.demand_requests,
        Lane::Prefetch | Lane::Write => shared.options.prefetch_requests,
    };
    let requests = Arc::new(Semaphore::new(requests));
    let mut batch = Vec::new();
    while loads.recv_many(&mut batch, BATCH).await > 0 {
        let mut parts = Vec::new();
        for load in batch.drain(..) {
            let Load { hit, range, into, deadline, ask } = load;
            let filler = Filler::new(hit.listed, range, into);
            let (place, offset) = (hit.place, u64::from(hit.listed.offset));
            let part = Part { place, filler, offset, deadline, ask, was_wrong: false };
            match hit.source {
                Source::Stored(pack) => parts.push((pack, part)),
                Source::Memory(image) => {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move { from_memory(&shared, part, &image) });
                }
            }
        }
        for read in plan(&shared, parts) {
            let (shared, requests) = (Arc::clone(&shared), Arc::clone(&requests));
            tokio::spawn(async move { read.run(&shared, &requests).await });
        }
    }
}

fn from_memory(shared: &Shared, mut part: Part, image: &[u8]) {
    match part.filler.feed(image) {
        Ok(()) if part.filler.is_full() => part.succeed(shared),
        _ => part.corrupt(shared),
    }
}

/// Puts loads together that one request may bring.
fn plan(shared: &Shared, mut parts: Vec<(PackId, Part)>) -> Vec<Read> {
    parts.sort_by_key(|(pack, part)| (*pack, part.offset));
    let (gap, most) = (shared.options.gap_bytes, shared.options.read_bytes_max);
    let mut reads: Vec<Read> = Vec::new();
    for (pack, part) in parts {
        let range = part.bytes_from_head();
        if let Some(range) = &range
            && let Some(last) = reads.last_mut()
            && last.pack == pack
            && last.parts.iter().all(|part| part.bytes_from_head().is_some())
            && range.start <= last.range.end.saturating_add(gap)
            && range.end.max(last.range.end) - last.range.start <= most
        {
            last.range.end = last.range.end.max(range.end);
            last.parts.push(part);
            continue;
        }
        let range = range.unwrap_or(part.offset..part.offset);
        reads.push(Read { pack, range, parts: vec![part] });
    }
    // Those whose head is far from what is needed of them.
    for read in &mut reads {
        let [part] = &read.parts[..] else { continue };
        if let Some(body) = part.filler.body_range()
            && body.start.saturating_sub(part.filler.head_range().end) > gap
        {
            read.range = part.offset..part.offset;
        }
    }
    reads
}

impl Part {
    /// The bytes of the pack from its head on that hold what is needed; none if that is not known.
    fn bytes_from_head(&self) -> Option<Range<u64>> {
        let body = self.filler.body_range()?;
        Some(self.offset..self.offset + body.end.max(self.filler.head_range().end))
    }

    fn succeed(self, shared: &Shared) {
        count(&shared.counts.loaded, 1);
        count(&shared.counts.loaded_bytes, self.filler.bytes());
        shared.state.lock().index.used(self.place);
        let record = self.filler.record();
        self.ask.answer(Ok(record));
    }

    /// It is not what was stored, twice over: nobody shall find it any more.
    fn corrupt(self, shared: &Shared) {
        count(&shared.counts.corrupt, 1);
        {
            let mut state = shared.state.lock();
            state.index.forget(self.place);
            if state.index.pack(self.place.pack).is_some_and(|pack| pack.ours) {
                state.changed.insert(self.place.pack);
            }
        }
        tracing::warn!(place = shared.service.name(), "a block is damaged; it was dropped");
        self.ask.answer(Err(Failure::Corrupt));
    }

    fn fail(self, failure: Failure) {
        self.ask.answer(Err(failure));
    }
}

/// How one request for the parts of a read ended.
enum End {
    Done,
    /// To be tried again for the parts that are left.
    Again(Fault),
    Failed(Fault),
}

impl Read {
    async fn run(mut self, shared: &Shared, requests: &Semaphore) {
        let permit = loop {
            match timeout_at(self.deadline(), requests.acquire()).await {
                Ok(permit) => break permit,
                Err(_) => self.expire(),
            }
            if self.parts.is_empty() {
                return;
            }
        };
        let mut tried = 0;
        let fault = loop {
            if let Some(why) = shared.service.broken() {
                self.fail(&Failure::Unavailable(why));
                return;
            }
            let end = self.attempt(shared).await;
            self.expire();
            if self.parts.is_empty() {
                return;
            }
            let fault = match end {
                End::Done => return,
                End::Failed(fault) => break fault,
                End::Again(fault) => fault,
            };
            tried += 1;
            let last = self.parts.iter().map(|part| part.deadline).max();
            let next = shared.service.next_attempt(tried).filter(|at| Some(*at) < last);
            let Some(next) = next else { break fault };
            while Instant::now() < next {
                sleep_until(next.min(self.deadline())).await;
                self.expire();
                if self.parts.is_empty() {
                    return;
                }
            }
        };
        drop(permit);
        if fault.kind == Kind::Missing {
            self.gone(shared);
        } else {
            self.fail(&Failure::Io(fault.text));
        }
    }

    fn deadline(&self) -> Instant {
        self.parts.iter().map(|part| part.deadline).min().unwrap_or_else(Instant::now)
    }

    /// Answers those whose time is up.
    fn expire(&mut self) {
        let now = Instant::now();
        for part in self.parts.extract_if(.., |part| part.deadline <= now) {
            part.fail(Failure::Deadline);
        }
    }

    fn fail(self, failure: &Failure) {
        for part in self.parts {
            part.fail(failure.clone());
        }
    }

    /// The pack is not there any more: nothing of it is.
    fn gone(self, shared: &Shared) {
        {
            let mut state = shared.state.lock();
            if let Some(serial) = state.by_id.remove(&self.pack) {
                state.index.drop_pack(serial);
            }
        }
        tracing::debug!(pack = %self.pack, "a pack is gone");
        self.fail(&Failure::Gone);
    }

    /// One request, or two where the head is far from the bytes.
    async fn attempt(&mut self, shared: &Shared) -> End {
        for part in &mut self.parts {
            part.filler.restart();
        }
        if self.range.is_empty() {
            return self.attempt_apart(shared).await;
        }
        // After some were answered there may be less to read.
        let ranges = self.parts.iter().filter_map(Part::bytes_from_head);
        let start = self.parts.first().map_or(self.range.start, |part| part.offset);
        let end = ranges.map(|range| range.end).max().unwrap_or(self.range.end);
        self.stream(shared, start..end).await
    }

    /// The head first (at the same time where the codec does not decide where the bytes are).
    async fn attempt_apart(&mut self, shared: &Shared) -> End {
        let path = shared.paths.pack(&self.pack);
        let (deadline, answers) = (self.deadline(), shared.service.answers());
        let part = &mut self.parts[0];
        let head = part.filler.head_range();
        let head = part.offset + head.start..part.offset + head.end;
        let known = part.filler.body_range();
        let ask_head = shared.service.read(&path, head, deadline);
        let (head, body) = match known {
            Some(body) => {
                let body = part.offset + body.start..part.offset + body.end;
                let get = timeout_at(deadline, shared.service.get(&path, body.clone()));
                let (head, pieces) = tokio::join!(ask_head, get);
                (head, Some((body, pieces)))
            }
            None => (ask_head.await, None),
        };
        let head = match head {
            Ok(head) => head,
            Err(fault) => return End::of(fault),
        };
        if part.filler.feed(&head).is_err() {
            return self.was_wrong(shared, 0);
        }
        let part = &mut self.parts[0];
        let (range, pieces) = match body {
            Some(body) => body,
            None => {
                let Some(body) = part.filler.body_range() else {
                    return self.was_wrong(shared, 0);
                };
                let body = part.offset + body.start..part.offset + body.end;
                let get = timeout_at(deadline, shared.service.get(&path, body.clone())).await;
                (body, get)
            }
        };
        self.parts[0].filler.skip();
        match pieces {
            Err(_) => {
                shared.service.kept_waiting(answers);
                End::Again(Fault::late())
            }
            Ok(Err(fault)) => End::of(fault),
            Ok(Ok(pieces)) => self.drain(shared, pieces, range).await,
        }
    }

    async fn stream(&mut self, shared: &Shared, range: Range<u64>) -> End {
        let path = shared.paths.pack(&self.pack);
        let get = shared.service.get(&path, range.clone());
        tokio::pin!(get);
        loop {
            let answers = shared.service.answers();
            match timeout_at(self.deadline(), &mut get).await {
                Ok(Ok(pieces)) => return self.drain(shared, pieces, range).await,
                Ok(Err(fault)) => return End::of(fault),
                Err(_) => {
                    shared.service.kept_waiting(answers);
                    self.expire();
                }
            }
            if self.parts.is_empty() {
                return End::Done;
            }
        }
    }

    /// Gives each part its bytes as they come, and answers those that are full.
    async fn drain(&mut self, shared: &Shared, mut pieces: Pieces, range: Range<u64>) -> End {
        let apart = self.range.is_empty();
        let mut at = range.start;
        while !self.parts.is_empty() {
            let answers = shared.service.answers();
            let piece = match timeout_at(self.deadline(), shared.service.next(&mut pieces)).await {
                Err(_) => {
                    shared.service.kept_waiting(answers);
                    self.expire();
                    continue;
                }
                Ok(Err(fault)) => return End::of(fault),
                Ok(Ok(None)) => {
                    let fault = Fault::new(Kind::Passing, "the answer ended early");
                    shared.service.heard(Right::Read, Some(&fault));
                    return End::Again(fault);
                }
                Ok(Ok(Some(piece))) => piece,
            };
            let end = at + piece.len() as u64;
            if end > range.end {
                let fault = Fault::new(Kind::Passing, "the service sent too much");
                shared.service.heard(Right::Read, Some(&fault));
                return End::Again(fault);
            }
            let mut index = 0;
            while index < self.parts.len() {
                let part = &mut self.parts[index];
                let (from, to) = match apart {
                    true => (range.start, range.end),
                    false => {
                        part.bytes_from_head().map_or((0, 0), |bytes| (bytes.start, bytes.end))
                    }
                };
                if from >= end {
                    break;
                }
                let (from, to) = (from.max(at), to.min(end));
                if from < to {
                    let bytes = &piece[(from - at) as usize..(to - at) as usize];
                    if part.filler.feed(bytes) == Err(Wrong) {
                        return self.was_wrong(shared, index);
                    }
                }
                if part.filler.is_full() {
                    self.parts.remove(index).succeed(shared);
                } else {
                    index += 1;
                }
            }
            at = end;
        }
        End::Done
    }

    /// What came for a part is not what was stored. Once it may have been the way here.
    fn was_wrong(&mut self, shared: &Shared, index: usize) -> End {
        if self.parts[index].was_wrong {
            self.parts.remove(index).corrupt(shared);
        } else {
            self.parts[index].was_wrong = true;
        }
        match self.parts.is_empty() {
            true => End::Done,
            false => End::Again(Fault::new(Kind::Passing, "the answer is damaged")),
        }
    }
}

impl End {
    fn of(fault: Fault) -> Self {
        if fault.kind == Kind::Passing { Self::Again(fault) } else { Self::Failed(fault) }
    }
}
