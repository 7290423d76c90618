//! What becomes of the data directory: a newer version's, a full disk.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use http::Method;
use serde_json::json;
use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn a_newer_data_directory_is_left_alone() {
    let mut c = Cluster::start(KNARR);
    c.k("create configmap kept --from-literal=a=b");
    c.stop_server();
    let format = c.data_dir().join("store/format");
    let ours = std::fs::read_to_string(&format).unwrap();
    std::fs::write(&format, "999\n").unwrap();
    c.spawn_server(&[]);
    assert!(!c.wait_server().success());
    let log = std::fs::read_to_string(c.log()).unwrap();
    assert!(log.contains("format 999") && log.contains("run the newer version again"), "{log}");
    std::fs::write(&format, ours).unwrap();
    c.start_server();
    assert_eq!(c.k("get configmap kept -o jsonpath={.data.a}"), "b");
}

/// Runs a command on the cluster's machine.
fn on_machine(c: &Cluster, line: &str) {
    let mut words = line.split(' ');
    let output = c.machine().command(Path::new(words.next().unwrap())).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let mut c = Cluster::prepare(KNARR);
    let data = c.data_dir();
    on_machine(&c, &format!("mkdir {}", data.display()));
    on_machine(&c, &format!("mount -t tmpfs -o size=256m none {}", data.display()));
    c.start_server();
    let write = |c: &Cluster, name: &str| {
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "x".repeat(200_000)}});
        c.api().send(Method::POST, MAPS, "application/json", map.to_string())
    };
    let mut kept = vec!["first".to_owned()];
    assert_eq!(write(&c, "first").status, 201);
    // All but little of the disk is gone at once, the rest goes by writing.
    let filler = data.join("filler");
    on_machine(&c, &format!("dd if=/dev/zero of={} bs=1M count=100 status=none", filler.display()));
    let refused = (0..2000).find_map(|i| {
        let name = format!("map-{i}");
        let answer = write(&c, &name);
        if answer.status == 201 {
            kept.push(name);
            return None;
        }
        Some(answer.json())
    });
    let refused = refused.expect("a refusal before 400 MB are written to a disk of 256");
    assert!(refused["message"].as_str().unwrap().contains("space"), "{refused}");
    let all_there = |c: &Cluster| {
        let maps = c.api().object(MAPS);
        let names: Vec<_> =
            maps["items"].as_array().unwrap().iter().map(|map| map["metadata"]["name"].as_str().unwrap()).collect();
        kept.iter().for_each(|name| assert!(names.contains(&name.as_str()), "{name} is lost"));
    };
    all_there(&c);
    // With no byte left it starts with what it has: who makes room needs a server.
    c.kill_server();
    let rest =
        c.machine().command(Path::new("dd")).args(["if=/dev/zero", &format!("of={}", data.join("rest").display())]).output();
    assert!(String::from_utf8(rest.unwrap().stderr).unwrap().contains("No space left"));
    c.start_server();
    all_there(&c);
    on_machine(&c, &format!("rm {}", data.join("rest").display()));
    c.kill_server();
    on_machine(&c, &format!("rm {}", filler.display()));
    c.start_server();
    all_there(&c);
    eventually("writes are taken again", || (write(&c, "last").status == 201).then_some(()));
}
