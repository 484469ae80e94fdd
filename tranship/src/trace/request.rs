//! One request of a trace.

use serde::Serialize;
use serde_json::{Map, Value};

use super::error::Fault;
use crate::presets::BLOCK_TOKENS;

/// One request: when it came, how long it was, and the blocks of its prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request {
    /// Milliseconds since the trace began.
    #[serde(rename = "timestamp")]
    pub at_ms: u64,
    /// Tokens of the prompt.
    #[serde(rename = "input_length")]
    pub input_tokens: u32,
    /// Tokens of the answer.
    #[serde(rename = "output_length")]
    pub output_tokens: u32,
    /// One id for each block of the prompt; the last block may be partial.
    pub hash_ids: Vec<u64>,
}

impl Request {
    /// Reads one line.
    ///
    /// # Errors
    /// A [`Fault`] that names the field, its value and what is expected. Unknown fields are
    /// ignored: newer traces have more of them.
    pub fn parse(line: &[u8]) -> Result<Self, Fault> {
        let value: Value = serde_json::from_slice(line).map_err(|error| {
            // The column is told apart; the line number would always be 1.
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            Fault::Json { column: error.column(), message }
        })?;
        let Value::Object(fields) = &value else {
            return Err(Fault::NotAnObject { found: shortened(&value) });
        };
        const TOKENS: &str = "a number of tokens below 4294967296";
        let request = Self {
            at_ms: number(fields, "timestamp", "whole milliseconds")?,
            input_tokens: number(fields, "input_length", TOKENS)?,
            output_tokens: number(fields, "output_length", TOKENS)?,
            hash_ids: hash_ids(fields)?,
        };
        let expected = request.input_tokens.div_ceil(BLOCK_TOKENS) as usize;
        if request.hash_ids.len() != expected {
            let (blocks, input_tokens) = (request.hash_ids.len(), request.input_tokens);
            return Err(Fault::Lengths { blocks, input_tokens, expected });
        }
        Ok(request)
    }

    /// How many of the blocks are full, and so may be reused.
    #[must_use]
    pub const fn full_blocks(&self) -> usize {
        (self.input_tokens / BLOCK_TOKENS) as usize
    }

    /// The ids of the full blocks.
    #[must_use]
    pub fn reusable(&self) -> &[u64] {
        &self.hash_ids[..self.full_blocks()]
    }
}

fn get<'a>(
    fields: &'a Map<String, Value>,
    field: &'static str,
    expected: &'static str,
) -> Result<&'a Value, Fault> {
    fields.get(field).ok_or(Fault::Missing { field, expected })
}

fn number<T: TryFrom<u64>>(
    fields: &Map<String, Value>,
    field: &'static str,
    expected: &'static str,
) -> Result<T, Fault> {
    let value = get(fields, field, expected)?;
    value.as_u64().and_then(|number| T::try_from(number).ok()).ok_or_else(|| Fault::Field {
        field,
        expected,
        found: shortened(value),
    })
}

fn hash_ids(fields: &Map<String, Value>) -> Result<Vec<u64>, Fault> {
    const FIELD: &str = "hash_ids";
    const EXPECTED: &str = "an array of integers";
    let wrong =
        |value: &Value| Fault::Field { field: FIELD, expected: EXPECTED, found: shortened(value) };
    let value = get(fields, FIELD, EXPECTED)?;
    let ids = value.as_array().ok_or_else(|| wrong(value))?;
    ids.iter().map(|id| id.as_u64().ok_or_else(|| wrong(id))).collect()
}

/// A value as it stands in the file, cut to what fits into a message.
fn shortened(value: &Value) -> String {
    const CHARS_MAX: usize = 40;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(line: &str) -> String {
        Request::parse(line.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn reads_a_request() {
        let line = r#"{"timestamp": 5, "input_length": 1030, "output_length": 3, "hash_ids": [7, 8, 9], "type": "x"}"#;
        let request = Request::parse(line.as_bytes()).unwrap();
        assert_eq!(request.hash_ids, [7, 8, 9]);
        assert_eq!(request.reusable(), [7, 8], "the last block is partial");
        let exact =
            r#"{"timestamp": 5, "input_length": 1024, "output_length": 3, "hash_ids": [7, 8]}"#;
        assert_eq!(Request::parse(exact.as_bytes()).unwrap().reusable(), [7, 8]);
    }

    #[test]
    fn faults_name_field_value_and_expectation() {
        assert_eq!(
            fault(r#"{"timestamp": 5, "input_length": 3, "output_length": 3, "hash_ids": "abc"}"#),
            r#"field "hash_ids": expected an array of integers, found "abc""#
        );
        assert_eq!(
            fault(r#"{"timestamp": 5, "input_length": 3, "output_length": 3, "hash_ids": [1.5]}"#),
            r#"field "hash_ids": expected an array of integers, found 1.5"#
        );
        assert_eq!(
            fault(r#"{"timestamp": -5, "input_length": 3, "output_length": 3, "hash_ids": [1]}"#),
            r#"field "timestamp": expected whole milliseconds, found -5"#
        );
        assert_eq!(
            fault(r#"{"timestamp": 5, "output_length": 3, "hash_ids": [1]}"#),
            r#"field "input_length": missing; expected a number of tokens below 4294967296"#
        );
        assert_eq!(
            fault(r#"{"timestamp": 5, "input_length": 1025, "output_length": 3, "hash_ids": [1]}"#),
            r#"field "hash_ids": 1 entries for input_length 1025; expected 3 (512 tokens a block)"#
        );
        assert_eq!(fault("[1, 2]"), "expected an object, found [1,2]");
        assert_eq!(fault("{\"timestamp\": 5,"), "column 16: not JSON: EOF while parsing a value");
        let long = format!("\"{}\"", "é".repeat(100));
        assert!(fault(&long).len() < 130);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::parse(&line);
        }

        #[test]
        fn a_damaged_line_never_panics(at in 0usize..90, byte: u8) {
            let good = br#"{"timestamp": 5, "input_length": 1030, "output_length": 3, "hash_ids": [7, 8, 9]}"#;
            let mut line = good.to_vec();
            let at = at % line.len();
            line[at] = byte;
            if let Ok(request) = Request::parse(&line) {
                prop_assert_eq!(request.hash_ids.len(), request.input_tokens.div_ceil(512) as usize);
            }
        }

        #[test]
        fn what_is_written_is_read(
            at_ms: u64,
            output_tokens: u32,
            hash_ids in proptest::collection::vec(any::<u64>(), 0..50),
            missing in 0u32..512,
        ) {
            let input_tokens = (hash_ids.len() as u32 * 512).saturating_sub(missing);
            let request = Request { at_ms, input_tokens, output_tokens, hash_ids };
            let line = serde_json::to_vec(&request).unwrap();
            prop_assert_eq!(Request::parse(&line), Ok(request));
        }
    }
}
