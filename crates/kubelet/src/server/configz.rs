//! `/configz`: what the kubelet goes by, in the words of upstream's KubeletConfiguration. Only what it really does is said.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::Options;
use crate::allocatable::Reserved;
use crate::eviction::{Settings, Threshold};
use crate::numa::{Amounts, reservation::Reservation};

/// The document.
pub(super) fn document(options: &Options) -> Value {
    let Settings { thresholds, transition, max_pod_grace, .. } = &options.eviction;
    let of = |hard: bool| thresholds.iter().filter(move |threshold| threshold.is_hard() == hard && !threshold.is_derived());
    let mut config = json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "clusterDNS": options.cluster_dns.servers,
        "clusterDomain": options.cluster_dns.domain,
        "resolvConf": options.resolv_conf,
        "maxPods": options.max_pods,
        "podPidsLimit": options.pod_max_pids.unwrap_or(-1),
        "crashLoopBackOff": {"maxContainerRestartPeriod": go(options.longest_restart_delay)},
        "seccompDefault": options.seccomp_default,
        "port": options.port(),
        "address": options.server.as_ref().map(|server| server.listen.ip()),
        "podLogsDir": options.pod_logs_dir,
        "containerLogMaxSize": options.log_limit.0.to_string(),
        "containerLogMaxFiles": options.log_limit.1,
        "enableSystemLogHandler": true,
        "enableSystemLogQuery": options.node_log_query,
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}},
        "authorization": {"mode": "Webhook"},
        "evictionHard": amounts(of(true), |threshold| Some(threshold.limit_text())),
        "evictionPressureTransitionPeriod": go(*transition),
        "evictionMaxPodGracePeriod": max_pod_grace.as_secs(),
        "systemReserved": reserved(&options.system_reserved),
        "serializeImagePulls": false,
        "imageGCHighThresholdPercent": options.image_gc.thresholds().0,
        "imageGCLowThresholdPercent": options.image_gc.thresholds().1,
        "imageMinimumGCAge": go(options.image_gc.minimum_age),
        "imageMaximumGCAge": go(options.image_gc.maximum_age),
        "imagePullCredentialsVerificationPolicy": options.verification.parts().0.name(),
        "failSwapOn": false,
        "cpuManagerPolicy": options.cpu_manager.name(),
        "memoryManagerPolicy": options.memory_manager.name(),
        "topologyManagerPolicy": options.affinity.policy.name(),
        "topologyManagerScope": options.affinity.scope.name(),
    });
    let of_policy: Map<String, Value> = options.cpu_options.names().map(|name| (name.to_owned(), json!("true"))).collect();
    if !of_policy.is_empty() {
        config["cpuManagerPolicyOptions"] = Value::Object(of_policy);
    }
    let of_policy: Map<String, Value> =
        options.affinity.options.named().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    if !of_policy.is_empty() {
        config["topologyManagerPolicyOptions"] = Value::Object(of_policy);
    }
    if let Some(cpus) = &options.reserved_cpus {
        config["reservedSystemCPUs"] = json!(cpus.to_string());
    }
    if !options.reserved_memory.0.is_empty() {
        config["reservedMemory"] = reserved_memory(&options.reserved_memory);
    }
    if !options.allowed_unsafe_sysctls.is_empty() {
        let patterns = options.allowed_unsafe_sysctls.iter().map(ToString::to_string);
        config["allowedUnsafeSysctls"] = json!(patterns.collect::<Vec<_>>());
    }
    let listed = options.verification.parts().1;
    if !listed.is_empty() {
        config["preloadedImagesVerificationAllowlist"] = json!(listed);
    }
    let mut add = |name: &str, value: Map<String, Value>| {
        if let (false, Some(config)) = (value.is_empty(), config.as_object_mut()) {
            config.insert(name.to_owned(), Value::Object(value));
        }
    };
    add("evictionSoft", amounts(of(false), |threshold| Some(threshold.limit_text())));
    add("evictionSoftGracePeriod", amounts(of(false), |threshold| Some(go(threshold.grace))));
    add("evictionMinimumReclaim", amounts(of(true).chain(of(false)), Threshold::reclaim_text));
    if let Some(own) = &options.kube_reserved {
        add("kubeReserved", reserved(own));
    }
    json!({"kubeletconfig": config})
}

fn amounts<'a>(
    thresholds: impl Iterator<Item = &'a Threshold>,
    text: impl Fn(&Threshold) -> Option<String>,
) -> Map<String, Value> {
    thresholds.filter_map(|threshold| Some((threshold.signal.name().to_owned(), text(threshold)?.into()))).collect()
}

fn reserved(amounts: &Reserved) -> Map<String, Value> {
    let all = [
        ("cpu", amounts.milli_cpu, "m"),
        ("memory", amounts.memory, ""),
        ("ephemeral-storage", amounts.storage, ""),
        ("pid", amounts.processes, ""),
    ];
    let some = all.into_iter().filter(|(_, amount, _)| *amount != 0);
    some.map(|(name, amount, unit)| (name.to_owned(), format!("{amount}{unit}").into())).collect()
}

fn reserved_memory(reserved: &Reservation) -> Value {
    let text = |(name, bytes): (&String, &u64)| (name.clone(), Value::from(bytes.to_string()));
    let of = |(node, amounts): (&u32, &Amounts)| json!({"numaNode": node, "limits": Map::from_iter(amounts.iter().map(text))});
    reserved.0.iter().map(of).collect()
}

/// A duration as Go writes it.
fn go(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |seconds, expected: &str| assert_eq!(go(Duration::from_secs(seconds)), expected);
        check(0, "0s");
        check(90, "1m30s");
        check(300, "5m0s");
        check(3600, "1h0m0s");
    }

    #[test]
    fn what_is_reserved() {
        let of_nodes = reserved_memory(&"0:memory=1Gi;1:memory=1Mi".parse().unwrap());
        let expected =
            json!([{"numaNode": 0, "limits": {"memory": "1073741824"}}, {"numaNode": 1, "limits": {"memory": "1048576"}}]);
        assert_eq!(of_nodes, expected);
        let amounts = Reserved { milli_cpu: 250, memory: 1 << 30, storage: 0, processes: 1000 };
        assert_eq!(Value::Object(reserved(&amounts)), json!({"cpu": "250m", "memory": "1073741824", "pid": "1000"}));
    }
}
