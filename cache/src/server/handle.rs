//! Requests, one by one.

use tranship_transport::Peer;

use super::Server;
use super::parked::Wish;
use super::parts;
use crate::block::{Generation, SessionId};
use crate::catalog::Presence;
use crate::key::Key;
use crate::store::{Grant, Item, Scope};
use crate::time::Millis;
use crate::wire::{self, Fault, FaultCode, Lookup, Reply, Request, Reserved};

/// The longest a lease or a reservation stands without being renewed, whatever the client asks.
const HOLD_MAX: Millis = Millis(10 * 60 * 1000);

impl Server {
    /// Handles a request; `None` when the reply comes later or was not wanted.
    pub(super) fn handle(&mut self, from: Peer, request: u32, asked: Request) -> Option<Reply> {
        match self.try_handle(from, request, asked) {
            Ok(reply) => reply,
            Err(fault) => {
                tracing::warn!(peer = ?from, code = ?fault.code, "{fault}");
                Some(Reply::Fault(fault))
            }
        }
    }

    fn try_handle(
        &mut self,
        from: Peer,
        request: u32,
        asked: Request,
    ) -> Result<Option<Reply>, Fault> {
        let reply = match asked {
            Request::Hello(hello) => self.hello(from, hello)?,
            Request::Identify { identity } => self.identify(from, &identity)?,
            Request::Lookup { scope, keys } => self.lookup(from, scope, &keys)?,
            Request::Reserve { scope, deadline_ms, ttl_ms, items } => {
                self.reserve(from, scope, deadline_ms, ttl_ms, &items)?
            }
            Request::Commit { blocks } => {
                self.greeted(from)?;
                return Ok(self.commit(from, request, &blocks));
            }
            Request::Put(put) => return self.put(from, request, &put),
            // Also of a session that is over: giving space back is always welcome.
            Request::Abort { reservations } => Reply::Count(self.abort(from, &reservations)),
            Request::Lease { scope, wait_ms, ttl_ms, keys } => {
                let scope = self.scope(from, scope)?.clone();
                let ttl = Millis(u64::from(ttl_ms)).min(HOLD_MAX);
                let wish = Wish::Lease { scope, ttl, keys };
                return Ok(self.wish(from, request, wish, wait_ms));
            }
            Request::LeaseParts { scope, wait_ms, ttl_ms, parts } => {
                let scope = self.scope(from, scope)?.clone();
                parts::check(&scope, &parts)?;
                let ttl = Millis(u64::from(ttl_ms)).min(HOLD_MAX);
                let wish = Wish::Parts { scope, ttl, parts };
                return Ok(self.wish(from, request, wish, wait_ms));
            }
            Request::Release { leases } => {
                self.greeted(from)?;
                Reply::Count(self.release(from, &leases))
            }
            Request::Corrupt { scope, key, generation } => {
                let generation = Generation(generation);
                let key = self.leased_as(from, key, generation);
                let dropped = self.scope(from, scope)?.mark_corrupt(key, generation);
                tracing::error!(%key, generation = generation.0, dropped, "a reader found a wrong checksum");
                Reply::Count(u64::from(dropped))
            }
            Request::Fetch { scope, fetch } => {
                let scope = self.scope(from, scope)?.clone();
                let window = self.fetch_window(from, &fetch.window)?;
                let wish = Wish::Fetch { scope, window, slot: fetch.slot, blocks: fetch.blocks };
                return Ok(self.wish(from, request, wish, fetch.wait_ms));
            }
            Request::Pin { scope, pin, keys } => {
                let scope = self.scope(from, scope)?;
                let count = if pin { scope.pin(&keys) } else { scope.unpin(&keys) };
                Reply::Count(count as u64)
            }
            Request::Remove { scope, keys } => {
                Reply::Count(self.scope(from, scope)?.remove(&keys) as u64)
            }
            Request::Prefetch { scope, keys } => {
                let scope = self.scope(from, scope)?.clone();
                Reply::Count(self.prefetch(&scope, &keys))
            }
            Request::Persist { scope, wait_ms, keys } => {
                let scope = self.scope(from, scope)?.clone();
                return self.persist(from, request, &scope, &keys, wait_ms);
            }
            Request::List { start, tiers, prefix } => self.list(from, start, tiers, &prefix)?,
            Request::Stats => {
                let stats = self.greeted(from)?.tenant.stats();
                let json = serde_json::to_vec(&stats).expect("figures have a JSON form");
                Reply::Stats(json)
            }
            Request::Subscribe { from: first } => {
                let tenant = self.greeted(from)?.tenant.id();
                self.subscribers.add(from, request, tenant, first, &self.store);
                Reply::Count(0)
            }
            Request::Unsubscribe => {
                self.subscribers.remove(from);
                Reply::Count(0)
            }
            Request::Ping => Reply::Count(0),
        };
        Ok(Some(reply))
    }

    /// A scope of the session's.
    fn scope(&mut self, from: Peer, scope: u32) -> Result<&Scope, Fault> {
        let scopes = &self.greeted(from)?.scopes;
        let known = scopes.len();
        scopes.get(scope as usize).ok_or_else(|| Fault {
            code: FaultCode::Unknown,
            text: format!("scope {scope} is not of this session, which has {known}"),
        })
    }

    pub(super) fn session_id(&self, from: Peer) -> SessionId {
        self.sessions.get(&from).map_or(SessionId(0), |session| session.id)
    }

    fn lookup(&mut self, from: Peer, scope: u32, keys: &[Key]) -> Result<Reply, Fault> {
        let mut presence = Vec::with_capacity(keys.len());
        let now = self.now();
        let found = self.scope(from, scope)?.lookup(keys, &mut presence, now);
        let code = |presence| match presence {
            Presence::Absent => Lookup::ABSENT,
            Presence::InFlight => Lookup::IN_FLIGHT,
            Presence::Resident(tier) => Lookup::RESIDENT + tier as u8,
        };
        let presence = presence.into_iter().map(code).collect();
        Ok(Reply::Lookup(Lookup { prefix: found.prefix as u32, presence }))
    }

    fn reserve(
        &mut self,
        from: Peer,
        scope: u32,
        deadline_ms: u32,
        ttl_ms: u64,
        items: &[wire::Item],
    ) -> Result<Reply, Fault> {
        let (session, now) = (self.session_id(from), self.now());
        let ttl = Some(Millis(ttl_ms)).filter(|ttl| ttl.0 != 0);
        let item = |item: &wire::Item| Item { link: item.link, len: item.len, ttl };
        let items: Vec<_> = items.iter().map(item).collect();
        let deadline = Some(Millis(u64::from(deadline_ms)).min(HOLD_MAX));
        let grants = self.scope(from, scope)?.reserve(session, &items, deadline, now);
        let session = self.sessions.get_mut(&from).expect("the scope is the session's");
        let answer = |grant| match grant {
            Grant::Granted(reserved) => {
                let (reservation, offset) = (reserved.generation().0, reserved.offset());
                session.reserved.insert(reservation, reserved);
                Reserved::Granted { reservation, offset }
            }
            Grant::Exists => Reserved::Exists,
            Grant::InFlight => Reserved::InFlight,
            Grant::Refused(refusal) => Reserved::Refused {
                retry_ms: refusal.retry_after.map(|retry| retry.0),
                why: refusal.to_string(),
            },
        };
        Ok(Reply::Reserved(grants.into_iter().map(answer).collect()))
    }

    fn abort(&mut self, from: Peer, reservations: &[u64]) -> u64 {
        let Some(session) = self.sessions.get_mut(&from) else { return 0 };
        let dropped = reservations
            .iter()
            .filter_map(|id| session.reserved.remove(id).or_else(|| session.former.remove(id)));
        dropped.count() as u64
    }

    fn release(&mut self, from: Peer, leases: &[u64]) -> u64 {
        let Some(session) = self.sessions.get_mut(&from) else { return 0 };
        leases.iter().filter_map(|id| session.leases.remove(id)).count() as u64
    }
}
