//! RDMA, by libibverbs and by libfabric: what this machine has, and what is missing. Both libraries are optional.

use std::collections::BTreeMap;

use tranship_ofi_sys::providers::Provider;
use tranship_ofi_sys::{Fabric, release};
use tranship_verbs_sys::Verbs;
use tranship_verbs_sys::devices::{Devices, Presence};
use tranship_verbs_sys::port::Port;

use super::Finding;

/// Bytes that an immediate of ours needs; verbs carry no more.
const IMMEDIATE_BYTES: usize = 4;

/// A device with its ports, or why they cannot be had.
struct Device {
    name: String,
    ports: Result<Vec<Port>, String>,
}

/// libibverbs, its devices, and their ports.
pub(super) fn verbs() -> Finding {
    let library = match Verbs::load() {
        Ok(library) => library,
        Err(error) => return judge_verbs(&Presence::judge(Err(&error)), &[]),
    };
    match library.devices() {
        Ok(devices) => {
            let presence = Presence::judge(Ok(Ok(devices.len())));
            judge_verbs(&presence, &examine(&devices))
        }
        Err(errno) => judge_verbs(&Presence::judge(Ok(Err(errno))), &[]),
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

fn judge_verbs(presence: &Presence, devices: &[Device]) -> Finding {
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
        true => Finding::absent("verbs", format!("{said}; this build has no verbs fabric yet")),
        false => Finding::warning("verbs", said).remedy(remedies.join("; ")),
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

/// libfabric, and the providers that could carry a fabric.
pub(super) fn ofi() -> Finding {
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
            judge_ofi(&release(library.version()), providers)
        }
    }
}

fn judge_ofi(version: &str, providers: Result<Vec<Provider>, String>) -> Finding {
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
    Finding::absent(
        "ofi",
        format!("libfabric {version}: {}; this build has no ofi fabric yet", list.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;
    use tranship_verbs_sys::{
        Gid, GidType, IBV_PORT_ACTIVE, IBV_PORT_DOWN, IBV_PORT_INIT, LoadError,
    };

    fn port(number: u8, state: u32) -> Port {
        let mut raw = [0; 16];
        raw[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 7]);
        let gids = vec![Gid { index: 3, kind: GidType::RoceV2, raw }];
        Port { number, state, link_layer: 2, mbps: 400_000, mtu_bytes: 4096, lid: 0, gids }
    }

    fn of_ports(ports: Result<Vec<Port>, String>) -> Finding {
        judge_verbs(&Presence::Devices(1), &[Device { name: "mlx5_0".to_owned(), ports }])
    }

    #[test]
    fn what_verbs_lack_is_kept_apart() {
        let missing = LoadError::NotInstalled { library: "libibverbs.so.1".into(), packages: "it" };
        let rows = [
            Presence::judge(Err(&missing)),
            Presence::judge(Ok(Err(38))),
            Presence::judge(Ok(Ok(0))),
        ]
        .map(|presence| judge_verbs(&presence, &[]));
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
        let row = of_ports(Ok(vec![port(1, IBV_PORT_ACTIVE)]));
        assert!(
            row.detail.starts_with(
                "device mlx5_0 port 1 Ethernet, 400 Gbit/s, MTU 4096, GIDs 3 RoCE v2 10.0.0.7"
            ),
            "{}",
            row.detail
        );
        let both = of_ports(Ok(vec![port(1, IBV_PORT_DOWN), port(2, IBV_PORT_ACTIVE)]));
        assert!(both.detail.contains("port 1 is down (down)"), "{}", both.detail);
        assert_ne!(both.state, State::Warning, "one of them will do");
    }

    #[test]
    fn a_device_without_a_port_that_works_is_a_warning() {
        let row = of_ports(Ok(vec![port(1, IBV_PORT_INIT)]));
        assert_eq!(row.state, State::Warning);
        assert_eq!(row.detail, "device mlx5_0 port 1 is down (waiting for a subnet manager)");
        assert!(row.remedy.is_some_and(|remedy| remedy.contains("opensm")));
        let row = of_ports(Err("Permission denied".to_owned()));
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
        let row = judge_ofi("1.17", Ok(all));
        assert!(
            row.detail.starts_with("libfabric 1.17: efa (rdmap0), tcp;ofi_rxm (eth0, lo);"),
            "{}",
            row.detail
        );
        let row = judge_ofi("1.17", Ok(vec![provider("mute", "x", 0)]));
        assert!(row.detail.contains("no provider"), "{}", row.detail);
        let row = judge_ofi("1.17", Err("out of memory".to_owned()));
        assert_eq!(row.state, State::Warning);
    }
}
