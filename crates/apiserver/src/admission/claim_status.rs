//! The status of a ResourceClaim belongs to several: who binds claims says what is allocated and for whom, and each driver what its own devices
//! are like (KEP-4817, gate DRAResourceClaimGranularStatusAuthorization; documentation, "Hardening Guide - Dynamic Resource Allocation"). Each
//! needs a verb of its own, besides the right to write the status.
//!
//! Upstream asks this while it validates the object; it needs the authorizer, so here it is admission.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{Status, meta, names};
use async_trait::async_trait;
use registry::{Admission, Operation, Request, User};
use serde_json::Value;

use super::{is, text};
use crate::authz::{Attributes, Authorizer};

const GROUP: &str = "resource.k8s.io";
const PLURAL: &str = "resourceclaims";
/// The node that the pod runs on whose token the request came with.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

pub(super) struct ClaimStatus(pub(super) Arc<Authorizer>);

#[async_trait]
impl Admission for ClaimStatus {
    fn name(&self) -> &'static str {
        "ClaimStatus"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        a.operation == Operation::Update && a.subresource == "status" && is(a, GROUP, PLURAL)
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let (Some(new), Some(old)) = (a.object(), a.old) else { return Ok(()) };
        let mut errors = Vec::new();
        if binds(new, old) {
            errors.extend(self.may_bind(a).await.err());
        }
        let drivers = changed_drivers(new, old);
        if !drivers.is_empty() {
            let verbs = driver_verbs(a.user, new, verb(a));
            for driver in drivers {
                errors.extend(self.may_report(a, &verbs, driver).await.err());
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(GROUP, &a.resource.def.kind, meta::name(new), &Errors::from(errors)))
    }
}

impl ClaimStatus {
    async fn may_bind(&self, a: &Request<'_>) -> Result<(), Error> {
        let verb = verb(a);
        let asked = Attributes { verb, subresource: "binding", ..attributes(a) };
        self.0.decide(a.registry, &asked).await.map_err(|refused| {
            let what = "changing status.allocation or status.reservedFor";
            let needs = format!("requires resource=\"resourceclaims/binding\", verb=\"{verb}\" permission");
            Error::forbidden(&Path::new("status"), format!("{what} {needs}: {}", refused.message))
        })
    }

    /// One of the verbs is enough; the first one's refusal is told.
    async fn may_report(&self, a: &Request<'_>, verbs: &[String], driver: &str) -> Result<(), Error> {
        let mut first = None;
        for verb in verbs {
            let asked = Attributes { verb, subresource: "driver", namespace: a.namespace, name: driver, ..attributes(a) };
            match self.0.decide(a.registry, &asked).await {
                Ok(()) => return Ok(()),
                Err(refused) => first = first.or(Some(refused.message)),
            }
        }
        let needs = format!("requires resource=\"resourceclaims/driver\", verb=\"[{}]\" permission", verbs.join(" "));
        let detail = format!("changing status.devices {needs}: {}", first.unwrap_or_default());
        Err(Error::forbidden(&Path::new("status.devices"), detail))
    }
}

fn attributes<'a>(a: &'a Request<'_>) -> Attributes<'a> {
    let version = &a.resource.def.version;
    Attributes { group: GROUP, version, resource: PLURAL, is_resource: true, ..Attributes::new(a.user) }
}

fn verb(a: &Request<'_>) -> &'static str {
    if a.how().is_patch() { "patch" } else { "update" }
}

/// A part of the object; what is empty is as good as missing.
fn part<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    object.pointer(pointer).filter(|value| !is_empty(value))
}

/// Whether the change is one of the allocation, or of those that the claim is reserved for.
fn binds(new: &Value, old: &Value) -> bool {
    ["/status/allocation", "/status/reservedFor"].into_iter().any(|pointer| part(new, pointer) != part(old, pointer))
}

fn devices(claim: &Value) -> impl Iterator<Item = ([&str; 4], &Value)> {
    let all = claim.pointer("/status/devices").and_then(Value::as_array).into_iter().flatten();
    all.map(|device| (["/driver", "/pool", "/device", "/shareID"].map(|field| text(device, field)), device))
}

/// The drivers whose devices have come, gone, or changed what is said of them.
fn changed_drivers<'a>(new: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    let mut before: BTreeMap<[&str; 4], &Value> = devices(old).collect();
    let mut drivers: BTreeSet<&str> =
        devices(new).filter(|(key, device)| before.remove(key) != Some(*device)).map(|(key, _)| key[0]).collect();
    drivers.extend(before.keys().map(|key| key[0]));
    drivers
}

/// Any of these verbs allows to report on devices: on the node that the claim is allocated on, who runs there needs less.
fn driver_verbs(user: &User, claim: &Value, verb: &str) -> Vec<String> {
    let local = allocated_node(claim).is_some_and(|node| runs_on(user, node));
    let prefixes = if local { &["associated-node", "arbitrary-node"][..] } else { &["arbitrary-node"] };
    prefixes.iter().map(|prefix| format!("{prefix}:{verb}")).collect()
}

/// The only node that the allocation can be used on, if it says so in the one form that the scheduler writes.
fn allocated_node(claim: &Value) -> Option<&str> {
    let one = |value: &Value| value.as_array().map(Vec::len).filter(|length| *length == 1);
    let terms = claim.pointer("/status/allocation/nodeSelector/nodeSelectorTerms")?;
    one(terms)?;
    let term = &terms[0];
    let fields = term.get("matchFields")?;
    one(fields)?;
    let (field, values) = (&fields[0], fields[0].get("values")?);
    one(values)?;
    let is_name =
        part(term, "/matchExpressions").is_none() && (text(field, "/key"), text(field, "/operator")) == ("metadata.name", "In");
    values[0].as_str().filter(|_| is_name)
}

fn runs_on(user: &User, node: &str) -> bool {
    let is_account = user.name.strip_prefix("system:serviceaccount:").is_some_and(|rest| {
        rest.split_once(':').is_some_and(|(namespace, name)| {
            names::dns1123_label(namespace).is_empty() && names::dns1123_subdomain(name).is_empty()
        })
    });
    is_account
        && names::dns1123_subdomain(node).is_empty()
        && user.extra.get(NODE_NAME).is_some_and(|nodes| nodes.len() == 1 && nodes[0] == node)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(status: Value) -> Value {
        json!({"status": status})
    }

    #[test]
    fn what_binds() {
        let check = |new: Value, old: Value, expected: bool| assert_eq!(binds(&claim(new), &claim(old)), expected);
        let reserved = |uid: &str| json!([{"resource": "pods", "name": "p", "uid": uid}]);
        check(json!({}), json!({}), false);
        check(json!({"reservedFor": []}), json!({}), false);
        check(json!({"allocation": {"devices": {}}}), json!({}), true);
        check(json!({"allocation": {}}), json!({"allocation": {}}), false);
        check(json!({}), json!({"allocation": {}}), true);
        check(json!({"reservedFor": reserved("1")}), json!({}), true);
        check(json!({"reservedFor": reserved("1")}), json!({"reservedFor": reserved("1")}), false);
        check(json!({"reservedFor": reserved("2")}), json!({"reservedFor": reserved("1")}), true);
        check(json!({"devices": [{"driver": "a"}]}), json!({}), false);
    }

    #[test]
    fn whose_devices_change() {
        let check = |new: Value, old: Value, expected: &[&str]| {
            let (new, old) = (claim(json!({"devices": new})), claim(json!({"devices": old})));
            assert_eq!(changed_drivers(&new, &old).into_iter().collect::<Vec<_>>(), expected, "{new} {old}");
        };
        let device = |driver: &str, device: &str| json!({"driver": driver, "pool": "p", "device": device});
        let with = |mut device: Value, key: &str, value: Value| {
            device[key] = value;
            device
        };
        check(json!([]), json!([]), &[]);
        check(Value::Null, json!([]), &[]);
        check(json!([device("b", "1"), device("a", "1")]), json!([]), &["a", "b"]);
        check(json!([device("a", "1"), device("b", "1")]), json!([device("b", "1"), device("a", "1")]), &[]);
        check(json!([device("a", "1")]), json!([device("a", "1"), device("b", "1")]), &["b"]);
        check(json!([]), json!([device("a", "1")]), &["a"]);
        check(json!([with(device("a", "1"), "data", json!({"k": 1}))]), json!([device("a", "1")]), &["a"]);
        check(json!([device("a", "2")]), json!([device("a", "1")]), &["a"]);
        // Shares of one device are several.
        let share = |id: &str| with(device("a", "1"), "shareID", json!(id));
        check(json!([share("1"), share("2")]), json!([share("1"), share("2")]), &[]);
        check(json!([share("1")]), json!([share("1"), share("2")]), &["a"]);
    }

    #[test]
    fn where_it_is_allocated() {
        let check = |terms: Value, expected: Option<&str>| {
            let claim = claim(json!({"allocation": {"nodeSelector": {"nodeSelectorTerms": terms}}}));
            assert_eq!(allocated_node(&claim), expected, "{claim}");
        };
        let field = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        let name = field("metadata.name", "In", &["n"]);
        check(json!([{"matchFields": [name]}]), Some("n"));
        check(json!([{"matchFields": [name], "matchExpressions": []}]), Some("n"));
        check(json!([]), None);
        check(json!([{"matchFields": [name]}, {"matchFields": [name]}]), None);
        check(json!([{"matchFields": [name, name]}]), None);
        check(json!([{"matchFields": [name], "matchExpressions": [field("a", "In", &["b"])]}]), None);
        check(json!([{"matchExpressions": [name]}]), None);
        check(json!([{"matchFields": [field("metadata.name", "In", &["n", "m"])]}]), None);
        check(json!([{"matchFields": [field("metadata.name", "NotIn", &["n"])]}]), None);
        check(json!([{"matchFields": [field("kubernetes.io/hostname", "In", &["n"])]}]), None);
        assert_eq!(allocated_node(&claim(json!({"allocation": {}}))), None);
        assert_eq!(allocated_node(&claim(json!({}))), None);
    }

    #[test]
    fn who_runs_there() {
        let check = |name: &str, nodes: &[&str], node: &str, expected: bool| {
            let nodes: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
            let user = User { name: name.into(), extra: [(NODE_NAME.to_owned(), nodes)].into(), ..User::default() };
            assert_eq!(runs_on(&user, node), expected, "{user:?}");
        };
        check("system:serviceaccount:ns:driver", &["n"], "n", true);
        check("system:serviceaccount:ns:driver", &["m"], "n", false);
        check("system:serviceaccount:ns:driver", &["n", "n"], "n", false);
        check("system:serviceaccount:ns:driver", &[], "n", false);
        check("system:serviceaccount:ns", &["n"], "n", false);
        check("system:node:n", &["n"], "n", false);
        check("jane", &["n"], "n", false);
        check("system:serviceaccount:ns:driver", &["N_"], "N_", false);
        check("system:serviceaccount:ns:driver", &[""], "", false);
    }
}
