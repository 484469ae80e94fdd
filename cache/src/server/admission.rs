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
        self.forget_persists(peer);
        self.fetches.forget(peer);
        self.puts.forget(peer);
        self.subscribers.remove(peer);
        let left = self.store.disconnect(id);
        if reason != Reason::PeerGone && session.may_write() {
            // The fabric hung up on a client that broke its rules. The process may live on, with
            // the arena mapped, and be filling these blocks right now; nothing will tell when it
            // is gone. Their space is not reused while this daemon runs.
            let reserved: Vec<_> = session.into_reserved().collect();
            let bytes: u64 = reserved.iter().map(Reserved::len).sum();
            tracing::error!(
                session = id.0,
                %reason,
                bytes,
                "the connection broke to a client that may still write to its reservations; their \
                 space is quarantined until the daemon restarts"
            );
            self.quarantine.extend(reserved);
        }
        tracing::info!(
            session = id.0,
            reservations = left.reservations,
            leases = left.leases,
            "client gone; its open reservations and leases are taken back"
        );
    }

    /// Ends the session of a client that does not keep up. Where the client may still write to
    /// what it reserved the connection is kept: only by it does the daemon learn that the client
    /// gave the space back, or died.
    pub(super) fn expel(&mut self, peer: Peer) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let id = session.id;
        if !session.may_write() {
            tracing::warn!(session = id.0, "client does not read its replies; hung up");
            self.engine.disconnect(peer);
            return;
        }
        let next = SessionId(self.next_session);
        self.next_session += 1;
        session.end(next);
        let held: u64 = session.former.values().map(Reserved::len).sum();
        self.peers.remove(&id);
        self.peers.insert(next, peer);
        self.parked.forget(peer);
        self.forget_persists(peer);
        self.fetches.forget(peer);
        self.puts.forget(peer);
        self.subscribers.remove(peer);
        self.store.disconnect(id);
        tracing::warn!(
            session = id.0,
            bytes = held,
            "client does not read its replies; its session is over, and the space it reserved is \
             held until it gives that back or is gone"
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
        // Who can map has the memory itself. Anybody else only ever reads here: what it puts is
        // read out of its own memory by the daemon.
        let access = match self.engine.can_map(from) {
            true => Access::READ | Access::WRITE | Access::MAP,
            false => Access::READ,
        };
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
        session.over = false;
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
        let over = session.as_ref().is_some_and(|session| session.over);
        session.and_then(|session| session.greeted.as_mut()).ok_or_else(|| match over {
            true => {
                let text = "the daemon ended the session, whose replies were not read; say hello";
                Fault { code: FaultCode::Over, text: text.to_owned() }
            }
            false => Fault { code: FaultCode::Unknown, text: "say hello first".to_owned() },
        })
    }
}
