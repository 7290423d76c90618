//! What kubelets answer when somebody asks them through the API: they make and remove the directories of local volumes, and say what
//! their pods use. The simulated network answers in their place, since a real answer would come over a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::audit::Auditor;

/// The annotation of a node that makes volumes, and where.
pub(crate) const VOLUMES: (&str, &str) = ("knarr.io/local-volumes", "/volumes");

/// Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Kubelets(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By namespace what all pods of an app use together, in thousandths of a processor.
    demand: BTreeMap<String, u64>,
    /// By node the volumes that have a directory there.
    directories: BTreeMap<String, BTreeSet<String>>,
}

/// A question for kubelets.
pub(crate) enum Question {
    /// Whether a volume has its directory on a node from now on.
    Directory { node: String, volume: String, made: bool },
    /// What the pods of an app use.
    Usage { namespace: String, app: String },
}

impl Question {
    /// None for what the API server answers itself.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        let parts: Vec<&str> = request.uri().path().trim_start_matches('/').split('/').collect();
        match (request.method(), parts.as_slice()) {
            (method, ["api", "v1", "nodes", node, "proxy", "knarr", "volumes", volume]) => {
                let made = *method == Method::PUT;
                Some(Self::Directory { node: (*node).to_owned(), volume: (*volume).to_owned(), made })
            }
            (&Method::GET, ["apis", "metrics.k8s.io", "v1beta1", "namespaces", namespace, "pods"]) => {
                let query = request.uri().query().unwrap_or_default().replace("%3D", "=");
                let app = query.split_once("app=").map(|(_, app)| app.split(['&', '%']).next().unwrap_or_default());
                Some(Self::Usage { namespace: (*namespace).to_owned(), app: app.unwrap_or_default().to_owned() })
            }
            _ => None,
        }
    }

    /// The node that has to answer, if it is a certain one.
    pub(crate) fn node(&self) -> Option<&str> {
        match self {
            Self::Directory { node, .. } => Some(node),
            Self::Usage { .. } => None,
        }
    }
}

impl Kubelets {
    /// The pods of each app of a namespace use so much together from now on.
    pub(crate) fn set_demand(&self, namespace: &str, milli: u64) {
        self.0.lock().demand.insert(namespace.to_owned(), milli);
    }

    pub(crate) fn demand(&self, namespace: &str) -> u64 {
        self.0.lock().demand.get(namespace).copied().unwrap_or(0)
    }

    /// All directories, as node and volume.
    pub(crate) fn directories(&self) -> BTreeSet<(String, String)> {
        let state = self.0.lock();
        let of_node = |(node, volumes): (&String, &BTreeSet<String>)| {
            volumes.iter().map(|volume| (node.clone(), volume.clone())).collect::<Vec<_>>()
        };
        state.directories.iter().flat_map(of_node).collect()
    }

    pub(crate) fn answer(&self, question: &Question, auditor: &Auditor) -> Bytes {
        match question {
            Question::Directory { node, volume, made } => {
                let mut state = self.0.lock();
                let volumes = state.directories.entry(node.clone()).or_default();
                if *made {
                    volumes.insert(volume.clone())
                } else {
                    volumes.remove(volume)
                };
                Bytes::from_static(b"{}")
            }
            Question::Usage { namespace, app } => Bytes::from(self.usage(namespace, app, auditor).to_string()),
        }
    }

    fn usage(&self, namespace: &str, app: &str, auditor: &Auditor) -> Value {
        let running = |pod: &Value| {
            let own = pod["metadata"]["labels"]["app"] == app && pod["status"]["phase"] == "Running";
            own.then(|| pod["metadata"]["name"].clone())
        };
        let pods = auditor.find(&format!("/registry/core/pods/{namespace}/"), running);
        let each = self.demand(namespace) / (pods.len() as u64).max(1);
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let of_pod = |name: &Value| {
            json!({"metadata": {"name": name}, "timestamp": now, "window": "15s",
                "containers": [{"name": "app", "usage": {"cpu": format!("{each}m"), "memory": "10Mi"}}]})
        };
        json!({"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {},
            "items": pods.iter().map(of_pod).collect::<Vec<_>>()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_told_from_other_requests() {
        let of = |method: Method, uri: &str| Question::of(&Request::builder().method(method).uri(uri).body(()).unwrap());
        assert!(of(Method::GET, "/api/v1/nodes/n").is_none());
        let Some(Question::Directory { node, volume, made }) = of(Method::PUT, "/api/v1/nodes/n/proxy/knarr/volumes/v") else {
            panic!("no directory")
        };
        assert_eq!((node.as_str(), volume.as_str(), made), ("n", "v", true));
        let uri = "/apis/metrics.k8s.io/v1beta1/namespaces/red/pods?labelSelector=app%3Dweb-1";
        let Some(Question::Usage { namespace, app }) = of(Method::GET, uri) else { panic!("no usage") };
        assert_eq!((namespace.as_str(), app.as_str()), ("red", "web-1"));
    }
}
