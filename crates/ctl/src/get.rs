//! `get`: objects as tables, or in other forms.

mod sort;

use std::ops::ControlFlow;

use clap::Args;
use http::Method;
use serde_json::Value;
use structural::JsonPath;

use crate::discovery::Resource;
use crate::error::{Error, Result};
use crate::lists::{list, watch};
use crate::manifests::{self, Files};
use crate::output::{self, Output, complain, print, tell};
use crate::selection::{self, Selectors, Wanted};
use crate::session::{Connection, JSON, Payload, Session, TABLE};
use crate::table::{self, Columns, Shown, WIDE};

/// Options of `get`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// TYPE, TYPE NAME..., TYPE,TYPE or TYPE/NAME...; types are plural, singular, short names or kinds.
    #[arg(value_name = "TYPE [NAME]", required_unless_present_any = ["filename", "raw"], conflicts_with = "filename")]
    what: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Form: json, yaml, name, wide, jsonpath=TEMPLATE.
    #[arg(short, long, value_parser = output::parse, value_name = "FORM")]
    output: Option<Output>,
    /// Objects of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    selectors: Selectors,
    /// Show what changes afterwards, too.
    #[arg(short, long)]
    watch: bool,
    /// Show only what changes.
    #[arg(long)]
    watch_only: bool,
    /// Without the names of the columns.
    #[arg(long)]
    no_headers: bool,
    /// The labels of each object, too.
    #[arg(long)]
    show_labels: bool,
    /// In the order of what is at a path, such as .metadata.creationTimestamp.
    #[arg(long, value_parser = sort::path, value_name = "PATH", conflicts_with_all = ["watch", "watch_only"])]
    sort_by: Option<JsonPath>,
    /// What is not there is no error.
    #[arg(long)]
    ignore_not_found: bool,
    /// With the fields that say who owns which fields.
    #[arg(long)]
    show_managed_fields: bool,
    /// The answer to a path of the API, as it is.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["what", "filename", "watch", "watch_only", "output"])]
    raw: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Objects of one resource, as the API gave them.
struct Found<'r> {
    resource: &'r Resource,
    /// Tables, lists or objects.
    values: Vec<Value>,
}

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let session = Session::open(&options.connection).await?;
    if let Some(path) = &options.raw {
        let (_, text) = session.ask_text(Method::GET, path, "application/json, */*", Payload::default()).await?;
        return print(&text);
    }
    let resources = session.resources().await?;
    let (wanted, namespaces) = if options.files.is_empty() {
        (selection::parse(resources, &options.what)?, Vec::new())
    } else {
        manifests::wanted(&session, &options.files).await?
    };
    selection::check_names(&wanted, !options.selectors.is_empty(), options.all_namespaces)?;
    let get = Get { session: &session, options, output: options.output.clone().unwrap_or_default() };
    if options.watch || options.watch_only {
        return match wanted.as_slice() {
            [one] if one.names.len() < 2 => get.watch(one).await,
            _ => Err(Error::usage("you may only specify a single resource type")),
        };
    }
    get.all(&wanted, &namespaces).await
}

struct Get<'a> {
    session: &'a Session,
    options: &'a Options,
    output: Output,
}

impl Get<'_> {
    /// Shows everything that was asked for; failures are told, and what can be shown is.
    async fn all(&self, wanted: &[Wanted<'_>], namespaces: &[Option<String>]) -> Result<()> {
        let (mut found, mut failed) = (Vec::new(), false);
        for (at, wanted) in wanted.iter().enumerate() {
            let namespace = namespaces.get(at).cloned().flatten();
            let mut values = Vec::new();
            for path in self.paths(wanted, namespace.as_deref()) {
                match self.read(wanted.names.is_empty(), &path).await {
                    Ok(value) => values.push(value),
                    Err(error) if error.is_not_found() && self.options.ignore_not_found && !wanted.names.is_empty() => {}
                    Err(error @ Error::Api(_)) => {
                        complain(&error);
                        failed = true;
                    }
                    Err(error) => return Err(error),
                }
            }
            found.push(Found { resource: wanted.resource, values });
        }
        let several = wanted.len() > 1;
        let shown = if self.output.is_table() { self.tables(&found, several)? } else { self.objects(&found, several, failed)? };
        if !shown && !failed && !self.options.ignore_not_found && self.output.is_table() {
            let everywhere = self.options.all_namespaces || wanted.iter().any(|wanted| !wanted.resource.namespaced);
            if everywhere {
                tell("No resources found");
            } else {
                tell(&format!("No resources found in {} namespace.", self.session.namespace));
            }
        }
        if failed { Err(Error::Told) } else { Ok(()) }
    }

    fn namespace<'a>(&'a self, resource: &Resource) -> Option<&'a str> {
        self.session.namespace_of(resource).filter(|_| !self.options.all_namespaces)
    }

    /// The collection, or each object.
    fn paths(&self, wanted: &Wanted<'_>, namespace: Option<&str>) -> Vec<String> {
        let namespace = namespace.or_else(|| self.namespace(wanted.resource));
        match wanted.names.as_slice() {
            [] => vec![wanted.resource.collection(namespace)],
            names => names.iter().map(|name| wanted.resource.object(namespace, name)).collect(),
        }
    }

    fn accept(&self) -> &'static str {
        if self.output.is_table() { TABLE } else { JSON }
    }

    async fn read(&self, is_list: bool, path: &str) -> Result<Value> {
        if is_list {
            let query = self.options.selectors.query();
            let Some(path_of_order) = &self.options.sort_by else {
                return list(self.session, path, &query, self.accept()).await;
            };
            // What is sorted by need not be in a column.
            let query = if query.is_empty() { sort::WITH_OBJECTS.to_owned() } else { format!("{query}&{}", sort::WITH_OBJECTS) };
            let mut found = list(self.session, path, &query, self.accept()).await?;
            sort::by(path_of_order, &mut found);
            return Ok(found);
        }
        Ok(self.session.ask(Method::GET, path, self.accept(), Payload::default()).await?.1)
    }

    fn shown(&self) -> Shown {
        Shown { wide: self.output == Output::Wide, namespaces: self.options.all_namespaces, labels: self.options.show_labels }
    }

    /// Prints the server's tables; whether there was anything in them.
    fn tables(&self, found: &[Found<'_>], several: bool) -> Result<bool> {
        let mut text = String::new();
        for Found { resource, values } in found {
            let prefix = if several { format!("{}/", resource.type_name()) } else { String::new() };
            let shown = Shown { namespaces: self.options.all_namespaces && resource.namespaced, ..self.shown() };
            let mut lines = Vec::new();
            for value in values {
                let value = tabular(value);
                if lines.is_empty() && !self.options.no_headers {
                    lines.push(table::header(&value, shown));
                }
                lines.extend(table::rows(&value, &value, shown, &prefix));
            }
            let least = usize::from(!self.options.no_headers);
            if lines.len() > least {
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(&table::lines(WIDE, &lines));
            }
        }
        print(&text)?;
        Ok(!text.is_empty())
    }

    /// Prints the objects themselves; whether there were any.
    fn objects(&self, found: &[Found<'_>], several: bool, failed: bool) -> Result<bool> {
        let managed = self.options.show_managed_fields;
        let objects = found.iter().flat_map(|found| found.values.iter().flat_map(items).map(|object| (found.resource, object)));
        let objects: Vec<(&Resource, Value)> = objects.collect();
        let Some(first) = found.first() else { return Ok(false) };
        if self.output == Output::Name {
            for (resource, object) in &objects {
                print(&self.output.text(object, resource, managed)?)?;
            }
            return Ok(!objects.is_empty());
        }
        let text = match (found, first.values.as_slice()) {
            // One object that was named is shown as itself.
            ([one], [object]) if !several && !failed && object.get("items").is_none() => {
                self.output.text(object, one.resource, managed)?
            }
            (_, []) if objects.is_empty() && self.options.ignore_not_found => return Ok(false),
            _ if objects.is_empty() && failed => return Ok(false),
            _ => {
                let all = objects.into_iter().map(|(_, object)| object).collect();
                self.output.text(&output::list(all), first.resource, managed)?
            }
        };
        print(&text)?;
        Ok(true)
    }

    /// Shows what there is, and what changes, until the user ends it.
    async fn watch(&self, wanted: &Wanted<'_>) -> Result<()> {
        let resource = wanted.resource;
        let path = resource.collection(self.namespace(resource));
        let name = wanted
            .names
            .first()
            .map(|name| format!("fieldSelector={}", crate::discovery::escaped(&format!("metadata.name={name}"))));
        let query = name.unwrap_or_else(|| self.options.selectors.query());
        let mut first = list(self.session, &path, &query, self.accept()).await?;
        if let (Some(name), true) = (wanted.names.first(), rows_of(&first) == 0) {
            // Says that it is not there.
            self.session.get(&resource.object(self.namespace(resource), name)).await?;
        }
        let version = first["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let shown = Shown { namespaces: self.options.all_namespaces && resource.namespaced, ..self.shown() };
        let mut printer = Printer {
            get: self,
            resource,
            shown,
            columns: Columns::new(WIDE),
            definitions: Value::Null,
            has_header: self.options.no_headers,
        };
        if self.options.watch_only
            && let Some(rows) = first.get_mut("rows").and_then(Value::as_array_mut)
        {
            rows.clear();
        }
        let skip = self.options.watch_only && !self.output.is_table();
        if !skip {
            printer.show(&first)?;
        }
        let never: ControlFlow<()> = ControlFlow::Continue(());
        watch(self.session, &path, &query, self.accept(), &version, |_, object| {
            printer.show(object)?;
            Ok(never)
        })
        .await
    }
}

/// Prints tables one after the other as one.
struct Printer<'a> {
    get: &'a Get<'a>,
    resource: &'a Resource,
    shown: Shown,
    columns: Columns,
    /// The table that said what the columns are.
    definitions: Value,
    has_header: bool,
}

impl Printer<'_> {
    fn show(&mut self, value: &Value) -> Result<()> {
        if !self.get.output.is_table() {
            for object in items(value) {
                print(&self.get.output.text(&object, self.resource, self.get.options.show_managed_fields)?)?;
            }
            return Ok(());
        }
        let value = tabular(value);
        if value["columnDefinitions"].as_array().is_some_and(|columns| !columns.is_empty()) {
            self.definitions = value.clone().into_owned();
        }
        let mut rows = table::rows(&value, &self.definitions, self.shown, "");
        if rows.is_empty() {
            return Ok(());
        }
        if !self.has_header {
            rows.insert(0, table::header(&self.definitions, self.shown));
            self.has_header = true;
        }
        print(&self.columns.lines(&rows))
    }
}

fn rows_of(value: &Value) -> usize {
    ["rows", "items"].iter().filter_map(|field| value[*field].as_array()).map(Vec::len).sum()
}

/// The objects of a list, each with its kind, which lists leave out; or the object itself.
fn items(value: &Value) -> Vec<Value> {
    let Some(items) = value.get("items").and_then(Value::as_array) else { return vec![value.clone()] };
    let kind = value["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).unwrap_or_default();
    let typed = |item: &Value| {
        let mut item = item.clone();
        if let Some(map) = item.as_object_mut() {
            map.entry("apiVersion").or_insert_with(|| value["apiVersion"].clone());
            map.entry("kind").or_insert_with(|| kind.into());
        }
        item
    };
    items.iter().map(typed).collect()
}

/// A table; of a server that gives none, one of names and ages.
fn tabular<'v>(value: &'v Value) -> std::borrow::Cow<'v, Value> {
    if value["kind"] == "Table" {
        return std::borrow::Cow::Borrowed(value);
    }
    let now = jiff::Timestamp::now();
    let row = |object: Value| {
        let metadata = &object["metadata"];
        let age = apimachinery::table::age(metadata["creationTimestamp"].as_str().unwrap_or_default(), now);
        serde_json::json!({"cells": [metadata["name"], age], "object": {"metadata": metadata}})
    };
    let rows: Vec<_> = items(value).into_iter().map(row).collect();
    std::borrow::Cow::Owned(serde_json::json!({
        "kind": "Table",
        "columnDefinitions": [{"name": "Name", "format": "name", "priority": 0}, {"name": "Age", "priority": 0}],
        "rows": rows,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_of_lists_get_their_kind() {
        let list = json!({"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "a"}}]});
        assert_eq!(items(&list), [json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}})]);
        let object = json!({"kind": "Pod"});
        assert_eq!(items(&object), std::slice::from_ref(&object));
    }
}
