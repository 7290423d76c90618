//! Ingress: HTTP from outside, to services by host and path.

use std::collections::BTreeSet;
use std::net::IpAddr;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::core::v1::TypedLocalObjectReference;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec, IngressTLS,
};
use serde_json::{Value, json};

use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::{self, list, text};
use crate::sub::Sub;
use crate::typed::Kind;

/// The old way to name the class.
const CLASS: &str = "kubernetes.io/ingress.class";
/// Hosts that the table shows.
const SHOWN_HOSTS: usize = 3;

impl Kind for Ingress {
    const DEF: KindDef = KindDef::of::<Self>("ingress").short(&["ing"]).generation().subresources(&[Sub::STATUS]);

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn validate(&self, errors: &mut Errors) {
        let none = IngressSpec::default();
        let (spec, path) = (self.spec.as_ref().unwrap_or(&none), Path::new("spec"));
        let rules = list(&spec.rules);
        if rules.is_empty() && spec.default_backend.is_none() {
            let detail = "either `defaultBackend` or `rules` must be specified";
            errors.push(Error::invalid(&path, Value::Null, detail));
        }
        if let Some(backend) = &spec.default_backend {
            validate_backend(backend, &path.child("defaultBackend"), errors);
        }
        for (index, rule) in rules.iter().enumerate() {
            validate_rule(rule, &path.child("rules").index(index), errors);
        }
        for (index, tls) in list(&spec.tls).iter().enumerate() {
            validate_tls(tls, &path.child("tls").index(index), errors);
        }
        if let Some(class) = &spec.ingress_class_name {
            rules::dns_subdomain(&path.child("ingressClassName"), class, errors);
        }
    }

    fn validate_create(&self, errors: &mut Errors) {
        let class = self.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
        let old = self.metadata.annotations.as_ref().and_then(|notes| notes.get(CLASS));
        if let (Some(class), Some(old)) = (class, old)
            && class != old
        {
            let detail = "must match `ingressClassName` when both are specified";
            errors.push(Error::invalid(&Path::new("annotations").child(CLASS), old.as_str(), detail));
        }
    }

    fn validate_sub(&self, _sub: &str, _old: &Self, errors: &mut Errors) {
        let path = Path::new("status.loadBalancer.ingress");
        let status = self.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        for (index, point) in status.map(|balancer| list(&balancer.ingress)).unwrap_or_default().iter().enumerate() {
            let (path, address, name) = (path.index(index), text(&point.ip), text(&point.hostname));
            if !address.is_empty() {
                rules::ip(&path.child("ip"), address, errors);
            }
            if !name.is_empty() {
                rules::dns_subdomain(&path.child("hostname"), name, errors);
                not_an_address(&path.child("hostname"), name, errors);
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        if self.metadata.annotations.as_ref().is_none_or(|notes| !notes.contains_key(CLASS)) {
            return Vec::new();
        }
        vec![format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead")]
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new(
                    "Class",
                    "The name of the IngressClass resource that should be used for additional configuration",
                    |ingress, _| {
                        let class = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
                        class.unwrap_or("<none>").into()
                    },
                ),
                Column::new("Hosts", "Hosts that incoming requests are matched against before the ingress rule", |ingress, _| {
                    hosts(ingress.spec.as_ref().map(|spec| list(&spec.rules)).unwrap_or_default()).into()
                }),
                Column::new("Address", "Address is a list containing ingress points for the load-balancer", |ingress, _| {
                    addresses(ingress).into()
                }),
                Column::new("Ports", "Ports of TLS configurations that open", |ingress, _| {
                    let tls = ingress.spec.as_ref().is_some_and(|spec| !list(&spec.tls).is_empty());
                    if tls { "80, 443" } else { "80" }.into()
                }),
            ]
        }
    }
}

/// The first hosts, and how many rules there are besides.
fn hosts(rules: &[IngressRule]) -> String {
    let mut hosts = Vec::new();
    let mut more = false;
    for host in rules.iter().map(|rule| text(&rule.host)) {
        more |= hosts.len() == SHOWN_HOSTS;
        if !more && !host.is_empty() {
            hosts.push(host);
        }
    }
    match hosts.join(",") {
        shown if shown.is_empty() => "*".to_owned(),
        shown if more => format!("{shown} + {} more...", rules.len() - SHOWN_HOSTS),
        shown => shown,
    }
}

fn addresses(ingress: &Ingress) -> String {
    let balancer = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let points = balancer.map(|balancer| list(&balancer.ingress)).unwrap_or_default().iter();
    let shown = points.map(|point| if text(&point.ip).is_empty() { text(&point.hostname) } else { text(&point.ip) });
    let shown: BTreeSet<_> = shown.filter(|address| !address.is_empty()).collect();
    shown.into_iter().collect::<Vec<_>>().join(",")
}

fn not_an_address(path: &Path, host: &str, errors: &mut Errors) {
    if names::without_leading_zeros(host).parse::<IpAddr>().is_ok() || host.parse::<IpAddr>().is_ok() {
        errors.push(Error::invalid(path, host, "must be a DNS name, not an IP address"));
    }
}

/// A name, or one whose first label is a star.
fn host(path: &Path, host: &str, errors: &mut Errors) {
    if host.contains('*') {
        errors.invalid_each(path, host, names::wildcard_dns1123_subdomain(host));
    } else {
        rules::dns_subdomain(path, host, errors);
    }
}

fn validate_tls(tls: &IngressTLS, path: &Path, errors: &mut Errors) {
    for (index, name) in list(&tls.hosts).iter().enumerate() {
        host(&path.child("hosts").index(index), name, errors);
    }
    if !text(&tls.secret_name).is_empty() {
        rules::dns_subdomain(&path.child("secretName"), text(&tls.secret_name), errors);
    }
}

fn validate_rule(rule: &IngressRule, path: &Path, errors: &mut Errors) {
    let name = text(&rule.host);
    if !name.is_empty() {
        not_an_address(&path.child("host"), name, errors);
        host(&path.child("host"), name, errors);
    }
    if let Some(HTTPIngressRuleValue { paths }) = &rule.http {
        let path = path.child("http.paths");
        if paths.is_empty() {
            errors.push(Error::required(&path, ""));
        }
        for (index, one) in paths.iter().enumerate() {
            validate_path(one, &path.index(index), errors);
        }
    }
}

fn validate_path(one: &HTTPIngressPath, path: &Path, errors: &mut Errors) {
    let (at, value) = (path.child("path"), text(&one.path));
    match one.path_type.as_str() {
        "" => return errors.push(Error::required(&path.child("pathType"), "pathType must be specified")),
        "Exact" | "Prefix" => {
            if !value.starts_with('/') {
                errors.push(Error::invalid(&at, value, "must be an absolute path"));
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| value.contains(part)) {
                errors.push(Error::invalid(&at, value, format!("must not contain '{part}'")));
            }
            for end in ["/..", "/."].into_iter().filter(|end| value.ends_with(end)) {
                errors.push(Error::invalid(&at, value, format!("cannot end with '{end}'")));
            }
        }
        "ImplementationSpecific" if !value.is_empty() && !value.starts_with('/') => {
            errors.push(Error::invalid(&at, value, "must be an absolute path"));
        }
        "ImplementationSpecific" => {}
        other => {
            let types = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(Error::not_supported(&path.child("pathType"), other, &types));
        }
    }
    validate_backend(&one.backend, &path.child("backend"), errors);
}

fn validate_backend(backend: &IngressBackend, path: &Path, errors: &mut Errors) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => errors.push(Error::invalid(path, "", "cannot set both resource and service backends")),
        (Some(resource), None) => validate_resource(resource, &path.child("resource"), errors),
        (None, Some(service)) => validate_service(service, path, errors),
        (None, None) => errors.push(Error::invalid(path, "", "resource or service backend is required")),
    }
}

fn validate_resource(resource: &TypedLocalObjectReference, path: &Path, errors: &mut Errors) {
    if let Some(group) = &resource.api_group {
        rules::dns_subdomain(&path.child("apiGroup"), group, errors);
    }
    super::reference(&path.child("kind"), &resource.kind, errors);
    super::reference(&path.child("name"), &resource.name, errors);
}

fn validate_service(service: &IngressServiceBackend, path: &Path, errors: &mut Errors) {
    let at = path.child("service.name");
    match service.name.as_str() {
        "" => errors.push(Error::required(&at, "")),
        name => errors.invalid_each(&at, name, names::name_is_label(name, false)),
    }
    let port = service.port.clone().unwrap_or_default();
    let (name, number) = (text(&port.name), port.number.unwrap_or(0));
    match (name, number) {
        ("", 0) => errors.push(Error::required(path, "port name or number is required")),
        ("", number) => rules::port_number(&path.child("service.port.number"), number, errors),
        (name, 0) => errors.invalid_each(&path.child("service.port.name"), name, names::port_name(name)),
        _ => errors.push(Error::invalid(path, "", "cannot set both port name & port number")),
    }
}
