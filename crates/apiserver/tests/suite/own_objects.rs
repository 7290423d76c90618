//! Objects of the server itself.

use crate::server::{admin, serve};

const TRACKING: &str = "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking";

/// Upstream: `pkg/controlplane/controller/legacytokentracking`. A day that is there stays; what is none becomes today.
#[tokio::test]
async fn it_is_known_since_when_uses_of_tokens_are_written_down() {
    let server = serve().await;
    let since = async || admin(&server.api, &format!("GET {TRACKING}")).await.json()["data"]["since"].clone();
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    while since().await != today.as_str() {
        tokio::task::yield_now().await;
    }
    for (text, expected) in [("2020-02-30", today.as_str()), ("2020-02-29", "2020-02-29")] {
        let body = format!(r#"{{"data": {{"since": "{text}"}}}}"#);
        let set = admin(&server.api, &format!("PATCH {TRACKING}\ncontent-type: application/merge-patch+json\n\n{body}")).await;
        assert_eq!(set.code, 200);
        while since().await != expected {
            tokio::task::yield_now().await;
        }
    }
}

/// Whoever deletes them does not have to start the server again.
#[tokio::test]
async fn what_somebody_deletes_comes_back() {
    let server = serve().await;
    for path in [
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/catch-all",
        "/api/v1/namespaces/default/services/kubernetes",
        "/api/v1/namespaces/default/endpoints/kubernetes",
        TRACKING,
    ] {
        let request = format!("GET {path}");
        let uid = async || {
            let answer = admin(&server.api, &request).await;
            (answer.code == 200).then(|| answer.json()["metadata"]["uid"].clone())
        };
        let before = loop {
            match uid().await {
                Some(uid) => break uid,
                None => tokio::task::yield_now().await,
            }
        };
        assert_eq!(admin(&server.api, &format!("DELETE {path}")).await.code, 200, "{path}");
        while uid().await.is_none_or(|uid| uid == before) {
            tokio::task::yield_now().await;
        }
    }
}

/// Upstream: `registry/scheduling/priorityclass/storage`.
#[tokio::test]
async fn the_own_priority_classes_stay() {
    let server = serve().await;
    for name in ["system-node-critical", "system-cluster-critical"] {
        let path = format!("/apis/scheduling.k8s.io/v1/priorityclasses/{name}");
        while admin(&server.api, &format!("GET {path}")).await.code != 200 {
            tokio::task::yield_now().await;
        }
        let refused = admin(&server.api, &format!("DELETE {path}")).await;
        let why = format!(
            "priorityclasses.scheduling.k8s.io \"{name}\" is forbidden: this is a system priority class and cannot be deleted"
        );
        assert_eq!((refused.code, refused.json()["message"].as_str()), (403, Some(&*why)));
    }
}
