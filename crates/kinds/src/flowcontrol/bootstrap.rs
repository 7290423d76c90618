//! The flow schemas and priority levels of every cluster (upstream: `apiserver/pkg/apis/flowcontrol/bootstrap`).

use apimachinery::meta;
use serde_json::{Value, json};

const ALL: &[&str] = &["*"];
const EVERYBODY: &[&str] = &["system:unauthenticated", "system:authenticated"];
/// Names of the objects that a cluster cannot do without.
const MANDATORY: &[&str] = &["exempt", "catch-all"];
/// On an object, whether its specification follows this list.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// An object that every cluster has.
pub struct Bootstrap {
    /// Resource.
    pub plural: &'static str,
    /// The object.
    pub object: Value,
    /// The cluster cannot do without: it is put back whatever becomes of it. Others follow the list until somebody says
    /// otherwise in their annotation.
    pub mandatory: bool,
}

/// All of them.
pub fn bootstrap() -> Vec<Bootstrap> {
    let mut all = levels();
    all.extend(schemas());
    all
}

/// Whether an object has followed the list when it was longer: nobody has said that it is theirs.
pub fn is_obsolete(all: &[Bootstrap], plural: &str, object: &Value) -> bool {
    let is_known = all.iter().any(|one| one.plural == plural && meta::name(&one.object) == meta::name(object));
    !is_known && meta::annotation(object, AUTO_UPDATE) == Some("true")
}

/// The specification that the object of that name must have.
pub(super) fn mandatory(plural: &str, name: &str) -> Option<Value> {
    if !MANDATORY.contains(&name) {
        return None;
    }
    let found = bootstrap().into_iter().find(|one| one.plural == plural && one.object["metadata"]["name"] == name);
    found.map(|mut one| one.object["spec"].take())
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{}/v1", super::GROUP), "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec,
    })
}

fn levels() -> Vec<Bootstrap> {
    let level = |name: &str, spec: Value| Bootstrap {
        plural: "prioritylevelconfigurations",
        object: object("PriorityLevelConfiguration", name, spec),
        mandatory: MANDATORY.contains(&name),
    };
    let limited = |shares: u32, lendable: u32, response: Value| {
        json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response,
        }})
    };
    let queue = |name: &str, shares: u32, lendable: u32, queues: u32, hand: u32| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        level(name, limited(shares, lendable, json!({"type": "Queue", "queuing": queuing})))
    };
    vec![
        level("exempt", json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}})),
        level("catch-all", limited(5, 0, json!({"type": "Reject"}))),
        queue("system", 30, 33, 64, 6),
        queue("node-high", 40, 25, 64, 6),
        queue("leader-election", 10, 0, 16, 4),
        queue("workload-high", 40, 50, 128, 6),
        queue("workload-low", 100, 90, 128, 6),
        queue("global-default", 20, 50, 128, 6),
    ]
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn system_accounts() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}})
}

/// A rule for objects; those without a namespace too, if `cluster`.
fn resources(verbs: &[&str], groups: &[&str], names: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": names, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

fn everything(subjects: Vec<Value>) -> Value {
    json!([{
        "subjects": subjects,
        "resourceRules": [resources(ALL, ALL, ALL, true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }])
}

fn schemas() -> Vec<Bootstrap> {
    let schema = |name: &str, level: &str, precedence: u32, method: &str, rules: Value| {
        let mut spec = json!({
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules,
        });
        if !method.is_empty() {
            spec["distinguisherMethod"] = json!({"type": method});
        }
        Bootstrap { plural: "flowschemas", object: object("FlowSchema", name, spec), mandatory: MANDATORY.contains(&name) }
    };
    let (manager, scheduler) = ("system:kube-controller-manager", "system:kube-scheduler");
    let mut electors = users(&[manager, scheduler]);
    electors.push(system_accounts());
    let coordination = &["coordination.k8s.io"];
    let election = json!([{
        "subjects": electors,
        "resourceRules": [resources(&["get", "create", "update"], coordination, &["leases"], false)],
    }]);
    let health = json!([{
        "subjects": groups(&["system:nodes"]),
        "resourceRules": [resources(ALL, &[""], &["nodes", "nodes/status"], true), resources(ALL, coordination, &["leases"], false)],
    }]);
    let probes = json!([{
        "subjects": groups(EVERYBODY),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    }]);
    vec![
        schema("exempt", "exempt", 1, "", everything(groups(&["system:masters"]))),
        schema("catch-all", "catch-all", 10_000, "ByUser", everything(groups(EVERYBODY))),
        schema("system-nodes", "system", 500, "ByUser", everything(groups(&["system:nodes"]))),
        schema("system-node-high", "node-high", 400, "ByUser", health),
        schema("probes", "exempt", 2, "", probes),
        schema("system-leader-election", "leader-election", 100, "ByUser", election),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", everything(users(&[manager]))),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", everything(users(&[scheduler]))),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", everything(vec![system_accounts()])),
        schema("service-accounts", "workload-low", 9_000, "ByUser", everything(groups(&["system:serviceaccounts"]))),
        schema("global-default", "global-default", 9_900, "ByUser", everything(groups(EVERYBODY))),
    ]
}

impl Bootstrap {
    /// What has to be written over the object that is there, none if it may stay.
    pub fn update(&self, found: &Value) -> Option<Value> {
        let annotation = meta::annotation(found, AUTO_UPDATE);
        // An object without annotation that nobody has changed has generation 1; it follows, and says so from now on.
        let follows = self.mandatory || annotation.map_or(meta::generation(found) <= 1, |value| value == "true");
        let mut wanted = found.clone();
        if self.mandatory || annotation.is_none() {
            meta::set_annotation(&mut wanted, AUTO_UPDATE, follows.to_string());
        }
        if !follows {
            return (wanted != *found).then_some(wanted);
        }
        wanted["spec"] = self.object["spec"].clone();
        // How large the exempt level is, is for the administrator to say.
        if self.object["metadata"]["name"] == "exempt"
            && let Some(exempt) = found.pointer("/spec/exempt")
            && self.object.pointer("/spec/exempt").is_some()
        {
            wanted["spec"]["exempt"] = exempt.clone();
        }
        (wanted != *found).then_some(wanted)
    }
}
