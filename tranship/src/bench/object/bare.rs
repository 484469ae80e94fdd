//! The same client without the tier: the limit.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::runtime::{Builder, Runtime};
use tranship_cache::tier::cold::Name;
use tranship_cache::tier::object::format::{Footer, TRAILER_BYTES, Trailer};

use crate::bench::Error;
use crate::bench::rounds::Tally;

/// Requests of an upload in flight, as the tier has.
const PARTS_AT_ONCE: usize = 4;

pub(super) struct Bare {
    runtime: Runtime,
    store: Arc<dyn ObjectStore>,
}

/// Bytes of an object.
pub(super) type Place = (Path, Range<u64>);

impl Bare {
    pub(super) fn new(
        url: &str,
        settings: &[(String, String)],
        threads: usize,
    ) -> Result<(Self, Path), Error> {
        let (store, prefix) = tranship_cache::tier::object::client(url, settings)?;
        let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build();
        let runtime =
            runtime.map_err(|source| Error::Server { program: "a runtime".to_owned(), source })?;
        Ok((Self { runtime, store }, prefix))
    }

    /// Where the blocks of all packs are.
    pub(super) fn places(&self, below: &Path) -> Result<Vec<(Name, Place)>, Error> {
        let places = async {
            let mut places = Vec::new();
            for pack in self.store.list(Some(below)).try_collect::<Vec<_>>().await? {
                let at = pack.size - TRAILER_BYTES;
                let tail = self.store.get_range(&pack.location, at..pack.size).await?;
                let Ok(trailer) = Trailer::decode(&tail) else { continue };
                let begin = at - trailer.footer_bytes;
                let footer = self.store.get_range(&pack.location, begin..at).await?;
                let Ok(footer) = Footer::decode(&footer, trailer, begin) else { continue };
                places.extend(footer.entries.iter().map(|entry| {
                    let range = u64::from(entry.offset)..entry.end();
                    (entry.name, (pack.location.clone(), range))
                }));
            }
            Ok(places)
        };
        self.runtime.block_on(places).map_err(refused)
    }

    /// Reads all of them, `at_once` at a time.
    pub(super) fn get(
        &self,
        places: &[Place],
        at_once: usize,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        let gets = places.iter().cloned().map(|(path, range)| {
            let store = Arc::clone(&self.store);
            // A task each: as many threads as there are work on them.
            async move {
                let began = Instant::now();
                let get = tokio::spawn(async move { store.get_range(&path, range).await });
                get.await.map_err(|_| Error::Request)?.map_err(refused)?;
                Ok::<_, Error>(began.elapsed())
            }
        });
        let gets = stream::iter(gets).buffer_unordered(at_once).try_collect::<Vec<_>>();
        self.runtime.block_on(gets)?.into_iter().for_each(|took| tally.latency(took));
        Ok(())
    }

    /// Writes one object in parts.
    pub(super) fn put(
        &self,
        path: &Path,
        parts: &[PutPayload],
        tally: &mut Tally,
    ) -> Result<(), Error> {
        let began = Instant::now();
        let put = async {
            let [part] = parts else {
                let mut upload = self.store.put_multipart(path).await?;
                let sent: Vec<_> = parts.iter().map(|part| upload.put_part(part.clone())).collect();
                stream::iter(sent).buffer_unordered(PARTS_AT_ONCE).try_collect::<Vec<_>>().await?;
                return upload.complete().await.map(drop);
            };
            self.store.put(path, part.clone()).await.map(drop)
        };
        self.runtime.block_on(put).map_err(refused)?;
        tally.latency(began.elapsed());
        Ok(())
    }

    /// Deletes everything below a path.
    pub(super) fn remove(&self, below: &Path) -> Result<(), Error> {
        let remove = async {
            for object in self.store.list(Some(below)).try_collect::<Vec<_>>().await? {
                self.store.delete(&object.location).await?;
            }
            Ok(())
        };
        self.runtime.block_on(remove).map_err(refused)
    }
}

/// What a service answers may have secrets in it.
fn refused(_: object_store::Error) -> Error {
    Error::Request
}
