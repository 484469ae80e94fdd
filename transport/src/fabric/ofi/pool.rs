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
    /// The place that a message is sent from.
    pub(super) place: Option<u32>,
}

/// What a context is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Nothing,
    /// A piece of a posting.
    Piece(u32),
    /// A place of a channel that is received into.
    Receive(ChannelId, u32),
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
    pub(super) used: Use,
}

impl Pool {
    /// A context for this.
    pub(super) fn context(&mut self, used: Use) -> *mut Context {
        let at = self.free.pop().unwrap_or_else(|| {
            let at = self.contexts.len() as u32;
            // SAFETY: all zero is a valid context.
            let theirs = unsafe { std::mem::zeroed() };
            self.contexts.push(Box::new(Context { theirs, at, used: Use::Nothing }));
            at
        });
        let context = &mut *self.contexts[at as usize];
        context.used = used;
        context
    }

    /// What has ended.
    pub(super) fn take(&mut self, context: *mut Context) -> Use {
        // SAFETY: it is one of ours, which are never freed.
        let context = unsafe { &mut *context };
        let used = std::mem::replace(&mut context.used, Use::Nothing);
        if used != Use::Nothing {
            self.free.push(context.at);
        }
        used
    }

    /// Forgets all of a channel, whose endpoints and queue are closed.
    pub(super) fn forget(&mut self, id: ChannelId) {
        for context in &mut self.contexts {
            let of = match context.used {
                Use::Nothing => None,
                Use::Piece(posting) => self.postings.get(posting as usize).map(|it| it.channel),
                Use::Receive(channel, _) => Some(channel),
            };
            if of == Some(id) {
                context.used = Use::Nothing;
                self.free.push(context.at);
            }
        }
        self.postings.retain(|_, posting| posting.channel != id);
    }
}
