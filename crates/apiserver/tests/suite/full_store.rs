//! A store that takes nothing new (`--storage-quota`).

use serde_json::json;

use crate::server::{Server, admin, start_within};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:kube-dns";
const SCHEMA: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/probes";
const BINDING: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:kube-dns";
const LEASES: &str = "/api/v1/namespaces/kube-node-lease";

async fn code(server: &Server, request: &str) -> u16 {
    admin(&server.api, request).await.code
}

/// Fills the store with objects that are smaller and smaller; how many large ones there are.
async fn fill(server: &Server, round: &str) -> usize {
    let mut large = 0;
    for (kind, bytes) in [("large", 20_000), ("small", 100)] {
        for n in 0.. {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("{round}-{kind}-{n}")},
                "data": {"a": "x".repeat(bytes)}});
            match code(server, &format!("POST {MAPS}\n\n{map}")).await {
                201 => large += usize::from(kind == "large"),
                507 => break,
                other => panic!("{other}"),
            }
        }
    }
    large
}

/// What the server writes at its start is refused as anybody's: without a server nobody could make room.
#[tokio::test]
async fn a_server_starts_on_a_full_store_and_writes_its_own_when_there_is_room() {
    let mut server = start_within(1 << 20, |_| {}).await;
    let large = fill(&server, "a").await;
    assert!(large > 3);
    let own = [ROLE, SCHEMA, BINDING];
    for path in own {
        assert_eq!(code(&server, &format!("DELETE {path}")).await, 200, "{path}");
    }
    fill(&server, "b").await;
    server.restart().await;
    server.run();
    for path in own {
        assert_eq!(code(&server, &format!("GET {path}")).await, 404, "{path}");
    }
    assert_eq!(code(&server, &format!("GET {LEASES}")).await, 200);
    assert_eq!(code(&server, "GET /readyz").await, 500, "it says what is missing");
    // Others of the server's own objects, such as APIServices, need room, too.
    for n in 0..large {
        assert_eq!(code(&server, &format!("DELETE {MAPS}/a-large-{n}")).await, 200);
    }
    for path in own.into_iter().chain(["/readyz"]) {
        while code(&server, &format!("GET {path}")).await != 200 {
            tokio::task::yield_now().await;
        }
    }
}
