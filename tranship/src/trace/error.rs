//! What can be wrong with a trace.

use std::io;

/// A trace that cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{name}: {source}")]
    Read {
        /// The file.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// A line is not what the format says.
    #[error("{name}:{line}: {fault}")]
    Line {
        /// The file.
        name: String,
        /// Counted from 1.
        line: u64,
        /// What is wrong in it.
        fault: Fault,
    },
    /// The file has no request at all.
    #[error("{name}: no requests in it; expected one JSON object a line")]
    Empty {
        /// The file.
        name: String,
    },
}

/// What is wrong in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not JSON.
    #[error("column {column}: not JSON: {message}")]
    Json {
        /// Counted from 1; 0 when the parser does not know.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// JSON, but no object.
    #[error("expected an object, found {found}")]
    NotAnObject {
        /// The value, shortened.
        found: String,
    },
    /// A field is not there.
    #[error("field {field:?}: missing; expected {expected}")]
    Missing {
        /// The field.
        field: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// A field has a value of another kind.
    #[error("field {field:?}: expected {expected}, found {found}")]
    Field {
        /// The field.
        field: &'static str,
        /// What belongs there.
        expected: &'static str,
        /// The value, shortened.
        found: String,
    },
    /// The two lengths of a request disagree.
    #[error(
        "field \"hash_ids\": {blocks} entries for input_length {input_tokens}; expected {expected} \
         (512 tokens a block)"
    )]
    Lengths {
        /// Entries found.
        blocks: usize,
        /// Tokens of the input.
        input_tokens: u32,
        /// Entries expected.
        expected: usize,
    },
    /// Time runs backwards.
    #[error(
        "field \"timestamp\": {now_ms} is before {before_ms} of the request above; sort the trace \
         by timestamp"
    )]
    Order {
        /// This request's.
        now_ms: u64,
        /// The previous request's.
        before_ms: u64,
    },
    /// A line longer than any request.
    #[error("line of more than {limit} bytes; expected one request a line")]
    TooLong {
        /// The limit.
        limit: u64,
    },
}
