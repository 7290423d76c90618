//! `delete`: objects by name, by selection or as files have them.

use std::ops::ControlFlow;
use std::time::Duration;

use clap::{ArgAction, Args};
use http::Method;
use serde_json::{Map, Value, json};

use crate::discovery::Resource;
use crate::error::{Error, Result};
use crate::lists::{follow, list};
use crate::manifests::{self, Files};
use crate::output::{Output, complain, print, tell, visible};
use crate::selection::{self, Selectors};
use crate::session::{Connection, JSON, Payload, Session};
use crate::times;
use crate::write::DryRun;

/// Options of `delete`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// TYPE NAME..., TYPE/NAME..., or TYPE with a selector or --all.
    #[arg(value_name = "TYPE [NAME]", required_unless_present = "filename", conflicts_with = "filename")]
    what: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    selectors: Selectors,
    /// All objects of these types in the namespace.
    #[arg(long, conflicts_with_all = ["selector", "field_selector"])]
    all: bool,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Wait until they are gone.
    #[arg(long, action = ArgAction::Set, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    wait: Option<bool>,
    /// How long to wait; 0 is for ever.
    #[arg(long, value_parser = times::parse, default_value = "0")]
    timeout: Duration,
    /// Seconds that pods have to end; -1 is what each says itself.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// At once, and without the word of the node that they have ended.
    #[arg(long)]
    force: bool,
    /// As with --grace-period=1.
    #[arg(long, conflicts_with_all = ["force", "grace_period"])]
    now: bool,
    /// What is not there is no error.
    #[arg(long, action = ArgAction::Set, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    ignore_not_found: Option<bool>,
    /// What becomes of what belongs to them: it goes afterwards, before, or stays.
    #[arg(long, default_value = "background", value_parser = ["background", "foreground", "orphan"])]
    cascade: String,
    /// What the server would do.
    #[arg(long, value_enum, default_value_t = DryRun::None, require_equals = true)]
    dry_run: DryRun,
    /// Form: name.
    #[arg(short, long, value_parser = crate::output::parse, value_name = "FORM")]
    output: Option<Output>,
    #[command(flatten)]
    connection: Connection,
}

/// One object that is to go.
#[derive(Debug)]
struct Doomed<'r> {
    resource: &'r Resource,
    namespace: Option<String>,
    name: String,
}

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let session = Session::open(&options.connection).await?;
    let selected = options.all || !options.selectors.is_empty();
    let mut failed = false;
    let doomed = find(&session, options, selected, &mut failed).await?;
    let graceless = options.force && options.grace_period <= 0;
    if graceless {
        tell(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may \
             continue to run on the cluster indefinitely.",
        );
    }
    let body = body(options);
    // What a selection has found may have gone since.
    let ignore = options.ignore_not_found.unwrap_or(selected);
    let mut deleted = Vec::new();
    for one in &doomed {
        let path = one.resource.object(one.namespace.as_deref(), &one.name);
        match session.ask(Method::DELETE, &path, JSON, Payload::of(JSON, &body)).await {
            Ok((_, answer)) => {
                print(&told(options, one))?;
                deleted.push((one, uid(&answer)));
            }
            Err(error) if error.is_not_found() && ignore => {}
            Err(error @ Error::Api(_)) => {
                complain(&error);
                failed = true;
            }
            Err(error) => return Err(error),
        }
    }
    if doomed.is_empty() && selected && !failed {
        print("No resources found\n")?;
    }
    if options.wait.unwrap_or(!options.force) && options.dry_run == DryRun::None {
        wait(&session, options, &deleted).await?;
    }
    if failed { Err(Error::Told) } else { Ok(()) }
}

async fn find<'s>(session: &'s Session, options: &Options, selected: bool, failed: &mut bool) -> Result<Vec<Doomed<'s>>> {
    let mut doomed = Vec::new();
    if !options.files.is_empty() {
        // kubectl deletes those of a file that the selector takes; here it is not left out in silence, which would delete all of them.
        if selected {
            return Err(Error::usage("-f names its objects: it cannot be used with a selector or --all"));
        }
        let resources = session.resources().await?;
        // What came last goes first: objects before their definition.
        for manifest in manifests::ordered(manifests::read(&options.files)?).into_iter().rev() {
            let Some(resource) = manifest.resource(resources) else {
                // A kind that is gone has no objects.
                if options.ignore_not_found != Some(true) {
                    complain(&manifest.unknown());
                    *failed = true;
                }
                continue;
            };
            let namespace = manifest.namespace(session, resource)?.map(str::to_owned);
            doomed.push(Doomed { resource, namespace, name: manifest.name().to_owned() });
        }
        return Ok(doomed);
    }
    let wanted = selection::parse(session.resources().await?, &options.what)?;
    selection::check_names(&wanted, selected, options.all_namespaces)?;
    for wanted in wanted {
        let resource = wanted.resource;
        let namespace = session.namespace_of(resource).filter(|_| !options.all_namespaces);
        if wanted.names.is_empty() && !selected {
            return Err(Error::usage("resource(s) were provided, but no name was specified: name them, or use -l or --all"));
        }
        let of = |name: String, namespace: Option<&str>| Doomed { resource, namespace: namespace.map(str::to_owned), name };
        if !selected {
            doomed.extend(wanted.names.into_iter().map(|name| of(name, namespace)));
            continue;
        }
        let found = list(session, &resource.collection(namespace), &options.selectors.query(), JSON).await?;
        for metadata in found["items"].as_array().into_iter().flatten().map(|item| &item["metadata"]) {
            doomed.push(of(metadata["name"].as_str().unwrap_or_default().to_owned(), metadata["namespace"].as_str()));
        }
    }
    Ok(doomed)
}

/// `metav1.DeleteOptions`
fn body(options: &Options) -> Value {
    let cascade = match options.cascade.as_str() {
        "foreground" => "Foreground",
        "orphan" => "Orphan",
        _ => "Background",
    };
    let mut body = Map::from_iter([
        ("apiVersion".to_owned(), "v1".into()),
        ("kind".to_owned(), "DeleteOptions".into()),
        ("propagationPolicy".to_owned(), cascade.into()),
    ]);
    let grace = match options.grace_period {
        _ if options.now => Some(1),
        seconds @ 1.. => Some(seconds),
        // Without force, no grace is one second: the node's word is waited for.
        0 if !options.force => Some(1),
        _ if options.force => Some(0),
        _ => None,
    };
    body.extend(grace.map(|seconds| ("gracePeriodSeconds".to_owned(), seconds.into())));
    if options.dry_run == DryRun::Server {
        body.insert("dryRun".to_owned(), json!(["All"]));
    }
    Value::Object(body)
}

fn told(options: &Options, one: &Doomed<'_>) -> String {
    if options.output == Some(Output::Name) {
        return format!("{}\n", one.resource.named(&one.name));
    }
    let how = if options.force && options.grace_period <= 0 { "force deleted" } else { "deleted" };
    let place = one.namespace.as_ref().map(|namespace| format!(" from {namespace} namespace")).unwrap_or_default();
    let dry = if options.dry_run == DryRun::Server { " (server dry run)" } else { "" };
    let told = format!("{} {:?} {how}{place}{dry}", one.resource.type_name(), one.name);
    format!("{}\n", visible(&told, &[]))
}

/// The identity of what was deleted: the object as it is now, or a status about it.
fn uid(answer: &Value) -> Option<String> {
    let uid = answer["metadata"]["uid"].as_str().or(answer["details"]["uid"].as_str())?;
    Some(uid.to_owned())
}

/// Waits until each is gone, or another object has its name.
async fn wait(session: &Session, options: &Options, deleted: &[(&Doomed<'_>, Option<String>)]) -> Result<()> {
    let deadline = times::deadline(options.timeout);
    for (one, uid) in deleted {
        if !one.resource.can("list") || !one.resource.can("watch") {
            continue;
        }
        let gone = follow(session, one.resource, one.namespace.as_deref(), &one.name, deadline, |object| {
            let there = object.is_some_and(|object| uid.as_ref().is_none_or(|uid| object["metadata"]["uid"] == uid.as_str()));
            Ok(if there { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        });
        match gone.await {
            // Who may delete it need not be let to see it go.
            Err(Error::Api(status)) if matches!(status.code, 403 | 405) => {}
            gone => gone.map_err(|error| error.about(&format!("{}/{}", one.resource.plural, one.name)))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::parsed;

    fn options(line: &str) -> Options {
        parsed(&format!("pod a {line}")).unwrap()
    }

    #[test]
    fn bodies() {
        let check = |line: &str, grace: Option<i64>| {
            assert_eq!(body(&options(line)).get("gracePeriodSeconds").and_then(Value::as_i64), grace, "{line}");
        };
        check("", None);
        check("--grace-period=5", Some(5));
        check("--grace-period=0", Some(1));
        check("--force", Some(0));
        check("--force --grace-period=0", Some(0));
        check("--force --grace-period=7", Some(7));
        check("--now", Some(1));
        assert_eq!(body(&options("--cascade=orphan"))["propagationPolicy"], "Orphan");
        assert_eq!(body(&options("--dry-run=server"))["dryRun"], json!(["All"]));
    }

    #[test]
    fn lines() {
        let resources = crate::discovery::tests::some();
        let resource = resources.named("deployments").unwrap();
        let one = Doomed { resource, namespace: Some("a".to_owned()), name: "web".to_owned() };
        let check = |line: &str, expected: &str| assert_eq!(told(&options(line), &one), format!("{expected}\n"), "{line}");
        check("", "deployment.apps \"web\" deleted from a namespace");
        check("--force", "deployment.apps \"web\" force deleted from a namespace");
        check("--dry-run=server", "deployment.apps \"web\" deleted from a namespace (server dry run)");
        check("-o name", "deployment.apps/web");
        assert!(parsed::<Options>("pod a --dry-run=client").is_err());
        assert!(parsed::<Options>("pods --all -l a=b").is_err());
    }

    #[test]
    fn identities() {
        assert_eq!(uid(&json!({"metadata": {"uid": "1"}})).as_deref(), Some("1"));
        assert_eq!(uid(&json!({"kind": "Status", "metadata": {}, "details": {"uid": "2"}})).as_deref(), Some("2"));
        assert_eq!(uid(&json!({})), None);
    }
}
