//! kube-rs with its own connections: a controller and a reflector through restarts of the server, and what needs streams.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{ApiResource, AttachParams, DynamicObject, EvictParams, ListParams, LogParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, Store};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{Controller, WatchStreamExt, watcher};
use kube::{Api, Client, Config, Discovery, Resource, ResourceExt};
use serde_json::{Value, json};
use testing::{Cluster, eventually, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const MANAGER: &str = "kube-rs-test";

/// A runtime whose threads are in the cluster's network, with what runs on it.
struct Side {
    runtime: Runtime,
    tasks: Tasks,
    client: Client,
}

impl Side {
    fn of(c: &Cluster) -> Self {
        let runtime = Runtime::new().unwrap();
        let client = runtime.block_on(async {
            let file = Kubeconfig::read_from(c.kubeconfig()).unwrap();
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
            Client::try_from(config).unwrap()
        });
        Self { runtime, tasks: Tasks::root().0, client }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Runs a future to its end, which must come in time.
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(*wait::PATIENCE, future).await }).expect("an end in time")
    }

    /// Runs a future while the test goes on.
    fn follow(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let _entered = self.runtime.enter();
        self.tasks.spawn_until_cancelled(name, OnFailure::Log, async {
            future.await;
            Ok::<_, Infallible>(())
        });
    }
}

/// Makes a Secret of each ConfigMap: the same data, owned by it.
async fn reconcile(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let secrets: Api<Secret> = Api::namespaced(client.as_ref().clone(), "default");
    let owner = map.controller_owner_ref(&()).unwrap();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "stringData": map.data,
        "metadata": {"name": map.name_any(), "ownerReferences": [owner], "labels": {"role": "child"}}});
    secrets.patch(&map.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(secret)).await?;
    Ok(Action::await_change())
}

/// Starts the controller and a reflector of the Secrets.
fn start(side: &Side) -> Store<Secret> {
    let parents = watcher::Config::default().labels("role=parent").streaming_lists();
    let children = watcher::Config::default().labels("role=child").streaming_lists();
    let controller = Controller::new(side.api::<ConfigMap>(), parents).owns(side.api::<Secret>(), children.clone());
    let again = |_: Arc<ConfigMap>, _: &kube::Error, _: Arc<Client>| Action::requeue(Duration::from_millis(100));
    side.follow("controller", controller.run(reconcile, again, Arc::new(side.client.clone())).for_each(|_| async {}));
    let (store, writer) = reflector::store();
    let events = watcher(side.api::<Secret>(), children).default_backoff().reflect(writer);
    side.follow("reflector", events.for_each(|_| async {}));
    store
}

/// Resource versions by name.
fn versions<'a, K: ResourceExt + 'a>(objects: impl IntoIterator<Item = &'a K>) -> BTreeMap<String, Option<String>> {
    objects.into_iter().map(|object| (object.name_any(), object.resource_version())).collect()
}

#[test]
fn a_controller_through_restarts() {
    let mut c = Cluster::start(KNARR);
    let side = Side::of(&c);
    let secrets = side.api::<Secret>();
    let store = start(&side);
    let map = |name: &str, value: usize| {
        format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, labels: {{role: parent}}}}, data: {{key: v{value}}}}}"
        )
    };
    let written = |name: &str, value: usize| {
        eventually(&format!("{name} has a Secret of its data"), || {
            let secret = side.run(secrets.get_opt(name)).ok()??;
            (secret.data?.get("key")?.0 == format!("v{value}").as_bytes()).then_some(())
        });
    };
    for round in 0..3 {
        let name = format!("map-{round}");
        c.k_with("apply -f -", &map(&name, round));
        c.kill_server();
        c.start_server();
        written(&name, round);
        // The first one changes, and its Secret goes and comes back.
        c.k_with("apply -f -", &map("map-0", round + 10));
        written("map-0", round + 10);
        c.k("delete secret map-0");
        written("map-0", round + 10);
    }
    c.k("delete configmap map-1");
    eventually("the Secret goes with its ConfigMap", || side.run(secrets.get_opt("map-1")).unwrap().is_none().then_some(()));
    let managers = side.run(secrets.get("map-2")).unwrap().metadata.managed_fields.unwrap();
    assert!(managers.iter().all(|fields| fields.manager.as_deref() == Some(MANAGER)), "{managers:?}");
    eventually("the reflector has what a list has", || {
        let listed = side.run(secrets.list(&ListParams::default().labels("role=child"))).unwrap();
        let reflected = store.state();
        (versions(reflected.iter().map(Arc::as_ref)) == versions(&listed.items)).then_some(())
    });
    assert_eq!(store.len(), 2);
    side.run(side.tasks.drain(Duration::from_secs(5)));
}

/// A pod of busybox with a shell script, and one of nginx.
fn pods() -> [Pod; 2] {
    let pod = |name: &str, container: Value| {
        serde_json::from_value(
            json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}),
        )
    };
    let script = "echo started; while read -r line; do echo got $line; done; exec sleep 1000";
    let shell = json!({"name": "main", "image": "127.0.0.1:5000/busybox:1.36", "stdin": true, "command": ["sh", "-c", script]});
    [pod("shell", shell).unwrap(), pod("web", json!({"name": "main", "image": "127.0.0.1:5000/nginx:1.27"})).unwrap()]
}

#[test]
fn commands_ports_and_evictions() {
    let c = Cluster::start(KNARR);
    let side = Side::of(&c);
    let api = side.api::<Pod>();
    side.run(async {
        for pod in pods() {
            api.create(&Default::default(), &pod).await.unwrap();
            await_condition(api.clone(), &pod.name_any(), conditions::is_pod_running()).await.unwrap();
        }
    });
    side.run(exec(&api));
    side.run(attach(&api));
    // A container runs before its program listens.
    let page = eventually("the page comes", || {
        side.run(async {
            let mut forward = api.portforward("web", &[80]).await.unwrap();
            let mut stream = forward.take_stream(80).unwrap();
            let mut page = String::new();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.ok()?;
            stream.read_to_string(&mut page).await.ok()?;
            Some(page).filter(|page| !page.is_empty())
        })
    });
    assert!(page.contains("Welcome to nginx!"), "{page}");
    side.run(async {
        let uid = api.get("web").await.unwrap().uid().unwrap();
        api.evict("web", &EvictParams::default()).await.unwrap();
        await_condition(api.clone(), "web", conditions::is_deleted(&uid)).await.unwrap();
    });
}

async fn exec(api: &Api<Pod>) {
    let parameters = AttachParams::default().stdin(true).stdout(true).stderr(true);
    let script = ["sh", "-c", "echo out; echo err >&2; cat; exit 3"];
    let mut process = api.exec("shell", script, &parameters).await.unwrap();
    let (mut stdin, mut stdout, mut stderr) = (process.stdin().unwrap(), process.stdout().unwrap(), process.stderr().unwrap());
    let status = process.take_status().unwrap();
    stdin.write_all(b"through\n").await.unwrap();
    // The end of the input ends `cat`.
    stdin.shutdown().await.unwrap();
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    tokio::try_join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err)).unwrap();
    let status = status.await.unwrap();
    let cause = &status.details.unwrap().causes.unwrap()[0];
    assert_eq!((out.as_str(), err.as_str(), cause.message.as_deref()), ("out\nthrough\n", "err\n", Some("3")));
}

async fn attach(api: &Api<Pod>) {
    let mut process = api.attach("shell", &AttachParams::default().stdin(true).stderr(false)).await.unwrap();
    process.stdin().unwrap().write_all(b"hello\n").await.unwrap();
    let (mut stdout, mut got) = (process.stdout().unwrap(), Vec::new());
    while !got.ends_with(b"got hello\n") {
        assert_ne!(stdout.read_buf(&mut got).await.unwrap(), 0, "{got:?}");
    }
    process.abort();
    // What a client hears comes into the log, too, before or after.
    let last = LogParams { tail_lines: Some(1), ..Default::default() };
    while api.logs("shell", &last).await.unwrap() != "got hello\n" {}
}

#[test]
fn discovery_and_objects_without_types() {
    let c = Cluster::start(KNARR);
    let side = Side::of(&c);
    side.run(async {
        let found = Discovery::new(side.client.clone()).run_aggregated().await.unwrap();
        let (resource, capabilities) = found.resolve_gvk(&kube::core::GroupVersionKind::gvk("apps", "v1", "Deployment")).unwrap();
        assert!(capabilities.subresources.iter().any(|(sub, _)| sub.plural.ends_with("scale")), "{capabilities:?}");
        assert_eq!(resource, ApiResource::erase::<Deployment>(&()));
        let deployments: Api<DynamicObject> = Api::namespaced_with(side.client.clone(), "default", &resource);
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1,
            "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "main", "image": "127.0.0.1:5000/nginx:1.27"}]}}}});
        let applied = deployments.patch("d", &PatchParams::apply(MANAGER), &Patch::Apply(&object)).await.unwrap();
        assert_eq!(applied.data["spec"]["progressDeadlineSeconds"], 600);
        let typed = side.api::<Deployment>();
        await_condition(typed.clone(), "d", conditions::is_deployment_completed()).await.unwrap();
        assert_eq!(typed.get_scale("d").await.unwrap().status.unwrap().replicas, 1);
        let metadata = typed.get_metadata("d").await.unwrap();
        assert_eq!(
            (metadata.types.unwrap().kind.as_str(), metadata.metadata.name.as_deref()),
            ("PartialObjectMetadata", Some("d"))
        );
        let conflict = deployments
            .patch(
                "d",
                &PatchParams::apply("another"),
                &Patch::Apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 2}})),
            )
            .await;
        let Err(kube::Error::Api(status)) = conflict else { panic!("{conflict:?}") };
        assert!(status.is_conflict() && status.message.contains(MANAGER), "{status:?}");
    });
}
