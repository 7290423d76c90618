//! NetworkPolicy: which connections pods may make and take.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::{Selector, validate_label_selector};
use apimachinery::names;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::{self, list};
use crate::typed::Kind;
use crate::util::{child_object, each, or_none, set_default};

const TYPES: &[&str] = &["Ingress", "Egress"];

impl Kind for NetworkPolicy {
    const DEF: KindDef = KindDef::of::<Self>("networkpolicy").short(&["netpol"]).generation();

    fn apply_defaults(object: &mut Value) {
        let spec = child_object(object, "spec");
        for rules in ["ingress", "egress"] {
            for rule in each(spec, rules) {
                each(rule, "ports").for_each(|port| set_default(port, "protocol", "TCP"));
            }
        }
        let some = |spec: &Value, key: &str| spec.get(key).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        if !some(spec, "policyTypes") {
            spec["policyTypes"] = if some(spec, "egress") { json!(TYPES) } else { json!(["Ingress"]) };
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let none = NetworkPolicySpec::default();
        let (spec, path) = (self.spec.as_ref().unwrap_or(&none), Path::new("spec"));
        if let Some(selector) = &spec.pod_selector {
            validate_label_selector(selector, &path.child("podSelector"), errors);
        }
        for (index, rule) in list(&spec.ingress).iter().enumerate() {
            validate_rule(list(&rule.ports), ("from", list(&rule.from)), &path.child("ingress").index(index), errors);
        }
        for (index, rule) in list(&spec.egress).iter().enumerate() {
            validate_rule(list(&rule.ports), ("to", list(&rule.to)), &path.child("egress").index(index), errors);
        }
        let (types, path) = (list(&spec.policy_types), path.child("policyTypes"));
        if types.len() > TYPES.len() {
            return errors.push(Error::invalid(&path, types.to_vec(), "may not specify more than two policyTypes"));
        }
        for (index, one) in types.iter().enumerate() {
            rules::supported(&path.index(index), Some(one), TYPES, errors);
        }
    }

    fn warnings(&self) -> Vec<String> {
        let (mut warnings, path) = (Vec::new(), Path::new("spec"));
        let Some(spec) = &self.spec else { return warnings };
        for (index, rule) in list(&spec.ingress).iter().enumerate() {
            warn_of_peers(list(&rule.from), &path.child("ingress").index(index).child("from"), &mut warnings);
        }
        for (index, rule) in list(&spec.egress).iter().enumerate() {
            warn_of_peers(list(&rule.to), &path.child("egress").index(index).child("to"), &mut warnings);
        }
        warnings
    }

    fn warnings_on_update(&self, _old: &Self) -> Vec<String> {
        self.warnings()
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[Column::new("Pod-Selector", "Pods that the policy is about.", |policy, _| {
                let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.clone()).unwrap_or_default();
                Selector::from_label_selector(Some(&selector)).map_or("<error>".into(), |selector| or_none(selector.to_string()))
            })]
        }
    }
}

fn validate_rule(ports: &[NetworkPolicyPort], peers: (&str, &[NetworkPolicyPeer]), path: &Path, errors: &mut Errors) {
    for (index, port) in ports.iter().enumerate() {
        validate_port(port, &path.child("ports").index(index), errors);
    }
    for (index, peer) in peers.1.iter().enumerate() {
        validate_peer(peer, &path.child(peers.0).index(index), errors);
    }
}

fn validate_port(port: &NetworkPolicyPort, path: &Path, errors: &mut Errors) {
    rules::supported(&path.child("protocol"), port.protocol.as_deref(), &["TCP", "UDP", "SCTP"], errors);
    let (at, end_path) = (path.child("port"), path.child("endPort"));
    match (&port.port, port.end_port) {
        (Some(IntOrString::Int(first)), end) => {
            rules::port_number(&at, *first, errors);
            let Some(end) = end else { return };
            if end < *first {
                errors.push(Error::invalid(&end_path, end, "must be greater than or equal to `port`"));
            }
            rules::port_number(&end_path, end, errors);
        }
        (Some(IntOrString::String(name)), end) => {
            if let Some(end) = end {
                errors.push(Error::invalid(&end_path, end, "may not be specified when `port` is non-numeric"));
            }
            errors.invalid_each(&at, name, names::port_name(name));
        }
        (None, Some(end)) => errors.push(Error::invalid(&end_path, end, "may not be specified when `port` is not specified")),
        (None, None) => {}
    }
}

fn validate_peer(peer: &NetworkPolicyPeer, path: &Path, errors: &mut Errors) {
    let selectors = [("podSelector", &peer.pod_selector), ("namespaceSelector", &peer.namespace_selector)];
    for (field, selector) in selectors {
        if let Some(selector) = selector {
            validate_label_selector(selector, &path.child(field), errors);
        }
    }
    let selects = selectors.iter().any(|(_, selector)| selector.is_some());
    if let Some(block) = &peer.ip_block {
        validate_block(block, &path.child("ipBlock"), errors);
        if selects {
            errors.push(Error::forbidden(path, "may not specify both ipBlock and another peer"));
        }
    } else if !selects {
        errors.push(Error::required(path, "must specify a peer"));
    }
}

fn validate_block(block: &IPBlock, path: &Path, errors: &mut Errors) {
    if block.cidr.is_empty() {
        return errors.push(Error::required(&path.child("cidr"), ""));
    }
    rules::cidr(&path.child("cidr"), &block.cidr, errors);
    for (index, except) in list(&block.except).iter().enumerate() {
        let path = path.child("except").index(index);
        rules::cidr(&path, except, errors);
        if rules::is_strict_subset(except, &block.cidr) == Some(false) {
            errors.push(Error::invalid(&path, except.as_str(), "must be a strict subset of `cidr`"));
        }
    }
}

fn warn_of_peers(peers: &[NetworkPolicyPeer], path: &Path, warnings: &mut Vec<String>) {
    for (index, peer) in peers.iter().enumerate() {
        let (Some(block), path) = (&peer.ip_block, path.index(index).child("ipBlock")) else { continue };
        rules::warn_of_cidr(&path.child("cidr"), &block.cidr, warnings);
        for (index, except) in list(&block.except).iter().enumerate() {
            rules::warn_of_cidr(&path.child("except").index(index), except, warnings);
        }
    }
}
