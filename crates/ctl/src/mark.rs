//! `label` and `annotate`: words about objects.

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
    #[arg(long)]
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

    /// What was done by these changes.
    fn done(self, changes: &[(&str, Option<&str>)]) -> &'static str {
        match self {
            Self::Labels if changes.iter().all(|(_, value)| value.is_none()) => "unlabeled",
            Self::Labels => "labeled",
            Self::Annotations => "annotated",
        }
    }
}

/// Arguments apart: what stands before the first change, and the changes; none is to be taken away.
fn apart(arguments: &[String]) -> (&[String], Vec<(&str, Option<&str>)>) {
    let change = |argument: &String| argument.contains('=') || argument.ends_with('-');
    // A name may end with no dash, so the first that does is a change.
    let first = arguments.iter().position(change).unwrap_or(arguments.len());
    let (objects, changes) = arguments.split_at(first);
    let read = |argument: &'_ String| -> Option<(usize, bool)> {
        argument.find('=').map(|at| (at, true)).or_else(|| argument.strip_suffix('-').map(|key| (key.len(), false)))
    };
    let changes = changes.iter().filter_map(|argument| {
        let (end, sets) = read(argument)?;
        Some((&argument[..end], sets.then(|| &argument[end + 1..])))
    });
    (objects, changes.collect())
}

/// The merge patch, or why the object is not changed.
fn patch(object: &Value, mark: Mark, changes: &[(&str, Option<&str>)], overwrite: bool) -> Result<Option<Value>> {
    let present = &object["metadata"][mark.field()];
    let mut map = Map::new();
    for (key, value) in changes {
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
    let (objects, changes) = apart(&options.what);
    if changes.is_empty() {
        return Err(Error::usage("at least one KEY=VALUE or KEY- is required"));
    }
    let session = Session::open(&options.connection).await?;
    let mut failed = false;
    for wanted in selection::parse(session.resources().await?, objects)? {
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

async fn change(session: &Session, path: &str, mark: Mark, changes: &[(&str, Option<&str>)], overwrite: bool) -> Result<bool> {
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
    fn arguments_and_patches() {
        let arguments: Vec<_> = ["pod", "a", "x=1", "y-", "z=a=b"].map(str::to_owned).to_vec();
        let (objects, changes) = apart(&arguments);
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
    }
}
