//! Node ports of a Service, and the port of its health checks.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

use apimachinery::field::{Error, Errors, Path};
use serde_json::{Map, Value};

use super::book::{Book, Taken};
use super::kind;

/// Gives the service the ports of nodes that its type asks for.
pub(super) fn complete(
    spec: &mut Map<String, Value>,
    old: Option<&Value>,
    (book, path): (&Book, &str),
    range: &RangeInclusive<u16>,
    wanted: &mut Taken,
    errors: &mut Errors,
) {
    let old = old.and_then(Value::as_object);
    wanted.balanced = balanced(spec);
    let mut chooser = Chooser { book, path, range, wanted };
    if has_node_ports(spec) {
        if let Some(old) = old.filter(|old| has_node_ports(old)) {
            keep(spec, old);
        }
        assign(spec, old.is_none(), &mut chooser, errors);
    } else {
        for port in each(spec) {
            port.remove("nodePort");
        }
    }
    if !is_checked(spec) {
        return;
    }
    let at = Path::new("spec").child("healthCheckNodePort");
    let asked = spec.get("healthCheckNodePort").and_then(number);
    let chosen = chooser.choose(asked, &at, errors);
    if let Some(chosen) = chosen {
        spec.insert("healthCheckNodePort".into(), chosen.into());
    }
}

fn has_node_ports(spec: &Map<String, Value>) -> bool {
    matches!(kind(spec), "NodePort" | "LoadBalancer")
}

/// Whether load balancers ask nodes for the service's health.
fn is_checked(spec: &Map<String, Value>) -> bool {
    kind(spec) == "LoadBalancer" && spec.get("externalTrafficPolicy").is_some_and(|policy| policy == "Local")
}

/// The ports of a load balancer that all nodes serve: one without the class of another implementation.
pub(super) fn balanced(spec: &Map<String, Value>) -> BTreeSet<u16> {
    let is_balanced = kind(spec) == "LoadBalancer" && spec.get("loadBalancerClass").is_none_or(Value::is_null);
    let ports = spec.get("ports").and_then(Value::as_array).into_iter().flatten().filter(|_| is_balanced);
    ports.filter_map(|port| u16::try_from(number(port.get("port")?)?).ok()).collect()
}

/// What is asked for, even if it can be no port: that is refused as it was written, and never replaced by a choice. Zero asks for nothing.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().filter(|number| *number != 0)
}

fn each(spec: &mut Map<String, Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn node_port(port: &Map<String, Value>) -> Option<i64> {
    port.get("nodePort").and_then(number)
}

/// Ports that clients send without their node port keep it, by their names.
fn keep(spec: &mut Map<String, Value>, old: &Map<String, Value>) {
    let name = |port: &Map<String, Value>| port.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let old_ports = old.get("ports").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
    let known: HashMap<String, i64> = old_ports.filter_map(|port| Some((name(port), node_port(port)?))).collect();
    let mut used: Vec<i64> = each(spec).filter_map(|port| node_port(port)).collect();
    for port in each(spec).filter(|port| node_port(port).is_none()) {
        if let Some(number) = known.get(&name(port)).filter(|number| !used.contains(number)) {
            used.push(*number);
            port.insert("nodePort".into(), (*number).into());
        }
    }
}

/// Gives each port its node port. Those of a new service with the same number, for two protocols, share one.
fn assign(spec: &mut Map<String, Value>, is_new: bool, chooser: &mut Chooser<'_>, errors: &mut Errors) {
    let allocate = kind(spec) == "NodePort" || spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
    let mut shared: HashMap<Option<u64>, i64> = HashMap::new();
    let own = |port: &Map<String, Value>| port.get("port").and_then(Value::as_u64);
    if is_new {
        for port in each(spec) {
            if let Some(asked) = node_port(port) {
                shared.entry(own(port)).or_insert(asked);
            }
        }
    }
    for (index, port) in each(spec).enumerate() {
        let asked = node_port(port);
        if asked.is_none() && !allocate {
            continue;
        }
        let asked = asked.or_else(|| shared.get(&own(port)).copied());
        let at = Path::new("spec").child("ports").index(index).child("nodePort");
        let Some(chosen) = chooser.choose(asked, &at, errors) else { continue };
        if is_new {
            shared.entry(own(port)).or_insert(chosen.into());
        }
        port.insert("nodePort".into(), chosen.into());
    }
}

struct Chooser<'a> {
    book: &'a Book,
    path: &'a str,
    range: &'a RangeInclusive<u16>,
    wanted: &'a mut Taken,
}

impl Chooser<'_> {
    /// The port that is asked for, or a free one, which the service has from now on.
    fn choose(&mut self, asked: Option<i64>, at: &Path, errors: &mut Errors) -> Option<u16> {
        let Self { book, path, range, wanted } = self;
        let port = asked.map(|asked| {
            u16::try_from(asked).ok().filter(|port| wanted.ports.contains(port) || range.contains(port)).ok_or(asked)
        });
        let chosen = match port {
            Some(Err(asked)) => {
                let (low, high) = (range.start(), range.end());
                let detail = format!("provided port is not in the valid range. The range of valid ports is {low}-{high}");
                errors.push(Error::invalid(at, asked, detail));
                None
            }
            Some(Ok(port)) if !wanted.ports.contains(&port) && book.has_port(port, path) => {
                errors.push(Error::invalid(at, port, "provided port is already allocated"));
                None
            }
            Some(Ok(port)) => Some(port),
            None => {
                // A number that is a node port is no load balancer's: one that works must not lose it to a choice that nobody has made.
                let balanced = |port: u16| wanted.balanced.contains(&port) || book.is_balanced(port);
                let free = free_port(range, |port| wanted.ports.contains(&port) || book.has_port(port, path) || balanced(port));
                if free.is_none() {
                    errors.push(Error::internal(at, "failed to allocate a nodePort: range is full"));
                }
                free
            }
        };
        wanted.ports.extend(chosen);
        chosen
    }
}

/// A free port. The first part of the range is left to ports that people choose (KEP-3668), unless all else is taken.
fn free_port(range: &RangeInclusive<u16>, taken: impl Fn(u16) -> bool) -> Option<u16> {
    let size = range.len();
    let reserved = if size <= 16 { 0 } else { (size / 32).clamp(16, 128) };
    let span = size - reserved;
    let start = (uuid::Uuid::new_v4().as_u128() % span.max(1) as u128) as usize;
    let offsets = (0..span).map(|step| reserved + (start + step) % span).chain(0..reserved);
    offsets.filter_map(|offset| range.start().checked_add(u16::try_from(offset).ok()?)).find(|port| !taken(*port))
}
