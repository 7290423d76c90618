//! Files of static pods that are symbolic links.

use crate::testing::Cell;
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;

#[tokio::test]
async fn a_static_pod_is_what_its_link_leads_to() {
    let cell = Cell::new();
    let at = |path: &str| cell.directory.path().join(path);
    for directory in ["manifests", "v1", "v2"] {
        fs::create_dir(at(directory)).unwrap();
    }
    let write = |path: &str, container: &str| {
        let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": container, "image": "img"}]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "ns"}, "spec": spec});
        fs::write(at(path), pod.to_string()).unwrap();
    };
    write("v1/web.json", "one");
    symlink("v1", at("current")).unwrap();
    symlink("../current/web.json", at("manifests/web.json")).unwrap();
    cell.start_as(|options| options.static_pods = Some(at("manifests"))).await;
    let runs = async |name: &str| cell.runtime.until(|world| world.calls.contains(&format!("start {name}"))).await;
    runs("one").await;
    write("v1/web.json", "two");
    runs("two").await;
    // As volumes of ConfigMaps change: a link on the way leads elsewhere at once.
    write("v2/web.json", "three");
    symlink("v2", at("next")).unwrap();
    fs::rename(at("next"), at("current")).unwrap();
    runs("three").await;
}
