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
    json!({"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": grace,
        "containers": [{"name": "app", "image": image, "resources": {"requests": {"cpu": "50m"}}}]}})
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
    json!({"spec": {"replicas": replicas(random), "selector": {"matchLabels": labels}, "template": template(random, &labels),
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
    json!({"spec": {"replicas": random.between(0, 4), "selector": {"matchLabels": labels}, "template": template(random, &labels),
        "serviceName": "none", "podManagementPolicy": management, "updateStrategy": update, "minReadySeconds": random.between(0, 5)}})
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
    if random.chance(300) {
        spec["completionMode"] = "Indexed".into();
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
