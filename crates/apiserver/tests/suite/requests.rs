//! The API as clients see it: requests in, answers out.

use std::sync::Arc;

use base::tls::Authority;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use registry::User;
use serde_json::{Value, json};
use tower::Service as _;

use crate::server::{admin, ask, config_map, namespace, serve_with, start};

#[tokio::test]
async fn objects() {
    let server = start(true).await;
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

/// Options of a deletion that cannot be read may be what keeps the object: nothing goes.
#[tokio::test]
async fn deletions_that_cannot_be_read() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let path = "/api/v1/namespaces/n/configmaps";
    admin(api, &format!("POST {path}\n\n{}", config_map("m"))).await;
    let refused = async |path: &str, options: &str| {
        let answer = admin(api, &format!("DELETE {path}\n\n{options}")).await;
        assert_eq!((answer.code, answer.json()["reason"].as_str()), (400, Some("BadRequest")), "{options}");
    };
    for options in [r#"{"kind":"DeleteOptions","apiVersion":"v1","dryRun":"All"}"#, r#"{"preconditions":{"uid":5}}"#] {
        refused(&format!("{path}/m"), options).await;
        refused(path, options).await;
    }
    assert_eq!(admin(api, &format!("GET {path}/m")).await.code, 200);
    // Clients name the group that they delete in.
    let options = json!({"kind": "DeleteOptions", "apiVersion": "example.com/v1", "propagationPolicy": "Background"});
    assert_eq!(admin(api, &format!("DELETE {path}/m\n\n{options}")).await.code, 200);
}

/// Upstream's `endpointSliceStrategy.PrepareForUpdate`: labels of a slice count as what it says, annotations do not.
#[tokio::test]
async fn labels_of_a_slice_are_a_change_of_it() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let path = "/apis/discovery.k8s.io/v1/namespaces/n/endpointslices";
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": []});
    assert_eq!(admin(api, &format!("POST {path}\n\n{slice}")).await.code, 201);
    for (change, generation) in
        [(json!({"annotations": {"a": "b"}}), 1), (json!({"labels": {"a": "b"}}), 2), (json!({"labels": {"a": "b"}}), 2)]
    {
        let body = json!({"metadata": change});
        let patched = admin(api, &format!("PATCH {path}/s\ncontent-type: application/merge-patch+json\n\n{body}")).await;
        assert_eq!(patched.json()["metadata"]["generation"], generation, "{body}");
    }
}

/// Pods can be bound through the collection that is older than their sub-resource (`LegacyBindingREST`).
#[tokio::test]
async fn bindings() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    assert_eq!(admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts\n\n{account}")).await.code, 201);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(admin(api, &format!("POST /api/v1/namespaces/n/pods\n\n{pod}")).await.code, 201);
    let binding =
        |name: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"name": "node"}});
    let post = async |binding: Value| admin(api, &format!("POST /api/v1/namespaces/n/bindings\n\n{binding}")).await;
    let bound = post(binding("p")).await;
    assert_eq!((bound.code, &bound.json()["status"]), (201, &json!("Success")));
    assert_eq!(admin(api, "GET /api/v1/namespaces/n/pods/p").await.json()["spec"]["nodeName"], "node");
    assert_eq!((post(binding("p")).await.code, post(binding("q")).await.code), (409, 404));
    // KEP-3521: a pod with gates is not ready to be scheduled, whoever schedules it.
    let mut gated = pod.clone();
    gated["metadata"]["name"] = json!("gated");
    gated["spec"]["schedulingGates"] = json!([{"name": "example.com/quota"}]);
    assert_eq!(admin(api, &format!("POST /api/v1/namespaces/n/pods\n\n{gated}")).await.code, 201);
    let refused = post(binding("gated")).await;
    let why = "pod gated has non-empty .spec.schedulingGates";
    assert!(
        refused.code == 409 && refused.json()["message"].as_str().is_some_and(|said| said.ends_with(why)),
        "{:?}",
        refused.body
    );
    let listed = admin(api, "GET /api/v1").await.json();
    let listed = listed["resources"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "bindings").cloned());
    let expected =
        json!({"name": "bindings", "singularName": "binding", "namespaced": true, "kind": "Binding", "verbs": ["create"]});
    assert_eq!(listed, Some(expected));
}

/// Duplicate keys of YAML are told in the words of upstream's reader, for what is sent and for what is applied.
#[tokio::test]
async fn duplicate_keys_of_yaml() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let path = "/api/v1/namespaces/n/configmaps";
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata:\n  a: b\n  a: c\n  1: x\n  1: z\n";
    let told = ["line 6: key \"a\" already set in map", "line 8: key 1 already set in map"];
    let errors = format!("yaml: unmarshal errors:\n  {}\n  {}", told[0], told[1]);
    let create = format!("POST {path}?fieldValidation=VALIDATION\ncontent-type: application/yaml\n\n{twice}");
    let apply = format!(
        "PATCH {path}/m?fieldManager=me&force=true&fieldValidation=VALIDATION\ncontent-type: application/apply-patch+yaml\n\n{twice}"
    );
    for (request, refused) in [
        (create, "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: "),
        (apply, "error strict decoding YAML: error converting YAML to JSON: "),
    ] {
        let strict = admin(api, &request.replace("VALIDATION", "Strict")).await;
        assert_eq!((strict.code, strict.json()["message"].as_str()), (400, Some(format!("{refused}{errors}").as_str())));
        let warned = admin(api, &request.replace("VALIDATION", "Warn")).await;
        let warnings: Vec<_> = warned.headers.get_all("warning").iter().filter_map(|value| value.to_str().ok()).collect();
        let expected = told.map(|line| format!("299 - \"{}\"", line.replace('"', "\\\"")));
        assert_eq!((warned.json()["data"]["a"].as_str(), warnings), (Some("c"), expected.iter().map(String::as_str).collect()));
    }
}

/// Upstream's `GetResource` refuses `export`, which has been served once, for whatever is read by its name.
#[tokio::test]
async fn nothing_is_exported() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let export = "the export parameter, deprecated since v1.14, is no longer supported";
    for (path, refused) in [
        ("/api/v1/namespaces/n?export=true", true),
        ("/api/v1/namespaces/n/status?export=", true),
        ("/api/v1/componentstatuses/etcd-0?export=1", true),
        ("/api/v1/namespaces/n?export=false", false),
        ("/api/v1/namespaces?export=true", false),
    ] {
        let answer = admin(api, &format!("GET {path}")).await;
        if refused {
            assert_eq!((answer.code, answer.json()["message"].as_str()), (400, Some(export)), "{path}");
        } else {
            assert_eq!(answer.code, 200, "{path}");
        }
    }
}

/// `?timeout=` bounds a request, and one that makes no sense is told before anybody is asked who it is.
#[tokio::test]
async fn timeouts() {
    let server = start(true).await;
    let api = &server.api;
    for (query, code) in
        [("timeout=10s", 200), ("timeout=0", 200), ("timeout=1h", 200), ("timeout=soon", 400), ("timeout=1ns", 504)]
    {
        assert_eq!(admin(api, &format!("GET /api/v1/namespaces?{query}")).await.code, code, "{query}");
    }
    let late = admin(api, "GET /api/v1/namespaces?timeout=1ns").await.json();
    let expected = json!("Timeout: request did not complete within the allotted timeout");
    assert_eq!((&late["reason"], &late["message"]), (&json!("Timeout"), &expected), "{late}");
}

#[tokio::test]
async fn shapes() {
    let server = start(true).await;
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
    let server = start(true).await;
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
    // Go's ParseUint takes no sign.
    check("admin", "GET /api/v1/pods?resourceVersion=%2B5", 400, "invalid syntax").await;
    let large = format!("POST /api/v1/namespaces\n\n{}", "x".repeat((3 << 20) + 1));
    check("admin", &large, 413, "Request entity too large").await;
    check("admin", "GET /api/v1/namespaces/default/pods/p/log", 404, r#"pods "p" not found"#).await;
}

/// More large objects than are worked on at once are written side by side, by one user.
#[tokio::test]
async fn large_writes_side_by_side() {
    let server = start(true).await;
    let text = "x".repeat(900_000);
    let write = async |number: usize| {
        let object = json!({"metadata": {"name": format!("large-{number}")}, "data": {"text": text}});
        admin(&server.api, &format!("POST /api/v1/namespaces/default/configmaps\n\n{object}")).await.code
    };
    let codes = futures::future::join_all((0..12).map(write)).await;
    assert_eq!(codes, [201; 12]);
}

#[tokio::test]
async fn discovery() {
    let server = start(true).await;
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
    // Upstream: `handler` and `handler3` of kube-openapi; the index is JSON whatever is asked for.
    let negotiated = async |path: &str, accept: &str, code: u16, media_type: &str| {
        let answer = admin(api, &format!("GET {path}\naccept: {accept}")).await;
        let told = answer.headers.get("content-type").map(|value| value.to_str().unwrap()).filter(|_| answer.code == 200);
        assert_eq!((answer.code, told.unwrap_or_default()), (code, media_type), "{path} {accept}");
        if path != "/openapi/v3" {
            assert!(answer.headers["vary"].to_str().unwrap().contains("Accept"), "{path} {accept}");
        }
    };
    let (json, v2, v3) = (
        "application/json",
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
        "application/com.github.proto-openapi.spec.v3@v1.0+protobuf",
    );
    for accept in [json, "*/*", "application/*;q=0.5", &format!("{v3};q=0.1,{json};q=0.9"), &format!("{v3},{json}")] {
        negotiated(&url, accept, 200, json).await;
    }
    for accept in [v3, "text/html", "application/yaml"] {
        negotiated(&url, accept, 406, "").await;
    }
    negotiated("/openapi/v3", "text/html", 200, json).await;
    negotiated("/openapi/v2", &format!("{json};q=0.5,{v2}"), 200, v2).await;
    negotiated("/openapi/v2", &format!("{json},{v2};q=0.5"), 200, json).await;
    negotiated("/openapi/v2", "text/html", 406, "").await;
    let keys = admin(api, "GET /openid/v1/jwks").await.json();
    assert_eq!(keys["keys"][0]["alg"], "ES256");
    assert!(String::from_utf8_lossy(&admin(api, "GET /metrics").await.body).contains("apiserver_request_total"));
}

#[tokio::test]
async fn over_tls() {
    let mut server = start(true).await;
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
    while admin(&server.api, "GET /readyz").await.code != 200 {
        tokio::task::yield_now().await;
    }
    check(None, "/readyz", 200).await;
    check(None, "/api/v1/nodes", 403).await;
    check(Some((&server.authority, "system:masters")), "/api/v1/nodes", 200).await;
    check(Some((&server.authority, "nobody")), "/api/v1/nodes", 403).await;
    check(Some((&stranger, "system:masters")), "/api/v1/nodes", 401).await;
    assert!(server.tasks.drain(std::time::Duration::from_secs(60)).await);
}

#[tokio::test]
async fn without_tls_and_with_an_old_one() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = serve_with(|options| options.tls.oldest = base::tls::Version::Tls13).await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!((head, body), ("HTTP/1.0 400 Bad Request", "Client sent an HTTP request to an HTTPS server.\n"));
    let check = async |version: &'static rustls::SupportedProtocolVersion, expected: bool| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let roots = base::tls::roots(server.authority.bundle()).unwrap();
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let connected = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        assert_eq!(connected.is_ok(), expected, "{version:?}");
    };
    check(&rustls::version::TLS13, true).await;
    check(&rustls::version::TLS12, false).await;
}

/// A certificate that ends soon: what it proves, and a connection with it.
struct Ending {
    credential: base::tls::Credential,
    stream: hyper_util::rt::TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>,
}

impl Ending {
    async fn new(authority: &Authority, address: std::net::SocketAddr, user: &str, protocol: &[u8]) -> Self {
        // A node that may do everything: no role says here who may open tunnels.
        let groups = vec!["system:masters".to_owned(), "system:nodes".to_owned()];
        let request = base::tls::Request::Client { user: user.into(), groups };
        let identity = authority.issue_for(&request, std::time::Duration::from_secs(4)).unwrap();
        let verifier = base::tls::Verifier::new(authority.bundle()).unwrap();
        let credential = verifier.peer(Some(&identity.certified().unwrap().cert)).credential().cloned().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let paths = (directory.path().join("u.crt"), directory.path().join("u.key"));
        identity.store(&paths.0, &paths.1).unwrap();
        let resolver = base::tls::Resolver::files(&paths.0, &paths.1).unwrap();
        let mut config = base::tls::client(authority.bundle(), Some(resolver)).unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        Self { credential, stream: hyper_util::rt::TokioIo::new(stream) }
    }
}

/// Upstream's authenticator verifies the certificate of a connection at each request. The connection ends with the refusal, so that a client
/// that has a newer certificate shows it; and so does a tunnel, which has no requests.
#[tokio::test]
async fn certificates_end_while_connections_last() {
    let mut server = start(true).await;
    let service = server.service.take().unwrap();
    let address = service.handle().unwrap().address;
    let tasks = server.tasks.clone();
    server.tasks.spawn("apiserver", base::tasks::OnFailure::Log, async move { service.run(tasks).await });
    let authority = &server.authority;
    let request = || {
        let request = Request::get("https://localhost/api/v1/nodes").header("host", "localhost");
        request.body(Full::new(Bytes::new())).unwrap()
    };
    let http2 = async {
        let Ending { credential, stream } = Ending::new(authority, address, "u", b"h2").await;
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
        let ask = async {
            let good = sender.send_request(request()).await.unwrap().status();
            credential.ended().await;
            (good, sender.send_request(request()).await.unwrap().status())
        };
        // The connection ends, though the client keeps its sender.
        tokio::join!(ask, connection).0
    };
    let http1 = async {
        let Ending { credential, stream } = Ending::new(authority, address, "u", b"http/1.1").await;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        let ask = async {
            let good = sender.send_request(request()).await.unwrap().status();
            credential.ended().await;
            sender.ready().await.unwrap();
            (good, sender.send_request(request()).await.unwrap().status())
        };
        tokio::join!(ask, connection).0
    };
    let tunnel = async {
        let Ending { credential, stream } = Ending::new(authority, address, "system:node:n", b"http/1.1").await;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        let upgrade = Request::get("/knarr/tunnel").header("host", "localhost").header("connection", "Upgrade");
        let upgrade = upgrade.header("upgrade", "knarr-tunnel").body(Full::new(Bytes::new())).unwrap();
        let open = async {
            let mut response = sender.send_request(upgrade).await.unwrap();
            assert_eq!(response.status().as_u16(), 101);
            let mut tunnel = hyper_util::rt::TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
            // Its end may be the connection's only.
            let _ = tokio::io::copy(&mut tunnel, &mut tokio::io::sink()).await;
            assert!(credential.has_ended(jiff::Timestamp::now()));
        };
        // Silence would end it later.
        let open = tokio::time::timeout(std::time::Duration::from_secs(14), open);
        let (opened, _) = tokio::join!(open, connection.with_upgrades());
        opened.unwrap();
    };
    let (http1, http2, ()) = tokio::join!(http1, http2, tunnel);
    let codes = |(good, ended): (StatusCode, StatusCode)| (good.as_u16(), ended.as_u16());
    assert_eq!((codes(http1), codes(http2)), ((200, 401), (200, 401)));
    assert!(server.tasks.drain(std::time::Duration::from_secs(60)).await);
}
