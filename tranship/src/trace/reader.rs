//! Reading a trace line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::error::Fault;
use super::{Error, Request};

/// An iterator over the requests of a trace. After an error it ends.
///
/// It also checks what one line cannot show: that time does not run backwards and that there is at
/// least one request. Blank lines are skipped.
pub struct Reader<R = Box<dyn BufRead>> {
    name: String,
    source: R,
    buffer: Vec<u8>,
    /// Counted from 1; 0 before the first.
    line: u64,
    bytes: u64,
    last_ms: Option<u64>,
    ended: bool,
}

impl Reader {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// [`Error::Read`] names the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path == Path::new("-") {
            return Ok(Self::new("standard input", Box::new(BufReader::new(io::stdin()))));
        }
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Ok(Self::new(name, Box::new(BufReader::with_capacity(1 << 18, file)))),
            Err(source) => Err(Error::Read { name, source }),
        }
    }
}

impl<R: BufRead> Reader<R> {
    /// A request has fewer bytes than this: 700 million tokens at 12 bytes an id.
    const LINE_BYTES_MAX: u64 = 16 << 20;

    /// Reads from `source`; `name` stands in messages.
    pub fn new(name: impl Into<String>, source: R) -> Self {
        Self {
            name: name.into(),
            source,
            buffer: Vec::new(),
            line: 0,
            bytes: 0,
            last_ms: None,
            ended: false,
        }
    }

    /// Bytes read so far, for progress.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&mut self) -> Result<Option<Request>, Error> {
        loop {
            self.buffer.clear();
            let mut limited = self.source.by_ref().take(Self::LINE_BYTES_MAX + 1);
            let read = limited
                .read_until(b'\n', &mut self.buffer)
                .map_err(|source| Error::Read { name: self.name.clone(), source })?;
            if read == 0 {
                return match self.last_ms {
                    Some(_) => Ok(None),
                    None => Err(Error::Empty { name: self.name.clone() }),
                };
            }
            self.line += 1;
            self.bytes += read as u64;
            let line = self.buffer.trim_ascii();
            if !line.is_empty() {
                let request = self.parse(line).map_err(|fault| Error::Line {
                    name: self.name.clone(),
                    line: self.line,
                    fault,
                })?;
                self.last_ms = Some(request.at_ms);
                return Ok(Some(request));
            }
        }
    }

    fn parse(&self, line: &[u8]) -> Result<Request, Fault> {
        if self.buffer.len() as u64 > Self::LINE_BYTES_MAX {
            return Err(Fault::TooLong { limit: Self::LINE_BYTES_MAX });
        }
        let request = Request::parse(line)?;
        match self.last_ms {
            Some(before_ms) if before_ms > request.at_ms => {
                Err(Fault::Order { now_ms: request.at_ms, before_ms })
            }
            _ => Ok(request),
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Request, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.read().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<Request>, String> {
        Reader::new("trace.jsonl", text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())
    }

    const GOOD: &str =
        "{\"timestamp\": 5, \"input_length\": 3, \"output_length\": 3, \"hash_ids\": [1]}\n";

    #[test]
    fn blank_lines_are_skipped_and_a_last_newline_is_optional() {
        assert_eq!(read(&format!("\n{GOOD}\r\n\n{}", GOOD.trim())).unwrap().len(), 2);
    }

    #[test]
    fn errors_name_file_and_line() {
        let bad =
            "{\"timestamp\": 6, \"input_length\": 3, \"output_length\": 3, \"hash_ids\": \"abc\"}";
        assert_eq!(
            read(&format!("{GOOD}\n{bad}\n{GOOD}")).unwrap_err(),
            "trace.jsonl:3: field \"hash_ids\": expected an array of integers, found \"abc\""
        );
        let early = GOOD.replace(": 5", ": 4");
        assert!(
            read(&format!("{GOOD}{early}"))
                .unwrap_err()
                .starts_with("trace.jsonl:2: field \"timestamp\": 4 is before 5")
        );
        assert_eq!(
            read("\n").unwrap_err(),
            "trace.jsonl: no requests in it; expected one JSON object a line"
        );
        assert!(read(&"x".repeat(17 << 20)).unwrap_err().contains("line of more than 16777216"));
    }

    #[test]
    fn it_ends_after_an_error() {
        let mut reader = Reader::new("x", "bad\n".as_bytes());
        assert!(reader.next().unwrap().is_err());
        assert!(reader.next().is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Reader::new("x", bytes.as_slice()).count();
        }
    }
}
