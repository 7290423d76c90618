//! What requests show to prove who asks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::server::{Server, admin, ask, namespace, start};

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
