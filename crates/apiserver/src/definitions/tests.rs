#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::open;
use registry::DeleteOptions;

/// The end of one definition and the beginning of the next may be seen as one change of that name.
#[tokio::test]
async fn the_next_definition_of_a_name_ends_as_well() {
    const NAME: &str = "foos.example.com";
    let opened = open().await;
    let (registry, tasks) = (&opened.registry, &opened.tasks);
    let remotes = Arc::new(Remotes::new(tasks.child(), Default::default()));
    let (mut definitions, _) = Definitions::start(registry, remotes).await.unwrap();
    let resource = resource(registry).unwrap();
    let object = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": NAME},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]},
    });
    for _ in 0..2 {
        registry.create(&context(), &resource, "", None, object.clone()).await.unwrap();
        definitions.reconcile(NAME, tasks).await.unwrap();
        while let Some((_, written)) = definitions.writes.next().await {
            written.unwrap();
        }
        registry.delete(&context(), &resource, "", NAME, DeleteOptions::default()).await.unwrap();
        definitions.reconcile(NAME, tasks).await.unwrap();
        // Nobody looks at the name while it is free.
        while registry.get(&resource, "", NAME, None).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
