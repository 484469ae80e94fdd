//! The bytes of an answer, piece by piece as they come.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use tokio::task::JoinHandle;

use super::fault::{Fault, Kind};

/// Bytes of a file that are read at once.
const FILE_PIECE_BYTES: usize = 1 << 20;
/// Buffers that wait for the next file: new memory costs as much as what is read into it.
const BUFFERS_MAX: usize = 32;

/// Taken alone, for a push or a pop.
static BUFFERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Where they come from.
pub(super) enum Pieces {
    /// A service; the client's own buffers.
    Stream { from: BoxStream<'static, object_store::Result<Bytes>>, last: Bytes },
    /// A file.
    File(Reading),
}

/// A file that is read on threads that may wait for disks.
pub(super) struct Reading {
    left: Range<u64>,
    /// What the next read needs, unless a read is under way.
    idle: Option<(File, Vec<u8>)>,
    under_way: Option<JoinHandle<Read>>,
}

/// How a read ended, and what it was made with.
type Read = (io::Result<()>, File, Vec<u8>);

impl Pieces {
    pub(super) fn of_stream(from: BoxStream<'static, object_store::Result<Bytes>>) -> Self {
        Self::Stream { from, last: Bytes::new() }
    }

    pub(super) fn of_file(file: File, left: Range<u64>) -> Self {
        let buffer = BUFFERS.lock().ok().and_then(|mut buffers| buffers.pop());
        let buffer = buffer.unwrap_or_else(|| vec![0; FILE_PIECE_BYTES]);
        Self::File(Reading { left, idle: Some((file, buffer)), under_way: None })
    }

    /// The next bytes, or none at the end. Whoever gives up waiting may ask again.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, Fault> {
        match self {
            Self::Stream { from, last } => match from.next().await {
                None => Ok(None),
                Some(Err(error)) => Err(error.into()),
                Some(Ok(bytes)) => {
                    *last = bytes;
                    Ok(Some(&last[..]))
                }
            },
            Self::File(reading) => reading.next().await,
        }
    }
}

impl Reading {
    async fn next(&mut self) -> Result<Option<&[u8]>, Fault> {
        let len = (self.left.end - self.left.start).min(FILE_PIECE_BYTES as u64) as usize;
        if len == 0 {
            return Ok(None);
        }
        if let Some((file, mut buffer)) = self.idle.take() {
            let at = self.left.start;
            let read = move || {
                let read = file.read_exact_at(&mut buffer[..len], at);
                (read, file, buffer)
            };
            self.under_way = Some(tokio::task::spawn_blocking(read));
        }
        let closing = || Fault::new(Kind::Passing, "the tier is closing");
        let (read, file, buffer) = match &mut self.under_way {
            Some(under_way) => under_way.await.map_err(|_| closing())?,
            None => return Err(closing()),
        };
        self.under_way = None;
        let (_, buffer) = self.idle.insert((file, buffer));
        read.map_err(|error| Fault::new(Kind::Passing, error.to_string()))?;
        self.left.start += len as u64;
        Ok(Some(&buffer[..len]))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some((_, buffer)) = self.idle.take()
            && let Ok(mut buffers) = BUFFERS.lock()
            && buffers.len() < BUFFERS_MAX
        {
            buffers.push(buffer);
        }
    }
}
