//! How the fabric is opened.

use std::sync::Arc;
use std::time::Duration;

use tranship_verbs_sys as sys;

use super::domain::{Domain, library};
use super::path::{self, End};
use super::port::{Opening, Port};
use super::queue::{Abilities, BUDGET, DEPTH};
use crate::address::Kind;
use crate::fabric::rdma::{Device, Rdma, Settings};
use crate::fabric::{Fabric, OpenError, Provider, Setup, tcp};

/// Rails at most.
const RAILS_MAX: usize = 16;
/// A full member of the default partition.
const PKEY_DEFAULT: u16 = 0xffff;

/// How to open the verbs fabric.
///
/// ```no_run
/// use tranship_transport::fabric::{tcp, verbs};
///
/// let control = tcp::Config::new().listen("10.0.0.7:7420").token("secret");
/// let fabric = verbs::Config::new().device("mlx5_0").control(control);
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    settings: Settings,
    devices: Vec<String>,
    gid_index: Option<u8>,
    traffic_class: u8,
    windows: bool,
    #[cfg(feature = "conformance")]
    door: Option<super::Door>,
    #[cfg(feature = "conformance")]
    plays_dma_bufs: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// The defaults: all active ports, each with the best of its addresses.
    #[must_use]
    pub fn new() -> Self {
        let settings = Settings::new(Kind::Verbs);
        Self {
            settings,
            devices: Vec::new(),
            gid_index: None,
            traffic_class: 0,
            windows: true,
            #[cfg(feature = "conformance")]
            door: None,
            #[cfg(feature = "conformance")]
            plays_dma_bufs: false,
        }
    }

    /// One more port to use, `NAME` or `NAME:PORT` as `ibv_devices(1)` calls it; all active ones where
    /// none is named.
    #[must_use]
    pub fn device(mut self, name: impl Into<String>) -> Self {
        self.devices.push(name.into());
        self
    }

    /// The address of each port to use, as its place in the table (`show_gids`). Chosen unless told
    /// otherwise: RoCE v2 over IPv4 before IPv6, before addresses of one link, before RoCE v1.
    #[must_use]
    pub fn gid_index(mut self, index: u8) -> Self {
        self.gid_index = Some(index);
        self
    }

    /// The traffic class of packets (DSCP in its upper six bits), which switches go by; 0 unless told
    /// otherwise.
    #[must_use]
    pub fn traffic_class(mut self, class: u8) -> Self {
        self.traffic_class = class;
        self
    }

    /// Whether peers get memory windows of type 2, where the device has them, or registrations of
    /// their own; windows unless told otherwise.
    #[must_use]
    pub fn memory_windows(mut self, use_them: bool) -> Self {
        self.windows = use_them;
        self
    }

    /// The connections that the rails stand on: where peers dial, what they have to know, and how soon
    /// the dead are noticed. A port of the loopback interface that the system chooses, without a
    /// token, unless told otherwise.
    #[must_use]
    pub fn control(mut self, control: tcp::Config) -> Self {
        self.settings.control = control;
        self
    }

    /// How long peers have to make their channels before payload goes over TCP; 5 s unless told
    /// otherwise.
    #[must_use]
    pub fn join_timeout(mut self, timeout: Duration) -> Self {
        self.settings.join_timeout = timeout;
        self
    }

    /// A way past everything but the hardware, for tests.
    #[cfg(feature = "conformance")]
    #[must_use]
    pub fn door(mut self, door: &super::Door) -> Self {
        self.door = Some(door.clone());
        self
    }

    /// Plays a driver that takes dma-bufs, for tests.
    ///
    /// # Safety
    /// The addresses of memory that is registered as a device's are this process's own, with the same bytes.
    #[cfg(feature = "conformance")]
    #[must_use]
    pub unsafe fn plays_dma_bufs(mut self) -> Self {
        self.plays_dma_bufs = true;
        self
    }

    /// The version of the words between fabrics that peers are told, for tests.
    #[cfg(feature = "conformance")]
    #[must_use]
    pub fn words_version(mut self, version: u16) -> Self {
        self.settings.version = version;
        self
    }

    /// The ports that these settings mean.
    fn rails(&self) -> Result<Vec<Box<dyn Device>>, String> {
        let verbs = library()?;
        let answer = verbs.devices();
        let presence = sys::devices::Presence::judge(Ok(answer
            .as_ref()
            .map_or_else(|errno| Err(*errno), |list| Ok(list.len()))));
        let list = match (answer, presence.remedy()) {
            (Ok(list), None) => list,
            (_, remedy) => return Err(format!("{presence}; {}", remedy.unwrap_or_default())),
        };
        let mut rails: Vec<Box<dyn Device>> = Vec::new();
        let mut refused: Vec<(String, String)> = Vec::new();
        for at in 0..list.len() {
            let name = list.name(at);
            if !self.devices.is_empty() && !self.devices.iter().any(|it| names(it, &name, None)) {
                continue;
            }
            let ports = match list.open(at).and_then(|context| context.attributes()) {
                Ok(attributes) => attributes.phys_port_cnt,
                Err(error) => {
                    refused.push((name, error.to_string()));
                    continue;
                }
            };
            for port in 1..=ports {
                let wanted = |it: &String| names(it, &name, Some(port));
                if !self.devices.is_empty() && !self.devices.iter().any(wanted) {
                    continue;
                }
                if rails.len() == RAILS_MAX {
                    break;
                }
                match self.rail(verbs, &list, at, port) {
                    Ok(rail) => rails.push(Box::new(rail)),
                    Err(why) => refused.push((format!("{name}:{port}"), why)),
                }
            }
        }
        if rails.is_empty() && refused.is_empty() {
            let there: Vec<String> = (0..list.len()).map(|at| list.name(at)).collect();
            let (wanted, there) = (self.devices.join(" or "), there.join(", "));
            return Err(format!("no device is called {wanted}; there are {there}"));
        }
        if rails.is_empty() {
            return Err(together(&refused));
        }
        for (name, why) in &refused {
            tracing::warn!("no rail, until the fabric is opened again: {name}: {why}");
        }
        Ok(rails)
    }

    fn rail(
        &self,
        verbs: &'static sys::Verbs,
        list: &sys::devices::Devices<'static>,
        at: usize,
        number: u8,
    ) -> Result<Port, String> {
        let name = format!("{}:{number}", list.name(at));
        let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
        let context = list.open(at).map_err(failed("ibv_open_device"))?;
        let attributes = context.attributes().map_err(failed("ibv_query_device"))?;
        let port = context.port(number).map_err(failed("ibv_query_port"))?;
        if !port.is_active() {
            let remedy = port.remedy().unwrap_or_default();
            return Err(format!("the port is {}; {remedy}", port.state_name()));
        }
        let choice = path::choose(&port, self.gid_index.map(u32::from))?;
        let gid_index = u8::try_from(choice.gid.index)
            .map_err(|_| format!("GID {} is beyond 255; name another", choice.gid.index))?;
        let (pkey_index, pkey) = pkey(verbs, &context, number);
        let roce = match choice.gid.kind {
            sys::GidType::RoceV1 => 1,
            sys::GidType::RoceV2 => 2,
            sys::GidType::Ib => 0,
        };
        let end = End {
            link_layer: port.link_layer,
            mtu: (port.mtu_bytes / 128).max(2).ilog2() as u8,
            lid: port.lid,
            gid: choice.gid.raw,
            roce,
        };
        let able = attributes.device_cap_flags & sys::IBV_DEVICE_MEM_WINDOW_TYPE_2B != 0;
        let partition = match pkey {
            PKEY_DEFAULT => format!("{pkey_index}: {pkey:#06x}, the default partition"),
            _ => format!("{pkey_index}: {pkey:#06x}, the first in the table"),
        };
        let windows = able && self.windows;
        let fences = match (windows, able) {
            (true, _) => "memory windows",
            (false, true) => "registrations, as asked for",
            (false, false) => "registrations: the device has no memory windows of type 2",
        };
        let facts = vec![
            ("address", end.to_string()),
            ("gid", format!("{}: {}", choice.gid.index, choice.why)),
            ("mtu", port.mtu_bytes.to_string()),
            ("speed", format!("{} Gbit/s", port.mbps / 1000)),
            ("class", self.traffic_class.to_string()),
            ("pkey", partition),
            ("depth", format!("{DEPTH} requests and {BUDGET} arrivals for each lane of a peer")),
            ("fences", fences.to_owned()),
        ];
        tracing::info!(
            rail = name,
            gid = choice.gid.index,
            mtu = port.mtu_bytes,
            windows,
            "rail at {end}: {}",
            choice.why
        );
        let abilities = Abilities {
            port: number,
            gid_index,
            pkey_index,
            traffic_class: self.traffic_class,
            reads_max: u8::try_from(attributes.max_qp_rd_atom).unwrap_or(u8::MAX).max(1),
        };
        #[cfg_attr(not(feature = "conformance"), expect(unused_mut, reason = "for tests alone"))]
        let mut domain = Domain::open(verbs, context).map_err(failed("ibv_alloc_pd"))?;
        #[cfg(feature = "conformance")]
        (domain.plays_dma_bufs = self.plays_dma_bufs);
        let opening = Opening { name, end, facts, abilities, windows, attributes };
        #[cfg_attr(not(feature = "conformance"), expect(unused_mut, reason = "for tests alone"))]
        let mut port = Port::open(Arc::new(domain), opening)?;
        #[cfg(feature = "conformance")]
        port.door.clone_from(&self.door);
        Ok(port)
    }

    fn fabric(&self, setup: &Setup) -> Result<Rdma, String> {
        Rdma::open(self.settings.clone(), self.rails()?, setup)
    }
}

/// Whether `NAME` or `NAME:PORT` means a device, and one of its ports where that is asked.
fn names(wanted: &str, device: &str, port: Option<u8>) -> bool {
    match wanted.rsplit_once(':') {
        Some((name, number)) => {
            name == device && port.is_none_or(|port| number == port.to_string())
        }
        None => wanted == device,
    }
}

/// What was refused, and why: those together that were for the same reason.
fn together(refused: &[(String, String)]) -> String {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, why) in refused {
        match reasons.iter_mut().find(|(it, _)| it == why) {
            Some((_, names)) => names.push(name),
            None => reasons.push((why, vec![name])),
        }
    }
    let said = |(why, names): &(&str, Vec<&str>)| format!("{}: {why}", names.join(", "));
    reasons.iter().map(said).collect::<Vec<_>>().join("; ")
}

/// The place of the default partition in a port's table, or of the first there is; and what is there.
fn pkey(verbs: &sys::Verbs, context: &sys::devices::Context<'_>, port: u8) -> (u16, u16) {
    let query = |index: u16| {
        let mut key = 0;
        // SAFETY: the device is open.
        let rc = unsafe { verbs.ibv_query_pkey(context.as_ptr(), port, index.into(), &mut key) };
        (rc == 0).then(|| u16::from_be(key))
    };
    let all = || (0..128).map_while(|index| Some((index, query(index)?)));
    all().find(|(_, key)| *key == PKEY_DEFAULT).or_else(|| all().next()).unwrap_or((0, 0))
}

impl Provider for Config {
    fn kind(&self) -> Kind {
        Kind::Verbs
    }

    fn open(self: Box<Self>, setup: &Setup) -> Result<Box<dyn Fabric>, OpenError> {
        self.fabric(setup)
            .map(|fabric| Box::new(fabric) as Box<dyn Fabric>)
            .map_err(|what| OpenError { kind: Kind::Verbs, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_for_one_reason_is_said_once() {
        let down = |name: &str| (name.to_owned(), "the port is down".to_owned());
        let other = ("c:1".to_owned(), "no usable GID".to_owned());
        let all = [down("a:1"), other, down("b:1")];
        assert_eq!(together(&all), "a:1, b:1: the port is down; c:1: no usable GID");
        assert_eq!(together(&all[1..2]), "c:1: no usable GID");
    }
}
