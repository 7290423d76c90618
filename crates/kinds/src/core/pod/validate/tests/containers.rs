use super::*;

#[test]
fn names_and_images() {
    check(json!({"containers": []}), &["spec.containers: Required value"]);
    check(json!({"containers": [{}]}), &["spec.containers[0].name: Required value", "spec.containers[0].image: Required value"]);
    check_container(json!({"image": " x "}), &["image: Invalid value: \" x \": must not have leading or trailing whitespace"]);
    check_container(
        json!({"name": "A.b"}),
        &[
            "name: Invalid value: \"A.b\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    let twice = json!({"name": "c", "image": "x:1"});
    check(json!({"containers": [twice, twice]}), &["spec.containers[1].name: Duplicate value: \"c\""]);
    check(json!({"initContainers": [twice]}), &["spec.initContainers[0].name: Duplicate value: \"c\""]);
    check_container(
        json!({"imagePullPolicy": "Often", "terminationMessagePolicy": "No"}),
        &[
            "terminationMessagePolicy: Unsupported value: \"No\": supported values: \"File\", \"FallbackToLogsOnError\"",
            "imagePullPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
}

#[test]
fn ports() {
    check_container(json!({"ports": [{"containerPort": 80}, {"containerPort": 80}]}), &[]);
    check_container(
        json!({"ports": [{"containerPort": 0}, {"containerPort": 70000, "protocol": "X", "hostPort": -1}]}),
        &[
            "ports[0].containerPort: Required value",
            "ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "ports[1].hostPort: Invalid value: -1: must be between 1 and 65535, inclusive",
            "ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ],
    );
    check_container(
        json!({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}, {"containerPort": 3, "name": "A"}]}),
        &[
            "ports[1].name: Duplicate value: \"a\"",
            "ports[2].name: Invalid value: \"A\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            "ports[2].name: Invalid value: \"A\": must contain at least one letter (a-z)",
        ],
    );
    check_container(
        json!({"ports": [{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]}),
        &["ports[1].hostPort: Duplicate value: \"TCP//9\""],
    );
    check(
        json!({"hostNetwork": true, "containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 1, "hostPort": 2}]}]}),
        &["spec.containers[0].ports[0].hostPort: Invalid value: 2: must match `containerPort` when `hostNetwork` is true"],
    );
}

#[test]
fn environment() {
    check_container(
        json!({"env": [{"name": "a b"}, {"name": "A", "value": "$(B)"}, {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}},
            {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.hugepages-2Mi", "divisor": "1Mi"}}}]}),
        &[],
    );
    check_container(
        json!({"env": [{"name": ""}, {"name": "a=b"}, {"name": "E", "valueFrom": {}}]}),
        &[
            "env[0].name: Required value",
            "env[1].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            "env[2].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ],
    );
    let file = |volume: &str| json!({"env": [{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": volume, "path": "a", "key": "A"}}}]});
    let at = "env[0].valueFrom.fileKeyRef.volumeName";
    check_container(file("v"), &[]);
    check_container(file("other"), &[&format!("{at}: Not found: \"other\"")]);
    check_container(file("claim"), &[&format!("{at}: Invalid value: \"claim\": must be an emptyDir volume")]);
    check_container(file(""), &[&format!("{at}: Required value")]);
    let both = json!({"fieldRef": {"fieldPath": "metadata.name"}, "secretKeyRef": {"name": "s", "key": "k"}});
    check_container(
        json!({"env": [{"name": "A", "valueFrom": both}, {"name": "B", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": ".."}}}]}),
        &[
            "env[0].valueFrom: Invalid value: \"\": may not have more than one field specified at a time",
            "env[1].valueFrom.secretKeyRef.key: Invalid value: \"..\": must not be '..'",
            "env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ],
    );
    check_container(
        json!({"envFrom": [{}, {"prefix": "=", "configMapRef": {"name": ""}}, {"configMapRef": {"name": "a"}, "secretRef": {"name": "b"}}]}),
        &[
            "envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
            "envFrom[1].prefix: Invalid value: \"=\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            "envFrom[1].configMapRef.name: Required value",
            "envFrom: Invalid value: \"\": may not have more than one field specified at a time",
        ],
    );
}

#[test]
fn references_to_fields() {
    let field = |path: &str| json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}]});
    let at = "env[0].valueFrom.fieldRef";
    check_container(field(""), &[&format!("{at}.fieldPath: Required value")]);
    check_container(
        field("status.nothing"),
        &[&format!(
            "{at}.fieldPath: Invalid value: \"status.nothing\": error converting fieldPath: field label not supported: status.nothing"
        )],
    );
    check_container(
        field("metadata.labels"),
        &[&format!(
            "{at}.fieldPath: Unsupported value: \"metadata.labels\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\""
        )],
    );
    check_container(
        field("metadata.name['x']"),
        &[&format!(
            "{at}.fieldPath: Invalid value: \"metadata.name['x']\": error converting fieldPath: field label does not support subscript: metadata.name['x']"
        )],
    );
    let resource = |resource: &str, divisor: &str| json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}}}]});
    let at = "env[0].valueFrom.resourceFieldRef";
    check_container(resource("limits.cpu", "1m"), &[]);
    check_container(resource("limits.memory", "0"), &[]);
    check_container(
        resource("limits.cpu", "2"),
        &[&format!(
            "{at}.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource"
        )],
    );
    check_container(
        resource("limits.disk", "1"),
        &[&format!(
            "{at}.resource: Unsupported value: \"limits.disk\": supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \"requests.memory\""
        )],
    );
}

#[test]
fn mounts_and_devices() {
    check_container(json!({"volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "x/y"}]}), &[]);
    check_container(
        json!({"volumeMounts": [{"name": "none", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}, {"name": "v"}]}),
        &[
            "volumeMounts[0].name: Not found: \"none\"",
            "volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            "volumeMounts[2].mountPath: Required value",
        ],
    );
    check_container(
        json!({"volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "/x", "subPathExpr": "../y"}]}),
        &[
            "volumeMounts.subPath: Invalid value: \"/x\": must be a relative path",
            "volumeMounts[0].subPathExpr: Invalid value: \"../y\": subPathExpr and subPath are mutually exclusive",
            "volumeMounts.subPathExpr: Invalid value: \"../y\": must not contain '..'",
        ],
    );
    check_container(
        json!({"volumeMounts": [{"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional", "recursiveReadOnly": "Enabled"}]}),
        &[
            "volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
            "volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
            "volumeMounts.recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified",
        ],
    );
    check_container(json!({"volumeDevices": [{"name": "claim", "devicePath": "/dev/x"}]}), &[]);
    check_container(
        json!({"volumeDevices": [{"name": "v", "devicePath": "/a/../b"}]}),
        &[
            "volumeDevices[0].name: Invalid value: \"v\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            "volumeDevices[0].devicePath: Invalid value: \"/a/../b\": can not contain backsteps ('..')",
        ],
    );
}

#[test]
fn probes_and_hooks() {
    let tcp = json!({"tcpSocket": {"port": 80}});
    check_container(json!({"livenessProbe": tcp, "lifecycle": {"preStop": {"sleep": {"seconds": 30}}}}), &[]);
    check_container(
        json!({"livenessProbe": {}, "readinessProbe": {"exec": {}, "tcpSocket": {"port": 1}}}),
        &[
            "livenessProbe: Required value: must specify a handler type",
            "readinessProbe.exec.command: Required value",
            "readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ],
    );
    check_container(
        json!({"startupProbe": {"httpGet": {"port": "a--b", "scheme": "FTP", "httpHeaders": [{"name": "a b", "value": ""}]}, "successThreshold": 2, "periodSeconds": -1}}),
        &[
            "startupProbe.httpGet.port: Invalid value: \"a--b\": must not contain consecutive hyphens",
            "startupProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
            "startupProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
            "startupProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
            "startupProbe.successThreshold: Invalid value: 2: must be 1",
        ],
    );
    check_container(
        json!({"readinessProbe": {"grpc": {"port": 0}, "terminationGracePeriodSeconds": 1}, "lifecycle": {"postStart": {}, "preStop": {"sleep": {"seconds": 31}}}}),
        &[
            "lifecycle.postStart: Required value: must specify a handler type",
            "lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
            "readinessProbe.grpc.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
        ],
    );
    let init = |more: Value| {
        let mut init = json!({"name": "i", "image": "x", "livenessProbe": {"tcpSocket": {"port": 1}}});
        init.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"initContainers": [init]})
    };
    check(init(json!({"restartPolicy": "Always"})), &[]);
    check(
        init(json!({})),
        &["spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"],
    );
}

/// KEP-4960, "Cross validation with Pod spec.os.name".
#[test]
fn stop_signals_are_those_of_the_operating_system() {
    let spec = |os: Option<&str>, signal: &str| {
        let os = os.map(|name| json!({"name": name}));
        json!({"os": os, "containers": [{"name": "c", "image": "x:1", "lifecycle": {"stopSignal": signal}}]})
    };
    let path = "spec.containers[0].lifecycle.stopSignal";
    for signal in ["SIGTERM", "SIGUSR1", "SIGCLD", "SIGRTMIN", "SIGRTMIN+15", "SIGRTMAX-14", "SIGRTMAX"] {
        check(spec(Some("linux"), signal), &[]);
        let needed = format!("{path}: Forbidden: may not be set for containers with empty `spec.os.name`");
        check(spec(None, signal), &[&needed]);
    }
    for strange in ["SIGFOO", "TERM", "sigterm", "15", "SIGRTMIN+16", "SIGRTMIN+0", ""] {
        let problems = problems(spec(Some("linux"), strange));
        let begin = format!("{path}: Unsupported value: {strange:?}: supported values: \"SIGABRT\", \"SIGALRM\", ");
        assert!(problems.len() == 1 && problems[0].starts_with(&begin), "{problems:?}");
    }
    check(spec(Some("windows"), "SIGKILL"), &[]);
    let few = format!("{path}: Unsupported value: \"SIGQUIT\": supported values: \"SIGKILL\", \"SIGTERM\"");
    check(spec(Some("windows"), "SIGQUIT"), &[&few]);
}

#[test]
fn restart_rules() {
    let rule = |action: &str, operator: &str| json!([{"action": action, "exitCodes": {"operator": operator, "values": [3]}}]);
    check_container(json!({"restartPolicy": "Never", "restartPolicyRules": rule("RestartAllContainers", "In")}), &[]);
    check_container(
        json!({"restartPolicyRules": rule("Restart", "In")}),
        &["restartPolicy: Required value: must specify restartPolicy when restart rules are used"],
    );
    check_container(
        json!({"restartPolicy": "Never", "restartPolicyRules": rule("DoNotRestart", "Equals")}),
        &[
            "restartPolicyRules[0].action: Unsupported value: \"DoNotRestart\": supported values: \"Restart\", \"RestartAllContainers\"",
            "restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Equals\": supported values: \"In\", \"NotIn\"",
        ],
    );
    check_container(
        json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart"}]}),
        &["restartPolicyRules[0].exitCodes: Required value: must be specified"],
    );
    let codes: Vec<i32> = (1..=256).collect();
    let mut rules = vec![json!({"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}); 21];
    rules[2]["exitCodes"]["values"] = json!(codes);
    check_container(
        json!({"restartPolicy": "Never", "restartPolicyRules": rules}),
        &[
            "restartPolicyRules: Too many: 21: must have at most 20 items",
            "restartPolicyRules[2].exitCodes.values: Too many: 256: must have at most 255 items",
        ],
    );
}

#[test]
fn resize_policies() {
    check(
        json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "x",
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}, {"resourceName": "gpu", "restartPolicy": "NotRequired"}]}]}),
        &[
            "spec.containers[0].resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when `restartPolicy` is 'Never'",
            "spec.containers[0].resizePolicy: Unsupported value: \"gpu\": supported values: \"cpu\", \"memory\"",
        ],
    );
}

/// Upstream's PR 137458: "Disallow setting a resize restart policy of `RestartContainer` on non-sidecar initContainers".
#[test]
fn containers_that_end_are_not_restarted_to_be_resized() {
    let init = |restart: Value, policy: &str| {
        json!({"initContainers": [{"name": "i", "image": "x", "restartPolicy": restart,
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}]}]})
    };
    let wrong = "spec.initContainers[0].resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' for init containers without restartPolicy=Always";
    check(init(Value::Null, "RestartContainer"), &[wrong]);
    check(init(json!("Never"), "RestartContainer"), &[wrong]);
    check(init(Value::Null, "NotRequired"), &[]);
    check(init(json!("Always"), "RestartContainer"), &[]);
}

/// KEP-2837: pods as a whole ask for processors, memory and huge pages; what else containers ask for is theirs alone (upstream's issue
/// 132449).
#[test]
fn resources_of_pods() {
    let pod = |own: Value, of_container: Value| json!({"resources": own, "containers": [{"name": "c", "image": "x", "resources": of_container}]});
    let devices = json!({"limits": {"nvidia.com/gpu": "1", "ephemeral-storage": "1Gi"}});
    check(pod(json!({"requests": {"cpu": "1"}}), devices), &[]);
    check(pod(json!({"requests": {"cpu": "1"}}), json!({"limits": {"cpu": "1", "hugepages-2Mi": "4Mi"}})), &[]);
    check(
        pod(
            json!({"requests": {"cpu": "1"}, "limits": {"hugepages-2Mi": "2Mi"}}),
            json!({"limits": {"cpu": "2", "hugepages-2Mi": "4Mi"}}),
        ),
        &[
            "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2",
            "spec.resources.requests[hugepages-2Mi]: Invalid value: \"2Mi\": must be greater than or equal to aggregate container requests of 4Mi",
            "spec.resources.containers[0][hugepages-2Mi].limits: Invalid value: \"4Mi\": must be less than or equal to pod limits of 2Mi",
        ],
    );
    check(
        pod(json!({"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1"}}), json!({})),
        &[
            "spec.resources.limits[nvidia.com/gpu]: Unsupported value: \"nvidia.com/gpu\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
            "spec.resources.requests[nvidia.com/gpu]: Unsupported value: \"nvidia.com/gpu\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
        ],
    );
}

#[test]
fn resources() {
    let resources = |resources: Value| json!({"resources": resources});
    check_container(resources(json!({"limits": {"cpu": "1", "hugepages-2Mi": "4Mi", "a.b/gpu": "2"}})), &[]);
    check_container(
        resources(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}})),
        &["resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
    );
    check_container(
        resources(json!({"requests": {"memory": "-1", "disk": "1", "a.b/gpu": "1"}})),
        &[
            "resources.limits: Required value: Limit must be set for non overcommitable resources",
            "resources.requests[disk]: Invalid value: \"disk\": must be a standard resource type or fully qualified",
            "resources.requests[disk]: Invalid value: \"disk\": must be a standard resource for containers",
            "resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    check_container(
        resources(json!({"limits": {"a.b/gpu": "2", "cpu": "1"}, "requests": {"a.b/gpu": "1"}})),
        &["resources.requests: Invalid value: \"1\": must be equal to a.b/gpu limit of 2"],
    );
    check_container(
        resources(json!({"limits": {"a.b/gpu": "1500m", "hugepages-2Mi": "3Mi"}})),
        &[
            "resources.limits[a.b/gpu]: Invalid value: \"1500m\": must be an integer",
            "resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
            "resources.requests[a.b/gpu]: Invalid value: \"1500m\": must be an integer",
            "resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
            "resources: Forbidden: HugePages require cpu or memory",
        ],
    );
    check_container(
        resources(json!({"claims": [{"name": "d"}]})),
        &["resources.claims[0]: Not found: \"d\": must be one of the names in pod.spec.resourceClaims which is empty"],
    );
    let whole = json!({"resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Mi"}}, "containers": [
        {"name": "a", "image": "x", "resources": {"requests": {"cpu": "800m"}}},
        {"name": "b", "image": "x", "resources": {"requests": {"cpu": "800m"}, "limits": {"memory": "2Mi"}}}]});
    check(
        whole,
        &[
            "spec.resources.requests: Invalid value: \"2Mi\": must be less than or equal to memory limit of 1Mi",
            "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 1600m",
            "spec.resources.containers[1][memory].limits: Invalid value: \"2Mi\": must be less than or equal to pod limits of 1Mi",
        ],
    );
    check(
        json!({"overhead": {"cpu": "-1"}}),
        &["spec.overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
    );
}

#[test]
fn ephemeral_containers() {
    let ephemeral = |more: Value| {
        let mut container = json!({"name": "e", "image": "x"});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"ephemeralContainers": [container], "volumes": [{"name": "v", "emptyDir": {}}]})
    };
    // Upstream: `ValidatePodCreate`.
    let created = "spec.ephemeralContainers: Forbidden: cannot be set on create";
    check(ephemeral(json!({"targetContainerName": "c"})), &[created]);
    check(ephemeral(json!({"name": "c"})), &["spec.ephemeralContainers[0].name: Duplicate value: \"c\"", created]);
    check(
        ephemeral(
            json!({"targetContainerName": "z", "ports": [{"containerPort": 1}], "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s"}]}),
        ),
        &[
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"z\"",
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            "spec.ephemeralContainers[0].volumeMounts[0].subPath: Forbidden: cannot be set for an Ephemeral Container",
            created,
        ],
    );
}
