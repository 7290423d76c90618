//! `describe`: an object in words, and what was told about it.

mod events;
mod generic;
mod layout;
mod pod;

use clap::Args;
use serde_json::Value;

use crate::discovery::{Resource, escaped};
use crate::error::{Error, Result};
use crate::lists::list;
use crate::manifests::{self, Files};
use crate::output::{complain, print, tell};
use crate::pods::is_pods;
use crate::selection::{self, Selectors, Wanted};
use crate::session::{Connection, JSON, Session};
use layout::Node;

/// Options of `describe`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// TYPE, TYPE NAME..., TYPE/NAME...; the beginning of a name is enough.
    #[arg(value_name = "TYPE [NAME]", required_unless_present = "filename", conflicts_with = "filename")]
    what: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    selectors: Selectors,
    /// Objects of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// With what was told about them.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    show_events: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let session = Session::open(&options.connection).await?;
    let (wanted, namespaces) = if options.files.is_empty() {
        (selection::parse(session.resources().await?, &options.what)?, Vec::new())
    } else {
        manifests::wanted(&session, &options.files).await?
    };
    selection::check_names(&wanted, !options.selectors.is_empty(), options.all_namespaces)?;
    let (mut shown, mut failed) = (0, false);
    for (at, wanted) in wanted.iter().enumerate() {
        let own = namespaces.get(at).cloned().flatten();
        let namespace = own.as_deref().or(session.namespace_of(wanted.resource)).filter(|_| !options.all_namespaces);
        let (objects, errors) = find(&session, options, wanted, namespace).await?;
        for object in &objects {
            let between = if shown > 0 { "\n\n" } else { "" };
            print(&format!("{between}{}", describe(&session, wanted.resource, object, options.show_events).await?))?;
            shown += 1;
        }
        errors.iter().for_each(complain);
        failed |= !errors.is_empty();
    }
    if shown == 0 && !failed {
        tell(&format!("No resources found in {} namespace.", session.namespace));
    }
    if failed { Err(Error::Told) } else { Ok(()) }
}

/// The objects that are meant, and why some are not there.
async fn find(
    session: &Session,
    options: &Options,
    wanted: &Wanted<'_>,
    namespace: Option<&str>,
) -> Result<(Vec<Value>, Vec<Error>)> {
    let collection = wanted.resource.collection(namespace);
    let of_list = |mut found: Value| match found["items"].take() {
        Value::Array(items) => items.into_iter().map(|item| typed(item, wanted.resource)).collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    if wanted.names.is_empty() {
        let found = list(session, &collection, &options.selectors.query(), JSON).await?;
        return Ok((of_list(found), Vec::new()));
    }
    let (mut objects, mut errors) = (Vec::new(), Vec::new());
    for name in &wanted.names {
        match session.get(&format!("{collection}/{}", escaped(name))).await {
            Ok(object) => objects.push(object),
            Err(error) if error.is_not_found() => {
                let begins = |object: &Value| crate::pods::name(object).starts_with(name.as_str());
                let found: Vec<_> = of_list(list(session, &collection, "", JSON).await?).into_iter().filter(begins).collect();
                if found.is_empty() {
                    errors.push(error);
                }
                objects.extend(found);
            }
            Err(error @ Error::Api(_)) => errors.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok((objects, errors))
}

/// Elements of lists do not say what they are.
fn typed(mut object: Value, resource: &Resource) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), resource.api_version().into());
        map.insert("kind".to_owned(), resource.kind.clone().into());
    }
    object
}

async fn describe(session: &Session, resource: &Resource, object: &Value, with_events: bool) -> Result<String> {
    let now = jiff::Timestamp::now();
    let mut fields = if is_pods(resource) { pod::fields(object, now) } else { generic::fields(object, now) };
    if with_events {
        let told = events::of(session, object).await?;
        fields.push(("Events".to_owned(), if told.is_empty() { Node::none() } else { events::table(&told, now) }));
    }
    Ok(layout::render(&fields))
}
