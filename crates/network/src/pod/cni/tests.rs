#![allow(clippy::unwrap_used)]
use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;

/// A plugin that writes down what it is asked for, and answers with what it was told before and an address.
const PLUGIN: &str = r#"#!/bin/sh
config=$(cat)
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS $config" >> DIR/said
[ ! -e DIR/fails ] || { echo '{"code": 11, "msg": "try again", "details": "no lease"}'; exit 1; }
[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion": "1.0.0", "by": "WHO", "ips": [{"address": "10.42.0.7/24"}, {"address": "10.42.0.8/24"}, {"address": "fd42::7/64"}]}'
"#;

struct Machine(tempfile::TempDir);

impl Machine {
    fn new(plugins: &Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for name in ["first", "second"] {
            let file = path.join(name);
            fs::write(&file, PLUGIN.replace("DIR", path.to_str().unwrap()).replace("WHO", name)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let network = json!({"cniVersion": "1.0.0", "name": "net", "plugins": plugins});
        fs::write(path.join("10-net.conflist"), network.to_string()).unwrap();
        Self(directory)
    }

    fn directories(&self) -> Directories {
        Directories { configuration: self.0.path().into(), plugins: vec!["/nowhere".into(), self.0.path().into()] }
    }

    fn said(&self) -> Vec<String> {
        let said = fs::read_to_string(self.0.path().join("said")).unwrap_or_default();
        let _ = fs::remove_file(self.0.path().join("said"));
        said.lines().map(str::to_owned).collect()
    }
}

fn wanted(bandwidth: Bandwidth) -> Attachment {
    let pod = Pod { namespace: "a".into(), name: "web".into(), uid: "u".into() };
    Attachment { pod, bandwidth, ..Attachment::default() }
}

/// CNI specification, section 3: "For each configuration defined in the plugins key", ADD in order, each with the result of the one before; DEL in
/// reverse order, with the final result.
#[tokio::test]
async fn plugins_run_in_order_and_backwards() {
    let machine = Machine::new(&json!([{"type": "first", "mtu": 1400}, {"type": "second", "capabilities": {"bandwidth": true}}]));
    let (directories, netns) = (machine.directories(), machine.0.path().join("netns"));
    let limits = Bandwidth { ingress: Some(1_000_000), egress: None };
    let mut added = directories.begin(&netns, &wanted(limits)).unwrap();
    let addresses = directories.add("s1", &mut added).await.unwrap();
    assert_eq!(addresses, ["10.42.0.7".parse::<IpAddr>().unwrap(), "fd42::7".parse().unwrap()]);
    let said = machine.said();
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=s1;K8S_POD_UID=u";
    let begin = format!("ADD s1 {} eth0 {args} ", netns.display());
    let told = |line: &str, begin: &str| {
        let told = line.strip_prefix(begin).unwrap_or_else(|| panic!("{line:?} begins with {begin:?}"));
        serde_json::from_str::<Value>(told).unwrap()
    };
    assert_eq!(told(&said[0], &begin), json!({"cniVersion": "1.0.0", "name": "net", "type": "first", "mtu": 1400}));
    let second = told(&said[1], &begin);
    assert_eq!((second["type"].as_str(), second["prevResult"]["by"].as_str()), (Some("second"), Some("first")));
    assert_eq!(second["runtimeConfig"], json!({"bandwidth": {"ingressRate": 1_000_000, "ingressBurst": i32::MAX}}));

    // As the lease has it after a crash, and whatever the directory says by then. The namespace is not there.
    let added: Added = serde_json::from_value(serde_json::to_value(&added).unwrap()).unwrap();
    fs::remove_file(machine.0.path().join("10-net.conflist")).unwrap();
    directories.delete("s1", &added).await.unwrap();
    let said = machine.said();
    let begin = format!("DEL s1  eth0 {args} ");
    let order: Vec<_> = said.iter().map(|line| told(line, &begin)).collect();
    assert_eq!(order.iter().map(|one| one["type"].as_str().unwrap()).collect::<Vec<_>>(), ["second", "first"]);
    assert!(order.iter().all(|one| one["prevResult"]["by"] == "second"));
}

#[tokio::test]
async fn what_plugins_cannot_do_is_told() {
    let machine = Machine::new(&json!([{"type": "first"}, {"type": "missing"}]));
    let directories = machine.directories();
    let limits = Bandwidth { ingress: Some(1), egress: None };
    let error = directories.begin(Path::new("/n"), &wanted(limits)).unwrap_err().to_string();
    assert_eq!(
        error,
        "the pod's bandwidth cannot be limited: no plugin of the CNI network \"net\" has the capability \"bandwidth\""
    );
    let mut added = directories.begin(Path::new("/n"), &wanted(Bandwidth::default())).unwrap();
    let error = directories.add("s1", &mut added).await.unwrap_err().to_string();
    let expected = format!("CNI plugin missing (ADD): there is no such program in /nowhere:{}", machine.0.path().display());
    assert_eq!(error, expected);
    fs::write(machine.0.path().join("fails"), "").unwrap();
    let error = directories.add("s1", &mut added).await.unwrap_err().to_string();
    assert_eq!(error, "CNI plugin first (ADD): try again: no lease");
}

#[test]
fn addresses_of_results() {
    #[track_caller]
    fn check(result: Value, expected: &[&str]) {
        let found: Vec<String> = addresses(&result).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{result}");
    }
    check(json!({"ips": [{"address": "fd42::7/64"}, {"address": "10.42.0.7/24"}]}), &["fd42::7", "10.42.0.7"]);
    check(json!({"ips": [{"address": "10.42.0.7"}, {"address": 7}, {}, {"address": "x/24"}]}), &["10.42.0.7"]);
    check(json!({"ips": {}}), &[]);
    check(json!(7), &[]);
}
