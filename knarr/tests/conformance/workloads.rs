//! Controllers of pods, what goes with what is deleted, and where pods may run.

use http::Method;
use serde_json::{Value, json};
use testing::{Cluster, eventually};

use super::{BUSYBOX, KNARR, NGINX, core, create, delete, patch, pod, run, send};

const APPS: &str = "/apis/apps/v1/namespaces/default";

/// A ReplicationController, ReplicaSet or Deployment whose pods have the label `app` and idle.
pub(super) fn controller(kind: &str, name: &str, replicas: u32) -> Value {
    let labels = json!({"app": name});
    let (version, selector) =
        if kind == "ReplicationController" { ("v1", labels.clone()) } else { ("apps/v1", json!({"matchLabels": labels})) };
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": {"replicas": replicas,
        "selector": selector, "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "100000"]}]}}}})
}

fn collection(kind: &str) -> String {
    match kind {
        "ReplicationController" => core("replicationcontrollers"),
        _ => format!("{APPS}/{}s", kind.to_lowercase()),
    }
}

pub(super) fn make(c: &Cluster, object: &Value) -> Value {
    create(c, &collection(object["kind"].as_str().unwrap()), object)
}

/// Waits until this many replicas are ready.
pub(super) fn ready(c: &Cluster, kind: &str, name: &str, replicas: u64) -> Value {
    eventually(&format!("{replicas} of {kind} {name} are ready"), || {
        let object = c.api().object(&format!("{}/{name}", collection(kind)));
        let status = &object["status"];
        let settled = status["observedGeneration"] == object["metadata"]["generation"]
            && status["readyReplicas"].as_u64().unwrap_or(0) == replicas
            && status["replicas"].as_u64().unwrap_or(0) == replicas;
        settled.then_some(object)
    })
}

/// The pods of an app that are not on their way out.
pub(super) fn pods_of(c: &Cluster, app: &str) -> Vec<Value> {
    let list = c.api().object(&format!("{}?labelSelector=app%3D{app}", core("pods")));
    let items = list["items"].as_array().unwrap();
    items.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).cloned().collect()
}

fn owners(object: &Value) -> Vec<&str> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten().filter_map(|owner| owner["uid"].as_str()).collect()
}

/// Conformance: [sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods [Conformance]
/// Conformance: [sig-apps] ReplicaSet should serve a basic image on each replica with a public image [Conformance]
/// Conformance: [sig-apps] ReplicationController should adopt matching pods on creation [Conformance]
/// Conformance: [sig-apps] ReplicationController should release no longer matching pods [Conformance]
/// Conformance: [sig-apps] ReplicationController should serve a basic image on each replica with a public image [Conformance]
/// Conformance: [sig-apps] ReplicaSet Replace and Patch tests [Conformance]
/// Conformance: [sig-apps] ReplicationController should test the lifecycle of a ReplicationController [Conformance]
#[test]
fn replicas() {
    let c = Cluster::start(KNARR);
    for kind in ["ReplicaSet", "ReplicationController"] {
        serve(&c, kind);
        adopt(&c, kind);
        life(&c, kind);
    }
}

/// Every replica answers.
fn serve(c: &Cluster, kind: &str) {
    let name = format!("serve-{}", kind.to_lowercase());
    let mut object = controller(kind, &name, 2);
    let container = json!({"name": "main", "image": NGINX, "readinessProbe": {"tcpSocket": {"port": 80}}});
    object["spec"]["template"]["spec"]["containers"] = json!([container]);
    make(c, &object);
    ready(c, kind, &name, 2);
    for pod in pods_of(c, &name) {
        let page = testing::http::get(&format!("{}:80", pod["status"]["podIP"].as_str().unwrap()), "/").unwrap();
        assert!(page.contains("Welcome to nginx!"), "{page}");
    }
}

/// A pod that matches is adopted and let go when it matches no more.
fn adopt(c: &Cluster, kind: &str) {
    let name = format!("adopt-{}", kind.to_lowercase());
    let mut orphan = pod(&name, "exec sleep 100000", &json!({}), &json!({"restartPolicy": "Always"}));
    orphan["metadata"]["labels"] = json!({"app": name});
    run(c, &orphan);
    let uid = make(c, &controller(kind, &name, 1))["metadata"]["uid"].clone();
    let path = format!("{}/{name}", core("pods"));
    eventually("the pod is adopted", || (owners(&c.api().object(&path)) == [uid.as_str()?]).then_some(()));
    assert_eq!(pods_of(c, &name).len(), 1);
    patch(c, &path, &json!({"metadata": {"labels": {"app": "nobody"}}}));
    eventually("the pod is let go", || owners(&c.api().object(&path)).is_empty().then_some(()));
    eventually("another takes its place", || {
        pods_of(c, &name).first().map(|pod| assert_eq!(owners(pod), [uid.as_str().unwrap()]))
    });
}

/// Scaled by its scale, patched, listed, deleted with its collection; its status is patched by the way.
fn life(c: &Cluster, kind: &str) {
    let name = format!("life-{}", kind.to_lowercase());
    let path = format!("{}/{name}", collection(kind));
    make(c, &controller(kind, &name, 1));
    ready(c, kind, &name, 1);
    let mut scale = c.api().object(&format!("{path}/scale"));
    scale["spec"]["replicas"] = json!(2);
    // "indicate the scale update should be unconditional" (test/e2e/apps/replica_set.go): the controller may have written meanwhile.
    scale["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    send(c, 200, Method::PUT, &format!("{path}/scale"), &scale);
    ready(c, kind, &name, 2);
    let change = json!({"metadata": {"labels": {"patched": "yes"}}, "spec": {"replicas": 3,
        "template": {"spec": {"containers": [{"name": "main", "image": NGINX, "command": ["sleep", "100000"]}]}}}});
    patch(c, &path, &change);
    let object = ready(c, kind, &name, 3);
    assert_eq!(object["metadata"]["labels"]["patched"], "yes");
    let images: Vec<_> = pods_of(c, &name).iter().filter(|pod| pod["spec"]["containers"][0]["image"] == NGINX).cloned().collect();
    assert_eq!(images.len(), 1, "only new pods are made of the new template");
    let patched = patch(c, &format!("{path}/status"), &json!({"status": {"conditions": [{"type": "Tested", "status": "True"}]}}));
    assert_eq!(patched["status"]["conditions"][0]["type"], "Tested");
    let everywhere = collection(kind).replace("namespaces/default/", "");
    let list = c.api().object(&format!("{everywhere}?labelSelector=app%3D{name}"));
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    send(c, 200, Method::DELETE, &format!("{}?labelSelector=app%3D{name}", collection(kind)), &Value::Null);
    eventually("it goes", || (c.api().get(&path).status == 404).then_some(()));
    // Clients of the oldest version expect that pods stay when nobody says what becomes of them.
    let left = if kind == "ReplicationController" { 3 } else { 0 };
    eventually("its pods", || {
        let pods = pods_of(c, &name);
        (pods.len() == left && pods.iter().all(|pod| owners(pod).is_empty())).then_some(())
    });
}

/// The ReplicaSets of a Deployment, with the number of replicas that each should have, oldest first.
fn sets(c: &Cluster, app: &str) -> Vec<(Value, u64)> {
    let list = c.api().object(&format!("{APPS}/replicasets?labelSelector=app%3D{app}"));
    let mut sets: Vec<_> = list["items"].as_array().unwrap().clone();
    let revision =
        |set: &Value| set["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str().unwrap().parse::<u64>();
    sets.sort_by_key(|set| revision(set).unwrap());
    sets.into_iter().map(|set| (set.clone(), set["spec"]["replicas"].as_u64().unwrap())).collect()
}

/// The pods of a Deployment get this command, which makes a new revision.
fn roll(c: &Cluster, name: &str, image: &str) -> Value {
    let containers = json!([{"name": "main", "image": image, "command": ["sleep", "100000"]}]);
    patch(c, &format!("{APPS}/deployments/{name}"), &json!({"spec": {"template": {"spec": {"containers": containers}}}}))
}

/// Conformance: [sig-apps] Deployment RecreateDeployment should delete old pods and create new ones [Conformance]
/// Conformance: [sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones [Conformance]
/// Conformance: [sig-apps] Deployment deployment should delete old replica sets [Conformance]
/// Conformance: [sig-apps] Deployment deployment should support proportional scaling [Conformance]
/// Conformance: [sig-apps] Deployment deployment should support rollover [Conformance]
/// Conformance: [sig-apps] Deployment should run the lifecycle of a Deployment [Conformance]
#[test]
fn deployments() {
    let c = Cluster::start(KNARR);
    recreate(&c);
    roll_over(&c);
    proportions(&c);
    life_of_a_deployment(&c);
}

fn settled(c: &Cluster, name: &str, replicas: u64) -> Value {
    c.k(&format!("rollout status deployment/{name} --timeout=60s"));
    ready(c, "Deployment", name, replicas)
}

/// No pod of the new template runs before the last of the old one is gone.
fn recreate(c: &Cluster) {
    let mut object = controller("Deployment", "recreate", 2);
    object["spec"]["strategy"] = json!({"type": "Recreate"});
    make(c, &object);
    settled(c, "recreate", 2);
    let events = c.background("get pods -l app=recreate --watch --output-watch-events --no-headers");
    (0..2).for_each(|_| drop(events.line("ADDED")));
    let names =
        |pods: Vec<Value>| pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let old = names(pods_of(c, "recreate"));
    roll(c, "recreate", NGINX);
    settled(c, "recreate", 2);
    // kubectl may print later what has happened.
    let mut lines = Vec::new();
    while lines.iter().filter(|line: &&String| line.starts_with("ADDED")).count() < 2 {
        lines.push(events.next_line().expect("a watch goes on"));
    }
    let gone = lines.iter().rposition(|line| line.starts_with("DELETED"));
    let new = lines.iter().position(|line| line.starts_with("ADDED"));
    assert!(gone.is_some() && gone < new, "{lines:?}");
    let new = c.api().object(&format!("{}?labelSelector=app%3Drecreate", core("pods")));
    for pod in new["items"].as_array().unwrap() {
        assert!(!old.contains(&pod["metadata"]["name"].as_str().unwrap().to_owned()), "{pod}");
        assert_eq!(pod["spec"]["containers"][0]["image"], NGINX);
    }
}

/// A ReplicaSet that was there before is adopted and replaced; a second change overtakes the first; old sets go.
fn roll_over(c: &Cluster) {
    let mut set = controller("ReplicaSet", "rolling", 1);
    set["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": "3546343826724305832"});
    set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(NGINX);
    make(c, &set);
    ready(c, "ReplicaSet", "rolling", 1);
    let mut object = controller("Deployment", "rolling", 1);
    object["spec"]["revisionHistoryLimit"] = json!(0);
    object["spec"]["minReadySeconds"] = json!(1);
    make(c, &object);
    settled(c, "rolling", 1);
    let deployment = c.api().object(&format!("{APPS}/deployments/rolling"));
    assert_eq!(deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3546343826724305833");
    eventually("the old set goes", || (sets(c, "rolling").len() == 1).then_some(()));
    // An image that is nowhere never becomes ready; what comes after it does.
    roll(c, "rolling", "127.0.0.1:5000/nothing:none");
    eventually("the first change has its set", || (sets(c, "rolling").len() == 2).then_some(()));
    roll(c, "rolling", NGINX);
    settled(c, "rolling", 1);
    eventually("only the last set is left", || {
        let sets = sets(c, "rolling");
        (sets.len() == 1 && sets[0].0["spec"]["template"]["spec"]["containers"][0]["image"] == NGINX).then_some(())
    });
}

/// A Deployment in the middle of a change is scaled: both of its sets grow in proportion.
fn proportions(c: &Cluster) {
    let mut object = controller("Deployment", "scaled", 10);
    object["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
    make(c, &object);
    settled(c, "scaled", 10);
    roll(c, "scaled", "127.0.0.1:5000/nothing:none");
    let are = |expected: &[u64]| {
        let now = || sets(c, "scaled").into_iter().map(|(_, replicas)| replicas).collect::<Vec<_>>();
        eventually(&format!("the sets have {expected:?}"), || (now() == expected).then_some(()));
    };
    are(&[8, 5]);
    patch(c, &format!("{APPS}/deployments/scaled"), &json!({"spec": {"replicas": 30}}));
    are(&[20, 13]);
    delete(c, &format!("{APPS}/deployments/scaled"));
}

fn life_of_a_deployment(c: &Cluster) {
    let path = format!("{APPS}/deployments/life");
    make(c, &controller("Deployment", "life", 1));
    settled(c, "life", 1);
    patch(c, &path, &json!({"metadata": {"labels": {"patched": "yes"}}, "spec": {"replicas": 2}}));
    settled(c, "life", 2);
    roll(c, "life", NGINX);
    let object = settled(c, "life", 2);
    assert_eq!((&object["metadata"]["labels"]["patched"], &object["status"]["updatedReplicas"]), (&json!("yes"), &json!(2)));
    let condition = json!([{"type": "Tested", "status": "True", "reason": "Tested", "message": "by a test"}]);
    let patched = patch(c, &format!("{path}/status"), &json!({"status": {"conditions": condition}}));
    assert_eq!(patched["status"]["conditions"][0]["type"], "Tested");
    let listed = c.api().object("/apis/apps/v1/deployments?labelSelector=patched%3Dyes");
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    send(c, 200, Method::DELETE, &format!("{APPS}/deployments?labelSelector=patched%3Dyes"), &Value::Null);
    eventually("all of it goes", || (pods_of(c, "life").is_empty() && sets(c, "life").is_empty()).then_some(()));
    assert_eq!(c.api().get(&path).status, 404);
}

fn policy(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": name})
}

/// Conformance: [sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning [Conformance]
/// Conformance: [sig-api-machinery] Garbage collector should delete pods created by rc when not orphaning [Conformance]
/// Conformance: [sig-api-machinery] Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so [Serial] [Conformance]
/// Conformance: [sig-api-machinery] Garbage collector should not be blocked by dependency circle [Conformance]
/// Conformance: [sig-api-machinery] Garbage collector should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted [Serial] [Conformance]
/// Conformance: [sig-api-machinery] Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan [Conformance]
/// Conformance: [sig-api-machinery] Garbage collector should orphan pods created by rc if delete options say so [Serial] [Conformance]
#[test]
fn garbage() {
    let c = Cluster::start(KNARR);
    for kind in ["ReplicationController", "Deployment"] {
        for (with, left) in [("Background", 0), ("Orphan", 2)] {
            let name = format!("{}-{}", kind.to_lowercase(), with.to_lowercase());
            make(&c, &controller(kind, &name, 2));
            ready(&c, kind, &name, 2);
            let path = format!("{}/{name}", collection(kind));
            send(&c, 200, Method::DELETE, &path, &policy(with));
            eventually("it is gone", || (c.api().get(&path).status == 404).then_some(()));
            let dependents = if kind == "Deployment" { format!("{APPS}/replicasets") } else { core("pods") };
            let list =
                || c.api().object(&format!("{dependents}?labelSelector=app%3D{name}"))["items"].as_array().unwrap().clone();
            let expected = if left > 0 && kind == "Deployment" { 1 } else { left };
            eventually("what it owned", || (list().len() == expected).then_some(()));
            assert!(list().iter().all(|object| owners(object).is_empty()), "{:?}", list());
            eventually("its pods", || (pods_of(&c, &name).len() == left).then_some(()));
        }
    }
    foreground(&c);
    circle(&c);
}

/// An owner that waits for its dependents is there until the last is gone, and takes none that has another owner.
fn foreground(c: &Cluster) {
    let kind = "ReplicationController";
    let stays = make(c, &controller(kind, "stays", 0));
    make(c, &controller(kind, "going", 3));
    ready(c, kind, "going", 3);
    let pods = pods_of(c, "going");
    let path = |pod: &Value| format!("{}/{}", core("pods"), pod["metadata"]["name"].as_str().unwrap());
    let mut both = pods[0]["metadata"]["ownerReferences"].as_array().unwrap().clone();
    both.push(json!({"apiVersion": "v1", "kind": kind, "name": "stays", "uid": stays["metadata"]["uid"]}));
    patch(c, &path(&pods[0]), &json!({"metadata": {"ownerReferences": both}}));
    patch(c, &path(&pods[1]), &json!({"metadata": {"finalizers": ["example.com/wait"]}}));
    let owner = format!("{}/going", collection(kind));
    send(c, 200, Method::DELETE, &owner, &policy("Foreground"));
    eventually("the pod without anything goes", || (c.api().get(&path(&pods[2])).status == 404).then_some(()));
    let waiting = c.api().object(&owner);
    assert!(waiting["metadata"]["deletionTimestamp"].is_string(), "{waiting}");
    assert_eq!(waiting["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    patch(c, &path(&pods[1]), &json!({"metadata": {"finalizers": null}}));
    eventually("the owner goes last", || (c.api().get(&owner).status == 404).then_some(()));
    assert_eq!(c.api().get(&path(&pods[1])).status, 404);
    let kept = c.api().object(&path(&pods[0]));
    assert!(kept["metadata"]["deletionTimestamp"].is_null(), "{kept}");
    eventually("only the owner that stays", || {
        (owners(&c.api().object(&path(&pods[0]))) == [stays["metadata"]["uid"].as_str()?]).then_some(())
    });
}

/// Three pods that own each other go when one is deleted.
fn circle(c: &Cluster) {
    let path = |number: usize| format!("{}/circle{number}", core("pods"));
    let pods: Vec<_> = (0..3)
        .map(|number| create(c, &core("pods"), &pod(&format!("circle{number}"), "exec sleep 100000", &json!({}), &json!({}))))
        .collect();
    for number in 0..3 {
        let owner = &pods[(number + 2) % 3];
        let reference = json!([{"apiVersion": "v1", "kind": "Pod", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
            "controller": true, "blockOwnerDeletion": true}]);
        patch(c, &path(number), &json!({"metadata": {"ownerReferences": reference}}));
    }
    send(c, 200, Method::DELETE, &path(0), &policy("Foreground"));
    eventually("the circle goes", || (0..3).all(|number| c.api().get(&path(number)).status == 404).then_some(()));
}

/// Conformance: [sig-api-machinery] Namespaces [Serial] should ensure that all pods are removed when a namespace is deleted [Conformance]
/// Conformance: [sig-api-machinery] Namespaces [Serial] should ensure that all services are removed when a namespace is deleted [Conformance]
/// Conformance: [sig-api-machinery] OrderedNamespaceDeletion namespace deletion should delete pod first [Conformance]
#[test]
fn namespaces() {
    let c = Cluster::start(KNARR);
    let root = "/api/v1/namespaces";
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "going"}});
    let fill = || {
        create(&c, root, &namespace);
        c.k("wait --for=create serviceaccount/default -n going --timeout=60s");
        let mut object = pod("held", "exec sleep 100000", &json!({}), &json!({}));
        object["metadata"]["finalizers"] = json!(["example.com/wait"]);
        create(&c, &format!("{root}/going/pods"), &object);
        create(&c, &format!("{root}/going/pods"), &pod("free", "exec sleep 100000", &json!({}), &json!({})));
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "map"}});
        create(&c, &format!("{root}/going/configmaps"), &map);
        let service =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
        create(&c, &format!("{root}/going/services"), &service);
    };
    fill();
    c.k("wait --for=condition=Ready pod/free pod/held -n going --timeout=60s");
    send(&c, 200, Method::DELETE, &format!("{root}/going"), &Value::Null);
    c.k("wait --for=delete pod/free -n going --timeout=60s");
    let remains = || {
        let conditions = c.api().object(&format!("{root}/going"))["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().find(|one| one["type"] == "NamespaceFinalizersRemaining" && one["status"] == "True").cloned()
    };
    let told = eventually("the namespace says what it waits for", remains);
    assert!(told["message"].as_str().unwrap().contains("example.com/wait"), "{told}");
    for other in ["configmaps/map", "services/s"] {
        assert!(c.api().object(&format!("{root}/going/{other}"))["metadata"]["deletionTimestamp"].is_null(), "pods go first");
    }
    let held = c.api().object(&format!("{root}/going/pods/held"));
    assert!(held["metadata"]["deletionTimestamp"].is_string(), "{held}");
    patch(&c, &format!("{root}/going/pods/held"), &json!({"metadata": {"finalizers": null}}));
    c.k("wait --for=delete namespace/going --timeout=60s");
    create(&c, root, &namespace);
    for plural in ["pods", "services"] {
        assert_eq!(c.api().object(&format!("{root}/going/{plural}"))["items"], json!([]));
    }
}

/// Conformance: [sig-apps] DisruptionController should observe PodDisruptionBudget status updated [Conformance]
#[test]
fn budgets() {
    let c = Cluster::start(KNARR);
    make(&c, &controller("ReplicaSet", "guarded", 3));
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "guarded"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}}});
    create(&c, budgets, &budget);
    eventually("what the budget allows", || {
        let object = c.api().object(&format!("{budgets}/guarded"));
        let status = &object["status"];
        let expected = json!([3, 3, 1, 2, object["metadata"]["generation"]]);
        let names = ["expectedPods", "currentHealthy", "desiredHealthy", "disruptionsAllowed", "observedGeneration"];
        (json!(names.map(|name| &status[name])) == expected).then_some(())
    });
}
