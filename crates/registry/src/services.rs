//! Addresses and node ports of Services.
//!
//! What is taken is read from the services that exist; what is being written is held meanwhile. So nothing leaks
//! and nothing needs repair after a crash.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{Status, meta};
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::admission::{Hold, Request};
use crate::{Admission, Operation, Options};

const SERVICES: &str = "services";

/// The plugin that gives services their addresses and ports. It holds what is being written.
#[derive(Clone, Default)]
pub(crate) struct ServiceAddresses(Arc<Mutex<Taken>>);

#[derive(Clone, Debug, Default, PartialEq)]
struct Taken {
    addresses: BTreeSet<IpAddr>,
    /// `(protocol, port)`.
    ports: BTreeSet<(String, u16)>,
}

/// Gives back what it holds when it is dropped: by then the service exists, or never will.
struct Held {
    pending: Arc<Mutex<Taken>>,
    taken: Taken,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.pending.lock();
        all.addresses.retain(|address| !self.taken.addresses.contains(address));
        all.ports.retain(|port| !self.taken.ports.contains(port));
    }
}

#[async_trait]
impl Admission for ServiceAddresses {
    fn name(&self) -> &'static str {
        "ServiceAddresses"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        let def = &request.resource.def;
        def.group.is_empty()
            && def.plural == SERVICES
            && request.subresource.is_empty()
            && matches!(request.operation, Operation::Create | Operation::Update)
    }

    async fn reserve(&self, request: &mut Request<'_>) -> Result<Option<Hold>, Status> {
        let (registry, old) = (request.registry, request.old);
        let Some(object) = request.object_mut() else { return Ok(None) };
        let path = crate::entry::object_path(meta::namespace(object), meta::name(object));
        let mut pending = self.0.lock();
        let mut taken = pending.clone();
        for entry in registry.builtin("", SERVICES)?.storage.cache.all(None) {
            let own = crate::entry::object_path(entry.namespace(), entry.name()) == path;
            if !own {
                collect(&entry.value(), &mut taken);
            }
        }
        let mut errors = Errors::new();
        let wanted = complete(object, old, &taken, &registry.options, &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid("", "Service", meta::name(object), &errors));
        }
        pending.addresses.extend(&wanted.addresses);
        pending.ports.extend(wanted.ports.iter().cloned());
        drop(pending);
        Ok(Some(Box::new(Held { pending: self.0.clone(), taken: wanted })))
    }
}

/// What a service has taken.
fn collect(service: &Value, taken: &mut Taken) {
    let addresses = service.pointer("/spec/clusterIPs").and_then(Value::as_array).into_iter().flatten();
    taken.addresses.extend(addresses.filter_map(|address| address.as_str()?.parse::<IpAddr>().ok()));
    for port in service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten() {
        if let Some(number) = port["nodePort"].as_u64().and_then(|number| u16::try_from(number).ok()) {
            taken.ports.insert((port["protocol"].as_str().unwrap_or("TCP").to_owned(), number));
        }
    }
    if let Some(port) = service.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64) {
        taken.ports.extend(u16::try_from(port).ok().map(|port| ("TCP".to_owned(), port)));
    }
}

/// Fills in addresses and ports, and says what the service now takes. Pure.
fn complete(object: &mut Value, old: Option<&Value>, taken: &Taken, options: &Options, errors: &mut Errors) -> Taken {
    let mut wanted = Taken::default();
    let kind = object.pointer("/spec/type").and_then(Value::as_str).unwrap_or("ClusterIP").to_owned();
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return wanted };
    if kind == "ExternalName" {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.remove(key);
        }
        return wanted;
    }
    let old_spec = old.and_then(|old| old.get("spec"));
    let old_ip = old_spec.and_then(|spec| spec["clusterIP"].as_str()).unwrap_or_default();
    let given = spec.get("clusterIP").or_else(|| spec.get("clusterIPs")?.get(0)).and_then(Value::as_str).unwrap_or_default();
    let address = if given.is_empty() { old_ip.to_owned() } else { given.to_owned() };
    let address = match address.as_str() {
        "None" => "None".to_owned(),
        "" => match free_address(options.service_cidr, &taken.addresses) {
            Some(address) => address.to_string(),
            None => {
                errors.push(Error::internal(&Path::new("spec").child("clusterIPs"), "failed to allocate IP: range is full"));
                return wanted;
            }
        },
        asked => {
            check_address(asked, taken, options, errors);
            asked.to_owned()
        }
    };
    wanted.addresses.extend(address.parse::<IpAddr>().ok());
    let family = if options.service_cidr.0.is_ipv6() { "IPv6" } else { "IPv4" };
    spec.insert("clusterIP".into(), address.clone().into());
    spec.insert("clusterIPs".into(), json!([address]));
    spec.entry("ipFamilies").or_insert_with(|| json!([family]));
    spec.entry("ipFamilyPolicy").or_insert_with(|| "SingleStack".into());
    let balanced = kind == "LoadBalancer" && spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
    if kind == "NodePort" || balanced {
        assign_ports(spec, old_spec, taken, options, &mut wanted, errors);
    } else if kind == "ClusterIP" {
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
        ports.filter_map(Value::as_object_mut).for_each(|port| drop(port.remove("nodePort")));
    }
    wanted
}

fn check_address(asked: &str, taken: &Taken, options: &Options, errors: &mut Errors) {
    let path = Path::new("spec").child("clusterIPs");
    let Ok(address) = asked.parse::<IpAddr>() else {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(Error::invalid(&path.index(0), asked, detail));
        return;
    };
    let (base, bits) = options.service_cidr;
    if !contains(base, bits, address) {
        let detail = format!(
            "failed to allocate IP {asked}: the provided IP ({asked}) is not in the valid range. The range of valid IPs is {base}/{bits}"
        );
        errors.push(Error::invalid(&path, json!([asked]), detail));
    } else if taken.addresses.contains(&address) {
        errors.push(Error::invalid(
            &path,
            json!([asked]),
            format!("failed to allocate IP {asked}: provided IP is already allocated"),
        ));
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn host_bits(base: IpAddr, bits: u8) -> u32 {
    (if base.is_ipv4() { 32 } else { 128 }) - u32::from(bits)
}

fn contains(base: IpAddr, bits: u8, address: IpAddr) -> bool {
    let shift = host_bits(base, bits);
    base.is_ipv4() == address.is_ipv4() && number(base).checked_shr(shift) == number(address).checked_shr(shift)
}

/// A free address. The first part of the range is left to addresses that people choose (KEP-3070), unless all else is taken.
fn free_address((base, bits): (IpAddr, u8), taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let size = 1_u128.checked_shl(host_bits(base, bits)).unwrap_or(u128::MAX).min(1 << 16);
    let reserved = (size / 16).clamp(16, 256).min(size / 2);
    let last = size - u128::from(base.is_ipv4());
    let at = |offset: u128| match base {
        IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from_bits(base.to_bits() + u32::try_from(offset).unwrap_or(0))),
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from_bits(base.to_bits() + offset)),
    };
    // Start somewhere else each time, so that a freed address is not given out at once again.
    let span = last.saturating_sub(reserved).max(1);
    let start = uuid::Uuid::new_v4().as_u128() % span;
    let upper = (0..span).map(|step| reserved + (start + step) % span);
    upper.chain(1..reserved).map(at).find(|address| !taken.contains(address))
}

fn assign_ports(
    spec: &mut serde_json::Map<String, Value>,
    old_spec: Option<&Value>,
    taken: &Taken,
    options: &Options,
    wanted: &mut Taken,
    errors: &mut Errors,
) {
    let old_ports = old_spec.and_then(|spec| spec["ports"].as_array()).cloned().unwrap_or_default();
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
    for (index, port) in ports.enumerate() {
        let path = Path::new("spec").child("ports").index(index).child("nodePort");
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
        let same = |old: &&Value| old["port"] == port["port"] && old["protocol"] == port["protocol"];
        let kept = old_ports.iter().find(same).and_then(|old| old["nodePort"].as_u64());
        let asked = port["nodePort"].as_u64().filter(|number| *number > 0).or(kept);
        let is_free = |number: u16, wanted: &Taken| {
            let key = (protocol.clone(), number);
            !taken.ports.contains(&key) && !wanted.ports.contains(&key)
        };
        let chosen = match asked.map(|number| u16::try_from(number).unwrap_or(0)) {
            Some(number) if !options.node_ports.contains(&number) => {
                let (low, high) = (options.node_ports.start(), options.node_ports.end());
                errors.push(Error::invalid(
                    &path,
                    number,
                    format!("provided port is not in the valid range. The range of valid ports is {low}-{high}"),
                ));
                continue;
            }
            Some(number) if !is_free(number, wanted) => {
                errors.push(Error::invalid(&path, number, "provided port is already allocated"));
                continue;
            }
            Some(number) => number,
            None => {
                let (low, size) = (*options.node_ports.start(), options.node_ports.len().max(1) as u128);
                let start = uuid::Uuid::new_v4().as_u128() % size;
                let mut all = (0..size).map(|step| low + u16::try_from((start + step) % size).unwrap_or(0));
                match all.find(|number| is_free(*number, wanted)) {
                    Some(number) => number,
                    None => {
                        errors.push(Error::internal(&path, "failed to allocate a nodePort: range is full"));
                        continue;
                    }
                }
            }
        };
        wanted.ports.insert((protocol, chosen));
        port["nodePort"] = chosen.into();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn options() -> Options {
        Options { service_cidr: ("10.43.0.0".parse().unwrap(), 16), node_ports: 30000..=30001, tokens: None }
    }

    fn check(spec: Value, taken: &[&str], expected: Result<&str, &str>) {
        let taken = Taken { addresses: taken.iter().map(|address| address.parse().unwrap()).collect(), ..Taken::default() };
        let (mut service, mut errors) = (json!({"spec": spec}), Errors::new());
        complete(&mut service, None, &taken, &options(), &mut errors);
        match expected {
            Ok(ip) => assert_eq!((service["spec"]["clusterIP"].as_str(), errors.len()), (Some(ip), 0)),
            Err(text) => assert!(errors.0[0].to_string().contains(text), "{}", errors.0[0]),
        }
    }

    #[test]
    fn addresses() {
        check(json!({"clusterIP": "10.43.0.10"}), &[], Ok("10.43.0.10"));
        check(json!({"clusterIP": "None"}), &[], Ok("None"));
        check(json!({"clusterIP": "10.43.0.10"}), &["10.43.0.10"], Err("already allocated"));
        check(json!({"clusterIP": "10.44.0.10"}), &[], Err("not in the valid range"));
        check(json!({"clusterIP": "ten"}), &[], Err("must be a valid IP address"));
    }

    #[test]
    fn node_ports_run_out() {
        let ports = |count: u16| (0..count).map(|index| json!({"port": 80 + index, "protocol": "TCP"})).collect::<Vec<_>>();
        check(json!({"clusterIP": "None", "type": "NodePort", "ports": ports(2)}), &[], Ok("None"));
        check(json!({"clusterIP": "None", "type": "NodePort", "ports": ports(3)}), &[], Err("range is full"));
    }

    #[test]
    fn a_full_range_has_no_address() {
        let cidr = ("10.0.0.0".parse().unwrap(), 30);
        let all = (1..3).map(|host| IpAddr::from([10, 0, 0, host])).collect();
        assert_eq!(free_address(cidr, &all), None);
        assert!(free_address(cidr, &BTreeSet::new()).is_some());
    }
}
