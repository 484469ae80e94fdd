//! What a port's queues and its device report.

use tranship_verbs_sys as sys;

use super::port::Port;
use super::queue::Cause;
use crate::fabric::rdma::Completion;
use crate::immediate::Immediate;

/// Completions taken at once.
const POLL_MAX: usize = 32;

impl Port {
    /// Takes completions from all queues; whether there were any.
    pub(super) fn poll_queues(&mut self) -> bool {
        #[cfg(feature = "conformance")]
        self.open_door();
        let mut any = false;
        // SAFETY: all zero is a valid completion.
        let mut entries: [sys::ibv_wc; POLL_MAX] = unsafe { std::mem::zeroed() };
        for at in 0..=self.sends.len() {
            let cq = match self.sends.get(at) {
                Some((cq, _)) => cq.as_ptr(),
                None => self.receive.as_ptr(),
            };
            let receives = at == self.sends.len();
            // Of what arrived all is taken: a peer that knows that something is here may rely on it
            // that we know, too. There are no more than there are receives.
            let turns = if receives { self.inbox.places() / POLL_MAX + 1 } else { 1 };
            for _ in 0..turns {
                // SAFETY: the queue exists, and there is room for so many.
                let count =
                    unsafe { sys::Verbs::poll_cq(cq, POLL_MAX as i32, entries.as_mut_ptr()) };
                let count = usize::try_from(count).unwrap_or(0);
                for entry in &entries[..count] {
                    match receives {
                        true => self.arrived(entry),
                        false => self.sent(entry),
                    }
                }
                any |= count > 0;
                if count < POLL_MAX {
                    break;
                }
            }
        }
        any
    }

    pub(super) fn sent(&mut self, entry: &sys::ibv_wc) {
        // Of one that failed only its number, its status and its queue pair mean something.
        let place = (entry.wr_id >> 32) as usize;
        let Some(&(id, lane)) = self.places.get(place) else { return };
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if entry.status != sys::IBV_WC_SUCCESS {
            channel.lanes[lane.index()].flush(entry.wr_id as u32, &mut self.free);
            let status = self.domain.verbs.wc_status(entry.status).to_string_lossy();
            let hint = hint(entry.status);
            return self.break_channel(id, format!("a request failed: {status}{hint}"));
        }
        let (reports, exposures) = (&mut self.reports, &mut self.exposures);
        let free = &mut self.free;
        channel.lanes[lane.index()].end(entry.wr_id as u32, |cause| match cause {
            Cause::Post(token) => reports.push(Completion::Done(token)),
            Cause::Bind(id) => {
                if let Some(keys) = exposures.get_mut(&id).and_then(|(_, it)| it.bound()) {
                    reports.push(Completion::Exposed(id, Ok(keys)));
                }
            }
            Cause::Message(token, place) => {
                free.extend(place);
                reports.push(Completion::Done(token));
            }
            Cause::Word => {}
        });
    }

    pub(super) fn arrived(&mut self, entry: &sys::ibv_wc) {
        let from = self.numbers.get(&entry.qp_num).copied();
        // It took a receive, whatever became of it.
        let place = entry.wr_id as u32;
        self.used.push(place);
        if entry.status != sys::IBV_WC_SUCCESS {
            if let Some((id, _)) = from {
                let status = self.domain.verbs.wc_status(entry.status).to_string_lossy();
                self.break_channel(id, format!("an arrival was not received: {status}"));
            }
            return;
        }
        if entry.opcode == sys::IBV_WC_RECV {
            let bytes = self.inbox.read(place, entry.byte_len as usize);
            self.reports.extend(from.map(|(id, _)| Completion::Message(id, bytes)));
        } else {
            // SAFETY: what else takes a receive is an immediate.
            let word = u32::from_be(unsafe { entry.__bindgen_anon_1.imm_data });
            self.reports.push(Completion::Arrived { from, immediate: Immediate(word) });
        }
        if let Some((id, lane)) = from
            && let Some(channel) = self.channels.get_mut(&id)
        {
            channel.lanes[lane.index()].arrived += 1;
        }
    }

    /// Tells peers how many of their immediates were taken.
    pub(super) fn tell(&mut self) {
        if self.post_receives().is_err() {
            return;
        }
        let mut failed = Vec::new();
        for (id, channel) in self.channels.iter_mut().filter(|(_, channel)| !channel.broken) {
            for (queue, place) in channel.lanes.iter_mut().zip(channel.places) {
                if queue.owes_word()
                    && queue.has_spare()
                    && let Err(error) = queue.tell(place)
                {
                    failed.push((*id, error));
                }
            }
        }
        for (id, error) in failed {
            self.break_channel(id, format!("ibv_post_send: {error}"));
        }
    }

    /// Takes what the device says on its own account.
    pub(super) fn take_events(&mut self) {
        loop {
            // SAFETY: all zero is a valid event.
            let mut event: sys::ibv_async_event = unsafe { std::mem::zeroed() };
            let verbs = self.domain.verbs;
            // SAFETY: the device is open, and its descriptor does not block.
            let rc = unsafe { verbs.ibv_get_async_event(self.domain.context.as_ptr(), &mut event) };
            if rc != 0 {
                return;
            }
            // SAFETY: the event is of a port where it says so.
            let port = unsafe { event.element.port_num };
            let mine = port == i32::from(self.abilities.port);
            let text = verbs.event_type(event.event_type).to_string_lossy().into_owned();
            match event.event_type {
                sys::IBV_EVENT_PORT_ACTIVE if mine => self.reports.push(Completion::Port(Ok(()))),
                sys::IBV_EVENT_PORT_ERR if mine => self.reports.push(Completion::Port(Err(text))),
                sys::IBV_EVENT_DEVICE_FATAL => self.reports.push(Completion::Port(Err(text))),
                _ => tracing::debug!(rail = self.name, "{text}"),
            }
            // SAFETY: it was taken a moment ago.
            unsafe { verbs.ibv_ack_async_event(&mut event) };
        }
    }

    /// Whether some peer's budget is used up: that it has taken something is told by no completion.
    pub(super) fn is_starved(&self) -> bool {
        self.channels
            .values()
            .filter(|it| !it.broken)
            .flat_map(|it| &it.lanes)
            .any(|queue| queue.immediates(self.words.read(queue.word)) == 0)
    }
}

/// What is behind a failure.
fn hint(status: sys::ibv_wc_status) -> &'static str {
    match status {
        sys::IBV_WC_RETRY_EXC_ERR => " (the peer does not answer: cable, switch or route)",
        sys::IBV_WC_RNR_RETRY_EXC_ERR => " (the peer takes no immediates)",
        sys::IBV_WC_REM_ACCESS_ERR => " (the key opens nothing there)",
        _ => "",
    }
}
