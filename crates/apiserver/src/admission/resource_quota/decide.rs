//! What a quota says to a request. Pure.

use apimachinery::quantity::Quantity;
use codec::Decode;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceQuotaSpec};
use k8s_openapi::api::resource::v1::ResourceClaim;
use pods::quota::devices::Extended;
use pods::quota::{self, Counted, Scoped, Usage};
use serde_json::{Map, Value, json};

/// What a request asks for.
pub(super) struct Asked<'a> {
    group: &'a str,
    plural: &'a str,
    now: Timestamp,
    object: Counted,
    /// What it replaces, if anything.
    old: Option<Counted>,
    /// What claims of devices are counted by.
    pub(super) devices: Devices,
}

/// What says under which names of quotas devices count.
#[derive(Default)]
pub(super) struct Devices {
    pub(super) extended: Extended,
    /// The pod whose extended resources the claim stands for.
    pub(super) owner: Option<Pod>,
}

impl<'a> Asked<'a> {
    pub(super) fn new(group: &'a str, plural: &'a str, object: &Value, old: Option<&Value>, now: Timestamp) -> Self {
        let counted = |object| Counted::of(group, plural, object);
        Self { group, plural, now, object: counted(object), old: old.map(counted), devices: Devices::default() }
    }

    /// The claim of devices, if the object is one.
    pub(super) fn claim(&self) -> Option<&ResourceClaim> {
        match &self.object {
            Counted::Devices(claim) => Some(claim),
            _ => None,
        }
    }

    /// The group and resource of the object.
    pub(super) fn resource(&self) -> (&str, &str) {
        (self.group, self.plural)
    }

    /// The object as scopes see it.
    pub(super) fn scoped(&self) -> Scoped<'_> {
        self.object.scoped()
    }

    /// What the request takes more than before, whatever quotas there are.
    pub(super) fn more(&self) -> Usage {
        self.growth(|_| true)
    }

    fn usage(&self, object: &Counted) -> Usage {
        match object {
            Counted::Pod(pod) => quota::of_pod(pod, self.now),
            Counted::Service(service) => quota::of_service(service),
            Counted::Claim(claim) => quota::of_claim(claim),
            Counted::Devices(claim) => quota::devices::of_claim(claim, &self.devices.extended, self.devices.owner.as_ref()),
            Counted::Other => quota::of_any(self.group, self.plural),
        }
    }

    /// What a quota has to give more than before. A change can take an object into its scope and out of it; what it has to give less the
    /// controller counts, as upstream: who takes less writes nothing and is refused by nobody.
    fn delta(&self, spec: &ResourceQuotaSpec) -> Usage {
        self.growth(|object| quota::selects(spec, object.scoped()))
    }

    /// What the object takes more than before, each of the two where it counts.
    fn growth(&self, counts: impl Fn(&Counted) -> bool) -> Usage {
        let usage = |object: Option<&Counted>| {
            object.filter(|object| counts(object)).map(|object| self.usage(object)).unwrap_or_default()
        };
        let mut growth = usage(Some(&self.object));
        for (name, amount) in usage(self.old.as_ref()) {
            *growth.entry(name).or_default() -= amount;
        }
        growth.retain(|_, amount| amount.signum() > 0);
        growth
    }
}

/// The quotas that a request is charged to, as they are then.
///
/// # Errors
/// Why one of them refuses it.
pub(super) fn all(asked: &Asked<'_>, quotas: &[Value]) -> Result<Vec<Value>, String> {
    let charged = |quota| match decide(asked, quota) {
        Verdict::Free => None,
        Verdict::Refused(why) => Some(Err(why)),
        Verdict::Charged(charged) => Some(Ok(charged)),
    };
    quotas.iter().filter_map(charged).collect()
}

/// What becomes of a request.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// The quota is not about it, or it takes nothing that the quota counts.
    Free,
    Refused(String),
    /// The quota as it is when it has been counted.
    Charged(Value),
}

fn decide(asked: &Asked<'_>, quota: &Value) -> Verdict {
    let spec: ResourceQuotaSpec = ResourceQuotaSpec::from_tree(&quota["spec"]).unwrap_or_default();
    let hard = amounts(&quota["status"]["hard"]);
    let names: Vec<&str> =
        hard.keys().map(String::as_str).filter(|name| quota::concerns(asked.group, asked.plural, name)).collect();
    let is_about = |object: &Counted| quota::selects(&spec, object.scoped());
    if names.is_empty() || ![Some(&asked.object), asked.old.as_ref()].into_iter().flatten().any(is_about) {
        return Verdict::Free;
    }
    let name = apimachinery::meta::name(quota);
    if let (Counted::Pod(pod), None) = (&asked.object, &asked.old) {
        let unsaid = quota::unsaid(names.iter().copied(), pod);
        if !unsaid.is_empty() {
            let each = unsaid.iter().map(|(name, who)| format!("{name} for: {}", who.join(",")));
            let all = each.collect::<Vec<_>>().join("; ");
            return Verdict::Refused(format!("failed quota: {name}: must specify {all}"));
        }
    }
    let delta = asked.delta(&spec);
    if !names.iter().any(|name| delta.contains_key(*name)) {
        return Verdict::Free;
    }
    let used = amounts(&quota["status"]["used"]);
    let unknown: Vec<&str> = names.iter().copied().filter(|name| !used.contains_key(*name)).collect();
    if !unknown.is_empty() {
        return Verdict::Refused(format!("status unknown for quota: {name}, resources: {}", unknown.join(",")));
    }
    count(&delta, quota, name, &hard, used)
}

fn count(asked: &Usage, quota: &Value, name: &str, hard: &Usage, mut used: Usage) -> Verdict {
    let (mut requested, mut before, mut limited) = (Vec::new(), Vec::new(), Vec::new());
    for (resource, most) in hard {
        let (Some(delta), Some(now)) = (asked.get(resource), used.get(resource).copied()) else { continue };
        let next = now + *delta;
        if next > *most {
            requested.push(format!("{resource}={delta}"));
            before.push(format!("{resource}={now}"));
            limited.push(format!("{resource}={most}"));
        }
        used.insert(resource.clone(), next);
    }
    if !requested.is_empty() {
        let [requested, before, limited] = [requested, before, limited].map(|list| list.join(","));
        let text = format!("exceeded quota: {name}, requested: {requested}, used: {before}, limited: {limited}");
        return Verdict::Refused(text);
    }
    let mut next = quota.clone();
    next["status"]["used"] =
        used.iter().map(|(name, amount)| (name.clone(), json!(amount.to_string()))).collect::<Map<_, _>>().into();
    Verdict::Charged(next)
}

pub(super) fn amounts(value: &Value) -> Usage {
    let list = value.as_object().into_iter().flatten();
    list.filter_map(|(name, amount)| Some((name.clone(), Quantity::from_value(amount).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(scopes: &[&str], hard: Value, used: Value) -> Value {
        json!({"metadata": {"name": "q"}, "spec": {"scopes": scopes}, "status": {"hard": hard, "used": used}})
    }

    /// What is used afterwards, or why it is refused.
    #[track_caller]
    fn check(plural: &'static str, object: &Value, old: Option<&Value>, quota: &Value, expected: Result<Value, &str>) {
        let asked = Asked::new("", plural, object, old, Timestamp::UNIX_EPOCH);
        let found = match decide(&asked, quota) {
            Verdict::Free => Ok(Value::Null),
            Verdict::Refused(why) => Err(why),
            Verdict::Charged(quota) => Ok(quota["status"]["used"].clone()),
        };
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    fn pod(requests: Value) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}})
    }

    #[test]
    fn pods() {
        let hard = json!({"pods": "2", "requests.cpu": "1", "requests.memory": "1Gi", "services": "1"});
        let used = json!({"pods": "1", "requests.cpu": "500m", "requests.memory": "256Mi", "services": "0"});
        let cluster = quota(&[], hard, used);
        let asks = |cpu: &str| pod(json!({"cpu": cpu, "memory": "256Mi"}));
        let after = json!({"pods": "2", "requests.cpu": "1", "requests.memory": "512Mi", "services": "0"});
        check("pods", &asks("500m"), None, &cluster, Ok(after));
        let over = "exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=500m, limited: requests.cpu=1";
        check("pods", &asks("600m"), None, &cluster, Err(over));
        check("pods", &pod(json!({"cpu": "1m"})), None, &cluster, Err("failed quota: q: must specify requests.memory for: c"));
        // Concepts, "Resource Quotas": "you must specify requests or limits"; also who asks for nothing, and takes nothing that is counted.
        let of_cpu = quota(&[], json!({"requests.cpu": "1"}), json!({"requests.cpu": "0"}));
        check("pods", &pod(json!({})), None, &of_cpu, Err("failed quota: q: must specify requests.cpu for: c"));
        check("secrets", &json!({}), None, &cluster, Ok(Value::Null));
        let unknown = "status unknown for quota: q, resources: pods";
        check("pods", &asks("1m"), None, &quota(&[], json!({"pods": "2"}), json!({})), Err(unknown));
        // Before the controller has looked at it, a quota limits nothing.
        check("pods", &asks("1m"), None, &json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}), Ok(Value::Null));
    }

    /// Upstream's `checkQuotas`: a request that one quota refuses is charged to none.
    #[test]
    fn all_of_them_are_asked_first() {
        let quotas = |second: &str| {
            [quota(&[], json!({"pods": "2"}), json!({"pods": "1"})), quota(&[], json!({"pods": second}), json!({"pods": "1"}))]
        };
        let pod = pod(json!({}));
        let asked = Asked::new("", "pods", &pod, None, Timestamp::UNIX_EPOCH);
        let used = all(&asked, &quotas("3")).map(|charged| charged.iter().map(|one| one["status"]["used"].clone()).collect());
        assert_eq!(used, Ok(vec![json!({"pods": "2"}), json!({"pods": "2"})]));
        let over = "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1";
        assert_eq!(all(&asked, &quotas("1")), Err(over.to_owned()));
        assert_eq!(all(&asked, &[]), Ok(vec![]));
    }

    #[test]
    fn scopes() {
        let of = |scope: &str| quota(&[scope], json!({"pods": "1"}), json!({"pods": "0"}));
        let mut ends = pod(json!({}));
        ends["spec"]["activeDeadlineSeconds"] = json!(3600);
        let one = || Ok(json!({"pods": "1"}));
        let none = || Ok(Value::Null);
        check("pods", &ends, None, &of("Terminating"), one());
        check("pods", &ends, None, &of("NotTerminating"), none());
        check("pods", &pod(json!({})), None, &of("Terminating"), none());
        check("pods", &pod(json!({})), None, &of("NotTerminating"), one());
        check("pods", &pod(json!({})), None, &of("BestEffort"), one());
        check("pods", &pod(json!({"cpu": "1"})), None, &of("BestEffort"), none());
        check("pods", &pod(json!({"cpu": "1"})), None, &of("NotBestEffort"), one());
        // A deadline that comes later takes the pod from one scope to the other.
        check("pods", &ends, Some(&pod(json!({}))), &of("Terminating"), one());
        let full = quota(&["NotTerminating"], json!({"pods": "1"}), json!({"pods": "1"}));
        check("pods", &ends, Some(&pod(json!({}))), &full, none());
        let full = quota(&["Terminating"], json!({"pods": "1"}), json!({"pods": "1"}));
        let over = "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1";
        check("pods", &ends, Some(&pod(json!({}))), &full, Err(over));
    }

    #[test]
    fn changes() {
        let service = |kind: &str| json!({"spec": {"type": kind, "ports": [{"port": 80}]}});
        let limits = |used: &str| {
            quota(&[], json!({"services": "5", "services.nodeports": "1"}), json!({"services": "1", "services.nodeports": used}))
        };
        let (plain, port) = (service("ClusterIP"), service("NodePort"));
        check("services", &port, Some(&plain), &limits("0"), Ok(json!({"services": "1", "services.nodeports": "1"})));
        check("services", &plain, Some(&port), &limits("1"), Ok(Value::Null));
        check("services", &port, Some(&port), &limits("1"), Ok(Value::Null));
        // Over a lowered quota, or one of which not everything is known, what takes no more is free.
        check("services", &port, Some(&port), &limits("3"), Ok(Value::Null));
        let unknown = quota(&[], json!({"services": "5", "services.nodeports": "1"}), json!({"services": "1"}));
        check("services", &plain, Some(&port), &unknown, Ok(Value::Null));
        let why = "status unknown for quota: q, resources: services.nodeports";
        check("services", &port, Some(&plain), &unknown, Err(why));
        let over =
            "exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1";
        check("services", &port, Some(&plain), &limits("1"), Err(over));
    }
}
