//! Who gets in, and what happens when they leave.

use tranship_transport::{Access, Peer, Reason};

use super::Server;
use super::session::{Greeted, SCOPES_MAX, Session};
use crate::block::{Reserved, SessionId};
use crate::identity::Identity;
use crate::wire::{Fault, FaultCode, Hello, Reply, VERSION, Welcome};

impl Server {
    pub(super) fn connected(&mut self, peer: Peer) {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        self.sessions.insert(peer, Session::new(id, self.engine.now()));
        self.peers.insert(id, peer);
        self.observed.connected();
    }

    /// The connection is gone. With [`Reason::PeerGone`] the fabric has proof that nothing of the
    /// client's lands any more, and what it held is free.
    pub(super) fn disconnected(&mut self, peer: Peer, reason: Reason) {
        let Some(session) = self.sessions.remove(&peer) else { return };
        let id = session.id;
        self.peers.remove(&id);
        self.parked.forget(peer);
        self.fetches.forget(peer);
        self.subscribers.remove(peer);
        let left = self.store.disconnect(id);
        if reason != Reason::PeerGone && !session.reserved.is_empty() {
            // We hung up. The process may live on, with the arena mapped, and be filling these
            // blocks right now: their space is not reused while this daemon runs.
            let bytes: u64 = session.reserved.values().map(Reserved::len).sum();
            tracing::error!(
                session = id.0,
                %reason,
                bytes,
                "hung up on a client that may still write to its reservations; their space is \
                 quarantined until the daemon restarts"
            );
            self.quarantine.extend(session.reserved.into_values());
        }
        tracing::info!(
            session = id.0,
            reservations = left.reservations,
            leases = left.leases,
            "client gone; its open reservations and leases are taken back"
        );
    }

    pub(super) fn hello(&mut self, from: Peer, hello: Hello) -> Result<Reply, Fault> {
        let fault = |code, text: String| Fault { code, text };
        if hello.version != VERSION {
            let theirs = hello.version;
            let text = format!(
                "the client speaks protocol version {theirs}, this daemon {VERSION}; use a client \
                 and a daemon of the same release"
            );
            return Err(fault(FaultCode::Version, text));
        }
        let greeted = self.sessions.values().filter(|session| session.greeted.is_some()).count();
        let max = self.options.sessions_max;
        if greeted >= max {
            let text = format!("{max} clients are connected; raise limits.max_clients");
            return Err(fault(FaultCode::Limit, text));
        }
        let Some(arena) = self.tenants.get(&hello.tenant) else {
            let text = format!("no tenant {:?} here; configure it under [[tenant]]", hello.tenant);
            return Err(fault(FaultCode::Denied, text));
        };
        // Comparison of BLAKE3 hashes takes the same time wherever they differ.
        if arena.token.is_some_and(|token| token != blake3::hash(hello.token.as_bytes())) {
            let text = format!("tenant {:?}: the token is wrong", hello.tenant);
            return Err(fault(FaultCode::Denied, text));
        }
        let Some(session) = self.sessions.get_mut(&from) else {
            return Err(fault(FaultCode::Unknown, "the connection is closing".to_owned()));
        };
        if session.greeted.is_some() {
            let text = "the session has said hello already".to_owned();
            return Err(fault(FaultCode::Malformed, text));
        }
        let access = Access::READ | Access::WRITE | Access::MAP;
        let window = arena
            .region
            .window_with(0..arena.region.len(), access)
            .map_err(|error| fault(FaultCode::Limit, format!("no way into the arena: {error}")))?;
        let welcome = Welcome {
            version: VERSION,
            server: self.options.name.clone(),
            session: session.id.0,
            arena: window.descriptor(),
        };
        tracing::info!(session = session.id.0, name = hello.name, tenant = hello.tenant, "hello");
        session.greeted = Some(Greeted::new(hello.name, arena.tenant.clone(), window));
        Ok(Reply::Welcome(welcome))
    }

    pub(super) fn identify(&mut self, from: Peer, identity: &[u8]) -> Result<Reply, Fault> {
        let fault = |code, text: String| Fault { code, text };
        let greeted = self.greeted(from)?;
        let identity = Identity::decode(identity)
            .map_err(|error| fault(FaultCode::Malformed, format!("identity: {error}")))?;
        let id = identity.id();
        if let Some(scope) = greeted.scopes.iter().position(|scope| scope.id() == id) {
            // The identity may have been removed and be registered anew.
            let renewed = greeted.tenant.register(&identity);
            greeted.scopes[scope] =
                renewed.map_err(|error| fault(FaultCode::Limit, error.to_string()))?;
            return Ok(Reply::Scope(scope as u32));
        }
        if greeted.scopes.len() >= SCOPES_MAX {
            let text = format!("the session uses {SCOPES_MAX} identities; open another session");
            return Err(fault(FaultCode::Limit, text));
        }
        let scope = greeted
            .tenant
            .register(&identity)
            .map_err(|error| fault(FaultCode::Unknown, error.to_string()))?;
        greeted.scopes.push(scope);
        Ok(Reply::Scope((greeted.scopes.len() - 1) as u32))
    }

    /// The session behind a peer, if it said hello.
    pub(super) fn greeted(&mut self, from: Peer) -> Result<&mut Greeted, Fault> {
        let session = self.sessions.get_mut(&from);
        session
            .and_then(|session| session.greeted.as_mut())
            .ok_or_else(|| Fault { code: FaultCode::Unknown, text: "say hello first".to_owned() })
    }
}
