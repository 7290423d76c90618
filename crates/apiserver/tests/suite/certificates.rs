//! Requests for certificates: who asks, who decides, and who answers. Warnings of what is deprecated.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::server::{admin, ask, grant, namespace, serve, start};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// Made with openssl, for `/O=system:masters/CN=me`.
const REQUEST: &str = include_str!("../../../registry/tests/request.pem");

fn request(name: &str, signer: &str) -> Value {
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"request": STANDARD.encode(REQUEST), "signerName": signer, "usages": ["client auth"], "username": "root"}})
}

/// Conformance: [sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations [Conformance]
#[tokio::test]
async fn who_decides_has_the_verb_for_the_signer() {
    let mut server = start(true).await;
    let service = server.service.take().unwrap();
    let (api, tasks) = (server.api.clone(), server.tasks.clone());
    server.tasks.spawn("apiserver", base::tasks::OnFailure::Log, async move { service.run(tasks).await });
    let made = admin(&api, &format!("POST {REQUESTS}\n\n{}", request("a", "example.com/a"))).await;
    assert_eq!(made.code, 201, "{:?}", made.body);
    assert_eq!(made.json()["spec"]["username"], "admin", "who asks is not for the client to say");

    let write = json!({"verbs": ["get", "update"], "apiGroups": ["certificates.k8s.io"],
        "resources": ["certificatesigningrequests", "certificatesigningrequests/approval", "certificatesigningrequests/status"]});
    let approve = json!({"verbs": ["approve"], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
        "resourceNames": ["example.com/*"]});
    let until = format!("GET {REQUESTS}/none");
    grant(&api, "jane", json!([write]), &until).await;
    grant(&api, "john", json!([write, approve]), &until).await;
    let mut approved = made.json();
    approved["status"]["conditions"] = json!([{"type": "Approved", "status": "True", "reason": "Known"}]);
    let put = |sub: &str, object: &Value| format!("PUT {REQUESTS}/a/{sub}\n\n{object}");
    let refused = ask(&api, "jane", &put("approval", &approved)).await;
    assert_eq!(refused.code, 403, "{:?}", refused.body);
    let why = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(why.ends_with("user not permitted to approve requests with signerName \"example.com/a\""), "{why}");
    let done = ask(&api, "john", &put("approval", &approved)).await;
    assert_eq!(done.code, 200, "{:?}", done.body);
    let mut failed = done.json();
    assert_ne!(failed["status"]["conditions"][0]["lastTransitionTime"], Value::Null);
    failed["status"]["conditions"].as_array_mut().unwrap().push(json!({"type": "Failed", "status": "True"}));
    let refused = ask(&api, "john", &put("status", &failed)).await;
    assert_eq!(refused.code, 403, "who approves does not sign: {:?}", refused.body);
    assert_eq!(admin(&api, &put("status", &failed)).await.code, 200);
}

/// Upstream: `StatusStrategy.ValidateUpdate` of PodCertificateRequests. Whoever denies a request keeps its pod from starting.
#[tokio::test]
async fn who_answers_a_pod_has_the_verb_for_the_signer() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "n").await;
    let request = crate::operations::examples().into_iter().find(|object| object["kind"] == "PodCertificateRequest").unwrap();
    let path = format!("/apis/{}/namespaces/n/podcertificaterequests", request["apiVersion"].as_str().unwrap());
    let made = admin(api, &format!("POST {path}\n\n{request}")).await;
    assert_eq!(made.code, 201, "{:?}", made.body);
    let write = json!({"verbs": ["get", "update"], "apiGroups": ["certificates.k8s.io"],
        "resources": ["podcertificaterequests", "podcertificaterequests/status"]});
    let sign = json!({"verbs": ["sign"], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["example.com/signer"]});
    let until = format!("GET {path}/request");
    grant(api, "jane", json!([write]), &until).await;
    grant(api, "john", json!([write, sign]), &until).await;
    let mut denied = made.json();
    denied["status"] = request["status"].clone();
    denied["status"]["conditions"][0]["lastTransitionTime"] = denied["metadata"]["creationTimestamp"].clone();
    let put = format!("PUT {path}/request/status\n\n{denied}");
    let refused = ask(api, "jane", &put).await;
    let why = "spec.signerName: Forbidden: User \"jane\" is not permitted to \"sign\" for signer \"example.com/signer\"";
    assert!(refused.code == 422 && refused.json()["message"].as_str().unwrap().ends_with(why), "{:?}", refused.body);
    let done = ask(api, "john", &put).await;
    assert_eq!(done.code, 200, "{:?}", done.body);
}

#[tokio::test]
async fn nobody_becomes_a_master_by_certificate() {
    let server = start(true).await;
    let made = admin(&server.api, &format!("POST {REQUESTS}\n\n{}", request("a", "kubernetes.io/kube-apiserver-client"))).await;
    assert_eq!(made.code, 403);
    let why = made.json()["message"].as_str().unwrap().to_owned();
    assert!(why.ends_with("use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"), "{why}");
}

#[tokio::test]
async fn clients_are_warned_of_what_is_deprecated() {
    let server = start(true).await;
    let warnings = |answer: crate::server::Answer| {
        let all = answer.headers.get_all("warning").iter();
        all.map(|text| text.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let listed = admin(&server.api, "GET /api/v1/endpoints").await;
    let text = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    assert_eq!(warnings(listed), [text]);
    let missing = admin(&server.api, "GET /api/v1/namespaces/default/endpoints/none").await;
    let code = missing.code;
    assert_eq!((code, warnings(missing)), (404, vec![text.to_owned()]), "who is refused is warned too");
    // KEP-1693: the metric "apiserver_requested_deprecated_apis" has a "group, version, resource, subresource, removed_release".
    let page = base::metrics::Page::Server.encode(base::metrics::Format::Text);
    let labels = r#"{group="",version="v1",resource="endpoints",subresource="",removed_release=""}"#;
    assert!(page.contains(&format!("apiserver_requested_deprecated_apis{labels} 1\n")));
    assert!(!page.contains("resource=\"configmaps\",subresource=\"\",removed_release"));
}
