//! What is done once at the start, and from time to time after it.

use std::sync::Arc;
use std::time::Duration;

use object_store::PutPayload;
use tokio::time::{Instant, sleep, timeout};

use super::collect::Collector;
use super::error::OpenError;
use super::options::Options;
use super::refresh::refresh;
use super::service::Service;
use super::shared::Shared;

/// How often to look whether the service works again.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// A number that no other run has.
pub(super) fn session() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// Reads, writes and deletes; why it may only be read, if so.
pub(super) async fn probe(
    service: &Service,
    options: &Options,
    session: u64,
    deadline: Instant,
) -> Result<Option<String>, OpenError> {
    let place = service.name().to_owned();
    let paths = super::paths::Paths::new(service.prefix());
    let path = paths.probe(&options.node, session);
    if options.read_only {
        service
            .list(&paths.manifests(), deadline)
            .await
            .map_err(|f| OpenError::of(&f, &place, "read"))?;
        return Ok(Some("it was opened for reading".to_owned()));
    }
    let text = b"written to see whether that works";
    let payload = PutPayload::from_static(text);
    let read_only = match service.put(&path, &payload, deadline).await {
        Ok(()) => {
            let read = service.read(&path, 0..text.len() as u64, deadline).await;
            read.map_err(|fault| OpenError::of(&fault, &place, "read"))?;
            service
                .delete(&path, deadline)
                .await
                .map_err(|f| OpenError::of(&f, &place, "delete"))?;
            None
        }
        Err(fault) if fault.kind == super::fault::Kind::Denied && options.or_read_only => {
            Some(format!("writing is not allowed: {fault}"))
        }
        Err(fault) => return Err(OpenError::of(&fault, &place, "write")),
    };
    service
        .list(&paths.manifests(), deadline)
        .await
        .map_err(|f| OpenError::of(&f, &place, "list"))?;
    // What was refused is known, and need not be tried again.
    service.start_over();
    Ok(read_only)
}

/// Reads what is there. If that takes too long the rest is read later.
pub(super) async fn first_look(shared: &Arc<Shared>, deadline: Instant) -> Result<(), OpenError> {
    let missing = |why: &dyn std::fmt::Display| {
        tracing::warn!(place = shared.service.name(), %why, "not all of the object store is known yet");
    };
    match refresh(shared, deadline).await {
        Ok(refreshed) => {
            if let Some(why) = refreshed.missed {
                missing(&why);
            }
            Ok(())
        }
        Err(fault) if Instant::now() >= deadline => {
            missing(&fault);
            Ok(())
        }
        Err(fault) => Err(OpenError::of(&fault, shared.service.name(), "read")),
    }
}

/// Looks for packs of others from time to time.
pub(super) async fn poll(shared: Arc<Shared>) {
    loop {
        sleep(shared.service.chance().about(shared.options.poll)).await;
        if shared.service.broken().is_none() {
            let deadline = Instant::now() + shared.options.open_within;
            let place = shared.service.name();
            match refresh(&shared, deadline).await {
                Err(fault) => tracing::debug!(place, why = %fault, "no news of other nodes"),
                Ok(refreshed) => {
                    if let Some(why) = refreshed.missed {
                        tracing::warn!(place, why, "not all news of other nodes");
                    }
                }
            }
        }
    }
}

/// Makes room, from time to time and when there is too much.
pub(super) async fn collect(shared: Arc<Shared>, collector: Arc<tokio::sync::Mutex<Collector>>) {
    let never = Duration::from_secs(u64::from(u32::MAX));
    let every = Some(shared.options.collect).filter(|every| !every.is_zero()).unwrap_or(never);
    loop {
        let pause = shared.service.chance().about(every);
        let over = timeout(pause, shared.over_capacity.notified()).await.is_ok();
        if shared.service.broken().is_some() {
            continue;
        }
        let deadline = Instant::now() + shared.options.upload_within;
        let mut collector = collector.lock().await;
        let result = match over {
            true => collector.make_room(deadline).await,
            false => collector.round(deadline).await.map(|collected| {
                tracing::debug!(
                    place = shared.service.name(),
                    ?collected,
                    "looked for what can go"
                );
            }),
        };
        if let Err(fault) = result {
            tracing::debug!(place = shared.service.name(), why = %fault, "no room could be made");
        }
    }
}

/// Sees to it that a service that was given a rest is asked again.
pub(super) async fn watch(shared: Arc<Shared>) {
    loop {
        sleep(TRY_AGAIN).await;
        shared.service.try_again().await;
    }
}
