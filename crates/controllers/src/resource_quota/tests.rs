#![allow(clippy::unwrap_used)]

use client::Api;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota};
use serde_json::{Value, json};

use crate::testing::{World, object};

fn used(quotas: &[ResourceQuota]) -> Value {
    serde_json::to_value(quotas[0].status.as_ref().and_then(|status| status.used.clone())).unwrap()
}

#[tokio::test]
async fn a_quota_follows_what_is_there() {
    let world = World::new();
    world.fake.serve("", "v1", "resourcequotas", "ResourceQuota", true);
    let containers = json!([{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]);
    for name in ["a", "b"] {
        world
            .fake
            .put::<Pod>(&object(json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"containers": containers}})));
        world.fake.put::<ConfigMap>(&object(json!({"metadata": {"namespace": "ns", "name": name}})));
    }
    world.fake.put::<ConfigMap>(&object(json!({"metadata": {"namespace": "other", "name": "c"}})));
    let hard = json!({"pods": "5", "requests.cpu": "2", "configmaps": "3", "count/configmaps": "3", "services": "1"});
    world.fake.put::<ResourceQuota>(&object(json!({"metadata": {"namespace": "ns", "name": "q"}, "spec": {"hard": hard}})));
    world.start(&["resourcequota"]);
    let full = json!({"pods": "2", "requests.cpu": "1", "configmaps": "2", "count/configmaps": "2", "services": "0"});
    world.fake.until::<ResourceQuota>(|quotas| used(quotas) == full).await;
    let (pods, maps): (Api<Pod>, Api<ConfigMap>) =
        (Api::namespaced(world.fake.client(), "ns"), Api::namespaced(world.fake.client(), "ns"));
    pods.delete("a", &Default::default()).await.unwrap();
    maps.delete("b", &Default::default()).await.unwrap();
    let less = json!({"pods": "1", "requests.cpu": "500m", "configmaps": "1", "count/configmaps": "1", "services": "0"});
    world.fake.until::<ResourceQuota>(|quotas| used(quotas) == less).await;
}
