//! PodSecurity: pods keep to the Pod Security Standards that the labels of their namespace name (KEP-2579).
//!
//! What is enforced holds for pods. Workloads are accepted whatever their template says, with a warning when its pods would be
//! refused or are unwelcome. A namespace that asks for more than before is accepted with warnings of the pods that it has. What no label
//! says, and whom none of it concerns, stands in a [`Configuration`].

mod configuration;
mod counts;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use apimachinery::field::Errors;
use apimachinery::{Status, meta};
use async_trait::async_trait;
use pods::security::{Level, Policy, Rule, Subject, details, policy, reasons};
use registry::{Admission, ListOptions, Operation, Request};
use serde_json::Value;

use super::{find, forbidden, is, text};
pub(crate) use configuration::Configuration;
use counts::{Counted, Mode};

/// Where the kinds that make pods keep their template.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("", "replicationcontrollers", "/spec/template"),
    ("", "podtemplates", "/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("batch", "jobs", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
];
/// Sub-resources of pods that leave the specification alone.
const HARMLESS: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
/// Of the pods of a namespace so many are looked at when its rule changes, and no longer than so.
const MOST_PODS: usize = 3000;
const LONGEST: Duration = Duration::from_secs(1);
/// After so many pods others get their turn.
const AT_ONCE: usize = 50;

pub(super) struct PodSecurity(pub(super) Configuration);

fn template_of(a: &Request<'_>) -> Option<&'static str> {
    let own = TEMPLATES.iter().find(|(group, plural, _)| is(a, group, plural));
    own.filter(|_| a.subresource.is_empty()).map(|(_, _, path)| *path)
}

#[async_trait]
impl Admission for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        let writes = matches!(a.operation, Operation::Create | Operation::Update);
        let pod = is(a, "", "pods") && !HARMLESS.contains(&a.subresource);
        let namespace = is(a, "", "namespaces") && a.subresource.is_empty();
        writes && (pod || namespace || template_of(a).is_some())
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let Some(object) = a.object() else { return Ok(()) };
        if is(a, "", "namespaces") {
            return self.check_namespace(a, object).await;
        }
        let (counted, configuration) = (Counted::of(a, template_of(a).is_some()), &self.0);
        if configuration.defaults == Policy::default() && !has_policy(a).await {
            counts::evaluated(counted, Mode::Enforce, configuration.defaults.enforce, true);
            return Ok(());
        }
        if let Some(why) = configuration.exempts(a.namespace, &a.context().user.name) {
            return exempt(a, counted, why);
        }
        let Some(namespace) = find(a, "", "namespaces", "", a.namespace).await else { return Ok(()) };
        let (policy, _) = self.policy_of(&namespace);
        let path = template_of(a);
        let template = path.map_or(Some(object), |path| object.pointer(path));
        if let Some(template) = template
            && configuration.exempts_class(text(template, "/spec/runtimeClassName"))
        {
            return exempt(a, counted, "runtimeClass");
        }
        match path {
            Some(_) => {
                let template = template.and_then(Subject::of_value);
                if let Some(template) = &template {
                    audit(a, counted, &policy, template);
                    warn(a, counted, &policy, template);
                }
                Ok(())
            }
            None => check_pod(a, counted, &policy, object),
        }
    }
}

/// None of it concerns the request; the audit is told why.
fn exempt(a: &Request<'_>, counted: Counted, why: &str) -> Result<(), Status> {
    counts::exempted(counted);
    a.context().annotations.add(format!("{}exempt", policy::PREFIX), why);
    Ok(())
}

/// Whether the namespace has labels of policies, by its encoded form: most have none.
async fn has_policy(a: &Request<'_>) -> bool {
    let Some(resource) = a.registry.resource("", "v1", "namespaces") else { return false };
    let namespace = a.registry.get(&resource, "", a.namespace, None).await;
    namespace.is_ok_and(|namespace| memchr::memmem::find(&namespace.json, policy::PREFIX.as_bytes()).is_some())
}

fn check_pod(a: &Request<'_>, counted: Counted, policy: &Policy, pod: &Value) -> Result<(), Status> {
    let enforce = policy.enforce;
    if [enforce, policy.warn, policy.audit].iter().all(|rule| rule.level == Level::Privileged) {
        counts::evaluated(counted, Mode::Enforce, enforce, true);
        return Ok(());
    }
    if a.operation == Operation::Update && a.old.is_some_and(|old| !matters(pod, old)) {
        return Ok(());
    }
    let pod = Subject::of_value(pod).ok_or_else(|| Status::bad_request("failed to decode pod"))?;
    a.context().annotations.add(format!("{}enforce-policy", policy::PREFIX), enforce.to_string());
    audit(a, counted, policy, &pod);
    let found = enforce.violations(&pod);
    counts::evaluated(counted, Mode::Enforce, enforce, found.is_empty());
    if !found.is_empty() {
        return Err(forbidden(a, format!("violates PodSecurity \"{enforce}\": {}", details(&found))));
    }
    warn(a, counted, policy, &pod);
    Ok(())
}

/// What a pod does against what is only told.
fn would_violate(rule: Rule, pod: &Subject) -> Option<String> {
    let found = rule.violations(pod);
    (!found.is_empty()).then(|| format!("would violate PodSecurity \"{rule}\": {}", details(&found)))
}

fn warn(a: &Request<'_>, counted: Counted, policy: &Policy, pod: &Subject) {
    if let Some(text) = would_violate(policy.warn, pod) {
        counts::evaluated(counted, Mode::Warn, policy.warn, false);
        a.context().warnings.push(text);
    }
}

fn audit(a: &Request<'_>, counted: Counted, policy: &Policy, pod: &Subject) {
    if let Some(text) = would_violate(policy.audit, pod) {
        counts::evaluated(counted, Mode::Audit, policy.audit, false);
        a.context().annotations.add(format!("{}audit-violations", policy::PREFIX), text);
    }
}

/// Whether a change of a pod is one that the standards care about: other containers, other images, other annotations of seccomp.
fn matters(new: &Value, old: &Value) -> bool {
    let note = |pod: &Value, key: &str| meta::annotation(pod, key).map(str::to_owned);
    let list = |pod: &Value, field: &str| pod["spec"][field].as_array().cloned().unwrap_or_default();
    let differs = |container: &Value, before: &Value| {
        let key = format!("{SECCOMP_CONTAINER}{}", text(container, "/name"));
        text(container, "/image") != text(before, "/image") || note(new, &key) != note(old, &key)
    };
    let fixed = |field: &str| {
        let (new, old) = (list(new, field), list(old, field));
        new.len() != old.len() || new.iter().zip(&old).any(|(container, before)| differs(container, before))
    };
    let before = list(old, "ephemeralContainers");
    let debug = |container: &Value| {
        let same = before.iter().find(|before| text(before, "/name") == text(container, "/name"));
        same.is_none_or(|before| differs(container, before))
    };
    note(new, SECCOMP_POD) != note(old, SECCOMP_POD)
        || fixed("containers")
        || fixed("initContainers")
        || list(new, "ephemeralContainers").iter().any(debug)
}

impl PodSecurity {
    fn policy_of(&self, namespace: &Value) -> (Policy, Errors) {
        self.0.defaults.with(|key| meta::label(namespace, key))
    }

    /// Labels are valid, unless they were wrong before. Pods that a new rule would refuse are told.
    async fn check_namespace(&self, a: &Request<'_>, namespace: &Value) -> Result<(), Status> {
        let (new, errors) = self.policy_of(namespace);
        let (old, known) = a.old.map(|old| self.policy_of(old)).unwrap_or_default();
        if !errors.is_empty() && errors != known {
            let def = &a.resource.def;
            return Err(Status::invalid(&def.group, &def.kind, meta::name(namespace), &errors));
        }
        let (rule, before) = (new.enforce, old.enforce);
        let milder = rule.version == before.version && rule.level <= before.level;
        let exempt = self.0.exempts(meta::name(namespace), "").is_some();
        if a.operation == Operation::Update && rule != before && rule.level != Level::Privileged && !milder && !exempt {
            for warning in existing(a, meta::name(namespace), rule).await {
                a.context().warnings.push(warning);
            }
        }
        Ok(())
    }
}

/// What there is to say of the pods of a namespace under a new rule.
async fn existing(a: &Request<'_>, namespace: &str, rule: Rule) -> Vec<String> {
    let Some(resource) = a.registry.resource("", "v1", "pods") else { return Vec::new() };
    let Ok(list) = a.registry.list(&resource, Some(namespace), &ListOptions::default()).await else {
        return vec!["failed to list pods while checking new PodSecurity enforce level".to_owned()];
    };
    let (end, mut checked) = (Instant::now() + LONGEST, 0);
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for entry in list.entries.iter().take(MOST_PODS) {
        if checked % AT_ONCE == AT_ONCE - 1 {
            tokio::task::yield_now().await;
            if Instant::now() > end {
                break;
            }
        }
        checked += 1;
        let pod = entry.value();
        let violations = Subject::of_value(&pod).map(|subject| rule.violations(&subject)).unwrap_or_default();
        if violations.is_empty() {
            continue;
        }
        let name = meta::name(&pod);
        let (first, count) = found.entry(reasons(&violations)).or_insert_with(|| (name.to_owned(), 0));
        *count += 1;
        if name < first.as_str() {
            *first = name.to_owned();
        }
    }
    told(namespace, rule, &found, checked, list.entries.len())
}

fn told(namespace: &str, rule: Rule, found: &BTreeMap<String, (String, usize)>, checked: usize, all: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    if checked < all {
        warnings.push(format!("new PodSecurity enforce level only checked against the first {checked} of {all} existing pods"));
    }
    if !found.is_empty() {
        warnings.push(format!("existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{rule}\""));
    }
    let mut pods: Vec<String> = found
        .iter()
        .map(|(reason, (first, count))| match count {
            1 => format!("{first}: {reason}"),
            2 => format!("{first} (and 1 other pod): {reason}"),
            count => format!("{first} (and {} other pods): {reason}", count - 1),
        })
        .collect();
    pods.sort();
    warnings.extend(pods);
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_that_matter() {
        let check = |new: Value, old: Value, expected: bool| assert_eq!(matters(&new, &old), expected, "{new} {old}");
        let pod = |containers: Value| json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}});
        let one = json!([{"name": "c", "image": "i"}]);
        check(pod(one.clone()), json!({"spec": {"containers": one}}), false);
        check(pod(json!([{"name": "c", "image": "j"}])), pod(one.clone()), true);
        check(pod(json!([])), pod(one.clone()), true);
        let noted = |key: &str| json!({"metadata": {"annotations": {key: "x"}}, "spec": {"containers": one}});
        check(noted(SECCOMP_POD), pod(one.clone()), true);
        check(noted("container.seccomp.security.alpha.kubernetes.io/c"), pod(one.clone()), true);
        check(noted("container.seccomp.security.alpha.kubernetes.io/d"), pod(one.clone()), false);
        let debug = |image: &str| json!({"spec": {"containers": one, "ephemeralContainers": [{"name": "e", "image": image}]}});
        check(debug("i"), pod(one.clone()), true);
        check(debug("i"), debug("i"), false);
        check(debug("j"), debug("i"), true);
    }

    #[test]
    fn pods_that_there_are_are_told_by_what_they_do() {
        let rule = Rule { level: Level::Baseline, ..Rule::default() };
        let check = |found: &[(&str, &str, usize)], checked, all, expected: &[&str]| {
            let found =
                found.iter().map(|(reason, first, count)| ((*reason).to_owned(), ((*first).to_owned(), *count))).collect();
            assert_eq!(told("n", rule, &found, checked, all), expected);
        };
        check(&[], 2, 2, &[]);
        check(&[], 3000, 3001, &["new PodSecurity enforce level only checked against the first 3000 of 3001 existing pods"]);
        let head = "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"";
        check(
            &[("privileged", "b", 1), ("hostPort", "c", 2), ("host namespaces", "a", 3)],
            9,
            9,
            &[head, "a (and 2 other pods): host namespaces", "b: privileged", "c (and 1 other pod): hostPort"],
        );
    }
}
