//! `wait`: until a condition, a field or the end of objects.

use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use structural::JsonPath;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::lists::{follow, list};
use crate::manifests::{self, Files};
use crate::output::{complain, say};
use crate::selection::{self, Selectors};
use crate::session::{Connection, JSON, Session};
use crate::{template, times};

/// Options of `wait`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// TYPE NAME..., TYPE/NAME..., or TYPE with a selector or --all.
    #[arg(value_name = "TYPE [NAME]", required_unless_present = "filename", conflicts_with = "filename")]
    what: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// What for: condition=NAME or condition=NAME=VALUE, jsonpath=PATH or jsonpath=PATH=VALUE, create, delete.
    #[arg(long = "for", value_parser = For::parse, value_name = "WHAT")]
    what_for: For,
    /// How long to wait; 0 looks once.
    #[arg(long, value_parser = times::parse, default_value = "30s")]
    timeout: Duration,
    #[command(flatten)]
    selectors: Selectors,
    /// All objects of these types in the namespace.
    #[arg(long)]
    all: bool,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq)]
enum For {
    Create,
    Delete,
    Condition {
        name: String,
        value: String,
    },
    /// A path with this value, or any.
    Path(JsonPath, Option<String>),
}

impl For {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("unrecognized condition: {text:?}; it is condition=NAME, jsonpath=PATH, create or delete");
        match text.to_lowercase().as_str() {
            "create" => return Ok(Self::Create),
            "delete" => return Ok(Self::Delete),
            _ => {}
        }
        if let Some(condition) = text.strip_prefix("condition=").filter(|condition| !condition.is_empty()) {
            let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
            return Ok(Self::Condition { name: name.to_owned(), value: value.to_owned() });
        }
        let path = text.strip_prefix("jsonpath=").ok_or_else(wrong)?;
        let (path, value) = match path.strip_prefix('{') {
            Some(rest) => {
                let (path, rest) = rest.rsplit_once('}').ok_or_else(wrong)?;
                (path, rest.strip_prefix('='))
            }
            // An equals sign in brackets is of the path.
            None => match path.rfind('=').filter(|at| !path[*at..].contains(']')) {
                Some(at) => (&path[..at], Some(&path[at + 1..])),
                None => (path, None),
            },
        };
        let value = value.map(|value| value.trim_matches(['"', '\'']).to_owned());
        Ok(Self::Path(JsonPath::parse(path).map_err(|error| error.to_string())?, value))
    }

    /// Whether an object is as it should be; none is one that is not there.
    fn is_met(&self, object: Option<&Value>) -> bool {
        let Some(object) = object else { return *self == Self::Delete };
        match self {
            Self::Delete => false,
            Self::Create => true,
            Self::Condition { name, value } => {
                let conditions = object["status"]["conditions"].as_array();
                let found = conditions
                    .into_iter()
                    .flatten()
                    .find(|condition| condition["type"].as_str().is_some_and(|found| found.eq_ignore_ascii_case(name)));
                found.is_some_and(|condition| {
                    // What was said of an earlier generation says nothing of this one.
                    let seen = condition["observedGeneration"].as_i64().or(object["status"]["observedGeneration"].as_i64());
                    let current = seen.is_none_or(|seen| Some(seen) >= object["metadata"]["generation"].as_i64());
                    current && condition["status"].as_str().is_some_and(|found| found.eq_ignore_ascii_case(value))
                })
            }
            Self::Path(path, value) => {
                let found = path.find(object);
                match value {
                    None => !found.is_empty(),
                    Some(value) => found.first().is_some_and(|found| template::shown(found) == *value),
                }
            }
        }
    }
}

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let session = Session::open(&options.connection).await?;
    let end = Instant::now() + options.timeout;
    let (wanted, namespaces) = if options.files.is_empty() {
        (selection::parse(session.resources().await?, &options.what)?, Vec::new())
    } else {
        manifests::wanted(&session, &options.files).await?
    };
    selection::check_names(&wanted, options.all || !options.selectors.is_empty(), options.all_namespaces)?;
    let mut targets = Vec::new();
    for (at, wanted) in wanted.iter().enumerate() {
        let own = namespaces.get(at).cloned().flatten();
        let here = own.as_deref().or(session.namespace_of(wanted.resource)).filter(|_| !options.all_namespaces);
        let owned = |name: &str, namespace: Option<&str>| (wanted.resource, namespace.map(str::to_owned), name.to_owned());
        if !wanted.names.is_empty() {
            targets.extend(wanted.names.iter().map(|name| owned(name, here)));
            continue;
        }
        if !options.all && options.selectors.is_empty() {
            return Err(Error::usage("resource(s) were provided, but no name was specified: name them, or use -l or --all"));
        }
        let found = list(&session, &wanted.resource.collection(here), &options.selectors.query(), JSON).await?;
        for metadata in found["items"].as_array().into_iter().flatten().map(|item| &item["metadata"]) {
            targets.push(owned(metadata["name"].as_str().unwrap_or_default(), metadata["namespace"].as_str()));
        }
    }
    if targets.is_empty() && options.what_for != For::Delete {
        return Err(Error::usage("no matching resources found"));
    }
    let mut failed = false;
    for (resource, namespace, name) in &targets {
        if !matches!(options.what_for, For::Create | For::Delete)
            && let Err(error) = session.get(&resource.object(namespace.as_deref(), name)).await
        {
            complain(&error);
            failed = true;
            continue;
        }
        let what = &options.what_for;
        // Without a time, what is there now counts.
        let once = options.timeout.is_zero();
        let waited = follow(&session, resource, namespace.as_deref(), name, Some(end).filter(|_| !once), |object| {
            if object.is_none() && !matches!(what, For::Create | For::Delete) {
                let text = format!("{} was deleted while it was waited for", resource.named(name));
                return Err(Error::usage(text));
            }
            match what.is_met(object) {
                true => Ok(ControlFlow::Break(())),
                false if once => Err(Error::Timeout(String::new())),
                false => Ok(ControlFlow::Continue(())),
            }
        });
        match waited.await.map_err(|error| error.about(&format!("{}/{name}", resource.plural))) {
            Ok(()) => say(&format!("{} condition met", resource.named(name)))?,
            Err(error @ (Error::Closed | Error::Unreachable { .. })) => return Err(error),
            Err(error) => {
                complain(&error);
                failed = true;
            }
        }
    }
    if failed { Err(Error::Told) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions() {
        let object = json!({
            "metadata": {"generation": 2},
            "status": {
                "phase": "Running", "observedGeneration": 2, "replicas": 3,
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "True", "observedGeneration": 1}],
            },
        });
        let check = |text: &str, expected: bool| assert_eq!(For::parse(text).unwrap().is_met(Some(&object)), expected, "{text}");
        check("condition=Ready", true);
        check("condition=ready=True", true);
        check("condition=Ready=False", false);
        check("condition=Old", false);
        check("condition=Other", false);
        check("jsonpath={.status.phase}=Running", true);
        check("jsonpath={.status.phase}=\"Running\"", true);
        check("jsonpath=.status.phase=Pending", false);
        check("jsonpath={.status.replicas}=3", true);
        check("jsonpath={.status.phase}", true);
        check("jsonpath={.status.nothing}", false);
        check("jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=True", true);
        check("jsonpath=.status.conditions[?(@.type==\"Ready\")].status=False", false);
        check("create", true);
        check("delete", false);
        assert!(For::Delete.is_met(None) && !For::Create.is_met(None));
    }

    #[test]
    fn no_conditions() {
        for text in ["Ready", "condition=", "jsonpath={.a", "jsonpath=.a["] {
            assert!(For::parse(text).is_err(), "{text}");
        }
    }
}
