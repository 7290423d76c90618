//! Who has to go on small clusters.

#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::cycle::Chooser;
use crate::testing::{node, pod};

/// A pod that asks for `cpu`, with more fields from `more`.
fn asking(name: &str, priority: i32, cpu: &str, more: &Value) -> Arc<PodInfo> {
    let mut spec = json!({"priority": priority,
        "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}, "ports": more["ports"]}]});
    spec["preemptionPolicy"] = more["preemptionPolicy"].clone();
    let mut pod = pod(name, spec);
    pod.status = serde_json::from_value(more["status"].clone()).ok();
    pod.metadata.deletion_timestamp = serde_json::from_value(more["ends"].clone()).ok();
    Arc::new(PodInfo::new(Arc::new(pod)))
}

/// Nodes of 4 CPUs each with pods (name, node, priority, cpu, more).
fn cluster(nodes: &[&str], pods: &[(&str, &str, i32, &str, Value)]) -> Cluster {
    let mut cluster = Cluster::default();
    nodes.iter().for_each(|name| cluster.set_node(&node(name, json!({}))));
    for (name, node, priority, cpu, more) in pods {
        cluster.place(asking(name, *priority, cpu, more), node);
    }
    cluster
}

/// What happens when a pod of this priority asks for `cpu`: "node: victims", or the message.
#[track_caller]
fn check(cluster: &mut Cluster, priority: i32, cpu: &str, more: Value, expected: &str) {
    let pod = asking("new", priority, cpu, &more);
    let attempt = Attempt::default();
    let error = Chooser::default().choose(&pod, cluster, &attempt).expect_err("there is room without preemption");
    let before: usize = cluster.nodes().map(|node| node.pods.len()).sum();
    let shown = match candidates(&pod, cluster, &attempt, &error, 0).map(|found| least_harmful(found).unwrap()) {
        Ok(Preemption { node, victims, .. }) => {
            let names: Vec<&str> = victims.iter().map(|victim| victim.uid()).collect();
            format!("{node}: {}", names.join(" "))
        }
        Err(refusal) => refusal.message,
    };
    assert_eq!(shown, expected);
    let after: usize = cluster.nodes().map(|node| node.pods.len()).sum();
    assert_eq!((before, cluster.node("a").map(|node| node.requested.milli_cpu > 0)), (after, Some(true)), "nothing was removed");
}

#[test]
fn as_few_and_as_unimportant_as_possible() {
    let none = || Value::Null;
    let started = |at: &str| json!({"status": {"startTime": format!("2026-01-01T00:00:{at}Z")}});
    let full =
        &mut cluster(&["a"], &[("big", "a", 0, "2", none()), ("small", "a", 0, "1", none()), ("vip", "a", 9, "1", none())]);
    check(full, 5, "2", none(), "a: big");
    check(full, 5, "3", none(), "a: big small");
    check(full, 5, "1", none(), "a: small");
    check(full, 5, "4", none(), "0/1 nodes are available: 1 Insufficient cpu.");
    check(full, 0, "1", none(), "0/1 nodes are available: 1 No preemption victims found for incoming pod.");
    check(full, 5, "5", none(), "0/1 nodes are available: 1 Preemption is not helpful for scheduling.");
    check(full, 5, "1", json!({"preemptionPolicy": "Never"}), "not eligible due to preemptionPolicy=Never.");
    // The most important stay, among equals the oldest.
    let ages = &mut cluster(&["a"], &[("old", "a", 0, "2", started("01")), ("young", "a", 0, "2", started("30"))]);
    check(ages, 5, "2", none(), "a: young");
}

#[test]
fn where_it_hurts_least() {
    let none = || Value::Null;
    let of = |a: &[(i32, &'static str)], b: &[(i32, &'static str)]| {
        let mut pods = Vec::new();
        for (node, list) in [("a", a), ("b", b)] {
            for (index, (priority, cpu)) in list.iter().enumerate() {
                pods.push((format!("{node}{index}"), node, *priority, *cpu, Value::Null));
            }
        }
        let pods = pods.iter().map(|(name, node, priority, cpu, more)| (name.as_str(), *node, *priority, *cpu, more.clone()));
        cluster(&["a", "b"], &pods.collect::<Vec<_>>())
    };
    check(&mut of(&[(2, "4")], &[(1, "2"), (1, "2")]), 5, "4", none(), "b: b0 b1");
    check(&mut of(&[(1, "4")], &[(1, "2"), (0, "2")]), 5, "4", none(), "a: a0");
    check(&mut of(&[(1, "2"), (1, "2")], &[(1, "4")]), 5, "4", none(), "b: b0");
    let ages =
        |name: &'static str, at: &str| (name, name, 0, "4", json!({"status": {"startTime": format!("2026-01-01T00:00:{at}Z")}}));
    check(&mut cluster(&["a", "b"], &[ages("a", "10"), ages("b", "20")]), 5, "4", none(), "b: b");
}

/// kube-scheduler: "Preemption tries to find victims whose PDBs are not violated by preemption, but if no such victims are found,
/// preemption will still happen".
#[test]
fn budgets_are_kept_where_that_is_possible() {
    let none = || Value::Null;
    let mut pods = cluster(&["a", "b"], &[("kept", "a", 0, "4", none()), ("p", "b", 3, "2", none()), ("q", "b", 1, "2", none())]);
    let labels = |cluster: &mut Cluster, name: &str, node: &str, priority: i32, cpu: &str| {
        let mut pod = asking(name, priority, cpu, &Value::Null).object().unwrap().clone();
        pod.metadata.labels = Some([("app".to_owned(), "db".to_owned())].into());
        cluster.place(Arc::new(PodInfo::new(Arc::new(pod))), node);
    };
    labels(&mut pods, "kept", "a", 0, "4");
    labels(&mut pods, "q", "b", 1, "2");
    check(&mut pods, 5, "2", none(), "a: kept");
    let budget = |allowed: i32, disrupted: Value| {
        let object = json!({"metadata": {"namespace": "a", "name": "db"}, "spec": {"selector": {"matchLabels": {"app": "db"}}},
            "status": {"disruptionsAllowed": allowed, "disruptedPods": disrupted, "currentHealthy": 2, "desiredHealthy": 2,
                "expectedPods": 2}});
        let new = Some(Arc::new(serde_json::from_value(object).unwrap()));
        client::Change { key: client::Key::namespaced("a", "db"), old: None, new }
    };
    // On b the one goes that no budget holds, though it is the more important.
    pods.budgets.changed(&budget(0, json!({})));
    check(&mut pods, 5, "2", none(), "b: p");
    check(&mut pods, 5, "4", none(), "a: kept");
    // One may go, or goes already.
    pods.budgets.changed(&budget(1, json!({})));
    check(&mut pods, 5, "2", none(), "a: kept");
    pods.budgets.changed(&budget(0, json!({"kept": "2026-01-01T00:00:00Z"})));
    check(&mut pods, 5, "2", none(), "a: kept");
    pods.budgets.changed(&client::Change { new: None, ..budget(0, json!({})) });
    check(&mut pods, 5, "2", none(), "a: kept");
}

#[test]
fn ports_are_freed_and_promises_kept() {
    let ports = || json!({"ports": [{"containerPort": 80, "hostPort": 80}]});
    check(&mut cluster(&["a"], &[("p", "a", 0, "1", ports())]), 5, "1", ports(), "a: p");
    let leaving = json!({"ends": "2026-01-01T00:00:00Z", "status": {"conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": crate::pod::PREEMPTED}]}});
    let mut waits = cluster(&["a"], &[("p", "a", 0, "4", leaving)]);
    assert!(waits.nominations.set(asking("new", 5, "4", &Value::Null), "a").is_none());
    check(&mut waits, 5, "4", Value::Null, "not eligible due to a terminating pod on the nominated node.");

    // Room that was promised is there for the one it was promised to, and for nobody less important.
    let mut promised = cluster(&["a"], &[("p", "a", 0, "1", Value::Null)]);
    assert!(promised.nominations.set(asking("vip", 5, "3", &Value::Null), "a").is_none());
    let choose = |cluster: &mut Cluster, pod: Arc<PodInfo>| {
        Chooser::default().choose(&pod, cluster, &Attempt::default()).map_err(|error| error.to_string())
    };
    assert_eq!(
        choose(&mut promised, asking("new", 0, "1", &Value::Null)),
        Err("0/1 nodes are available: 1 Insufficient cpu.".into())
    );
    assert_eq!(choose(&mut promised, asking("new", 6, "1", &Value::Null)).as_deref(), Ok("a"));
    assert_eq!(choose(&mut promised, asking("vip", 5, "3", &Value::Null)).as_deref(), Ok("a"));
    assert!(promised.nominations.withdraw("vip").is_some());
    assert_eq!(choose(&mut promised, asking("new", 0, "1", &Value::Null)).as_deref(), Ok("a"));
}

/// Upstream, DryRunPreemption: enough candidates are no reason to stop looking before there is one that breaks no budget.
#[test]
fn no_budget_is_broken_while_other_nodes_need_none_broken() {
    let names: Vec<String> = (0..3 * MIN_CANDIDATES).map(|index| format!("n{index}")).collect();
    let mut cluster = cluster(&names.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let free = names.last().unwrap();
    for name in &names {
        let mut pod = asking(name, 0, "4", &Value::Null).object().unwrap().clone();
        pod.metadata.labels = Some([("app".to_owned(), if name == free { "free" } else { "db" }.to_owned())].into());
        cluster.place(Arc::new(PodInfo::new(Arc::new(pod))), name);
    }
    let budget = json!({"metadata": {"namespace": "a", "name": "db"}, "spec": {"selector": {"matchLabels": {"app": "db"}}},
        "status": {"disruptionsAllowed": 0, "currentHealthy": 2, "desiredHealthy": 2, "expectedPods": 2}});
    let new = Some(Arc::new(serde_json::from_value(budget).unwrap()));
    cluster.budgets.changed(&client::Change { key: client::Key::namespaced("a", "db"), old: None, new });
    let (pod, attempt) = (asking("new", 5, "4", &Value::Null), Attempt::default());
    let error = Chooser::default().choose(&pod, &mut cluster, &attempt).unwrap_err();
    let found = candidates(&pod, &mut cluster, &attempt, &error, 0).unwrap();
    let chosen = least_harmful(found).unwrap();
    assert_eq!((chosen.node.as_str(), chosen.held), (free.as_str(), 0));
    // Where the first ones break none, no more than enough are looked at.
    let offset = names.len() - 1;
    assert_eq!(candidates(&pod, &mut cluster, &attempt, &error, offset).unwrap().len(), MIN_CANDIDATES);
}
