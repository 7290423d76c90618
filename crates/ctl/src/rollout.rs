//! `rollout`: how far a change of a workload is, starting its pods anew, and going back.

mod revisions;
mod status;

use std::ops::ControlFlow;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use crate::discovery::Resource;
use crate::error::{Error, Result};
use crate::lists::follow;
use crate::output::{print, say};
use crate::selection::{self, Selectors, Wanted};
use crate::session::{Connection, JSON, Payload, Session};
use crate::times;

/// Merge patches (RFC 7386).
const MERGE: &str = "application/merge-patch+json";
/// Says when pods were asked to start anew; kubectl's, so that both see what the other did.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Options of `rollout`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(subcommand)]
    command: Rollout,
}

#[derive(Subcommand, Clone, Debug)]
enum Rollout {
    /// Wait until all pods are those of the latest change.
    Status {
        #[command(flatten)]
        which: Which,
        /// Wait.
        #[arg(short, long, action = ArgAction::Set, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
        watch: bool,
        /// How long to wait; 0 is for ever.
        #[arg(long, value_parser = times::parse, default_value = "0")]
        timeout: Duration,
    },
    /// Start all pods anew, as a change would.
    Restart {
        #[command(flatten)]
        which: Which,
    },
    /// Go back to an earlier revision.
    Undo {
        #[command(flatten)]
        which: Which,
        /// The revision; 0 is the one before.
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
    },
    /// Show the revisions that there are.
    History {
        #[command(flatten)]
        which: Which,
    },
    /// Make changes without pods being replaced.
    Pause {
        #[command(flatten)]
        which: Which,
    },
    /// Have pods be replaced by changes again.
    Resume {
        #[command(flatten)]
        which: Which,
    },
}

/// Which workloads.
#[derive(Args, Clone, Debug)]
struct Which {
    /// TYPE NAME... or TYPE/NAME...: deployments, daemonsets, statefulsets.
    #[arg(value_name = "TYPE [NAME]", required = true)]
    what: Vec<String>,
    #[command(flatten)]
    selectors: Selectors,
    #[command(flatten)]
    connection: Connection,
}

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let (Rollout::Status { which, .. }
    | Rollout::Restart { which }
    | Rollout::Undo { which, .. }
    | Rollout::History { which }
    | Rollout::Pause { which }
    | Rollout::Resume { which }) = &options.command;
    let session = Session::open(&which.connection).await?;
    let wanted = selection::parse(session.resources().await?, &which.what)?;
    selection::check_names(&wanted, !which.selectors.is_empty(), false)?;
    for wanted in &wanted {
        for name in names(&session, wanted, which).await? {
            let one = Workload { session: &session, resource: wanted.resource, name };
            match &options.command {
                Rollout::Status { watch, timeout, .. } => one.status(*watch, *timeout).await?,
                Rollout::Restart { .. } => one.restart().await?,
                Rollout::Undo { to_revision, .. } => one.undo(*to_revision).await?,
                Rollout::History { .. } => one.history().await?,
                Rollout::Pause { .. } => one.pause(true).await?,
                Rollout::Resume { .. } => one.pause(false).await?,
            }
        }
    }
    Ok(())
}

async fn names(session: &Session, wanted: &Wanted<'_>, which: &Which) -> Result<Vec<String>> {
    if !wanted.names.is_empty() {
        return Ok(wanted.names.clone());
    }
    let path = wanted.resource.collection(session.namespace_of(wanted.resource));
    let found = crate::lists::list(session, &path, &which.selectors.query(), JSON).await?;
    let names = found["items"].as_array().into_iter().flatten();
    Ok(names.filter_map(|item| item["metadata"]["name"].as_str()).map(str::to_owned).collect())
}

/// One workload.
struct Workload<'a> {
    session: &'a Session,
    resource: &'a Resource,
    name: String,
}

impl Workload<'_> {
    fn path(&self) -> String {
        self.resource.object(self.session.namespace_of(self.resource), &self.name)
    }

    fn told(&self, what: &str) -> Result<()> {
        say(&format!("{} {what}", self.resource.named(&self.name)))
    }

    async fn patch(&self, content_type: &'static str, patch: &Value) -> Result<Value> {
        let path = format!("{}?fieldManager=knarr", self.path());
        Ok(self.session.ask(Method::PATCH, &path, JSON, Payload::of(content_type, patch)).await?.1)
    }

    async fn status(&self, watch: bool, timeout: Duration) -> Result<()> {
        let namespace = self.session.namespace_of(self.resource);
        // Says that it is not there, which no watch does.
        self.session.get(&self.path()).await?;
        let mut told = String::new();
        let following = follow(self.session, self.resource, namespace, &self.name, times::deadline(timeout), |object| {
            let object = object.ok_or_else(|| Error::usage("object has been deleted"))?;
            let progress = status::of(object).map_err(|error| Error::usage(error.to_string()))?;
            // Status updates that say the same again are not told again.
            if progress.text != told {
                say(&progress.text)?;
                told.clone_from(&progress.text);
            }
            Ok(if progress.done || !watch { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        following.await.map_err(|error| error.about(&self.resource.named(&self.name)))
    }

    fn has_template(&self, doing: &str) -> Result<()> {
        let known =
            self.resource.group == "apps" && matches!(self.resource.kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet");
        if known {
            Ok(())
        } else {
            Err(Error::usage(format!("{} {:?} {doing} is not supported", self.resource.qualified(), self.name)))
        }
    }

    async fn restart(&self) -> Result<()> {
        self.has_template("restarting")?;
        let found = self.session.get(&self.path()).await?;
        if found["spec"]["paused"] == true {
            let how = format!("can't restart paused {} (run rollout resume first)", self.resource.singular);
            return Err(Error::usage(how));
        }
        let annotations = json!({RESTARTED_AT: apimachinery::time::now()});
        self.patch(MERGE, &json!({"spec": {"template": {"metadata": {"annotations": annotations}}}})).await?;
        self.told("restarted")
    }

    async fn pause(&self, paused: bool) -> Result<()> {
        if self.resource.kind != "Deployment" {
            let doing = if paused { "pausing" } else { "resuming" };
            return Err(Error::usage(format!("{} {:?} {doing} is not supported", self.resource.qualified(), self.name)));
        }
        let found = self.session.get(&self.path()).await?;
        if (found["spec"]["paused"] == true) == paused {
            let state = if paused { "already paused" } else { "not paused" };
            return Err(Error::usage(format!("{} is {state}", self.resource.named(&self.name))));
        }
        // Null takes a field away.
        let value = if paused { Value::Bool(true) } else { Value::Null };
        self.patch(MERGE, &json!({"spec": {"paused": value}})).await?;
        self.told(if paused { "paused" } else { "resumed" })
    }

    async fn revisions(&self) -> Result<(Value, Vec<revisions::Revision>)> {
        self.has_template("history viewing")?;
        let found = self.session.get(&self.path()).await?;
        let resources = self.session.resources().await?;
        let kept = if self.resource.kind == "Deployment" { "replicasets.apps" } else { "controllerrevisions.apps" };
        let path = resources.named(kept)?.collection(self.session.namespace_of(self.resource));
        let all = crate::lists::list(self.session, &path, "", JSON).await?;
        let revisions = revisions::of(&found, all["items"].as_array().map(Vec::as_slice).unwrap_or_default());
        Ok((found, revisions))
    }

    async fn history(&self) -> Result<()> {
        let (_, revisions) = self.revisions().await?;
        let mut rows = vec![vec!["REVISION".to_owned(), "CHANGE-CAUSE".to_owned()]];
        rows.extend(revisions.iter().map(|revision| vec![revision.number.to_string(), revision.cause.clone()]));
        let table = crate::table::lines(crate::table::NARROW, &rows);
        say(&format!("{} ", self.resource.named(&self.name)))?;
        print(&format!("{table}\n"))
    }

    async fn undo(&self, to: i64) -> Result<()> {
        let (found, revisions) = self.revisions().await?;
        if found["spec"]["paused"] == true {
            let how = "you cannot rollback a paused deployment; resume it first with 'knarr rollout resume' and try again";
            return Err(Error::usage(how));
        }
        let revision = revisions::choose(&revisions, to).map_err(|error| match error {
            revisions::Missing::Previous => Error::usage(format!("{error} for {} {:?}", self.resource.singular, self.name)),
            revisions::Missing::Number(_) => Error::usage(error.to_string()),
        })?;
        match revisions::step(&found, revision) {
            None => self.told(&format!("skipped rollback (current template already matches revision {})", revision.number)),
            Some((content_type, patch)) => {
                self.patch(content_type, &patch).await?;
                self.told("rolled back")
            }
        }
    }
}
