//! What the fabric of rails asks of a domain.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use tranship_ofi_sys as sys;

use super::channel::{Channel, Queue, open_cq, watch_queue};
use super::domain::{Domain, Exposure, MAILBOX_BYTES, NAME_BYTES_MAX, Registered};
use super::letters::SECRET_BYTES;
use super::near;
use super::object::Object;
use crate::fabric::RegionId;
use crate::fabric::rdma::{
    ChannelId, Completion, Device, Exposing, ExposureId, Keys, Part, Post, Room, Token, Traits,
};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::{self, Memory};
use crate::rail::Fact;
use crate::window::Access;

impl Device for Domain {
    fn name(&self) -> &str {
        &self.name
    }

    fn traits(&self) -> Traits {
        self.traits
    }

    fn facts(&self) -> Vec<Fact> {
        let order =
            if self.traits.ordered { "writes keep it" } else { "none: arrivals are counted" };
        let wait = if self.watch.is_some() {
            "a descriptor"
        } else {
            "polling: the provider wakes nobody"
        };
        vec![
            ("provider", format!("{}: {}", self.provider, self.why)),
            ("domain", self.info.domain()),
            ("order", order.to_owned()),
            ("waits by", wait.to_owned()),
        ]
    }

    fn channel_facts(&self, channel: ChannelId) -> Vec<Fact> {
        let Some(channel) = self.channels.get(&channel) else { return Vec::new() };
        vec![("to", channel.lanes[Lane::Latency.index()].to.clone())]
    }

    fn port(&self) -> Vec<u8> {
        [near::process(), self.provider.as_bytes()].concat()
    }

    fn register(&mut self, region: RegionId, memory: &Arc<Memory>) -> Result<(), String> {
        let local = self.info.needs(sys::FI_MR_LOCAL) && !memory.is_empty();
        let mut access = sys::FI_WRITE;
        if memory.access() != memory::Access::ReadOnly {
            access |= sys::FI_READ;
        }
        let place = (memory.as_ptr(), memory.len());
        let mr = local.then(|| self.mr(place, access, None)).transpose()?;
        self.regions.insert(region, Registered { memory: Arc::clone(memory), mr });
        Ok(())
    }

    fn deregister(&mut self, region: RegionId) {
        self.regions.remove(&region);
    }

    fn open(&mut self, channel: ChannelId, port: &[u8]) -> Result<Vec<u8>, String> {
        let (process, provider) = port.split_at_checked(near::PROCESS_BYTES).unwrap_or_default();
        if provider != self.provider.as_bytes() {
            return Err(format!(
                "the peer's rail speaks {}, this one {}; name the same provider on both sides",
                String::from_utf8_lossy(provider),
                self.provider
            ));
        }
        let mut blob = Vec::new();
        let wait = if self.watch.is_some() { sys::FI_WAIT_FD } else { sys::FI_WAIT_NONE };
        let cq = open_cq(&self.roots.domain, wait).map_err(|rc| self.error("fi_cq_open", rc))?;
        if let Some(watch) = &self.watch {
            watch_queue(watch, &cq)?;
        }
        let av = self.open_av().map_err(|rc| self.error("fi_av_open", rc))?;
        let mailbox = (self.roots.mailbox.get().cast(), MAILBOX_BYTES);
        let access = sys::FI_REMOTE_WRITE | sys::FI_WRITE;
        let mut lane = || {
            let (ep, name) = self.endpoint(&cq, &av)?;
            let mailbox_mr = self.mr(mailbox, access, Some(&ep))?;
            // SAFETY: the registration is open.
            let key = unsafe { sys::Fabric::mr_key(mailbox_mr.as_ptr()) };
            blob.extend(key.to_le_bytes());
            blob.extend(self.base(mailbox.0).to_le_bytes());
            blob.extend((name.len() as u16).to_le_bytes());
            blob.extend(&name);
            Ok::<_, String>(Queue {
                ep,
                peer: sys::FI_ADDR_UNSPEC,
                flying: 0,
                waiting: VecDeque::new(),
                mailbox: mailbox_mr,
                theirs: (0, 0),
                name,
                to: String::new(),
            })
        };
        let lanes = [lane()?, lane()?];
        let letters = self.letters(channel, &lanes[Lane::Latency.index()])?;
        blob.extend(letters.as_ref().map_or([0; SECRET_BYTES], |it| it.secret));
        self.channels.insert(
            channel,
            Channel {
                lanes,
                letters,
                av,
                cq,
                broken: false,
                near: process == near::process(),
                _roots: Rc::clone(&self.roots),
            },
        );
        Ok(blob)
    }

    fn connect(&mut self, channel: ChannelId, theirs: &[u8]) -> Result<(), String> {
        let wrong = || "what the peer says of its endpoints makes no sense".to_owned();
        let mut rest = theirs;
        let mut take = |count: usize| {
            let (head, tail) = rest.split_at_checked(count)?;
            rest = tail;
            Some(head)
        };
        let channel = self.channels.get_mut(&channel).ok_or("no such channel")?;
        for queue in &mut channel.lanes {
            let mut long = || Some(u64::from_le_bytes(take(8)?.try_into().ok()?));
            let (key, base) = (long().ok_or_else(wrong)?, long().ok_or_else(wrong)?);
            let len = take(2).and_then(|it| it.try_into().ok()).map(u16::from_le_bytes);
            // Some providers read past the end of a name that is too short.
            let mut name = [0u8; 2 * NAME_BYTES_MAX];
            let given =
                len.and_then(|len| take(len.into())).filter(|it| it.len() <= NAME_BYTES_MAX);
            let given = given.ok_or_else(wrong)?;
            name[..given.len()].copy_from_slice(given);
            // SAFETY: the table is open, and the name is longer than any address of a provider.
            let count = unsafe {
                let table = channel.av.as_ptr();
                sys::Fabric::av_insert(
                    table,
                    name.as_ptr().cast(),
                    1,
                    &mut queue.peer,
                    0,
                    ptr::null_mut(),
                )
            };
            if count != 1 {
                return Err(format!("fi_av_insert: {}", self.info.error(count)));
            }
            queue.theirs = (key, base);
            queue.to = address_text(&channel.av, &name);
        }
        let secret = take(SECRET_BYTES).and_then(|it| it.try_into().ok()).ok_or_else(wrong)?;
        if let Some(letters) = &mut channel.letters {
            letters.theirs = secret;
        }
        Ok(())
    }

    fn destroy(&mut self, id: ChannelId, out: &mut Vec<Completion>) {
        // What the peer was told has arrived is not to be lost.
        while self.read_queue(id) {}
        if let Some(channel) = self.channels.remove(&id) {
            self.backlog -= channel.lanes.iter().map(|queue| queue.waiting.len()).sum::<usize>();
            let bound = self.info.needs(sys::FI_MR_ENDPOINT);
            if bound {
                // They hold the endpoints.
                self.exposures.retain(|_, it| it.channel != id);
            }
            if channel.near && self.provider == "shm" {
                near::bury(channel);
            } else {
                // With the descriptor of its queue, which leaves the watch by that.
                channel.close(bound);
            }
            self.pool.forget(id);
        }
        self.reports.retain(|it| !matches!(it, Completion::Broken(other, _) if *other == id));
        out.append(&mut self.reports);
    }

    fn expose(
        &mut self,
        exposure: ExposureId,
        id: ChannelId,
        part: &Part,
    ) -> Result<Exposing, String> {
        let region = self.regions.get(&part.region).ok_or("no such region")?;
        let channel = self.channels.get(&id).ok_or("no such channel")?;
        // SAFETY: the part lies in the region, which was checked when the window was granted.
        let start = unsafe { region.memory.as_ptr().add(part.offset as usize) };
        let mut access = 0;
        if part.access.allows(Access::WRITE) {
            access |= sys::FI_REMOTE_WRITE;
        }
        if part.access.allows(Access::READ) {
            access |= sys::FI_REMOTE_READ;
        }
        let [first, second] = &channel.lanes;
        let place = (start, part.len as usize);
        let one = self.mr(place, access, Some(&first.ep))?;
        let two = match self.info.needs(sys::FI_MR_ENDPOINT) {
            true => Some(self.mr(place, access, Some(&second.ep))?),
            false => None,
        };
        // SAFETY: the registrations are open.
        let key = |mr: &Object<sys::fid_mr>| unsafe { sys::Fabric::mr_key(mr.as_ptr()) };
        let keys =
            Keys { keys: [key(&one), key(two.as_ref().unwrap_or(&one))], base: self.base(start) };
        let it = Exposure { channel: id, _registrations: [Some(one), two] };
        self.exposures.insert(exposure, it);
        Ok(Exposing::Now(keys))
    }

    fn conceal(&mut self, exposure: ExposureId) {
        self.exposures.remove(&exposure);
    }

    fn room(&self, channel: ChannelId, lane: Lane) -> Room {
        let Some(channel) = self.channels.get(&channel).filter(|it| !it.broken) else {
            return Room { pieces: 0, immediates: 0 };
        };
        let queue = &channel.lanes[lane.index()];
        let pieces = self.pieces_max.saturating_sub(queue.flying + queue.waiting.len());
        Room { pieces, immediates: pieces }
    }

    fn write(&mut self, post: &Post<'_>, immediate: Option<Immediate>) {
        self.post(post, false, immediate);
    }

    fn read(&mut self, post: &Post<'_>) {
        self.post(post, true, None);
    }

    fn send(&mut self, channel: ChannelId, token: Token, bytes: &[u8]) {
        self.post_message(channel, token, bytes);
    }

    fn poll(&mut self, out: &mut Vec<Completion>) -> bool {
        let mut turns = std::mem::take(&mut self.turns);
        turns.extend(self.channels.keys());
        for channel in turns.drain(..) {
            self.read_queue(channel);
            if self.backlog > 0 {
                Lane::ALL.into_iter().for_each(|lane| self.push(channel, lane));
            }
        }
        self.turns = turns;
        let any = !self.reports.is_empty();
        out.append(&mut self.reports);
        any
    }

    fn arm(&mut self) -> bool {
        if !self.reports.is_empty() || self.backlog > 0 {
            return false;
        }
        if self.watch.is_none() {
            return true;
        }
        // SAFETY: all of these are open.
        let ready = |it: &Channel| unsafe {
            let mut fids = [it.cq.fid()];
            sys::Fabric::trywait(self.roots.fabric.as_ptr(), fids.as_mut_ptr(), 1) == 0
        };
        self.channels.values().all(ready)
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }
}

/// An endpoint's address, as the provider writes it.
fn address_text(av: &Object<sys::fid_av>, name: &[u8; 2 * NAME_BYTES_MAX]) -> String {
    let mut text = [0; 2 * NAME_BYTES_MAX];
    // SAFETY: the table is open and has taken this address.
    if !unsafe { sys::Fabric::av_straddr(av.as_ptr(), name.as_ptr().cast(), &mut text) } {
        return "an endpoint that the provider does not name".to_owned();
    }
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end]).into_owned()
}
