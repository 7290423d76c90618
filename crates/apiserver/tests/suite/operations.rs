//! What upstream's conformance tests call the "API operations" of a kind: every verb on every kind that discovery lists.
//!
//! The kinds come from discovery, the objects from `operations/objects.yaml`: a kind that is served without an object there fails.

mod groups;

use apiserver::Api;
use serde_json::{Value, json};

use crate::server::{admin, populated_namespace, start};
use crate::watch::Watch;

const OBJECTS: &str = include_str!("operations/objects.yaml");
const NAMESPACE: &str = "operations";
const SELECTED: &str = "labelSelector=operations%3Dyes";
/// What upstream's own tests expect discovery to list for a kind whose objects are stored.
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Every verb on every kind of a group and version; `required` ones have to be among them.
async fn group(api: &Api, group_version: &str, required: &[&str]) {
    if admin(api, &format!("GET /api/v1/namespaces/{NAMESPACE}")).await.code == 404 {
        populated_namespace(api, NAMESPACE).await;
    }
    let root = if group_version.contains('/') { format!("/apis/{group_version}") } else { format!("/api/{group_version}") };
    let resources = discovered(api, group_version, &root).await;
    for name in required {
        assert!(resources.iter().any(|r| r["name"] == *name), "{group_version} does not have {name}");
    }
    for resource in resources.iter().filter(|r| stored(r)) {
        let name = resource["name"].as_str().unwrap();
        let status = resources.iter().any(|r| r["name"] == format!("{name}/status"));
        let target = Target { api, root: &root, group_version, resource, status };
        target.operations().await;
    }
}

/// The resources of a version, which stands in each document of discovery from the list of all groups down.
async fn discovered(api: &Api, group_version: &str, root: &str) -> Vec<Value> {
    let document = async |path: &str| admin(api, &format!("GET {path}")).await.json();
    match group_version.split_once('/') {
        None => assert_eq!(document("/api").await["versions"], json!([group_version])),
        Some((name, version)) => {
            let version = json!({"groupVersion": group_version, "version": version});
            let all = document("/apis").await;
            let listed = all["groups"].as_array().unwrap().iter().find(|group| group["name"] == name);
            for group in [listed.unwrap_or_else(|| panic!("{name}: {all}")), &document(&format!("/apis/{name}")).await] {
                assert!(group["versions"].as_array().unwrap().contains(&version), "{group_version}: {group}");
            }
        }
    }
    let list = document(root).await;
    assert_eq!((&list["kind"], &list["groupVersion"]), (&json!("APIResourceList"), &json!(group_version)));
    list["resources"].as_array().unwrap_or_else(|| panic!("{group_version}: {list}")).clone()
}

/// Not a sub-resource, no review, no Namespace, and nothing that is computed: those have tests of their own.
fn stored(resource: &Value) -> bool {
    let name = resource["name"].as_str().unwrap();
    let lists = resource["verbs"].as_array().unwrap().iter().any(|verb| verb == "list");
    !name.contains('/') && lists && !["namespaces", "componentstatuses"].contains(&name)
}

struct Target<'a> {
    api: &'a Api,
    root: &'a str,
    group_version: &'a str,
    resource: &'a Value,
    status: bool,
}

impl Target<'_> {
    fn plural(&self) -> &str {
        self.resource["name"].as_str().unwrap()
    }

    fn is_custom(&self) -> bool {
        self.group_version.starts_with("operations.example.com/")
    }

    /// The collection's path, in the namespace if it has one.
    fn path(&self) -> String {
        match self.resource["namespaced"] == true {
            true => format!("{}/namespaces/{NAMESPACE}/{}", self.root, self.plural()),
            false => format!("{}/{}", self.root, self.plural()),
        }
    }

    /// Sends a request and expects its code.
    async fn ask(&self, code: u16, method: &str, path: &str, body: &Value) -> Value {
        self.send(code, method, path, "application/json", body).await
    }

    async fn patch(&self, path: &str, kind: &str, body: &Value) -> Value {
        self.send(200, "PATCH", path, &format!("application/{kind}"), body).await
    }

    async fn send(&self, code: u16, method: &str, path: &str, content_type: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = admin(self.api, &format!("{method} {path}\ncontent-type: {content_type}\n\n{body}")).await;
        assert_eq!(answer.code, code, "{method} {path} {content_type} {body}: {:?}", answer.body);
        answer.json()
    }

    /// Three objects of the kind, labelled.
    fn objects(&self) -> Vec<Value> {
        let ours = |object: &Value| object["apiVersion"] == self.group_version && object["kind"] == self.resource["kind"];
        let mut objects: Vec<Value> = examples().into_iter().filter(ours).collect();
        assert!(!objects.is_empty(), "no {} of {} in objects.yaml", self.resource["kind"], self.group_version);
        if let [one] = objects.as_slice() {
            let numbered = |number: u8| {
                let mut object = one.clone();
                object["metadata"]["name"] = json!(format!("{}-{number}", one["metadata"]["name"].as_str().unwrap()));
                object
            };
            objects = (1..=3).map(numbered).collect();
        }
        objects.iter_mut().for_each(|object| object["metadata"]["labels"] = json!({"operations": "yes"}));
        objects
    }

    /// What is created: with a status, which is dropped, except for a Node, which the kubelet registers with one.
    fn created(&self, object: &Value) -> Value {
        let mut object = object.clone();
        if self.plural() == "nodes" {
            object.as_object_mut().unwrap().remove("status");
        }
        object
    }

    async fn operations(&self) {
        let verbs: Vec<&str> = self.resource["verbs"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(verbs, VERBS, "{}", self.plural());
        let (path, objects) = (self.path(), self.objects());
        let empty = self.ask(200, "GET", &format!("{path}?{SELECTED}"), &Value::Null).await;
        let since = empty["metadata"]["resourceVersion"].as_str().unwrap();
        let mut watch = Watch::start(self.api, &format!("{path}?{SELECTED}&resourceVersion={since}")).await;
        let made = self.create(&path, &objects).await;
        self.read(&path, &made).await;
        let one = format!("{path}/{}", name(&made[0]));
        self.patches(&one, &made[0]).await;
        self.update(&one).await;
        if self.status {
            self.change_status(&one, &objects[0]["status"]).await;
        }
        self.delete(&path, &made).await;
        self.watched(&mut watch, &made).await;
    }

    async fn create(&self, path: &str, objects: &[Value]) -> Vec<Value> {
        self.ask(201, "POST", &format!("{path}?dryRun=All"), &self.created(&objects[0])).await;
        self.ask(404, "GET", &format!("{path}/{}", name(&objects[0])), &Value::Null).await;
        let mut made = Vec::new();
        for object in objects {
            let answer = self.ask(201, "POST", path, &self.created(object)).await;
            assert!(answer["metadata"]["uid"].is_string() && answer["metadata"]["creationTimestamp"].is_string(), "{answer}");
            if self.status {
                let dropped = contains(&answer["status"], &object["status"]).is_err();
                assert!(dropped, "{path}: a create took the status {}", answer["status"]);
            }
            made.push(answer);
        }
        let again = self.ask(409, "POST", path, &objects[0]).await;
        assert_eq!(again["reason"], "AlreadyExists");
        made
    }

    async fn read(&self, path: &str, made: &[Value]) {
        for object in made {
            let got = self.ask(200, "GET", &format!("{path}/{}", name(object)), &Value::Null).await;
            assert_eq!(&got, object);
        }
        let everywhere = format!("{}/{}", self.root, self.plural());
        for collection in [path, &everywhere] {
            let list = self.ask(200, "GET", &format!("{collection}?{SELECTED}"), &Value::Null).await;
            let kind = format!("{}List", self.resource["kind"].as_str().unwrap());
            assert_eq!((list["kind"].as_str(), names(&list).len()), (Some(kind.as_str()), made.len()), "{list}");
            for object in made {
                assert!(names(&list).contains(&name(object)), "{list}");
            }
        }
    }

    async fn patches(&self, one: &str, made: &Value) {
        self.patch(one, "merge-patch+json", &json!({"metadata": {"annotations": {"merge": "yes"}}})).await;
        // Nobody knows how lists of custom resources are merged strategically.
        let (code, strategic) = if self.is_custom() { (415, "merge-patch+json") } else { (200, "strategic-merge-patch+json") };
        let change = json!({"metadata": {"annotations": {"strategic": "yes"}}});
        self.send(code, "PATCH", one, "application/strategic-merge-patch+json", &change).await;
        self.patch(one, strategic, &change).await;
        let add = json!([{"op": "add", "path": "/metadata/annotations/json", "value": "yes"}]);
        self.patch(one, "json-patch+json", &add).await;
        let metadata = json!({"name": name(made), "annotations": {"apply": "yes"}});
        let apply = json!({"apiVersion": made["apiVersion"], "kind": made["kind"], "metadata": metadata});
        let answer = self.patch(&format!("{one}?fieldManager=tester&force=true"), "apply-patch+yaml", &apply).await;
        for patch in ["merge", "strategic", "json", "apply"] {
            assert_eq!(answer["metadata"]["annotations"][patch], "yes", "{one}: {patch}");
        }
        let managed = answer["metadata"]["managedFields"].as_array().unwrap();
        assert!(managed.iter().any(|m| m["manager"] == "tester" && m["operation"] == "Apply"), "{answer}");
    }

    async fn update(&self, one: &str) {
        let old = self.ask(200, "GET", one, &Value::Null).await;
        let mut new = old.clone();
        new["metadata"]["annotations"]["update"] = json!("yes");
        let updated = self.ask(200, "PUT", one, &new).await;
        assert_eq!(updated["metadata"]["annotations"]["update"], "yes");
        assert_ne!(updated["metadata"]["resourceVersion"], old["metadata"]["resourceVersion"]);
        let conflict = self.ask(409, "PUT", one, &new).await;
        assert_eq!(conflict["reason"], "Conflict", "{conflict}");
        let got = self.ask(200, "GET", one, &Value::Null).await;
        assert_eq!(got, updated);
    }

    /// The status has a path of its own, and only that path changes it.
    async fn change_status(&self, one: &str, status: &Value) {
        assert!(!status.is_null(), "{one}: objects.yaml shows no status");
        let path = format!("{one}/status");
        let before = self.ask(200, "GET", &path, &Value::Null).await;
        assert_eq!(before, self.ask(200, "GET", one, &Value::Null).await);
        let patched = self.patch(&path, "merge-patch+json", &json!({"status": status})).await;
        contains(&patched["status"], status).unwrap_or_else(|why| panic!("PATCH {path}: {why}"));
        assert_eq!(patched["spec"], before["spec"], "{path}");
        let mut plain = patched.clone();
        plain["status"] = before["status"].clone();
        let kept = self.ask(200, "PUT", one, &plain).await;
        contains(&kept["status"], status).unwrap_or_else(|why| panic!("PUT {one}: {why}"));
        let mut back = kept.clone();
        back["status"] = before["status"].clone();
        if self.resource["kind"] == "PodCertificateRequest" {
            // The answer of a signer is final (KEP-4317).
            self.ask(422, "PUT", &path, &back).await;
            return;
        }
        let updated = self.ask(200, "PUT", &path, &back).await;
        assert!(contains(&updated["status"], status).is_err(), "PUT {path} kept {}", updated["status"]);
    }

    async fn delete(&self, path: &str, made: &[Value]) {
        let one = format!("{path}/{}", name(&made[0]));
        self.ask(200, "DELETE", &format!("{one}?dryRun=All"), &Value::Null).await;
        self.ask(200, "GET", &one, &Value::Null).await;
        self.ask(200, "DELETE", &one, &Value::Null).await;
        self.let_go(&one).await;
        self.ask(404, "GET", &one, &Value::Null).await;
        self.ask(200, "DELETE", &format!("{path}?{SELECTED}"), &Value::Null).await;
        for object in &made[1..] {
            self.let_go(&format!("{path}/{}", name(object))).await;
        }
        let left = self.ask(200, "GET", &format!("{path}?{SELECTED}"), &Value::Null).await;
        assert_eq!(names(&left), [] as [&str; 0], "{path}");
    }

    /// Takes the finalizers away that a controller would have taken away.
    async fn let_go(&self, one: &str) {
        let answer = admin(self.api, &format!("GET {one}")).await;
        if answer.code == 200 {
            let left = answer.json();
            assert!(left["metadata"]["deletionTimestamp"].is_string() && left["metadata"]["finalizers"].is_array(), "{left}");
            self.patch(one, "merge-patch+json", &json!({"metadata": {"finalizers": null}})).await;
        }
    }

    /// Every object came, changed if it was the first, and went.
    async fn watched(&self, watch: &mut Watch, made: &[Value]) {
        let mut gone = Vec::new();
        let mut seen = Vec::new();
        while gone.len() < made.len() {
            let event = watch.next().await;
            let (kind, name) = (event["type"].as_str().unwrap().to_owned(), name(&event["object"]).to_owned());
            if kind == "DELETED" {
                gone.push(name.clone());
            }
            seen.push((kind, name));
        }
        for object in made {
            let added = seen.iter().position(|(kind, n)| kind == "ADDED" && n == name(object));
            let deleted = seen.iter().position(|(kind, n)| kind == "DELETED" && n == name(object));
            assert!(added.is_some() && added < deleted, "{}: {seen:?}", self.plural());
        }
        let modified = seen.iter().filter(|(kind, n)| kind == "MODIFIED" && n == name(&made[0])).count();
        assert!(modified >= 5, "{}: {seen:?}", self.plural());
    }
}

/// The objects of objects.yaml.
pub(crate) fn examples() -> Vec<Value> {
    let text = OBJECTS.replace("NAMESPACE", NAMESPACE);
    text.split("\n---\n").map(|one| serde_saphyr::from_str(one).unwrap_or_else(|why| panic!("{why}: {one}"))).collect()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().map(name).collect()
}

/// Whether everything that `part` says stands in `whole` too; lists have the same length.
fn contains(whole: &Value, part: &Value) -> Result<(), String> {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().try_for_each(|(key, part)| contains(whole.get(key).unwrap_or(&Value::Null), part))
        }
        (Value::Array(whole), Value::Array(part)) if whole.len() == part.len() => {
            whole.iter().zip(part).try_for_each(|(whole, part)| contains(whole, part))
        }
        _ if whole == part => Ok(()),
        _ => Err(format!("{whole} is not {part}")),
    }
}

/// Upstream: `BindingREST.setPodNodeAndMetadata`.
#[tokio::test]
async fn a_binding_is_for_the_pod_that_it_means() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let path = "/api/v1/namespaces/n/pods";
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
    let made = admin(api, &format!("POST {path}\n\n{pod}")).await.json();
    let own = |key: &str| made["metadata"][key].as_str().unwrap().to_owned();
    let bind = async |uid: &str, version: &str| {
        let metadata = json!({"name": "p", "uid": uid, "resourceVersion": version});
        let target = json!({"kind": "Node", "name": "node"});
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target});
        let answer = admin(api, &format!("POST {path}/p/binding\n\n{binding}")).await;
        (answer.code, answer.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    let (uid, version) = (own("uid"), own("resourceVersion"));
    let refused = |about: &str, why: &str| (409, format!("Operation cannot be fulfilled on {about} \"p\": {why}"));
    let other = |what: &str, wanted: &str, own: &str| {
        refused("pods", &format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {own}"))
    };
    assert_eq!(bind("other", "").await, other("UID", "other", &uid));
    assert_eq!(bind(&uid, "1").await, other("ResourceVersion", "1", &version));
    assert_eq!(bind(&uid, &version).await, (201, String::new()));
    assert_eq!(bind("", "").await, refused("pods/binding", "pod p is already assigned to node \"node\""));
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "q"}, "target": {"name": "node"}});
    let misled = admin(api, &format!("POST {path}/p/binding\n\n{binding}")).await;
    let why = "name in URL does not match name in Binding object";
    assert_eq!((misled.code, misled.json()["message"].as_str()), (400, Some(why)));
}

/// KEP-4742: "PodTopologyLabels ... copies the topology labels of the Node to the Pod" when it is bound, and when it is made with a node.
#[tokio::test]
async fn pods_have_the_zone_of_their_node() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let labels =
        json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "kubernetes.io/hostname": "node"});
    for (name, labels) in [("node", labels), ("plain", json!({}))] {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
        assert_eq!(admin(api, &format!("POST /api/v1/nodes\n\n{node}")).await.code, 201);
    }
    let check = async |name: &str, own: Value, spec: Value, bind: Option<&str>, expected: Value| {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "c", "image": "i"}]);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": own}, "spec": spec});
        assert_eq!(admin(api, &format!("POST /api/v1/namespaces/n/pods\n\n{pod}")).await.code, 201);
        if let Some(node) = bind {
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": node}});
            assert_eq!(admin(api, &format!("POST /api/v1/namespaces/n/pods/{name}/binding\n\n{binding}")).await.code, 201);
        }
        let got = admin(api, &format!("GET /api/v1/namespaces/n/pods/{name}")).await.json();
        assert_eq!(got["metadata"]["labels"], expected, "{name}");
    };
    let zone = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
    check("bound", Value::Null, json!({}), Some("node"), zone.clone()).await;
    check("placed", Value::Null, json!({"nodeName": "node"}), None, zone).await;
    let own = json!({"a": "b", "topology.kubernetes.io/zone": "mine"});
    check(
        "own",
        own,
        json!({}),
        Some("node"),
        json!({"a": "b", "topology.kubernetes.io/zone": "mine", "topology.kubernetes.io/region": "r"}),
    )
    .await;
    check("plain", Value::Null, json!({}), Some("plain"), Value::Null).await;
    check("nowhere", Value::Null, json!({"nodeName": "none"}), None, Value::Null).await;
}
