//! What a container finds when it starts: variables, arguments, users, rights, names of hosts.

use http::Method;
use serde_json::{Value, json};
use testing::Cluster;

use super::{KNARR, Row, check, core, create, output, pod, send};

/// Every variable of the container whose name or value has this in it, sorted. The shell itself passes only those on
/// that could be its own variables.
fn variables(pattern: &str) -> String {
    format!("tr '\\0' '\\n' </proc/1/environ | grep -E -e '{pattern}' | sort")
}

fn from(source: &str, prefix: &str) -> Value {
    json!({"prefix": prefix, source: {"name": "values"}})
}

/// Variables from ConfigMaps, from Secrets, and from other variables.
///
/// Conformance: [sig-node] ConfigMap should be consumable as environment variable names with various prefixes [Conformance]
/// Conformance: [sig-node] ConfigMap should be consumable via environment variable [NodeConformance] [Conformance]
/// Conformance: [sig-node] ConfigMap should be consumable via the environment [NodeConformance] [Conformance]
/// Conformance: [sig-node] Secrets should be consumable as environment variable names variable names with various prefixes [Conformance]
/// Conformance: [sig-node] Secrets should be consumable from pods in env vars [NodeConformance] [Conformance]
/// Conformance: [sig-node] Secrets should be consumable via the environment [NodeConformance] [Conformance]
/// Conformance: [sig-node] Variable Expansion should allow composing env vars into new env vars [NodeConformance] [Conformance]
/// Conformance: [sig-node] Variable Expansion should allow substituting values in a container's args [NodeConformance] [Conformance]
/// Conformance: [sig-node] Variable Expansion should allow substituting values in a container's command [NodeConformance] [Conformance]
/// Conformance: [sig-node] Pods should contain environment variables for services [NodeConformance] [Conformance]
#[test]
fn variables_of_objects() {
    let c = Cluster::start(KNARR);
    for (kind, plural) in [("ConfigMap", "configmaps"), ("Secret", "secrets")] {
        let field = if kind == "Secret" { "stringData" } else { "data" };
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "values"},
            field: {"data_1": "value-1", "data_2": "value-2"}});
        create(&c, &core(plural), &object);
    }
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "foo-service"},
        "spec": {"selector": {"app": "foo"}, "ports": [{"port": 8765, "targetPort": 8080}]}});
    let address = create(&c, &core("services"), &service)["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let mut rows: Vec<Row> = Vec::new();
    for (source, reference) in [("configmap", "configMap"), ("secret", "secret")] {
        let key = json!({format!("{reference}KeyRef"): {"name": "values", "key": "data_1"}});
        let one = json!({"env": [{"name": "CONFIG_DATA_1", "valueFrom": key}]});
        rows.push((pod(&format!("{source}-one"), &variables("value-"), &one, &json!({})), "CONFIG_DATA_1=value-1".into()));
        let all = format!("{reference}Ref");
        let plain = json!({"envFrom": [{all.clone(): {"name": "values"}}, from(&all, "p_")]});
        let expected = "data_1=value-1\ndata_2=value-2\np_data_1=value-1\np_data_2=value-2";
        rows.push((pod(&format!("{source}-all"), &variables("value-"), &plain, &json!({})), expected.into()));
        let prefixes = json!({"envFrom": [from(&all, "1-"), from(&all, "$_"), from(&all, "p-")]});
        let expected =
            "$_data_1=value-1\n$_data_2=value-2\n1-data_1=value-1\n1-data_2=value-2\np-data_1=value-1\np-data_2=value-2";
        rows.push((pod(&format!("{source}-prefixes"), &variables("value-"), &prefixes, &json!({})), expected.into()));
    }
    let composed = json!({"env": [{"name": "FOO", "value": "foo-value"}, {"name": "BAR", "value": "bar-value"},
        {"name": "FOOBAR", "value": "$(FOO);;$(BAR)"}]});
    let expected = "BAR=bar-value\nFOO=foo-value\nFOOBAR=foo-value;;bar-value";
    rows.push((pod("composed", &variables("-value"), &composed, &json!({})), expected.into()));
    let variable = json!({"env": [{"name": "TEST_VAR", "value": "test-value"}]});
    let script = "TEST_VAR=wrong echo \"$(TEST_VAR)\"";
    rows.push((pod("command", script, &variable, &json!({})), "test-value".into()));
    let mut arguments = variable.clone();
    (arguments["command"], arguments["args"]) = (json!(["sh", "-c"]), json!([script]));
    rows.push((pod("arguments", "", &arguments, &json!({})), "test-value".into()));
    let expected = format!(
        "FOO_SERVICE_PORT=tcp://{address}:8765\nFOO_SERVICE_PORT_8765_TCP=tcp://{address}:8765\n\
         FOO_SERVICE_PORT_8765_TCP_ADDR={address}\nFOO_SERVICE_PORT_8765_TCP_PORT=8765\n\
         FOO_SERVICE_PORT_8765_TCP_PROTO=tcp\nFOO_SERVICE_SERVICE_HOST={address}\nFOO_SERVICE_SERVICE_PORT=8765"
    );
    rows.push((pod("services", &variables("^FOO_SERVICE"), &json!({}), &json!({})), expected));
    check(&c, &rows);
}

/// Conformance: [sig-node] Downward API should provide container's limits.cpu/memory and requests.cpu/memory as env vars [NodeConformance] [Conformance]
/// Conformance: [sig-node] Downward API should provide default limits.cpu/memory from node allocatable [NodeConformance] [Conformance]
/// Conformance: [sig-node] Downward API should provide host IP as an env var [NodeConformance] [Conformance]
/// Conformance: [sig-node] Downward API should provide hostIPs as an env var [NodeConformance] [Conformance]
/// Conformance: [sig-node] Downward API should provide pod UID as env vars [NodeConformance] [Conformance]
/// Conformance: [sig-node] Downward API should provide pod name, namespace and IP address as env vars [NodeConformance] [Conformance]
/// Conformance: [sig-node] Pods should get a host IP [NodeConformance] [Conformance]
#[test]
fn variables_of_the_pod() {
    let c = Cluster::start(KNARR);
    let fields = ["metadata.uid", "metadata.name", "metadata.namespace", "status.podIP", "status.hostIP", "status.hostIPs"];
    let env: Vec<_> = fields
        .iter()
        .enumerate()
        .map(|(number, path)| json!({"name": format!("V{number}"), "valueFrom": {"fieldRef": {"fieldPath": path}}}))
        .collect();
    create(&c, &core("pods"), &pod("fields", "echo $V0 $V1 $V2 $V3 $V4 $V5", &json!({"env": env}), &json!({})));
    let resources = json!({"limits": {"cpu": "1250m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}});
    let names = ["limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
    let env: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(number, name)| json!({"name": format!("R{number}"), "valueFrom": {"resourceFieldRef": {"resource": name}}}))
        .collect();
    let node = c.api().object("/api/v1/nodes/n1");
    let allocatable = |name: &str| node["status"]["allocatable"][name].as_str().unwrap().to_owned();
    let memory = allocatable("memory").strip_suffix("Ki").unwrap().parse::<u64>().unwrap() * 1024;
    let set = json!({"env": env, "resources": resources});
    let unset = json!({"env": env[..2]});
    check(
        &c,
        &[
            (pod("set", "echo $R0 $R1 $R2 $R3", &set, &json!({})), "2 67108864 1 33554432".to_owned()),
            (pod("unset", "echo $R0 $R1", &unset, &json!({})), format!("{} {memory}", allocatable("cpu"))),
        ],
    );
    let (_, printed) = output(&c, "fields");
    let seen = c.api().object(&format!("{}/fields", core("pods")));
    let (ip, host) = (seen["status"]["podIP"].as_str().unwrap(), seen["status"]["hostIP"].as_str().unwrap());
    assert_eq!(host, testing::machine::ADDRESS);
    assert_eq!(printed, format!("{} fields default {ip} {host} {host}", seen["metadata"]["uid"].as_str().unwrap()));
}

/// Users, groups, rights and the file system of the image.
///
/// Conformance: [sig-node] Security Context When creating a container with runAsUser should run the container with uid 65534 [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-node] Security Context When creating a pod with privileged should run the container as unprivileged when false [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-node] Security Context When creating a pod with readOnlyRootFilesystem should run the container with writable rootfs when readOnlyRootFilesystem=false [NodeConformance] [Conformance]
/// Conformance: [sig-node] Security Context should support container.SecurityContext.RunAsUser And container.SecurityContext.RunAsGroup [LinuxOnly] [Conformance]
/// Conformance: [sig-node] Security Context should support pod.Spec.SecurityContext.RunAsUser And pod.Spec.SecurityContext.RunAsGroup [LinuxOnly] [Conformance]
/// Conformance: [sig-node] Security Context when creating containers with AllowPrivilegeEscalation should not allow privilege escalation when false [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-node] Kubelet when scheduling a read only busybox container should not write to root filesystem [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-node] Sysctls [LinuxOnly] [NodeConformance] should support sysctls [Environment:NotInUserNS] [Conformance]
/// Conformance: [sig-node] Kubelet when scheduling a busybox command in a pod should print the output to logs [NodeConformance] [Conformance]
#[test]
fn rights() {
    let c = Cluster::start(KNARR);
    let who = "echo $(id -u) $(id -g)";
    let both = json!({"runAsUser": 1001, "runAsGroup": 2002});
    let container = |context: Value| json!({"securityContext": context});
    let none = json!({});
    let link = "ip link add dummy0 type dummy 2>&1 | grep -c 'Operation not permitted'";
    let sysctl = json!({"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}});
    check(
        &c,
        &[
            (pod("user", "id -u", &container(json!({"runAsUser": 65534})), &none), "65534".to_owned()),
            (pod("container-both", who, &container(both.clone()), &none), "1001 2002".to_owned()),
            (pod("pod-both", who, &none, &container(both)), "1001 2002".to_owned()),
            (pod("unprivileged", link, &container(json!({"privileged": false})), &none), "1".to_owned()),
            (
                pod("writable", "echo written > /file; cat /file", &container(json!({"readOnlyRootFilesystem": false})), &none),
                "written".to_owned(),
            ),
            (
                pod("read-only", "(echo test > /file) 2>&1; true", &container(json!({"readOnlyRootFilesystem": true})), &none),
                "sh: can't create /file: Read-only file system".to_owned(),
            ),
            (pod("sysctls", "cat /proc/sys/kernel/shm_rmid_forced", &none, &sysctl), "1".to_owned()),
            (pod("logs", "echo 'Hello World'", &none, &none), "Hello World".to_owned()),
        ],
    );
    escalation(&c);
}

/// A program of root with the set-user-id bit has root's rights where escalation is allowed, and only there. busybox's `su`
/// says so: without root's rights it refuses to work, with them it asks who the user is.
fn escalation(c: &Cluster) {
    let rows: Vec<_> = [("may", true, "su: unknown user nosuchuser"), ("may-not", false, "su: must be suid to work properly")]
        .map(|(name, allowed, expected)| {
            let container = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "securityContext": {"runAsUser": 1000, "allowPrivilegeEscalation": allowed}});
            let mut object = pod(
                name,
                "/v/busybox su nosuchuser 2>&1; true",
                &container,
                &json!({
                "volumes": [{"name": "v", "emptyDir": {}}]}),
            );
            let mut first = object["spec"]["containers"][0].clone();
            first["name"] = json!("first");
            first["securityContext"] = json!({});
            first["command"] = json!(["sh", "-c", "cp /bin/busybox /v/busybox && chmod 4755 /v/busybox"]);
            object["spec"]["initContainers"] = json!([first]);
            (object, expected.to_owned())
        })
        .to_vec();
    check(c, &rows);
}

/// Conformance: [sig-node] Kubelet when scheduling an agnhost Pod with hostAliases should write entries to /etc/hosts [NodeConformance] [Conformance]
/// Conformance: [sig-node] KubeletManagedEtcHosts should test kubelet managed /etc/hosts file [NodeConformance] [Conformance]
#[test]
fn names_of_hosts() {
    let c = Cluster::start(KNARR);
    let aliases = json!({"hostAliases": [{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}]});
    let head = "head -1 /etc/hosts";
    let own = json!({"volumeMounts": [{"name": "v", "mountPath": "/etc/hosts"}]});
    let file = json!({"volumes": [{"name": "v", "hostPath": {"path": "/etc/hosts", "type": "File"}}]});
    check(
        &c,
        &[
            (pod("aliases", "grep 123.45 /etc/hosts", &json!({}), &aliases), "123.45.67.89\tfoo\tbar".to_owned()),
            (pod("managed", head, &json!({}), &json!({})), "# Kubernetes-managed hosts file.".to_owned()),
            (pod("own", "grep -c 'Kubernetes-managed' /etc/hosts; true", &own, &file), "0".to_owned()),
            (
                pod("host", head, &json!({}), &json!({"hostNetwork": true})),
                "# Kubernetes-managed hosts file (host network).".to_owned(),
            ),
        ],
    );
}

/// Tokens of the ServiceAccount, and the certificate that they are for.
///
/// Conformance: [sig-auth] ServiceAccounts should allow opting out of API token automount [Conformance]
/// Conformance: [sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace [Conformance]
/// Conformance: [sig-auth] ServiceAccounts should mount an API token into pods [Conformance]
/// Conformance: [sig-auth] ServiceAccounts should mount projected service account token [Conformance]
#[test]
fn tokens() {
    let c = Cluster::start(KNARR);
    let accounts = core("serviceaccounts");
    for (name, mounts) in [("mount", true), ("nomount", false)] {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name},
            "automountServiceAccountToken": mounts});
        create(&c, &accounts, &account);
    }
    let directory = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mut rows = Vec::new();
    for (account, by_account) in [("default", None), ("mount", Some(true)), ("nomount", Some(false))] {
        for by_pod in [None, Some(true), Some(false)] {
            let mounted = by_pod.or(by_account).unwrap_or(true);
            let mut spec = json!({"serviceAccountName": account});
            if let Some(mounts) = by_pod {
                spec["automountServiceAccountToken"] = json!(mounts);
            }
            let name = format!("{account}-{by_pod:?}").to_lowercase().replace(['(', ')'], "");
            let expected = if mounted { "ca.crt\nnamespace\ntoken" } else { "none" };
            rows.push((pod(&name, &format!("ls {directory} 2>/dev/null || echo none"), &json!({}), &spec), expected.to_owned()));
        }
    }
    let authority = c.api().object(&format!("{}/kube-root-ca.crt", core("configmaps")));
    let authority = authority["data"]["ca.crt"].as_str().unwrap().trim_end().to_owned();
    rows.push((pod("authority", &format!("cat {directory}/ca.crt"), &json!({}), &json!({})), authority.clone()));
    rows.push((pod("namespace", &format!("cat {directory}/namespace"), &json!({}), &json!({})), "default".to_owned()));
    let projected = json!({"volumes": [{"name": "v", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 43200, "audience": "somebody"}}]}}]});
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let script = "cut -d. -f2 /v/token | tr _- /+ | sed 's/$/==/' | base64 -d 2>/dev/null | grep -o '\"aud\":\\[[^]]*\\]'";
    rows.push((pod("projected", script, &mount, &projected), r#""aud":["somebody"]"#.to_owned()));
    check(&c, &rows);
    for name in ["authority", "projected"] {
        let log = if name == "authority" { format!("cat {directory}/token") } else { "cat /v/token".to_owned() };
        let (container, spec) = if name == "projected" { (&mount, &projected) } else { (&json!({}), &json!({})) };
        let again = format!("{name}-token");
        create(&c, &core("pods"), &pod(&again, &log, container, spec));
        let (_, token) = output(&c, &again);
        let audience = if name == "projected" { json!(["somebody"]) } else { Value::Null };
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": audience}});
        let status = create(&c, "/apis/authentication.k8s.io/v1/tokenreviews", &review)["status"].clone();
        assert_eq!(status["user"]["username"], "system:serviceaccount:default:default", "{name}: {status}");
        assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!([again]), "{name}: {status}");
    }
    authorities(&c, &authority);
}

/// The certificate of the cluster is in every namespace, comes back when it is deleted and is mended when it is changed.
fn authorities(c: &Cluster, authority: &str) {
    create(c, "/api/v1/namespaces", &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}}));
    let path = "/api/v1/namespaces/new/configmaps/kube-root-ca.crt";
    let there = || {
        testing::eventually("the certificate is there", || {
            let answer = c.api().get(path);
            let data = (answer.status == 200).then(|| answer.json())?;
            (data["data"] == json!({"ca.crt": format!("{authority}\n")})).then_some(data["metadata"]["uid"].clone())
        })
    };
    let first = there();
    send(c, 200, Method::DELETE, path, &Value::Null);
    testing::eventually("it comes back", || (there() != first).then_some(()));
    super::patch(c, path, &json!({"data": {"ca.crt": ""}}));
    there();
}
