//! Reading and writing of fields.

use std::fmt::Display;

use tranship_transport::{Access, Address, Descriptor, EngineId, Route, WindowId};

use super::TEXT_BYTES_MAX;
use crate::key::{KEY_BYTES, Key};

/// Most routes in a window's descriptor.
const ROUTES_MAX: usize = 16;

/// A message that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends within a field.
    #[error("message of {len} bytes ends within field {field:?}, which needs {need} bytes at {at}")]
    Short {
        /// The field.
        field: &'static str,
        /// Where the field starts, bytes.
        at: usize,
        /// How many bytes the field needs.
        need: usize,
        /// How long the message is, bytes.
        len: usize,
    },
    /// It goes on after its last field.
    #[error("message has {extra} bytes after its last field")]
    Long {
        /// How many.
        extra: usize,
    },
    /// A field has a value that it cannot have.
    #[error("field {field:?} is {value}, expected {expected}")]
    Value {
        /// The field.
        field: &'static str,
        /// The value found.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

impl Malformed {
    pub(crate) fn value(field: &'static str, value: impl Display, expected: &'static str) -> Self {
        Self::Value { field, value: format!("{value}"), expected }
    }
}

/// Reads fields off a message.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `n` bytes.
    pub(crate) fn raw(&mut self, n: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let (at, len) = (self.at, self.bytes.len());
        let short = Malformed::Short { field, at, need: n, len };
        let end = at.checked_add(n).filter(|end| *end <= len).ok_or(short)?;
        self.at = end;
        Ok(&self.bytes[at..end])
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        Ok(self.raw(N, field)?.try_into().expect("raw gives as many as asked for"))
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        Ok(self.array::<1>(field)?[0])
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(crate) fn key(&mut self, field: &'static str) -> Result<Key, Malformed> {
        self.array::<KEY_BYTES>(field).map(Key::from_bytes)
    }

    /// How many follow, checked against a limit and against the bytes that are left.
    pub(crate) fn count(
        &mut self,
        field: &'static str,
        max: usize,
        each_bytes: usize,
    ) -> Result<usize, Malformed> {
        let count = self.u32(field)? as usize;
        if count > max {
            return Err(Malformed::value(field, count, "a count within the protocol's limit"));
        }
        let (at, len, need) = (self.at, self.bytes.len(), count * each_bytes);
        if need > len - at {
            return Err(Malformed::Short { field, at, need, len });
        }
        Ok(count)
    }

    pub(crate) fn bytes(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], Malformed> {
        let len = self.count(field, max, 1)?;
        self.raw(len, field)
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, Malformed> {
        let bytes = self.bytes(field, TEXT_BYTES_MAX)?;
        let wrong = |_| Malformed::value(field, bytes.escape_ascii(), "UTF-8 text");
        std::str::from_utf8(bytes).map(str::to_owned).map_err(wrong)
    }

    pub(crate) fn keys(&mut self, field: &'static str, max: usize) -> Result<Vec<Key>, Malformed> {
        let count = self.count(field, max, KEY_BYTES)?;
        (0..count).map(|_| self.key(field)).collect()
    }

    pub(crate) fn descriptor(&mut self) -> Result<Descriptor, Malformed> {
        let engine = EngineId(u128::from_le_bytes(self.array("engine")?));
        let window = WindowId { slot: self.u32("window")?, generation: self.u32("generation")? };
        let len = self.u64("window length")?;
        let access = Access::from_bits(self.u8("access")?);
        let count = self.count("routes", ROUTES_MAX, 1)?;
        let mut routes = Vec::with_capacity(count);
        for _ in 0..count {
            let address = self.text("route")?.parse::<Address>();
            let (key, base) = (self.u64("key")?, self.u64("base")?);
            // Over a fabric that this version does not know: others may lead there.
            routes.extend(address.ok().map(|address| Route { address, key, base }));
        }
        Ok(Descriptor { engine, window, len, access, routes })
    }

    /// Ends the message.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            extra => Err(Malformed::Long { extra }),
        }
    }
}

/// Writes fields into a message.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("batches are limited"));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// Text, cut at a character boundary if it is longer than a message may carry.
    pub(crate) fn text(&mut self, text: &str) {
        self.text_within(text, TEXT_BYTES_MAX);
    }

    pub(crate) fn text_within(&mut self, text: &str, bytes_max: usize) {
        let mut end = text.len().min(bytes_max);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes(&text.as_bytes()[..end]);
    }

    pub(crate) fn keys(&mut self, keys: &[Key]) {
        self.count(keys.len());
        for key in keys {
            self.raw(key.as_bytes());
        }
    }

    pub(crate) fn descriptor(&mut self, descriptor: &Descriptor) {
        self.raw(&descriptor.engine.0.to_le_bytes());
        self.u32(descriptor.window.slot);
        self.u32(descriptor.window.generation);
        self.u64(descriptor.len);
        self.u8(descriptor.access.bits());
        // Whoever does not know a fabric passes over the routes that lead over it.
        let routes = &descriptor.routes[..descriptor.routes.len().min(ROUTES_MAX)];
        self.count(routes.len());
        for route in routes {
            self.text(&route.address.to_string());
            self.u64(route.key);
            self.u64(route.base);
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}
