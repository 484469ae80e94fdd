//! One client, as the server knows it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tranship_transport::{Access, SubmitError, Time, Transfer, Window};

use super::SessionInfo;
use crate::block::{Lease, Reserved, SessionId};
use crate::store::{Expired, Scope, Tenant};

/// How long a connection may stay without a hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Replies that may wait for room in the client's queue.
const UNREAD_MAX: usize = 256;
/// Identities that one session may use.
pub(super) const SCOPES_MAX: usize = 64;

/// One connection. What it holds is given back when it is dropped.
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) since: Time,
    /// Set by hello.
    pub(super) greeted: Option<Greeted>,
    /// Ended by the daemon while the client may still write to reservations of it; the connection
    /// is kept, because only it tells when the client gives them back or dies.
    pub(super) over: bool,
    pub(super) reserved: HashMap<u64, Reserved>,
    /// Reservations of earlier sessions on this connection that the client may still write to.
    pub(super) former: HashMap<u64, Reserved>,
    pub(super) leases: HashMap<u64, Lease>,
    /// Replies on their way.
    unread: VecDeque<Transfer>,
}

/// What a session has once it said hello.
pub(super) struct Greeted {
    pub(super) name: String,
    pub(super) tenant: Tenant,
    pub(super) scopes: Vec<Scope>,
    /// The client may have the arena mapped, and write to it without anybody's help.
    pub(super) maps: bool,
    /// The client's way into its tenant's arena; closed with the session.
    _window: Window,
}

impl Greeted {
    pub(super) fn new(name: String, tenant: Tenant, window: Window) -> Self {
        let maps = window.descriptor().access.allows(Access::MAP);
        Self { name, tenant, scopes: Vec::new(), maps, _window: window }
    }
}

impl Session {
    pub(super) fn new(id: SessionId, since: Time) -> Self {
        let (reserved, former, leases, unread) = Default::default();
        Self { id, since, greeted: None, over: false, reserved, former, leases, unread }
    }

    /// Whether the client, being gone from this session, may still write to space reserved in it.
    pub(super) fn may_write(&self) -> bool {
        let maps = self.greeted.as_ref().is_some_and(|greeted| greeted.maps);
        !self.former.is_empty() || (maps && !self.reserved.is_empty())
    }

    /// Ends it, but not the connection, on which another may begin under the number `id`. What the
    /// client reserved and may still write to is kept until it is given back.
    pub(super) fn end(&mut self, id: SessionId) {
        let maps = self.greeted.take().is_some_and(|greeted| greeted.maps);
        let reserved = std::mem::take(&mut self.reserved);
        if maps {
            self.former.extend(reserved);
        }
        self.leases.clear();
        (self.id, self.over) = (id, true);
    }

    /// All that the client may still write to.
    pub(super) fn into_reserved(self) -> impl Iterator<Item = Reserved> {
        self.reserved.into_values().chain(self.former.into_values())
    }

    /// Whether the client takes its replies.
    pub(super) fn takes_replies(&mut self) -> bool {
        self.forget_read();
        self.unread.len() <= UNREAD_MAX
    }

    fn forget_read(&mut self) {
        while self.unread.front().is_some_and(|reply| reply.outcome().is_some()) {
            self.unread.pop_front();
        }
    }

    /// Notes a reply on its way; `false` when too many wait already.
    pub(super) fn sent(&mut self, sent: Result<Transfer, SubmitError>) -> bool {
        self.forget_read();
        match sent {
            Ok(reply) => {
                if reply.outcome().is_none() {
                    self.unread.push_back(reply);
                }
                self.unread.len() <= UNREAD_MAX
            }
            Err(_) => false,
        }
    }

    /// Lets go of what the store took back. A reservation past its deadline can no longer be
    /// committed; but where the client has the arena mapped its space is not reused before the
    /// client has given it back or is gone: it may be writing there right now.
    pub(super) fn drop_expired(&mut self, expired: &Expired) {
        let maps = self.greeted.as_ref().is_some_and(|greeted| greeted.maps);
        for generation in &expired.reservations {
            if !self.reserved.contains_key(&generation.0) {
                continue;
            }
            tracing::info!(
                session = self.id.0,
                reservation = generation.0,
                "reservation not committed by its deadline; void"
            );
            if !maps {
                self.reserved.remove(&generation.0);
            }
        }
        for lease in &expired.leases {
            if self.leases.remove(&lease.0).is_some() {
                tracing::info!(session = self.id.0, lease = lease.0, "lease lapsed");
            }
        }
    }

    /// Whether it has been connected for long without a word.
    pub(super) fn is_silent(&self, now: Time) -> bool {
        self.greeted.is_none() && !self.over && now.since(self.since) > HELLO_DEADLINE
    }

    pub(super) fn info(&self) -> Option<SessionInfo> {
        let greeted = self.greeted.as_ref()?;
        Some(SessionInfo {
            id: self.id.0,
            name: greeted.name.clone(),
            tenant: greeted.tenant.name().to_owned(),
            since: self.since,
            leases: self.leases.len(),
            reservations: self.reserved.len(),
        })
    }
}
