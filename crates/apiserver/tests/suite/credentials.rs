//! What requests show to prove who asks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::policies::{constraints, put_in_force};
use crate::server::{Server, admin, ask, namespace, populated_namespace, serve_with, start};

const SECRETS: &str = "/api/v1/namespaces/n/secrets";

/// Makes the account `robot` and gives its UID.
async fn account(server: &Server) -> String {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let made = admin(&server.api, &format!("POST /api/v1/namespaces/n/serviceaccounts\n\n{account}")).await;
    made.json()["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// Makes a Secret of this type that holds a token of the account, as the controller does.
async fn kept(server: &Server, kind: &str, uid: &str) -> String {
    let token = server.api.sign_kept("n", "s", ("robot", uid)).unwrap();
    let metadata = json!({"name": "s", "annotations": {"kubernetes.io/service-account.name": "robot"}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": {"token": STANDARD.encode(&token)}});
    let made = admin(&server.api, &format!("POST {SECRETS}\n\n{secret}")).await;
    assert_eq!(made.code, 201, "{:?}", made.body);
    token
}

async fn patch(server: &Server, patch: Value) {
    let head = format!("PATCH {SECRETS}/s\ncontent-type: application/merge-patch+json");
    let patched = admin(&server.api, &format!("{head}\n\n{patch}")).await;
    assert_eq!(patched.code, 200, "{:?}", patched.body);
}

/// Upstream's TestTokenGenerateAndValidate: Secret and ServiceAccount are there, and the Secret holds just this token.
#[tokio::test]
async fn a_token_is_good_as_long_as_its_secret_holds_it() {
    let server = start(true).await;
    namespace(&server.api, "n").await;
    let uid = account(&server).await;
    let check = async |token: &str, code: u16| {
        assert_eq!(ask(&server.api, "", &format!("GET /api\nauthorization: Bearer {token}")).await.code, code);
    };
    let kind = "kubernetes.io/service-account-token";
    let token = kept(&server, kind, &uid).await;
    check(&token, 200).await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let reviewed = admin(&server.api, &format!("POST /apis/authentication.k8s.io/v1/tokenreviews\n\n{review}")).await.json();
    let user = json!({"username": "system:serviceaccount:n:robot", "uid": uid,
        "groups": ["system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated"]});
    assert_eq!(reviewed["status"]["user"], user);
    // "The value of this label records the date (ISO 8601, UTC) when the control plane last saw a request".
    // It is written after the answer, which does not wait for that.
    let day = loop {
        let secret = admin(&server.api, &format!("GET {SECRETS}/s")).await.json();
        if let Some(day) = secret["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].as_str() {
            break day.to_owned();
        }
        tokio::task::yield_now().await;
    };
    assert!(day.parse::<jiff::civil::Date>().is_ok(), "{day}");
    patch(&server, json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}})).await;
    check(&token, 401).await;
    patch(&server, json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": null}}})).await;
    check(&token, 200).await;
    patch(&server, json!({"data": {"token": STANDARD.encode("other")}})).await;
    check(&token, 401).await;
    patch(&server, json!({"data": {"token": STANDARD.encode(&token)}})).await;
    check(&token, 200).await;
    let delete = async || assert_eq!(admin(&server.api, &format!("DELETE {SECRETS}/s")).await.code, 200);
    delete().await;
    check(&token, 401).await;
    // Nobody makes a token good by another sort of Secret.
    check(&kept(&server, "Opaque", &uid).await, 401).await;
    delete().await;
    let token = kept(&server, kind, &uid).await;
    check(&token, 200).await;
    assert_eq!(admin(&server.api, "DELETE /api/v1/namespaces/n/serviceaccounts/robot").await.code, 200);
    check(&token, 401).await;
    account(&server).await;
    check(&token, 401).await;
}

/// Upstream's bearer token authenticator has no opinion about other schemes: who sends them is anonymous.
#[tokio::test]
async fn credentials_of_other_schemes_are_none() {
    for (anonymous, expected) in [(true, 200), (false, 401)] {
        let server = start(anonymous).await;
        let code = async |header: &str| ask(&server.api, "", &format!("GET /version\nauthorization: {header}")).await.code;
        assert_eq!([code("Basic YTpi").await, code("Bearer").await, code("Bearer x").await], [expected, expected, 401]);
    }
}

/// kube-apiserver(1): --service-account-issuer ("the first is used to generate tokens and all are used to determine which issuers are accepted"),
/// --service-account-jwks-uri, --api-audiences, --service-account-max-token-expiration.
#[tokio::test]
async fn tokens_are_issued_in_the_name_that_is_said() {
    let (cloud, before) = ("https://storage.example/cluster", "https://kubernetes.default.svc.cluster.local");
    let server = serve_with(|options| {
        options.service_accounts = apiserver::ServiceAccounts {
            issuers: apiserver::Issuers::new(cloud.into(), vec![before.into()], vec!["api".into(), before.into()]),
            jwks_uri: Some(format!("{cloud}/keys")),
            longest: Some(7200),
            extends: false,
        };
    })
    .await;
    let api = &server.api;
    let document = admin(api, "GET /.well-known/openid-configuration").await.json();
    assert_eq!((&document["issuer"], &document["jwks_uri"]), (&json!(cloud), &json!(format!("{cloud}/keys"))));
    populated_namespace(api, "n").await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 9000}});
    let answer = admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts/default/token\n\n{request}")).await;
    let warning = answer.headers["warning"].to_str().unwrap();
    assert!(warning.contains("requested expiration of 9000 seconds shortened to 7200 seconds"), "{warning}");
    let issued = answer.json();
    assert_eq!((&issued["spec"]["audiences"], &issued["spec"]["expirationSeconds"]), (&json!(["api", before]), &json!(7200)));
    assert!(issued["metadata"]["creationTimestamp"].is_string(), "{issued}");
    let token = issued["status"]["token"].as_str().unwrap();
    let who = ask(api, "", &format!("GET /api/v1/namespaces/n/pods\nAuthorization: Bearer {token}")).await;
    assert_eq!(who.code, 403, "it is known who that is, who may nothing: {:?}", who.body);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let review = admin(api, &format!("POST /apis/authentication.k8s.io/v1/tokenreviews\n\n{review}")).await.json();
    assert_eq!((&review["status"]["authenticated"], &review["status"]["audiences"]), (&json!(true), &json!(["api", before])));
}

const TWO: [&str; 2] = ["https://storage.example/cluster", "https://kubernetes.default.svc.cluster.local"];

/// Tokens are for either of two issuers where nothing is said.
async fn of_two_issuers() -> Server {
    serve_with(|options| {
        options.service_accounts = apiserver::Issuers::new(TWO[0].into(), vec![TWO[1].into()], Vec::new()).into();
    })
    .await
}

/// Upstream's TokenREST completes a request before validating admission sees it: a rule about audiences holds as well for the API server's, which a
/// token has whose request names none.
#[tokio::test]
async fn rules_see_what_a_token_will_be() {
    let server = of_two_issuers().await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let rules = json!([
        {"expression": "object.spec.audiences.all(audience, audience == 'vault')", "messageExpression": "object.spec.audiences.join(' ')"},
        {"expression": "object.spec.expirationSeconds <= 3600", "message": "too long"},
        {"expression": "object.metadata.name == 'default' && object.metadata.namespace == 'n' && object.metadata.uid != ''",
            "message": "whose"},
        {"expression": "object.status.token == ''", "message": "a token already"},
    ]);
    let spec = json!({"matchConstraints": constraints(&["CREATE"], "serviceaccounts/token"), "validations": rules});
    put_in_force(&server, "Validating", "vault-only", spec, json!({"validationActions": ["Deny"]})).await;
    let check = async |spec: Value, expected: Result<(), &str>| {
        let request =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec, "status": {"token": "mine"}});
        let answer = admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts/default/token\n\n{request}")).await;
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        match expected {
            Ok(()) => assert_eq!(answer.code, 201, "{spec}: {message}"),
            Err(why) => assert!(answer.code == 422 && message.ends_with(why), "{spec}: {} {message}", answer.code),
        }
    };
    check(json!({"audiences": ["vault"]}), Ok(())).await;
    check(json!({}), Err(&TWO.join(" "))).await;
    check(json!({"audiences": []}), Err(&TWO.join(" "))).await;
    check(json!({"audiences": ["vault", "other"]}), Err("vault other")).await;
    check(json!({"audiences": ["vault"], "expirationSeconds": 3601}), Err("too long")).await;
}

/// NodeRestriction, "node may only request 0 or 1 audiences": of what the kubelet has sent, to which the API server's two are added.
#[tokio::test]
async fn kubelets_get_tokens_for_two_issuers() {
    let server = of_two_issuers().await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let sources = json!([{"serviceAccountToken": {"path": "token"}}]);
    let spec = json!({"nodeName": "n1", "containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": false,
        "volumes": [{"name": "v", "projected": {"sources": sources}}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
    let made = admin(api, &format!("POST /api/v1/namespaces/n/pods\n\n{pod}")).await;
    assert_eq!(made.code, 201, "{:?}", made.body);
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": made.json()["metadata"]["uid"]});
    let check = async |audiences: Value, expected: (u16, Value)| {
        let spec = json!({"audiences": audiences, "boundObjectRef": bound});
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let head = "impersonate-user: system:node:n1\nimpersonate-group: system:nodes";
        let answer = admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts/default/token\n{head}\n\n{request}")).await;
        assert_eq!((answer.code, answer.json()["spec"]["audiences"].clone()), expected, "{audiences}: {:?}", answer.body);
    };
    check(json!([]), (201, json!(TWO))).await;
    check(json!(["vault"]), (403, Value::Null)).await;
    check(json!(TWO), (403, Value::Null)).await;
}

/// kube-apiserver(1), --event-ttl: "amount of time to retain events".
#[tokio::test]
async fn events_go_after_the_time_that_is_said() {
    let server = serve_with(|options| options.registry.event_ttl = std::time::Duration::from_secs(1)).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "n"},
        "involvedObject": {"kind": "Pod", "namespace": "n", "name": "p"}, "reason": "R", "message": "m", "type": "Normal"});
    let made = admin(api, &format!("POST /api/v1/namespaces/n/events\n\n{event}")).await.json();
    let since = made["metadata"]["resourceVersion"].as_str().unwrap();
    while admin(api, "GET /api/v1/namespaces/n/events/e").await.code != 404 {
        tokio::task::yield_now().await;
    }
    let path = format!("GET /api/v1/namespaces/n/events?watch=true&resourceVersion={since}&timeoutSeconds=1");
    let seen = admin(api, &path).await;
    assert!(String::from_utf8_lossy(&seen.body).starts_with(r#"{"type":"DELETED""#), "{:?}", seen.body);
}
