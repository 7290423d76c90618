//! From objects to what requests are judged by (upstream: `apf_controller.go`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use apimachinery::meta;
use http::HeaderValue;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::config::{LevelConfig, Response};
use super::rules::{Distinguisher, Rules, precedence};
use super::seat::{Flow, Level};
use super::shares::Bounds;
use super::{CATCH_ALL, Seconds};

pub(crate) const SCHEMAS: &str = "flowschemas";
pub(crate) const LEVELS: &str = "prioritylevelconfigurations";

/// All flow schemas and priority levels, as they are at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// In the order in which they are asked.
    pub(crate) flows: Vec<Arc<Flow>>,
    /// By name; with those whose objects are gone and that still have requests.
    pub(crate) levels: BTreeMap<String, Arc<Level>>,
}

/// The objects, of which the mandatory ones need not be there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pub(crate) levels: Vec<Value>,
    pub(crate) schemas: Vec<Value>,
}

impl Objects {
    /// Adds what no server can do without.
    fn complete(mut self) -> Self {
        for one in kinds::bootstrap().into_iter().filter(|one| one.mandatory) {
            let all = if one.plural == LEVELS { &mut self.levels } else { &mut self.schemas };
            let name = meta::name(&one.object);
            if !all
                .iter()
                .any(|object| meta::name(object) == name && (one.plural != LEVELS || LevelConfig::read(object).is_some()))
            {
                all.push(one.object);
            }
        }
        self
    }
}

impl Snapshot {
    /// The next one. Levels that were there before keep their requests, and flows what was counted of them.
    pub(crate) fn next(&self, objects: Objects, server: u32, now: Seconds, emptied: &Arc<Notify>) -> Self {
        let objects = objects.complete();
        let mut configs: BTreeMap<&str, (LevelConfig, &Value)> = BTreeMap::new();
        for object in &objects.levels {
            if let Some(config) = LevelConfig::read(object) {
                configs.insert(meta::name(object), (config, object));
            }
        }
        let mut levels = BTreeMap::new();
        for (name, (config, _)) in &configs {
            let known = self.levels.get(*name).cloned();
            let level = known.unwrap_or_else(|| Arc::new(Level::new(name, config, emptied.clone())));
            level.quiescing.store(false, Ordering::Relaxed);
            level.state.lock().config = *config;
            levels.insert((*name).to_owned(), level);
        }
        for (name, level) in self.levels.iter().filter(|(name, _)| !configs.contains_key(name.as_str())) {
            // Before it is asked whether somebody is there: who leaves afterwards tells.
            level.quiescing.store(true, Ordering::Relaxed);
            if !level.is_idle() {
                levels.insert(name.clone(), level.clone());
            }
        }
        distribute(&levels, server, now);
        let mut schemas: Vec<&Value> = objects.schemas.iter().collect();
        schemas.sort_by_key(|schema| precedence(schema));
        let flow = |schema: &&Value| {
            let (_, object) = configs.get(level_name(schema))?;
            Some(Arc::new(self.flow(schema, object, levels.get(level_name(schema))?.clone())))
        };
        Self { flows: schemas.iter().filter_map(flow).collect(), levels }
    }

    fn flow(&self, schema: &Value, level_object: &Value, level: Arc<Level>) -> Flow {
        let name = meta::name(schema);
        let known = self.flows.iter().find(|flow| flow.name == name && flow.level.name == level.name);
        let state = level.state.lock();
        let widest = match state.config.response {
            Response::Queue(queuing) => state.bounds.widest(queuing.hand),
            Response::Reject => u32::MAX,
        };
        drop(state);
        Flow {
            name: name.to_owned(),
            uid: uid(schema),
            level_uid: uid(level_object),
            rules: Rules::read(schema),
            distinguisher: Distinguisher::read(schema),
            widest,
            stats: known.map_or_else(|| Arc::new(Mutex::default()), |flow| flow.stats.clone()),
            level,
        }
    }

    /// The schema of those that none matches.
    pub(crate) fn fallback(&self) -> Option<&Arc<Flow>> {
        self.flows.iter().find(|flow| flow.name == CATCH_ALL)
    }
}

/// Gives each level its part of the server's seats.
fn distribute(levels: &BTreeMap<String, Arc<Level>>, server: u32, now: Seconds) {
    let all = levels.values().map(|level| u64::from(level.state.lock().config.shares)).sum();
    for level in levels.values() {
        let mut state = level.state.lock();
        let is_new = state.bounds == Bounds::default();
        let config = state.config;
        state.bounds = Bounds::of(&config, server, all);
        let limit = if is_new { state.bounds.initial() } else { state.queues.limit() };
        state.queues.configure(now, config.response, limit);
    }
}

fn level_name(schema: &Value) -> &str {
    schema.pointer("/spec/priorityLevelConfiguration/name").and_then(Value::as_str).unwrap_or_default()
}

/// What was never stored has none.
fn uid(object: &Value) -> HeaderValue {
    HeaderValue::from_str(meta::uid(object)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The condition Dangling that a schema should have and has not: whether there is no level that it could be of.
pub(crate) fn dangling(schema: &Value, levels: &[Value], at: &str) -> Option<Value> {
    let wanted = level_name(schema);
    let is_there = levels.iter().any(|level| meta::name(level) == wanted && LevelConfig::read(level).is_some());
    let quoted = apimachinery::text::quote(wanted);
    let about = format!("This FlowSchema references the PriorityLevelConfiguration object named {quoted}");
    let (status, reason, message) = match is_there {
        true => ("False", "Found", format!("{about} and it exists")),
        false => ("True", "NotFound", format!("{about} but there is no such object")),
    };
    let mut conditions = schema.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let told = conditions.any(|condition| {
        condition["type"] == "Dangling"
            && condition["status"] == status
            && condition["reason"] == reason
            && condition["message"] == message.as_str()
    });
    (!told).then(|| json!({"type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": at}))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn objects() -> Objects {
        let (levels, schemas) = kinds::bootstrap().into_iter().partition(|one| one.plural == LEVELS);
        let of = |all: Vec<kinds::Bootstrap>| all.into_iter().map(|one| one.object).collect();
        Objects { levels: of(levels), schemas: of(schemas) }
    }

    fn next(before: &Snapshot, objects: Objects) -> Snapshot {
        before.next(objects, 600, 0.0, &Arc::default())
    }

    fn names(snapshot: &Snapshot) -> Vec<&str> {
        snapshot.flows.iter().map(|flow| flow.name.as_str()).collect()
    }

    fn nominal(snapshot: &Snapshot, name: &str) -> u32 {
        snapshot.levels.get(name).unwrap().state.lock().bounds.nominal
    }

    #[test]
    fn schemas_come_in_the_order_of_their_precedence() {
        let snapshot = next(&Snapshot::default(), objects());
        let expected = [
            "exempt",
            "probes",
            "system-leader-election",
            "system-node-high",
            "system-nodes",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-system-service-accounts",
            "service-accounts",
            "global-default",
            "catch-all",
        ];
        assert_eq!(names(&snapshot), expected);
        assert_eq!((nominal(&snapshot, "workload-low"), nominal(&snapshot, "catch-all")), (245, 13));
        assert_eq!(snapshot.fallback().unwrap().name, "catch-all");
        let widest = |name: &str| snapshot.flows.iter().find(|flow| flow.name == name).unwrap().widest;
        assert_eq!((widest("global-default"), widest("catch-all")), (8, u32::MAX));
    }

    #[test]
    fn without_objects_there_are_the_mandatory_ones() {
        let snapshot = next(&Snapshot::default(), Objects::default());
        assert_eq!(names(&snapshot), ["exempt", "catch-all"]);
        assert_eq!((nominal(&snapshot, "exempt"), nominal(&snapshot, "catch-all")), (0, 600));
    }

    #[test]
    fn levels_and_counts_stay_when_objects_change() {
        let first = next(&Snapshot::default(), objects());
        let mut changed = objects();
        let schema = changed.schemas.iter_mut().find(|schema| meta::name(schema) == "probes").unwrap();
        schema["spec"]["matchingPrecedence"] = 9_950.into();
        changed.levels.retain(|level| meta::name(level) != "workload-low");
        let second = next(&first, changed);
        assert_eq!(names(&second)[7..], ["global-default", "probes", "catch-all"]);
        assert!(!second.levels.contains_key("workload-low"), "nobody is there");
        assert_eq!(nominal(&second, "global-default"), 83);
        let same = |name: &str| Arc::ptr_eq(first.levels.get(name).unwrap(), second.levels.get(name).unwrap());
        assert!(same("system") && same("exempt"));
        let stats = |snapshot: &Snapshot| snapshot.flows.iter().find(|flow| flow.name == "probes").unwrap().stats.clone();
        assert!(Arc::ptr_eq(&stats(&first), &stats(&second)));
    }

    #[test]
    fn conditions() {
        let check = |level: &str, condition: Value, expected: Option<(&str, &str)>| {
            let schema = json!({"spec": {"priorityLevelConfiguration": {"name": level}}, "status": {"conditions": [condition]}});
            let found = dangling(&schema, &objects().levels, "now");
            assert_eq!(
                found.as_ref().map(|found| (&found["status"], &found["reason"])),
                expected.map(|(a, b)| (json!(a), json!(b))).as_ref().map(|(a, b)| (a, b)),
                "{level}"
            );
            if let Some(found) = found {
                let told = json!({"spec": schema["spec"], "status": {"conditions": [found]}});
                assert_eq!(dangling(&told, &objects().levels, "later"), None);
            }
        };
        check("system", json!({}), Some(("False", "Found")));
        check("none", json!({"type": "Dangling", "status": "False", "reason": "Found"}), Some(("True", "NotFound")));
    }
}
