//! What a ClusterNetworkPolicy says (`policy.networking.k8s.io/v1alpha2`), and an AdminNetworkPolicy and the BaselineAdminNetworkPolicy (`v1alpha1`) from which
//! it was made, in the terms of the compiler (<https://network-policy-api.sigs.k8s.io>). Pure.
//!
//! A rule with something that is not known here fails closed, as the API says: one that accepts matches nothing, any other denies all.

use k8s_openapi::api::networking::v1::IPBlock;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::spec::{Namespaces, Peer, Port, Rule, Selection, Spec, Tier, ranges, selector};
use crate::nft::element::Protocol;
use crate::nft::features::policies::Action;

/// The API group.
pub(super) const GROUP: &str = "policy.networking.k8s.io";

/// The kinds of policies of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Of either tier, which it names.
    Cluster,
    /// Of the tier Admin.
    Admin,
    /// Of the tier Baseline; there is one, named `default`.
    Baseline,
}

impl Kind {
    /// All.
    pub(super) const ALL: [Self; 3] = [Self::Cluster, Self::Admin, Self::Baseline];

    /// Name of the kind.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cluster => "ClusterNetworkPolicy",
            Self::Admin => "AdminNetworkPolicy",
            Self::Baseline => "BaselineAdminNetworkPolicy",
        }
    }

    /// Name of the resource.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Cluster => "clusternetworkpolicies",
            Self::Admin => "adminnetworkpolicies",
            Self::Baseline => "baselineadminnetworkpolicies",
        }
    }

    /// The versions that are read, in the order in which they are asked for. What is new in one is not known here and fails closed, as its text
    /// asks for.
    pub(super) fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Cluster => &["v1alpha2", "v1beta1"],
            Self::Admin | Self::Baseline => &["v1alpha1"],
        }
    }
}

/// A policy as the API has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Object {
    #[serde(default)]
    pub(super) api_version: String,
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    spec: ObjectSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ObjectSpec {
    tier: String,
    priority: i32,
    subject: Map<String, Value>,
    ingress: Vec<ObjectRule>,
    egress: Vec<ObjectRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ObjectRule {
    name: String,
    action: String,
    from: Vec<Map<String, Value>>,
    to: Vec<Map<String, Value>>,
    protocols: Option<Vec<Map<String, Value>>>,
    ports: Option<Vec<Map<String, Value>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamespacedPod {
    namespace_selector: LabelSelector,
    pod_selector: LabelSelector,
}

/// Something that is not known here; says what.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(super) struct Unknown(String);

/// A policy with what of it is not known here, and therefore fails closed.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) spec: Spec,
    pub(super) unknown: Vec<Unknown>,
}

impl Object {
    /// Reads it. An error: it concerns no pods.
    pub(super) fn read(&self, kind: Kind) -> Result<Read, Unknown> {
        let spec = &self.spec;
        let tier = match (kind, spec.tier.as_str()) {
            (Kind::Admin, _) | (Kind::Cluster, "Admin") => Tier::Admin(spec.priority),
            (Kind::Baseline, _) | (Kind::Cluster, "Baseline") => Tier::Baseline(spec.priority),
            (Kind::Cluster, other) => return Err(Unknown(format!("spec.tier: {other:?} is not known"))),
        };
        let subject =
            pods(&spec.subject).ok_or_else(|| Unknown(format!("spec.subject: {} is not known", keys(&spec.subject))))?;
        let mut unknown = Vec::new();
        let mut direction = |name: &str, rules: &[ObjectRule]| {
            let read = rules.iter().enumerate().filter_map(|(index, rule)| {
                let (rule, problem) = rule.read();
                unknown.extend(problem.map(|Unknown(what)| Unknown(format!("spec.{name}[{index}]: {what}"))));
                rule
            });
            let read: Vec<Rule> = read.collect();
            (!rules.is_empty()).then_some(read)
        };
        let (ingress, egress) = (direction("ingress", &spec.ingress), direction("egress", &spec.egress));
        Ok(Read { spec: Spec { tier, subject, ingress, egress }, unknown })
    }
}

impl ObjectRule {
    /// The rule; none matches nothing.
    fn read(&self) -> (Option<Rule>, Option<Unknown>) {
        let action = match self.action.as_str() {
            "Accept" | "Allow" => Action::Accept,
            "Pass" => Action::Pass,
            _ => Action::Deny,
        };
        match self.connections() {
            Ok((peers, ports)) => (Some(Rule::new(action, peers, ports)), None),
            Err(Unknown(what)) => {
                let closed = match action {
                    Action::Accept => None,
                    Action::Deny | Action::Pass => Some(Rule::new(Action::Deny, vec![Peer::All], vec![Port::All])),
                };
                let effect = if closed.is_some() { "the rule denies all" } else { "the rule matches nothing" };
                (closed, Some(Unknown(format!("{what} is not known: {effect}{}", called(&self.name)))))
            }
        }
    }

    fn connections(&self) -> Result<(Vec<Peer>, Vec<Port>), Unknown> {
        let peers = self.from.iter().chain(&self.to).map(peer).collect::<Result<Vec<_>, _>>()?;
        if peers.is_empty() {
            return Err(Unknown("a rule without peers".to_owned()));
        }
        let ports = match (&self.protocols, &self.ports) {
            (None, None) => vec![Port::All],
            // A rule that denies must not get smaller by what nobody can mean.
            (Some(all), _) | (None, Some(all)) if all.is_empty() => return Err(Unknown("an empty list of ports".to_owned())),
            (Some(all), _) => all.iter().map(protocol).collect::<Result<Vec<_>, _>>()?.concat(),
            (None, Some(all)) => all.iter().map(port).collect::<Result<Vec<_>, _>>()?.concat(),
        };
        Ok((peers, ports))
    }
}

fn called(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" (rule {name:?})") }
}

fn keys(fields: &Map<String, Value>) -> String {
    match fields.is_empty() {
        true => "what has none of the fields that are known".to_owned(),
        false => fields.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
    }
}

/// The one field that is set.
fn only(fields: &Map<String, Value>) -> Option<(&str, &Value)> {
    let mut all = fields.iter();
    let first = all.next()?;
    all.next().is_none().then_some((first.0.as_str(), first.1))
}

fn of<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

/// Pods by `namespaces` or by `pods`.
fn pods(fields: &Map<String, Value>) -> Option<Selection> {
    let (namespaces, pods) = match only(fields)? {
        ("namespaces", value) => (of::<LabelSelector>(value)?, LabelSelector::default()),
        ("pods", value) => {
            let NamespacedPod { namespace_selector, pod_selector } = of(value)?;
            (namespace_selector, pod_selector)
        }
        _ => return None,
    };
    Some(Selection { namespaces: Namespaces::Selected(selector(Some(&namespaces))), pods: selector(Some(&pods)) })
}

fn peer(fields: &Map<String, Value>) -> Result<Peer, Unknown> {
    let networks = |value: &Value| {
        let cidrs: Vec<String> = of(value)?;
        // What is no range must not make a rule that denies smaller.
        cidrs.iter().all(|cidr| cidr.parse::<ipnet::IpNet>().is_ok()).then_some(cidrs)
    };
    let read = match only(fields) {
        Some(("networks", value)) => networks(value).map(|cidrs| {
            let blocks: Vec<IPBlock> = cidrs.into_iter().map(|cidr| IPBlock { cidr, except: None }).collect();
            Peer::Blocks(ranges(blocks.iter()))
        }),
        _ => pods(fields).map(Peer::Pods),
    };
    read.ok_or_else(|| Unknown(format!("the peer with {}", keys(fields))))
}

/// `protocols` of v1alpha2.
fn protocol(fields: &Map<String, Value>) -> Result<Vec<Port>, Unknown> {
    let unknown = || Unknown(format!("the protocol with {}", keys(fields)));
    let (name, value) = only(fields).ok_or_else(unknown)?;
    let number = match name {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        "destinationNamedPort" => return value.as_str().map(named).ok_or_else(unknown),
        _ => return Err(unknown()),
    };
    let fields = value.as_object().ok_or_else(unknown)?;
    let range = match only(fields) {
        None if fields.is_empty() => return Ok(vec![Port::Of(number)]),
        Some(("destinationPort", port)) => match port.as_object().and_then(only) {
            Some(("number", port)) => of::<u16>(port).map(|port| (port, port)),
            Some(("range", range)) => ends(range),
            _ => None,
        },
        _ => None,
    };
    range.map(|(first, last)| vec![Port::Range(number, first, last)]).ok_or_else(unknown)
}

/// `ports` of v1alpha1.
fn port(fields: &Map<String, Value>) -> Result<Vec<Port>, Unknown> {
    let unknown = || Unknown(format!("the port with {}", keys(fields)));
    let (name, value) = only(fields).ok_or_else(unknown)?;
    let of_protocol = || Protocol::from_name(value.get("protocol").and_then(Value::as_str));
    let read = match name {
        "namedPort" => return value.as_str().map(named).ok_or_else(unknown),
        "portNumber" => of_protocol().zip(value.get("port").and_then(of::<u16>).map(|port| (port, port))),
        "portRange" => of_protocol().zip(ends(value)),
        _ => None,
    };
    read.map(|(protocol, (first, last))| vec![Port::Range(protocol, first, last)]).ok_or_else(unknown)
}

/// A port of a name may be of any protocol.
fn named(name: &str) -> Vec<Port> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| Port::Named(protocol, name.to_owned())).to_vec()
}

fn ends(range: &Value) -> Option<(u16, u16)> {
    Some((range.get("start").and_then(of)?, range.get("end").and_then(of)?))
}
