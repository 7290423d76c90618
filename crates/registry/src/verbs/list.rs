//! get and list (API concepts: resource versions, retrieving large results sets in chunks)

use std::sync::Arc;

use apimachinery::{Status, fields};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::pipeline::storage_error;
use crate::resource::object_path;
use crate::{Entry, List, ListOptions, Registry, Resource};

const TOO_OLD_TO_CONTINUE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Where a list goes on, in the form that upstream's tokens have.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    /// Revision of the first page; -1 for the present state.
    rv: i64,
    /// Path of the last object of the page before.
    start: String,
}

impl Token {
    fn encode(revision: i64, last: &Entry) -> String {
        let start = object_path(last.namespace(), last.name());
        let token = Self { v: "meta.k8s.io/v1".into(), rv: revision, start };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, Status> {
        let invalid = |why: String| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|error| invalid(error.to_string()))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(invalid(format!("server does not recognize this encoded version \"{}\"", token.v)));
        }
        Ok(token)
    }
}

/// Which objects a list or watch selects.
pub(crate) struct Selection {
    pub namespace: Option<String>,
    options: ListOptions,
}

impl Selection {
    pub(crate) fn new(res: &Resource, namespace: Option<&str>, options: &ListOptions) -> Result<Self, Status> {
        if let Some(selector) = &options.fields {
            let known = |field: &str| {
                field == "metadata.name"
                    || field == "metadata.namespace" && res.def.namespaced
                    || res.strategy.selectable().contains(&field)
            };
            let checked =
                if res.strategy.selectable().is_empty() { selector.check_default_labels() } else { selector.check_labels(known) };
            checked.map_err(|error| Status::bad_request(error.to_string()))?;
        }
        let mut options = options.clone();
        for term in options.fields.iter_mut().flat_map(|fields| &mut fields.0) {
            term.field = res.stored_field(&term.field);
        }
        Ok(Self { namespace: namespace.map(str::to_owned), options })
    }

    pub(crate) fn selects(&self, entry: &Entry) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| entry.namespace() == namespace)
            && self.options.labels.as_ref().is_none_or(|labels| labels.matches(entry))
            && self.options.fields.as_ref().is_none_or(|fields| fields.matches(|name| entry.field(name)))
    }

    /// Whether a selector other than the namespace narrows it down.
    fn is_narrowed(&self) -> bool {
        self.options.labels.as_ref().is_some_and(|labels| !labels.is_everything())
            || self.options.fields.as_ref().is_some_and(|fields| !fields.is_everything())
    }

    /// The one object that it can select, if it names it.
    fn single(&self) -> Option<String> {
        let name = self.options.fields.as_ref().and_then(|fields| fields::Selector::exact(fields, "metadata.name"))?;
        self.namespace.as_deref().map(|namespace| object_path(namespace, name))
    }
}

impl Registry {
    /// One object, as it is now. Every read is consistent, so any acceptable `resource_version` asks for no more.
    pub async fn get(
        &self,
        res: &Resource,
        namespace: &str,
        name: &str,
        resource_version: Option<&str>,
    ) -> Result<Arc<Entry>, Status> {
        self.not_in_future(parse_version(resource_version)?)?;
        let found = res.cache.get(&object_path(namespace, name));
        found.map(|entry| res.show(&entry)).ok_or_else(|| Status::not_found(&res.group_resource, name))
    }

    /// The objects that the options select.
    pub async fn list(&self, res: &Resource, namespace: Option<&str>, options: &ListOptions) -> Result<List, Status> {
        let selection = Selection::new(res, namespace, options)?;
        let version = parse_version(options.resource_version.as_deref())?;
        self.not_in_future(version)?;
        let mut list = match (options.continue_token.as_deref(), options.resource_version_match.as_deref()) {
            (Some(token), _) if !token.is_empty() => {
                let token = Token::decode(token)?;
                let at = u64::try_from(token.rv).ok().filter(|revision| *revision < res.cache.revision());
                match at {
                    Some(at) if !res.def.ephemeral => self.list_past(res, &selection, at, Some(&token.start)).await?,
                    _ => self.list_now(res, &selection, Some(&token), &token.start),
                }
            }
            (_, Some("Exact")) => match version.filter(|version| *version < res.cache.revision()) {
                Some(at) => self.list_past(res, &selection, at, None).await?,
                None => self.list_now(res, &selection, None, ""),
            },
            _ => self.list_now(res, &selection, None, ""),
        };
        if res.is_view() {
            list.entries.iter_mut().for_each(|entry| *entry = res.show(entry));
        }
        Ok(list)
    }

    fn not_in_future(&self, version: Option<u64>) -> Result<(), Status> {
        let current = self.revision();
        match version {
            Some(version) if version > current => {
                let mut status = Status::timeout(format!("Too large resource version: {version}, current: {current}"), 1);
                if let Some(details) = &mut status.details {
                    details.causes.push(apimachinery::status::Cause {
                        reason: "ResourceVersionTooLarge".into(),
                        message: "Too large resource version".into(),
                        field: String::new(),
                    });
                }
                Err(status)
            }
            _ => Ok(()),
        }
    }

    /// A page of the present state, which is also the state at the token's revision when nothing changed since.
    fn list_now(&self, res: &Resource, selection: &Selection, token: Option<&Token>, after: &str) -> List {
        // Read before the cache: the cache may be newer than this, never older.
        let current = self.revision();
        if let (Some(path), None) = (selection.single(), token) {
            let revision = res.cache.revision().max(current);
            let entries = res.cache.get(&path).into_iter().filter(|entry| selection.selects(entry)).collect();
            return List { entries, revision, ..List::default() };
        }
        let after = token.map(|_| after);
        let (entries, newest) = res.cache.select(selection.namespace.as_deref(), after, |entry| selection.selects(entry));
        let revision = match token.map(|token| token.rv) {
            Some(revision) if revision > 0 => u64::try_from(revision).unwrap_or(current),
            _ => newest.max(current),
        };
        page(entries, revision, selection)
    }

    /// A page of the state at a past revision, from the store's history.
    async fn list_past(&self, res: &Resource, selection: &Selection, at: u64, after: Option<&str>) -> Result<List, Status> {
        let namespace = selection.namespace.as_deref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        let prefix = format!("{}{namespace}", res.prefix);
        let start = after.map_or_else(|| prefix.clone(), |after| format!("{}{after}\0", res.prefix));
        let end = format!("{}0", prefix.trim_end_matches('/'));
        match self.engine.range(start.as_bytes(), end.as_bytes(), Some(at), 0).await {
            Ok(found) => {
                let entries = found.records.iter().map(|record| Arc::new(res.cache.entry(&record.value, record.revision, None)));
                Ok(page(entries.filter(|entry| selection.selects(entry)).collect(), at, selection))
            }
            Err(store::Error::Compacted(_)) if after.is_some() => Err(Status::resource_expired(TOO_OLD_TO_CONTINUE)),
            Err(store::Error::Compacted(_)) => Err(Status::resource_expired(format!("too old resource version: {at}"))),
            Err(error) => Err(storage_error(error)),
        }
    }
}

/// Cuts a list to the limit.
fn page(mut entries: Vec<Arc<Entry>>, revision: u64, selection: &Selection) -> List {
    let limit = usize::try_from(selection.options.limit).unwrap_or(0);
    if limit == 0 || entries.len() <= limit {
        return List { entries, revision, continue_token: None, remaining: None };
    }
    let remaining = (!selection.is_narrowed()).then(|| i64::try_from(entries.len() - limit).unwrap_or(i64::MAX));
    entries.truncate(limit);
    let at = i64::try_from(revision).unwrap_or(-1);
    let continue_token = entries.last().map(|last| Token::encode(at, last));
    List { entries, revision, continue_token, remaining }
}

/// A resource version from a request: none and "0" ask for anything.
pub(crate) fn parse_version(text: Option<&str>) -> Result<Option<u64>, Status> {
    match text {
        None | Some("" | "0") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
            ))
        }),
    }
}
