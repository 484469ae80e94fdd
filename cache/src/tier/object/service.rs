//! Requests to the service: each with a deadline, tried again when that may help, counted, and not made
//! while the service is known not to work.

use std::future::Future;
use std::iter::repeat_n;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::StreamExt;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResultPayload, ObjectMeta, ObjectStoreExt, PutPayload,
};
use tokio::time::{Instant, timeout, timeout_at};

use super::clock::Chance;
use super::fault::{Fault, Kind};
use super::gates::{Gates, News, Right};
use super::options::Options;
use super::pieces::Pieces;
use super::place::Place;
use crate::sync::{OBJECT_BREAKER, Ranked};

/// What is written to see whether there is room.
static ZEROES: [u8; 1 << 16] = [0; 1 << 16];
/// The longest listing that is read, objects.
const LISTED_MAX: usize = 100_000;

/// The service, as everything else here sees it.
pub(super) struct Service {
    place: Place,
    options: Options,
    gates: Ranked<Gates, OBJECT_BREAKER>,
    chance: Chance,
    written: AtomicU64,
    read: AtomicU64,
    /// Counts whatever came from the service.
    answers: AtomicU64,
    /// Whether a write failed for want of room, and none succeeded since.
    is_full: AtomicBool,
}

impl Service {
    pub(super) fn new(place: Place, options: Options) -> Self {
        let gates = Ranked::new(Gates::new(options.breaker));
        let chance = Chance::new(options.seed);
        let [written, read, answers] = [(); 3].map(|()| AtomicU64::new(0));
        let is_full = AtomicBool::new(false);
        Self { place, options, gates, chance, written, read, answers, is_full }
    }

    pub(super) fn prefix(&self) -> &Path {
        &self.place.prefix
    }

    /// Where it is, without secrets.
    pub(super) fn name(&self) -> &str {
        &self.place.name
    }

    pub(super) fn chance(&self) -> &Chance {
        &self.chance
    }

    /// Why nothing is asked, if so.
    pub(super) fn broken(&self) -> Option<String> {
        self.gates.lock().broken()
    }

    /// Why requests that need a right fail, if they do.
    pub(super) fn refused(&self, right: Right) -> Option<String> {
        self.gates.lock().refused(right)
    }

    /// Forgets how requests ended so far.
    pub(super) fn start_over(&self) {
        self.gates.lock().start_over();
    }

    /// Bytes written and read.
    pub(super) fn moved(&self) -> (u64, u64) {
        (self.written.load(Ordering::Relaxed), self.read.load(Ordering::Relaxed))
    }

    /// Asks whether a service that did not work does so again, and whether what it refused works, when it
    /// is time to.
    pub(super) async fn try_again(&self) {
        let now = self.options.clock.now();
        let (whole, rights) = {
            let mut gates = self.gates.lock();
            (gates.may_try(now), gates.may_try_rights(now))
        };
        let (store, silence) = (&self.place.store, self.options.silence);
        let path = self.place.prefix.clone().join("v1").join("probes").join("again");
        if whole {
            let _ = self.once(Right::Read, silence, store.head(&path)).await;
        }
        for right in rights {
            // Each is heard of as it ends.
            match right {
                // Not its head, whose answer does not say what is missing.
                Right::Read => drop(self.once(right, silence, store.get(&path)).await),
                Right::List => {
                    let below = self.place.prefix.clone().join("v1").join("probes");
                    let mut list = store.list(Some(&below));
                    let first = async { list.next().await.transpose() };
                    drop(self.once(right, silence, first).await);
                }
                Right::Write => {
                    // Where a pack found no room a few bytes may.
                    let full = self.is_full.load(Ordering::Relaxed);
                    let bytes = if full { self.options.pack_bytes } else { 1 };
                    let pieces = (bytes as usize).div_ceil(ZEROES.len());
                    let payload: PutPayload =
                        repeat_n(Bytes::from_static(&ZEROES), pieces).collect();
                    let within = self.time_to_write(payload.content_length());
                    drop(self.once(right, within, store.put(&path, payload)).await);
                    drop(self.once(Right::Delete, silence, store.delete(&path)).await);
                }
                Right::Delete => drop(self.once(right, silence, store.delete(&path)).await),
            }
        }
    }

    /// What has come from the service so far, to be told to [`kept_waiting`](Self::kept_waiting).
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Somebody's time was up while he waited. That is the service's fault if nothing at all came from it
    /// since there were so many answers.
    pub(super) fn kept_waiting(&self, answers: u64) {
        if self.answers() == answers {
            self.heard(Right::Read, Some(&Fault::new(Kind::Passing, "the service says nothing")));
        }
    }

    /// One attempt, which the breaker hears of.
    async fn once<T, E: Into<Fault>>(
        &self,
        right: Right,
        within: Duration,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Fault> {
        let result = match timeout(within, request).await {
            Ok(result) => result.map_err(Into::into),
            Err(_) => Err(Fault::silence(within)),
        };
        self.heard(right, result.as_ref().err());
        result
    }

    /// Notes how a request ended.
    pub(super) fn heard(&self, right: Right, fault: Option<&Fault>) {
        if fault.is_none_or(Fault::is_an_answer) {
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
        if right == Right::Write && fault.is_none_or(|fault| fault.kind == Kind::NoRoom) {
            self.is_full.store(fault.is_some(), Ordering::Relaxed);
        }
        let news = self.gates.lock().heard(right, fault, self.options.clock.now());
        let (place, why) = (self.name(), fault.map_or("", |fault| &fault.text));
        match news {
            None => {}
            Some(News::Down) => tracing::warn!(place, why, "the object store is given a rest"),
            Some(News::Up) => tracing::info!(place, "the object store works again"),
            Some(News::Lost) => tracing::warn!(place, why, "object store: {}", right.lost()),
            Some(News::Back) => tracing::info!(place, ?right, "the object store lets us again"),
        }
    }

    /// Makes attempts until one succeeds, until trying again is of no use, or until `deadline`.
    async fn attempt<T, E, F>(
        &self,
        right: Right,
        deadline: Instant,
        within: Duration,
        mut request: impl FnMut() -> F,
    ) -> Result<T, Fault>
    where
        E: Into<Fault>,
        F: Future<Output = Result<T, E>>,
    {
        let mut tried = 0;
        let mut last = None;
        loop {
            if let Some(why) = self.broken() {
                return Err(Fault::new(Kind::Passing, why));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let result = if left >= within {
                self.once(right, within, request()).await
            } else {
                // Who is in such a hurry has no complaint about the service.
                let answers = self.answers();
                match timeout(left, request()).await {
                    Ok(result) => {
                        let result = result.map_err(Into::into);
                        self.heard(right, result.as_ref().err());
                        result
                    }
                    Err(_) => {
                        self.kept_waiting(answers);
                        return Err(Fault::late().after(last));
                    }
                }
            };
            let Err(fault) = result else { return result };
            tried += 1;
            if fault.kind != Kind::Passing || !self.pause(tried, deadline).await {
                return Err(fault);
            }
            last = Some(fault);
        }
    }

    /// Waits before another attempt; false when there is none.
    pub(super) async fn pause(&self, tried: u32, deadline: Instant) -> bool {
        match self.next_attempt(tried).filter(|at| *at < deadline) {
            Some(at) => {
                tokio::time::sleep_until(at).await;
                true
            }
            None => false,
        }
    }

    /// When to make the next attempt after so many; none when there is none.
    pub(super) fn next_attempt(&self, tried: u32) -> Option<Instant> {
        let retries = self.options.retries;
        let longest = retries.pause.saturating_mul(1 << (tried - 1).min(16)).min(retries.pause_max);
        (tried < retries.attempts).then(|| Instant::now() + self.chance.about(longest))
    }

    /// Bytes `range` of an object, as they come; those who read them keep the deadline.
    pub(super) async fn get(&self, path: &Path, range: Range<u64>) -> Result<Pieces, Fault> {
        let expected = range.clone();
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let got = self
            .once(Right::Read, self.options.silence, self.place.store.get_opts(path, options))
            .await?;
        if got.range != expected {
            return Err(Fault::new(Kind::Passing, "the service sent another range"));
        }
        Ok(match got.payload {
            GetResultPayload::File(file, _) => Pieces::of_file(file, expected),
            GetResultPayload::Stream(stream) => Pieces::of_stream(stream),
        })
    }

    /// Counts bytes that came.
    pub(super) fn has_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes `range` of an object, all of them.
    pub(super) async fn read(
        &self,
        path: &Path,
        range: Range<u64>,
        deadline: Instant,
    ) -> Result<Vec<u8>, Fault> {
        let len = range.end - range.start;
        let mut tried = 0;
        loop {
            let result = match timeout_at(deadline, self.read_once(path, range.clone())).await {
                Ok(result) => result,
                Err(_) => Err(Fault::late()),
            };
            let Err(fault) = result else { return result };
            tried += 1;
            if fault.kind != Kind::Passing || !self.pause(tried, deadline).await {
                tracing::debug!(%path, len, why = %fault, "a read failed");
                return Err(fault);
            }
        }
    }

    async fn read_once(&self, path: &Path, range: Range<u64>) -> Result<Vec<u8>, Fault> {
        let len = (range.end - range.start) as usize;
        let mut pieces = self.get(path, range).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = self.next(&mut pieces).await? {
            if bytes.len() + piece.len() > len {
                return Err(Fault::new(Kind::Passing, "the service sent too much"));
            }
            bytes.extend_from_slice(piece);
        }
        match bytes.len() == len {
            true => Ok(bytes),
            false => Err(Fault::new(Kind::Passing, "the answer ended early")),
        }
    }

    /// The next bytes, or none at the end.
    pub(super) async fn next<'a>(&self, pieces: &'a mut Pieces) -> Result<Option<&'a [u8]>, Fault> {
        let next = match timeout(self.options.silence, pieces.next()).await {
            Ok(next) => next,
            Err(_) => Err(Fault::silence(self.options.silence)),
        };
        match &next {
            Ok(piece) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                self.has_read(piece.map_or(0, <[u8]>::len));
            }
            Err(fault) => self.heard(Right::Read, Some(fault)),
        }
        next
    }

    /// Writes an object in one request.
    pub(super) async fn put(
        &self,
        path: &Path,
        payload: &PutPayload,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let within = self.time_to_write(payload.content_length());
        let put = || self.place.store.put(path, payload.clone());
        self.attempt(Right::Write, deadline, within, put).await?;
        self.written.fetch_add(payload.content_length() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Whether objects are written in parts here.
    pub(super) fn has_parts(&self) -> bool {
        self.place.parts.is_some()
    }

    /// Begins to write an object in parts.
    pub(super) async fn begin(&self, path: &Path, deadline: Instant) -> Result<String, Fault> {
        let parts = self.place.parts.as_ref().expect("asked before");
        self.attempt(Right::Write, deadline, self.options.silence, || parts.create_multipart(path))
            .await
    }

    /// Writes one part of it.
    pub(super) async fn part(
        &self,
        path: &Path,
        upload: &String,
        index: usize,
        payload: &PutPayload,
        deadline: Instant,
    ) -> Result<PartId, Fault> {
        let parts = self.place.parts.as_ref().expect("asked before");
        let within = self.time_to_write(payload.content_length());
        let put = || parts.put_part(path, upload, index, payload.clone());
        let part = self.attempt(Right::Write, deadline, within, put).await?;
        self.written.fetch_add(payload.content_length() as u64, Ordering::Relaxed);
        Ok(part)
    }

    /// Makes the parts one object. An answer that is lost leaves open whether it is, and a service that has
    /// done it refuses to do it again, each with another error: asking for the object tells.
    pub(super) async fn complete(
        &self,
        path: &Path,
        upload: &String,
        done: Vec<PartId>,
        bytes: u64,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let parts = self.place.parts.as_ref().expect("asked before");
        let is_whole = |there: ObjectMeta| there.size == bytes;
        let mut asked = false;
        let complete = || {
            let (again, done) = (std::mem::replace(&mut asked, true), done.clone());
            async move {
                match parts.complete_multipart(path, upload, done).await.map_err(Fault::from) {
                    Err(fault) if again && fault.is_an_answer() => {
                        let there = self.place.store.head(path).await.is_ok_and(is_whole);
                        // It was given up when we hung up, which says nothing of our rights.
                        there.then_some(()).ok_or_else(|| Fault::new(Kind::Missing, fault.text))
                    }
                    result => result.map(drop),
                }
            }
        };
        let within = self.time_to_write(0);
        match self.attempt(Right::Write, deadline, within, complete).await {
            Err(_) if self.head(path, deadline).await.is_ok_and(is_whole) => Ok(()),
            // Not the upload, but the object can be begun again.
            Err(fault) if fault.kind == Kind::Missing => {
                Err(Fault::new(Kind::Passing, format!("the upload is lost: {}", fault.text)))
            }
            result => result,
        }
    }

    /// Lets go of parts that were written.
    pub(super) async fn abandon(&self, path: &Path, upload: &String) {
        let parts = self.place.parts.as_ref().expect("asked before");
        // The service forgets them by itself where it is told to: docs/object.md.
        let _ = self
            .once(Right::Delete, self.options.silence, parts.abort_multipart(path, upload))
            .await;
    }

    /// What is known of an object.
    pub(super) async fn head(&self, path: &Path, deadline: Instant) -> Result<ObjectMeta, Fault> {
        self.attempt(Right::Read, deadline, self.options.silence, || self.place.store.head(path))
            .await
    }

    /// Deletes an object; that it is not there is as good.
    pub(super) async fn delete(&self, path: &Path, deadline: Instant) -> Result<(), Fault> {
        let delete = || self.place.store.delete(path);
        match self.attempt(Right::Delete, deadline, self.options.silence, delete).await {
            Err(fault) if fault.kind == Kind::Missing => Ok(()),
            result => result,
        }
    }

    /// The objects below a path.
    pub(super) async fn list(
        &self,
        below: &Path,
        deadline: Instant,
    ) -> Result<Vec<ObjectMeta>, Fault> {
        let list = || async {
            let mut objects = Vec::new();
            let mut stream = self.place.store.list(Some(below));
            loop {
                match timeout(self.options.silence, stream.next()).await {
                    Err(_) => return Err(Fault::silence(self.options.silence)),
                    Ok(None) => return Ok(objects),
                    Ok(Some(object)) => objects.push(object.map_err(Fault::from)?),
                }
                if objects.len() > LISTED_MAX {
                    let text = format!("{below} has more than {LISTED_MAX} objects");
                    return Err(Fault::new(Kind::Lasting, text));
                }
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match self.attempt(Right::List, deadline, left, list).await {
            // A directory that nobody has made yet.
            Err(fault) if fault.kind == Kind::Missing => Ok(Vec::new()),
            result => result,
        }
    }

    fn time_to_write(&self, bytes: usize) -> Duration {
        let rate = self.options.write_bytes_per_s_min.max(1);
        self.options.silence + Duration::from_secs(bytes as u64 / rate)
    }
}
