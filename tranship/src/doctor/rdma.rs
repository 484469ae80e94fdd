//! RDMA, by libibverbs and by libfabric: what this machine has, and what is missing. Both libraries are optional.

use std::collections::BTreeMap;

use tranship_ofi_sys::providers::Provider;
use tranship_ofi_sys::{Fabric, release};
use tranship_verbs_sys::Verbs;
use tranship_verbs_sys::devices::{Devices, Presence};
use tranship_verbs_sys::port::Port;

use super::probe::Measured;
use super::{Finding, probe};
use crate::config::{Address, Config};
use crate::net;

/// Bytes that an immediate of ours needs; verbs carry no more.
const IMMEDIATE_BYTES: usize = 4;

/// A device with its ports, or why they cannot be had.
struct Device {
    name: String,
    ports: Result<Vec<Port>, String>,
}

/// libibverbs, its devices, and their ports; what they do as configured.
pub(super) fn verbs(config: &Config) -> Finding {
    let (host, port) = ("127.0.0.1".to_owned(), 0);
    let listen = Address::Verbs { host, port };
    let open = || net::verbs(config, Some(&listen), None);
    let attempt = || probe::measure(open(), open());
    let library = match Verbs::load() {
        Ok(library) => library,
        Err(error) => return judge_verbs(&Presence::judge(Err(&error)), &[], attempt),
    };
    match library.devices() {
        Ok(devices) => {
            let presence = Presence::judge(Ok(Ok(devices.len())));
            judge_verbs(&presence, &examine(&devices), attempt)
        }
        Err(errno) => judge_verbs(&Presence::judge(Ok(Err(errno))), &[], attempt),
    }
}

fn examine(devices: &Devices<'_>) -> Vec<Device> {
    let ports = |device| {
        let context = devices.open(device)?;
        let count = context.attributes()?.phys_port_cnt;
        (1..=count).map(|number| context.port(number)).collect::<Result<Vec<_>, _>>()
    };
    let device = |device| Device {
        name: devices.name(device),
        ports: ports(device).map_err(|error| error.to_string()),
    };
    (0..devices.len()).map(device).collect()
}

/// `attempt` opens the fabric twice and moves bytes; it is made where it may succeed.
fn judge_verbs(
    presence: &Presence,
    devices: &[Device],
    attempt: impl FnOnce() -> Result<Measured, String>,
) -> Finding {
    if !matches!(presence, Presence::Devices(_)) {
        let finding = match presence {
            Presence::Unusable(_) | Presence::Failed(_) => {
                Finding::warning("verbs", presence.to_string())
            }
            _ => Finding::absent("verbs", presence.to_string()),
        };
        return match presence.remedy() {
            Some(remedy) => finding.remedy(remedy),
            None => finding,
        };
    }
    let (mut said, mut remedies, mut active) = (Vec::new(), Vec::new(), false);
    for Device { name, ports } in devices {
        let ports = match ports {
            Ok(ports) => ports,
            Err(why) => {
                said.push(format!("device {name} cannot be opened: {why}"));
                remedies.push("give this user /dev/infiniband/uverbs*; in a container, share it");
                continue;
            }
        };
        for port in ports {
            active |= port.is_active();
            said.push(match port.is_active() {
                true => format!("device {name} {port}, {}", addresses(port)),
                false => {
                    format!("device {name} port {} is down ({})", port.number, port.state_name())
                }
            });
            remedies.extend(port.remedy());
        }
    }
    remedies.dedup();
    let said = said.join("; ");
    match active {
        true => judge_attempt("verbs", &said, attempt()),
        false => Finding::warning("verbs", said).remedy(remedies.join("; ")),
    }
}

/// A fabric that should work.
fn judge_attempt(name: &'static str, said: &str, attempt: Result<Measured, String>) -> Finding {
    match attempt {
        Ok(Measured { speed, rails }) => {
            let rails: Vec<String> = rails.into_iter().map(|rail| rail.name).collect();
            let by = rails.join(", ");
            Finding::ready(name, format!("{speed} on this host by {by}; {said}")).measured(speed)
        }
        Err(why) => {
            Finding::warning(name, format!("{said}; a transfer on this host failed: {why}"))
                .remedy(format!("tranship bench transport --fabric {name} -vv shows more"))
        }
    }
}

fn addresses(port: &Port) -> String {
    match port.gids.as_slice() {
        [] => "no GID".to_owned(),
        gids => {
            let gids: Vec<String> = gids.iter().map(ToString::to_string).collect();
            format!("GIDs {}", gids.join(", "))
        }
    }
}

/// libfabric, and the providers that could carry a fabric; what it does as configured.
pub(super) fn ofi(config: &Config) -> Finding {
    let (host, port) = ("127.0.0.1".to_owned(), 0);
    let listen = Address::Ofi { host, port };
    let open = || net::ofi(config, Some(&listen), None);
    match Fabric::load() {
        Err(error) if error.is_absent() => Finding::absent("ofi", "libfabric is not installed")
            .remedy("install libfabric1 (Debian, Ubuntu) or libfabric (RHEL)"),
        Err(error) => {
            Finding::warning("ofi", error.to_string()).remedy("install libfabric 1.15 or later")
        }
        Ok(library) => {
            let providers = library
                .providers()
                .map_err(|error| library.error(error).to_string_lossy().into_owned());
            let attempt = || probe::measure(open(), open());
            judge_ofi(&release(library.version()), providers, attempt)
        }
    }
}

fn judge_ofi(
    version: &str,
    providers: Result<Vec<Provider>, String>,
    attempt: impl FnOnce() -> Result<Measured, String>,
) -> Finding {
    let providers = match providers {
        Ok(providers) => providers,
        Err(why) => {
            return Finding::warning(
                "ofi",
                format!("libfabric {version} lists no providers: {why}"),
            )
            .remedy("fi_info (libfabric-bin) shows more, with FI_LOG_LEVEL=warn");
        }
    };
    let mut domains: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for provider in providers {
        if provider.immediate_bytes >= IMMEDIATE_BYTES {
            let of_it = domains.entry(provider.name).or_default();
            if !of_it.contains(&provider.domain) {
                of_it.push(provider.domain);
            }
        }
    }
    if domains.is_empty() {
        let none = format!(
            "libfabric {version} has no provider with reliable datagrams, one-sided writes and immediates"
        );
        return Finding::absent("ofi", none).remedy(
            "unset FI_PROVIDER; fi_info -t FI_EP_RDM -c 'FI_RMA|FI_MSG' shows what there is",
        );
    }
    let list: Vec<String> =
        domains.iter().map(|(name, domains)| format!("{name} ({})", domains.join(", "))).collect();
    judge_attempt("ofi", &format!("libfabric {version}: {}", list.join(", ")), attempt())
}

#[cfg(test)]
mod tests {
    use tranship_transport::{Kind, Rail};

    use super::*;
    use crate::doctor::{Speed, State};
    use tranship_verbs_sys::{
        Gid, GidType, IBV_PORT_ACTIVE, IBV_PORT_DOWN, IBV_PORT_INIT, LoadError,
    };

    fn port(number: u8, state: u32) -> Port {
        let mut raw = [0; 16];
        raw[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 7]);
        let gids = vec![Gid { index: 3, kind: GidType::RoceV2, raw }];
        Port { number, state, link_layer: 2, mbps: 400_000, mtu_bytes: 4096, lid: 0, gids }
    }

    const SPEED: Speed = Speed { gb_per_s: 48.25, one_way_us: 1.72 };

    fn works() -> Result<Measured, String> {
        let (fabric, name) = (Kind::Verbs, "mlx5_0:1".to_owned());
        let rail = Rail { fabric, name, facts: Vec::new(), down: None };
        Ok(Measured { speed: SPEED, rails: vec![rail] })
    }

    fn never() -> Result<Measured, String> {
        panic!("nothing is there to be tried")
    }

    fn of_ports(
        ports: Result<Vec<Port>, String>,
        attempt: impl FnOnce() -> Result<Measured, String>,
    ) -> Finding {
        let devices = [Device { name: "mlx5_0".to_owned(), ports }];
        judge_verbs(&Presence::Devices(1), &devices, attempt)
    }

    #[test]
    fn what_verbs_lack_is_kept_apart() {
        let missing = LoadError::NotInstalled { library: "libibverbs.so.1".into(), packages: "it" };
        let rows = [
            Presence::judge(Err(&missing)),
            Presence::judge(Ok(Err(38))),
            Presence::judge(Ok(Ok(0))),
        ]
        .map(|presence| judge_verbs(&presence, &[], never));
        let details = rows.each_ref().map(|row| row.detail.as_str());
        assert_eq!(
            details,
            ["rdma-core is not installed", "no RDMA kernel support", "no RDMA device"]
        );
        assert!(rows.iter().all(|row| row.state == State::Absent), "none of it is a fault");
        let mut remedies: Vec<_> = rows.iter().filter_map(|row| row.remedy.clone()).collect();
        remedies.dedup();
        assert_eq!(remedies.len(), 3, "each has advice of its own: {remedies:?}");
    }

    #[test]
    fn an_active_port_is_described() {
        let row = of_ports(Ok(vec![port(1, IBV_PORT_ACTIVE)]), works);
        assert_eq!((row.state, row.speed.map(|it| it.gb_per_s)), (State::Ready, Some(48.25)));
        assert_eq!(
            row.detail,
            "48.2 GB/s, 1.7 µs on this host by mlx5_0:1; device mlx5_0 port 1 Ethernet, 400 Gbit/s, MTU 4096, \
             GIDs 3 RoCE v2 10.0.0.7"
        );
        let failed = || Err("ibv_reg_mr: out of memory".to_owned());
        let row = of_ports(Ok(vec![port(1, IBV_PORT_ACTIVE)]), failed);
        assert_eq!(row.state, State::Warning, "a port is not enough");
        assert!(row.detail.ends_with("failed: ibv_reg_mr: out of memory"), "{}", row.detail);
        assert!(row.remedy.is_some_and(|remedy| remedy.contains("--fabric verbs")));
        let both = of_ports(Ok(vec![port(1, IBV_PORT_DOWN), port(2, IBV_PORT_ACTIVE)]), works);
        assert!(both.detail.contains("port 1 is down (down)"), "{}", both.detail);
        assert_ne!(both.state, State::Warning, "one of them will do");
    }

    #[test]
    fn a_device_without_a_port_that_works_is_a_warning() {
        let row = of_ports(Ok(vec![port(1, IBV_PORT_INIT)]), never);
        assert_eq!(row.state, State::Warning);
        assert_eq!(row.detail, "device mlx5_0 port 1 is down (waiting for a subnet manager)");
        assert!(row.remedy.is_some_and(|remedy| remedy.contains("opensm")));
        let row = of_ports(Err("Permission denied".to_owned()), never);
        assert_eq!(row.state, State::Warning);
        assert!(row.remedy.is_some_and(|remedy| remedy.contains("/dev/infiniband")));
    }

    #[test]
    fn providers_that_carry_no_immediate_are_left_out() {
        let provider = |name: &str, domain: &str, immediate_bytes| Provider {
            name: name.to_owned(),
            domain: domain.to_owned(),
            immediate_bytes,
            mr_mode: 0,
            transfer_bytes_max: 1 << 30,
        };
        let all = vec![
            provider("tcp;ofi_rxm", "eth0", 8),
            provider("efa", "rdmap0", 4),
            provider("tcp;ofi_rxm", "lo", 8),
            provider("tcp;ofi_rxm", "eth0", 8),
            provider("mute", "x", 0),
        ];
        let row = judge_ofi("1.17", Ok(all.clone()), works);
        assert_eq!(row.state, State::Ready);
        assert!(
            row.detail.ends_with("; libfabric 1.17: efa (rdmap0), tcp;ofi_rxm (eth0, lo)"),
            "{}",
            row.detail
        );
        let row = judge_ofi("1.17", Ok(all), || Err("no rail".to_owned()));
        assert_eq!(row.state, State::Warning);
        assert!(row.remedy.is_some_and(|remedy| remedy.contains("--fabric ofi")));
        let row = judge_ofi("1.17", Ok(vec![provider("mute", "x", 0)]), never);
        assert!(row.detail.contains("no provider"), "{}", row.detail);
        let row = judge_ofi("1.17", Err("out of memory".to_owned()), never);
        assert_eq!(row.state, State::Warning);
    }
}
