//! `apply` and `create`: objects of files become those of the cluster.

use std::time::Duration;

use clap::{Args, ValueEnum};
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::Instant;

use crate::discovery::{Resource, Resources};
use crate::error::{Error, Result};
use crate::lists::with_query;
use crate::manifests::{self, Files, Manifest};
use crate::output::{self, Output, complain, print, say};
use crate::session::{Connection, JSON, Payload, Session};

/// Server-side apply. JSON is YAML.
const APPLY: &str = "application/apply-patch+yaml";
/// How long a kind is waited for that the same files define.
const DEFINED: Duration = Duration::from_secs(15);
/// Time between two looks at what the server serves.
const LOOK: Duration = Duration::from_millis(200);

/// What a trial run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// Really do it.
    None,
    /// The server does all but store it.
    Server,
}

/// Options that `apply` and `create` share.
#[derive(Args, Clone, Debug)]
struct Writing {
    /// What the server would do.
    #[arg(long, value_enum, default_value_t = DryRun::None, require_equals = true)]
    dry_run: DryRun,
    /// Form in which the results are shown: json, yaml, name, jsonpath=TEMPLATE.
    #[arg(short, long, value_parser = output::parse, value_name = "FORM")]
    output: Option<Output>,
    /// Who owns the fields.
    #[arg(long, default_value = "knarr", value_name = "NAME")]
    field_manager: String,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `apply`.
#[derive(Args, Clone, Debug)]
pub struct Apply {
    #[command(flatten)]
    files: Files,
    /// Take fields from who owns them.
    #[arg(long)]
    force_conflicts: bool,
    /// As kubectl has it; here always so.
    #[arg(long, hide = true)]
    server_side: bool,
    #[command(flatten)]
    writing: Writing,
}

/// Options of `create`.
#[derive(Args, Clone, Debug)]
pub struct Create {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    writing: Writing,
}

/// How objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Apply { force: bool },
    Create,
}

/// Runs `apply`.
pub(crate) async fn apply(options: &Apply) -> Result<()> {
    run(&options.files, &options.writing, Way::Apply { force: options.force_conflicts }).await
}

/// Runs `create`.
pub(crate) async fn create(options: &Create) -> Result<()> {
    run(&options.files, &options.writing, Way::Create).await
}

async fn run(files: &Files, options: &Writing, way: Way) -> Result<()> {
    if files.is_empty() {
        return Err(Error::usage("must specify -f: the file or directory with the objects, or - for standard input"));
    }
    let manifests = manifests::ordered(manifests::read(files)?);
    let session = Session::open(&options.connection).await?;
    let mut resources = session.discover().await?;
    let (mut defined, mut failed) = (false, false);
    for manifest in &manifests {
        if defined && manifest.resource(&resources).is_none() {
            resources = served(&session, manifest).await?;
        }
        let written = match manifest.resource(&resources) {
            Some(resource) => write(&session, options, way, manifest, resource).await,
            None => Err(manifest.unknown()),
        };
        match written {
            Ok(()) => defined |= manifest.is_definition() && options.dry_run == DryRun::None,
            Err(error @ (Error::Closed | Error::Unreachable { .. })) => return Err(error),
            Err(error) => {
                complain(&error);
                failed = true;
            }
        }
    }
    if failed { Err(Error::Told) } else { Ok(()) }
}

/// What the server serves once it has the kind of an object that was just defined, or when it does not come.
async fn served(session: &Session, manifest: &Manifest) -> Result<Resources> {
    let end = Instant::now() + DEFINED;
    loop {
        let resources = session.discover().await?;
        if manifest.resource(&resources).is_some() || Instant::now() >= end {
            return Ok(resources);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn write(session: &Session, options: &Writing, way: Way, manifest: &Manifest, resource: &Resource) -> Result<()> {
    let namespace = manifest.namespace(session, resource)?;
    let dry = if options.dry_run == DryRun::Server { "dryRun=All" } else { "" };
    let manager = format!("fieldManager={}", crate::discovery::escaped(&options.field_manager));
    let (done, object) = match way {
        Way::Create => {
            let path = with_query(&resource.collection(namespace), &[&manager, "fieldValidation=Strict", dry]);
            let created = session.ask(Method::POST, &path, JSON, Payload::of(JSON, &manifest.object)).await;
            ("created", created.map_err(|error| error.of_manifest("creating", &manifest.source))?.1)
        }
        Way::Apply { force } => {
            if manifest.name().is_empty() {
                return Err(Error::usage(format!(
                    "error when applying {:?}: metadata.name is not set: apply needs a name, create makes one of metadata.generateName",
                    manifest.source
                )));
            }
            let object = resource.object(namespace, manifest.name());
            let before = match session.get_opt(&object).await {
                // Who may change it need not be let to read it.
                Err(Error::Api(status)) if status.code == 403 => None,
                read => read?,
            };
            let force = if force { "force=true" } else { "" };
            let path = with_query(&object, &[&manager, "fieldValidation=Strict", force, dry]);
            let applied = session.ask(Method::PATCH, &path, JSON, Payload::of(APPLY, &manifest.object)).await;
            let (status, object) = applied.map_err(|error| conflicts(error, &manifest.source))?;
            (outcome(status, before.as_ref(), &object), object)
        }
    };
    match &options.output {
        Some(output) if !output.is_table() => print(&output.text(&object, resource, false)?),
        _ => {
            let dry = if options.dry_run == DryRun::Server { " (server dry run)" } else { "" };
            let name = object["metadata"]["name"].as_str().unwrap_or_else(|| manifest.name());
            say(&format!("{} {done}{dry}", resource.named(name)))
        }
    }
}

/// What an apply has done.
fn outcome(status: StatusCode, before: Option<&Value>, after: &Value) -> &'static str {
    let same = |before: &Value| without_bookkeeping(before) == without_bookkeeping(after);
    match before {
        _ if status == StatusCode::CREATED => "created",
        Some(before) if same(before) => "unchanged",
        _ => "configured",
    }
}

/// An object without what says who wrote it when: somebody who owns what is there already changes nothing.
fn without_bookkeeping(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        metadata.remove("resourceVersion");
    }
    object
}

/// Conflicts are told with the way out.
fn conflicts(error: Error, source: &str) -> Error {
    match error {
        Error::Api(status) if status.code == 409 && status.message.contains("conflict") => Error::usage(format!(
            "{}\nThe fields above have other managers. To take them, apply with --force-conflicts; to leave them, take them out of {source:?}; \
             to share them, give them the values that they have.",
            status.message
        )),
        other => other.of_manifest("applying", source),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn outcomes() {
        let object = |value: i32, version: &str| json!({"metadata": {"name": "a", "resourceVersion": version, "managedFields": [version]}, "data": value});
        let check = |status, before: Option<Value>, expected: &str| {
            assert_eq!(outcome(status, before.as_ref(), &object(1, "5")), expected);
        };
        check(StatusCode::CREATED, None, "created");
        check(StatusCode::OK, None, "configured");
        check(StatusCode::OK, Some(object(1, "5")), "unchanged");
        check(StatusCode::OK, Some(object(1, "4")), "unchanged");
        check(StatusCode::OK, Some(object(2, "4")), "configured");
    }
}
