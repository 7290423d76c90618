//! Objects of the server itself.

use crate::server::{admin, serve};

/// Whoever deletes them does not have to start the server again.
#[tokio::test]
async fn what_somebody_deletes_comes_back() {
    let server = serve().await;
    for path in [
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-cluster-critical",
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/catch-all",
        "/api/v1/namespaces/default/services/kubernetes",
        "/api/v1/namespaces/default/endpoints/kubernetes",
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
