//! The metrics API (`metrics.k8s.io`): what nodes and pods use, from the kubelets' `/metrics/resource`.
//!
//! Nothing is sampled while nobody asks. A first question looks twice, a second apart; later ones look again when what is known is
//! older than some seconds, so that an autoscaler that asks every ten seconds has one look for each of its questions.

mod history;
pub(crate) mod known;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::quantity::Quantity;
use apimachinery::{Status, time};
use futures::StreamExt;
use http::Response;
use jiff::Timestamp;
use kinds::KindDef;
use registry::{Entry, List, ListOptions};
use serde::Deserialize;
use serde_json::{Value, json};

use self::history::{History, Moment, Rates, Used};
use crate::body::Body;
use crate::call::{Inner, On};
use crate::query::Query;
use crate::respond;

/// How long a kubelet may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The time between the two looks of a first question.
const APART: Duration = Duration::from_secs(1);
/// Kubelets that are asked at once.
const KUBELETS: usize = 64;

/// What counts of a node or a pod.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Source {
    metadata: Metadata,
    spec: Spec,
    status: Phase,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Phase {
    phase: String,
}

impl Inner {
    /// Reads what nodes or pods use.
    pub(crate) async fn usage(&self, on: &On<'_>) -> Result<Response<Body>, Status> {
        let (target, def) = (&on.target, &on.resource.def);
        let source = self.registry.resource("", "v1", &def.plural).ok_or_else(Status::page_not_found)?;
        if !target.name.is_empty() {
            let found = self.registry.get(&source, target.namespace, target.name, None).await?;
            let measured = self.measure(def, &[found]).await.into_iter().next();
            let object = measured.ok_or_else(|| self.unmeasured(on))?;
            return self.show_computed(on, object);
        }
        let options = Query::parse(on.call.query).list_options(false)?;
        let namespace = Some(target.namespace).filter(|namespace| !namespace.is_empty());
        let labelled = ListOptions { labels: options.labels.clone(), ..ListOptions::default() };
        let sources: List = self.registry.list(&source, namespace, &labelled).await?;
        let objects = self.measure(def, &sources.entries).await;
        let list = self.registry.computed(on.resource, namespace, &options, objects)?;
        Ok(respond::list(on.call.accept, on.resource, list, on.call.query).await)
    }

    /// There is the object, but nothing is known of what it uses.
    fn unmeasured(&self, on: &On<'_>) -> Status {
        let (namespace, name) = (on.target.namespace, on.target.name);
        let name = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
        let resource = on.resource.def.kind.to_lowercase();
        Status::not_found(&apimachinery::GroupResource::new(&*on.resource.def.group, &*resource), &name)
    }

    /// What nodes, or pods, use; those of which nothing is known are left out.
    async fn measure(&self, def: &KindDef, sources: &[Arc<Entry>]) -> Vec<Value> {
        let sources = sources.iter().filter_map(|entry| serde_json::from_slice::<Source>(&entry.json).ok());
        let pods = def.namespaced;
        let sources: Vec<Source> = sources.filter(|source| !pods || source.status.phase == "Running").collect();
        let node = |source: &Source| if pods { source.spec.node_name.clone() } else { source.metadata.name.clone() };
        let nodes: BTreeSet<String> = sources.iter().map(node).filter(|name| !name.is_empty()).collect();
        let asked = nodes.into_iter().map(|name| async move {
            let rates = self.rates(&name).await;
            (name, rates)
        });
        let rates: HashMap<String, Rates> = futures::stream::iter(asked).buffer_unordered(KUBELETS).collect().await;
        let now = time::now();
        let measured = |source: Source| {
            let rates = rates.get(&node(&source))?;
            let Metadata { namespace, name, .. } = &source.metadata;
            match pods {
                true => of_pod(&source, rates.pods.get(&(namespace.clone(), name.clone()))?, &now),
                false => Some(of_node(&source, rates.node.as_ref()?, &now)),
            }
        };
        sources.into_iter().filter_map(measured).collect()
    }

    /// What a node and its pods use; nothing when its kubelet does not answer.
    async fn rates(&self, node: &str) -> Rates {
        let history = self.usages.of(node);
        // Who else asks meanwhile waits for the same answer.
        let mut history = history.lock().await;
        if history.is_fresh(self.usages.now()) {
            return history.rates();
        }
        match self.look(node, &mut history).await {
            Ok(()) if !history.has_two() => {
                tokio::time::sleep(APART).await;
                if let Err(error) = self.look(node, &mut history).await {
                    tracing::debug!(node, error = error.message, "the kubelet does not say what is used");
                }
                history.rates()
            }
            Ok(()) => history.rates(),
            Err(error) => {
                tracing::debug!(node, error = error.message, "the kubelet does not say what is used");
                // A node that is gone leaves nothing behind.
                self.usages.forget(node);
                Rates::default()
            }
        }
    }

    async fn look(&self, node: &str, history: &mut History) -> Result<(), Status> {
        let late = |_| Status::timeout(format!("the kubelet of node {node} does not answer"), 0);
        let page = tokio::time::timeout(PATIENCE, self.kubelet_page(node, "/metrics/resource")).await.map_err(late)??;
        let now = Timestamp::now().as_duration().as_secs_f64();
        history.add(self.usages.now(), Moment::read(&String::from_utf8_lossy(&page), now));
        Ok(())
    }
}

fn of_node(source: &Source, used: &Used, now: &str) -> Value {
    json!({
        "metadata": metadata(source, now), "timestamp": timestamp(used), "window": window(used), "usage": usage(used),
    })
}

/// A pod has the time of the container that was measured longest.
fn of_pod(source: &Source, containers: &BTreeMap<String, Used>, now: &str) -> Option<Value> {
    let longest = containers.values().max_by(|a, b| a.window.total_cmp(&b.window))?;
    let each = containers.iter().map(|(name, used)| json!({"name": name, "usage": usage(used)}));
    Some(json!({
        "metadata": metadata(source, now), "timestamp": timestamp(longest), "window": window(longest),
        "containers": each.collect::<Vec<_>>(),
    }))
}

fn metadata(source: &Source, now: &str) -> Value {
    let Metadata { name, namespace, labels } = &source.metadata;
    let mut metadata = json!({"name": name, "creationTimestamp": now});
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.as_str().into();
    }
    if let Some(labels) = labels {
        metadata["labels"] = json!(labels);
    }
    metadata
}

fn timestamp(used: &Used) -> String {
    Timestamp::from_millisecond((used.at * 1000.0) as i64).map(time::format).unwrap_or_default()
}

fn window(used: &Used) -> String {
    time::duration_text(Duration::from_millis((used.window * 1000.0).round() as u64))
}

/// CPU in billionths of a core, memory in whole kibibytes, as metrics-server has them.
fn usage(used: &Used) -> Value {
    let quantity = |text: String| Quantity::parse(&text).unwrap_or_default().to_string();
    let cpu = quantity(format!("{}n", (used.cpu * 1e9).round() as u64));
    json!({"cpu": cpu, "memory": quantity(format!("{}Ki", (used.memory / 1024.0) as u64))})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_times_are_written_as_clients_expect_them() {
        let check = |cpu: f64, memory: f64, seconds: f64, expected: [&str; 3]| {
            let used = Used { cpu, memory, window: seconds, at: 1.0 };
            let amounts = usage(&used);
            let shown = [amounts["cpu"].as_str().unwrap(), amounts["memory"].as_str().unwrap(), &window(&used)];
            assert_eq!(shown, expected);
        };
        check(0.001_234_567, 4096.0, 15.0, ["1234567n", "4Ki", "15s"]);
        check(0.0, 100.0, 1.0021, ["0", "0", "1.002s"]);
        check(2.0, 1024.0 * 1024.0, 61.5, ["2", "1Mi", "1m1.5s"]);
    }
}
