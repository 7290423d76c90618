//! APIService (upstream: `kube-aggregator/pkg/apis/apiregistration/validation`).

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec, ServiceReference};
use serde_json::{Value, json};

use crate::columns::Column;
use crate::def::{KindDef, NameRule, UnqualifiedFinalizers};
use crate::rules::{self, list, text};
use crate::sub::Sub;
use crate::typed::{Kind, Requester};
use crate::util::set_default;

const MAX_GROUP_PRIORITY: i32 = 20_000;
const MAX_VERSION_PRIORITY: i32 = 1_000;

impl Kind for APIService {
    const DEF: KindDef = KindDef::new("apiregistration.k8s.io", "v1", "APIService", "apiservices", "apiservice")
        .categories(&["api-extensions"])
        .cluster()
        .versioned()
        .unqualified_finalizers(UnqualifiedFinalizers::Kept)
        .name(NameRule::PathSegment)
        .status_keeps_metadata()
        .subresources(&[Sub::STATUS]);

    fn apply_defaults(object: &mut Value) {
        if let Some(service) = object.pointer_mut("/spec/service").filter(|service| service.is_object()) {
            set_default(service, "port", 443);
        }
    }

    /// A group without a service is this server's own, and always there.
    fn record(object: &mut Value, old: Option<&Value>, by: &Requester<'_>) {
        if old.is_none() && object.pointer("/spec/service").is_none_or(Value::is_null) {
            object["status"] = json!({"conditions": [{
                "type": "Available", "status": "True", "lastTransitionTime": by.now,
                "reason": "Local", "message": "Local APIServices are always available",
            }]});
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let (path, none) = (Path::new("spec"), APIServiceSpec::default());
        let spec = self.spec.as_ref().unwrap_or(&none);
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let wanted = format!("{}.{}", text(&spec.version), text(&spec.group));
        if name != wanted && names::path_segment_name(name).is_empty() {
            let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            errors.push(Error::invalid(&Path::new("metadata").child("name"), name, detail));
        }
        validate_spec(spec, &path, errors);
    }

    fn validate_sub(&self, _sub: &str, _old: &Self, errors: &mut Errors) {
        let conditions = self.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default();
        let path = Path::new("status").child("conditions");
        for (index, condition) in conditions.iter().enumerate() {
            let at = path.index(index).child("status");
            rules::supported(&at, Some(&condition.status), &["True", "False", "Unknown"], errors);
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("Service", "The reference to the service that hosts this API endpoint.", |service, _| {
                    let reference = service.spec.as_ref().and_then(|spec| spec.service.as_ref());
                    reference.map_or_else(|| "Local".into(), |at| format!("{}/{}", text(&at.namespace), text(&at.name)).into())
                }),
                Column::new("Available", "Whether this service is available.", |service, _| available(service).into()),
            ]
        }
    }
}

fn available(service: &APIService) -> String {
    let conditions = service.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Available") {
        None => "Unknown".to_owned(),
        Some(condition) if condition.status == "True" || text(&condition.reason).is_empty() => condition.status.clone(),
        Some(condition) => format!("{} ({})", condition.status, text(&condition.reason)),
    }
}

fn validate_spec(spec: &APIServiceSpec, path: &Path, errors: &mut Errors) {
    let (group, version) = (text(&spec.group), text(&spec.version));
    if group.is_empty() && version != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        errors.push(Error::required(&path.child("group"), detail));
    }
    if !group.is_empty() {
        rules::dns_subdomain(&path.child("group"), group, errors);
    }
    errors.invalid_each(&path.child("version"), version, names::dns1035_label(version));
    let priorities = [
        ("groupPriorityMinimum", spec.group_priority_minimum, MAX_GROUP_PRIORITY),
        ("versionPriority", spec.version_priority, MAX_VERSION_PRIORITY),
    ];
    for (field, value, max) in priorities.into_iter().filter(|(_, value, max)| !(1..=*max).contains(value)) {
        errors.push(Error::invalid(&path.child(field), value, format!("must be positive and less than {max}")));
    }
    let (bundle, insecure) =
        (spec.ca_bundle.as_ref().map_or(0, |bytes| bytes.0.len()), spec.insecure_skip_tls_verify == Some(true));
    let at = path.child("insecureSkipTLSVerify");
    match &spec.service {
        None => {
            if bundle > 0 {
                let detail = "local APIServices may not have a caBundle";
                errors.push(Error::invalid(&path.child("caBundle"), format!("{bundle} bytes"), detail));
            }
            if insecure {
                errors.push(Error::invalid(&at, true, "local APIServices may not have insecureSkipTLSVerify"));
            }
        }
        Some(service) => {
            validate_service(service, &path.child("service"), errors);
            if insecure && bundle > 0 {
                errors.push(Error::invalid(&at, true, "may not be true if caBundle is present"));
            }
        }
    }
}

fn validate_service(service: &ServiceReference, path: &Path, errors: &mut Errors) {
    rules::required(&path.child("namespace"), text(&service.namespace), errors);
    rules::required(&path.child("name"), text(&service.name), errors);
    let port = service.port.unwrap_or_default();
    let wrong = names::port_number(port.into());
    if !wrong.is_empty() {
        let detail = format!("port is not valid: {}", wrong.join(", "));
        errors.push(Error::invalid(&path.child("port"), port, detail));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn service(change: Value) -> Value {
        let mut service = json!({"metadata": {"name": "v1.a.b"}, "spec": {
            "group": "a.b", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
            "service": {"namespace": "n", "name": "s", "port": 443},
        }});
        for (key, value) in change.as_object().unwrap() {
            service["spec"][key] = value.clone();
        }
        service
    }

    #[track_caller]
    fn check(change: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        serde_json::from_value::<APIService>(service(change)).unwrap().validate(&mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn rules_of_api_services() {
        check(json!({}), &[]);
        check(json!({"service": null}), &[]);
        check(
            json!({"version": "v2"}),
            &["metadata.name: Invalid value: \"v1.a.b\": must be `spec.version+\".\"+spec.group`: \"v2.a.b\""],
        );
        check(
            json!({"groupPriorityMinimum": 0, "versionPriority": 1001}),
            &[
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
            ],
        );
        check(
            json!({"service": null, "caBundle": "YWI=", "insecureSkipTLSVerify": true}),
            &[
                "spec.caBundle: Invalid value: \"2 bytes\": local APIServices may not have a caBundle",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ],
        );
        check(
            json!({"caBundle": "YWI=", "insecureSkipTLSVerify": true, "service": {"port": 0}}),
            &[
                "spec.service.namespace: Required value",
                "spec.service.name: Required value",
                "spec.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
            ],
        );
    }

    #[test]
    fn local_ones_are_available_at_once() {
        let extra = std::collections::BTreeMap::new();
        let by = Requester { name: "me", uid: "", groups: &[], extra: &extra, now: "2026-01-01T00:00:00Z" };
        let cells = |mut object: Value| {
            APIService::record(&mut object, None, &by);
            let typed: APIService = serde_json::from_value(object).unwrap();
            let cell = |index: usize| match APIService::columns()[index].cell {
                crate::columns::Cell::Of(cell) => cell(&typed, jiff::Timestamp::UNIX_EPOCH),
                _ => Value::Null,
            };
            (cell(0), cell(1))
        };
        assert_eq!(cells(service(json!({"service": null}))), (json!("Local"), json!("True")));
        assert_eq!(cells(service(json!({}))), (json!("n/s"), json!("Unknown")));
    }
}
