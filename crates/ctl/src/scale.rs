//! `scale`: how many replicas there are to be.

use clap::Args;
use http::Method;
use serde_json::json;

use crate::error::{Error, Result};
use crate::output::{complain, say};
use crate::selection;
use crate::session::{Connection, JSON, Payload, Session};

/// Options of `scale`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// TYPE NAME... or TYPE/NAME...
    #[arg(value_name = "TYPE [NAME]", required = true)]
    what: Vec<String>,
    /// How many.
    #[arg(long)]
    replicas: u32,
    /// Only if there are so many now.
    #[arg(long)]
    current_replicas: Option<u32>,
    #[command(flatten)]
    connection: Connection,
}

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let session = Session::open(&options.connection).await?;
    let mut failed = false;
    for wanted in selection::parse(session.resources().await?, &options.what)? {
        let resource = wanted.resource;
        if wanted.names.is_empty() {
            return Err(Error::usage("resource(s) were provided, but no name was specified"));
        }
        if !resource.subresources.iter().any(|sub| sub == "scale") {
            return Err(Error::usage(format!("{} cannot be scaled", resource.qualified())));
        }
        for name in &wanted.names {
            match scale(&session, resource.object(session.namespace_of(resource), name), options).await {
                Ok(()) => say(&format!("{} scaled", resource.named(name)))?,
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

async fn scale(session: &Session, object: String, options: &Options) -> Result<()> {
    let path = format!("{object}/scale");
    let mut patch = json!({"spec": {"replicas": options.replicas}});
    if let Some(expected) = options.current_replicas {
        let current = session.get(&path).await?;
        let replicas = &current["spec"]["replicas"];
        if *replicas != expected {
            return Err(Error::usage(format!("expected replicas to be {expected}, was {replicas}")));
        }
        // Somebody who changes it in between makes it fail.
        patch["metadata"] = json!({"resourceVersion": current["metadata"]["resourceVersion"]});
    }
    let patch = Payload::of("application/merge-patch+json", &patch);
    session.ask(Method::PATCH, &format!("{path}?fieldManager=knarr"), JSON, patch).await.map(drop)
}
