//! The file of `--scheduler-config`: a KubeSchedulerConfiguration, as kube-scheduler reads it. What cannot be done is refused.

mod fields;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{names, yaml};
use serde::Deserialize;
use serde_json::Value;

use crate::extenders::call::Extender;
use crate::extenders::settings::{self, Settings};
use crate::plugins::PLUGINS;
use crate::profile::{DEFAULT, Fit, Ignored, Profile, Strategy};
use crate::queue::BACKOFF;

/// Plugins of upstream that stand for what is done here always, or for what there is nothing of.
const OTHERS: [&str; 6] = ["PrioritySort", "SchedulingGates", "NodeVolumeLimits", PREEMPTION, "DefaultBinder", "GangScheduling"];
const PREEMPTION: &str = "DefaultPreemption";
/// Without these a profile does nothing.
const NEEDED: [&str; 2] = ["PrioritySort", "DefaultBinder"];

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is not YAML.
    #[error("{0}")]
    Yaml(#[from] yaml::YamlError),
    /// Fields are there twice.
    #[error("{}", .0.join("; "))]
    Duplicates(Vec<String>),
    /// A field is wrong.
    #[error("{0}: {1}")]
    Field(String, String),
}

/// How the scheduler works.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    pub(crate) profiles: Vec<Profile>,
    pub(crate) extenders: Vec<Arc<Extender>>,
    /// How long a pod waits after its first attempt, and at most after later ones.
    pub(crate) backoff: (Duration, Duration),
}

impl Default for Configuration {
    fn default() -> Self {
        Self { profiles: vec![Profile::new(DEFAULT)], extenders: Vec::new(), backoff: BACKOFF }
    }
}

type Result<T> = std::result::Result<T, ConfigurationError>;

fn wrong<T>(field: impl Into<String>, why: impl Into<String>) -> Result<T> {
    Err(ConfigurationError::Field(field.into(), why.into()))
}

impl Configuration {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or asks for what cannot be done.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&std::fs::read_to_string(path)?)
    }

    fn parse(text: &str) -> Result<Self> {
        let (file, duplicates) = yaml::parse(text)?;
        if file["kind"] != "KubeSchedulerConfiguration" || file["apiVersion"] != "kubescheduler.config.k8s.io/v1" {
            return wrong("kind", "it is not a KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1");
        }
        if !duplicates.is_empty() {
            return Err(ConfigurationError::Duplicates(duplicates));
        }
        fields::check(&file)?;
        let everywhere = percentage(&file, "percentageOfNodesToScore")?.unwrap_or(0);
        let mut configuration = Self::default();
        if let Some(profiles) = file["profiles"].as_array().filter(|all| !all.is_empty()) {
            let parse = |(index, value): (usize, &Value)| profile(&format!("profiles[{index}]"), value, everywhere);
            configuration.profiles = profiles.iter().enumerate().map(parse).collect::<Result<_>>()?;
        } else {
            configuration.profiles[0].percentage = everywhere;
        }
        let names = configuration.profiles.iter().map(|profile| profile.name.as_str());
        if names.collect::<std::collections::HashSet<_>>().len() < configuration.profiles.len() {
            return wrong("profiles", "two have the same schedulerName");
        }
        let seconds = |field: &str, otherwise: Duration| match &file[field] {
            Value::Null => Ok(otherwise),
            value => match value.as_u64().filter(|seconds| *seconds > 0) {
                Some(seconds) => Ok(Duration::from_secs(seconds)),
                None => wrong(field, "must be greater than 0"),
            },
        };
        let (first, most) = configuration.backoff;
        let (first, most) = (seconds("podInitialBackoffSeconds", first)?, seconds("podMaxBackoffSeconds", most)?);
        if most < first {
            return wrong("podMaxBackoffSeconds", "must be greater than or equal to PodInitialBackoffSeconds");
        }
        configuration.backoff = (first, most);
        configuration.extenders = extenders(&file["extenders"])?;
        let managed = configuration.extenders.iter().flat_map(|extender| &extender.settings.managed_resources);
        let ignored: Vec<String> = managed.filter(|one| one.ignored_by_scheduler).map(|one| one.name.clone()).collect();
        for profile in &mut configuration.profiles {
            profile.ignored.resources.extend(ignored.iter().cloned());
        }
        Ok(configuration)
    }
}

fn extenders(list: &Value) -> Result<Vec<Arc<Extender>>> {
    let parse = |(index, value): (usize, &Value)| {
        Settings::deserialize(value).or_else(|error| wrong(format!("extenders[{index}]"), error.to_string()))
    };
    let all = list.as_array().into_iter().flatten().enumerate().map(parse).collect::<Result<Vec<_>>>()?;
    settings::validate(&all).or_else(|(field, why)| wrong(field, why))?;
    let make = |(index, one): (usize, Settings)| {
        let extender = Extender::new(one).or_else(|error| wrong(format!("extenders[{index}].tlsConfig"), error.to_string()));
        extender.map(Arc::new)
    };
    all.into_iter().enumerate().map(make).collect()
}

fn percentage(object: &Value, field: &str) -> Result<Option<usize>> {
    match &object[field] {
        Value::Null => Ok(None),
        value => match value.as_u64().filter(|percent| *percent <= 100) {
            Some(percent) => Ok(Some(percent as usize)),
            None => wrong(field, "not in valid range [0-100]"),
        },
    }
}

fn profile(at: &str, value: &Value, everywhere: usize) -> Result<Profile> {
    let Some(name) = value["schedulerName"].as_str().filter(|name| !name.is_empty()) else {
        return wrong(format!("{at}.schedulerName"), "Required value");
    };
    let mut profile = Profile::new(name);
    profile.percentage = percentage(value, "percentageOfNodesToScore")?.unwrap_or(everywhere);
    if !value["plugins"].is_null() {
        plugins(&format!("{at}.plugins"), &value["plugins"], &mut profile)?;
    }
    for (index, one) in value["pluginConfig"].as_array().into_iter().flatten().enumerate() {
        arguments(&format!("{at}.pluginConfig[{index}]"), one, &mut profile)?;
    }
    Ok(profile)
}

/// What an extension point has or has not.
struct Point {
    /// Places in [`PLUGINS`] with weights; zero for that of the plugin.
    enabled: Vec<(String, i64)>,
    disabled: Vec<String>,
}

impl Point {
    fn parse(at: &str, value: &Value) -> Result<Self> {
        let mut point = Self { enabled: Vec::new(), disabled: Vec::new() };
        for (key, list) in [("enabled", &value["enabled"]), ("disabled", &value["disabled"])] {
            for one in list.as_array().into_iter().flatten() {
                let name = one["name"].as_str().unwrap_or_default().to_owned();
                let known = OTHERS.contains(&name.as_str()) || PLUGINS.iter().any(|plugin| plugin.name() == name);
                match key {
                    "disabled" if name == "*" || known => point.disabled.push(name),
                    "enabled" if known => point.enabled.push((name, one["weight"].as_i64().unwrap_or(0))),
                    _ => return wrong(format!("{at}.{key}"), format!("there is no plugin {name:?}")),
                }
            }
        }
        Ok(point)
    }

    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|one| one == name || one == "*")
    }

    /// The weight of a plugin that is named.
    fn enables(&self, name: &str) -> Option<i64> {
        self.enabled.iter().find(|(one, _)| one == name).map(|(_, weight)| *weight)
    }

    fn has(&self, name: &str, before: bool) -> bool {
        self.enables(name).is_some() || (before && !self.disables(name))
    }
}

/// Which plugins filter and score, and how much they count: `multiPoint` first, then the single points.
fn plugins(at: &str, value: &Value, profile: &mut Profile) -> Result<()> {
    let point = |name: &str| Point::parse(&format!("{at}.{name}"), &value[name]);
    let (all, filter, score) = (point("multiPoint")?, point("filter")?, point("score")?);
    profile.filters = 0;
    profile.weights = vec![0; PLUGINS.len()];
    for (index, plugin) in PLUGINS.iter().enumerate() {
        let name = plugin.name();
        let given = all.has(name, true);
        if filter.has(name, given) {
            profile.filters |= 1 << index;
        }
        let named = [score.enables(name), all.enables(name)].into_iter().flatten().find(|weight| *weight > 0);
        profile.weights[index] = if score.has(name, given) { named.unwrap_or(plugin.weight()) } else { 0 };
    }
    profile.preempts = point("postFilter")?.has(PREEMPTION, all.has(PREEMPTION, true));
    for (name, at_point) in NEEDED.iter().zip(["queueSort", "bind"]) {
        if !point(at_point)?.has(name, all.has(name, true)) {
            return wrong(format!("{at}.{at_point}"), format!("the scheduler has no other plugin than {name}"));
        }
    }
    Ok(())
}

/// What a plugin is told.
fn arguments(at: &str, value: &Value, profile: &mut Profile) -> Result<()> {
    let (name, args, at) = (value["name"].as_str().unwrap_or_default(), &value["args"], format!("{at}.args"));
    fields::check_arguments(&at, name, args)?;
    let only = |field: &str, allowed: Value| match &args[field] {
        value if value.is_null() || *value == allowed => Ok(()),
        value => wrong(format!("{at}.{field}"), format!("{value} is not supported, only {allowed}")),
    };
    match name {
        "NodeResourcesFit" => {
            profile.ignored = ignored(&at, args)?;
            if !args["scoringStrategy"].is_null() {
                profile.fit = fit(&format!("{at}.scoringStrategy"), &args["scoringStrategy"])?;
            }
            Ok(())
        }
        "PodTopologySpread" => {
            let list = args["defaultConstraints"].as_array().map(Vec::as_slice).unwrap_or_default();
            match args["defaultingType"].as_str().unwrap_or("System") {
                "System" if list.is_empty() => Ok(()),
                "System" => wrong(format!("{at}.defaultingType"), "when .defaultConstraints are specified, must be List"),
                "List" => {
                    profile.spread = list.iter().map(|one| constraint(&at, one)).collect::<Result<_>>()?;
                    Ok(())
                }
                other => wrong(format!("{at}.defaultingType"), format!("Unsupported value: {other:?}")),
            }
        }
        "InterPodAffinity" => {
            only("hardPodAffinityWeight", 1.into())?;
            only("ignorePreferredTermsOfExistingPods", false.into())
        }
        "NodeAffinity" => only("addedAffinity", Value::Null),
        "DefaultPreemption" => {
            only("minCandidateNodesPercentage", 10.into())?;
            only("minCandidateNodesAbsolute", 100.into())
        }
        // How long a binding waits for volumes is up to whoever makes them.
        "VolumeBinding" => only("shape", Value::Null),
        "NodeResourcesBalancedAllocation" => {
            only("resources", serde_json::json!([{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}]))
        }
        "DynamicResources" => Ok(()),
        other => wrong(at, format!("plugin {other:?} takes no arguments")),
    }
}

/// Names of extended resources, and of groups of them.
fn ignored(at: &str, args: &Value) -> Result<Ignored> {
    let list = |field: &str| {
        let one = |value: &Value| match value.as_str() {
            None => wrong(format!("{at}.{field}"), "needs names"),
            Some(name) if field.ends_with("Groups") && name.contains('/') => {
                wrong(format!("{at}.{field}"), "resource group name can't contain '/'")
            }
            Some(name) => match names::qualified_name(name).first() {
                Some(why) => wrong(format!("{at}.{field}"), why),
                None => Ok(name.to_owned()),
            },
        };
        args[field].as_array().into_iter().flatten().map(one).collect::<Result<Vec<_>>>()
    };
    Ok(Ignored { resources: list("ignoredResources")?, groups: list("ignoredResourceGroups")? })
}

fn constraint(at: &str, value: &Value) -> Result<(String, i32)> {
    let at = format!("{at}.defaultConstraints");
    if value["whenUnsatisfiable"] != "ScheduleAnyway" {
        return wrong(at, "only constraints with whenUnsatisfiable ScheduleAnyway are supported");
    }
    let skew = value["maxSkew"].as_i64().and_then(|skew| i32::try_from(skew).ok()).filter(|skew| *skew > 0);
    match (value["topologyKey"].as_str(), skew) {
        (Some(key), Some(skew)) if !key.is_empty() => Ok((key.to_owned(), skew)),
        _ => wrong(at, "each needs a topologyKey and a maxSkew greater than zero"),
    }
}

fn fit(at: &str, value: &Value) -> Result<Fit> {
    let strategy = match value["type"].as_str().unwrap_or_default() {
        "LeastAllocated" => Strategy::LeastAllocated,
        "MostAllocated" => Strategy::MostAllocated,
        "RequestedToCapacityRatio" => Strategy::RequestedToCapacityRatio(shape(at, value)?),
        other => return wrong(format!("{at}.type"), format!("Unsupported value: {other:?}")),
    };
    let Some(resources) = value["resources"].as_array().filter(|all| !all.is_empty()) else {
        return Ok(Fit { strategy, ..Fit::default() });
    };
    let resource = |one: &Value| {
        let weight = one["weight"].as_i64().unwrap_or(1);
        match one["name"].as_str() {
            Some(name) if (1..=100).contains(&weight) => Ok((name.to_owned(), weight)),
            _ => wrong(format!("{at}.resources"), "each needs a name, and a weight from 1 to 100"),
        }
    };
    Ok(Fit { strategy, resources: resources.iter().map(resource).collect::<Result<_>>()? })
}

/// Scores from 0 to 10 by utilization, as scores from 0 to 100.
fn shape(at: &str, value: &Value) -> Result<Vec<(i64, i64)>> {
    let points = value["requestedToCapacityRatio"]["shape"].as_array().into_iter().flatten();
    let point = |one: &Value| Some((one["utilization"].as_i64()?, one["score"].as_i64()? * 10));
    let points: Option<Vec<(i64, i64)>> = points.map(point).collect();
    let valid = |points: &Vec<(i64, i64)>| {
        let within = points.iter().all(|(x, score)| (0..=100).contains(x) && (0..=100).contains(score));
        !points.is_empty() && within && points.windows(2).all(|pair| pair[0].0 < pair[1].0)
    };
    match points.filter(valid) {
        Some(points) => Ok(points),
        None => wrong(
            format!("{at}.requestedToCapacityRatio.shape"),
            "needs points of utilization from 0 to 100, in rising order, with scores from 0 to 10",
        ),
    }
}
