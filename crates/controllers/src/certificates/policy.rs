//! What the signers of `kubernetes.io` certify, and what nodes get without anybody's approval. Pure.

use std::net::IpAddr;

use base::tls::{NODE_KEY, SigningRequest, Usage};
use ipnet::IpNet;
use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use k8s_openapi::api::core::v1::Node;

use crate::meta;

const USER: &str = "system:node:";
const GROUP: &str = "system:nodes";

/// A signer of the cluster's authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signer {
    /// Clients of the API server.
    Client,
    /// Kubelets, as clients of the API server.
    KubeletClient,
    /// Kubelets, as servers.
    KubeletServing,
}

impl Signer {
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "kubernetes.io/kube-apiserver-client" => Some(Self::Client),
            "kubernetes.io/kube-apiserver-client-kubelet" => Some(Self::KubeletClient),
            "kubernetes.io/kubelet-serving" => Some(Self::KubeletServing),
            _ => None,
        }
    }

    /// What it must be for, and nothing but that and what comes with every certificate.
    fn purpose(self) -> Usage {
        match self {
            Self::Client | Self::KubeletClient => Usage::ClientAuth,
            Self::KubeletServing => Usage::ServerAuth,
        }
    }
}

/// Why a signer does not certify something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("cannot read the request: {0}")]
    Unreadable(String),
    #[error("usages did not match: {0}")]
    Usages(String),
    #[error("organization is not system:nodes")]
    Organization,
    #[error("subject common name does not begin with system:node:")]
    CommonName,
    #[error("names are not allowed in the certificate of a client")]
    Names,
    #[error("only DNS names and IP addresses are allowed")]
    OtherNames,
    #[error("at least one DNS name or IP address is needed")]
    NoNames,
}

/// What is asked of a signer, read and checked.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) request: SigningRequest,
    pub(super) usages: Vec<Usage>,
}

/// Checks a request against the rules of its signer.
pub(super) fn check(signer: Signer, spec: &CertificateSigningRequestSpec) -> Result<Wanted, Violation> {
    let request = SigningRequest::parse(&spec.request.0).map_err(|error| Violation::Unreadable(error.to_string()))?;
    let names: Vec<&str> = spec.usages.iter().flatten().map(String::as_str).collect();
    let usages: Option<Vec<Usage>> = names.iter().map(|name| usage(name)).collect();
    let allowed = |usage: &Usage| *usage == signer.purpose() || matches!(usage, Usage::DigitalSignature | Usage::KeyEncipherment);
    let usages = usages
        .filter(|usages| usages.iter().all(allowed) && usages.contains(&signer.purpose()))
        .ok_or_else(|| Violation::Usages(names.join(", ")))?;
    let unnamed = request.dns.is_empty() && request.ips.is_empty();
    match signer {
        Signer::Client => return Ok(Wanted { request, usages }),
        Signer::KubeletClient if !unnamed || request.others => return Err(Violation::Names),
        Signer::KubeletServing if request.others => return Err(Violation::OtherNames),
        Signer::KubeletServing if unnamed => return Err(Violation::NoNames),
        _ => {}
    }
    if request.organizations != [GROUP] {
        return Err(Violation::Organization);
    }
    match node(&request) {
        Some(_) => Ok(Wanted { request, usages }),
        None => Err(Violation::CommonName),
    }
}

fn usage(name: &str) -> Option<Usage> {
    match name {
        "digital signature" => Some(Usage::DigitalSignature),
        "key encipherment" => Some(Usage::KeyEncipherment),
        "client auth" => Some(Usage::ClientAuth),
        "server auth" => Some(Usage::ServerAuth),
        _ => None,
    }
}

/// The node that a request is for.
pub(super) fn node(request: &SigningRequest) -> Option<&str> {
    request.name.strip_prefix(USER).filter(|name| !name.is_empty())
}

/// Whether the certificate is for the requester itself.
pub(super) fn is_own(spec: &CertificateSigningRequestSpec, request: &SigningRequest) -> bool {
    let groups = spec.groups.iter().flatten();
    spec.username.as_deref() == Some(request.name.as_str()) && groups.into_iter().any(|group| group == GROUP)
}

/// Whether a machine may become the node of this name: nobody has it, or the machine has the key with which the node has joined.
pub(super) fn may_join(node: Option<&Node>, fingerprint: &str) -> bool {
    node.is_none_or(|node| meta::annotation(node, NODE_KEY) == Some(fingerprint))
}

/// Whether a certificate for the key may be the node's next one. A node that has said nothing of a key, such as that of another kubelet, may
/// change it, as upstream's nodes do each time.
pub(super) fn may_renew(node: Option<&Node>, fingerprint: &str) -> bool {
    node.and_then(|node| meta::annotation(node, NODE_KEY)).is_none_or(|own| own == fingerprint)
}

/// Whether the requester has shown the key with which the node has joined. Who had a certificate for its name before it joined, and asked then,
/// is another machine.
pub(super) fn is_asked_by(node: &Node, spec: &CertificateSigningRequestSpec) -> bool {
    let shown = spec.extra.as_ref().and_then(|extra| extra.get(NODE_KEY)).map(Vec::as_slice);
    meta::annotation(node, NODE_KEY).is_none_or(|own| shown.is_some_and(|shown| shown == [own]))
}

/// What no node gets a certificate for, whatever it calls itself: one authority signs for kubelets and for the API server, so a node with such
/// a certificate would be the API server for every client of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Reserved {
    /// Names and addresses by which clients reach the API server.
    pub names: Vec<String>,
    /// The networks of services and pods.
    pub ranges: Vec<IpNet>,
    /// The cluster domain, such as `cluster.local`.
    pub domain: String,
}

impl Reserved {
    /// The first name or address of a request that is reserved.
    pub(super) fn of(&self, request: &SigningRequest) -> Option<String> {
        let name = request.dns.iter().find(|name| self.has_name(name)).cloned();
        name.or_else(|| request.ips.iter().find(|ip| self.has_address(**ip)).map(IpAddr::to_string))
    }

    fn has_name(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let is_below = |end: &str| name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        ["localhost", "svc", &self.domain].into_iter().any(is_below)
            || self.names.iter().any(|own| covers(&own.to_ascii_lowercase(), &name))
    }

    fn has_address(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_own = |own: &String| own.parse::<IpAddr>().is_ok_and(|own| own.to_canonical() == ip);
        ip.is_loopback()
            || ip.is_unspecified()
            || ip.is_multicast()
            || self.ranges.iter().any(|range| range.contains(&ip))
            || self.names.iter().any(is_own)
    }
}

/// Whether a name of a certificate is that of a host: as it is, or with a wildcard for the first label (RFC 6125 section 6.4.3).
fn covers(own: &str, host: &str) -> bool {
    let parent = host.split_once('.').map(|(_, parent)| parent);
    own == host || own.strip_prefix("*.").is_some_and(|end| parent == Some(end))
}

/// Whether the node has these names: its own name, and addresses that it has told and no other node has.
pub(super) fn has_names<'a>(node: &Node, others: impl Iterator<Item = &'a Node>, request: &SigningRequest) -> bool {
    let own = meta::name(node);
    let ips = |node| addresses(node, &["InternalIP", "ExternalIP"]).filter_map(|text| text.parse::<IpAddr>().ok());
    let has_ip = |wanted: &IpAddr| ips(node).any(|ip| ip == *wanted);
    request.dns.iter().all(|name| name == own)
        && request.ips.iter().all(has_ip)
        && !others.filter(|other| meta::name(*other) != own).any(|other| ips(other).any(|ip| request.ips.contains(&ip)))
}

fn addresses<'a>(node: &'a Node, types: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    all.filter(|address| types.contains(&address.type_.as_str())).map(|address| address.address.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base::tls;
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    fn spec(name: &str, groups: &[&str], sans: &[&str], usages: &[&str]) -> CertificateSigningRequestSpec {
        let own = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let wanted = tls::Request::Both { user: name.to_owned(), groups: own(groups), sans: own(sans) };
        let request = tls::request(&tls::generate_key().unwrap(), &wanted).unwrap();
        CertificateSigningRequestSpec {
            request: k8s_openapi::ByteString(request.into_bytes()),
            usages: Some(own(usages)),
            ..Default::default()
        }
    }

    const CLIENT: &[&str] = &["digital signature", "client auth"];
    const SERVER: &[&str] = &["digital signature", "key encipherment", "server auth"];

    #[test]
    fn signers_have_rules() {
        let check = |signer, name: &str, groups: &[&str], sans: &[&str], usages: &[&str], expected: Result<(), Violation>| {
            assert_eq!(super::check(signer, &spec(name, groups, sans, usages)).map(drop), expected, "{signer:?} {name}");
        };
        let nodes = &["system:nodes"][..];
        let usages = |names: &[&str]| Err(Violation::Usages(names.join(", ")));
        check(Signer::KubeletClient, "system:node:a", nodes, &[], CLIENT, Ok(()));
        check(Signer::KubeletClient, "system:node:a", nodes, &[], &["key encipherment", "client auth"], Ok(()));
        check(Signer::KubeletClient, "system:node:a", nodes, &[], SERVER, usages(SERVER));
        check(Signer::KubeletClient, "system:node:a", nodes, &[], &["digital signature"], usages(&["digital signature"]));
        check(Signer::KubeletClient, "system:node:a", nodes, &["a"], CLIENT, Err(Violation::Names));
        check(Signer::KubeletClient, "system:node:a", &["system:nodes", "b"], &[], CLIENT, Err(Violation::Organization));
        check(Signer::KubeletClient, "system:node:a", &["system:masters"], &[], CLIENT, Err(Violation::Organization));
        check(Signer::KubeletClient, "system:node:", nodes, &[], CLIENT, Err(Violation::CommonName));
        check(Signer::KubeletClient, "jane", nodes, &[], CLIENT, Err(Violation::CommonName));
        check(Signer::KubeletServing, "system:node:a", nodes, &["a", "10.0.0.1"], SERVER, Ok(()));
        check(Signer::KubeletServing, "system:node:a", nodes, &[], SERVER, Err(Violation::NoNames));
        check(Signer::KubeletServing, "system:node:a", nodes, &["a"], CLIENT, usages(CLIENT));
        check(Signer::Client, "jane", &["a", "b"], &[], CLIENT, Ok(()));
        check(Signer::Client, "jane", &[], &[], &["client auth", "server auth"], usages(&["client auth", "server auth"]));
        check(Signer::Client, "jane", &[], &[], &["client auth", "cert sign"], usages(&["client auth", "cert sign"]));
    }

    #[test]
    fn a_name_belongs_to_the_key_that_joined() {
        let check = |annotations: Option<serde_json::Value>, expected: bool| {
            let node = annotations.map(|all| object::<Node>(json!({"metadata": {"name": "a", "annotations": all}})));
            assert_eq!(may_join(node.as_ref(), "f00d"), expected);
        };
        check(None, true);
        check(Some(json!({NODE_KEY: "f00d"})), true);
        check(Some(json!({NODE_KEY: "beef"})), false);
        check(Some(json!({})), false);
    }

    #[test]
    fn what_is_renewed_has_the_key_that_joined() {
        let check = |annotations: Option<serde_json::Value>, renewed: bool, served: [bool; 2]| {
            let node = annotations.map(|all| object::<Node>(json!({"metadata": {"name": "a", "annotations": all}})));
            assert_eq!(may_renew(node.as_ref(), "f00d"), renewed, "{node:?}");
            let Some(node) = node else { return };
            let shown = [None, Some("f00d")].map(|key| CertificateSigningRequestSpec {
                extra: key.map(|key| [(NODE_KEY.to_owned(), vec![key.to_owned()])].into()),
                ..Default::default()
            });
            assert_eq!(shown.map(|spec| is_asked_by(&node, &spec)), served, "{node:?}");
        };
        check(None, true, [true; 2]);
        check(Some(json!({})), true, [true; 2]);
        check(Some(json!({NODE_KEY: "f00d"})), true, [false, true]);
        check(Some(json!({NODE_KEY: "beef"})), false, [false, false]);
    }

    #[test]
    fn a_node_gets_its_own_names() {
        let node = |name: &str, ip: &str| -> Node {
            let addresses = json!([{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}]);
            object(json!({"metadata": {"name": name}, "status": {"addresses": addresses}}))
        };
        let check = |sans: &[&str], others: &[Node], expected: bool| {
            let spec = spec("system:node:a", &["system:nodes"], sans, SERVER);
            let wanted = super::check(Signer::KubeletServing, &spec).unwrap();
            let own = node("a", "10.0.0.1");
            assert_eq!(has_names(&own, others.iter().chain([&own]), &wanted.request), expected, "{sans:?}");
        };
        check(&["a", "10.0.0.1"], &[node("b", "10.0.0.2")], true);
        check(&["b", "10.0.0.1"], &[], false);
        check(&["a", "10.0.0.2"], &[], false);
        check(&["kubernetes.default.svc"], &[], false);
        check(&["a", "10.0.0.1"], &[node("b", "10.0.0.1")], false);
        // A node writes its host names itself.
        let mut told = node("a", "10.0.0.1");
        told.status.as_mut().unwrap().addresses.as_mut().unwrap()[1].address = "api.example".to_owned();
        let wanted = super::check(Signer::KubeletServing, &spec("system:node:a", &["system:nodes"], &["api.example"], SERVER));
        assert!(!has_names(&told, [&told].into_iter(), &wanted.unwrap().request));
    }

    #[test]
    fn nobody_is_certified_as_the_api_server() {
        let reserved = Reserved {
            names: ["kubernetes", "kubernetes.default.svc", "api.example", "*.Wild.example", "192.0.2.1", "2001:db8::1"]
                .map(str::to_owned)
                .to_vec(),
            ranges: vec!["10.43.0.0/16".parse().unwrap()],
            domain: "cluster.test".to_owned(),
        };
        let check = |san: &str, expected: bool| {
            let spec = spec("system:node:a", &["system:nodes"], &[san], SERVER);
            let wanted = super::check(Signer::KubeletServing, &spec).unwrap();
            assert_eq!(reserved.of(&wanted.request), expected.then(|| san.to_owned()), "{san}");
        };
        for own in [
            "a",
            "a.example",
            "svc.example",
            "mysvc",
            "mycluster.test",
            "kubernetes2",
            "wild.example",
            "a.b.wild.example",
            "10.44.0.1",
            "192.0.2.2",
            "2001:db8::2",
        ] {
            check(own, false);
        }
        let others = [
            "kubernetes",
            "Kubernetes",
            "api.example",
            "webhook.ns.svc",
            "svc",
            "a.b.cluster.test",
            "cluster.test",
            "localhost",
            "x.localhost",
            "api.wild.example",
        ];
        others.into_iter().for_each(|name| check(name, true));
        for address in ["192.0.2.1", "2001:db8::1", "10.43.0.1", "127.0.0.1", "::1", "0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1"] {
            check(address, true);
        }
    }
}
