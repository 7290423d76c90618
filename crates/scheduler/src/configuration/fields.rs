//! The fields of a KubeSchedulerConfiguration (`kubescheduler.config.k8s.io/v1`). As upstream's strict decoding, others are refused: a field
//! with a wrong letter would do nothing otherwise.

use serde_json::Value;

use super::{Result, wrong};

/// What stands at a place of the file.
enum Shape {
    /// It is looked at where it is used.
    Any,
    List(&'static Shape),
    Object(&'static [(&'static str, Shape)]),
}
use Shape::{Any, List, Object};

static CONFIGURATION: Shape = Object(&[
    ("apiVersion", Any),
    ("kind", Any),
    ("parallelism", Any),
    (
        "leaderElection",
        Object(&[
            ("leaderElect", Any),
            ("leaseDuration", Any),
            ("renewDeadline", Any),
            ("retryPeriod", Any),
            ("resourceLock", Any),
            ("resourceName", Any),
            ("resourceNamespace", Any),
        ]),
    ),
    (
        "clientConnection",
        Object(&[("kubeconfig", Any), ("acceptContentTypes", Any), ("contentType", Any), ("qps", Any), ("burst", Any)]),
    ),
    ("enableProfiling", Any),
    ("enableContentionProfiling", Any),
    ("percentageOfNodesToScore", Any),
    ("podInitialBackoffSeconds", Any),
    ("podMaxBackoffSeconds", Any),
    ("profiles", List(&PROFILE)),
    ("extenders", List(&Any)),
    ("delayCacheUntilActive", Any),
]);

static PROFILE: Shape = Object(&[
    ("schedulerName", Any),
    ("percentageOfNodesToScore", Any),
    ("plugins", PLUGINS),
    ("pluginConfig", List(&Object(&[("name", Any), ("args", Any)]))),
]);

const PLUGINS: Shape = Object(&[
    ("preEnqueue", POINT),
    ("queueSort", POINT),
    ("preFilter", POINT),
    ("filter", POINT),
    ("postFilter", POINT),
    ("preScore", POINT),
    ("score", POINT),
    ("reserve", POINT),
    ("permit", POINT),
    ("preBind", POINT),
    ("bind", POINT),
    ("postBind", POINT),
    ("multiPoint", POINT),
]);

const POINT: Shape = Object(&[("enabled", List(&PLUGIN)), ("disabled", List(&PLUGIN))]);

static PLUGIN: Shape = Object(&[("name", Any), ("weight", Any)]);

static RESOURCE: Shape = Object(&[("name", Any), ("weight", Any)]);

static UTILIZATION: Shape = Object(&[("utilization", Any), ("score", Any)]);

static CONSTRAINT: Shape = Object(&[
    ("maxSkew", Any),
    ("topologyKey", Any),
    ("whenUnsatisfiable", Any),
    ("labelSelector", Any),
    ("minDomains", Any),
    ("nodeAffinityPolicy", Any),
    ("nodeTaintsPolicy", Any),
    ("matchLabelKeys", Any),
]);

/// What plugins are told, by their names.
static ARGUMENTS: &[(&str, Shape)] = &[
    (
        "NodeResourcesFit",
        Object(&[
            ("ignoredResources", List(&Any)),
            ("ignoredResourceGroups", List(&Any)),
            (
                "scoringStrategy",
                Object(&[
                    ("type", Any),
                    ("resources", List(&RESOURCE)),
                    ("requestedToCapacityRatio", Object(&[("shape", List(&UTILIZATION))])),
                ]),
            ),
        ]),
    ),
    ("NodeResourcesBalancedAllocation", Object(&[("resources", List(&RESOURCE))])),
    ("PodTopologySpread", Object(&[("defaultConstraints", List(&CONSTRAINT)), ("defaultingType", Any)])),
    ("InterPodAffinity", Object(&[("hardPodAffinityWeight", Any), ("ignorePreferredTermsOfExistingPods", Any)])),
    ("NodeAffinity", Object(&[("addedAffinity", Any)])),
    ("DefaultPreemption", Object(&[("minCandidateNodesPercentage", Any), ("minCandidateNodesAbsolute", Any)])),
    ("VolumeBinding", Object(&[("bindTimeoutSeconds", Any), ("shape", List(&UTILIZATION))])),
    ("DynamicResources", Object(&[("filterTimeout", Any), ("bindingTimeout", Any)])),
];

/// Whether the file has nothing but what a configuration has.
pub(super) fn check(file: &Value) -> Result<()> {
    shaped("", file, &CONFIGURATION, &[])
}

/// The same for what a plugin is told, which may say its own kind.
pub(super) fn check_arguments(at: &str, plugin: &str, args: &Value) -> Result<()> {
    match ARGUMENTS.iter().find(|(name, _)| *name == plugin) {
        Some((_, shape)) => shaped(at, args, shape, &["apiVersion", "kind"]),
        None => Ok(()),
    }
}

fn shaped(at: &str, value: &Value, shape: &Shape, also: &[&str]) -> Result<()> {
    match (shape, value) {
        (Any, _) | (_, Value::Null) => Ok(()),
        (List(item), Value::Array(items)) => {
            items.iter().enumerate().try_for_each(|(index, value)| shaped(&format!("{at}[{index}]"), value, item, &[]))
        }
        (List(_), _) => wrong(at, "must be a list"),
        (Object(fields), Value::Object(object)) => object.iter().try_for_each(|(key, value)| {
            let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            match fields.iter().find(|(field, _)| field == key) {
                Some((_, shape)) => shaped(&at, value, shape, &[]),
                None if also.contains(&key.as_str()) => Ok(()),
                None => wrong(at, "unknown field"),
            }
        }),
        (Object(_), _) => wrong(at, "must be an object"),
    }
}
