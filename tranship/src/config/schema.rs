//! The schema itself: every setting, its type, its default and its meaning.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use tranship_cache::tier::nvme;
use tranship_cache::tier::nvme::disk::PAGE_BYTES;
use tranship_transport::Kind;

use super::section::{config, section};
use super::value::{
    CodecName, DiskIo, FilePath, HugePages, IngestName, LogFormat, LogLevel, Maybe, Name, Names,
    Pairs, Percent, PolicyName, Polling, Secret, Text, Url,
};
use super::{Address, Addresses, Error};
use crate::doctor::host;
use crate::units::{Size, Span};

config! {
    serve: Serve,
    dram: Dram,
    nvme: Nvme,
    object: Object,
    policy: Policy,
    transport: Transport,
    tcp: Tcp,
    verbs: Verbs,
    ofi: Ofi,
    limits: Limits,
    log: Log,
}

section! {
    /// Where the daemon listens.
    Serve {
        /// Addresses where engines and clients connect, the best first, one of each fabric
        listen, also "listen": Addresses = Addresses::one(Address::in_runtime_dir("tranship.sock")),
        /// Address of the gRPC administration service
        admin, also "admin": Address = Address::in_runtime_dir("tranship-admin.sock"),
        /// HTTP address of /metrics, /healthz and /readyz, or off
        metrics, also "metrics": Maybe<SocketAddr> =
            Maybe::Set(SocketAddr::from((Ipv4Addr::LOCALHOST, 7421))),
    }
}

section! {
    /// The DRAM tier.
    Dram {
        /// Bytes of blocks kept in memory, all tenants together
        capacity, also "capacity": Size = default_capacity(),
        /// Back the arena with huge pages: auto takes those of the pool, else transparent ones
        huge_pages: HugePages = HugePages::Auto,
        /// NUMA node the arena lives on, or auto
        numa_node: Maybe<u32> = Maybe::Unset,
        /// Touch every page at start, so that no request pays for a page fault
        prefault: bool = true,
        /// Fill level at which eviction starts
        high_watermark: Percent = Percent::new(95),
        /// Fill level at which eviction stops
        low_watermark: Percent = Percent::new(90),
    }
}

section! {
    /// The NVMe tier: a log on a local device, for blocks that leave memory and for restarts.
    Nvme {
        /// File, directory or block device of the log, or off; what does not exist is made as a file
        path, also "nvme": Maybe<FilePath> = Maybe::Unset,
        /// Bytes of the log, or auto: what is there; of a new file 64 GiB or half of what is free
        capacity: Maybe<Size> = Maybe::Unset,
        /// Bytes that are reclaimed at once; fixed when the log is made
        segment: Size = Size::mib(64),
        /// Blocks that go there: all when stored, hot when used again, evicted when they leave memory
        ingest: IngestName = IngestName::All,
        /// Most bytes written to the device a day, or auto: no limit
        write_budget: Maybe<Size> = Maybe::Unset,
        /// What reads and writes: io_uring where it is to be had, or a pool of threads
        io: DiskIo = DiskIo::Auto,
    }
}

section! {
    /// The object tier: a bucket, which several hosts may share.
    Object {
        /// Where the bucket is, or off; a directory is a bucket too
        url, also "object": Maybe<Url> = Maybe::Unset,
        /// Settings of the service, such as endpoint or region; the others come from the environment
        settings: Maybe<Pairs> = Maybe::Unset,
        /// This daemon's name in the bucket, or auto: made of the host's and of serve.listen
        node: Maybe<Name> = Maybe::Unset,
        /// Most bytes that this daemon keeps there
        capacity: Size = Size::gib(1024),
        /// Blocks that go there: all, hot or evicted
        ingest: IngestName = IngestName::Hot,
        /// Bytes of one object
        pack: Size = Size::mib(64),
        /// Compression, lossless; auto measures whether it pays
        codec: CodecName = CodecName::Off,
        /// Never write, read what others have stored
        read_only: bool = false,
    }
}

section! {
    /// What stays and what goes.
    Policy {
        /// Policy that decides what is kept, see docs/policy.md
        name: PolicyName = PolicyName::Lineage,
    }
}

section! {
    /// How workers move bytes.
    Transport {
        /// Adaptive sleeps when idle; busy never sleeps and owns its core
        polling: Polling = Polling::Adaptive,
        /// How long an idle worker spins before it sleeps
        spin: Span = Span::micros(50),
        /// Threads that share one large copy
        copy_threads: u32 = 1,
    }
}

section! {
    /// The tcp fabric, between hosts, and the connections of verbs and ofi, which are tcp too.
    Tcp {
        /// File with the secret that both ends must have, whichever of tcp, verbs and ofi they speak
        token_file, also "token-file": Maybe<FilePath> = Maybe::Unset,
        /// The secret itself; on a command line everybody on the host sees it
        token: Maybe<Secret> = Maybe::Unset,
        /// Let in whoever reaches the daemon from another host, without a secret
        insecure, also "insecure": bool = false,
        /// Address that peers are told to connect to, or auto: the one that is listened at
        advertise: Maybe<Address> = Maybe::Unset,
        /// Streams that carry payload to one peer, or auto
        streams: Maybe<u32> = Maybe::Unset,
    }
}

section! {
    /// The verbs fabric, RDMA by libibverbs; open where serve.listen or --connect has verbs://HOST:PORT.
    Verbs {
        /// Devices to use, NAME or NAME:PORT with commas in between, or auto: every active port
        devices: Maybe<Names> = Maybe::Unset,
        /// Place in the table of GIDs of the address to use, or auto
        gid_index: Maybe<u32> = Maybe::Unset,
        /// Traffic class of packets, DSCP in its upper six bits
        traffic_class: u32 = 0,
        /// Address that peers are told to connect to, or auto: the one that is listened at
        advertise: Maybe<Address> = Maybe::Unset,
    }
}

section! {
    /// The ofi fabric, RDMA by libfabric; open where serve.listen or --connect has ofi://HOST:PORT.
    Ofi {
        /// Provider as fi_info(1) calls it, the same at both ends, or auto: the best there is
        provider: Maybe<Text> = Maybe::Unset,
        /// Only this domain of the provider: an interface or a device, or auto: all of them
        domain: Maybe<Text> = Maybe::Unset,
        /// Address of this host that providers of IP networks use, or auto: that of serve.listen
        source: Maybe<Text> = Maybe::Unset,
        /// Address that peers are told to connect to, or auto: the one that is listened at
        advertise: Maybe<Address> = Maybe::Unset,
    }
}

section! {
    /// How much the daemon lets in.
    Limits {
        /// Clients connected at the same time
        max_clients: u32 = 1024,
    }
}

section! {
    /// Logs on standard error.
    Log {
        /// Shape of a log line
        format: LogFormat = LogFormat::Text,
        /// Least severe level that is written; each -v lowers it by one
        level: LogLevel = LogLevel::Info,
    }
}

section! {
    /// One tenant, `[[tenant]]` in the file; without any, there is one tenant with all of `dram`.
    Tenant {
        /// Name that clients present
        name: String = String::new(),
        /// This tenant's share of dram.capacity, or auto: an equal part of what is left
        capacity: Maybe<Size> = Maybe::Unset,
        /// Secret that proves the name, or off
        token: Maybe<Secret> = Maybe::Unset,
    }
}

/// 4 GiB, but at most a quarter of the machine.
fn default_capacity() -> Size {
    const CAPACITY_DEFAULT: Size = Size::gib(4);
    let quarter = host::memory()
        .map_or(CAPACITY_DEFAULT, |memory| Size::mib((memory.total.bytes() / 4) >> 20));
    CAPACITY_DEFAULT.min(quarter)
}

/// How many streams carry payload to one peer.
const STREAMS: RangeInclusive<u32> = 1..=32;
/// The last place in a table of GIDs that a queue pair can name.
const GID_INDEX_MAX: u32 = 255;
/// The field of a packet has eight bits.
const TRAFFIC_CLASS_MAX: u32 = 255;
/// What the smallest block takes; a number without its unit is mostly below.
const CAPACITY_MIN_BYTES: u64 = 4096;

impl Config {
    /// Checks what no single value can show: settings that contradict each other.
    ///
    /// # Errors
    /// [`Error::Conflict`] names the settings, their values and the way out.
    pub fn check(&self) -> Result<(), Error> {
        let conflict = |text: String| Err(Error::Conflict(text));
        let Dram { capacity, high_watermark: high, low_watermark: low, .. } = &self.dram;
        if capacity.bytes() < CAPACITY_MIN_BYTES {
            let least = Size::new(CAPACITY_MIN_BYTES);
            return conflict(format!(
                "dram.capacity is {capacity}, less than one block of {least}; give the cache some \
                 memory, with a unit, as in 4GiB"
            ));
        }
        if low >= high {
            return conflict(format!(
                "dram.low_watermark {low} is not below dram.high_watermark {high}; lower it"
            ));
        }
        let mut fabrics = Vec::new();
        for address in self.serve.listen.iter() {
            let fabric = address.fabric();
            if fabrics.contains(&fabric) {
                return conflict(format!(
                    "serve.listen has two {fabric} addresses; give one (a wildcard such as \
                     tcp://0.0.0.0:PORT listens on every interface)"
                ));
            }
            fabrics.push(fabric);
        }
        let Tcp { token, token_file, advertise, streams, .. } = &self.tcp;
        if token.as_ref().is_some() && token_file.as_ref().is_some() {
            return conflict(
                "tcp.token and tcp.token_file are both given; keep one (TRANSHIP_TOKEN sets \
                 tcp.token)"
                    .to_owned(),
            );
        }
        let advertised = [
            (Kind::Tcp, advertise),
            (Kind::Verbs, &self.verbs.advertise),
            (Kind::Ofi, &self.ofi.advertise),
        ];
        for (fabric, address) in advertised {
            if let Some(address) = address.as_ref().filter(|address| address.fabric() != fabric) {
                return conflict(format!(
                    "{fabric}.advertise is {address}; expected {fabric}://HOST:PORT"
                ));
            }
        }
        let Verbs { gid_index, traffic_class, .. } = &self.verbs;
        if let Some(index) = gid_index.as_ref().filter(|index| **index > GID_INDEX_MAX) {
            return conflict(format!(
                "verbs.gid_index is {index}; use 0 to {GID_INDEX_MAX}, or auto (show_gids lists them)"
            ));
        }
        if *traffic_class > TRAFFIC_CLASS_MAX {
            return conflict(format!(
                "verbs.traffic_class is {traffic_class}; use 0 to {TRAFFIC_CLASS_MAX}"
            ));
        }
        if streams.as_ref().is_some_and(|&streams| !STREAMS.contains(&streams)) {
            return conflict(format!(
                "tcp.streams is {streams}; use {} to {}",
                STREAMS.start(),
                STREAMS.end()
            ));
        }
        let Nvme { capacity: log, segment, write_budget, .. } = &self.nvme;
        let possible = nvme::SEGMENT_BYTES.contains(&segment.bytes());
        if !possible || !segment.bytes().is_multiple_of(PAGE_BYTES) {
            let (least, most) = (*nvme::SEGMENT_BYTES.start(), *nvme::SEGMENT_BYTES.end());
            return conflict(format!(
                "nvme.segment is {segment}; use {} to {} in steps of {}, 64MiB where nothing speaks against it",
                Size::new(least),
                Size::new(most),
                Size::new(PAGE_BYTES)
            ));
        }
        if log.as_ref().is_some_and(|log| log.bytes() == 0) {
            return conflict("nvme.capacity is 0B; use auto, or a size such as 64GiB".to_owned());
        }
        if let Some(budget) = write_budget.as_ref().filter(|budget| *budget < segment) {
            return conflict(format!(
                "nvme.write_budget is {budget} a day, less than a segment of {segment}; raise it, or use auto \
                 for no limit"
            ));
        }
        let Object { capacity: bucket, pack, .. } = &self.object;
        if bucket < pack {
            return conflict(format!(
                "object.capacity is {bucket}, less than one object.pack of {pack}; raise it"
            ));
        }
        if self.transport.copy_threads == 0 {
            return conflict("transport.copy_threads is 0; use 1 or more".to_owned());
        }
        for (index, tenant) in self.tenants.iter().enumerate() {
            let name = &tenant.name;
            if name.is_empty() {
                return conflict(format!("tenant {} has no name", index + 1));
            }
            if self.tenants[..index].iter().any(|other| other.name == *name) {
                return conflict(format!("two tenants are named {name:?}; names must differ"));
            }
        }
        let claimed = self.tenants.iter().fold(0u64, |sum, tenant| {
            sum.saturating_add(tenant.capacity.as_ref().map_or(0, |size| size.bytes()))
        });
        if claimed > capacity.bytes() {
            return conflict(format!(
                "tenants claim {} together, more than dram.capacity {capacity}; raise it or lower \
                 theirs",
                Size::new(claimed)
            ));
        }
        Ok(())
    }

    /// Checks that the arena fits into the memory of this machine.
    ///
    /// # Errors
    /// [`Error::DoesNotFit`] says how much there is and what to use instead.
    pub fn check_memory(&self, memory: &host::Memory) -> Result<(), Error> {
        let capacity = self.dram.capacity;
        if capacity <= memory.available {
            return Ok(());
        }
        Err(Error::DoesNotFit { capacity, total: memory.total, available: memory.available })
    }
}
