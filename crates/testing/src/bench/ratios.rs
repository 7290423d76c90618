//! The same work for the API server and for the yardstick, and the CPU time that each spends on one operation.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::load::{Ask, Until, Watchers, once, run};
use super::yardstick::{self, Yardstick};
use super::{CLIENTS, MAPS, PODS, usage};
use crate::api::Endpoint;

/// Watchers of the same objects.
const WATCHERS: usize = 200;
/// Events that each of them sees.
const EVENTS: usize = 400;
/// Pods whose status is patched.
const HELD: u64 = 500;
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// CPU time of one operation.
pub struct Ratio {
    /// What was done.
    pub name: &'static str,
    /// How many times the yardstick's time it may be.
    pub goal: &'static str,
    /// Of the API server.
    pub server: Duration,
    /// Of the yardstick.
    pub yardstick: Duration,
}

/// A server under load.
pub(super) struct Side<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) pid: i32,
}

impl Side<'_> {
    /// CPU time of one request.
    pub(super) async fn cost(&self, clients: usize, until: Until, make: impl Fn(u64) -> Ask) -> Result<Duration> {
        let before = usage::cpu_of(self.pid);
        let done = run(self.endpoint, clients, until, make).await?;
        let used = usage::cpu_of(self.pid).saturating_sub(before);
        Ok(used.div_f64(done.operations.max(1) as f64))
    }

    /// CPU time of one event for one watcher more.
    async fn watch_cost(&self, path: &str, change: impl Fn(u64) -> Ask) -> Result<Duration> {
        let one = self.watched(1, path, &change).await?;
        let many = self.watched(WATCHERS, path, &change).await?;
        Ok(many.saturating_sub(one).div_f64(((WATCHERS - 1) * EVENTS) as f64))
    }

    async fn watched(&self, watchers: usize, path: &str, change: &impl Fn(u64) -> Ask) -> Result<Duration> {
        let open = Watchers::open(self.endpoint, watchers, path).await?;
        let before = usage::cpu_of(self.pid);
        let (read, written) = tokio::join!(open.read(EVENTS), run(self.endpoint, 1, Until::Count(EVENTS as u64), change));
        read?;
        written?;
        Ok(usage::cpu_of(self.pid).saturating_sub(before))
    }
}

/// Measures everything. ConfigMaps `load-0` and so on are there; pods that nobody schedules are made here.
///
/// # Errors
/// When one of both refuses.
pub async fn measure(endpoint: &Endpoint, pid: i32, directory: &Path, time: Duration) -> Result<Vec<Ratio>> {
    for number in 0..HELD {
        once(endpoint, Ask::post(PODS, held_pod(&format!("held-{number}"), 0).to_string())).await?;
    }
    record(endpoint, directory).await?;
    let bare = Yardstick::start(directory)?;
    let server = Side { endpoint, pid };
    let bare = Side { endpoint: bare.endpoint(), pid: bare.pid() };
    let mut ratios = Vec::new();
    let mut add = |name, goal, server, yardstick| ratios.push(Ratio { name, goal, server, yardstick });
    let until = Until::Time(time);
    let get = server.cost(CLIENTS, until, |number| Ask::get(format!("{MAPS}/load-{}", number % 1000))).await?;
    add("get", "1.5 x", get, bare.cost(CLIENTS, until, |_| Ask::get("/get")).await?);
    let list = server.cost(2, until, |_| Ask::get(list_path())).await?;
    add("list of 3,000 x 2 KB", "1.2 x", list, bare.cost(2, until, |_| Ask::get("/list")).await?);
    let watched = format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Dload-0");
    let event = server.watch_cost(&watched, change).await?;
    add(
        "event to one more watcher",
        "1.5 x",
        event,
        bare.watch_cost("/watch", |number| Ask::post("/event", change(number).body)).await?,
    );
    let create = server.cost(CLIENTS, until, |number| Ask::post(MAPS, super::config_map("ratio", number))).await?;
    let body = super::config_map("ratio", 0);
    add("durable create of 2 KB", "2.5 x", create, bare.cost(CLIENTS, until, |_| Ask::post("/create", body.clone())).await?);
    let status = server.cost(CLIENTS, until, patch_status).await?;
    let body = patch_status(0).body;
    add("status patch of a pod", "4 x", status, bare.cost(CLIENTS, until, |_| Ask::post("/status", body.clone())).await?);
    Ok(ratios)
}

/// What [`drive`] can do.
pub const LOADS: [&str; 5] = ["get", "list", "watch", "create", "status"];

/// Puts one load on a server for so long, to be looked at with a profiler, and says how many operations a second it did.
///
/// # Errors
/// When the server refuses.
pub async fn drive(endpoint: &Endpoint, load: &str, time: Duration) -> Result<f64> {
    let start = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    // Those of earlier runs are there.
    for number in 0..1000 {
        let _ = once(endpoint, Ask::post(MAPS, super::config_map("load", number))).await;
    }
    for number in 0..if load == "status" { HELD } else { 0 } {
        let _ = once(endpoint, Ask::post(PODS, held_pod(&format!("held-{number}"), 0).to_string())).await;
    }
    let until = Until::Time(time);
    let get = |number: u64| Ask::get(format!("{MAPS}/load-{}", number % 1000));
    let done = match load {
        "get" => run(endpoint, CLIENTS, until, get).await?,
        "list" => run(endpoint, 2, until, |_| Ask::get(list_path())).await?,
        "create" => {
            run(endpoint, CLIENTS, until, |number| Ask::post(MAPS, super::config_map(&format!("at-{start}"), number))).await?
        }
        "status" => run(endpoint, CLIENTS, until, |number| patch_status(number + number / HELD)).await?,
        _ => {
            let path = format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Dload-0");
            let open = Watchers::open(endpoint, WATCHERS, &path).await?;
            let events = 200 * time.as_secs();
            let (read, written) = tokio::join!(
                open.read(events as usize),
                run(endpoint, 1, Until::Count(events), |number| change(number + start as u64))
            );
            read?;
            written?
        }
    };
    Ok(done.rate())
}

/// Stores the answers that the yardstick gives: those of the API server.
async fn record(endpoint: &Endpoint, directory: &Path) -> Result<()> {
    let write = |name: &str, body: &[u8]| fs::write(directory.join(name), body);
    write("get", &once(endpoint, Ask::get(format!("{MAPS}/load-0"))).await?)?;
    write("list", &once(endpoint, Ask::get(list_path())).await?)?;
    write("create", &once(endpoint, Ask::post(MAPS, super::config_map("first", 0))).await?)?;
    write("status", &once(endpoint, patch_status(0)).await?)?;
    let watch = Watchers::open(endpoint, 1, &format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Dload-0")).await?;
    // Another number than the first of those that are measured: a change that changes nothing is no event.
    let (read, changed) = tokio::join!(watch.read(2), once(endpoint, change(u64::MAX)));
    changed?;
    let read = read?;
    write(yardstick::EVENT, read.split_inclusive(|byte| *byte == b'\n').next_back().context("an event")?)?;
    Ok(())
}

fn list_path() -> String {
    format!("{MAPS}?limit=3000")
}

/// Changes a label of the object that is watched.
fn change(number: u64) -> Ask {
    let patch = json!({"metadata": {"labels": {"number": number.to_string()}}});
    Ask::patch(format!("{MAPS}/load-0"), "application/merge-patch+json", patch.to_string())
}

fn patch_status(number: u64) -> Ask {
    let condition = json!({"type": "Measured", "status": if (number / HELD).is_multiple_of(2) { "True" } else { "False" }});
    let patch = json!({"status": {"conditions": [condition]}});
    Ask::patch(format!("{PODS}/held-{}/status", number % HELD), STRATEGIC, patch.to_string())
}

/// A pod that no scheduler takes, with so many bytes of annotation.
pub fn held_pod(name: &str, padding: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"held": "yes"}, "annotations": {"padding": "x".repeat(padding)}},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "main", "image": "127.0.0.1:5000/busybox:1.36",
            "command": ["sleep", "100000"], "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}]}})
}

/// CPU time of a server-side apply of a Deployment that changes its template, without a commit.
///
/// # Errors
/// When the server refuses.
pub async fn apply(endpoint: &Endpoint, pid: i32, time: Duration) -> Result<Duration> {
    let labels = json!({"app": "applied"});
    let config = move |number: u64| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "applied", "labels": labels},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "main", "image": "nginx", "env": [{"name": "NUMBER", "value": number.to_string()}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}]}}}})
    };
    let path = "/apis/apps/v1/namespaces/default/deployments/applied?fieldManager=bench&force=true";
    let ask =
        |query: &str, number| Ask::patch(format!("{path}{query}"), "application/apply-patch+yaml", config(number).to_string());
    once(endpoint, ask("", 0)).await?;
    Side { endpoint, pid }.cost(8, Until::Time(time), |number| ask("&dryRun=All", number)).await
}

/// CPU time of a get by a user whose right is one of 5,000 bindings, less that of the same get by the administrator.
///
/// # Errors
/// When the server refuses.
pub async fn authorization(endpoint: &Endpoint, pid: i32, time: Duration) -> Result<Duration> {
    const BINDINGS: u64 = 5000;
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let binding = |number: u64| {
        let group = "rbac.authorization.k8s.io";
        let object = json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": format!("user-{number}")},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "apiGroup": group, "name": format!("user-{number}")}]});
        Ask::post(path, object.to_string())
    };
    run(endpoint, CLIENTS, Until::Count(BINDINGS), binding).await?;
    let side = Side { endpoint, pid };
    let get = |user: Option<String>| move |_| Ask { user: user.clone(), ..Ask::get(format!("{MAPS}/load-0")) };
    let user = format!("user-{}", BINDINGS - 1);
    // The last binding may take a moment to apply.
    while once(endpoint, get(Some(user.clone()))(0)).await.is_err() {
        tokio::task::yield_now().await;
    }
    let administrator = side.cost(CLIENTS, Until::Time(time), get(None)).await?;
    Ok(side.cost(CLIENTS, Until::Time(time), get(Some(user))).await?.saturating_sub(administrator))
}
