//! Handles: numbers that look like pointers, so that compilers tell their kinds apart.
//!
//! ```text
//! bits  63..58  57..48  47..24      23..0
//!       kind    birth   generation  index
//! ```
//!
//! They are never followed. A table has for each index the generation of its present object; a place whose
//! generations are used up is not used again, so that a handle that was closed is always noticed. A
//! call keeps what it works on alive, so closing a handle meanwhile is safe.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::fork;
use crate::status::{Failure, Result, tranship_status_t as Status};

const INDEX_BITS: u32 = 24;
const GENERATION_BITS: u32 = 24;
const BIRTH_BITS: u32 = 10;
const OPEN_MAX: usize = 1 << INDEX_BITS;
const GENERATION_LAST: u32 = (1 << GENERATION_BITS) - 1;

/// Something with a handle.
pub(crate) trait Object: Send + Sync + Sized + 'static {
    /// What C calls it.
    type Opaque;
    /// From 1.
    const KIND: u8;
    fn table(registry: &Registry) -> &Table<Self>;
}

macro_rules! kinds {
    ($($kind:ident $field:ident: $object:ty = $opaque:ty, $name:literal;)*) => {
        /// What handles are of, in the order of their numbers.
        enum Kind { $($kind,)* }

        const NAMES: &[&str] = &["no handle", $($name,)*];

        /// All handles of a process.
        #[derive(Default)]
        pub(crate) struct Registry { $($field: Table<$object>,)* }

        impl Registry {
            fn open(&self) -> usize {
                [$(self.$field.open()),*].iter().sum()
            }
        }

        $(impl Object for $object {
            type Opaque = $opaque;
            const KIND: u8 = Kind::$kind as u8 + 1;
            fn table(registry: &Registry) -> &Table<Self> { &registry.$field }
        })*
    };
}

kinds! {
    Engine engines: crate::engine::Engine = crate::engine::tranship_engine_t, "an engine";
    Region regions: crate::region::Region = crate::region::tranship_region_t, "a region";
    Window windows: crate::window::Window = crate::window::tranship_window_t, "a window";
    Remote remotes: crate::remote::Remote = crate::remote::tranship_remote_t, "a remote window";
    Pages pages: crate::pages::Pages = crate::pages::tranship_pages_t, "a list of pages";
    Plan plans: crate::pages::Plan = crate::pages::tranship_plan_t, "a plan";
    Queue queues: crate::queue::Queue = crate::queue::tranship_queue_t, "a queue";
    Transfer transfers: crate::transfer::Transfer = crate::transfer::tranship_transfer_t, "a transfer";
    Counter counters: crate::counter::Counter = crate::counter::tranship_counter_t, "a counter";
    Watcher watchers: crate::watcher::Watcher = crate::watcher::tranship_watcher_t, "a watcher";
    Barrier barriers: crate::barrier::Barrier = crate::barrier::tranship_barrier_t, "a barrier";
    Client clients: crate::client::Client = crate::client::tranship_client_t, "a client";
    Cache caches: crate::cache::Cache = crate::cache::tranship_cache_t, "a cache";
    Lease leases: crate::lease::Lease = crate::lease::tranship_lease_t, "a lease";
    Room rooms: crate::room::Room = crate::room::tranship_room_t, "a room";
    Jobs jobs: crate::jobs::Jobs = crate::jobs::tranship_jobs_t, "jobs";
    Events events: crate::events::Events = crate::events::tranship_events_t, "a subscription";
}

/// The objects of one kind.
pub(crate) struct Table<T> {
    slots: RwLock<Slots<T>>,
}

struct Slots<T> {
    all: Vec<Slot<T>>,
    free: Vec<u32>,
    open: usize,
}

struct Slot<T> {
    generation: u32,
    object: Option<Arc<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: RwLock::new(Slots { all: Vec::new(), free: Vec::new(), open: 0 }) }
    }
}

impl<T> Table<T> {
    fn read(&self) -> RwLockReadGuard<'_, Slots<T>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Slots<T>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> usize {
        self.read().open
    }

    /// Index and generation; gives the object back when there is no place left.
    fn put(&self, object: Arc<T>) -> std::result::Result<(u32, u32), Arc<T>> {
        let mut slots = self.write();
        let index = match slots.free.pop() {
            Some(index) => index,
            None if slots.all.len() == OPEN_MAX => return Err(object),
            None => {
                slots.all.push(Slot { generation: 0, object: None });
                slots.all.len() as u32 - 1
            }
        };
        slots.open += 1;
        let slot = &mut slots.all[index as usize];
        slot.object = Some(object);
        Ok((index, slot.generation))
    }

    fn get(&self, index: u32, generation: u32) -> Found<T> {
        Self::find(self.read().all.get(index as usize), generation)
    }

    fn take(&self, index: u32, generation: u32) -> Found<T> {
        let mut slots = self.write();
        let found = Self::find(slots.all.get(index as usize), generation);
        if let Found::Open(_) = found {
            slots.open -= 1;
            let slot = &mut slots.all[index as usize];
            slot.object = None;
            // A place whose generations are used up stays empty for good.
            if slot.generation < GENERATION_LAST {
                slot.generation += 1;
                slots.free.push(index);
            }
        }
        found
    }

    fn find(slot: Option<&Slot<T>>, generation: u32) -> Found<T> {
        match slot {
            Some(Slot { generation: now, object: Some(object) }) if *now == generation => {
                Found::Open(Arc::clone(object))
            }
            Some(slot) if generation <= slot.generation => Found::Closed,
            _ => Found::Never,
        }
    }
}

enum Found<T> {
    Open(Arc<T>),
    Closed,
    Never,
}

/// How many handles are open.
pub(crate) fn open_count() -> usize {
    fork::registry().open()
}

/// Gives an object a handle.
pub(crate) fn open<T: Object>(object: T) -> Result<*mut T::Opaque> {
    let table = T::table(fork::registry());
    let (index, generation) = table.put(Arc::new(object)).map_err(|_| {
        let text = format!("{OPEN_MAX} handles of one kind are open; close some");
        Failure::new(Status::TRANSHIP_FULL, text)
    })?;
    let kind = u64::from(T::KIND) << (INDEX_BITS + GENERATION_BITS + BIRTH_BITS);
    let birth = u64::from(here()) << (INDEX_BITS + GENERATION_BITS);
    let bits = kind | birth | u64::from(generation) << INDEX_BITS | u64::from(index);
    Ok(std::ptr::without_provenance_mut(bits as usize))
}

/// What a handle stands for.
pub(crate) fn get<T: Object>(handle: *mut T::Opaque) -> Result<Arc<T>> {
    let (index, generation) = split::<T>(handle)?;
    told::<T>(T::table(fork::registry()).get(index, generation))
}

/// What a handle stood for, which it does no more.
pub(crate) fn close<T: Object>(handle: *mut T::Opaque) -> Result<Arc<T>> {
    let (index, generation) = split::<T>(handle)?;
    told::<T>(T::table(fork::registry()).take(index, generation))
}

fn here() -> u32 {
    fork::birth() & ((1 << BIRTH_BITS) - 1)
}

/// Index and generation of a handle that is of this kind and of this process.
fn split<T: Object>(handle: *mut T::Opaque) -> Result<(u32, u32)> {
    let bits = handle.addr() as u64;
    let name = NAMES[usize::from(T::KIND)];
    if bits == 0 {
        return Err(Failure::invalid(format!("expected {name}, not NULL")));
    }
    let part = |from: u32, bits_of: u32| (bits >> from) as u32 & ((1 << bits_of) - 1);
    let kind = part(INDEX_BITS + GENERATION_BITS + BIRTH_BITS, 6);
    if kind != u32::from(T::KIND) {
        let what = NAMES.get(kind as usize).unwrap_or(&NAMES[0]);
        let text = format!("expected {name}, not {what}");
        return Err(Failure::new(Status::TRANSHIP_BAD_HANDLE, text));
    }
    if part(INDEX_BITS + GENERATION_BITS, BIRTH_BITS) != here() {
        let text = format!(
            "{name} of the process that this one was forked from; open another in this process"
        );
        return Err(Failure::new(Status::TRANSHIP_FORKED, text));
    }
    Ok((part(0, INDEX_BITS), part(INDEX_BITS, GENERATION_BITS)))
}

fn told<T: Object>(found: Found<T>) -> Result<Arc<T>> {
    let name = NAMES[usize::from(T::KIND)];
    match found {
        Found::Open(object) => Ok(object),
        Found::Closed => Err(closed(name)),
        Found::Never => {
            let text = format!("expected {name}, not a number that was never one");
            Err(Failure::new(Status::TRANSHIP_BAD_HANDLE, text))
        }
    }
}

/// The handle of something that is closed or being closed.
pub(crate) fn closed(name: &str) -> Failure {
    Failure::new(Status::TRANSHIP_CLOSED, format!("{name} that was closed before; open another"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_place_is_never_mistaken_for_its_next_owner() {
        let table = Table::default();
        let (index, first) = table.put(Arc::new(1)).unwrap();
        assert!(matches!(table.take(index, first), Found::Open(one) if *one == 1));
        assert!(matches!(table.take(index, first), Found::Closed), "closed twice");
        let (again, second) = table.put(Arc::new(2)).unwrap();
        assert_eq!((again, second), (index, first + 1));
        assert!(matches!(table.get(index, first), Found::Closed));
        assert!(matches!(table.get(index, second + 1), Found::Never));
        assert!(matches!(table.get(index + 1, 0), Found::Never));
        assert_eq!(table.open(), 1);
    }

    #[test]
    fn a_place_whose_generations_are_used_up_is_not_used_again() {
        let table = Table::default();
        let (index, _) = table.put(Arc::new(1)).unwrap();
        table.write().all[index as usize].generation = GENERATION_LAST;
        assert!(matches!(table.take(index, GENERATION_LAST), Found::Open(_)));
        assert!(matches!(table.take(index, GENERATION_LAST), Found::Closed));
        let (other, generation) = table.put(Arc::new(2)).unwrap();
        assert_eq!((other, generation), (index + 1, 0));
    }
}
