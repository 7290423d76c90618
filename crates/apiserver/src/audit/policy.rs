//! The audit policy: how much is told of which requests (`audit.k8s.io/v1 Policy`).

use apimachinery::yaml;
use registry::User;
use serde_json::Value;

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who asked for what, and what came of it.
    Metadata,
    /// The body of the request, too.
    Request,
    /// And that of the answer.
    RequestResponse,
}

impl Level {
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::Metadata, Self::Request, Self::RequestResponse];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The request has come.
    RequestReceived,
    /// The head of an answer that lasts has gone.
    ResponseStarted,
    /// The answer has gone.
    ResponseComplete,
    /// There is no answer, for the server has a fault.
    Panic,
}

impl Stage {
    pub(crate) const ALL: [Self; 4] = [Self::RequestReceived, Self::ResponseStarted, Self::ResponseComplete, Self::Panic];
    /// Those of an answer. One that comes at once has only the last.
    pub(crate) const ANSWER: [Self; 2] = [Self::ResponseStarted, Self::ResponseComplete];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It cannot be read.
    #[error("{0}")]
    Read(std::io::Error),
    /// It is no YAML.
    #[error("{0}")]
    Yaml(String),
    /// It is something else.
    #[error("it is not a Policy of audit.k8s.io/v1")]
    Kind,
    /// A rule is wrong.
    #[error("rules[{0}]: {1}")]
    Rule(usize, String),
    /// There is no rule.
    #[error("it has no rules")]
    Empty,
}

/// What a request is, to the rules.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked<'a> {
    pub(crate) user: Option<&'a User>,
    pub(crate) verb: &'a str,
    /// A resource, with the parts that follow, or a path.
    pub(crate) is_resource: bool,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) path: &'a str,
}

/// What the policy says of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) level: Level,
    omitted: Vec<&'static str>,
    pub(crate) without_managed_fields: bool,
}

impl Decision {
    /// Whether anything is told at a stage.
    pub(crate) fn tells(&self, stage: Stage) -> bool {
        self.level > Level::None && !self.omitted.contains(&stage.as_str())
    }
}

#[derive(Debug, Default)]
struct Resources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

#[derive(Debug, Default)]
struct Rule {
    decision: Decision,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
}

/// The rules. The first that matches counts.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
}

impl Policy {
    /// Reads a policy in YAML or JSON.
    pub(crate) fn parse(text: &str) -> Result<Self, PolicyError> {
        let (policy, _) = yaml::parse(text).map_err(|error| PolicyError::Yaml(error.to_string()))?;
        if policy["kind"] != "Policy" || policy["apiVersion"] != "audit.k8s.io/v1" {
            return Err(PolicyError::Kind);
        }
        let all = policy["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
        if all.is_empty() {
            return Err(PolicyError::Empty);
        }
        let rules =
            all.iter().enumerate().map(|(index, value)| rule(value, &policy).map_err(|why| PolicyError::Rule(index, why)));
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// What is told of a request; nothing when no rule speaks of it.
    pub(crate) fn decide(&self, asked: &Asked<'_>) -> Decision {
        self.rules.iter().find(|rule| rule.matches(asked)).map(|rule| rule.decision.clone()).unwrap_or_default()
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

fn rule(value: &Value, policy: &Value) -> Result<Rule, String> {
    let level = value["level"].as_str().unwrap_or_default();
    let found = Level::ALL.into_iter().find(|one| one.as_str() == level);
    let mut omitted = Vec::new();
    for stage in texts(&value["omitStages"]).into_iter().chain(texts(&policy["omitStages"])) {
        match Stage::ALL.into_iter().find(|one| one.as_str() == stage) {
            Some(stage) => omitted.push(stage.as_str()),
            None => return Err(format!("unsupported stage {stage:?}")),
        }
    }
    let resources: Vec<Resources> = value["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| Resources {
            group: one["group"].as_str().unwrap_or_default().to_owned(),
            resources: texts(&one["resources"]),
            names: texts(&one["resourceNames"]),
        })
        .collect();
    let (namespaces, paths) = (texts(&value["namespaces"]), texts(&value["nonResourceURLs"]));
    if !paths.is_empty() && (!resources.is_empty() || !namespaces.is_empty()) {
        return Err("rules cannot apply to both regular resources and non-resource URLs".to_owned());
    }
    if let Some(path) = paths.iter().find(|path| *path != "*" && !path.starts_with('/')) {
        return Err(format!("non-resource URL rules must begin with a '/' character: {path:?}"));
    }
    let without = value["omitManagedFields"].as_bool().or_else(|| policy["omitManagedFields"].as_bool()).unwrap_or(false);
    Ok(Rule {
        decision: Decision {
            level: found.ok_or_else(|| format!("unsupported level {level:?}"))?,
            omitted,
            without_managed_fields: without,
        },
        users: texts(&value["users"]),
        groups: texts(&value["userGroups"]),
        verbs: texts(&value["verbs"]),
        resources,
        namespaces,
        paths,
    })
}

impl Rule {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        let any = |list: &[String], text: &str| list.iter().any(|one| one == text);
        let user = asked.user.map_or("", |user| user.name.as_str());
        if !self.users.is_empty() && !any(&self.users, user) || !self.verbs.is_empty() && !any(&self.verbs, asked.verb) {
            return false;
        }
        if !self.groups.is_empty() && !asked.user.is_some_and(|user| user.groups.iter().any(|group| any(&self.groups, group))) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            let placed = self.namespaces.is_empty() || any(&self.namespaces, asked.namespace);
            return asked.is_resource
                && placed
                && (self.resources.is_empty() || self.resources.iter().any(|one| one.matches(asked)));
        }
        let path = |spec: &String| match spec.strip_suffix('*') {
            Some(prefix) => asked.path.starts_with(prefix),
            None => asked.path == spec,
        };
        self.paths.is_empty() || !asked.is_resource && self.paths.iter().any(path)
    }
}

impl Resources {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        if self.group != "*" && self.group != asked.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let named = self.names.is_empty() || self.names.iter().any(|name| name == asked.name);
        named
            && self.resources.iter().any(|spec| match spec.split_once('/') {
                _ if spec == "*" => true,
                Some((resource, sub)) => {
                    !asked.subresource.is_empty()
                        && (resource == "*" || resource == asked.resource)
                        && (sub == "*" || sub == asked.subresource)
                        || sub == "*" && resource == asked.resource
                }
                None => asked.subresource.is_empty() && spec == asked.resource,
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: [watch]
  resources: [{group: "", resources: [endpoints, services]}]
- level: None
  userGroups: ["system:authenticated"]
  nonResourceURLs: ["/api*", "/version"]
- level: Request
  omitManagedFields: true
  resources: [{group: "", resources: [configmaps]}]
  namespaces: [kube-system]
- level: Metadata
  omitStages: [ResponseStarted]
  resources: [{group: "", resources: [secrets, "pods/log", "*/status"], resourceNames: [a]}]
- level: RequestResponse
  resources: [{group: apps}]
- level: Metadata
  resources: [{group: "*", resources: ["*/scale"]}]
"#;

    fn check(policy: &Policy, user: &str, request: &str, expected: Level) {
        let user = User { name: user.into(), groups: vec!["system:authenticated".into()], ..User::default() };
        let words: Vec<&str> = request.split(' ').collect();
        let asked = match words[..] {
            [verb, path] => Asked { user: Some(&user), verb, path, ..Asked::default() },
            [verb, group, resource, namespace, name] => {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                Asked { user: Some(&user), verb, is_resource: true, group, resource, subresource, namespace, name, path: "" }
            }
            _ => panic!("{request}"),
        };
        assert_eq!(policy.decide(&asked).level, expected, "{request}");
    }

    /// A request is `verb path`, or `verb group resource namespace name`.
    #[test]
    fn the_first_rule_that_matches() {
        let policy = Policy::parse(POLICY).unwrap();
        check(&policy, "system:kube-proxy", "watch  services n ", Level::None);
        check(&policy, "jane", "get /version", Level::None);
        check(&policy, "jane", "get /apis/apps", Level::None);
        check(&policy, "jane", "get /metrics", Level::None);
        check(&policy, "jane", "create  configmaps kube-system a", Level::Request);
        check(&policy, "jane", "create  configmaps n a", Level::None);
        check(&policy, "jane", "get  secrets n a", Level::Metadata);
        check(&policy, "jane", "get  secrets n b", Level::None);
        check(&policy, "jane", "get  pods/log n a", Level::Metadata);
        check(&policy, "jane", "get  pods n a", Level::None);
        check(&policy, "jane", "update  nodes/status  a", Level::Metadata);
        check(&policy, "jane", "create apps deployments n d", Level::RequestResponse);
        // v1.36: "specifying `group: "*"` in resource rules to match all API groups".
        check(&policy, "jane", "update example.com webs/scale n w", Level::Metadata);
        check(&policy, "jane", "update example.com webs n w", Level::None);
    }

    #[test]
    fn stages_and_fields_that_are_left_out() {
        let policy = Policy::parse(POLICY).unwrap();
        let decide = |resource| {
            policy.decide(&Asked { is_resource: true, resource, namespace: "kube-system", name: "a", ..Asked::default() })
        };
        let told = |decision: &Decision| Stage::ALL.map(|stage| decision.tells(stage));
        let (maps, secrets) = (decide("configmaps"), decide("secrets"));
        assert_eq!((told(&maps), maps.without_managed_fields), ([false, true, true, true], true));
        assert_eq!((told(&secrets), secrets.without_managed_fields), ([false, false, true, true], false));
        assert_eq!(told(&decide("none")), [false; 4]);
    }

    #[test]
    fn policies_that_are_wrong() {
        let check = |rules: &str, expected: &str| {
            let text = format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: {rules}}}");
            assert_eq!(Policy::parse(&text).unwrap_err().to_string(), expected, "{rules}");
        };
        check("[]", "it has no rules");
        check("[{level: All}]", "rules[0]: unsupported level \"All\"");
        check("[{level: None}, {level: None, omitStages: [X]}]", "rules[1]: unsupported stage \"X\"");
        check(
            "[{level: None, namespaces: [ns], nonResourceURLs: [/a]}]",
            "rules[0]: rules cannot apply to both regular resources and non-resource URLs",
        );
        check("[{level: None, nonResourceURLs: [a]}]", "rules[0]: non-resource URL rules must begin with a '/' character: \"a\"");
        assert_eq!(Policy::parse("kind: Pod").unwrap_err().to_string(), "it is not a Policy of audit.k8s.io/v1");
        assert!(Policy::parse("{").is_err());
    }
}
