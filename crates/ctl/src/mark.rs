//! `label` and `annotate`: words about objects.

use std::collections::BTreeMap;

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::lists::list;
use crate::output::{complain, say};
use crate::selection::{self, Selectors};
use crate::session::{Connection, JSON, Payload, Session};

/// Options of both.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// TYPE NAME... or TYPE/NAME..., then KEY=VALUE to set and KEY- to take away.
    #[arg(value_name = "TYPE [NAME] KEY=VALUE", required = true)]
    what: Vec<String>,
    /// Replace values that are there.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    selectors: Selectors,
    /// All objects of these types in the namespace.
    #[arg(long, conflicts_with_all = ["selector", "field_selector"])]
    all: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What the words are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Labels,
    Annotations,
}

impl Mark {
    fn field(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Annotations => "annotations",
        }
    }

    /// One of them, in kubectl's words.
    fn singular(self) -> &'static str {
        match self {
            Self::Labels => "label",
            Self::Annotations => "annotation",
        }
    }

    /// What was done by these changes.
    fn done(self, changes: &[Change<'_>]) -> &'static str {
        match self {
            Self::Labels if changes.iter().all(|(_, value)| value.is_none()) => "unlabeled",
            Self::Labels => "labeled",
            Self::Annotations => "annotated",
        }
    }
}

/// A key, and its value; none is to be taken away.
type Change<'a> = (&'a str, Option<&'a str>);

/// An argument as a change, if it is one. A name may end with no dash.
fn change_of(argument: &str) -> Option<Change<'_>> {
    let (key, value) = match argument.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (argument.strip_suffix('-')?, None),
    };
    (!key.is_empty()).then_some((key, value))
}

/// Arguments apart: what stands before the first change, and the changes.
///
/// # Errors
/// There is none, something else stands behind the first, or a key is both set and taken away.
fn apart(arguments: &[String], mark: Mark) -> Result<(&[String], Vec<Change<'_>>)> {
    let word = mark.singular();
    let first = arguments.iter().position(|argument| change_of(argument).is_some()).unwrap_or(arguments.len());
    let (objects, changes) = arguments.split_at(first);
    let why = |argument: &str| Error::usage(format!("all resources must be specified before {word} changes: {argument}"));
    let changes: Vec<_> =
        changes.iter().map(|argument| change_of(argument).ok_or_else(|| why(argument))).collect::<Result<_>>()?;
    if changes.is_empty() {
        return Err(Error::usage(format!("at least one {word} update is required: KEY=VALUE or KEY-")));
    }
    let sets = |key: &str| changes.iter().any(|(other, value)| *other == key && value.is_some());
    if let Some((key, _)) = changes.iter().find(|(key, value)| value.is_none() && sets(key)) {
        return Err(Error::usage(format!("can not both modify and remove the same {word} in the same command: {key}")));
    }
    Ok((objects, changes))
}

/// The merge patch, none if the object is so already. Of values of one key, the last counts.
///
/// # Errors
/// The object has another value, which is not to be replaced.
fn patch(object: &Value, mark: Mark, changes: &[Change<'_>], overwrite: bool) -> Result<Option<Value>> {
    let present = &object["metadata"][mark.field()];
    let mut map = Map::new();
    let last: BTreeMap<_, _> = changes.iter().copied().collect();
    for (key, value) in &last {
        let there = present[*key].as_str();
        match (there, value) {
            (Some(there), Some(value)) if there == *value => {}
            (Some(there), Some(_)) if !overwrite => {
                return Err(Error::usage(format!("'{key}' already has a value ({there}), and --overwrite is false")));
            }
            (None, None) => {}
            _ => drop(map.insert((*key).to_owned(), value.map_or(Value::Null, Into::into))),
        }
    }
    Ok((!map.is_empty()).then(|| json!({"metadata": {mark.field(): map}})))
}

/// Runs it.
pub(crate) async fn run(options: &Options, mark: Mark) -> Result<()> {
    let (objects, changes) = apart(&options.what, mark)?;
    let session = Session::open(&options.connection).await?;
    let mut failed = false;
    let wanted = selection::parse(session.resources().await?, objects)?;
    selection::check_names(&wanted, options.all || !options.selectors.is_empty(), false)?;
    for wanted in wanted {
        let (resource, namespace) = (wanted.resource, session.namespace_of(wanted.resource));
        let mut names = wanted.names.clone();
        if names.is_empty() {
            if !options.all && options.selectors.is_empty() {
                return Err(Error::usage("one or more objects must be named: by NAME, -l or --all"));
            }
            let found = list(&session, &resource.collection(namespace), &options.selectors.query(), JSON).await?;
            let found = found["items"].as_array().into_iter().flatten();
            names.extend(found.filter_map(|item| item["metadata"]["name"].as_str()).map(str::to_owned));
        }
        for name in &names {
            let path = resource.object(namespace, name);
            match change(&session, &path, mark, &changes, options.overwrite).await {
                Ok(changed) => {
                    let done = match (changed, mark) {
                        (true, mark) => mark.done(&changes),
                        (false, Mark::Labels) => "not labeled",
                        (false, Mark::Annotations) => "not annotated",
                    };
                    say(&format!("{} {done}", resource.named(name)))?;
                }
                Err(error @ (Error::Api(_) | Error::Usage(_))) => {
                    complain(&error);
                    failed = true;
                }
                Err(error) => return Err(error),
            }
        }
    }
    if failed { Err(Error::Told) } else { Ok(()) }
}

async fn change(session: &Session, path: &str, mark: Mark, changes: &[Change<'_>], overwrite: bool) -> Result<bool> {
    let object = session.get(path).await?;
    let Some(patch) = patch(&object, mark, changes, overwrite)? else { return Ok(false) };
    let patch = Payload::of("application/merge-patch+json", &patch);
    session.ask(Method::PATCH, &format!("{path}?fieldManager=knarr"), JSON, patch).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_argument_is_dropped() {
        let check = |line: &str, expected: &str| {
            let arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(apart(&arguments, Mark::Labels).unwrap_err().to_string(), format!("error: {expected}"), "{line}");
        };
        let before = |argument: &str| format!("all resources must be specified before label changes: {argument}");
        check("pod a x=1 b", &before("b"));
        check("pod a x- pod/b y=1", &before("pod/b"));
        check("pod a x=1 =2", &before("=2"));
        check("pod a x=1 -", &before("-"));
        check("pod a x=1 x-", "can not both modify and remove the same label in the same command: x");
        check("pod a x- y=1 x=", "can not both modify and remove the same label in the same command: x");
        let none = "at least one label update is required: KEY=VALUE or KEY-";
        check("pod a", none);
        check("pod a =1 -", none);
    }

    #[test]
    fn arguments_and_patches() {
        let arguments: Vec<_> = ["pod", "a", "x=1", "y-", "z=a=b"].map(str::to_owned).to_vec();
        let (objects, changes) = apart(&arguments, Mark::Labels).unwrap();
        assert_eq!(objects, ["pod", "a"]);
        assert_eq!(changes, [("x", Some("1")), ("y", None), ("z", Some("a=b"))]);
        let check = |labels: Value, overwrite: bool, expected: Option<Value>| {
            let object = json!({"metadata": {"labels": labels}});
            assert_eq!(patch(&object, Mark::Labels, &changes[..2], overwrite).ok().flatten(), expected, "{labels}");
        };
        check(json!({"y": "0"}), false, Some(json!({"metadata": {"labels": {"x": "1", "y": null}}})));
        check(json!({"x": "1"}), false, None);
        check(json!({"x": "2"}), false, None);
        check(json!({"x": "2"}), true, Some(json!({"metadata": {"labels": {"x": "1"}}})));
        assert!(patch(&json!({"metadata": {"labels": {"x": "2"}}}), Mark::Labels, &changes, false).is_err());
        let twice = [("x", Some("2")), ("x", Some("1"))];
        assert_eq!(patch(&json!({"metadata": {"labels": {"x": "1"}}}), Mark::Labels, &twice, true).unwrap(), None);
        assert_eq!(patch(&json!({}), Mark::Labels, &twice, false).unwrap(), Some(json!({"metadata": {"labels": {"x": "1"}}})));
    }
}
