//! What was posted and has not ended.

use slab::Slab;
use tranship_ofi_sys as sys;

use crate::fabric::rdma::{ChannelId, Token};
use crate::lane::Lane;

/// What was posted, and how many of its pieces are under way.
pub(super) struct Posting {
    pub(super) token: Token,
    pub(super) channel: ChannelId,
    pub(super) lane: Lane,
    pub(super) left: u32,
}

/// What was posted and has not ended.
#[derive(Default)]
pub(super) struct Pool {
    pub(super) postings: Slab<Posting>,
    /// What the provider is given for each piece; their addresses stay.
    #[expect(clippy::vec_box, reason = "the provider keeps their addresses")]
    pub(super) contexts: Vec<Box<Context>>,
    pub(super) free: Vec<u32>,
}

/// What the provider is given for one piece, and may use while that is under way.
#[repr(C)]
pub(super) struct Context {
    pub(super) theirs: sys::fi_context2,
    pub(super) at: u32,
    pub(super) posting: u32,
    pub(super) live: bool,
}

impl Pool {
    /// A context for a piece of a posting.
    pub(super) fn context(&mut self, posting: u32) -> *mut Context {
        let at = self.free.pop().unwrap_or_else(|| {
            let at = self.contexts.len() as u32;
            // SAFETY: all zero is a valid context.
            let theirs = unsafe { std::mem::zeroed() };
            self.contexts.push(Box::new(Context { theirs, at, posting: 0, live: false }));
            at
        });
        let context = &mut *self.contexts[at as usize];
        (context.posting, context.live) = (posting, true);
        context
    }

    /// The posting of a piece that has ended.
    pub(super) fn take(&mut self, context: *mut Context) -> Option<usize> {
        // SAFETY: it is one of ours, which are never freed.
        let context = unsafe { &mut *context };
        if !std::mem::take(&mut context.live) {
            return None;
        }
        self.free.push(context.at);
        Some(context.posting as usize)
    }

    /// Forgets all of a channel, whose endpoints and queue are closed.
    pub(super) fn forget(&mut self, id: ChannelId) {
        for context in &mut self.contexts {
            let posting = self.postings.get(context.posting as usize);
            if context.live && posting.is_some_and(|it| it.channel == id) {
                context.live = false;
                self.free.push(context.at);
            }
        }
        self.postings.retain(|_, posting| posting.channel != id);
    }
}
