//! The C ABI. Its reference is the header, which is generated from these files.
//!
//! | module | what it holds |
//! |---|---|
//! | [`abi`] | versions |
//! | [`status`] | what every call answers |
//! | [`call`] | the one way in: no panic passes it |
//! | [`handle`], [`fork`] | handles, and how a wrong one is noticed |
//! | [`input`], [`output`] | what comes over the boundary, checked |
//! | [`engine`], [`peer`], [`region`], [`window`], [`remote`] | engines, memory, and the rights to it |
//! | [`pages`], [`submit`], [`transfer`], [`reason`], [`queue`] | transfers and their ends |
//! | [`counter`], [`watcher`], [`barrier`], [`message`] | what arrives |
//! | [`identity`], [`keys`] | the names of blocks |
//! | [`client`], [`cache`], [`lease`], [`room`], [`blocks`], [`jobs`], [`reasons`], [`events`] | the cache |

#![expect(
    non_camel_case_types,
    clippy::missing_safety_doc,
    reason = "names are those of the header, and it says once what holds for all pointers"
)]

#[cfg(not(all(target_pointer_width = "64", target_os = "linux")))]
compile_error!("libtranship is for 64-bit Linux");

pub mod abi;
pub mod barrier;
pub mod blocks;
pub mod cache;
pub mod call;
pub mod client;
pub mod counter;
pub mod engine;
pub mod events;
pub mod fork;
pub mod handle;
pub mod identity;
pub mod input;
pub mod jobs;
pub mod keys;
pub mod lease;
pub mod message;
pub mod output;
pub mod pages;
pub mod peer;
pub mod queue;
pub mod reason;
pub mod reasons;
pub mod region;
pub mod remote;
pub mod room;
pub mod status;
pub mod submit;
pub mod transfer;
pub mod watcher;
pub mod window;
