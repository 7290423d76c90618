#![allow(clippy::unwrap_used)]
use super::*;
use registry::DeleteOptions;

async fn open() -> (Arc<Registry>, Definitions, Tasks, base::tasks::Failures, tempfile::TempDir) {
    let (tasks, failures) = Tasks::root();
    let dir = tempfile::tempdir().unwrap();
    let store = store::Options { reserve: 0, ..store::Options::new(dir.path().join("db")) };
    let engine = Arc::new(store::Fjall::open(store, &tasks).await.unwrap());
    let options =
        registry::Options { service_cidrs: vec!["10.43.0.0/16".parse().unwrap()], node_ports: 30000..=32767, tokens: None };
    let registry = Registry::open(engine, Vec::new(), options, &tasks).await.unwrap();
    let remotes = Arc::new(Remotes::new(tasks.child(), Default::default()));
    let (definitions, _) = Definitions::start(&registry, remotes).await.unwrap();
    (registry, definitions, tasks, failures, dir)
}

/// The end of one definition and the beginning of the next may be seen as one change of that name.
#[tokio::test]
async fn the_next_definition_of_a_name_ends_as_well() {
    const NAME: &str = "foos.example.com";
    let (registry, mut definitions, tasks, _failures, _dir) = open().await;
    let resource = resource(&registry).unwrap();
    let object = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": NAME},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]},
    });
    for _ in 0..2 {
        registry.create(&context(), &resource, "", None, object.clone()).await.unwrap();
        definitions.reconcile(NAME, &tasks).await.unwrap();
        while let Some((_, written)) = definitions.writes.next().await {
            written.unwrap();
        }
        registry.delete(&context(), &resource, "", NAME, DeleteOptions::default()).await.unwrap();
        definitions.reconcile(NAME, &tasks).await.unwrap();
        // Nobody looks at the name while it is free.
        while registry.get(&resource, "", NAME, None).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
