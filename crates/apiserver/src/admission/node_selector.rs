//! PodNodeSelector, where it is enabled: the pods of a namespace are for the nodes with the labels that an annotation of the namespace, or the
//! cluster's default, says, and the configuration may say which labels a namespace's pods can ask for at all.

use std::collections::BTreeMap;

use apimachinery::{Status, meta, names};
use async_trait::async_trait;
use registry::{Admission, Request};
use serde_json::Value;

use super::{POD_NODE_SELECTOR, creates_pod, failed, forbidden, namespace_of};

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
const DEFAULT: &str = "clusterDefaultNodeSelector";

type Labels = BTreeMap<String, String>;

/// Why a text is no list of labels.
#[derive(Debug, PartialEq, thiserror::Error)]
enum Invalid {
    #[error("invalid selector: [{0}]")]
    Form(String),
    #[error("Invalid value: {0:?}: {1}")]
    Label(String, String),
}

/// What the configuration says: by the name of a namespace the only labels that its pods may ask for, and what namespaces without annotation have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Configuration(BTreeMap<String, Labels>);

impl Configuration {
    pub(super) fn parse(value: &Value) -> Result<Self, String> {
        let selectors = &value["podNodeSelectorPluginConfig"];
        let Some(selectors) = selectors.as_object() else {
            return if selectors.is_null() {
                Ok(Self::default())
            } else {
                Err("podNodeSelectorPluginConfig: it is no map".to_owned())
            };
        };
        let one = |(name, selector): (&String, &Value)| {
            let text = selector.as_str().ok_or_else(|| format!("podNodeSelectorPluginConfig.{name}: it is no text"))?;
            let labels = labels(text).map_err(|why| format!("podNodeSelectorPluginConfig.{name}: {why}"))?;
            Ok((name.clone(), labels))
        };
        selectors.iter().map(one).collect::<Result<_, _>>().map(Self)
    }
}

pub(super) struct PodNodeSelector(pub(super) Configuration);

#[async_trait]
impl Admission for PodNodeSelector {
    fn name(&self) -> &'static str {
        POD_NODE_SELECTOR
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        creates_pod(a)
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        let wanted = self.wanted(a).await?;
        if let Some(pod) = a.object() {
            agree(pod, &wanted).map_err(|why| forbidden(a, why))?;
        }
        if let Some(spec) = a.object_mut().filter(|_| !wanted.is_empty()).and_then(|pod| pod.get_mut("spec")) {
            for (key, value) in wanted {
                spec["nodeSelector"][key] = value.into();
            }
        }
        match a.object() {
            Some(pod) => self.permits(pod, a.namespace).map_err(|why| forbidden(a, why)),
            None => Ok(()),
        }
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let wanted = self.wanted(a).await?;
        let Some(pod) = a.object() else { return Ok(()) };
        agree(pod, &wanted).and_then(|()| self.permits(pod, a.namespace)).map_err(|why| forbidden(a, why))
    }
}

impl PodNodeSelector {
    /// The labels of the namespace's nodes: of its annotation, which may be empty, or the cluster's default where it has none.
    async fn wanted(&self, a: &Request<'_>) -> Result<Labels, Status> {
        let namespace = namespace_of(a).await?;
        match meta::annotation(&namespace, ANNOTATION) {
            Some(text) => labels(text).map_err(failed),
            None => Ok(self.0.0.get(DEFAULT).cloned().unwrap_or_default()),
        }
    }

    /// Whether the pod asks for these labels only, where the configuration says any for its namespace.
    fn permits(&self, pod: &Value, namespace: &str) -> Result<(), &'static str> {
        let permitted = self.0.0.get(namespace).filter(|permitted| !permitted.is_empty());
        let is_permitted = |(key, value): (&str, &str)| permitted.is_none_or(|all| all.get(key).is_some_and(|own| own == value));
        if own(pod).all(is_permitted) {
            Ok(())
        } else {
            Err("pod node label selector labels conflict with its namespace whitelist")
        }
    }
}

/// Whether nothing that the pod asks for contradicts its namespace.
fn agree(pod: &Value, wanted: &Labels) -> Result<(), &'static str> {
    let agrees = |(key, value): (&str, &str)| wanted.get(key).is_none_or(|wanted| wanted == value);
    if own(pod).all(agrees) { Ok(()) } else { Err("pod node label selector conflicts with its namespace node label selector") }
}

fn own(pod: &Value) -> impl Iterator<Item = (&str, &str)> {
    let labels = pod.pointer("/spec/nodeSelector").and_then(Value::as_object);
    labels.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

/// The labels of a text like `a=b,c=d`.
fn labels(text: &str) -> Result<Labels, Invalid> {
    let one = |part: &str| {
        let mut sides = part.split('=');
        let (Some(key), Some(value), None) = (sides.next(), sides.next(), sides.next()) else {
            return Err(Invalid::Form(part.replace('=', " ")));
        };
        let (key, value) = (key.trim(), value.trim());
        for (label, wrong) in [(key, names::qualified_name(key)), (value, names::label_value(value))] {
            if !wrong.is_empty() {
                return Err(Invalid::Label(label.to_owned(), wrong.join("; ")));
            }
        }
        Ok((key.to_owned(), value.to_owned()))
    };
    if text.is_empty() { Ok(Labels::new()) } else { text.split(',').map(one).collect() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn texts() {
        let check = |text: &str, expected: Result<&[(&str, &str)], &str>| {
            let found = labels(text).map_err(|why| why.to_string());
            let expected = expected.map(|all| all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        };
        check("", Ok(&[]));
        check("env=test", Ok(&[("env", "test")]));
        check("env = test, infra=", Ok(&[("env", "test"), ("infra", "")]));
        check("env", Err("invalid selector: [env]"));
        check("env==test", Err("invalid selector: [env  test]"));
        check("a=b,", Err("invalid selector: []"));
        assert!(labels("-=b").is_err() && labels("a=b c").is_err());
    }

    /// Docs "Admission Control in Kubernetes", PodNodeSelector, and upstream's table of pods (podnodeselector, TestPodAdmission).
    #[test]
    fn pods() {
        let conflict = "pod node label selector conflicts with its namespace node label selector";
        let denied = "pod node label selector labels conflict with its namespace whitelist";
        let configuration = json!({"podNodeSelectorPluginConfig": {"n": "env=test,infra=fixed"}});
        let plugin = PodNodeSelector(Configuration::parse(&configuration).unwrap());
        let check = |own: Value, namespace: &str, wanted: &str, expected: Result<(), &str>| {
            let pod = json!({"spec": {"nodeSelector": own}});
            let found = agree(&pod, &labels(wanted).unwrap()).and_then(|()| plugin.permits(&pod, namespace));
            assert_eq!(found, expected, "{pod} {namespace} {wanted}");
        };
        check(Value::Null, "n", "", Ok(()));
        check(json!({"env": "test"}), "n", "infra=fixed", Ok(()));
        check(json!({"env": "test"}), "n", "env=production", Err(conflict));
        check(json!({"env": "dev"}), "n", "", Err(denied));
        check(json!({"disk": "fast"}), "n", "", Err(denied));
        check(json!({"disk": "fast"}), "other", "env=test", Ok(()));
    }

    #[test]
    fn configurations() {
        let check = |value: Value, expected: Result<usize, &str>| {
            let found = Configuration::parse(&value).map(|found| found.0.len());
            assert_eq!(found, expected.map_err(str::to_owned), "{value}");
        };
        check(Value::Null, Ok(0));
        check(json!({"podNodeSelectorPluginConfig": {DEFAULT: "env=test", "n": ""}}), Ok(2));
        check(json!({"podNodeSelectorPluginConfig": []}), Err("podNodeSelectorPluginConfig: it is no map"));
        check(json!({"podNodeSelectorPluginConfig": {"n": 1}}), Err("podNodeSelectorPluginConfig.n: it is no text"));
        check(json!({"podNodeSelectorPluginConfig": {"n": "a"}}), Err("podNodeSelectorPluginConfig.n: invalid selector: [a]"));
    }
}
