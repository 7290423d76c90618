//! The API as clients see it: requests in, answers out, over the embedded store in a temporary directory.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use apiserver::{Api, Body, Options, Service};
use base::readiness::Readiness;
use base::tasks::{Failures, Tasks};
use base::tls::Authority;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use registry::User;
use serde_json::{Value, json};
use tower::Service as _;

struct Server {
    api: Api,
    tasks: Tasks,
    authority: Arc<Authority>,
    service: Option<Service>,
    _failures: Failures,
    _dir: tempfile::TempDir,
}

async fn start() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let (tasks, failures) = Tasks::root();
    let store = store::Options { reserve: 0, ..store::Options::new(dir.path().join("db")) };
    let engine = Arc::new(store::Fjall::open(store, &tasks).await.unwrap());
    let authority = Arc::new(Authority::in_memory("test-ca").unwrap());
    let options = Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        pki: dir.path().join("pki"),
        names: Vec::new(),
        advertised: "10.0.0.1:6443".parse().unwrap(),
        public_address: "127.0.0.1:6443".into(),
        domain: "cluster.local".into(),
        issuer: "https://kubernetes.default.svc.cluster.local".into(),
        anonymous: true,
        build: apiserver::Build::default(),
        registry: registry::Options { service_cidr: ("10.43.0.0".parse().unwrap(), 16), node_ports: 30000..=32767, tokens: None },
    };
    let service = Service::new(engine, authority.clone(), options, Readiness::default(), &tasks).await.unwrap();
    let api = service.handle().unwrap().api;
    Server { api, tasks, authority, service: Some(service), _failures: failures, _dir: dir }
}

struct Answer {
    code: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }
}

/// `GET /path` with headers `Name: value` below, then an empty line and the body.
async fn ask(api: &Api, user: &str, request: &str) -> Answer {
    let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
    let mut lines = head.lines();
    let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
    let mut builder = Request::builder().method(method).uri(path);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        builder = builder.header(name, value);
    }
    let request = builder.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let response = match user {
        "" => api.clone().call(request).await.unwrap(),
        user => {
            let groups = if user == "admin" { vec!["system:masters".into()] } else { Vec::new() };
            api.as_user(User { name: user.into(), groups, ..User::default() }).call(request).await.unwrap()
        }
    };
    let (parts, body): (_, Body) = response.into_parts();
    Answer { code: parts.status.as_u16(), headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
}

async fn admin(api: &Api, request: &str) -> Answer {
    ask(api, "admin", request).await
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

async fn namespace(api: &Api, name: &str) {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let made = admin(api, &format!("POST /api/v1/namespaces\n\n{body}")).await;
    assert_eq!(made.code, 201, "{:?}", made.body);
}

#[tokio::test]
async fn objects() {
    let server = start().await;
    let api = &server.api;
    namespace(api, "n").await;
    let path = "/api/v1/namespaces/n/configmaps";
    let made = admin(api, &format!("POST {path}\n\n{}", config_map("m"))).await;
    assert_eq!((made.code, made.json()["metadata"]["name"].as_str()), (201, Some("m")));
    let again = admin(api, &format!("POST {path}\n\n{}", config_map("m"))).await;
    assert_eq!((again.code, again.json()["reason"].as_str()), (409, Some("AlreadyExists")));
    let got = admin(api, &format!("GET {path}/m")).await;
    assert_eq!((got.code, got.json()), (200, made.json()));
    let list = admin(api, &format!("GET {path}")).await.json();
    assert_eq!((list["kind"].as_str(), list["items"].as_array().map(Vec::len)), (Some("ConfigMapList"), Some(1)));
    let patched =
        admin(api, &format!("PATCH {path}/m\ncontent-type: application/merge-patch+json\n\n{{\"data\":{{\"a\":\"c\"}}}}")).await;
    assert_eq!((patched.code, &patched.json()["data"]["a"]), (200, &json!("c")), "{:?}", patched.body);
    let deleted = admin(api, &format!("DELETE {path}/m")).await;
    assert_eq!((deleted.code, &deleted.json()["status"]), (200, &json!("Success")));
    assert_eq!(admin(api, &format!("GET {path}/m")).await.code, 404);
}

#[tokio::test]
async fn shapes() {
    let server = start().await;
    let api = &server.api;
    namespace(api, "n").await;
    let path = "/api/v1/namespaces/n/configmaps";
    admin(api, &format!("POST {path}\ncontent-type: application/yaml\n\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{a: b}}\n")).await;
    let table =
        admin(api, &format!("GET {path}\naccept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json")).await.json();
    assert_eq!(
        (&table["kind"], &table["rows"][0]["cells"][0], &table["rows"][0]["object"]["kind"]),
        (&json!("Table"), &json!("m"), &json!("PartialObjectMetadata"))
    );
    let partial =
        admin(api, &format!("GET {path}/m\naccept: application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")).await.json();
    assert_eq!((&partial["kind"], partial.get("data")), (&json!("PartialObjectMetadata"), None));
    let yaml = admin(api, &format!("GET {path}/m\naccept: application/yaml")).await;
    assert!(yaml.body.windows(5).any(|w| w == b"a: b\n"), "{:?}", yaml.body);
    let protobuf = admin(api, &format!("GET {path}/m\naccept: application/vnd.kubernetes.protobuf")).await;
    assert!(protobuf.body.starts_with(b"k8s\0"));
    let list = admin(api, &format!("GET {path}\naccept: application/vnd.kubernetes.protobuf")).await;
    assert!(list.body.starts_with(b"k8s\0"), "{:?}", list.body);
    let watch = admin(
        api,
        &format!(
            "GET {path}?watch=1&timeoutSeconds=1&resourceVersion=0\naccept: application/vnd.kubernetes.protobuf;stream=watch"
        ),
    )
    .await;
    let length = u32::from_be_bytes(watch.body[..4].try_into().unwrap()) as usize;
    assert_eq!(
        (watch.body.len(), watch.headers["content-type"].to_str().unwrap()),
        (length + 4, "application/vnd.kubernetes.protobuf;stream=watch")
    );
    // A timeout that no clock reaches is none.
    let forever = Request::get(format!("{path}?watch=1&timeoutSeconds={}", i64::MAX)).body(Full::<Bytes>::default()).unwrap();
    let masters = User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() };
    assert_eq!(api.as_user(masters).call(forever).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn refusals() {
    let server = start().await;
    let api = &server.api;
    let check = async |user: &str, request: &str, code: u16, message: &str| {
        let answer = ask(api, user, request).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.code, code, "{request}: {text}");
        let got = serde_json::from_str::<Value>(&text).map(|status| status["message"].as_str().unwrap_or_default().to_owned());
        assert!(got.unwrap_or(text.clone()).contains(message), "{request}: {text}");
    };
    let forbidden = r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#;
    check("jane", "GET /api/v1/namespaces/default/pods", 403, forbidden).await;
    let anonymous = r#"forbidden: User "system:anonymous" cannot get path "/api""#;
    check("", "GET /api", 403, anonymous).await;
    check("", "GET /api\nauthorization: Bearer nonsense", 401, "Unauthorized").await;
    check("", "GET /livez", 200, "").await;
    check("admin", "GET /api/v1/nothings", 404, "the server could not find the requested resource").await;
    check("admin", "GET /apis/none.example.com/v1/things", 404, "404 page not found").await;
    check("admin", "GET /nothing", 404, "404 page not found").await;
    check("admin", "PUT /api/v1/namespaces/default/configmaps\n\n{}", 405, "the server does not allow this method").await;
    check("admin", "GET /api/v1/pods\naccept: text/html", 406, "only the following media types are accepted").await;
    check(
        "admin",
        "POST /api/v1/namespaces\ncontent-type: application/cbor\n\nx",
        415,
        "the body of the request was in an unknown format",
    )
    .await;
    check("admin", "PATCH /api/v1/namespaces/default\ncontent-type: text/plain\n\n{}", 415, "application/apply-patch+yaml").await;
    check("admin", "POST /api/v1/namespaces\n\n{", 400, "json parse error").await;
    check("admin", "GET /api/v1/pods?limit=x", 400, "invalid syntax").await;
    let large = format!("POST /api/v1/namespaces\n\n{}", "x".repeat((3 << 20) + 1));
    check("admin", &large, 413, "Request entity too large").await;
    check("admin", "GET /api/v1/namespaces/default/pods/p/log", 404, r#"pods "p" not found"#).await;
}

#[tokio::test]
async fn discovery() {
    let server = start().await;
    let api = &server.api;
    let core = admin(api, "GET /api/v1").await.json();
    let names: Vec<&str> = core["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    assert!(names.contains(&"pods") && names.contains(&"pods/exec") && names.contains(&"namespaces/finalize"), "{names:?}");
    let groups = admin(api, "GET /apis").await.json();
    assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["preferredVersion"]["groupVersion"] == "apps/v1"));
    let v2 =
        admin(api, "GET /apis\naccept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")
            .await;
    assert!(v2.headers["content-type"].to_str().unwrap().contains("as=APIGroupDiscoveryList"));
    assert_eq!(v2.json()["kind"], "APIGroupDiscoveryList");
    let tag = v2.headers["etag"].to_str().unwrap();
    let same = admin(
        api,
        &format!("GET /apis\naccept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList\nif-none-match: {tag}"),
    )
    .await;
    assert_eq!(same.code, 304);
    assert_eq!(admin(api, "GET /version").await.json()["minor"], "36");
    let index = admin(api, "GET /openapi/v3").await.json();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = admin(api, &format!("GET {url}")).await.json();
    assert!(document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"].is_object());
    assert!(document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let v2 = admin(api, "GET /openapi/v2\naccept: application/json").await.json();
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    let protobuf = admin(api, "GET /openapi/v2\naccept: application/com.github.proto-openapi.spec.v2@v1.0+protobuf").await;
    assert!(protobuf.body.starts_with(b"\x0a\x032.0\x12"), "{:?}", &protobuf.body[..16]);
    let keys = admin(api, "GET /openid/v1/jwks").await.json();
    assert_eq!(keys["keys"][0]["alg"], "ES256");
    assert!(String::from_utf8_lossy(&admin(api, "GET /metrics").await.body).contains("apiserver_request_total"));
}

#[tokio::test]
async fn tokens_and_reviews() {
    let server = start().await;
    let api = &server.api;
    namespace(api, "n").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}});
    admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts\n\n{account}")).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let issued = admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts/a/token\n\n{request}")).await;
    assert_eq!(issued.code, 201, "{:?}", issued.body);
    let token = issued.json()["status"]["token"].as_str().unwrap().to_owned();
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let me = ask(
        api,
        "",
        &format!("POST /apis/authentication.k8s.io/v1/selfsubjectreviews\nauthorization: Bearer {token}\n\n{review}"),
    )
    .await;
    assert_eq!(me.json()["status"]["userInfo"]["username"], "system:serviceaccount:n:a", "{:?}", me.body);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let reviewed = admin(api, &format!("POST /apis/authentication.k8s.io/v1/tokenreviews\n\n{review}")).await.json();
    assert_eq!(reviewed["status"]["authenticated"], true);
    let may = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "jane", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "n"}}});
    let may = admin(api, &format!("POST /apis/authorization.k8s.io/v1/subjectaccessreviews\n\n{may}")).await.json();
    assert_eq!(may["status"]["allowed"], false);
    let impersonated = admin(api, "GET /api/v1/namespaces/n/pods\nimpersonate-user: jane").await;
    assert_eq!(impersonated.code, 403);
    assert_eq!(admin(api, "DELETE /api/v1/namespaces/n/serviceaccounts/a").await.code, 200);
    assert_eq!(ask(api, "", &format!("GET /api\nauthorization: Bearer {token}")).await.code, 401, "the account is gone");
}

#[tokio::test]
async fn roles_apply_and_do_not_escalate() {
    let mut server = start().await;
    let service = server.service.take().unwrap();
    let (api, tasks) = (server.api.clone(), server.tasks.clone());
    server.tasks.spawn("apiserver", base::tasks::OnFailure::Log, async move { service.run(tasks).await });
    namespace(&api, "n").await;
    let role = |name: &str, verbs: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name},
        "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["configmaps"]}]})
    };
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/n";
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"}, "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]});
    let bound = admin(&api, &format!("POST {path}/rolebindings\n\n{binding}")).await;
    assert_eq!(bound.code, 201, "{:?}", bound.body);
    // The index follows the commit; how soon is not promised.
    while ask(&api, "jane", "GET /api/v1/namespaces/n/configmaps").await.code != 200 {
        tokio::task::yield_now().await;
    }
    let good = ask(&api, "jane", &format!("POST {path}/roles\n\n{}", role("r", json!(["get"])))).await;
    assert_eq!(good.code, 201, "{:?}", good.body);
    let bad = ask(&api, "jane", &format!("POST {path}/roles\n\n{}", role("s", json!(["*"])))).await;
    let message = bad.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains(
            r#"user "jane" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held"#
        ),
        "{message}"
    );
    assert!(message.contains(r#"{APIGroups:[""], Resources:["configmaps"], Verbs:["*"]}"#), "{message}");
    assert!(server.tasks.drain(std::time::Duration::from_secs(10)).await);
}

#[tokio::test]
async fn admission() {
    let server = start().await;
    let api = &server.api;
    namespace(api, "n").await;
    let spec = json!({"containers": [{"name": "c", "image": "i"}], "priorityClassName": "system-node-critical"});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
    let refused = admin(api, &format!("POST /api/v1/namespaces/n/pods\n\n{pod}")).await;
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("error looking up service account n/default"), "{message}");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts\n\n{account}")).await;
    let made = admin(api, &format!("POST /api/v1/namespaces/n/pods\n\n{pod}")).await;
    let spec = &made.json()["spec"];
    assert_eq!(
        (made.code, &spec["priority"], &spec["serviceAccountName"]),
        (201, &json!(2_000_001_000), &json!("default")),
        "{:?}",
        made.body
    );
    assert!(spec["volumes"][0]["name"].as_str().unwrap().starts_with("kube-api-access-"));
    assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(2));
    let missing = admin(api, &format!("POST /api/v1/namespaces/none/configmaps\n\n{}", config_map("m"))).await;
    assert_eq!((missing.code, missing.json()["message"].as_str()), (404, Some("namespaces \"none\" not found")));
    let kept = admin(api, "DELETE /api/v1/namespaces/kube-system").await;
    assert_eq!(
        (kept.code, kept.json()["message"].as_str()),
        (403, Some("namespaces \"kube-system\" is forbidden: this namespace may not be deleted"))
    );
    assert_eq!(admin(api, "GET /api/v1/namespaces/default/services/kubernetes").await.json()["spec"]["clusterIP"], "10.43.0.1");
}

#[tokio::test]
async fn over_tls() {
    let mut server = start().await;
    let service = server.service.take().unwrap();
    let address = service.handle().unwrap().address;
    let tasks = server.tasks.clone();
    server.tasks.spawn("apiserver", base::tasks::OnFailure::Log, async move { service.run(tasks).await });
    let check = async |identity: Option<(&Arc<Authority>, &str)>, path: &str, code: u16| {
        let resolver = identity.map(|(authority, group)| {
            let request = base::tls::Request::Client { user: "u".into(), groups: vec![group.into()] };
            base::tls::Resolver::memory(authority.clone(), request).unwrap()
        });
        let config = base::tls::client(server.authority.bundle(), resolver).unwrap();
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        let request = Request::get(path).header("host", "localhost").body(Full::new(Bytes::new())).unwrap();
        let answer = async {
            let code = sender.send_request(request).await.unwrap().status();
            drop(sender);
            code
        };
        let (got, _) = tokio::join!(answer, connection);
        assert_eq!(got, StatusCode::from_u16(code).unwrap(), "{path}");
    };
    let stranger = Arc::new(Authority::in_memory("test-ca").unwrap());
    check(None, "/readyz", 200).await;
    check(None, "/api/v1/nodes", 403).await;
    check(Some((&server.authority, "system:masters")), "/api/v1/nodes", 200).await;
    check(Some((&server.authority, "nobody")), "/api/v1/nodes", 403).await;
    check(Some((&stranger, "system:masters")), "/api/v1/nodes", 401).await;
    assert!(server.tasks.drain(std::time::Duration::from_secs(10)).await);
}

/// Binds rules to a user in the whole cluster, and waits until they apply.
async fn grant(api: &Api, user: &str, rules: Value, until: &str) {
    let path = "/apis/rbac.authorization.k8s.io/v1";
    let role =
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": user}, "rules": rules});
    assert_eq!(admin(api, &format!("POST {path}/clusterroles\n\n{role}")).await.code, 201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}]});
    assert_eq!(admin(api, &format!("POST {path}/clusterrolebindings\n\n{binding}")).await.code, 201);
    while ask(api, user, until).await.code == 403 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn other_verbs_do_not_create_or_escalate() {
    let mut server = start().await;
    let service = server.service.take().unwrap();
    let (api, tasks) = (server.api.clone(), server.tasks.clone());
    server.tasks.spawn("apiserver", base::tasks::OnFailure::Log, async move { service.run(tasks).await });
    namespace(&api, "n").await;
    let rbac = "rbac.authorization.k8s.io";
    let write = json!([
        {"verbs": ["get", "update", "patch"], "apiGroups": ["", "coordination.k8s.io", rbac], "resources": ["configmaps", "leases", "clusterroles"]},
    ]);
    grant(&api, "jane", write, "GET /api/v1/namespaces/n/configmaps/none").await;
    let check = async |request: String, code: u16| {
        let answer = ask(&api, "jane", &request).await;
        assert_eq!(answer.code, code, "{request}: {:?}", answer.body);
    };
    // Apply and PUT create what is missing, for those who may create it.
    let apply = "fieldManager=m\ncontent-type: application/apply-patch+yaml";
    let maps = "/api/v1/namespaces/n/configmaps";
    check(format!("PATCH {maps}/m?{apply}\n\n{}", config_map("m")), 403).await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/n/leases";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}});
    check(format!("PUT {leases}/l\n\n{lease}"), 403).await;
    let lease = admin(&api, &format!("PUT {leases}/l\n\n{lease}")).await;
    assert_eq!((lease.code, &lease.json()["metadata"]["name"]), (201, &json!("l")));
    let lease = lease.json();
    assert_eq!(admin(&api, &format!("PATCH {maps}/m?{apply}\n\n{}", config_map("m"))).await.code, 201);
    check(format!("PATCH {maps}/m?force=true&{apply}\n\n{}", config_map("m")), 200).await;
    check(format!("PUT {leases}/l\n\n{lease}"), 200).await;
    // A label would make the rules of a role part of another one.
    let roles = format!("/apis/{rbac}/v1/clusterroles");
    let label = format!(r#"{{"metadata":{{"labels":{{"{rbac}/aggregate-to-view":"true"}}}}}}"#);
    check(format!("PATCH {roles}/cluster-admin\ncontent-type: application/merge-patch+json\n\n{label}"), 403).await;
    let finalizer = r#"{"metadata":{"finalizers":["example.com/x"]}}"#;
    check(format!("PATCH {roles}/cluster-admin\ncontent-type: application/merge-patch+json\n\n{finalizer}"), 200).await;
}

#[tokio::test]
async fn hostile_requests_do_no_harm() {
    use base64::Engine as _;
    let server = start().await;
    let api = &server.api;
    namespace(api, "n").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts\n\n{account}")).await;
    for (plural, object) in [
        ("configmaps", config_map("m")),
        (
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "x", "containers": [{"name": "c", "image": "i"}]}}),
        ),
    ] {
        let made = admin(api, &format!("POST /api/v1/namespaces/n/{plural}\n\n{object}")).await;
        assert_eq!(made.code, 201, "{:?}", made.body);
    }
    let check = async |request: &str| {
        let answer = admin(api, request).await;
        let shown: String = request.chars().take(200).collect();
        assert!(answer.code < 500, "{shown}: {} {:?}", answer.code, answer.body);
    };
    for path in [
        "//api//v1//pods",
        "/api/v1/../../metrics",
        "/livez/../metrics",
        "/api/v1/namespaces/n/configmaps/..%2f..%2fm",
        "/api/v1/namespaces/n/configmaps/m/../../secrets",
        "/api/v1/namespaces/%2e%2e/configmaps/m",
        "/api/v1/namespaces/n%2fconfigmaps/m/x",
        "/api/v1/namespaces/n/configmaps/m%00",
        "/api/v1/namespaces/n/configmaps/%ff%fe",
        "/api/v1/namespaces/n/pods/p/log?container=%00",
        "/api/v1/namespaces/n/pods/p:99999999/proxy/",
        "/api/v1/namespaces/n/services/https:x:y:z/proxy/",
        "/api/v1/pods?limit=99999999999999999999",
        "/api/v1/pods?resourceVersion=-1",
        "/api/v1/pods?resourceVersion=x&watch=1",
        "/api/v1/pods?labelSelector=((((",
        "/api/v1/pods?fieldSelector=a=b",
        "/api/v1/pods?continue=%00",
        "/api/v1/pods?sendInitialEvents=true",
    ] {
        check(&format!("GET {path}")).await;
    }
    check(&format!("GET /api/v1/namespaces/n/configmaps/{}", "a".repeat(60_000))).await;
    let token = |rv: i64, start: &str| {
        let text = json!({"v": "meta.k8s.io/v1", "rv": rv, "start": start}).to_string();
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    // A forged token gives nothing of other namespaces.
    for (rv, start) in [(1, ""), (1, "zzz"), (-1, "a"), (-9, "n/"), (i64::MAX, "n"), (3, "../x"), (3, "\0")] {
        let list = admin(api, &format!("GET /api/v1/namespaces/kube-system/configmaps?continue={}", token(rv, start))).await;
        // One from the future is answered as any version that is too large.
        let refused = list.code < 500 || (list.code == 504 && rv == i64::MAX);
        assert!(refused && !String::from_utf8_lossy(&list.body).contains("\"m\""), "{rv} {start}: {:?}", list.body);
    }
    let bodies = [
        "",
        "null",
        "[]",
        "\"x\"",
        "1",
        "{",
        "{\"metadata\":[]}",
        "{\"metadata\":{\"name\":5}}",
        "{\"data\":{\"a\":1e400}}",
        "\u{0}",
    ];
    for body in bodies {
        check(&format!("POST /api/v1/namespaces/n/configmaps\n\n{body}")).await;
        check(&format!("PUT /api/v1/namespaces/n/configmaps/m\n\n{body}")).await;
        check(&format!("POST /api/v1/namespaces/n/configmaps\ncontent-type: application/vnd.kubernetes.protobuf\n\nk8s\0{body}"))
            .await;
        check(&format!(
            "PATCH /api/v1/namespaces/n/configmaps/m?fieldManager=a\ncontent-type: application/apply-patch+yaml\n\n{body}"
        ))
        .await;
        check(&format!("PATCH /api/v1/namespaces/n/configmaps/m\ncontent-type: application/json-patch+json\n\n[{body}]")).await;
    }
    for (kind, body) in [
        ("json-patch", r#"[{"op":"remove","path":"/metadata"}]"#),
        ("json-patch", r#"[{"op":"replace","path":"","value":1}]"#),
        ("json-patch", r#"[{"op":"replace","path":"/metadata/name","value":{}}]"#),
        ("merge-patch", r#"{"metadata":[]}"#),
        ("merge-patch", r#"{"metadata":{"name":null}}"#),
        ("merge-patch", r#"{"kind":"Secret"}"#),
        ("strategic-merge-patch", r#"{"metadata":{"finalizers":{"$patch":"replace"}}}"#),
        ("strategic-merge-patch", r#"{"data":[{"$patch":"delete"}]}"#),
    ] {
        check(&format!("PATCH /api/v1/namespaces/n/configmaps/m\ncontent-type: application/{kind}+json\n\n{body}")).await;
    }
    check("DELETE /api/v1/namespaces/n/configmaps/m\n\n{\"preconditions\":{\"uid\":\"5\"}}").await;
    assert_eq!(admin(api, "DELETE /api/v1/namespaces/n/configmaps/m\n\n[]").await.code, 400);
    // Seconds beyond the calendar.
    let deleted = admin(api, "DELETE /api/v1/namespaces/n/pods/p?gracePeriodSeconds=9223372036854775807").await;
    assert_eq!(deleted.code, 200, "{:?}", deleted.body);
    let watch = "GET /api/v1/namespaces/n/pods?watch=1&resourceVersion=0&timeoutSeconds=1";
    assert_eq!(admin(api, watch).await.code, 200);
    assert_eq!(admin(api, "GET /api/v1/namespaces/n/configmaps/m").await.code, 200);
}

#[tokio::test]
async fn tokens_end_with_what_they_are_bound_to() {
    let server = start().await;
    let api = &server.api;
    namespace(api, "n").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let make = async |plural: &str, object: &Value| {
        let made = admin(api, &format!("POST /api/v1/namespaces/n/{plural}\n\n{object}")).await;
        assert_eq!(made.code, 201, "{:?}", made.body);
    };
    let request = async |spec: Value, code: u16| {
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let issued = admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts/default/token\n\n{request}")).await;
        assert_eq!(issued.code, code, "{:?}", issued.body);
        issued.json()["status"]["token"].as_str().unwrap_or_default().to_owned()
    };
    let check = async |token: &str, code: u16| {
        assert_eq!(ask(api, "", &format!("GET /api\nauthorization: Bearer {token}")).await.code, code);
    };
    make("serviceaccounts", &account).await;
    for (kind, plural, object) in [("Pod", "pods", &pod), ("Secret", "secrets", &secret)] {
        make(plural, object).await;
        let name = object["metadata"]["name"].as_str().unwrap();
        let token = request(json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name}}), 201).await;
        check(&token, 200).await;
        // Another one of the same name is not the same.
        assert_eq!(admin(api, &format!("DELETE /api/v1/namespaces/n/{plural}/{name}?gracePeriodSeconds=0")).await.code, 200);
        check(&token, 401).await;
        make(plural, object).await;
        check(&token, 401).await;
    }
    let account_token = request(json!({}), 201).await;
    check(&account_token, 200).await;
    check(&request(json!({"audiences": ["vault"]}), 201).await, 401).await;
    request(json!({"expirationSeconds": 599}), 422).await;
    request(json!({"expirationSeconds": (1_i64 << 32) + 1}), 422).await;
    request(json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "other"}}), 409).await;
    request(json!({"boundObjectRef": {"kind": "ConfigMap", "apiVersion": "v1", "name": "m"}}), 400).await;
    assert_eq!(admin(api, "DELETE /api/v1/namespaces/n/serviceaccounts/default").await.code, 200);
    make("serviceaccounts", &account).await;
    check(&account_token, 401).await;
}
