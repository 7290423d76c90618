//! What users make, and how they change it.

use serde_json::{Value, json};

use super::Kind;
use crate::random::Random;

const APPS: &str = "/apis/apps/v1";
const BATCH: &str = "/apis/batch/v1";

const fn kind(short: &'static str, group: &'static str, plural: &'static str, weight: u64, make: Make, change: Make) -> Kind {
    Kind { short, group, plural, make, change, weight }
}

type Make = fn(&mut Random) -> Value;

/// Every kind of the workload.
pub(super) const KINDS: &[Kind] = &[
    kind("web", APPS, "deployments", 6, deployment, change_deployment),
    kind("set", APPS, "replicasets", 2, replica_set, change_replicas),
    kind("db", APPS, "statefulsets", 4, stateful_set, change_stateful_set),
    kind("agent", APPS, "daemonsets", 2, daemon_set, change_template),
    kind("work", BATCH, "jobs", 5, job, change_job),
    kind("cron", BATCH, "cronjobs", 1, cron_job, change_cron_job),
    kind("svc", "/api/v1", "services", 2, service, change_service),
    kind("pdb", "/apis/policy/v1", "poddisruptionbudgets", 1, budget, change_budget),
    kind("hpa", "/apis/autoscaling/v2", "horizontalpodautoscalers", 2, autoscaler, change_autoscaler),
    kind("quota", "/api/v1", "resourcequotas", 1, quota, change_quota),
    kind("claim", "/api/v1", "persistentvolumeclaims", 1, claim, change_claim),
];

/// Images, so that templates differ.
const IMAGES: [&str; 3] = ["example/app:1", "example/app:2", "example/app:3"];
/// A label that services and budgets select by.
const TIERS: [&str; 2] = ["front", "back"];

fn tier(random: &mut Random) -> Value {
    json!({"tier": random.pick(&TIERS)})
}

fn template(random: &mut Random, labels: &Value) -> Value {
    // No grace at all would let two pods of one name run: the API forgets the pod before its node hears of it.
    let (image, grace) = (*random.pick(&IMAGES), random.between(1, 20));
    let mut labels = labels.clone();
    labels["tier"] = (*random.pick(&TIERS)).into();
    let mut template = json!({"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": grace,
        "containers": [{"name": "app", "image": image, "resources": {"requests": {"cpu": "50m"}}}]}});
    if random.chance(200) {
        template["metadata"]["annotations"]["simulator/flaky"] = random.between(100, 900).to_string().into();
    }
    template
}

/// Pods that are to be spread over nodes; a part of them must be.
fn spread(random: &mut Random, template: &mut Value) {
    if random.chance(200) {
        let unsatisfiable = random.pick(&["DoNotSchedule", "ScheduleAnyway"]);
        template["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": random.between(1, 2), "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": unsatisfiable, "labelSelector": {"matchLabels": own_labels()}, "matchLabelKeys": ["pod-template-hash"]}]);
    }
}

/// Labels that no other object selects: the name takes the place of the value.
fn own_labels() -> Value {
    json!({"app": ""})
}

/// Gives an object its name, and the label that only it selects: whoever is made under that name again takes over what was left.
pub(super) fn named(mut object: Value, name: &str) -> Value {
    object["metadata"]["name"] = name.into();
    if object["spec"]["selector"]["matchLabels"]["app"].is_string() {
        object["spec"]["selector"]["matchLabels"]["app"] = name.into();
        object["spec"]["template"]["metadata"]["labels"]["app"] = name.into();
    }
    if let Some(spread) = object.pointer_mut("/spec/template/spec/topologySpreadConstraints/0") {
        spread["labelSelector"]["matchLabels"]["app"] = name.into();
    }
    if let Some(target) = object.pointer_mut("/spec/scaleTargetRef") {
        target["name"] = name.replace("hpa", "web").into();
    }
    object
}

fn replicas(random: &mut Random) -> u64 {
    random.between(0, 6)
}

fn change_replicas(random: &mut Random) -> Value {
    json!({"spec": {"replicas": replicas(random)}})
}

fn change_template(random: &mut Random) -> Value {
    let annotations = json!({"simulator/version": random.between(1, 4).to_string()});
    json!({"spec": {"template": {"metadata": {"annotations": annotations}}}})
}

fn deployment(random: &mut Random) -> Value {
    let labels = own_labels();
    let strategy = match random.between(0, 3) {
        0 => json!({"type": "Recreate"}),
        _ => {
            let surge = random.between(0, 2);
            let unavailable = random.between(u64::from(surge == 0), 2);
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
        }
    };
    let mut template = template(random, &labels);
    spread(random, &mut template);
    json!({"spec": {"replicas": replicas(random), "selector": {"matchLabels": labels}, "template": template,
        "strategy": strategy, "minReadySeconds": random.between(0, 5), "revisionHistoryLimit": random.between(0, 3)}})
}

fn change_deployment(random: &mut Random) -> Value {
    let mut change = change_template(random);
    match random.between(0, 5) {
        0 | 1 => change_replicas(random),
        2 | 3 => change,
        4 => {
            change["spec"]["replicas"] = replicas(random).into();
            change
        }
        _ => json!({"spec": {"paused": random.chance(400)}}),
    }
}

fn replica_set(random: &mut Random) -> Value {
    let labels = own_labels();
    json!({"spec": {"replicas": replicas(random), "selector": {"matchLabels": labels}, "template": template(random, &labels)}})
}

fn stateful_set(random: &mut Random) -> Value {
    let labels = own_labels();
    let update = match random.between(0, 3) {
        0 => json!({"type": "OnDelete"}),
        1 => json!({"type": "RollingUpdate", "rollingUpdate": {"partition": random.between(0, 3)}}),
        _ => json!({"type": "RollingUpdate"}),
    };
    let management = *random.pick(&["OrderedReady", "Parallel"]);
    let mut set = json!({"spec": {"replicas": random.between(0, 4), "selector": {"matchLabels": labels}, "template": template(random, &labels),
        "serviceName": "none", "podManagementPolicy": management, "updateStrategy": update, "minReadySeconds": random.between(0, 5)}});
    if random.chance(400) {
        let mut policy = || *random.pick(&["Retain", "Delete"]);
        set["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": policy(), "whenScaled": policy()});
        set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": claim_of(LOCAL)}]);
    }
    set
}

/// The class of volumes that nodes make, and that of volumes that somebody makes by hand.
const LOCAL: &str = "local-path";
pub(super) const BY_HAND: &str = "by-hand";

fn claim_of(class: &str) -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}})
}

fn claim(_: &mut Random) -> Value {
    json!({"spec": claim_of(BY_HAND)})
}

fn change_claim(random: &mut Random) -> Value {
    json!({"metadata": {"labels": {"simulator/version": random.between(1, 4).to_string()}}})
}

/// A volume that was made by hand.
pub(super) fn volume(random: &mut Random, name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": format!("{}Gi", random.between(1, 3))},
        "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "storageClassName": BY_HAND,
        "hostPath": {"path": "/volumes"}}})
}

fn change_stateful_set(random: &mut Random) -> Value {
    if random.chance(500) { json!({"spec": {"replicas": random.between(0, 4)}}) } else { change_template(random) }
}

fn daemon_set(random: &mut Random) -> Value {
    let labels = own_labels();
    let surge = random.chance(500);
    let rolling =
        if surge { json!({"maxSurge": 1, "maxUnavailable": 0}) } else { json!({"maxUnavailable": random.between(1, 2)}) };
    json!({"spec": {"selector": {"matchLabels": labels}, "template": template(random, &labels),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}, "minReadySeconds": random.between(0, 5)}})
}

fn job(random: &mut Random) -> Value {
    let labels = json!({});
    let mut template = template(random, &labels);
    template["spec"]["restartPolicy"] = "Never".into();
    let runs = random.between(1000, 20_000).to_string();
    let fails = random.pick(&["0", "0", "100", "300"]);
    template["metadata"]["annotations"] = json!({"simulator/runs": runs, "simulator/fails": fails});
    let mut spec = json!({"parallelism": random.between(1, 4), "completions": random.between(1, 6), "template": template,
        "backoffLimit": random.between(0, 4)});
    if random.chance(400) {
        spec["completionMode"] = "Indexed".into();
        by_index(random, &mut spec);
    }
    if random.chance(300) {
        spec["podFailurePolicy"] = failure_policy(random, spec["backoffLimitPerIndex"].is_u64());
        spec["podReplacementPolicy"] = "Failed".into();
    } else if random.chance(300) {
        spec["podReplacementPolicy"] = (*random.pick(&["Failed", "TerminatingOrFailed"])).into();
    }
    if random.chance(200) {
        spec["ttlSecondsAfterFinished"] = random.between(0, 60).into();
    }
    if random.chance(100) {
        spec["activeDeadlineSeconds"] = random.between(5, 60).into();
    }
    if random.chance(100) {
        spec["suspend"] = true.into();
    }
    json!({"spec": spec})
}

/// What only indexed jobs have: limits for each index, and ways to succeed early.
fn by_index(random: &mut Random, spec: &mut Value) {
    if random.chance(400) {
        spec["backoffLimitPerIndex"] = random.between(0, 2).into();
        if random.chance(500) {
            spec["maxFailedIndexes"] = random.between(0, 2).into();
        }
    }
    if random.chance(300) {
        let completions = spec["completions"].as_u64().unwrap_or(1);
        spec["successPolicy"] = match random.chance(500) {
            true => json!({"rules": [{"succeededCount": random.between(1, completions)}]}),
            false => json!({"rules": [{"succeededIndexes": "0"}]}),
        };
    }
}

fn failure_policy(random: &mut Random, by_index: bool) -> Value {
    let actions: &[&str] = if by_index { &["Ignore", "FailJob", "Count", "FailIndex"] } else { &["Ignore", "FailJob", "Count"] };
    let code = json!({"action": random.pick(actions), "onExitCodes": {"operator": "In", "values": [42]}});
    let disrupted = json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
    json!({"rules": [code, disrupted]})
}

fn change_job(random: &mut Random) -> Value {
    if random.chance(500) {
        json!({"spec": {"parallelism": random.between(0, 4)}})
    } else {
        json!({"spec": {"suspend": random.chance(300)}})
    }
}

fn cron_job(random: &mut Random) -> Value {
    let policy = random.pick(&["Allow", "Forbid", "Replace"]);
    json!({"spec": {"schedule": "*/1 * * * *", "concurrencyPolicy": policy, "jobTemplate": job(random),
        "successfulJobsHistoryLimit": random.between(0, 3), "failedJobsHistoryLimit": random.between(0, 1)}})
}

fn change_cron_job(random: &mut Random) -> Value {
    json!({"spec": {"suspend": random.chance(300)}})
}

fn service(random: &mut Random) -> Value {
    json!({"spec": {"selector": tier(random), "ports": [{"port": 80, "targetPort": 8080}]}})
}

fn change_service(random: &mut Random) -> Value {
    json!({"spec": {"selector": tier(random)}})
}

fn budget(random: &mut Random) -> Value {
    json!({"spec": {"selector": {"matchLabels": tier(random)}, "maxUnavailable": random.between(0, 2)}})
}

fn change_budget(random: &mut Random) -> Value {
    json!({"spec": {"maxUnavailable": random.between(0, 2)}})
}

/// Of the deployment with the same number.
fn autoscaler(random: &mut Random) -> Value {
    let least = random.between(1, 3);
    let metric =
        json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
    json!({"spec": {"minReplicas": least, "maxReplicas": least + random.between(0, 5), "metrics": [metric],
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": ""}}})
}

fn change_autoscaler(random: &mut Random) -> Value {
    json!({"spec": {"maxReplicas": random.between(3, 8)}})
}

/// One of three is so tight that it refuses something; those are gone before the cluster settles.
fn quota(random: &mut Random) -> Value {
    let pods = if random.chance(300) { random.between(2, 8) } else { 500 };
    json!({"spec": {"hard": {"pods": pods.to_string(), "requests.cpu": "100", "services": "50", "count/deployments.apps": "50",
        "persistentvolumeclaims": "50"}}})
}

fn change_quota(random: &mut Random) -> Value {
    json!({"spec": {"hard": {"services": random.between(40, 60).to_string()}}})
}
