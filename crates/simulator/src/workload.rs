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
}

impl Workload {
    pub(crate) fn new(random: Random, client: Client, auditor: Arc<Auditor>) -> Self {
        Self { client, random, auditor }
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

    /// Stops what would go on for ever.
    pub(crate) async fn stop(&self) {
        for cron in self.auditor.objects("/registry/batch/cronjobs/") {
            let path = format!("{BATCH}/namespaces/{}/cronjobs/{}", text(&cron, "namespace"), text(&cron, "name"));
            let suspend = json!({"spec": {"suspend": true}});
            while let Err(error) = ask(&self.client, Method::PATCH, &path, Some(&suspend)).await {
                if code(&error) == Some(404) {
                    break;
                }
                sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// One thing that a user does. It may fail; then it has not been done, or nobody knows.
    async fn act(&mut self) {
        match self.random.between(0, 99) {
            0..=7 => self.namespace(Method::POST).await,
            8 => self.namespace(Method::DELETE).await,
            9..=15 => self.end_pod().await,
            16..=22 => self.touch().await,
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
        let mut objects = self.auditor.objects(&format!("/registry/{group}/{}/", kind.plural));
        if objects.is_empty() {
            return;
        }
        let object = objects.swap_remove(self.random.between(0, objects.len() as u64 - 1) as usize);
        let path = format!("{}/namespaces/{}/{}/{}", kind.group, text(&object, "namespace"), kind.plural, text(&object, "name"));
        let note = json!({"metadata": {"annotations": {"simulator/note": self.random.next().to_string()}}});
        let _ = ask(&self.client, Method::PATCH, &path, Some(&note)).await;
    }

    /// Deletes a pod, or has it evicted.
    async fn end_pod(&mut self) {
        let mut pods = self.auditor.objects("/registry/core/pods/");
        if pods.is_empty() {
            return;
        }
        let pod = pods.swap_remove(self.random.between(0, pods.len() as u64 - 1) as usize);
        let path = format!("/api/v1/namespaces/{}/pods/{}", text(&pod, "namespace"), text(&pod, "name"));
        let _ = if self.random.chance(500) {
            ask(&self.client, Method::DELETE, &path, None).await
        } else {
            let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": text(&pod, "name")}});
            ask(&self.client, Method::POST, &format!("{path}/eviction"), Some(&eviction)).await
        };
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
                let object = templates::named((kind.make)(&mut self.random), &name);
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
