//! One end of a connection, below any engine.

use std::sync::Arc;

use tranship_transport::fabric::{
    Event, Fabric, Grant, Local, OpId, PeerId, Posted, Provider, RegionId, Remote, RemoteKey,
    Setup, Work,
};
use tranship_transport::{Access, EngineId, Immediate, Lane, Memory, MonotonicClock, WindowId};

const WINDOW: WindowId = WindowId { slot: 0, generation: 0 };
const REGION: RegionId = RegionId(1);

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A fabric with one region, and the window of its peer's.
pub(crate) struct End {
    pub(crate) fabric: Box<dyn Fabric>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) events: Vec<Event>,
    /// How many operations were posted.
    pub(crate) ops: u64,
    peer: PeerId,
    key: RemoteKey,
}

impl End {
    /// Opens a fabric, has it meet the other one and exchanges keys.
    pub(crate) fn open(
        provider: impl Provider,
        memory: Memory,
        access: Access,
        meet: impl FnOnce(&mut dyn Fabric) -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let setup = Setup { engine: EngineId::random(), clock: Arc::new(MonotonicClock::new()) };
        let mut fabric = Box::new(provider).open(&setup)?;
        let memory = Arc::new(memory);
        fabric.register(REGION, &memory)?;
        let len = memory.len() as u64;
        let grant = Grant { window: WINDOW, region: REGION, offset: 0, len, access };
        let ours = fabric.grant(&grant)?;
        meet(&mut *fabric)?;
        let (mut peer, mut key, mut events) = (None, None, Vec::new());
        while key.is_none() {
            fabric.poll(1, &mut events);
            for event in events.drain(..) {
                match event {
                    Event::PeerUp { peer: up, .. } => {
                        peer = Some(up);
                        let bytes = &ours.key.to_le_bytes();
                        fabric.post(OpId(0), up, Lane::Bulk, Work::Send { bytes, immediate: None });
                    }
                    Event::Message { bytes, .. } => {
                        let bytes = <[u8; 8]>::try_from(bytes.as_slice())?;
                        key = Some(RemoteKey { key: u64::from_le_bytes(bytes), base: 0 });
                    }
                    other => return Err(format!("unexpected {other:?}").into()),
                }
            }
        }
        let (Some(peer), Some(key)) = (peer, key) else { return Err("no peer".into()) };
        Ok(Self { fabric, memory, events, ops: 0, peer, key })
    }

    /// Writes some of the region to the same place of the peer's.
    pub(crate) fn post(
        &mut self,
        lane: Lane,
        offset: u64,
        len: u64,
        immediate: Option<Immediate>,
    ) -> Posted {
        self.ops += 1;
        debug_assert!(offset + len <= self.memory.len() as u64, "all that is written lies inside");
        // SAFETY: all offsets used in these programs lie in the region.
        let ptr = unsafe { self.memory.as_ptr().add(offset as usize) };
        let local = Local { region: REGION, ptr, len };
        let remote = Remote { window: WINDOW, key: self.key, offset };
        let work = Work::Write { local, remote, pages: None, immediate };
        self.fabric.post(OpId(self.ops), self.peer, lane, work)
    }
}
