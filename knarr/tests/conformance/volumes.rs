//! Volumes of ConfigMaps, Secrets, the downward API and all of them together; empty directories; parts of volumes.

use serde_json::{Value, json};
use testing::{Cluster, eventually};

use super::{BUSYBOX, KNARR, Row, check, core, create, delete, exec, extend, output, patch, pod, run};

/// Where the data of a volume comes from: an object of its own, or one of several sources of a projected volume.
const SOURCES: &[&str] = &["configMap", "secret", "projected-configMap", "projected-secret"];

/// A volume `name` with the data of an object; `with` has items, modes and the like.
fn volume(source: &str, name: &str, object: &str, with: &Value) -> Value {
    let (kind, projected) = source.strip_prefix("projected-").map_or((source, false), |kind| (kind, true));
    let mut reference = with.clone();
    let key = if kind == "secret" && !projected { "secretName" } else { "name" };
    reference[key] = json!(object);
    if !projected {
        return json!({"name": name, kind: reference});
    }
    // The mode of all files is one of the projection, not of its sources.
    let mode = reference.as_object_mut().unwrap().remove("defaultMode").unwrap_or(json!(0o644));
    json!({"name": name, "projected": {"defaultMode": mode, "sources": [{kind: reference}]}})
}

/// A ConfigMap and a Secret of the same name and data.
fn objects(c: &Cluster, namespace: &str, name: &str, data: &Value) {
    for (kind, plural, field) in [("ConfigMap", "configmaps", "data"), ("Secret", "secrets", "stringData")] {
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, field: data});
        create(c, &format!("/api/v1/namespaces/{namespace}/{plural}"), &object);
    }
}

fn mounted(names: &[&str]) -> Value {
    let mounts: Vec<_> = names.iter().map(|name| json!({"name": name, "mountPath": format!("/{name}")})).collect();
    json!({"volumeMounts": mounts})
}

/// `cat` and the mode of a file.
fn show(file: &str) -> String {
    format!("echo $(cat {file}) $(stat -L -c %a {file})")
}

/// A pod for each way in which the values of a source are read.
fn values_of(source: &str) -> Vec<Row> {
    let item = json!([{"key": "data-2", "path": "path/to/data-2"}]);
    let item_mode = json!([{"key": "data-2", "path": "path/to/data-2", "mode": 0o400}]);
    let user = json!({"runAsUser": 1000});
    let group = json!({"runAsUser": 1000, "fsGroup": 1001});
    let row = |case: &str, with: Value, security: &Value, file: &str, expected: &str| {
        let spec = json!({"securityContext": security, "volumes": [volume(source, "v", "values", &with)]});
        let name = format!("{source}-{case}").to_lowercase();
        (pod(&name, &format!("id -u; {}", show(file)), &mounted(&["v"]), &spec), expected.to_owned())
    };
    let mut rows = vec![
        row("plain", json!({}), &json!({}), "/v/data-1", "0\nvalue-1 644"),
        row("user", json!({}), &user, "/v/data-1", "1000\nvalue-1 644"),
        row("mode", json!({"defaultMode": 0o400}), &json!({}), "/v/data-1", "0\nvalue-1 400"),
        row("group", json!({"defaultMode": 0o440}), &group, "/v/data-1", "1000\nvalue-1 440"),
        row("item", json!({"items": item}), &json!({}), "/v/path/to/data-2", "0\nvalue-2 644"),
        row("item-user", json!({"items": item}), &user, "/v/path/to/data-2", "1000\nvalue-2 644"),
        row("item-mode", json!({"items": item_mode}), &json!({}), "/v/path/to/data-2", "0\nvalue-2 400"),
    ];
    let both = json!([volume(source, "v", "values", &json!({})), volume(source, "w", "values", &json!({}))]);
    let twice = pod(
        &format!("{source}-twice").to_lowercase(),
        "echo $(cat /v/data-1 /w/data-1)",
        &mounted(&["v", "w"]),
        &json!({"volumes": both}),
    );
    rows.push((twice, "value-1value-1".to_owned()));
    rows
}

/// Conformance: [sig-storage] ConfigMap binary data should be reflected in volume [NodeConformance] [Conformance]
/// Conformance: [sig-storage] ConfigMap should be consumable from pods in volume [NodeConformance] [Conformance]
/// Conformance: [sig-storage] ConfigMap should be consumable from pods in volume as non-root [NodeConformance] [Conformance]
/// Conformance: [sig-storage] ConfigMap should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] ConfigMap should be consumable from pods in volume with mappings [NodeConformance] [Conformance]
/// Conformance: [sig-storage] ConfigMap should be consumable from pods in volume with mappings and Item mode set [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] ConfigMap should be consumable from pods in volume with mappings as non-root [NodeConformance] [Conformance]
/// Conformance: [sig-storage] ConfigMap should be consumable in multiple volumes in the same pod [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected configMap should be consumable from pods in volume [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected configMap should be consumable from pods in volume as non-root [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected configMap should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected configMap should be consumable from pods in volume with mappings [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected configMap should be consumable from pods in volume with mappings and Item mode set [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected configMap should be consumable from pods in volume with mappings as non-root [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected configMap should be consumable in multiple volumes in the same pod [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Secrets should be able to mount in a volume regardless of a different secret existing with same name in different namespace [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Secrets should be consumable from pods in volume [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Secrets should be consumable from pods in volume as non-root with defaultMode and fsGroup set [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Secrets should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Secrets should be consumable from pods in volume with mappings [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Secrets should be consumable from pods in volume with mappings and Item Mode set [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Secrets should be consumable in multiple volumes in a pod [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected secret should be consumable from pods in volume [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected secret should be consumable from pods in volume as non-root with defaultMode and fsGroup set [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected secret should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected secret should be consumable from pods in volume with mappings [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected secret should be consumable from pods in volume with mappings and Item Mode set [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected secret should be consumable in multiple volumes in a pod [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected combined should project all components that make up the projection API [Projection] [NodeConformance] [Conformance]
#[test]
fn values() {
    let c = Cluster::start(KNARR);
    create(&c, "/api/v1/namespaces", &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}));
    objects(&c, "default", "values", &json!({"data-1": "value-1", "data-2": "value-2"}));
    objects(&c, "other", "values", &json!({"data-1": "somebody else's"}));
    let mut rows: Vec<Row> = SOURCES.iter().flat_map(|source| values_of(source)).collect();

    let binary = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "binary"},
        "data": {"text": "text"}, "binaryData": {"bytes": "3q2+7wD/"}});
    create(&c, &core("configmaps"), &binary);
    let spec = json!({"volumes": [volume("configMap", "v", "binary", &json!({}))]});
    rows.push((pod("binary", "echo $(cat /v/text) $(base64 /v/bytes)", &mounted(&["v"]), &spec), "text 3q2+7wD/".into()));

    let name = json!([{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]);
    let sources = json!([
        {"configMap": {"name": "values", "items": [{"key": "data-1", "path": "map/data-1"}]}},
        {"secret": {"name": "values", "items": [{"key": "data-2", "path": "secret/data-2"}]}},
        {"downwardAPI": {"items": name}},
    ]);
    let spec = json!({"volumes": [{"name": "v", "projected": {"sources": sources}}]});
    let script = "cd /v; echo $(cat map/data-1 secret/data-2 name)";
    rows.push((pod("combined", script, &mounted(&["v"]), &spec), "value-1value-2combined".into()));
    check(&c, &rows);
}

/// One pod sees what becomes of the objects: changed, deleted or made later.
///
/// Conformance: [sig-storage] ConfigMap optional updates should be reflected in volume [NodeConformance] [Conformance]
/// Conformance: [sig-storage] ConfigMap updates should be reflected in volume [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected configMap optional updates should be reflected in volume [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected configMap updates should be reflected in volume [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Secrets optional updates should be reflected in volume [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected secret optional updates should be reflected in volume [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Downward API volume should update annotations on modification [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Downward API volume should update labels on modification [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected downwardAPI should update annotations on modification [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected downwardAPI should update labels on modification [NodeConformance] [Conformance]
#[test]
fn changes() {
    let c = Cluster::start(KNARR);
    for name in ["changed", "deleted"] {
        objects(&c, "default", name, &json!({"data-1": "value-1"}));
    }
    let mut volumes = Vec::new();
    for source in SOURCES {
        for object in ["changed", "deleted", "later"] {
            let name = format!("{source}-{object}").to_lowercase();
            volumes.push(volume(source, &name, object, &json!({"optional": true})));
        }
    }
    let field = |name: &str| json!({"path": name, "fieldRef": {"fieldPath": format!("metadata.{name}")}});
    let items = json!({"items": [field("labels"), field("annotations")]});
    volumes.push(json!({"name": "down", "downwardAPI": items}));
    volumes.push(json!({"name": "projected-down", "projected": {"sources": [{"downwardAPI": items}]}}));
    let names: Vec<_> = volumes.iter().map(|volume| volume["name"].as_str().unwrap()).collect();
    let mut object = pod("watching", "sleep 100000", &mounted(&names), &json!({"volumes": volumes}));
    object["metadata"]["labels"] = json!({"key1": "value1", "key2": "value2"});
    object["metadata"]["annotations"] = json!({"builder": "bar"});
    run(&c, &object);
    let file = |object: &str, key: &str| {
        let files: Vec<_> = SOURCES.iter().map(|source| format!("/{}-{object}/{key}", source.to_lowercase())).collect();
        exec(&c, "watching", &format!("for f in {}; do cat $f 2>/dev/null || printf none; printf ' '; done", files.join(" ")))
    };
    let four = |text: &str| [text; 4].join(" ");
    assert_eq!(file("changed", "data-1").trim(), four("value-1"));
    assert_eq!(file("deleted", "data-1").trim(), four("value-1"));
    assert_eq!(file("later", "data-1").trim(), four("none"));
    let labels = exec(&c, "watching", "cat /down/labels /projected-down/labels");
    assert_eq!(labels.matches("key1=\"value1\"\nkey2=\"value2\"").count(), 2, "{labels}");

    patch(&c, &format!("{}/changed", core("configmaps")), &json!({"data": {"data-1": null, "data-3": "value-3"}}));
    patch(&c, &format!("{}/changed", core("secrets")), &json!({"data": {"data-1": null}, "stringData": {"data-3": "value-3"}}));
    for plural in ["configmaps", "secrets"] {
        delete(&c, &format!("{}/deleted", core(plural)));
    }
    objects(&c, "default", "later", &json!({"data-1": "value-1"}));
    let metadata = json!({"labels": {"key3": "value3"}, "annotations": {"builder": "foo"}});
    patch(&c, &format!("{}/watching", core("pods")), &json!({"metadata": metadata}));
    let see = |what: &str, object: &str, key: &str, expected: &str| {
        eventually(what, || (file(object, key).trim() == four(expected)).then_some(()));
    };
    see("a new key", "changed", "data-3", "value-3");
    see("a key goes", "changed", "data-1", "none");
    see("a deleted object's files go", "deleted", "data-1", "none");
    see("a new object's files come", "later", "data-1", "value-1");
    let both = |file: &str, text: &str| {
        exec(&c, "watching", &format!("cat /down/{file} /projected-down/{file}")).matches(text).count() == 2
    };
    eventually("labels follow", || both("labels", "key3=\"value3\"").then_some(()));
    eventually("annotations follow", || both("annotations", "builder=\"foo\"").then_some(()));
}

/// Conformance: [sig-storage] Downward API volume should provide container's cpu limit [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Downward API volume should provide container's cpu request [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Downward API volume should provide container's memory limit [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Downward API volume should provide container's memory request [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Downward API volume should provide node allocatable (cpu) as default cpu limit if the limit is not set [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Downward API volume should provide node allocatable (memory) as default memory limit if the limit is not set [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Downward API volume should provide podname only [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Downward API volume should set DefaultMode on files [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Downward API volume should set mode on item file [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected downwardAPI should provide container's cpu limit [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected downwardAPI should provide container's cpu request [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected downwardAPI should provide container's memory limit [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected downwardAPI should provide container's memory request [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected downwardAPI should provide node allocatable (cpu) as default cpu limit if the limit is not set [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected downwardAPI should provide node allocatable (memory) as default memory limit if the limit is not set [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected downwardAPI should provide podname only [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected downwardAPI should set DefaultMode on files [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] Projected downwardAPI should set mode on item file [LinuxOnly] [NodeConformance] [Conformance]
#[test]
fn downward() {
    let c = Cluster::start(KNARR);
    let node = c.api().object("/api/v1/nodes/n1");
    let allocatable = |name: &str| node["status"]["allocatable"][name].as_str().unwrap().to_owned();
    let memory = allocatable("memory").strip_suffix("Ki").unwrap().parse::<u64>().unwrap() * 1024;
    let all_of_it = format!("{} {memory}", allocatable("cpu"));
    let resource = |name: &str| json!({"path": name, "resourceFieldRef": {"containerName": "main", "resource": name}});
    let limits = ["limits.cpu", "limits.memory", "requests.cpu", "requests.memory"].map(resource);
    let name = json!({"path": "name", "fieldRef": {"fieldPath": "metadata.name"}});
    let mut with_mode = name.clone();
    with_mode["mode"] = json!(0o400);
    let resources = json!({"limits": {"cpu": "1250m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}});
    let mut rows = Vec::new();
    for projected in [false, true] {
        let mut row = |case: &str, items: &Value, mode: Option<u32>, container: &Value, script: &str, expected: &str| {
            let source = json!({"items": items});
            let mut whole = if projected { json!({"sources": [{"downwardAPI": source}]}) } else { source };
            if let Some(mode) = mode {
                whole["defaultMode"] = json!(mode);
            }
            let volume = json!({"name": "v", if projected { "projected" } else { "downwardAPI" }: whole});
            let name = format!("{case}{}", if projected { "-projected" } else { "" });
            let mut container = container.clone();
            extend(&mut container, &mounted(&["v"]));
            rows.push((pod(&name, script, &container, &json!({"volumes": [volume]})), expected.replace("NAME", &name)));
        };
        row("name", &json!([name]), None, &json!({}), &show("/v/name"), "NAME 644");
        row("mode", &json!([name]), Some(0o400), &json!({}), &show("/v/name"), "NAME 400");
        row("item-mode", &json!([with_mode]), None, &json!({}), &show("/v/name"), "NAME 400");
        let script = "cd /v; for f in limits.cpu requests.cpu limits.memory requests.memory; do cat $f; echo; done";
        row("set", &json!(limits), None, &json!({"resources": resources}), script, "2\n1\n67108864\n33554432");
        let script = "echo $(cat /v/limits.cpu) $(cat /v/limits.memory)";
        row("unset", &json!(limits[..2]), None, &json!({}), script, &all_of_it);
    }
    check(&c, &rows);
}

/// Conformance: [sig-storage] EmptyDir volumes pod should support shared volumes between containers [Conformance]
/// Conformance: [sig-storage] EmptyDir volumes should support (non-root,0644,default) [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] EmptyDir volumes should support (non-root,0644,tmpfs) [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] EmptyDir volumes should support (non-root,0666,default) [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] EmptyDir volumes should support (non-root,0666,tmpfs) [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] EmptyDir volumes should support (non-root,0777,default) [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] EmptyDir volumes should support (non-root,0777,tmpfs) [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] EmptyDir volumes should support (root,0644,default) [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] EmptyDir volumes should support (root,0644,tmpfs) [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] EmptyDir volumes should support (root,0666,default) [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] EmptyDir volumes should support (root,0666,tmpfs) [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] EmptyDir volumes should support (root,0777,default) [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] EmptyDir volumes should support (root,0777,tmpfs) [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] EmptyDir volumes volume on default medium should have the correct mode [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-storage] EmptyDir volumes volume on tmpfs should have the correct mode [LinuxOnly] [NodeConformance] [Conformance]
#[test]
fn empty_directories() {
    let c = Cluster::start(KNARR);
    let mut rows = Vec::new();
    let kind = "grep ' /v ' /proc/mounts | cut -d' ' -f3";
    for (medium, directory) in [("default", json!({})), ("tmpfs", json!({"medium": "Memory"}))] {
        let volumes = json!([{"name": "v", "emptyDir": directory}]);
        let show_kind = if medium == "tmpfs" { kind } else { "true" };
        let expected_kind = if medium == "tmpfs" { "\ntmpfs" } else { "" };
        let directory_mode = pod(
            &format!("directory-{medium}"),
            &format!("stat -c %a /v; {show_kind}"),
            &mounted(&["v"]),
            &json!({"volumes": volumes}),
        );
        // A directory in memory is also sticky, as the kernel makes it and as upstream leaves it.
        rows.push((directory_mode, format!("{}777{expected_kind}", if medium == "tmpfs" { "1" } else { "" })));
        for (user, id) in [("root", 0), ("non-root", 1001)] {
            for mode in ["644", "666", "777"] {
                let script = format!("echo content > /v/f && chmod {mode} /v/f && stat -c '%a %u' /v/f && cat /v/f; {show_kind}");
                let spec = json!({"securityContext": {"runAsUser": id}, "volumes": volumes});
                let one = pod(&format!("{user}-{mode}-{medium}"), &script, &mounted(&["v"]), &spec);
                rows.push((one, format!("{mode} {id}\ncontent{expected_kind}")));
            }
        }
    }
    let read = "until [ -e /v/done ]; do usleep 10000; done; cat /v/file";
    let mut shared = pod("shared", read, &mounted(&["v"]), &json!({"volumes": [{"name": "v", "emptyDir": {}}]}));
    let mut writer = shared["spec"]["containers"][0].clone();
    writer["name"] = json!("writer");
    writer["command"] = json!(["sh", "-c", "echo from the other > /v/file; touch /v/done"]);
    shared["spec"]["containers"].as_array_mut().unwrap().push(writer);
    rows.push((shared, "from the other".to_owned()));
    check(&c, &rows);
}

/// Conformance: [sig-storage] EmptyDir wrapper volumes should not cause race condition when used for configmaps [Serial] [Conformance]
/// Conformance: [sig-storage] EmptyDir wrapper volumes should not conflict [Conformance]
#[test]
fn many_volumes_of_objects() {
    const VOLUMES: usize = 50;
    const PODS: usize = 5;
    let c = Cluster::start(KNARR);
    objects(&c, "default", "both", &json!({"data-1": "value-1"}));
    let volumes = json!([volume("secret", "v", "both", &json!({})), volume("configMap", "w", "both", &json!({}))]);
    check(
        &c,
        &[(
            pod("both", "cat /v/data-1 /w/data-1", &mounted(&["v", "w"]), &json!({"volumes": volumes})),
            "value-1value-1".to_owned(),
        )],
    );
    for number in 0..VOLUMES {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{number}")},
            "data": {"data-1": number.to_string()}});
        create(&c, &core("configmaps"), &map);
    }
    let names: Vec<_> = (0..VOLUMES).map(|number| format!("m{number}")).collect();
    let volumes: Vec<_> = names.iter().map(|name| volume("configMap", name, name, &json!({}))).collect();
    let mounts = mounted(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let script = "for d in /m*; do cat $d/data-1; echo; done | sort -n | uniq | wc -l";
    for round in 0..3 {
        let one = |number: usize| pod(&format!("many-{round}-{number}"), script, &mounts, &json!({"volumes": volumes}));
        let rows: Vec<_> = (0..PODS).map(|number| (one(number), VOLUMES.to_string())).collect();
        check(&c, &rows);
    }
}

/// Conformance: [sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod [Conformance]
/// Conformance: [sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod with mountPath of existing file [Conformance]
/// Conformance: [sig-storage] Subpath Atomic writer volumes should support subpaths with downward pod [Conformance]
/// Conformance: [sig-storage] Subpath Atomic writer volumes should support subpaths with projected pod [Conformance]
/// Conformance: [sig-storage] Subpath Atomic writer volumes should support subpaths with secret pod [Conformance]
/// Conformance: [sig-node] Variable Expansion should allow substituting values in a volume subpath [Conformance]
/// Conformance: [sig-node] Variable Expansion should fail substituting values in a volume subpath with absolute path [Conformance]
/// Conformance: [sig-node] Variable Expansion should fail substituting values in a volume subpath with backticks [Conformance]
/// Conformance: [sig-node] Variable Expansion should succeed in writing subpaths in container [Conformance]
/// Conformance: [sig-node] Variable Expansion should verify that a failing subpath expansion can be modified during the lifecycle of a container [Slow] [Conformance]
#[test]
fn parts_of_volumes() {
    let c = Cluster::start(KNARR);
    objects(&c, "default", "part", &json!({"file": "value", "resolv.conf": "mine"}));
    let name = json!([{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]);
    let mut rows = Vec::new();
    for (case, volume, part, path, expected) in [
        ("map", volume("configMap", "v", "part", &json!({})), "file", "/part/file", "value"),
        ("map-over", volume("configMap", "v", "part", &json!({})), "resolv.conf", "/etc/resolv.conf", "mine"),
        ("secret", volume("secret", "v", "part", &json!({})), "file", "/part/file", "value"),
        ("projected", volume("projected-configMap", "v", "part", &json!({})), "file", "/part/file", "value"),
        ("downward", json!({"name": "v", "downwardAPI": {"items": name}}), "name", "/part/file", "downward"),
    ] {
        let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": path, "subPath": part}]});
        rows.push((pod(case, &format!("cat {path}"), &mounts, &json!({"volumes": [volume]})), expected.to_owned()));
    }
    let expression = |value: &str, script: &str| {
        let container = json!({"env": [{"name": "POD_NAME", "value": value}], "volumeMounts": [
            {"name": "v", "mountPath": "/logs", "subPathExpr": "$(POD_NAME)"}, {"name": "v", "mountPath": "/whole"}]});
        pod("expanded", script, &container, &json!({"volumes": [{"name": "v", "emptyDir": {}}]}))
    };
    rows.push((expression("expanded", "test -d /whole/expanded && echo there"), "there".to_owned()));
    check(&c, &rows);

    for (name, value) in [("absolute", "/tmp"), ("above", "..")] {
        let mut refused = expression(value, "true");
        refused["metadata"]["name"] = json!(name);
        create(&c, &core("pods"), &refused);
        eventually(&format!("{name} is refused"), || waits(&c, name, "CreateContainerConfigError").then_some(()));
    }
    annotated(&c);
}

/// Whether the container of a pod waits for this reason.
fn waits(c: &Cluster, pod: &str, reason: &str) -> bool {
    let status = c.api().object(&format!("{}/{pod}", core("pods")))["status"].clone();
    status["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
}

/// A part named by an annotation: the pod waits until there is one, and keeps what it has when it changes.
fn annotated(c: &Cluster) {
    let container = json!({"env": [{"name": "POD_NAME", "value": "foo"},
        {"name": "ANNOTATION", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['mysubpath']"}}}],
        "volumeMounts": [{"name": "v", "mountPath": "/part", "subPathExpr": "$(ANNOTATION)/$(POD_NAME)"},
            {"name": "v", "mountPath": "/whole"}]});
    let mut object = pod("annotated", "sleep 100000", &container, &json!({"volumes": [{"name": "v", "emptyDir": {}}]}));
    object["metadata"]["annotations"] = json!({"notmysubpath": "mypath"});
    create(c, &core("pods"), &object);
    eventually("a part without a name is refused", || waits(c, "annotated", "CreateContainerConfigError").then_some(()));
    let path = format!("{}/annotated", core("pods"));
    let annotate = |value: &str| patch(c, &path, &json!({"metadata": {"annotations": {"mysubpath": value}}}));
    annotate("mypath");
    c.k("wait --for=condition=Ready pod/annotated --timeout=60s");
    exec(c, "annotated", "touch /whole/mypath/foo/test.log");
    assert_eq!(exec(c, "annotated", "ls /part"), "test.log");
    annotate("mynewpath");
    assert_eq!(exec(c, "annotated", "ls /part"), "test.log");
    delete(c, &path);
    c.k("wait --for=delete pod/annotated --timeout=60s");
    assert_eq!(output(c, "expanded").0, "Succeeded");
}

/// Conformance: [sig-node] ImageVolume should succeed with pod and pull policy of Always [LinuxOnly] [MinimumKubeletVersion:1.35] [Conformance]
/// KEP-4639: "volumes.image.reference ... Behaves in the same way as pod.spec.containers[*].image"
#[test]
fn images_as_volumes() {
    let c = Cluster::start(KNARR);
    // Programs of an image can be run, which upstream leaves to the runtimes (kubernetes#135775).
    let image = json!({"volumes": [{"name": "v", "image": {"reference": super::NGINX, "pullPolicy": "Always"}},
        {"name": "own", "image": {"reference": BUSYBOX}}]});
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/part", "subPath": "etc/nginx"},
        {"name": "own", "mountPath": "/own"}]});
    let script = "[ -f /v/usr/sbin/nginx ] && [ -f /part/nginx.conf ] && echo files; \
        touch /v/x 2>/dev/null || echo read-only; \
        /own/bin/busybox echo runs; grep ' /v ' /proc/mounts | grep -q 'nosuid.*nodev' && echo restricted";
    let shown = pod("shown", script, &mounts, &image);
    check(&c, &[(shown, "files\nread-only\nruns\nrestricted".to_owned())]);
    // An image that somebody mounts is not removed, and one that is nowhere holds up its pod as a container's own would.
    let missing = json!({"volumes": [{"name": "v", "image": {"reference": "127.0.0.1:5000/none:1", "pullPolicy": "Never"}}]});
    create(&c, &core("pods"), &pod("waits", "true", &json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}), &missing));
    eventually("the pod says why it waits", || {
        let pod = c.api().object(&format!("{}/waits", core("pods")));
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        (waiting["reason"] == "ErrImageNeverPull").then_some(())
    });
    // What the status calls the image can be run, also with a tag before the digest.
    let status = &c.api().object(&format!("{}/shown", core("pods")))["status"]["containerStatuses"][0];
    let id = status["imageID"].as_str().unwrap();
    let (repository, digest) = id.split_once('@').unwrap();
    assert!(digest.starts_with("sha256:") && BUSYBOX.starts_with(repository), "{id}");
    let rows: Vec<_> = [id.to_owned(), format!("{BUSYBOX}@{digest}")]
        .into_iter()
        .enumerate()
        .map(|(number, image)| {
            (pod(&format!("by-digest-{number}"), "echo same", &json!({"image": image}), &json!({})), "same".to_owned())
        })
        .collect();
    check(&c, &rows);
}
