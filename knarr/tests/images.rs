//! `knarr image`: images that no registry has, on all nodes of a throw-away cluster.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testing::{Cluster, Outcome, eventually, kubectl};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

/// A pod on each node, of an image that nobody pulls.
const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - {labelSelector: {matchLabels: {app: web}}, topologyKey: kubernetes.io/hostname}
      containers:
        - name: main
          image: app:1
          imagePullPolicy: Never
          command: [sh, -c, "cat /motd; exec sleep 1000"]
"#;

fn digest(data: &[u8]) -> String {
    let hex: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn archive(members: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content, mode) in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The layers of an image that has a shell and a message, and its configuration.
fn parts(message: &str) -> (Vec<Vec<u8>>, Vec<u8>) {
    let program = std::fs::read("/bin/busybox").expect("the package busybox-static is installed");
    let commands: [(&str, &[u8], u32); 3] =
        [("bin/sh", &program, 0o755), ("bin/cat", &program, 0o755), ("bin/sleep", &program, 0o755)];
    let layers = vec![archive(&commands), archive(&[("motd", message.as_bytes(), 0o644)])];
    let ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let config =
        json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": ids}});
    (layers, config.to_string().into_bytes())
}

/// What `docker save` writes; the identifier of the image.
fn saved(file: &Path, tag: &str, message: &str) -> String {
    let (layers, config) = parts(message);
    let manifest = json!([{"Config": "config.json", "RepoTags": [tag], "Layers": ["0/layer.tar", "1/layer.tar"]}]).to_string();
    let members = [
        ("0/layer.tar", &layers[0][..], 0o644),
        ("1/layer.tar", &layers[1], 0o644),
        ("config.json", &config, 0o644),
        ("manifest.json", manifest.as_bytes(), 0o644),
    ];
    std::fs::write(file, archive(&members)).unwrap();
    digest(&config)
}

/// An OCI layout of an image without a name; its identifier.
fn layout(file: &Path, message: &str) -> String {
    let (layers, config) = parts(message);
    let descriptor = |data: &[u8]| json!({"digest": digest(data), "size": data.len()});
    let entries: Vec<Value> = layers.iter().map(|layer| descriptor(layer)).collect();
    let manifest = json!({"schemaVersion": 2, "config": descriptor(&config), "layers": entries}).to_string().into_bytes();
    let index = json!({"schemaVersion": 2, "manifests": [descriptor(&manifest)]}).to_string().into_bytes();
    let blobs = [&layers[0], &layers[1], &config, &manifest];
    let names: Vec<String> = blobs.iter().map(|blob| format!("blobs/{}", digest(blob).replace(':', "/"))).collect();
    let mut members: Vec<(&str, &[u8], u32)> = vec![("index.json", &index, 0o644)];
    members.extend(names.iter().zip(blobs).map(|(name, blob)| (name.as_str(), &blob[..], 0o644)));
    std::fs::write(file, archive(&members)).unwrap();
    digest(&config)
}

/// What lists say of the image with this name: nodes, and all pods.
fn of(list: &str, tag: &str) -> (Vec<String>, Vec<String>) {
    let list: Value = serde_json::from_str(list).unwrap();
    let images = list["images"].as_array().unwrap();
    let named: Vec<&Value> = images.iter().filter(|image| image["repoTags"].as_array().unwrap().contains(&json!(tag))).collect();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pods = named.iter().flat_map(|image| image["pods"].as_array().unwrap()).map(text);
    (named.iter().map(|image| text(&image["node"])).collect(), pods.collect())
}

#[test]
fn images_without_a_registry() {
    let c = Cluster::prepare(KNARR);
    let dir = c.scratch().join("dev");
    let command = |arguments: &[&str]| {
        let mut command = c.machine().command(Path::new(KNARR));
        command.args(arguments).arg("--data-dir").arg(&dir);
        command
    };
    let started = Outcome::of(&mut command(&["dev", "--nodes", "3", "--forward", "5000", "--detach"]));
    assert_eq!(started.code, Some(0), "{started:?}");
    let image = |line: &str| Outcome::of(&mut command(&[&["image"][..], &line.split_whitespace().collect::<Vec<_>>()].concat()));
    let good = |line: &str| {
        let outcome = image(line);
        assert_eq!(outcome.code, Some(0), "image {line}: {outcome:?}");
        outcome.stdout
    };
    let bad = |line: &str, text: &str| {
        let outcome = image(line);
        assert!(outcome.code == Some(1) && outcome.stderr.contains(text), "image {line}: {outcome:?}");
    };
    let kubeconfig = dir.join("kubeconfig");
    let k = |line: &str| {
        let mut command = std::process::Command::new(kubectl::program());
        let outcome = Outcome::of(command.env("KUBECONFIG", &kubeconfig).args(line.split_whitespace()));
        assert_eq!(outcome.code, Some(0), "kubectl {line}: {outcome:?}");
        outcome.stdout
    };

    // One archive of a file for all nodes, another of the standard input for two of them.
    let file = c.scratch().join("app.tar");
    let path = file.display();
    let id = saved(&file, "app:1", "one\n");
    let told = good(&format!("import {path}"));
    for node in ["n1", "n2", "n3"] {
        assert!(told.contains(&format!("{node}: imported docker.io/library/app:1 ({id})")), "{told}");
    }
    let nameless = c.scratch().join("layout.tar");
    let other = layout(&nameless, "two\n");
    let mut piped = command(&["image", "import", "-", "--tag", "app:2", "--node", "n2,n3"]);
    let piped = Outcome::of(piped.stdin(Stdio::from(std::fs::File::open(&nameless).unwrap())));
    assert_eq!(piped.code, Some(0), "{piped:?}");
    assert!(piped.stdout.contains(&format!("n3: imported docker.io/library/app:2 ({other})")), "{piped:?}");
    bad("import /no/such/file", "No such file");
    bad("--node n4 list", "they are n1, n2, n3");
    assert_eq!(of(&good("list -o json"), "docker.io/library/app:2"), (vec!["n2".to_owned(), "n3".to_owned()], vec![]));
    eventually("the Node object lists the image", || {
        k("get node n2 -o jsonpath={.status.images[*].names}").contains("docker.io/library/app:2").then_some(())
    });

    let manifest = c.scratch().join("web.yaml");
    std::fs::write(&manifest, WEB).unwrap();
    k(&format!("apply -f {}", manifest.display()));
    k("rollout status deployment/web --timeout=60s");
    eventually("the image's own file is shown", || (k("logs deployment/web") == "one\n").then_some(()));
    let (nodes, pods) = of(&good("list -o json"), "docker.io/library/app:1");
    assert_eq!((nodes.len(), pods.len()), (3, 3), "{pods:?}");
    assert!(pods[0].starts_with("default/web-"), "{pods:?}");
    bad("rm app:1", "is in use by pod default/web-");

    // What was exported is the same image again.
    let exported = c.scratch().join("exported.tar");
    good(&format!("export app:1 app:2 --output {}", exported.display()));
    let told = good(&format!("import {} --node n1", exported.display()));
    assert!(told.contains(&format!("imported docker.io/library/app:1 ({id})")), "{told}");
    assert!(told.contains(&format!("imported docker.io/library/app:2 ({other})")), "{told}");
    bad(&format!("export app:3 --output {}", exported.display()), "image app:3 not found");

    let pulled = image("pull 127.0.0.1:5000/busybox:1.36 --node n1");
    assert!(pulled.stdout.starts_with("pulled 127.0.0.1:5000/busybox:1.36 (sha256:"), "{pulled:?}");
    assert!(pulled.stderr.contains("layer sha256:"), "{pulled:?}");
    bad("pull 127.0.0.1:5000/nosuch:1 --node n1", "manifest unknown");

    // Without --all only what has no name goes; what pods use stays in any case.
    bad("rm app:9 app:8", "n3: image app:8 not found");
    saved(&file, "app:2", "three\n");
    good(&format!("import {path} --node n2"));
    let told = good("prune");
    assert!(told.starts_with("n2: removed docker.io/library/app@sha256:") && told.lines().count() == 1, "{told}");
    assert!(good("prune --all").contains("n1: removed 127.0.0.1:5000/busybox:1.36 ("));
    assert_eq!(of(&good("list -o json"), "docker.io/library/app:1").0.len(), 3);
    k("delete deployment web");
    k("wait --for=delete pod -l app=web --timeout=60s");
    eventually("the last containers are gone", || (image("rm app:1").code == Some(0)).then_some(()));
    assert_eq!(serde_json::from_str::<Value>(&good("list -o json")).unwrap()["images"], json!([]));
    assert_eq!(good("list").trim_end(), "NODE   IMAGE   IMAGE ID   SIZE   PODS");
    assert_eq!(Outcome::of(&mut command(&["dev", "stop"])).code, Some(0));
}
