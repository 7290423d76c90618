//! Definitions that want what others have: built-in kinds, other definitions, APIServices.

use super::*;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// A definition of `PLURAL.GROUP`.
fn in_group(group: &str, plural: &str, kind: &str) -> Value {
    let mut definition = definition(plural, kind, json!({"type": "object", OPEN: true}));
    definition["metadata"]["name"] = format!("{plural}.{group}").into();
    definition["spec"]["group"] = group.into();
    definition
}

/// `TYPE=STATUS REASON: MESSAGE`.
fn told(definition: &Value, kind: &str) -> String {
    let all = definition["status"]["conditions"].as_array().into_iter().flatten();
    let Some(found) = all.into_iter().find(|one| one["type"] == kind) else { return format!("no {kind}") };
    let text = |key: &str| found[key].as_str().unwrap();
    format!("{kind}={} {}: {}", text("status"), text("reason"), text("message"))
}

async fn gone(api: &Api, path: &str) {
    while admin(api, &format!("GET {path}")).await.code != 404 {
        tokio::task::yield_now().await;
    }
}

/// Built-in groups are no domains or are the community's (KEP-1111: "protected groups must have approval annotation"); what is built
/// in stays what it is, and so do its objects when the definition goes.
#[tokio::test]
async fn with_kinds_of_the_program() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "ns").await;
    let refused = async |definition: &Value, expected: &str| {
        let answer = ask(api, 422, &format!("POST {DEFINITIONS}"), definition).await;
        assert!(answer["message"].as_str().unwrap().contains(expected), "{answer}");
    };
    let domain = "spec.group: Invalid value: \"apps\": should be a domain with at least one dot";
    refused(&in_group("apps", "deployments", "Deployment"), domain).await;
    let mut ingresses = in_group("networking.k8s.io", "ingresses", "Ingress");
    let annotation = "metadata.annotations[api-approved.kubernetes.io]";
    let why =
        format!("{annotation}: Required value: protected groups must have approval annotation \"api-approved.kubernetes.io\"");
    refused(&ingresses, &why).await;
    ingresses["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "yes"});
    refused(&ingresses, &format!("{annotation}: Invalid value: \"yes\"")).await;

    let path = "/apis/networking.k8s.io/v1/namespaces/ns/ingresses";
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let own = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "a"}, "spec": {"defaultBackend": backend}});
    let made = ask(api, 201, &format!("POST {path}"), &own).await;
    ingresses["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "unapproved, a test"});
    let defined = define(api, &ingresses).await;
    let bypassed = "KubernetesAPIApprovalPolicyConformant=False UnapprovedAnnotation: not approved: \"unapproved, a test\"";
    assert_eq!(told(&defined, "KubernetesAPIApprovalPolicyConformant"), bypassed);
    assert_eq!(told(&defined, "NamesAccepted"), "NamesAccepted=True NoConflicts: no conflicts found");
    // The rules are those of the program.
    let nonsense =
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "b"}, "spec": {"any": 1}});
    ask(api, 422, &format!("POST {path}"), &nonsense).await;
    let list = get(api, "/apis/networking.k8s.io/v1").await;
    assert_eq!(list["resources"].as_array().unwrap().iter().filter(|one| one["name"] == "ingresses").count(), 1);
    let name = "ingresses.networking.k8s.io";
    ask(api, 200, &format!("DELETE {DEFINITIONS}/{name}"), &Value::Null).await;
    gone(api, &format!("{DEFINITIONS}/{name}")).await;
    assert_eq!(get(api, &format!("{path}/a")).await["metadata"]["uid"], made["metadata"]["uid"]);
    // Names belong to a group: another one may call its own as the program calls pods.
    let mut pods = definition("pods", "Pod", json!({"type": "object"}));
    pods["spec"]["names"] =
        json!({"plural": "pods", "singular": "pod", "kind": "Pod", "shortNames": ["po"], "categories": ["all"]});
    define(api, &pods).await;
    assert_eq!(get(api, "/api/v1/namespaces/ns/pods").await["kind"], "PodList");
    assert_eq!(get(api, "/apis/example.com/v1/namespaces/ns/pods").await["apiVersion"], "example.com/v1");
}

/// Upstream's `naming_controller.go`: each name has its reason, the last one is told, and categories are everybody's.
#[tokio::test]
async fn with_each_other() {
    let server = serve().await;
    let api = &server.api;
    let named = |plural: &str, names: Value| {
        let mut definition = definition(plural, "X", json!({"type": "object"}));
        let own = json!({"plural": plural, "singular": format!("own{plural}"), "kind": format!("Own{plural}"), "categories": ["all", "x"]});
        definition["spec"]["names"] = own;
        definition["spec"]["names"].as_object_mut().unwrap().extend(names.as_object().unwrap().clone());
        definition
    };
    let first = named("firsts", json!({"singular": "first", "kind": "First", "listKind": "Firsts", "shortNames": ["f", "fi"]}));
    define(api, &first).await;
    let check = async |plural: &str, names: Value, expected: &str, field: &str| {
        ask(api, 201, &format!("POST {DEFINITIONS}"), &named(plural, names)).await;
        let name = json!(format!("{plural}.example.com"));
        let found = until(api, &name, |object| !condition(object, "NamesAccepted").is_empty()).await;
        assert_eq!(told(&found, "NamesAccepted"), format!("NamesAccepted=False {expected} already in use"));
        assert_eq!(told(&found, "Established"), "Established=False NotAccepted: not all names are accepted");
        // A name that a definition must have is empty meanwhile.
        let accepted = &found["status"]["acceptedNames"];
        let got = accepted[field].as_str().filter(|name| !name.is_empty()).or(accepted[field].as_array().map(|_| "a list"));
        assert_eq!((got, &accepted["categories"]), (None, &json!(["all", "x"])));
        assert_eq!(admin(api, &format!("GET /apis/example.com/v1/{plural}")).await.code, 404);
    };
    check("as", json!({"singular": "firsts"}), "SingularConflict: \"firsts\" is", "singular").await;
    check("bs", json!({"shortNames": ["b", "f"]}), "ShortNamesConflict: \"f\" is", "shortNames").await;
    check("cs", json!({"kind": "Firsts", "listKind": "CList"}), "KindConflict: \"Firsts\" is", "kind").await;
    check("ds", json!({"listKind": "First"}), "ListKindConflict: \"First\" is", "listKind").await;
    check("f", json!({}), "PluralConflict: \"f\" is", "plural").await;
    check("es", json!({"kind": "First", "listKind": "Firsts"}), "ListKindConflict: \"Firsts\" is", "kind").await;

    // One that is served keeps its names when it asks for one that is taken, and gets it once that is free.
    define(api, &named("lasts", json!({"shortNames": ["l"]}))).await;
    let short = async |plural: &str, names: Value| {
        let request = format!("PATCH {DEFINITIONS}/{plural}.example.com\ncontent-type: application/merge-patch+json");
        ask(api, 200, &request, &json!({"spec": {"names": {"shortNames": names}}})).await;
    };
    short("lasts", json!(["l", "fi"])).await;
    let last = json!("lasts.example.com");
    let found = until(api, &last, |object| condition(object, "NamesAccepted") == "False").await;
    assert_eq!((&found["status"]["acceptedNames"]["shortNames"], condition(&found, "Established")), (&json!(["l"]), "True"));
    assert_eq!(get(api, "/apis/example.com/v1/lasts").await["kind"], "OwnlastsList");
    short("firsts", json!(["f"])).await;
    let found = until(api, &last, |object| condition(object, "NamesAccepted") == "True").await;
    assert_eq!(found["status"]["acceptedNames"]["shortNames"], json!(["l", "fi"]));
}

/// Upstream's `autoregister_controller.go`: an APIService that somebody else has made stays, and comes before the definition; one that
/// is kept for a definition is put back.
#[tokio::test]
async fn with_an_api_service() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "ns").await;
    let service = json!({"namespace": "ns", "name": "nobody"});
    let spec = json!({"group": "example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 15,
        "service": service, "insecureSkipTLSVerify": true});
    let own = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.example.com"}, "spec": spec});
    ask(api, 201, &format!("POST {SERVICES}"), &own).await;
    let path = "/apis/example.com/v1/namespaces/ns/foos";
    while admin(api, &format!("GET {path}")).await.code != 503 {
        tokio::task::yield_now().await;
    }
    let defined = define(api, &definition("foos", "Foo", json!({"type": "object"}))).await;
    assert_eq!(told(&defined, "NamesAccepted"), "NamesAccepted=True NoConflicts: no conflicts found");
    assert_eq!(admin(api, &format!("GET {path}")).await.code, 503, "the other server comes first");
    assert_eq!(get(api, &format!("{SERVICES}/v1.example.com")).await["spec"]["service"]["name"], "nobody");
    // Without it the definition is served, and gets an APIService of its own.
    ask(api, 200, &format!("DELETE {SERVICES}/v1.example.com"), &Value::Null).await;
    while admin(api, &format!("GET {path}")).await.code != 200 {
        tokio::task::yield_now().await;
    }
    let kept = async || loop {
        let found = admin(api, &format!("GET {SERVICES}/v1.example.com")).await.json();
        if found["status"]["conditions"][0]["reason"] == "Local" && found["spec"]["service"].is_null() {
            break found;
        }
        tokio::task::yield_now().await;
    };
    let before = kept().await;
    assert_eq!(before["metadata"]["labels"], json!({"kube-aggregator.kubernetes.io/automanaged": "true"}));
    let request = format!("PATCH {SERVICES}/v1.example.com\ncontent-type: application/merge-patch+json");
    ask(api, 200, &request, &json!({"spec": {"service": service, "groupPriorityMinimum": 5, "insecureSkipTLSVerify": true}}))
        .await;
    assert_eq!(kept().await["spec"], before["spec"]);
    while admin(api, &format!("GET {path}")).await.code != 200 {
        tokio::task::yield_now().await;
    }
}
