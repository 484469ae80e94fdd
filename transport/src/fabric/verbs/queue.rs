//! One lane of a channel: a queue pair, and what it owes whom.

use std::collections::VecDeque;
use std::io;
use std::ptr;
use std::sync::Arc;

use tranship_verbs_sys as sys;

use super::domain::{Domain, Object};
use super::path::End;
use crate::fabric::rdma::{ExposureId, Token};

/// Requests that a lane holds.
pub(super) const DEPTH: usize = 256;
/// Of these, what is kept for telling the peer how many immediates were taken, and for windows.
const SPARE: usize = 8;
/// Immediates that the peer may send before it hears how many were taken.
pub(super) const BUDGET: u64 = 64;
/// Bytes of payload that travel in the request itself, if the device can.
const INLINE_BYTES: u32 = 64;
/// What has to: the word that tells how many immediates were taken.
const WORD_BYTES: u32 = 8;
/// How long a lost packet is waited for: 4.096 µs × 2^14, that is 67 ms, up to six times more. Soft-RoCE
/// takes seven for ever.
const TIMEOUT: u8 = 14;
const RETRIES: u8 = 6;
/// For ever: budgets see to it that there is a receive.
const RNR_RETRIES: u8 = 7;
/// 0.64 ms.
const RNR_TIMER: u8 = 12;
/// Reads that are answered at once.
const READS_MAX: u8 = 16;

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A post.
    Post(Token),
    /// A message, and the place that it is sent from, unless it travels in the request.
    Message(Token, Option<u32>),
    /// A window is bound.
    Bind(ExposureId),
    /// The peer is told how many immediates were taken, or nothing at all.
    Word,
}

impl Cause {
    /// The place that a message is sent from.
    fn place(&self) -> Option<u32> {
        match self {
            Self::Message(_, place) => *place,
            Self::Post(_) | Self::Bind(_) | Self::Word => None,
        }
    }
}

/// One lane of a channel.
pub(super) struct Queue {
    pub(super) qp: Object<sys::ibv_qp>,
    /// Which of the completion queues it reports to.
    pub(super) cq: usize,
    psn: u32,
    pub(super) inline_bytes: u32,
    /// Requests that were posted and that are known to have ended, ever.
    posted: u64,
    ended: u64,
    /// What was signalled: the number of requests before its end, and what for.
    causes: VecDeque<(u64, Cause)>,
    /// Our word that the peer writes, and where the peer's is.
    pub(super) word: u16,
    theirs: (u64, u32),
    /// Immediates that were sent, and that the peer can take at once.
    sent: u64,
    budget: u64,
    /// Immediates that came, and that the peer was told of.
    pub(super) arrived: u64,
    told: u64,
}

/// What a device can do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Abilities {
    pub(super) port: u8,
    pub(super) gid_index: u8,
    pub(super) pkey_index: u16,
    pub(super) traffic_class: u8,
    pub(super) reads_max: u8,
}

impl Queue {
    /// What the peer must know, bytes.
    pub(super) const BLOB_BYTES: usize = 4 + 4 + 8 + 4 + 4;

    pub(super) fn new(
        domain: &Arc<Domain>,
        abilities: &Abilities,
        (send, at): (&Object<sys::ibv_cq>, usize),
        receive: &Object<sys::ibv_cq>,
        srq: &Object<sys::ibv_srq>,
        word: u16,
    ) -> io::Result<Self> {
        // SAFETY: all zero is a valid structure.
        let mut init: sys::ibv_qp_init_attr = unsafe { std::mem::zeroed() };
        init.send_cq = send.as_ptr();
        init.recv_cq = receive.as_ptr();
        init.srq = srq.as_ptr();
        init.qp_type = sys::IBV_QPT_RC;
        init.cap.max_send_wr = DEPTH as u32;
        init.cap.max_send_sge = 1;
        init.cap.max_inline_data = INLINE_BYTES;
        let make = |init: &mut sys::ibv_qp_init_attr| {
            // SAFETY: everything that it names exists.
            let qp = unsafe { domain.verbs.ibv_create_qp(domain.pd.as_ptr(), init) };
            Object::new(domain, qp)
        };
        let qp = make(&mut init).or_else(|_| {
            init.cap.max_inline_data = WORD_BYTES;
            make(&mut init)
        })?;
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let queue = Self {
            qp,
            cq: at,
            psn: u32::from_le_bytes(random) & 0xff_ffff,
            inline_bytes: init.cap.max_inline_data,
            posted: 0,
            ended: 0,
            causes: VecDeque::new(),
            word,
            theirs: (0, 0),
            sent: 0,
            budget: 0,
            arrived: 0,
            told: 0,
        };
        // SAFETY: all zero is a valid structure.
        let mut attr: sys::ibv_qp_attr = unsafe { std::mem::zeroed() };
        attr.qp_state = sys::IBV_QPS_INIT;
        attr.pkey_index = abilities.pkey_index;
        attr.port_num = abilities.port;
        attr.qp_access_flags = sys::IBV_ACCESS_REMOTE_WRITE | sys::IBV_ACCESS_REMOTE_READ;
        queue.modify(
            domain,
            &mut attr,
            sys::IBV_QP_STATE
                | sys::IBV_QP_PKEY_INDEX
                | sys::IBV_QP_PORT
                | sys::IBV_QP_ACCESS_FLAGS,
        )?;
        Ok(queue)
    }

    fn modify(&self, domain: &Domain, attr: &mut sys::ibv_qp_attr, mask: u32) -> io::Result<()> {
        // SAFETY: the queue pair exists.
        match unsafe { domain.verbs.ibv_modify_qp(self.qp.as_ptr(), attr, mask.cast_signed()) } {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    pub(super) fn number(&self) -> u32 {
        // SAFETY: the queue pair exists.
        unsafe { (*self.qp.as_ptr()).qp_num }
    }

    /// What the peer must know.
    pub(super) fn blob(&self, (address, key): (u64, u32)) -> [u8; Self::BLOB_BYTES] {
        let mut blob = [0; Self::BLOB_BYTES];
        blob[..4].copy_from_slice(&self.number().to_le_bytes());
        blob[4..8].copy_from_slice(&self.psn.to_le_bytes());
        blob[8..16].copy_from_slice(&address.to_le_bytes());
        blob[16..20].copy_from_slice(&key.to_le_bytes());
        blob[20..].copy_from_slice(&(BUDGET as u32).to_le_bytes());
        blob
    }

    /// Connects it to what the peer told: ready to receive, and to send.
    pub(super) fn connect(
        &mut self,
        domain: &Domain,
        abilities: &Abilities,
        (ours, end): (&End, &End),
        blob: &[u8; Self::BLOB_BYTES],
    ) -> io::Result<()> {
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&blob[at..at + 4]);
            u32::from_le_bytes(word)
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        self.theirs = (long(8), word(16));
        self.budget = u64::from(word(20));
        // SAFETY: all zero is a valid structure.
        let mut attr: sys::ibv_qp_attr = unsafe { std::mem::zeroed() };
        attr.qp_state = sys::IBV_QPS_RTR;
        attr.path_mtu = ours.mtu.min(end.mtu).into();
        attr.dest_qp_num = word(0) & 0xff_ffff;
        attr.rq_psn = word(4) & 0xff_ffff;
        attr.max_dest_rd_atomic = abilities.reads_max.min(READS_MAX);
        attr.min_rnr_timer = RNR_TIMER;
        attr.ah_attr.port_num = abilities.port;
        attr.ah_attr.dlid = end.lid;
        if ours.is_ethernet() {
            attr.ah_attr.is_global = 1;
            attr.ah_attr.grh.dgid.raw = end.gid;
            attr.ah_attr.grh.sgid_index = abilities.gid_index;
            attr.ah_attr.grh.hop_limit = 64;
            attr.ah_attr.grh.traffic_class = abilities.traffic_class;
        }
        self.modify(
            domain,
            &mut attr,
            sys::IBV_QP_STATE
                | sys::IBV_QP_AV
                | sys::IBV_QP_PATH_MTU
                | sys::IBV_QP_DEST_QPN
                | sys::IBV_QP_RQ_PSN
                | sys::IBV_QP_MAX_DEST_RD_ATOMIC
                | sys::IBV_QP_MIN_RNR_TIMER,
        )?;
        attr.qp_state = sys::IBV_QPS_RTS;
        attr.timeout = TIMEOUT;
        attr.retry_cnt = RETRIES;
        attr.rnr_retry = RNR_RETRIES;
        attr.sq_psn = self.psn;
        attr.max_rd_atomic = abilities.reads_max.min(READS_MAX);
        self.modify(
            domain,
            &mut attr,
            sys::IBV_QP_STATE
                | sys::IBV_QP_TIMEOUT
                | sys::IBV_QP_RETRY_CNT
                | sys::IBV_QP_RNR_RETRY
                | sys::IBV_QP_SQ_PSN
                | sys::IBV_QP_MAX_QP_RD_ATOMIC,
        )
    }

    /// Lets nothing in or out any more.
    pub(super) fn stop(&self, domain: &Domain) {
        // SAFETY: all zero is a valid structure.
        let mut attr: sys::ibv_qp_attr = unsafe { std::mem::zeroed() };
        attr.qp_state = sys::IBV_QPS_ERR;
        // One that is in that state already, or not connected yet, is as good.
        let _ = self.modify(domain, &mut attr, sys::IBV_QP_STATE);
    }

    // ---- what is under way ---------------------------------------------------------------------

    /// Whether nothing is under way: what was stopped has been flushed.
    pub(super) fn is_flushed(&self) -> bool {
        self.causes.is_empty()
    }

    /// What was flushed, with this number: it has not ended well, and neither has anything after it.
    /// The places that messages were sent from are free.
    pub(super) fn flush(&mut self, number: u32, free: &mut Vec<u32>) {
        while let Some((last, cause)) = self.causes.front()
            && (number.wrapping_sub(*last as u32)) < 1 << 31
        {
            free.extend(cause.place());
            self.causes.pop_front();
        }
    }

    /// Destroys it: the peer writes no more, and the places that messages were sent from are free.
    pub(super) fn destroy(self, free: &mut Vec<u32>) {
        drop(self.qp);
        free.extend(self.causes.iter().filter_map(|(_, cause)| cause.place()));
    }

    /// Requests that can be posted for transfers.
    pub(super) fn room(&self) -> usize {
        (DEPTH - SPARE).saturating_sub((self.posted - self.ended) as usize)
    }

    /// Immediates that the peer has room for, given its word.
    pub(super) fn immediates(&self, taken: u64) -> usize {
        // What it says cannot be more than it was sent.
        self.budget.saturating_sub(self.sent - taken.min(self.sent)) as usize
    }

    /// Whether one more request fits that is no transfer.
    pub(super) fn has_spare(&self) -> bool {
        self.posted - self.ended < DEPTH as u64
    }

    /// So many requests are posted now, of which the last is signalled.
    pub(super) fn note(&mut self, requests: usize, cause: Cause, announces: bool) {
        self.posted += requests as u64;
        self.causes.push_back((self.posted, cause));
        self.sent += u64::from(announces);
    }

    /// The signalled request with this number has ended, and all before it.
    pub(super) fn end(&mut self, number: u32, mut each: impl FnMut(Cause)) {
        while let Some((last, cause)) = self.causes.front()
            && (number.wrapping_sub(*last as u32)) < 1 << 31
        {
            self.ended = *last;
            each(*cause);
            self.causes.pop_front();
        }
    }

    /// What the completion of the next signalled request shows, if that ends so many requests.
    pub(super) fn number_after(&self, requests: usize) -> u32 {
        (self.posted + requests as u64) as u32
    }

    /// Whether the peer is to be told how many immediates were taken.
    pub(super) fn owes_word(&self) -> bool {
        self.arrived - self.told >= BUDGET / 4
    }

    /// Tells it.
    pub(super) fn tell(&mut self, id: u32) -> io::Result<()> {
        let taken = self.arrived;
        self.put(id, self.theirs, taken)?;
        self.told = taken;
        Ok(())
    }

    /// Writes a word into the peer's memory.
    pub(super) fn put(&mut self, id: u32, to: (u64, u32), mut word: u64) -> io::Result<()> {
        let addr = &raw mut word as u64;
        let mut sge = sys::ibv_sge { addr, length: WORD_BYTES, lkey: 0 };
        // SAFETY: all zero is a valid request.
        let mut request: sys::ibv_send_wr = unsafe { std::mem::zeroed() };
        request.wr_id = u64::from(id) << 32 | u64::from(self.number_after(1));
        request.opcode = sys::IBV_WR_RDMA_WRITE;
        request.send_flags = sys::IBV_SEND_SIGNALED | sys::IBV_SEND_INLINE;
        request.sg_list = &mut sge;
        request.num_sge = 1;
        request.wr.rdma.remote_addr = to.0;
        request.wr.rdma.rkey = to.1;
        let mut bad = ptr::null_mut();
        // SAFETY: the bytes travel in the request itself: the word is read before the call returns.
        match unsafe { sys::Verbs::post_send(self.qp.as_ptr(), &mut request, &mut bad) } {
            0 => {
                self.note(1, Cause::Word, false);
                Ok(())
            }
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}
