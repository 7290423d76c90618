//! What people do with Helm 4, with a chart as real ones are: helpers, a look-up, kinds of seven groups, hooks and a test.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/helm/ship");
const FLEET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/helm/fleet");
/// What the release's objects carry.
const SELECTOR: &str = "-l app.kubernetes.io/instance=voyage";
/// The kinds in the chart.
const KINDS: &str = "configmaps,secrets,serviceaccounts,roles,rolebindings,services,deployments,statefulsets,cronjobs,ingresses,networkpolicies,poddisruptionbudgets,hpa";

/// What Helm prints as JSON.
fn json(c: &Cluster, line: &str) -> Value {
    let text = c.helm(&format!("{line} -o json"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("helm {line}: {error}: {text}"))
}

/// The status of each revision, the oldest first.
fn history(c: &Cluster) -> Vec<String> {
    let history = json(c, "history voyage");
    history.as_array().unwrap().iter().map(|revision| revision["status"].as_str().unwrap().to_owned()).collect()
}

fn objects(c: &Cluster) -> Vec<String> {
    c.k(&format!("get {KINDS} {SELECTOR} -o name")).lines().map(str::to_owned).collect()
}

/// Waits until the release's service serves this title: the last pod of the revision before may still answer.
fn serves(c: &Cluster, title: &str) {
    let address = c.k("get service voyage-ship -o jsonpath={.spec.clusterIP}");
    eventually(&format!("a page with {title}"), || {
        (testing::http::get(&format!("{address}:80"), "/").ok()? == format!("<h1>{title}</h1>\n")).then_some(())
    });
}

#[test]
fn a_release_from_installation_to_removal() {
    let c = Cluster::start(KNARR);
    let shown = c.helm(&format!("install voyage {CHART} --dry-run=server"));
    assert!(shown.contains("kind: Ingress") && shown.contains("STATUS: pending-install"), "{shown}");
    assert_eq!(objects(&c), [""; 0]);
    let installed = c.helm(&format!("install voyage {CHART} --wait --timeout 50s"));
    assert!(installed.contains("Landed at http://voyage-ship:80, release 1."), "{installed}");
    assert_eq!(objects(&c).len(), 13, "{:?}", objects(&c));
    serves(&c, "Landed");
    assert_eq!(c.k("get deployment voyage-ship -o jsonpath={.status.readyReplicas}"), "1");
    assert_eq!(c.k("get statefulset voyage-ship-store -o jsonpath={.status.readyReplicas}"), "2");
    // Hooks ran before the rest and stay as their policies say.
    assert_eq!(c.k("logs job/voyage-ship-survey"), "surveyed\n");
    assert_eq!(c.k("get configmap voyage-ship-chart -o jsonpath={.data.course}"), "west");
    let key = || c.k("get secret voyage-ship -o jsonpath={.data.key}");
    let first_key = key();

    let tested = c.helm("test voyage --logs --timeout 50s");
    assert!(tested.contains("Phase:          Succeeded") && tested.contains("<h1>Landed</h1>"), "{tested}");

    c.helm(&format!("upgrade voyage {CHART} --set title=Sailed,replicas=2,autoscaling.enabled=true --wait --timeout 50s"));
    serves(&c, "Sailed");
    assert_eq!(objects(&c).len(), 14, "{:?}", objects(&c));
    assert_eq!(key(), first_key, "the chart looks up what is there");
    assert_eq!(c.k("get jobs -l hook=check -o name"), "", "a hook with this policy is deleted");
    assert_eq!(json(&c, "get values voyage")["title"], "Sailed");
    assert_eq!(history(&c), ["superseded", "deployed"]);

    let failed = c.try_helm(&format!("upgrade voyage {CHART} --set title=Sunk,check=3 --rollback-on-failure --timeout 50s"));
    assert!(failed.code != Some(0) && failed.stderr.contains("pre-upgrade hooks failed"), "{failed:?}");
    serves(&c, "Sailed");

    c.helm("rollback voyage 1 --wait --timeout 50s --no-hooks");
    serves(&c, "Landed");
    assert_eq!(objects(&c).len(), 13, "{:?}", objects(&c));
    assert_eq!(history(&c).last().unwrap(), "deployed");
    assert_eq!(json(&c, "list")[0]["chart"], "ship-1.2.0");

    c.helm("uninstall voyage --wait --timeout 50s");
    assert_eq!(objects(&c), ["secret/voyage-ship"], "a policy keeps it");
    assert_eq!(json(&c, "list"), Value::Array(Vec::new()));
    assert_eq!(c.k("get secrets -l owner=helm -o name"), "");
}

/// A chart that brings definitions, and objects of them in the same release.
#[test]
fn a_chart_with_definitions() {
    let c = Cluster::start(KNARR);
    let ships = || c.k("get ships -l app.kubernetes.io/instance=north -o jsonpath={.items[*].spec.sails}");
    let missing = c.try_helm(&format!("install north {FLEET} --skip-crds"));
    assert!(missing.stderr.contains("ensure CRDs are installed first"), "{missing:?}");
    c.helm(&format!("install north {FLEET} --wait --timeout 50s"));
    assert_eq!(ships(), "2 2");
    assert_eq!(c.k("get ship north-snek -o jsonpath={.spec.captain}"), "leif");
    c.helm(&format!("upgrade north {FLEET} --set sails=4 --wait --timeout 50s"));
    assert_eq!(ships(), "4 4");
    // Definitions come before templates, which know of them.
    assert_eq!(c.k("get harbour north -o jsonpath={.quay.known}"), "true");
    let refused = c.try_helm(&format!("upgrade north {FLEET} --set sails=3"));
    assert!(refused.stderr.contains("a ship loses no sails"), "{refused:?}");
    let refused = c.try_helm(&format!("upgrade north {FLEET} --set sails=9"));
    assert!(refused.stderr.contains("should be less than or equal to 5"), "{refused:?}");
    assert_eq!(ships(), "4 4");
    // Another release finds the definitions there, and they stay when both are gone.
    c.helm(&format!("install south {FLEET} --wait --timeout 50s"));
    c.helm("uninstall north --wait --timeout 50s");
    c.helm("uninstall south --wait --timeout 50s");
    assert_eq!(c.k("get ships,harbours -A -o name"), "");
    assert_eq!(c.k("get crds -o name").lines().filter(|name| name.ends_with(".fleet.example.com")).count(), 2);
    c.k("delete crd ships.fleet.example.com harbours.fleet.example.com --timeout=50s");
}

#[test]
fn who_changed_a_field_keeps_it_until_forced() {
    let c = Cluster::start(KNARR);
    c.helm(&format!("install voyage {CHART} --set replicas=1"));
    let managers = c.k("get deployment voyage-ship -o jsonpath={.metadata.managedFields[*].manager} --show-managed-fields");
    assert!(managers.split(' ').any(|manager| manager == "helm"), "{managers}");
    c.k("scale deployment voyage-ship --replicas=0");
    let conflict = c.try_helm(&format!("upgrade voyage {CHART} --set replicas=2"));
    assert!(conflict.code != Some(0) && conflict.stderr.contains("conflict"), "{conflict:?}");
    assert!(conflict.stderr.contains(".spec.replicas"), "{conflict:?}");
    c.helm(&format!("upgrade voyage {CHART} --set replicas=0 --force-conflicts"));
    assert_eq!(json(&c, "status voyage")["info"]["status"], "deployed");
}

#[test]
fn a_release_that_the_client_merges() {
    let c = Cluster::start(KNARR);
    c.helm(&format!("install voyage {CHART} --server-side=false --wait=legacy --timeout 50s"));
    serves(&c, "Landed");
    // What others added stays in a three-way merge, what the chart names comes back.
    c.k("annotate service voyage-ship other=kept");
    c.k("scale deployment voyage-ship --replicas=2");
    c.helm(&format!(
        "upgrade voyage {CHART} --server-side=false --set title=Sailed,service.type=NodePort --wait=legacy --timeout 50s"
    ));
    serves(&c, "Sailed");
    let service = c.k("get service voyage-ship -o jsonpath={.spec.type}/{.metadata.annotations.other}");
    assert_eq!(service, "NodePort/kept");
    assert_eq!(c.k("get deployment voyage-ship -o jsonpath={.spec.replicas}"), "1");
    c.helm("uninstall voyage --wait=legacy --timeout 50s");
    assert_eq!(objects(&c), ["secret/voyage-ship"]);
}
