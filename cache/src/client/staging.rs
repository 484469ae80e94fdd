//! How a client gets at the bytes of the arena: in place where it can be mapped, else by one-sided
//! transfers through memory of its own.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tranship_transport::{
    Engine, HostMemory, MapError, Mapping, Outcome, Reason, Region, RegionError, RemoteWindow,
};

/// Idle staging regions kept for the next transfer.
const IDLE_MAX: usize = 8;

/// The tenant's arena, as this client reaches it.
#[derive(Debug)]
pub(super) enum Arena {
    /// In this process's address space.
    Mapped(Mapping),
    /// Through the fabric.
    Remote { engine: Engine, window: RemoteWindow, idle: Mutex<Vec<Region>>, deadline: Duration },
}

impl Arena {
    /// Maps the arena, or falls back to transfers where the fabric cannot map.
    pub(super) fn open(
        engine: &Engine,
        window: RemoteWindow,
        deadline: Duration,
    ) -> Result<Self, MapError> {
        match engine.map(&window, deadline) {
            Ok(mapping) => Ok(Self::Mapped(mapping)),
            Err(MapError { outcome: Outcome::Rejected(Reason::Unsupported) }) => {
                let (engine, idle) = (engine.clone(), Mutex::default());
                Ok(Self::Remote { engine, window, idle, deadline })
            }
            Err(error) => Err(error),
        }
    }

    /// Copies bytes of the arena to `into`; their checksum.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> Result<u64, Failure> {
        match self {
            Self::Mapped(mapping) => {
                let at = mapped(mapping, offset, into.len())?;
                mapping.memory().copy_out(at, into).map_err(|_| OUTSIDE)
            }
            Self::Remote { engine, window, deadline, .. } => {
                let len = into.len() as u64;
                let staging = self.staging(len)?;
                let remote =
                    window.slice(offset..offset.saturating_add(len)).map_err(|_| OUTSIDE)?;
                let local = staging.slice(0..len).map_err(|_| OUTSIDE)?;
                match engine.read(remote, local).deadline(*deadline).wait() {
                    Outcome::Done => {
                        let sum = staging.memory().copy_out(0, into).map_err(|_| OUTSIDE)?;
                        self.keep(staging);
                        Ok(sum)
                    }
                    outcome => Err(Failure::Transfer(outcome)),
                }
            }
        }
    }

    /// Copies `bytes` into the arena; their checksum.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<u64, Failure> {
        match self {
            Self::Mapped(mapping) => {
                let at = mapped(mapping, offset, bytes.len())?;
                mapping.memory().copy_in(at, bytes).map_err(|_| OUTSIDE)
            }
            Self::Remote { engine, window, deadline, .. } => {
                let len = bytes.len() as u64;
                let staging = self.staging(len)?;
                let sum = staging.memory().copy_in(0, bytes).map_err(|_| OUTSIDE)?;
                let remote =
                    window.slice(offset..offset.saturating_add(len)).map_err(|_| OUTSIDE)?;
                let local = staging.slice(0..len).map_err(|_| OUTSIDE)?;
                match engine.write(local, remote).deadline(*deadline).wait() {
                    Outcome::Done => {
                        self.keep(staging);
                        Ok(sum)
                    }
                    outcome => Err(Failure::Transfer(outcome)),
                }
            }
        }
    }

    /// The mapping, where there is one.
    pub(super) fn mapping(&self) -> Option<&Mapping> {
        match self {
            Self::Mapped(mapping) => Some(mapping),
            Self::Remote { .. } => None,
        }
    }

    /// Memory of at least `len` bytes to transfer through.
    fn staging(&self, len: u64) -> Result<Region, Failure> {
        let Self::Remote { engine, idle, .. } = self else { return Err(OUTSIDE) };
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fits) = idle.iter().position(|region| region.len() >= len) {
            return Ok(idle.swap_remove(fits));
        }
        drop(idle);
        let len = usize::try_from(len).map_err(|_| OUTSIDE)?;
        engine.alloc(HostMemory::new(len).name("staging")).map_err(Failure::Memory)
    }

    fn keep(&self, region: Region) {
        let Self::Remote { idle, .. } = self else { return };
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(region);
        }
    }
}

/// Where `len` bytes at `offset` of the window are in the mapped region.
fn mapped(mapping: &Mapping, offset: u64, len: usize) -> Result<usize, Failure> {
    let offset = usize::try_from(offset).map_err(|_| OUTSIDE)?;
    match offset.checked_add(len) {
        Some(end) if end <= mapping.len() => Ok(mapping.offset() + offset),
        _ => Err(OUTSIDE),
    }
}

/// Why bytes did not move.
#[derive(Debug)]
pub(super) enum Failure {
    Transfer(Outcome),
    Memory(RegionError),
}

const OUTSIDE: Failure = Failure::Transfer(Outcome::Rejected(Reason::OutOfBounds));

impl Failure {
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Transfer(outcome) => outcome,
            Self::Memory(error) => {
                tracing::warn!(%error, "no memory to transfer through");
                Outcome::Rejected(Reason::Full)
            }
        }
    }
}
