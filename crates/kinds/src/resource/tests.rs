//! A table for each kind: defaults, rules, changes, columns.

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use serde_json::{Value, json};

use crate::testing::{check, check_row, check_status, check_update, defaulted, with, wrong_with};
use crate::typed::Kind;

const EPOCH: &str = "1970-01-01T00:00:00Z";
const NO_REQUEST: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

fn named(name: &str, rest: Value) -> Value {
    with(&json!({"metadata": {"name": name, "creationTimestamp": EPOCH}}), rest)
}

fn claim(devices: Value) -> Value {
    named("c", json!({"spec": {"devices": devices}}))
}

fn one_request() -> Value {
    json!({"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]})
}

#[test]
fn defaults_of_requests() {
    let toleration = json!({"tolerations": [{"key": "a"}]});
    let claim = defaulted::<ResourceClaim>(claim(json!({"requests": [
        {"name": "a", "exactly": with(&json!({"deviceClassName": "gpu"}), toleration)},
        {"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "gpu", "allocationMode": "All"}]},
    ]})));
    let requests = &claim["spec"]["devices"]["requests"];
    assert_eq!(
        requests[0]["exactly"],
        json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1, "tolerations": [{"key": "a", "operator": "Equal"}]})
    );
    assert_eq!(requests[1]["firstAvailable"][0].get("count"), None);
}

#[test]
fn requests() {
    let check = |request: Value, expected: &[&str]| check::<ResourceClaim>(claim(json!({"requests": [request]})), expected);
    let exactly = |more: Value| json!({"name": "gpu", "exactly": with(&json!({"deviceClassName": "gpu"}), more)});
    let selected = |expression: &str| exactly(json!({"selectors": [{"cel": {"expression": expression}}]}));
    for good in [
        "true",
        "device.driver == 'd' && device.attributes['d'].model == 'x' && device.attributes['d'].?size.orValue(0) > 1",
        "device.attributes['d'].ready",
        "device.capacity['d'].memory.compareTo(quantity('10Gi')) >= 0",
        "!device.allowMultipleAllocations && device.attributes['d'].version.isGreaterThan(semver('1.0.0'))",
    ] {
        check(selected(good), &[]);
    }
    for (bad, why) in [
        ("1", "must evaluate to bool or the unknown type, not int"),
        ("noSuchVar", "undeclared reference to 'noSuchVar'"),
        ("device.model == 'x'", "undefined field 'model'"),
        ("device.capacity['d'].memory == 1", "found no matching overload for '_==_'"),
        ("", "compilation failed: "),
    ] {
        let found = wrong_with::<ResourceClaim>(claim(json!({"requests": [selected(bad)]})));
        let path = "spec.devices.requests[0].exactly.selectors[0].cel.expression: Invalid value: ";
        assert!(found.len() == 1 && found[0].starts_with(path) && found[0].contains(why), "{bad}: {found:?}");
    }
    check(
        json!({"name": "gpu"}),
        &["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"],
    );
    check(
        with(&exactly(json!({})), json!({"firstAvailable": [{"name": "a", "deviceClassName": "b"}]})),
        &[
            "spec.devices.requests[0]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ],
    );
    check(
        exactly(json!({"deviceClassName": "", "selectors": [{}]})),
        &[
            "spec.devices.requests[0].exactly.deviceClassName: Required value",
            "spec.devices.requests[0].exactly.selectors[0].cel: Required value",
        ],
    );
    check(
        exactly(json!({"selectors": [{"cel": {"expression": "x".repeat(10241)}}]})),
        &["spec.devices.requests[0].exactly.selectors[0].cel.expression: Too long: may not be more than 10240 bytes"],
    );
    check(
        exactly(json!({"allocationMode": "All", "count": 2})),
        &["spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'"],
    );
    check(
        exactly(json!({"count": -1})),
        &["spec.devices.requests[0].exactly.count: Invalid value: -1: must be greater than zero"],
    );
    check(
        exactly(json!({"allocationMode": "Some"})),
        &[
            "spec.devices.requests[0].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"",
        ],
    );
    check(
        exactly(json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "b", "effect": "Never"}]})),
        &[
            "spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: \"b\": must be empty for operator `Exists`",
            "spec.devices.requests[0].exactly.tolerations[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
        ],
    );
    let many: Vec<_> = (0..9).map(|n| json!({"name": format!("a{n}"), "deviceClassName": "b"})).collect();
    check(
        json!({"name": "gpu", "firstAvailable": many}),
        &["spec.devices.requests[0].firstAvailable: Too many: 9: must have at most 8 items"],
    );
}

#[test]
fn claims() {
    check::<ResourceClaim>(claim(json!({})), &[]);
    let devices = |more: Value| claim(with(&one_request(), more));
    check::<ResourceClaim>(devices(json!({"constraints": [{"requests": ["gpu"], "matchAttribute": "d.example/numa"}]})), &[]);
    check::<ResourceClaim>(
        devices(json!({"constraints": [{"requests": ["cpu", "gpu", "gpu"]}, {"matchAttribute": "numa"}]})),
        &[
            &format!("spec.devices.constraints[0].requests[0]: Invalid value: \"cpu\": {NO_REQUEST}"),
            "spec.devices.constraints[0].requests[2]: Duplicate value: \"gpu\"",
            "spec.devices.constraints[0]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
            "spec.devices.constraints[1].matchAttribute: Invalid value: \"numa\": a fully qualified name must be a domain and a name separated by a slash",
        ],
    );
    let opaque = |parameters: Value| json!({"config": [{"opaque": {"driver": "d.example", "parameters": parameters}}]});
    check::<ResourceClaim>(devices(opaque(json!({"a": 1}))), &[]);
    check::<ResourceClaim>(devices(json!({"config": [{}]})), &["spec.devices.config[0].opaque: Required value"]);
    check::<ResourceClaim>(
        devices(opaque(json!([1]))),
        &["spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object"],
    );
    check::<ResourceClaim>(
        devices(opaque(json!({"a": "x".repeat(10241)}))),
        &["spec.devices.config[0].opaque.parameters: Too long: may not be more than 10240 bytes"],
    );
    let twice = json!({"requests": [one_request()["requests"][0], one_request()["requests"][0]]});
    check::<ResourceClaim>(claim(twice), &["spec.devices.requests[1]: Duplicate value: \"gpu\""]);
    check_update::<ResourceClaim>(
        claim(one_request()),
        claim(json!({})),
        &["spec: Invalid value: {\"devices\":{}}: field is immutable"],
    );
    let state = |more: Value, expected: &str| check_row::<ResourceClaim>(with(&claim(json!({})), more), expected);
    state(json!({}), "c|pending|60s");
    state(
        json!({"status": {"allocation": {}, "reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]}}),
        "c|allocated,reserved|60s",
    );
    state(json!({"metadata": {"deletionTimestamp": EPOCH}, "status": {"allocation": {}}}), "c|deleted,allocated|60s");
}

fn allocated(more: Value) -> Value {
    let result = json!({"request": "gpu", "driver": "d.example", "pool": "p", "device": "gpu-0"});
    with(&json!({"allocation": {"devices": {"results": [result]}}}), more)
}

#[test]
fn statuses_of_claims() {
    let check = |status: Value, expected: &[&str]| check_status::<ResourceClaim>(claim(one_request()), status, expected);
    let pod = json!({"resource": "pods", "name": "p", "uid": "u"});
    check(allocated(json!({"reservedFor": [pod]})), &[]);
    check(json!({"reservedFor": [pod]}), &["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]);
    check(
        allocated(json!({"reservedFor": [{}, pod, pod]})),
        &[
            "status.reservedFor[0].resource: Required value",
            "status.reservedFor[0].name: Required value",
            "status.reservedFor[0].uid: Required value",
            "status.reservedFor[2]: Duplicate value: \"u\"",
        ],
    );
    check(
        json!({"allocation": {"devices": {"results": [{"request": "cpu/x/y", "driver": "d", "pool": "", "device": "gpu_0", "shareID": "x"}]}}}),
        &[
            &format!("status.allocation.devices.results[0].request: Invalid value: \"cpu/x/y\": {NO_REQUEST}"),
            "status.allocation.devices.results[0].pool: Required value",
            "status.allocation.devices.results[0].device: Invalid value: \"gpu_0\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "status.allocation.devices.results[0].shareID: Invalid value: \"x\": error validating uid: invalid UUID length: 1",
        ],
    );
    let device = |more: Value| {
        allocated(json!({"devices": [with(&json!({"driver": "d.example", "pool": "p", "device": "gpu-0"}), more)]}))
    };
    check(device(json!({"networkData": {"ips": ["10.9.8.7/24"], "interfaceName": "eth0"}, "data": {"a": 1}})), &[]);
    check(
        device(
            json!({"conditions": [{"type": "Ready", "status": "True", "reason": "A", "message": "", "lastTransitionTime": null}]}),
        ),
        &["status.devices[0].conditions[0].lastTransitionTime: Required value"],
    );
    check(
        device(json!({"device": "gpu-1"})),
        &["status.devices[0]: Invalid value: \"d.example/p/gpu-1\": must be an allocated device in the claim"],
    );
    check(
        device(json!({"networkData": {"ips": ["10.9.8.7"], "hardwareAddress": "x".repeat(129)}, "data": 1})),
        &[
            "status.devices[0].data: Invalid value: \"<value omitted>\": must be a valid JSON object",
            "status.devices[0].networkData.hardwareAddress: Too long: may not be more than 128 bytes",
            "status.devices[0].networkData.ips[0]: Invalid value: \"10.9.8.7\": must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)",
        ],
    );
    let old = with(&claim(one_request()), json!({"status": allocated(json!({}))}));
    check_status::<ResourceClaim>(old.clone(), json!({}), &[]);
    check_status::<ResourceClaim>(old, json!({"allocation": {}}), &["status.allocation: Invalid value: {}: field is immutable"]);
}

/// KEP-4817: status of a device goes when it is deallocated.
#[test]
fn deallocated_devices_lose_their_status() {
    let report = json!([{"driver": "d.example", "pool": "p", "device": "gpu-0"}]);
    let old = with(&claim(one_request()), json!({"status": allocated(json!({"devices": report}))}));
    let mut new = with(&claim(one_request()), json!({"status": {"devices": report}}));
    ResourceClaim::prepare_status(&mut new, &old);
    assert_eq!(new["status"], json!({}));
}

#[test]
fn templates() {
    let template =
        |devices: Value| named("t", json!({"spec": {"metadata": {"labels": {"a": "b"}}, "spec": {"devices": devices}}}));
    check::<ResourceClaimTemplate>(template(one_request()), &[]);
    check::<ResourceClaimTemplate>(
        with(&template(json!({"requests": [{"name": "a"}]})), json!({"spec": {"metadata": {"name": "x"}}})),
        &[
            "spec.metadata.name: Forbidden: cannot be set",
            "spec.spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
        ],
    );
    check_row::<ResourceClaimTemplate>(template(json!({})), "t|60s");
}

#[test]
fn device_classes() {
    let class = |spec: Value| named("gpu", json!({"spec": spec}));
    check::<DeviceClass>(
        class(json!({"extendedResourceName": "example.com/gpu", "config": [{"opaque": {"driver": "d", "parameters": {}}}]})),
        &[],
    );
    check::<DeviceClass>(
        class(json!({"extendedResourceName": "cpu", "selectors": [{}], "config": [{}]})),
        &[
            "spec.selectors[0].cel: Required value",
            "spec.config[0].opaque: Required value",
            "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name",
        ],
    );
}

fn slice(spec: Value) -> Value {
    let base = json!({"driver": "d.example", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}});
    named("s", json!({"spec": with(&base, spec)}))
}

#[test]
fn slices() {
    check::<ResourceSlice>(slice(json!({})), &[]);
    check::<ResourceSlice>(
        slice(json!({"driver": "", "pool": {"name": "a//b", "generation": -1, "resourceSliceCount": 0}})),
        &[
            "spec.driver: Required value",
            "spec.driver: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.pool.name: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
            "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
        ],
    );
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    check::<ResourceSlice>(slice(json!({"nodeName": null})), &[&format!("spec: Required value: {one}")]);
    check::<ResourceSlice>(
        slice(json!({"allNodes": true, "perDeviceNodeSelection": false})),
        &[
            "spec.perDeviceNodeSelection: Invalid value: false: must be either unset or set to true",
            &format!("spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {one}, but multiple fields are set"),
        ],
    );
    check::<ResourceSlice>(
        slice(json!({"devices": [], "sharedCounters": []})),
        &["spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed"],
    );
    let counters = |counters: Value| slice(json!({"sharedCounters": [{"name": "set", "counters": counters}]}));
    check::<ResourceSlice>(counters(json!({"memory": {"value": "1Gi"}})), &[]);
    check::<ResourceSlice>(counters(json!({})), &["spec.sharedCounters[0].counters: Required value"]);
    check_update::<ResourceSlice>(
        slice(json!({})),
        slice(json!({"pool": {"name": "q"}, "driver": "e", "nodeName": "m"})),
        &[
            "spec.pool.name: Invalid value: \"q\": field is immutable",
            "spec.driver: Invalid value: \"e\": field is immutable",
            "spec.nodeName: Invalid value: \"m\": field is immutable",
        ],
    );
    check_row::<ResourceSlice>(slice(json!({})), "s|n|d.example|p|60s");
    let object = slice(json!({}));
    assert_eq!(
        (ResourceSlice::field(&object, "spec.driver"), ResourceSlice::field(&object, "spec.nodeName")),
        ("d.example".into(), "n".into())
    );
}

#[test]
fn devices() {
    let check = |device: Value, expected: &[&str]| {
        check::<ResourceSlice>(slice(json!({"devices": [with(&json!({"name": "gpu-0"}), device)]})), expected);
    };
    check(
        json!({"attributes": {"model": {"string": "a"}, "d.example/v": {"version": "1.2.3-rc.1+b"}}, "capacity": {"memory": {"value": "1Gi"}}}),
        &[],
    );
    check(
        json!({"attributes": {"a": {}, "b": {"int": 1, "bool": true}, "c": {"version": "1.02.3"}, "d/e/f": {"int": 1}}}),
        &[
            "spec.devices[0].attributes[a]: Invalid value: \"\": exactly one value must be specified",
            "spec.devices[0].attributes[b]: Invalid value: {\"bool\":true,\"int\":1}: exactly one value must be specified",
            "spec.devices[0].attributes[c].version: Invalid value: \"1.02.3\": must be a string compatible with semver.org spec 2.0.0",
            "spec.devices[0].attributes: Invalid value: \"d/e/f\": must not contain more than one slash",
        ],
    );
    check(
        json!({"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": ""}]}),
        &["spec.devices[0].taints[1].effect: Required value"],
    );
    check(
        json!({"bindingConditions": ["a", "a"], "bindingFailureConditions": ["a"]}),
        &[
            "spec.devices[0].bindingConditions[1]: Duplicate value: \"a\"",
            "spec.devices[0].bindingFailureConditions[0]: Invalid value: \"a\": bindingFailureConditions must not overlap with bindingConditions",
        ],
    );
    check(
        json!({"bindingConditions": ["a"]}),
        &[
            "spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions",
        ],
    );
    check(
        json!({"allNodes": true}),
        &[
            "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
        ],
    );
    check(
        json!({"consumesCounters": [{"counterSet": "a", "counters": {"x": {"value": "1"}}}, {"counterSet": "", "counters": {}}]}),
        &[
            "spec.devices[0].consumesCounters[1].counterSet: Required value",
            "spec.devices[0].consumesCounters[1].counters: Required value",
        ],
    );
    let many: Vec<_> = (0..65).map(|n| json!({"name": format!("d{n}"), "taints": [{"key": "a", "effect": "None"}]})).collect();
    crate::testing::check::<ResourceSlice>(
        slice(json!({"devices": many})),
        &["spec.devices: Too many: 65: must have at most 64 items"],
    );
}

/// KEP-5075.
#[test]
fn request_policies() {
    let check = |shared: bool, policy: Value, expected: &[&str]| {
        let capacity = json!({"memory": {"value": "10", "requestPolicy": policy}});
        let device = json!({"name": "d", "allowMultipleAllocations": shared, "capacity": capacity});
        let expected: Vec<_> =
            expected.iter().map(|text| format!("spec.devices[0].capacity[memory].requestPolicy{text}")).collect();
        check::<ResourceSlice>(slice(json!({"devices": [device]})), &expected.iter().map(String::as_str).collect::<Vec<_>>());
    };
    check(false, json!({"default": "1"}), &[": Forbidden: allowMultipleAllocations must be true"]);
    check(true, json!({"default": "2", "validValues": ["1", "2"]}), &[]);
    check(
        true,
        json!({"default": "3", "validValues": ["2", "1", "11"]}),
        &[
            ".validValues[1]: Invalid value: \"1\": values must be sorted in ascending order",
            ".validValues[2]: Invalid value: \"11\": option is larger than capacity value: 10",
            ".validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy",
        ],
    );
    check(true, json!({"validRange": {"min": "1"}}), &[".default: Required value: required when validRange is defined"]);
    check(true, json!({"default": "3", "validRange": {"min": "1", "max": "9", "step": "2"}}), &[]);
    check(
        true,
        json!({"default": "2", "validRange": {"min": "1", "max": "12", "step": "2"}}),
        &[
            ".validRange.max: Invalid value: \"12\": max is larger than capacity value: 10",
            ".validRange.step: Invalid value: \"2\": value is not a multiple of a given step (2) from (1)",
            ".validRange.step: Invalid value: \"12\": value is not a multiple of a given step (2) from (1)",
        ],
    );
}

#[test]
fn fields_of_features_that_are_off_are_dropped() {
    let device =
        json!({"name": "d", "attributes": {"a": {"ints": [1]}, "b": {"int": 1}}, "nodeAllocatableResourceMappings": {"cpu": {}}});
    let mut created = slice(json!({"devices": [device]}));
    ResourceSlice::prepare_create(&mut created);
    assert_eq!(created["spec"]["devices"][0], json!({"name": "d", "attributes": {"a": {}, "b": {"int": 1}}}));
    let old = slice(json!({"devices": [device]}));
    let mut changed = old.clone();
    ResourceSlice::prepare_update(&mut changed, &old);
    assert_eq!(changed, old);
}
