//! Sizes and durations.
//!
//! Every size and duration a person types is parsed here and nowhere else, so that `4GiB` means
//! the same on a command line, in a file and in the environment. [`Size`] and [`Span`] print in a
//! form that parses back to the same value; [`human`] rounds for reading and never parses back.

pub mod human;
mod number;
mod size;
mod span;
mod tokens;

pub use number::ParseError;
pub use size::Size;
pub use span::Span;
pub use tokens::Tokens;
