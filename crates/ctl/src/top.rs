//! `top`: what nodes and pods use, as the metrics API tells it.

use apimachinery::quantity::Quantity;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use crate::discovery::Resources;
use crate::error::{Error, Result};
use crate::lists::list;
use crate::output::{print, tell};
use crate::selection::{self, Selectors, Wanted};
use crate::session::{Connection, JSON, Session};
use crate::table::{self, WIDE};

/// Options of `top`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(subcommand)]
    command: Top,
}

#[derive(Subcommand, Clone, Debug)]
enum Top {
    /// What nodes use.
    #[command(visible_aliases = ["nodes", "no"])]
    Node {
        #[command(flatten)]
        which: Which,
        /// Shares of all that nodes have, not of what they have for pods.
        #[arg(long)]
        show_capacity: bool,
    },
    /// What pods use.
    #[command(visible_aliases = ["pods", "po"])]
    Pod {
        #[command(flatten)]
        which: Which,
        /// Pods of all namespaces.
        #[arg(short = 'A', long)]
        all_namespaces: bool,
        /// Each container for itself.
        #[arg(long)]
        containers: bool,
    },
}

#[derive(Args, Clone, Debug)]
struct Which {
    /// Only this one.
    name: Option<String>,
    #[command(flatten)]
    selectors: Selectors,
    /// Most first.
    #[arg(long, value_enum)]
    sort_by: Option<By>,
    /// Without the names of the columns.
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Cpu,
    Memory,
}

/// Thousandths of a processor, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    cpu: i64,
    memory: i64,
}

impl Usage {
    fn of(value: &Value) -> Self {
        let quantity = |key: &str| Quantity::from_value(&value[key]).ok();
        Self { cpu: quantity("cpu").map_or(0, Quantity::as_milli), memory: quantity("memory").map_or(0, Quantity::as_i64) }
    }

    fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, memory: self.memory + other.memory }
    }

    fn cpu(self) -> String {
        format!("{}m", self.cpu)
    }

    fn memory(self) -> String {
        format!("{}Mi", self.memory >> 20)
    }
}

/// A row, with what it is sorted by.
type Row = (Usage, Vec<String>);

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<()> {
    match &options.command {
        Top::Node { which, show_capacity } => nodes(which, *show_capacity).await,
        Top::Pod { which, all_namespaces, containers } => pods(which, *all_namespaces, *containers).await,
    }
}

/// The objects of the metrics API that are meant.
async fn metrics(session: &Session, which: &Which, resource: &str, everywhere: bool) -> Result<Vec<Value>> {
    let resources: &Resources = session.resources().await?;
    let resource = resources.named(resource).map_err(|_| Error::usage("Metrics API not available"))?;
    let namespace = session.namespace_of(resource).filter(|_| !everywhere);
    let wanted = Wanted { resource, names: which.name.iter().cloned().collect() };
    selection::check_names(&[wanted], !which.selectors.is_empty(), everywhere)?;
    if let Some(name) = &which.name {
        return Ok(vec![session.get(&resource.object(namespace, name)).await?]);
    }
    let mut found = list(session, &resource.collection(namespace), &which.selectors.query(), JSON).await?;
    Ok(match found["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    })
}

fn not_yet() -> Error {
    Error::usage("metrics not available yet")
}

async fn nodes(which: &Which, capacity: bool) -> Result<()> {
    let session = Session::open(&which.connection).await?;
    let metrics = metrics(&session, which, "nodes.metrics.k8s.io", false).await?;
    if metrics.is_empty() {
        return Err(not_yet());
    }
    let nodes = list(&session, "/api/v1/nodes", "", JSON).await?;
    let room = |name: &Value| {
        let node = nodes["items"].as_array().into_iter().flatten().find(|node| node["metadata"]["name"] == *name);
        Usage::of(&node.unwrap_or(&Value::Null)["status"][if capacity { "capacity" } else { "allocatable" }])
    };
    let rows = metrics.iter().map(|one| node_row(one, room(&one["metadata"]["name"]))).collect();
    show(which, &["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"], rows)
}

fn node_row(metrics: &Value, room: Usage) -> Row {
    let used = Usage::of(&metrics["usage"]);
    let share = |used: i64, all: i64| if all > 0 { format!("{}%", used * 100 / all) } else { "<unknown>".to_owned() };
    let name = crate::pods::name(metrics).to_owned();
    (used, vec![name, used.cpu(), share(used.cpu, room.cpu), used.memory(), share(used.memory, room.memory)])
}

async fn pods(which: &Which, everywhere: bool, containers: bool) -> Result<()> {
    let session = Session::open(&which.connection).await?;
    let metrics = metrics(&session, which, "pods.metrics.k8s.io", everywhere).await?;
    if metrics.is_empty() {
        // Where nothing runs, there is nothing to wait for.
        let pods = session.resources().await?.named("pods")?;
        let namespace = session.namespace_of(pods).filter(|_| !everywhere);
        let found = list(&session, &pods.collection(namespace), &which.selectors.query(), JSON).await?;
        if found["items"].as_array().is_some_and(|items| !items.is_empty()) {
            return Err(not_yet());
        }
        match namespace {
            Some(namespace) => tell(&format!("No resources found in {namespace} namespace.")),
            None => tell("No resources found"),
        }
        return Ok(());
    }
    let rows = metrics.iter().flat_map(|one| pod_rows(one, everywhere, containers)).collect();
    let header = [("NAMESPACE", everywhere), ("POD", containers), ("NAME", true), ("CPU(cores)", true), ("MEMORY(bytes)", true)];
    let header: Vec<_> = header.into_iter().filter(|(_, shown)| *shown).map(|(name, _)| name).collect();
    show(which, &header, rows)
}

fn pod_rows(metrics: &Value, everywhere: bool, containers: bool) -> Vec<Row> {
    let metadata = &metrics["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let used = metrics["containers"].as_array().into_iter().flatten().map(|one| (text(&one["name"]), Usage::of(&one["usage"])));
    let head = || everywhere.then(|| text(&metadata["namespace"])).into_iter().chain([text(&metadata["name"])]);
    if containers {
        return used.map(|(name, used)| (used, head().chain([name, used.cpu(), used.memory()]).collect())).collect();
    }
    let used = used.fold(Usage::default(), |sum, (_, used)| sum.plus(used));
    vec![(used, head().chain([used.cpu(), used.memory()]).collect())]
}

fn show(which: &Which, header: &[&str], mut rows: Vec<Row>) -> Result<()> {
    match which.sort_by {
        Some(By::Cpu) => rows.sort_by_key(|(used, _)| std::cmp::Reverse(used.cpu)),
        Some(By::Memory) => rows.sort_by_key(|(used, _)| std::cmp::Reverse(used.memory)),
        None => rows.sort_by(|a, b| a.1.cmp(&b.1)),
    }
    let mut lines: Vec<Vec<String>> = Vec::new();
    if !which.no_headers {
        lines.push(header.iter().map(|name| (*name).to_owned()).collect());
    }
    lines.extend(rows.into_iter().map(|(_, row)| row));
    print(&table::lines(WIDE, &lines))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows() {
        let node = json!({"metadata": {"name": "n1"}, "usage": {"cpu": "500m", "memory": "1Gi"}});
        let room = Usage::of(&json!({"cpu": "2", "memory": "4Gi"}));
        assert_eq!(node_row(&node, room).1, ["n1", "500m", "25%", "1024Mi", "25%"]);
        let pod = json!({"metadata": {"namespace": "a", "name": "p"}, "containers": [
            {"name": "x", "usage": {"cpu": "1500000n", "memory": "1Mi"}}, {"name": "y", "usage": {"cpu": "3m", "memory": "2048Ki"}}]});
        let told = |everywhere, containers| {
            pod_rows(&pod, everywhere, containers).into_iter().map(|(_, row)| row.join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(told(true, false), ["a p 5m 3Mi"]);
        assert_eq!(told(false, true), ["p x 2m 1Mi", "p y 3m 2Mi"]);
    }
}
