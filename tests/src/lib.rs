//! What the tests that span crates have in common.

pub mod below;
pub mod cold;
pub mod daemon;
pub mod netns;
pub mod pressure;
pub mod proxy;
pub mod s3;
pub mod world;

/// The examples of the book, compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/rust.md")]
pub struct Book;
