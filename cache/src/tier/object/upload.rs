//! Brings packs into the bucket, and then into a manifest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use object_store::PutPayload;
use object_store::path::Path;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep};

use super::super::cold::Failure;
use super::fault::{Fault, Kind};
use super::manifests::Publisher;
use super::packer::{Closed, Order};
use super::shared::Shared;

/// Packs that are uploaded at the same time.
const PACKS: usize = 2;
/// How long to wait before a pack is tried again, while the service is given a rest.
const AGAIN: Duration = Duration::from_millis(200);

/// Uploads what is closed, until nothing more can come.
pub(super) async fn run(
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
    mut closed: UnboundedReceiver<Closed>,
    orders: std::sync::mpsc::Sender<Order>,
) {
    let packs = Arc::new(Semaphore::new(PACKS));
    let requests = Arc::new(Semaphore::new(shared.options.write_requests));
    while let Some(pack) = closed.recv().await {
        let permit = Arc::clone(&packs).acquire_owned().await.expect("never closed");
        let upload = Upload {
            shared: Arc::clone(&shared),
            publisher: Arc::clone(&publisher),
            requests: Arc::clone(&requests),
            orders: orders.clone(),
        };
        tokio::spawn(async move {
            upload.run(pack).await;
            drop(permit);
        });
    }
}

struct Upload {
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
    requests: Arc<Semaphore>,
    orders: std::sync::mpsc::Sender<Order>,
}

impl Upload {
    async fn run(&self, pack: Closed) {
        let deadline = Instant::now() + self.shared.options.upload_within;
        let Closed { upload, serial, waiting, charged, .. } = &pack;
        let (upload, serial, charged, waiters) = (*upload, *serial, *charged, waiting.len());
        let result = self.bring(&pack, deadline).await;
        if let Err(fault) = &result {
            let (place, node) = (self.shared.service.name(), &self.shared.options.node);
            tracing::warn!(place, node, why = %fault, waiters, "a pack could not be uploaded; its blocks are lost");
            let mut state = self.shared.state.lock();
            state.index.drop_pack(serial);
            state.by_id.remove(&pack.id);
        }
        self.shared.buffered.fetch_sub(charged, Ordering::Relaxed);
        let due = self.shared.state.lock().uploads.end(upload, result.is_ok());
        for ask in pack.waiting {
            let result = result.clone().map(|()| None).map_err(|fault| Failure::Io(fault.text));
            ask.answer(result);
        }
        Shared::answer_syncs(due);
        // Nobody waits for the rest.
        self.publisher.tidy(deadline).await;
        self.shared.quiet.wake();
    }

    /// Uploads the pack, again and again while there is time, and publishes it.
    async fn bring(&self, pack: &Closed, deadline: Instant) -> Result<(), Fault> {
        let path = self.shared.paths.pack(&pack.id);
        let began = Instant::now();
        let mut last = None;
        loop {
            let fault = match self.send(pack, &path, deadline).await {
                Ok(()) => break,
                Err(fault) => fault.after(last),
            };
            if fault.kind != Kind::Passing || Instant::now() + AGAIN >= deadline {
                return Err(fault);
            }
            last = Some(fault);
            sleep(self.shared.service.chance().about(2 * AGAIN)).await;
        }
        let _ = self.orders.send(Order::Moved { bytes: pack.size, took: began.elapsed() });
        let uploaded_at = self.shared.options.clock.now();
        {
            let mut state = self.shared.state.lock();
            // The same pack may be there from before a crash.
            if let Some(other) = state.by_id.insert(pack.id, pack.serial) {
                state.index.drop_pack(other);
            }
            state.index.stored(pack.serial, pack.id, pack.size);
        }
        self.publisher.publish(pack.serial, uploaded_at, deadline).await?;
        let own_bytes = self.shared.state.lock().index.own_bytes();
        if own_bytes > self.shared.options.capacity_bytes {
            self.shared.over_capacity.notify_one();
        }
        Ok(())
    }

    async fn send(&self, pack: &Closed, path: &Path, deadline: Instant) -> Result<(), Fault> {
        let service = &self.shared.service;
        let part_bytes = self.shared.options.part_bytes;
        if !service.has_parts() || pack.size < 2 * part_bytes {
            let permit = self.requests.acquire().await;
            let payload: PutPayload = pack.bytes.iter().cloned().collect();
            let put = service.put(path, &payload, deadline).await;
            drop(permit);
            return put;
        }
        let upload = service.begin(path, deadline).await?;
        let parts = parts_of(&pack.bytes, part_bytes as usize);
        let sent = parts.iter().enumerate().map(|(index, payload)| {
            let upload = &upload;
            async move {
                let _permit = self.requests.acquire().await;
                service.part(path, upload, index, payload, deadline).await
            }
        });
        let done = match try_join_all(sent).await {
            Ok(done) => service.complete(path, &upload, done, pack.size, deadline).await,
            Err(fault) => Err(fault),
        };
        if done.is_err() {
            service.abandon(path, &upload).await;
        }
        done
    }
}

/// Cuts bytes into payloads of `part_bytes`, but for the last, without copying them.
fn parts_of(bytes: &[Bytes], part_bytes: usize) -> Vec<PutPayload> {
    let mut parts = Vec::new();
    let (mut part, mut len): (Vec<Bytes>, usize) = (Vec::new(), 0);
    for piece in bytes {
        let mut piece = piece.clone();
        while !piece.is_empty() {
            let some = piece.len().min(part_bytes - len);
            part.push(piece.split_to(some));
            len += some;
            if len == part_bytes {
                parts.push(std::mem::take(&mut part).into_iter().collect());
                len = 0;
            }
        }
    }
    if !part.is_empty() {
        parts.push(part.into_iter().collect());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_all_bytes_and_one_size() {
        let pieces: Vec<Bytes> =
            [3_usize, 0, 10, 1, 7].iter().map(|len| Bytes::from(vec![*len as u8; *len])).collect();
        let all: Vec<u8> = pieces.concat();
        let parts = parts_of(&pieces, 5);
        let lens: Vec<usize> = parts.iter().map(PutPayload::content_length).collect();
        assert_eq!(lens, [5, 5, 5, 5, 1]);
        let back: Vec<u8> = parts.iter().flatten().flatten().copied().collect();
        assert_eq!(back, all);
        assert!(parts_of(&[], 5).is_empty());
    }
}
