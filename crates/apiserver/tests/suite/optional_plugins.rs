//! Admission plugins that work only where they are enabled.

use serde_json::{Value, json};

use crate::server::{Server, admin, ask, config_map, grant, namespace, populated_namespace, serve_with, start, start_with};

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "containers": [{"name": "c", "image": "i:1", "imagePullPolicy": "IfNotPresent"}]}})
}

fn service(name: &str, addresses: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "externalIPs": addresses}})
}

/// Docs "Admission Control in Kubernetes": AlwaysPullImages, DenyServiceExternalIPs, EventRateLimit.
#[tokio::test]
async fn work_where_they_are_enabled() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("admission.yaml");
    let limits = json!({"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration",
        "limits": [{"type": "Namespace", "qps": 1, "burst": 2}]});
    let configuration = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [{"name": "EventRateLimit", "configuration": limits}]});
    std::fs::write(&file, configuration.to_string()).unwrap();
    let server = start_with(|options| {
        options.admission = Some(file);
        options.admission_plugins =
            ["AlwaysPullImages", "DenyServiceExternalIPs", "EventRateLimit", "Priority"].map(str::to_owned).into();
    })
    .await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let made = admin(api, &format!("POST /api/v1/namespaces/n/pods\n\n{}", pod("p"))).await.json();
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    let refused = admin(api, &format!("POST /api/v1/namespaces/n/services\n\n{}", service("s", &["192.0.2.1"]))).await.json();
    let why = "services \"s\" is forbidden: Use of external IPs is denied by admission control";
    assert_eq!((&refused["code"], &refused["message"]), (&json!(403), &json!(why)));
    assert_eq!(admin(api, &format!("POST /api/v1/namespaces/n/services\n\n{}", service("s", &[]))).await.code, 201);
    let event =
        |name: usize| json!({"metadata": {"name": format!("e{name}")}, "involvedObject": {"namespace": "n", "name": "x"}});
    let mut codes = Vec::new();
    for name in 0..20 {
        codes.push(admin(api, &format!("POST /api/v1/namespaces/n/events\n\n{}", event(name))).await.code);
    }
    assert_eq!(codes[..2], [201, 201]);
    assert!(codes.contains(&429), "{codes:?}");
}

/// A server with these plugins, told this.
async fn with(plugins: &[&str], configuration: Value) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("admission.yaml");
    let text = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": configuration});
    std::fs::write(&file, text.to_string()).unwrap();
    let plugins = plugins.iter().map(|name| (*name).to_owned()).collect();
    serve_with(|options| {
        options.admission = Some(file);
        options.admission_plugins = plugins;
    })
    .await
}

/// A namespace for pods, with an annotation.
async fn annotated(server: &Server, name: &str, annotations: Value) {
    populated_namespace(&server.api, name).await;
    let patch = json!({"metadata": {"annotations": annotations}});
    let head = format!("PATCH /api/v1/namespaces/{name}\ncontent-type: application/merge-patch+json");
    assert_eq!(admin(&server.api, &format!("{head}\n\n{patch}")).await.code, 200);
}

/// Creates a pod with more in its spec.
async fn make(server: &Server, namespace: &str, name: &str, spec: Value) -> Result<Value, (Value, Value)> {
    let mut pod = pod(name);
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    let answer = admin(&server.api, &format!("POST /api/v1/namespaces/{namespace}/pods\n\n{pod}")).await.json();
    match answer["kind"] == "Pod" {
        true => Ok(answer["spec"].clone()),
        false => Err((answer["code"].clone(), answer["message"].clone())),
    }
}

fn refused<T>(code: u16, message: &str) -> Result<T, (Value, Value)> {
    Err((json!(code), json!(message)))
}

/// Docs "Admission Control in Kubernetes", PodNodeSelector: the annotation first, then the cluster's default; then the list of the namespace.
#[tokio::test]
async fn pods_are_for_the_nodes_of_their_namespace() {
    let selectors = json!({"clusterDefaultNodeSelector": "zone=a", "listed": "zone=a,disk=fast"});
    let own = json!([{"name": "PodNodeSelector", "configuration": {"podNodeSelectorPluginConfig": selectors}}]);
    let server = with(&["PodNodeSelector"], own).await;
    let annotation = |text: &str| json!({"scheduler.alpha.kubernetes.io/node-selector": text});
    annotated(&server, "silent", json!({})).await;
    annotated(&server, "listed", json!({})).await;
    annotated(&server, "says", annotation("zone=b,env=test")).await;
    annotated(&server, "empty", annotation("")).await;
    annotated(&server, "wrong", annotation("zone")).await;
    let selector = |found: Result<Value, _>| found.map(|spec| spec["nodeSelector"].clone());
    let check = async |namespace: &str, own: Value, expected: Result<Value, (Value, Value)>| {
        let name = format!("p{}", own.as_object().map_or(0, |own| own.len()));
        let made = make(&server, namespace, &name, json!({"nodeSelector": own})).await;
        assert_eq!(selector(made), expected, "{namespace} {own}");
    };
    check("silent", Value::Null, Ok(json!({"zone": "a"}))).await;
    check("says", Value::Null, Ok(json!({"zone": "b", "env": "test"}))).await;
    check("says", json!({"disk": "slow"}), Ok(json!({"zone": "b", "env": "test", "disk": "slow"}))).await;
    check("empty", Value::Null, Ok(Value::Null)).await;
    let conflict = "pods \"p2\" is forbidden: pod node label selector conflicts with its namespace node label selector";
    check("says", json!({"zone": "a", "x": "y"}), refused(403, conflict)).await;
    check("listed", json!({"disk": "fast"}), Ok(json!({"zone": "a", "disk": "fast"}))).await;
    let denied = "pods \"p1\" is forbidden: pod node label selector labels conflict with its namespace whitelist";
    check("listed", json!({"disk": "slow"}), refused(403, denied)).await;
    check("wrong", Value::Null, refused(500, "invalid selector: [zone]")).await;
}

/// Docs "Admission Control in Kubernetes", PodTolerationRestriction.
#[tokio::test]
async fn pods_have_the_tolerations_of_their_namespace() {
    let toleration = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
    let own = json!({"apiVersion": "podtolerationrestriction.admission.k8s.io/v1alpha1", "kind": "Configuration",
        "default": [toleration("cluster")], "whitelist": [{"operator": "Exists", "effect": "NoExecute"}, toleration("cluster")]});
    let server = with(&["PodTolerationRestriction"], json!([{"name": "PodTolerationRestriction", "configuration": own}])).await;
    let annotation = |defaults: &str, whitelist: &str| {
        json!({"scheduler.alpha.kubernetes.io/defaultTolerations": defaults,
            "scheduler.alpha.kubernetes.io/tolerationsWhitelist": whitelist})
    };
    let all = json!([{"operator": "Exists"}]).to_string();
    annotated(&server, "silent", json!({})).await;
    annotated(&server, "says", annotation(&json!([toleration("own")]).to_string(), &all)).await;
    annotated(&server, "empty", annotation("", "")).await;
    annotated(&server, "narrow", annotation("", &json!([{"operator": "Exists", "effect": "NoExecute"}]).to_string())).await;
    // Two of DefaultTolerationSeconds are there before.
    let keys = |found: Result<Value, _>| {
        found.map(|spec: Value| {
            let keys = spec["tolerations"].as_array().into_iter().flatten().map(|one| one["key"].clone());
            keys.filter(|key| !key.as_str().unwrap().ends_with("not-ready") && !key.as_str().unwrap().ends_with("unreachable"))
                .collect()
        })
    };
    let check = async |namespace: &str, name: &str, spec: Value, expected: Result<Value, (Value, Value)>| {
        assert_eq!(keys(make(&server, namespace, name, spec.clone()).await), expected, "{namespace} {spec}");
    };
    check("silent", "p", json!({}), Ok(json!(["cluster"]))).await;
    check("says", "p", json!({"tolerations": [toleration("mine")]}), Ok(json!(["mine", "own"]))).await;
    check("says", "q", json!({"tolerations": [toleration("own")]}), Ok(json!(["own"]))).await;
    check("empty", "p", json!({"tolerations": [toleration("mine")]}), Ok(json!(["mine"]))).await;
    let why = |whose: &str| {
        format!("pod tolerations (possibly merged with namespace default tolerations) conflict with its {whose} whitelist")
    };
    check("silent", "q", json!({"tolerations": [toleration("mine")]}), refused(500, &why("cluster"))).await;
    check("narrow", "p", json!({"tolerations": [toleration("mine")]}), refused(500, &why("namespace"))).await;
    // Who asks for something is not among the first to go when memory is short.
    let asks = json!({"containers": [{"name": "c", "image": "i:1", "resources": {"requests": {"cpu": "1"}}}]});
    check("empty", "r", asks, Ok(json!(["node.kubernetes.io/memory-pressure"]))).await;
}

/// Docs "Admission Control in Kubernetes", ExtendedResourceToleration and LimitPodHardAntiAffinityTopology.
#[tokio::test]
async fn devices_and_wide_anti_affinity() {
    let server = with(&["ExtendedResourceToleration", "LimitPodHardAntiAffinityTopology"], json!([])).await;
    populated_namespace(&server.api, "n").await;
    let resources = json!({"limits": {"example.com/device": "1"}});
    let made =
        make(&server, "n", "p", json!({"containers": [{"name": "c", "image": "i:1", "resources": resources}]})).await.unwrap();
    let expected = json!({"key": "example.com/device", "operator": "Exists", "effect": "NoSchedule"});
    assert!(made["tolerations"].as_array().unwrap().contains(&expected), "{made}");
    let away = |key: &str| {
        let term = json!({"topologyKey": key, "labelSelector": {"matchLabels": {"a": "b"}}});
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
    };
    assert!(make(&server, "n", "q", away("kubernetes.io/hostname")).await.is_ok());
    let why = "pods \"r\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey topology.kubernetes.io/zone \
               but only key kubernetes.io/hostname is allowed";
    assert_eq!(make(&server, "n", "r", away("topology.kubernetes.io/zone")).await, refused(403, why));
}

/// Docs "Admission Control in Kubernetes", NamespaceAutoProvision: "if the referenced namespace does not exist, it creates it".
#[tokio::test]
async fn namespaces_come_with_what_is_in_them() {
    let server = with(&["NamespaceAutoProvision"], json!([])).await;
    let api = &server.api;
    let map = config_map("m");
    let dry = admin(api, &format!("POST /api/v1/namespaces/dry/configmaps?dryRun=All\n\n{map}")).await;
    assert_eq!((dry.code, admin(api, "GET /api/v1/namespaces/dry").await.code), (404, 404));
    assert_eq!(admin(api, &format!("POST /api/v1/namespaces/new/configmaps\n\n{map}")).await.code, 201);
    let made = admin(api, "GET /api/v1/namespaces/new").await.json();
    assert_eq!(made["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "new"}));
    assert_eq!((&made["spec"]["finalizers"], &made["status"]["phase"]), (&json!(["kubernetes"]), &json!("Active")));
    assert_eq!(admin(api, &format!("POST /api/v1/namespaces/new/configmaps\n\n{}", config_map("n"))).await.code, 201);
    assert_eq!(admin(api, "GET /api/v1/namespaces/none/configmaps/m").await.code, 404);
    assert_eq!(admin(api, "GET /api/v1/namespaces/none").await.code, 404);
    let wrong = admin(api, &format!("POST /api/v1/namespaces/Wrong_/configmaps\n\n{map}")).await;
    assert!((400..500).contains(&wrong.code), "{:?}", wrong.body);
}

/// Docs "Admission Control in Kubernetes", OwnerReferencesPermissionEnforcement: "only users with delete permission to the object can change it",
/// and "only users with update permission to the finalizers subresource of the referenced owner can change" blockOwnerDeletion.
#[tokio::test]
async fn owners_are_given_by_who_may_delete() {
    let server = with(&["OwnerReferencesPermissionEnforcement"], json!([])).await;
    let api = &server.api;
    namespace(api, "n").await;
    let rule = |resources: &[&str], verbs: &[&str]| json!({"apiGroups": [""], "resources": resources, "verbs": verbs});
    let write = rule(&["configmaps"], &["get", "create", "patch"]);
    let path = "/api/v1/namespaces/n/configmaps";
    grant(api, "writer", json!([write]), &format!("GET {path}/m")).await;
    grant(api, "deleter", json!([write, rule(&["configmaps"], &["delete"])]), &format!("GET {path}/m")).await;
    let finalizers = rule(&["configmaps/finalizers", "nodes/finalizers"], &["update"]);
    grant(api, "blocker", json!([write, rule(&["configmaps"], &["delete"]), finalizers]), &format!("GET {path}/m")).await;
    let owner = |kind: &str, name: &str, blocks: bool| json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": format!("{name}-uid"), "blockOwnerDeletion": blocks});
    let patch = async |user: &str, owners: Value| {
        let body = json!({"metadata": {"ownerReferences": owners}});
        let head = format!("PATCH {path}/m\ncontent-type: application/merge-patch+json");
        let answer = ask(api, user, &format!("{head}\n\n{body}")).await;
        if answer.code == 200 { Ok(()) } else { Err((json!(answer.code), answer.json()["message"].clone())) }
    };
    // Whoever creates says who owns it.
    let mut map = config_map("m");
    map["metadata"]["ownerReferences"] = json!([owner("ConfigMap", "a", false)]);
    assert_eq!(ask(api, "writer", &format!("POST {path}\n\n{map}")).await.code, 201);
    map["metadata"] = json!({"name": "blocking", "ownerReferences": [owner("ConfigMap", "a", true)]});
    let forbidden = |name: &str, why: &str| format!("configmaps {name:?} is forbidden: {why}");
    let cannot_block =
        "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>";
    let answer = ask(api, "deleter", &format!("POST {path}\n\n{map}")).await.json();
    assert_eq!((&answer["code"], &answer["message"]), (&json!(403), &json!(forbidden("blocking", cannot_block))));
    assert_eq!(ask(api, "blocker", &format!("POST {path}\n\n{map}")).await.code, 201);

    let cannot = forbidden("m", "cannot set an ownerRef on a resource you can't delete: , <nil>");
    assert_eq!(patch("writer", json!([owner("ConfigMap", "a", false)])).await, Ok(()));
    assert_eq!(patch("writer", json!([])).await, refused(403, &cannot));
    assert_eq!(patch("writer", json!([owner("ConfigMap", "b", false)])).await, refused(403, &cannot));
    assert_eq!(patch("deleter", json!([owner("ConfigMap", "b", false)])).await, Ok(()));
    let cannot_block = forbidden("m", cannot_block);
    assert_eq!(patch("deleter", json!([owner("ConfigMap", "b", true)])).await, refused(403, &cannot_block));
    assert_eq!(patch("blocker", json!([owner("ConfigMap", "b", true)])).await, Ok(()));
    // What blocks already goes on to.
    assert_eq!(patch("deleter", json!([owner("ConfigMap", "b", true), owner("Node", "c", false)])).await, Ok(()));
    assert_eq!(patch("blocker", json!([owner("Node", "c", true)])).await, Ok(()));
    assert_eq!(patch("blocker", json!([owner("Pod", "d", true)])).await, refused(403, &cannot_block));
    let unknown = "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion v1 Kind Nothing: \
                   no matches for kind \"Nothing\" in version \"v1\"";
    assert_eq!(patch("blocker", json!([owner("Nothing", "e", true)])).await, refused(403, &forbidden("m", unknown)));
    assert_eq!(patch("admin", json!([owner("Nothing", "e", true)])).await, Ok(()));
}

/// Without being asked for they change nothing, and a name that nobody knows is refused.
#[tokio::test]
async fn are_off_by_themselves() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let made = admin(api, &format!("POST /api/v1/namespaces/n/pods\n\n{}", pod("p"))).await.json();
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(admin(api, &format!("POST /api/v1/namespaces/n/services\n\n{}", service("s", &["192.0.2.1"]))).await.code, 201);
}

/// Docs "Resource Quotas", "Limit Priority Class consumption by default": pods of a class need a quota that covers it.
#[tokio::test]
async fn what_is_limited_needs_a_quota() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("admission.yaml");
    let scope = json!({"scopeName": "PriorityClass", "operator": "In", "values": ["system-cluster-critical"]});
    let limits = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "ResourceQuotaConfiguration",
        "limitedResources": [{"resource": "pods", "matchScopes": [scope]}, {"resource": "secrets", "matchContains": ["secrets"]}]});
    let configuration = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [{"name": "ResourceQuota", "configuration": limits}]});
    std::fs::write(&file, configuration.to_string()).unwrap();
    let server = start_with(|options| options.admission = Some(file)).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let mut critical = pod("p");
    critical["spec"]["priorityClassName"] = json!("system-cluster-critical");
    let create = async |plural: &str, object: &Value| {
        let made = admin(api, &format!("POST /api/v1/namespaces/n/{plural}\n\n{object}")).await;
        (made.code, made.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    let why = "insufficient quota to match these scopes: [{PriorityClass In [system-cluster-critical]}]";
    assert_eq!(create("pods", &critical).await, (500, why.to_owned()));
    assert_eq!(create("pods", &pod("plain")).await.0, 201);
    let secret = json!({"metadata": {"name": "s"}});
    let why = "secrets \"s\" is forbidden: insufficient quota to consume: count/secrets,secrets";
    assert_eq!(create("secrets", &secret).await, (403, why.to_owned()));
    let mut quota =
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [scope]}}});
    assert_eq!(create("resourcequotas", &quota).await.0, 201);
    quota["status"] = json!({"hard": {"pods": "1"}, "used": {"pods": "0"}});
    assert_eq!(admin(api, &format!("PUT /api/v1/namespaces/n/resourcequotas/q/status\n\n{quota}")).await.code, 200);
    assert_eq!(create("pods", &critical).await.0, 201);
    critical["metadata"]["name"] = json!("second");
    assert_eq!(create("pods", &critical).await.0, 403);
}
