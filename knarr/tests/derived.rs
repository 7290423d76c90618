//! A controller by kube-rs whose custom resource is a struct: the definition is derived from it, with rules in CEL, columns, a status and
//! a scale, and what it does not allow is refused.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{self, Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, Config, CustomResource, CustomResourceExt, KubeSchema, Resource, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use testing::{Cluster, eventually, wait};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const MANAGER: &str = "lamps";

/// What a lamp is to be.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize)]
#[kube(
    group = "light.example.com",
    version = "v1",
    kind = "Lamp",
    namespaced,
    status = "LampStatus",
    shortname = "lp",
    selectable = ".spec.room",
    scale = r#"{"specReplicasPath": ".spec.bulbs", "statusReplicasPath": ".status.lit"}"#,
    printcolumn(name = "Room", type_ = "string", json_path = ".spec.room"),
    printcolumn(name = "Lit", type_ = "integer", json_path = ".status.lit"),
    validation = Rule::new("self.metadata.name.size() <= 10").message("names of lamps are short")
)]
#[x_kube(
    validation = Rule::new("!self.dimmed || self.watts <= 40").message("a dimmed lamp has at most 40 watts"),
    validation = Rule::new("self.watts >= oldSelf.watts").message("lamps grow")
)]
struct LampSpec {
    #[x_kube(validation = Rule::new("self == oldSelf").message("a lamp stays in its room"))]
    room: String,
    #[schemars(range(min = 1, max = 100))]
    watts: i64,
    #[serde(default)]
    dimmed: bool,
    #[serde(default = "one")]
    bulbs: i64,
    #[serde(default)]
    shade: Option<Shade>,
}

/// One of several.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Shade {
    Paper { folds: u32 },
    Glass { colour: String },
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
struct LampStatus {
    lit: i64,
}

fn one() -> i64 {
    1
}

type Finalized = finalizer::Error<kube::Error>;

/// Lights a lamp: a ConfigMap of it, and its status. A lamp that goes leaves a note.
async fn reconcile(lamp: Arc<Lamp>, client: Arc<Client>) -> Result<Action, Finalized> {
    let client = client.as_ref().clone();
    let lamps: Api<Lamp> = Api::namespaced(client.clone(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let own = lamps.clone();
    let events = move |event: Event<Lamp>| async move {
        let params = PatchParams::apply(MANAGER).force();
        match event {
            Event::Apply(lamp) => {
                let name = lamp.name_any();
                let owner = lamp.controller_owner_ref(&()).unwrap();
                let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"watts": lamp.spec.watts.to_string()},
                    "metadata": {"name": name, "ownerReferences": [owner]}});
                maps.patch(&name, &params, &Patch::Apply(map)).await?;
                let status = json!({"apiVersion": Lamp::api_version(&()), "kind": "Lamp", "status": {"lit": lamp.spec.bulbs}});
                own.patch_status(&name, &params, &Patch::Apply(status)).await?;
            }
            Event::Cleanup(lamp) => {
                let name = format!("{}-is-out", lamp.name_any());
                let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
                maps.patch(&name, &params, &Patch::Apply(map)).await?;
            }
        }
        Ok::<_, kube::Error>(Action::await_change())
    };
    finalizer(&lamps, "light.example.com/out", lamp, events).await
}

fn lamp(name: &str, spec: &str) -> String {
    format!("{{apiVersion: light.example.com/v1, kind: Lamp, metadata: {{name: {name}}}, spec: {spec}}}")
}

#[test]
fn a_controller_of_a_derived_kind() {
    let mut c = Cluster::start(KNARR);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = |future: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
        runtime.block_on(async { tokio::time::timeout(*wait::PATIENCE, future).await }).expect("an end in time");
    };
    let file = Kubeconfig::read_from(c.kubeconfig()).unwrap();
    let client = runtime.block_on(async {
        Client::try_from(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap()).unwrap()
    });
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    run(Box::pin(async move {
        definitions.create(&PostParams::default(), &Lamp::crd()).await.unwrap();
        let established = await_condition(definitions, Lamp::crd_name(), conditions::is_crd_established());
        established.await.unwrap();
    }));
    let (tasks, _failures) = Tasks::root();
    {
        let _entered = runtime.enter();
        let lamps: Api<Lamp> = Api::namespaced(client.clone(), "default");
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        let all = watcher::Config::default().streaming_lists();
        let again = |_: Arc<Lamp>, _: &Finalized, _: Arc<Client>| Action::requeue(Duration::from_millis(100));
        let controller = Controller::new(lamps, all.clone()).owns(maps, all);
        let controller = controller.run(reconcile, again, Arc::new(client.clone())).for_each(|_| async {});
        tasks.spawn_until_cancelled("controller", OnFailure::Log, async {
            controller.await;
            Ok::<_, Infallible>(())
        });
    }

    // What the struct says is what the API holds to.
    let refused = |name: &str, spec: &str, expected: &str| {
        let outcome = c.try_k_with("create -f -", &lamp(name, spec));
        assert!(outcome.code == Some(1) && outcome.stderr.contains(expected), "{outcome:?}");
    };
    refused("hall", "{room: hall}", "spec.watts: Required value");
    refused(
        "hall",
        "{room: hall, watts: 200}",
        "spec.watts: Invalid value: 200: spec.watts in body should be less than or equal to 100",
    );
    refused("hall", "{room: hall, watts: 60, dimmed: true}", "a dimmed lamp has at most 40 watts");
    refused("hall-of-mirrors", "{room: hall, watts: 60}", "names of lamps are short");
    refused("hall", "{room: hall, watts: 60, shade: {paper: {folds: 2}, glass: {colour: red}}}", "spec.shade");
    refused("hall", "{room: hall, watts: 60, colour: red}", "unknown field \"spec.colour\"");

    c.k_with("create -f -", &lamp("hall", "{room: hall, watts: 40, shade: {paper: {folds: 2}}}"));
    c.k("wait --for=jsonpath={.status.lit}=1 lamp/hall --timeout=50s");
    let table = c.k("get lp");
    assert_eq!(table.split_whitespace().collect::<Vec<_>>(), ["NAME", "ROOM", "LIT", "hall", "hall", "1"]);
    c.k("scale lamp hall --replicas=3");
    c.k("wait --for=jsonpath={.status.lit}=3 lamp/hall --timeout=50s");
    let patch = |patch: &str| c.try_kubectl(&["patch", "lamp", "hall", "--type=merge", "-p", patch]);
    assert!(patch(r#"{"spec": {"room": "attic"}}"#).stderr.contains("a lamp stays in its room"));
    assert!(patch(r#"{"spec": {"watts": 20}}"#).stderr.contains("lamps grow"));
    assert_eq!(patch(r#"{"spec": {"watts": 60}}"#).code, Some(0));
    eventually("its ConfigMap follows", || (c.k("get configmap hall -o jsonpath={.data.watts}") == "60").then_some(()));

    // The server dies; the controller goes on.
    c.kill_server();
    c.start_server();
    c.k_with("create -f -", &lamp("attic", "{room: attic, watts: 1}"));
    c.k("wait --for=jsonpath={.status.lit}=1 lamp/attic --timeout=50s");
    let lamps: Api<Lamp> = Api::namespaced(client, "default");
    run(Box::pin(async move {
        let found = lamps.list(&ListParams::default().fields("spec.room=hall")).await.unwrap();
        assert_eq!(
            found.items.iter().map(|lamp| (lamp.name_any(), lamp.spec.bulbs)).collect::<Vec<_>>(),
            [("hall".to_owned(), 3)]
        );
        assert!(matches!(found.items[0].spec.shade, Some(Shade::Paper { folds: 2 })));
    }));
    c.k("delete lamp hall");
    assert_eq!(c.k("get configmap hall-is-out -o name"), "configmap/hall-is-out\n");
    c.k("wait --for=delete configmap/hall --timeout=50s");
    c.k("delete crd lamps.light.example.com --timeout=50s");
    assert_eq!(c.k("get configmap attic-is-out -o name"), "configmap/attic-is-out\n");
    runtime.block_on(tasks.drain(Duration::from_secs(5)));
}
