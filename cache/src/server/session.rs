//! One client, as the server knows it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tranship_transport::{SubmitError, Time, Transfer, Window};

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
    pub(super) reserved: HashMap<u64, Reserved>,
    pub(super) leases: HashMap<u64, Lease>,
    /// Replies on their way.
    unread: VecDeque<Transfer>,
}

/// What a session has once it said hello.
pub(super) struct Greeted {
    pub(super) name: String,
    pub(super) tenant: Tenant,
    pub(super) scopes: Vec<Scope>,
    /// The client's way into its tenant's arena; closed with the session.
    _window: Window,
}

impl Greeted {
    pub(super) fn new(name: String, tenant: Tenant, window: Window) -> Self {
        Self { name, tenant, scopes: Vec::new(), _window: window }
    }
}

impl Session {
    pub(super) fn new(id: SessionId, since: Time) -> Self {
        let (reserved, leases, unread) = Default::default();
        Self { id, since, greeted: None, reserved, leases, unread }
    }

    /// Notes a reply on its way; `false` when too many wait already.
    pub(super) fn sent(&mut self, sent: Result<Transfer, SubmitError>) -> bool {
        while self.unread.front().is_some_and(|reply| reply.outcome().is_some()) {
            self.unread.pop_front();
        }
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
    /// committed, but its space is not reused before the client has given it back or is gone: it
    /// may be writing there right now.
    pub(super) fn drop_expired(&mut self, expired: &Expired) {
        for generation in &expired.reservations {
            if self.reserved.contains_key(&generation.0) {
                tracing::info!(
                    session = self.id.0,
                    reservation = generation.0,
                    "reservation not committed by its deadline; void"
                );
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
        self.greeted.is_none() && now.since(self.since) > HELLO_DEADLINE
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
