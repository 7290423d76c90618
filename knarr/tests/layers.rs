//! Nodes get layers of images from each other before the registry, and images that no registry has.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;

use serde_json::json;
use testing::{Cluster, RegistryProxy};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
/// The images' registry, as all nodes reach it.
const REGISTRY: &str = "192.168.77.1:5001";

/// The digests of the blobs that the registry was asked for since the last look.
fn blobs(registry: &RegistryProxy) -> Vec<String> {
    let lines = registry.asked();
    let paths = lines.iter().filter_map(|line| line.strip_prefix("GET ")?.split(' ').next()?.split_once("/blobs/"));
    paths.map(|(_, digest)| digest.to_owned()).collect()
}

/// Three nodes that speak plain HTTP with the registry.
fn start() -> (Cluster, RegistryProxy) {
    let mut c = Cluster::prepare(KNARR);
    let counted = RegistryProxy::start("0.0.0.0:5001", None);
    let registries = c.scratch().join("registries.yaml");
    std::fs::write(&registries, format!("configs: {{\"{REGISTRY}\": {{http: true}}}}")).unwrap();
    let registries = registries.display().to_string();
    c.add_host(2);
    c.add_host(3);
    c.start_server_with(&["--registries", &registries]);
    let token = c.token_file();
    for number in [2, 3] {
        let (name, address) = (format!("n{number}"), format!("192.168.77.{number}"));
        c.start_agent_with(number, &token, &["--node-name", &name, "--node-ip", &address, "--registries", &registries]);
    }
    c.wait_nodes(3);
    (c, counted)
}

/// Runs a pod of the image on the node, and tells what its event says of the pull.
fn run(c: &Cluster, name: &str, node: &str, image: &str) -> String {
    let container = json!({"name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "100000"]});
    let spec = json!({"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]});
    c.k_with("create -f -", &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string());
    c.k(&format!("wait --for=condition=Ready pod/{name} --timeout=120s"));
    testing::eventually("the pull has its event", || {
        let events =
            format!("get events --field-selector involvedObject.name={name},reason=Pulled -o jsonpath={{.items[*].message}}");
        Some(c.k(&events)).filter(|message| !message.is_empty())
    })
}

fn metric(c: &Cluster, node: &str, sample: &str) -> u64 {
    let page = c.k(&format!("get --raw /api/v1/nodes/{node}/proxy/metrics"));
    page.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok()).unwrap_or(0)
}

/// Makes other bytes of the files of a node's layers, in their place.
fn damage(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
        if kind.is_dir() {
            damage(&path);
        } else if kind.is_file() && path.metadata().unwrap().len() > 0 {
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(b"\0").unwrap();
        }
    }
}

#[test]
fn a_registry_gives_each_layer_once() {
    let (c, registry) = start();
    let image = format!("{REGISTRY}/busybox:1.36");
    let told = run(&c, "one", "n1", &image);
    assert!(!told.contains("node n"), "{told}");
    let first = blobs(&registry);
    assert!(first.len() >= 2, "layers and a configuration: {first:?}");
    for (pod, node, from) in [("two", "n2", &["n1."][..]), ("three", "n3", &["n1.", "n2."])] {
        let told = run(&c, pod, node, &image);
        assert!(from.iter().any(|from| told.contains(&format!("Layers came from node {from}"))), "{told}");
        let asked = blobs(&registry);
        assert_eq!(asked.len(), 1, "{node} has asked for the configuration only: {asked:?}");
        assert!(metric(&c, node, "knarr_image_layers_from_nodes_total{result=\"taken\"}") > 0);
    }
    let sent = ["n1", "n2"].map(|node| metric(&c, node, "knarr_image_layers_to_nodes_total"));
    assert!(sent[0] + sent[1] >= 2, "{sent:?}");

    // A node whose layers are others than they were costs one more look, and no wrong byte.
    let image = format!("{REGISTRY}/redis:7");
    let layers = c.machine().path(&c.data_dir().join("runtime/images/layers"));
    let before: Vec<_> = std::fs::read_dir(&layers).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(c.knarr(&["image", "pull", &image]).status().unwrap().success());
    blobs(&registry);
    for layer in std::fs::read_dir(&layers).unwrap().map(|entry| entry.unwrap().path()).filter(|path| !before.contains(path)) {
        damage(&layer.join("fs"));
    }
    let told = run(&c, "four", "n2", &image);
    assert!(!told.contains("Layers came from node n1"), "{told}");
    assert!(blobs(&registry).len() >= 2, "the registry has given what the node had not");
    assert!(metric(&c, "n2", "knarr_image_layers_from_nodes_total{result=\"failed\"}") > 0);
    assert_eq!(c.k("exec four -- redis-server --version").split(' ').next(), Some("Redis"));
}

#[test]
fn what_was_imported_on_one_node_is_found_by_the_others() {
    let (c, registry) = start();
    let (image, file) = (format!("{REGISTRY}/mine:1"), c.scratch().join("mine.tar"));
    let pulled = format!("{REGISTRY}/busybox:1.36");
    let file = file.display().to_string();
    for arguments in [&["pull", &pulled][..], &["export", &pulled, "--output", &file], &["import", &file, "--tag", &image]] {
        let done = testing::Outcome::of(&mut c.knarr(&[&["image"], arguments].concat()));
        assert_eq!(done.code, Some(0), "{arguments:?}: {done:?}");
    }
    blobs(&registry);
    let told = run(&c, "two", "n2", &image);
    assert!(told.contains("It was imported on node n1 and came from there: failed to pull"), "{told}");
    // The node that has taken it gives it on.
    c.k("cordon n1");
    assert!(c.knarr(&["image", "rm", &image]).status().unwrap().success());
    let told = run(&c, "three", "n3", &image);
    assert!(told.contains("It was imported on node n2 and came from there: failed to pull"), "{told}");
    assert!(blobs(&registry).is_empty(), "no blob has come from the registry");
    // A name that nobody has imported fails as it always did, and one that is pulled always is asked of the registry.
    let container = |image: &str, policy: &str| json!([{"name": "main", "image": image, "imagePullPolicy": policy}]);
    for (name, image, policy) in [("other", format!("{REGISTRY}/mine:2"), "IfNotPresent"), ("always", image, "Always")] {
        let spec = json!({"nodeName": "n3", "containers": container(&image, policy)});
        c.k_with(
            "create -f -",
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string(),
        );
        c.k(&format!(
            "wait --for=jsonpath={{.status.containerStatuses[0].state.waiting.reason}}=ErrImagePull pod/{name} --timeout=60s"
        ));
    }
}
