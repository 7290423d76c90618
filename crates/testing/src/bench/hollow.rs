//! Clusters of many nodes that are hollow (`knarr server --hollow-nodes`): what the API server, the controllers and the scheduler do
//! with them is real.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base::tasks::Tasks;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::load::{Ask, Until, once, run};
use crate::api::Endpoint;

/// Where Deployments of the load are.
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
/// Where Jobs of the load are.
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const MERGE: &str = "application/merge-patch+json";
/// Time between two looks at how far it is, and between two requests whose time counts.
const LOOK: Duration = Duration::from_millis(100);
/// After so long without an end nothing is expected any more.
const PATIENCE: Duration = Duration::from_secs(900);

/// What became of a load.
pub struct Went {
    /// How long it took.
    pub seconds: f64,
    /// The slowest but one in a hundred of requests that somebody else made meanwhile.
    pub p99: Duration,
}

/// How pods are to be placed.
#[derive(Clone, Copy)]
pub enum Placement {
    /// Anywhere.
    Free,
    /// Evenly over zones, and apart from each other.
    Spread,
}

/// A Deployment whose pods are as those of most are, without what takes no part.
fn deployment(name: &str, replicas: u64, placement: Placement) -> Value {
    let labels = json!({"app": name});
    let mut spec = json!({"containers": [{"name": "main", "image": "127.0.0.1:5000/busybox:1.36", "command": ["httpd", "-f"],
        "ports": [{"containerPort": 8080}], "env": [{"name": "LEVEL", "value": "info"}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}}]});
    if let Placement::Spread = placement {
        spec["topologySpreadConstraints"] = json!([{"maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": labels}}]);
        spec["affinity"]["podAntiAffinity"] = json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100,
            "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}}]});
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}})
}

fn job(name: &str, pods: u64) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"parallelism": pods, "completions": pods,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "127.0.0.1:5000/busybox:1.36"}]}}}})
}

async fn get(endpoint: &Endpoint, path: &str) -> Result<Value> {
    Ok(serde_json::from_slice(&once(endpoint, Ask::get(path)).await?)?)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// Waits until so many nodes are Ready.
///
/// # Errors
/// When that takes too long, or the server refuses.
pub async fn nodes(endpoint: &Endpoint, count: usize) -> Result<f64> {
    let start = Instant::now();
    let ready = |node: &&Value| {
        let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        let usable = node["spec"]["taints"].as_array().is_none_or(Vec::is_empty);
        usable && conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    loop {
        let list = get(endpoint, "/api/v1/nodes").await?;
        if items(&list).filter(ready).count() >= count {
            return Ok(start.elapsed().as_secs_f64());
        }
        wait(start).await?;
    }
}

async fn wait(start: Instant) -> Result<()> {
    if start.elapsed() > PATIENCE {
        bail!("it is not done after {} s", PATIENCE.as_secs());
    }
    tokio::time::sleep(LOOK).await;
    Ok(())
}

/// Does something until `done` says so of what is at `path`, and takes the times of small requests meanwhile.
async fn until(
    endpoint: &Endpoint,
    path: &str,
    act: impl Future<Output = Result<()>>,
    done: impl Fn(&Value) -> bool,
) -> Result<Went> {
    let (start, times) = (Instant::now(), RefCell::new(Vec::new()));
    let (tasks, _failures) = Tasks::root();
    let mut probe = endpoint.connect(&tasks).await?;
    let mut ask = async || {
        let asked = Instant::now();
        let answer = probe.send_request(Ask::get("/api/v1/namespaces/default").request()?).await?;
        answer.into_body().collect().await?;
        anyhow::Ok(asked.elapsed())
    };
    let probing = async {
        loop {
            match ask().await {
                Ok(took) => times.borrow_mut().push(took),
                Err(error) => return error,
            }
            tokio::time::sleep(LOOK / 5).await;
        }
    };
    let work = async {
        act.await?;
        while !done(&get(endpoint, path).await?) {
            wait(start).await?;
        }
        anyhow::Ok(start.elapsed().as_secs_f64())
    };
    let seconds = tokio::select! {
        seconds = work => seconds?,
        error = probing => return Err(error),
    };
    tasks.drain(Duration::from_secs(1)).await;
    let mut times = times.into_inner();
    times.sort();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    Ok(Went { seconds, p99 })
}

/// Makes so many Deployments, and returns when all their pods run and are ready.
///
/// # Errors
/// When the server refuses, or it takes too long.
pub async fn deploy(endpoint: &Endpoint, prefix: &str, count: u64, replicas: u64, placement: Placement) -> Result<Went> {
    let make = async {
        let body = |number| deployment(&format!("{prefix}-{number}"), replicas, placement).to_string();
        run(endpoint, 4, Until::Count(count), |number| Ask::post(DEPLOYMENTS, body(number))).await?;
        Ok(())
    };
    let mine = format!("{prefix}-");
    until(endpoint, DEPLOYMENTS, make, |list| {
        let own = items(list).filter(|one| one["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(&mine)));
        own.map(|one| one["status"]["readyReplicas"].as_u64().unwrap_or(0)).sum::<u64>() >= count * replicas
    })
    .await
}

/// Changes the template of a Deployment, and returns when all its pods are of the new one and ready.
///
/// # Errors
/// When the server refuses, or it takes too long.
pub async fn roll(endpoint: &Endpoint, name: &str) -> Result<Went> {
    let path = format!("{DEPLOYMENTS}/{name}");
    let change = json!({"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}}).to_string();
    let patch = async { once(endpoint, Ask::patch(path.clone(), MERGE, change)).await.map(drop) };
    until(endpoint, &path, patch, |deployment| {
        let (status, wanted) = (&deployment["status"], &deployment["spec"]["replicas"]);
        let all = ["replicas", "updatedReplicas", "readyReplicas"].iter().all(|field| status[*field] == *wanted);
        all && status["observedGeneration"] == deployment["metadata"]["generation"]
    })
    .await
}

/// Makes so many Jobs of so many pods, and returns when all are complete.
///
/// # Errors
/// When the server refuses, or it takes too long.
pub async fn jobs(endpoint: &Endpoint, count: u64, pods: u64) -> Result<Went> {
    let make = async {
        let body = |number| job(&format!("job-{number}"), pods).to_string();
        run(endpoint, 8, Until::Count(count), |number| Ask::post(JOBS, body(number))).await?;
        Ok(())
    };
    let complete = |job: &&Value| {
        let mut conditions = job["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| condition["type"] == "Complete" && condition["status"] == "True")
    };
    until(endpoint, JOBS, make, |list| items(list).filter(complete).count() as u64 >= count).await
}

/// Deletes all Deployments, and returns when all their pods are gone.
///
/// # Errors
/// When the server refuses, or it takes too long.
pub async fn remove(endpoint: &Endpoint) -> Result<Went> {
    let delete = async {
        let all = Ask { method: http::Method::DELETE, ..Ask::get(DEPLOYMENTS) };
        once(endpoint, all).await.map(drop)
    };
    until(endpoint, "/api/v1/namespaces/default/pods?limit=1", delete, |list| items(list).next().is_none()).await
}

/// Seconds that the scheduler has spent deciding, and how many pods it was about: from its metrics.
///
/// # Errors
/// When the server refuses, or has no such metric.
pub async fn decided(endpoint: &Endpoint) -> Result<(f64, f64)> {
    let text = once(endpoint, Ask::get("/metrics")).await?;
    let text = String::from_utf8_lossy(&text);
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse::<f64>().ok()).with_context(|| format!("a metric {name}"))
    };
    let name = "scheduler_scheduling_algorithm_duration_seconds";
    Ok((value(&format!("{name}_sum"))?, value(&format!("{name}_count"))?))
}
