//! IP families of a Service: what is not said is filled in, and what the cluster cannot do is refused (KEP-563).

use std::net::IpAddr;

use apimachinery::field::{Error, Errors, Path};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{kind, texts};

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// The families of ranges, each once, in their order.
pub(super) fn of(ranges: &[IpNet]) -> Vec<&'static str> {
    let mut all = Vec::new();
    for family in ranges.iter().map(|range| family(&range.addr())) {
        if !all.contains(&family) {
            all.push(family);
        }
    }
    all
}

/// The family of an address, in the API's words.
pub(super) fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Policy, families and addresses as a spec has them.
#[derive(Debug, PartialEq)]
struct Stack {
    policy: Option<String>,
    families: Vec<String>,
    addresses: Vec<String>,
}

impl Stack {
    fn of(spec: &Map<String, Value>) -> Self {
        let policy = spec.get("ipFamilyPolicy").and_then(Value::as_str).map(str::to_owned);
        let (families, mut addresses) = (texts(spec, "ipFamilies"), texts(spec, "clusterIPs"));
        if addresses.is_empty() {
            addresses.extend(spec.get("clusterIP").and_then(Value::as_str).filter(|one| !one.is_empty()).map(str::to_owned));
        }
        Self { policy, families, addresses }
    }

    fn is_headless(&self) -> bool {
        self.addresses.first().is_some_and(|address| address == "None")
    }

    /// A second family where there is one only, and which it is.
    fn add_other(&mut self) {
        if let [only] = self.families.as_slice() {
            self.families.push(if only == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
        }
    }
}

/// Fills in policy and families. `cluster` are the families of the cluster's services, the default one first. A service that
/// prefers two families and stays as it is follows no change of the cluster.
pub(super) fn complete(spec: &mut Map<String, Value>, old: Option<&Value>, cluster: &[&'static str], errors: &mut Errors) {
    let old_spec = old.and_then(Value::as_object);
    let old = old_spec.map(Stack::of);
    let mut stack = Stack::of(spec);
    let same_type = old_spec.is_some_and(|old| kind(old) == kind(spec));
    if same_type && stack.policy.as_deref() == Some(PREFER) && old.as_ref() == Some(&stack) {
        return;
    }
    let bare = stack.is_headless() && spec.get("selector").and_then(Value::as_object).is_none_or(Map::is_empty);
    let kept = old.as_ref().and_then(|old| old.policy.clone());
    let usual = if bare { REQUIRE } else { SINGLE };
    let policy = stack.policy.take().or(kept).unwrap_or_else(|| usual.to_owned());
    check(&stack, old.as_ref(), &policy, errors);
    infer(&mut stack, cluster, errors);
    if !errors.is_empty() {
        return;
    }
    if !bare {
        check_cluster(&stack, &policy, cluster, errors);
    }
    if stack.families.is_empty() {
        stack.families.extend(cluster.first().map(|family| (*family).to_owned()));
    }
    // Nobody translates to a headless service without selector: it may have two families in every cluster.
    if policy != SINGLE && (bare || cluster.len() > 1) {
        stack.add_other();
    }
    spec.insert("ipFamilyPolicy".into(), policy.into());
    spec.insert("ipFamilies".into(), json!(stack.families));
}

fn at(field: &str) -> Path {
    Path::new("spec").child(field)
}

/// Whether the policy fits the families and addresses that were given.
fn check(stack: &Stack, old: Option<&Stack>, policy: &str, errors: &mut Errors) {
    let lists = [
        (stack.addresses.len(), old.map(|old| old.addresses.len()), "cluster IP"),
        (stack.families.len(), old.map(|old| old.families.len()), "IP family"),
    ];
    for (now, before, what) in lists {
        let given = || json!(policy);
        if policy == SINGLE && now == 2 {
            let many = if what == "IP family" { "IP families" } else { "cluster IPs" };
            let detail = format!("must be '{REQUIRE}' or '{PREFER}' when multiple {many} are specified");
            errors.push(Error::invalid(&at("ipFamilyPolicy"), given(), detail));
        }
        if policy != SINGLE && now == 1 && before == Some(2) {
            let detail = format!("must be '{SINGLE}' to release the secondary {what}");
            errors.push(Error::invalid(&at("ipFamilyPolicy"), given(), detail));
        }
    }
}

/// Families follow from addresses that were given without.
fn infer(stack: &mut Stack, cluster: &[&'static str], errors: &mut Errors) {
    let parsed = stack.addresses.iter().map(|address| address.parse::<IpAddr>().ok());
    for (index, address) in parsed.enumerate().skip(stack.families.len()) {
        let Some(family) = address.map(|address| family(&address)) else { continue };
        if cluster.contains(&family) {
            stack.families.push(family.to_owned());
        } else {
            let detail = format!("{family} is not configured on this cluster");
            errors.push(Error::invalid(&at("clusterIPs").index(index), json!(stack.addresses), detail));
        }
    }
}

/// Whether the cluster has what is asked for.
fn check_cluster(stack: &Stack, policy: &str, cluster: &[&'static str], errors: &mut Errors) {
    if policy == REQUIRE && cluster.len() < 2 {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(Error::invalid(&at("ipFamilyPolicy"), policy, detail));
    }
    for (index, family) in stack.families.iter().enumerate().filter(|(_, family)| !cluster.contains(&family.as_str())) {
        errors.push(Error::invalid(&at("ipFamilies").index(index), family.as_str(), "not configured on this cluster"));
    }
}
