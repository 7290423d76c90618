//! The life of one pod on a hollow node.

use std::convert::Infallible;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Kubelet, now};
use crate::random::Random;

/// How a pod ends by itself, in cases of a thousand: from this annotation of its template.
const FAILS: &str = "simulator/fails";
/// How long it runs, in milliseconds; for ever without it.
const RUNS: &str = "simulator/runs";

/// In so many cases of a thousand its containers are not ready for a while, once: also from an annotation.
const FLAKY: &str = "simulator/flaky";

/// By then a report has come back in the watch, as a rule.
const ECHO: Duration = Duration::from_secs(20);

/// `namespace/name`.
pub(super) fn name(pod: &Value) -> String {
    let meta = &pod["metadata"];
    format!("{}/{}", meta["namespace"].as_str().unwrap_or_default(), meta["name"].as_str().unwrap_or_default())
}

/// One pod.
pub(super) struct Life {
    kubelet: Kubelet,
    random: Random,
    /// As the API has it; none when it is gone.
    seen: watch::Receiver<Option<Value>>,
    pod: Value,
    /// The last octet of its address.
    address: u64,
    /// What containers that fail exit with.
    code: i32,
}

/// What ends a wait.
enum Woken {
    Time,
    /// Its end is asked for.
    Ends,
    /// It is gone from the API.
    Gone,
}

impl Life {
    pub(super) fn new(kubelet: Kubelet, mut random: Random, seen: watch::Receiver<Option<Value>>) -> Self {
        let pod = seen.borrow().clone().unwrap_or_default();
        let address = random.between(2, 250);
        let code = *random.pick(&[1, 1, 42, 137]);
        Self { kubelet, random, seen, pod, address, code }
    }

    pub(super) async fn run(mut self) -> Result<(), Infallible> {
        let (name, uid) = (name(&self.pod), self.uid());
        self.live(&name, &uid).await;
        self.kubelet.running.stopped(&name, &uid);
        Ok(())
    }

    fn uid(&self) -> String {
        self.pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
    }

    async fn live(&mut self, name: &str, uid: &str) {
        if matches!(self.pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
            return self.leave("").await;
        }
        let start = self.random.latency(20, 2000);
        match self.wait(Some(start)).await {
            Woken::Gone => return,
            Woken::Ends => return self.leave("Failed").await,
            Woken::Time => {}
        }
        if let Some(twice) = self.kubelet.running.started(name, uid, &self.kubelet.node) {
            self.kubelet.auditor.violated(twice);
        }
        self.report("Running", false).await;
        let ready = self.random.latency(10, 3000);
        if let Woken::Time = self.wait(Some(ready)).await {
            self.report("Running", true).await;
            self.flake().await;
        }
        let runs = self.annotation(RUNS).map(|most| self.random.millis(most / 2, most));
        match self.stay(runs).await {
            Woken::Gone => {}
            Woken::Ends => {
                let grace = self.pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(30);
                let ends = self.random.millis(0, (grace * 1000).max(1));
                // Only whoever does not go by itself is killed; most go at once.
                let ends = if self.random.chance(800) { ends / 20 } else { ends };
                if let Woken::Gone = self.wait_for_gone(ends).await {
                    return;
                }
                self.kubelet.running.stopped(name, uid);
                let phase = if self.random.chance(500) { "Failed" } else { "Succeeded" };
                self.leave(phase).await;
            }
            Woken::Time => {
                let fails = self.annotation(FAILS).unwrap_or(0);
                let phase = if self.random.chance(fails) { "Failed" } else { "Succeeded" };
                self.kubelet.running.stopped(name, uid);
                self.report(phase, false).await;
                if let Woken::Ends = self.wait(None).await {
                    self.leave("").await;
                }
            }
        }
    }

    /// May become not ready for a while.
    async fn flake(&mut self) {
        if !self.annotation(FLAKY).is_some_and(|often| self.random.chance(often)) {
            return;
        }
        for (ready, longest) in [(false, 20_000), (true, 5000)] {
            let wait = self.random.latency(100, longest);
            let Woken::Time = self.wait(Some(wait)).await else { return };
            self.report("Running", ready).await;
        }
    }

    fn annotation(&self, name: &str) -> Option<u64> {
        self.pod["metadata"]["annotations"][name].as_str()?.parse().ok()
    }

    /// Waits for a time, or for ever, unless the pod's end is asked for.
    async fn wait(&mut self, time: Option<Duration>) -> Woken {
        let ends = self.seen.wait_for(|pod| pod.as_ref().is_none_or(|pod| pod["metadata"]["deletionTimestamp"].is_string()));
        let found = async { ends.await.ok().and_then(|pod| pod.clone()) };
        let found = match time {
            None => found.await,
            Some(time) => match tokio::time::timeout(time, found).await {
                Ok(found) => found,
                Err(_) => return Woken::Time,
            },
        };
        match found {
            Some(pod) => {
                self.pod = pod;
                Woken::Ends
            }
            None => Woken::Gone,
        }
    }

    /// Runs for a time, or for ever. Whoever calls it not ready, such as the node controller while nothing was heard of the node, is
    /// contradicted.
    async fn stay(&mut self, time: Option<Duration>) -> Woken {
        let end = time.map(|time| tokio::time::Instant::now() + time);
        loop {
            let denied = |pod: &Option<Value>| {
                pod.as_ref().is_none_or(|pod| {
                    let conditions = || pod["status"]["conditions"].as_array().into_iter().flatten();
                    let ready = conditions().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
                    pod["metadata"]["deletionTimestamp"].is_string() || (pod["status"]["phase"] == "Running" && !ready)
                })
            };
            // What was reported just now has to come back first.
            let left = end.map(|end| end.saturating_duration_since(tokio::time::Instant::now()));
            if let Woken::Time = self.wait(Some(left.unwrap_or(ECHO).min(ECHO))).await
                && left.is_none_or(|left| left > ECHO)
            {
                let found = async { self.seen.wait_for(denied).await.map(drop) };
                match left {
                    Some(left) => drop(tokio::time::timeout(left - ECHO, found).await),
                    None => drop(found.await),
                }
            }
            if end.is_some_and(|end| tokio::time::Instant::now() >= end) {
                return self.wait(Some(Duration::ZERO)).await;
            }
            let seen = self.seen.borrow().clone();
            match seen {
                None => return Woken::Gone,
                Some(pod) if pod["metadata"]["deletionTimestamp"].is_string() => {
                    self.pod = pod;
                    return Woken::Ends;
                }
                Some(pod) => self.pod["status"]["conditions"] = pod["status"]["conditions"].clone(),
            }
            self.report("Running", true).await;
        }
    }

    async fn wait_for_gone(&mut self, time: Duration) -> Woken {
        let gone = self.seen.wait_for(Option::is_none);
        match tokio::time::timeout(time, gone).await {
            Ok(_) => Woken::Gone,
            Err(_) => Woken::Time,
        }
    }

    /// Reports the last state, if there is one to report, and takes the pod away if its end is asked for.
    async fn leave(&mut self, phase: &str) {
        if !phase.is_empty() {
            self.report(phase, false).await;
        }
        if !matches!(self.wait(None).await, Woken::Ends) {
            return;
        }
        let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid()}});
        let path = self.path("");
        self.kubelet.insist(&path, Method::DELETE, Some(&options)).await;
    }

    fn path(&self, sub: &str) -> String {
        let meta = &self.pod["metadata"];
        let text = |key: &str| meta[key].as_str().unwrap_or_default();
        format!("/api/v1/namespaces/{}/pods/{}{sub}", text("namespace"), text("name"))
    }

    async fn report(&mut self, phase: &str, ready: bool) {
        let status = self.status(phase, ready);
        let patch = json!({"metadata": {"uid": self.uid()}, "status": status});
        self.kubelet.insist(&self.path("/status"), Method::PATCH, Some(&patch)).await;
        self.pod["status"] = status;
    }

    fn status(&self, phase: &str, ready: bool) -> Value {
        let before = &self.pod["status"];
        let condition = |kind: &str, is: bool| {
            let status = if is { "True" } else { "False" };
            let known = before["conditions"].as_array().into_iter().flatten().find(|known| known["type"] == kind);
            match known {
                Some(known) if known["status"] == status => known.clone(),
                _ => json!({"type": kind, "status": status, "lastTransitionTime": now()}),
            }
        };
        let over = phase != "Running";
        let conditions = [
            condition("PodScheduled", true),
            condition("Initialized", true),
            condition("ContainersReady", ready),
            condition("Ready", ready),
        ];
        // Kept from one report to the next.
        let kept = before["conditions"].as_array().into_iter().flatten().filter(|known| known["type"] == "DisruptionTarget");
        let conditions: Vec<Value> = conditions.into_iter().chain(kept.cloned()).collect();
        let state = match over {
            false => json!({"running": {"startedAt": now()}}),
            true => {
                json!({"terminated": {"exitCode": if phase == "Failed" { self.code } else { 0 }, "startedAt": now(), "finishedAt": now()}})
            }
        };
        let containers = self.pod["spec"]["containers"].as_array().into_iter().flatten();
        let containers: Vec<Value> = containers
            .map(|container| {
                json!({"name": container["name"], "image": container["image"], "imageID": "", "ready": ready, "restartCount": 0,
                    "started": !over, "state": state})
            })
            .collect();
        let address = format!("10.42.{}.{}", self.kubelet.index, self.address);
        let started = before["startTime"].as_str().map_or_else(now, str::to_owned);
        json!({"phase": phase, "startTime": started, "podIP": address, "podIPs": [{"ip": address}], "hostIP": format!("192.168.7.{}", self.kubelet.index),
            "hostIPs": [{"ip": format!("192.168.7.{}", self.kubelet.index)}], "conditions": conditions, "containerStatuses": containers})
    }
}
