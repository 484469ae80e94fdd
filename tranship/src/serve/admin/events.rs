//! The stream of changes.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tranship_cache::events::{Change, Cursor, Event};
use tranship_cache::store::TenantId;

use super::pb;
use crate::serve::observe::Observe;
use crate::serve::runtime::{Stop, stopped};

/// Changes sent at once.
const BATCH_EVENTS: usize = 1024;
/// Batches that wait for a slow reader; what comes after them waits in the store, and is told as a
/// gap when it does not fit there any more.
const BATCHES_MAX: usize = 4;
/// How often an idle stream looks for changes.
const IDLE: Duration = Duration::from_millis(25);

type Batch = Result<pb::SubscribeResponse, Status>;

pub(super) fn subscribe(
    observe: &Observe,
    request: &pb::SubscribeRequest,
    stop: watch::Receiver<Stop>,
) -> Result<ReceiverStream<Batch>, Status> {
    let only = match request.tenant.as_str() {
        "" => None,
        name => Some(super::tenant(&observe.store, name)?.id()),
    };
    let end = observe.store.subscribe();
    let cursor = match request.from_sequence {
        None => end,
        Some(from) if from <= end.next_sequence() => Cursor::from_sequence(from),
        Some(from) => {
            let next = end.next_sequence();
            return Err(Status::out_of_range(format!(
                "from_sequence {from} is yet to come, the next change is {next}: the daemon was \
                 restarted; list what you follow anew, and subscribe from {next}"
            )));
        }
    };
    let (to, from) = mpsc::channel(BATCHES_MAX);
    let feed = Feed { observe: observe.clone(), cursor, only, to };
    tokio::spawn(async move {
        let to = feed.to.clone();
        tokio::select! {
            () = feed.run() => {}
            () = to.closed() => {}
            () = stopped(stop) => {
                // A reader that is behind learns it from the end of the connection.
                let _ = to.try_send(Err(Status::unavailable("the daemon stops")));
            }
        }
    });
    Ok(ReceiverStream::new(from))
}

struct Feed {
    observe: Observe,
    cursor: Cursor,
    only: Option<TenantId>,
    to: mpsc::Sender<Batch>,
}

impl Feed {
    async fn run(mut self) {
        let mut batch = self.next();
        loop {
            if self.to.send(Ok(batch)).await.is_err() {
                return;
            }
            batch = self.next();
            while batch.gap.is_none() && batch.events.is_empty() {
                tokio::time::sleep(IDLE).await;
                batch = self.next();
            }
        }
    }

    fn next(&mut self) -> pb::SubscribeResponse {
        let store = &self.observe.store;
        let mut events = Vec::new();
        let gap = store.events(&mut self.cursor, BATCH_EVENTS, &mut events);
        let tenants = store.tenants();
        let name = |id: TenantId| {
            tenants.get(id.0 as usize).map(|tenant| tenant.name().to_owned()).unwrap_or_default()
        };
        let ours = events.iter().filter(|event| self.only.is_none_or(|id| event.tenant == id));
        pb::SubscribeResponse {
            gap: gap.map(|gap| pb::Gap { from: gap.from, to: gap.to }),
            events: ours.map(|event| told(event, name(event.tenant))).collect(),
            next_sequence: self.cursor.next_sequence(),
        }
    }
}

fn told(event: &Event, tenant: String) -> pb::Event {
    let change = match event.change {
        Change::Stored { link, len, tier } => pb::event::Change::Stored(pb::Stored {
            key: link.key.to_string(),
            parent: link.parent.map(|parent| parent.to_string()).unwrap_or_default(),
            position: link.position,
            bytes: len,
            tier: tier.to_string(),
        }),
        Change::Removed { key, tier, why } => pb::event::Change::Removed(pb::Removed {
            key: key.to_string(),
            tier: tier.to_string(),
            reason: why.name().to_owned(),
        }),
        Change::Cleared => pb::event::Change::Cleared(pb::Cleared {}),
    };
    pb::Event {
        sequence: event.sequence,
        tenant,
        identity: event.identity.to_string(),
        change: Some(change),
    }
}
