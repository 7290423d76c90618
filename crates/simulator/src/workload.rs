//! The users of a simulated cluster: they make, change and delete things at random.

mod templates;

use std::sync::Arc;
use std::time::Duration;

use client::Client;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::ask::{ask, code};
use crate::audit::Auditor;
use crate::kubelets::Kubelets;
use crate::random::Random;

/// A kind that users make.
struct Kind {
    /// For names.
    short: &'static str,
    /// Of the API, before the namespace.
    group: &'static str,
    plural: &'static str,
    make: fn(&mut Random) -> Value,
    /// A merge patch that changes something.
    change: fn(&mut Random) -> Value,
    /// How often it is chosen.
    weight: u64,
}

const NAMESPACES: [&str; 2] = ["red", "blue"];
/// Objects of a kind in a namespace.
const NAMES: u64 = 2;

/// The users.
pub(crate) struct Workload {
    client: Client,
    random: Random,
    auditor: Arc<Auditor>,
    kubelets: Kubelets,
    /// Whether pods may have volumes that are on one node: not where a node goes for good, and their data with it.
    local: bool,
}

impl Workload {
    pub(crate) fn new(random: Random, client: Client, auditor: Arc<Auditor>, kubelets: Kubelets, local: bool) -> Self {
        Self { client, random, auditor, kubelets, local }
    }

    /// Works for so long.
    pub(crate) async fn run(&mut self, lasts: Duration) {
        let end = Instant::now() + lasts;
        while Instant::now() < end {
            self.act().await;
            let busy = self.random.chance(600);
            let wait = if busy { self.random.millis(0, 1000) } else { self.random.millis(1000, 15_000) };
            sleep(wait).await;
        }
    }

    /// Stops what would go on for ever, and what would keep pods from their places.
    pub(crate) async fn stop(&self) {
        for cron in self.auditor.objects("/registry/batch/cronjobs/") {
            let path = format!("{BATCH}/namespaces/{}/cronjobs/{}", text(&cron, "namespace"), text(&cron, "name"));
            self.insist(Method::PATCH, &path, Some(&json!({"spec": {"suspend": true}}))).await;
        }
        for quota in self.auditor.objects("/registry/core/resourcequotas/") {
            let roomy = quota["spec"]["hard"]["pods"].as_str().is_some_and(|pods| pods.len() > 2);
            if !roomy {
                let path = format!("/api/v1/namespaces/{}/resourcequotas/{}", text(&quota, "namespace"), text(&quota, "name"));
                self.insist(Method::DELETE, &path, None).await;
            }
        }
        for node in self.auditor.objects("/registry/core/nodes/") {
            self.cordon(text(&node, "name"), false).await;
        }
    }

    /// Sends a request until it is carried out, or its object is gone.
    async fn insist(&self, method: Method, path: &str, body: Option<&Value>) {
        while let Err(error) = ask(&self.client, method.clone(), path, body).await {
            if code(&error) == Some(404) {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn cordon(&self, node: &str, cordoned: bool) {
        self.insist(Method::PATCH, &format!("/api/v1/nodes/{node}"), Some(&json!({"spec": {"unschedulable": cordoned}}))).await;
    }

    /// Takes all pods off a node that should let themselves be evicted, as long as patience lasts.
    async fn drain(&mut self) {
        let Some(node) = self.any("/registry/core/nodes/") else { return };
        let name = text(&node, "name").to_owned();
        self.cordon(&name, true).await;
        for _ in 0..self.random.between(1, 6) {
            for pod in self.auditor.objects("/registry/core/pods/") {
                let of_daemon = pod["metadata"]["ownerReferences"][0]["kind"] == "DaemonSet";
                if pod["spec"]["nodeName"] == name && !of_daemon {
                    self.evict(&pod).await;
                }
            }
            let wait = self.random.millis(500, 5000);
            sleep(wait).await;
        }
        if self.random.chance(700) {
            self.cordon(&name, false).await;
        }
    }

    async fn evict(&self, pod: &Value) {
        let path = format!("/api/v1/namespaces/{}/pods/{}/eviction", text(pod, "namespace"), text(pod, "name"));
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": text(pod, "name")}});
        let _ = ask(&self.client, Method::POST, &path, Some(&eviction)).await;
    }

    /// Any of the objects under a prefix.
    fn any(&mut self, prefix: &str) -> Option<Value> {
        let places =
            self.auditor.find(prefix, |object| Some((text(object, "namespace").to_owned(), text(object, "name").to_owned())));
        let last = (places.len() as u64).checked_sub(1)?;
        let (namespace, name) = &places[self.random.between(0, last) as usize];
        let own = |object: &Value| text(object, "namespace") == namespace && text(object, "name") == name;
        self.auditor.find(prefix, |object| own(object).then(|| object.clone())).pop()
    }

    /// Makes or deletes a volume by hand.
    async fn volume(&mut self) {
        let name = format!("volume-{}", self.random.between(0, 3));
        let all = "/api/v1/persistentvolumes";
        let _ = if self.random.chance(700) {
            let volume = templates::volume(&mut self.random, &name);
            ask(&self.client, Method::POST, all, Some(&volume)).await
        } else {
            ask(&self.client, Method::DELETE, &format!("{all}/{name}"), None).await
        };
    }

    /// The apps of a namespace have more to do, or less.
    fn demand(&mut self) {
        let namespace = *self.random.pick(&NAMESPACES);
        let milli = self.random.between(0, 300);
        self.kubelets.set_demand(namespace, milli);
    }

    /// One thing that a user does. It may fail; then it has not been done, or nobody knows.
    async fn act(&mut self) {
        match self.random.between(0, 99) {
            0..=7 => self.namespace(Method::POST).await,
            8 => self.namespace(Method::DELETE).await,
            9..=15 => self.end_pod().await,
            16..=22 => self.touch().await,
            23..=25 => self.volume().await,
            26..=27 => self.drain().await,
            28..=31 => self.demand(),
            _ => self.object().await,
        }
    }

    async fn namespace(&mut self, method: Method) {
        let name = *self.random.pick(&NAMESPACES);
        let _ = match method {
            Method::DELETE => ask(&self.client, method, &format!("/api/v1/namespaces/{name}"), None).await,
            _ => ask(&self.client, method, "/api/v1/namespaces", Some(&json!({"metadata": {"name": name}}))).await,
        };
    }

    /// Writes to an object that somebody else may be about to write to: whoever has read it before gets a conflict.
    async fn touch(&mut self) {
        let kind = self.random.pick(templates::KINDS);
        let group = kind.group.trim_start_matches("/apis/").trim_start_matches("/api/");
        let group = group.split_once('/').map_or("core", |(group, _)| group);
        let Some(object) = self.any(&format!("/registry/{group}/{}/", kind.plural)) else { return };
        let path = format!("{}/namespaces/{}/{}/{}", kind.group, text(&object, "namespace"), kind.plural, text(&object, "name"));
        let note = json!({"metadata": {"annotations": {"simulator/note": self.random.next().to_string()}}});
        let _ = ask(&self.client, Method::PATCH, &path, Some(&note)).await;
    }

    /// Deletes a pod, or has it evicted.
    async fn end_pod(&mut self) {
        let Some(pod) = self.any("/registry/core/pods/") else { return };
        if self.random.chance(500) {
            let path = format!("/api/v1/namespaces/{}/pods/{}", text(&pod, "namespace"), text(&pod, "name"));
            let _ = ask(&self.client, Method::DELETE, &path, None).await;
        } else {
            self.evict(&pod).await;
        }
    }

    async fn object(&mut self) {
        let kinds = templates::KINDS;
        let mut chosen = self.random.between(0, kinds.iter().map(|kind| kind.weight).sum::<u64>() - 1);
        let kind = kinds.iter().find(|kind| {
            let here = chosen < kind.weight;
            chosen = chosen.saturating_sub(kind.weight);
            here
        });
        let Some(kind) = kind else { return };
        let namespace = *self.random.pick(&NAMESPACES);
        let name = format!("{}-{}", kind.short, self.random.between(0, NAMES - 1));
        let collection = format!("{}/namespaces/{namespace}/{}", kind.group, kind.plural);
        let path = format!("{collection}/{name}");
        match self.random.between(0, 9) {
            0..=4 => {
                let mut object = templates::named((kind.make)(&mut self.random), &name);
                if let Some(spec) = object["spec"].as_object_mut().filter(|_| !self.local) {
                    spec.remove("volumeClaimTemplates");
                }
                match ask(&self.client, Method::POST, &collection, Some(&object)).await.err().and_then(|error| code(&error)) {
                    Some(409) => self.change(kind, &path).await,
                    Some(404) => {
                        let made = json!({"metadata": {"name": namespace}});
                        let _ = ask(&self.client, Method::POST, "/api/v1/namespaces", Some(&made)).await;
                    }
                    _ => {}
                }
            }
            5..=7 => self.change(kind, &path).await,
            _ => {
                let policy = *self.random.pick(&["Background", "Background", "Foreground", "Orphan"]);
                let _ = ask(&self.client, Method::DELETE, &path, Some(&json!({"propagationPolicy": policy}))).await;
            }
        }
    }

    async fn change(&mut self, kind: &Kind, path: &str) {
        let change = (kind.change)(&mut self.random);
        let _ = ask(&self.client, Method::PATCH, path, Some(&change)).await;
    }
}

const BATCH: &str = "/apis/batch/v1";

fn text<'v>(object: &'v Value, key: &str) -> &'v str {
    object["metadata"][key].as_str().unwrap_or_default()
}
