//! Following what happens to the tenant's blocks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::connection::{Client, Session};
use super::error::Error;
use super::switch::Feed;
use crate::wire::{Event, Reply, Request};

/// Events as they happen; dropping it ends them. A client has one subscription at a time: a new
/// one replaces the old.
pub struct Subscription {
    client: Client,
    session: Arc<Session>,
    request: u32,
    feed: Arc<Feed>,
}

impl Subscription {
    pub(super) fn start(client: &Client, from: u64) -> Result<Self, Error> {
        let session = client.session()?;
        let subscribe = Request::Subscribe { from };
        let mut place = None;
        // The feed must be there before the first event can come.
        let reply = client.call_with(&session, &subscribe, |request| {
            place = Some((request, client.switch().feed(request)));
        })?;
        let (Some((request, feed)), Reply::Count(_)) = (place, reply) else {
            return Err(Error::Mismatched { request: "subscribe" });
        };
        Ok(Self { client: client.clone(), session, request, feed })
    }

    /// The next event, waiting up to `timeout`; `None` when none came.
    ///
    /// # Errors
    /// When the daemon went away: subscribe again from the next number, and a gap is told.
    pub fn next(&self, timeout: Duration) -> Result<Option<Event>, Error> {
        let mut event = None;
        self.client.engine().wait_until(timeout, || {
            event = self.feed.pop();
            event.is_some() || self.feed.ended.load(Ordering::Acquire)
        });
        match event {
            None if self.feed.ended.load(Ordering::Acquire) => {
                Err(Error::Disconnected { address: self.client.address().clone() })
            }
            event => Ok(event),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.client.tell(&self.session, &Request::Unsubscribe);
        self.client.switch().end_feed(self.request);
    }
}
