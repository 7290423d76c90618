//! `extenders` of a KubeSchedulerConfiguration, with upstream's validation.

use std::collections::HashSet;
use std::time::Duration;

use apimachinery::{names, time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde::{Deserialize, Deserializer};

use crate::queue::Lane;
use pods::resources::is_extended;

/// The time of a call that the configuration says nothing of.
const PATIENCE: Duration = Duration::from_secs(5);

/// One extender, as the configuration has it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Settings {
    pub(crate) url_prefix: String,
    pub(crate) filter_verb: String,
    pub(crate) preempt_verb: String,
    pub(crate) prioritize_verb: String,
    pub(crate) weight: i64,
    pub(crate) bind_verb: String,
    /// Without an authority nobody's certificate is looked at.
    #[serde(rename = "enableHTTPS")]
    pub(crate) enable_https: bool,
    pub(crate) tls_config: TlsSettings,
    #[serde(rename = "httpTimeout", deserialize_with = "duration")]
    timeout: Option<Duration>,
    /// It knows the nodes and is sent their names.
    pub(crate) node_cache_capable: bool,
    pub(crate) managed_resources: Vec<Managed>,
    /// Pods are scheduled without it when it fails.
    pub(crate) ignorable: bool,
}

/// An extended resource that an extender is there for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Managed {
    pub(crate) name: String,
    pub(crate) ignored_by_scheduler: bool,
}

/// How an extender proves who it is, and the scheduler to it. Data counts before files.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct TlsSettings {
    pub(crate) insecure: bool,
    pub(crate) server_name: String,
    pub(crate) cert_file: String,
    pub(crate) key_file: String,
    #[serde(rename = "caFile")]
    pub(crate) ca_file: String,
    pub(crate) cert_data: Pem,
    pub(crate) key_data: Pem,
    #[serde(rename = "caData")]
    pub(crate) ca_data: Pem,
}

/// PEM in base64, which may be a key.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Pem(pub(crate) String);

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Pem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.trim()).map_err(|_| serde::de::Error::custom("it is not base64"))?;
        String::from_utf8(bytes).map(Self).map_err(|_| serde::de::Error::custom("it is not PEM"))
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let parsed = time::parse_duration(&text).and_then(|duration| Duration::try_from(duration).ok());
    parsed
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom(format!("httpTimeout {text:?} is no duration from zero on, such as 5s")))
}

impl Settings {
    /// How long a call may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(PATIENCE)
    }

    /// Where something is asked.
    pub(crate) fn url(&self, verb: &str) -> String {
        format!("{}/{verb}", self.url_prefix.trim_end_matches('/'))
    }

    /// Whether it is asked about nodes.
    pub(crate) fn looks_at_nodes(&self) -> bool {
        !(self.filter_verb.is_empty() && self.prioritize_verb.is_empty())
    }

    /// Whether the pod concerns it: when it asks for one of the managed resources, or there are none.
    pub(crate) fn concerns(&self, pod: &Pod) -> bool {
        let managed = |name: &String| self.managed_resources.iter().any(|managed| managed.name == *name);
        let asks = |container: &Container| {
            let resources = container.resources.as_ref();
            let lists = resources.map(|resources| [&resources.requests, &resources.limits]);
            lists.into_iter().flatten().flatten().flat_map(|list| list.keys()).any(managed)
        };
        let spec = pod.spec.as_ref();
        let containers = spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        self.managed_resources.is_empty() || containers.into_iter().any(asks)
    }
}

/// The extenders that a pod concerns.
pub(crate) fn lane<'a>(all: impl Iterator<Item = &'a Settings>, pod: &Pod) -> Lane {
    let concerned = all.enumerate().filter(|(_, settings)| settings.concerns(pod));
    concerned.fold(0, |lane, (index, _)| lane | 1 << index)
}

/// What is wrong with extenders: field and reason.
pub(crate) fn validate(all: &[Settings]) -> Result<(), (String, String)> {
    let wrong = |field: String, why: &str| Err((field, why.to_owned()));
    if all.len() > Lane::BITS as usize {
        return wrong("extenders".to_owned(), "at most 64 can be asked");
    }
    let mut resources = HashSet::new();
    for (index, one) in all.iter().enumerate() {
        let at = |field: &str| format!("extenders[{index}].{field}");
        let uri = one.url_prefix.parse::<Uri>().ok();
        let known = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some();
        if !uri.as_ref().is_some_and(known) || one.url_prefix.contains('?') {
            return wrong(at("urlPrefix"), "must be the beginning of a URL of http or https");
        }
        if !one.prioritize_verb.is_empty() && one.weight <= 0 {
            return wrong(at("weight"), "must have a positive weight applied to it");
        }
        let verbs = [&one.filter_verb, &one.preempt_verb, &one.prioritize_verb, &one.bind_verb];
        if verbs.into_iter().any(|verb| one.url(verb).parse::<Uri>().is_err()) {
            return wrong(at("urlPrefix"), "makes no URL with one of the verbs");
        }
        for (place, resource) in one.managed_resources.iter().enumerate() {
            let at = at(&format!("managedResources[{place}].name"));
            if let Some(why) = names::qualified_name(&resource.name).first() {
                return wrong(at, why);
            }
            if !is_extended(&resource.name) {
                return wrong(at, "is an invalid extended resource name");
            }
            if !resources.insert(&resource.name) {
                return wrong(at, "duplicate extender managed resource name");
            }
        }
    }
    match all.iter().filter(|one| !one.bind_verb.is_empty()).count() {
        0 | 1 => Ok(()),
        _ => wrong("extenders".to_owned(), "only one extender can implement bind"),
    }
}
