//! get and list (API concepts: resource versions, retrieving large results sets in chunks)

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Status, fields, labels};
use kinds::Names;

use super::continuation::Continuation;
use crate::cache::{Page, Window};
use crate::entry::object_path;
use crate::pipeline::storage_error;
use crate::{Cursor, Entry, List, ListOptions, Registry, Served, Since};

/// Most objects of the past that are read from the store at once, if they are small. Each time it goes through all that has changed since.
const PAGE: usize = 10_000;

/// Most terms of the selectors of a request: each is held against each object and each change.
const TERMS: usize = 256;
/// Selectors of more terms than this do not hold up those who write.
const FEW_TERMS: usize = 16;
/// Terms that are held against objects before others get their turn.
const TERMS_AT_ONCE: usize = 16_384;
/// Most objects that are looked at, and maybe converted, before it is seen whether they are enough.
const SHOWN_AT_ONCE: usize = 500;

/// Most objects that are taken out of the cache at once for a page of them.
const MOST_AT_ONCE: usize = 16 * SHOWN_AT_ONCE;

/// Which objects a list or watch selects.
pub(crate) struct Selection {
    pub namespace: Option<String>,
    options: ListOptions,
    /// The fields that are known of an object.
    fields: Names,
    /// It names fields of a custom resource, or labels of one that a webhook converts. Each version has its own, with what its defaults and somebody's
    /// conversion make of them, and the cache has an index of the stored one, maybe of an older definition: what is selected is what is shown.
    by_converted: bool,
}

impl Selection {
    pub(crate) fn new(res: &Served, namespace: Option<&str>, options: &ListOptions) -> Result<Self, Status> {
        if let Some(selector) = &options.fields {
            let known = |field: &str| {
                field == "metadata.name"
                    || field == "metadata.namespace" && res.def.namespaced
                    || res.strategy.selectable().contains(field)
            };
            let checked =
                if res.strategy.selectable().is_empty() { selector.check_default_labels() } else { selector.check_labels(known) };
            checked.map_err(|error| Status::bad_request(error.to_string()))?;
        }
        let terms = terms(options);
        if terms > TERMS {
            return Err(Status::bad_request(format!("selectors of {terms} terms: there must be at most {TERMS}")));
        }
        let mut options = options.clone();
        for term in options.fields.iter_mut().flat_map(|fields| &mut fields.0) {
            term.field = res.stored_field(&term.field);
        }
        let names = |term: &fields::Requirement| !is_place(&term.field);
        let by_fields = res.is_custom() && options.fields.iter().flat_map(|fields| &fields.0).any(names);
        // A webhook may give an object other labels in another version, and clients select by what they see.
        let by_labels = res.is_converted_elsewhere() && options.labels.as_ref().is_some_and(|labels| !labels.is_everything());
        let by_converted = by_fields || by_labels;
        Ok(Self { namespace: namespace.map(str::to_owned), options, fields: res.known_fields(), by_converted })
    }

    /// Whether objects have to be shown before it is known whether they are selected. Until then it takes all of the right place.
    pub(crate) fn is_by_converted(&self) -> bool {
        self.by_converted
    }

    /// Whether an object as it is stored may be selected.
    pub(crate) fn may_select(&self, stored: &Entry) -> bool {
        match self.by_converted {
            false => self.selects(stored),
            true => self.namespace.as_deref().is_none_or(|namespace| stored.namespace() == namespace) && self.may_match(stored),
        }
    }

    /// The same of an object of the namespace.
    fn may_match(&self, stored: &Entry) -> bool {
        if !self.by_converted {
            return self.matches(stored);
        }
        // Names are the same in all versions.
        let mut places = self.options.fields.iter().flat_map(|fields| &fields.0).filter(|term| is_place(&term.field));
        places.all(|term| (stored.field(&self.fields, &term.field) == term.value) != term.negated)
    }

    pub(crate) fn selects(&self, entry: &Entry) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| entry.namespace() == namespace) && self.matches(entry)
    }

    /// Whether the selectors take an object of the namespace.
    fn matches(&self, entry: &Entry) -> bool {
        self.options.labels.as_ref().is_none_or(|labels| labels.matches(entry))
            && self.options.fields.as_ref().is_none_or(|fields| fields.matches(|name| entry.field(&self.fields, name)))
    }

    /// Whether it takes long to say what is selected: then nobody holds the cache meanwhile.
    pub(crate) fn takes_long(&self) -> bool {
        self.by_converted || terms(&self.options) > FEW_TERMS
    }

    /// What is selected of all objects that were read, up to a limit (0 for none). Others get their turn between pieces of them.
    pub(crate) async fn choose(&self, res: &Served, all: Vec<Arc<Entry>>, limit: usize) -> Result<Page, Status> {
        let piece = (TERMS_AT_ONCE / terms(&self.options).max(1)).min(SHOWN_AT_ONCE);
        let mut found = Page::default();
        for some in all.chunks(piece) {
            tokio::task::yield_now().await;
            let mut some: Vec<Arc<Entry>> = some.iter().filter(|entry| self.may_select(entry)).cloned().collect();
            if self.by_converted {
                res.show_all(&mut some).await?;
                some.retain(|entry| self.matches(entry));
            }
            found.entries.append(&mut some);
            if limit > 0 && found.entries.len() > limit {
                found.entries.truncate(limit);
                return Ok(Page { more: true, ..found });
            }
        }
        Ok(found)
    }

    /// The part of a cache that is looked at first where it takes long to say what is selected: of a list in pages not all that comes after.
    fn first_part<'a>(&'a self, after: Option<&'a str>) -> Window<'a> {
        let limit = if self.limit() == 0 { 0 } else { self.limit().max(SHOWN_AT_ONCE) };
        Window { limit, ..self.window(after) }
    }

    /// A page of the state at a revision, where it takes long to say what is selected: its [`Selection::first_part`] and as much more of the cache
    /// as is needed, which nobody holds meanwhile. None when that state has gone from the cache before all is found.
    async fn choose_from(&self, res: &Served, mut part: Page, at: u64) -> Result<Option<Page>, Status> {
        let (limit, mut size) = (self.limit(), part.entries.len());
        let mut found = Page::default();
        loop {
            let last = part.entries.last().map(|last| last.path().to_owned()).filter(|_| part.more);
            // One more than there is room for says that there are more.
            let wanted = limit.saturating_sub(found.entries.len());
            let mut some = self.choose(res, part.entries, if limit == 0 { 0 } else { wanted.max(1) }).await?;
            if limit > 0 && wanted == 0 {
                found.more = !some.entries.is_empty();
            } else {
                found.entries.append(&mut some.entries);
                found.more = some.more;
            }
            let Some(last) = last.filter(|_| !found.more) else { return Ok(Some(found)) };
            size = (2 * size).min(MOST_AT_ONCE);
            match res.storage.cache.select_at(at, Window { limit: size, ..self.window(Some(&last)) }, |_| true) {
                Some(next) => part = next,
                None => return Ok(None),
            }
        }
    }

    /// Most objects of a page, 0 for all.
    fn limit(&self) -> usize {
        usize::try_from(self.options.limit).unwrap_or(0)
    }

    /// The part of a cache that is looked at.
    pub(crate) fn window<'a>(&'a self, after: Option<&'a str>) -> Window<'a> {
        Window { namespace: self.namespace.as_deref(), after, limit: self.limit() }
    }

    /// Whether a selector other than the namespace narrows it down.
    fn is_narrowed(&self) -> bool {
        self.options.labels.as_ref().is_some_and(|labels| !labels.is_everything())
            || self.options.fields.as_ref().is_some_and(|fields| !fields.is_everything())
    }

    /// The one object that it can select, if it names it.
    pub(crate) fn single(&self) -> Option<String> {
        let name = self.options.fields.as_ref().and_then(|fields| fields::Selector::exact(fields, "metadata.name"))?;
        self.namespace.as_deref().map(|namespace| object_path(namespace, name))
    }
}

impl Registry {
    /// One object, as it is now. Every read is consistent, so any acceptable `resource_version` asks for no more.
    pub async fn get(
        &self,
        res: &Served,
        namespace: &str,
        name: &str,
        resource_version: Option<&str>,
    ) -> Result<Arc<Entry>, Status> {
        self.reached(parse_version(resource_version)?).await?;
        let found = res.storage.cache.get(&object_path(namespace, name));
        res.show(&found.ok_or_else(|| Status::not_found(&res.group_resource, name))?).await
    }

    /// An object as the cache has it now, none when there is none. For what may not wait, of kinds that no webhook converts; for others there
    /// is [`Registry::known`].
    pub fn peek(&self, res: &Served, namespace: &str, name: &str) -> Option<serde_json::Value> {
        res.storage.cache.get(&object_path(namespace, name)).map(|entry| res.own_value(&entry))
    }

    /// An object that somebody else is about to make, as soon as it is there; none when it does not come in time.
    /// For kinds that no webhook converts.
    pub async fn appears(&self, res: &Served, namespace: &str, name: &str, within: Duration) -> Option<Arc<Entry>> {
        let mut changes = res.storage.cache.changes();
        let appears = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = res.storage.cache.get(&object_path(namespace, name)) {
                    return Some(res.show_here(&found));
                }
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(within, appears).await.ok().flatten()
    }

    /// All objects of a kind as the cache has them now, and the revision that [`Registry::seen`] says for them.
    pub fn peek_all(&self, res: &Served) -> (Vec<Arc<Entry>>, u64) {
        let (page, revision) = res.storage.cache.select(Window::default(), |_| true);
        (page.entries.iter().map(|entry| res.show_here(entry)).collect(), revision)
    }

    /// An object as the cache has it now, none when there is none. What has to be converted for that is kept for a while: who asks for the same
    /// object again and again does not ask a webhook each time.
    ///
    /// # Errors
    /// It cannot be converted.
    pub async fn known(&self, res: &Served, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, Status> {
        let mut found: Vec<Arc<Entry>> = res.storage.cache.get(&object_path(namespace, name)).into_iter().collect();
        res.show_changes(&mut found).await?;
        Ok(found.pop())
    }

    /// The same of those objects of a namespace, or of all where it is empty, that a label selector takes. The stored labels count, also where a
    /// webhook shows others: admission asks at each request, and an object that nobody selects must neither be converted for that nor fail it.
    ///
    /// # Errors
    /// One of them cannot be converted.
    pub async fn known_labelled(
        &self,
        res: &Served,
        namespace: &str,
        labels: &labels::Selector,
    ) -> Result<Vec<Arc<Entry>>, Status> {
        let window = Window { namespace: Some(namespace).filter(|namespace| !namespace.is_empty()), ..Window::default() };
        let (page, _) = res.storage.cache.select(window, |entry| labels.matches(entry));
        let mut found = page.entries;
        res.show_changes(&mut found).await?;
        Ok(found)
    }

    /// The revision of the newest change of a kind's objects.
    pub fn seen(&self, res: &Served) -> u64 {
        res.storage.cache.revision()
    }

    /// What has changed among a kind's objects, as they are stored, since the last look of this cursor. Those who look often are told of no more than changes.
    pub fn since(&self, res: &Served, cursor: &mut Cursor) -> Since {
        res.storage.cache.since(cursor)
    }

    /// How many bytes an object has; zero when there is none.
    pub fn size(&self, res: &Served, namespace: &str, name: &str) -> usize {
        res.storage.cache.get(&object_path(namespace, name)).map_or(0, |entry| entry.json.len())
    }

    /// The objects that the options select.
    pub async fn list(&self, res: &Served, namespace: Option<&str>, options: &ListOptions) -> Result<List, Status> {
        let selection = Selection::new(res, namespace, options)?;
        let token = options.continue_token.as_deref().filter(|token| !token.is_empty());
        let token = token.map(|token| Continuation::decode(token, namespace)).transpose()?;
        let version = parse_version(options.resource_version.as_deref())?;
        let (at, from) = match (token, version) {
            (Some(_), Some(_)) => {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            (Some(token), None) => (token.at, Some(token)),
            // A limit alone has always asked for the very version.
            (None, version) => match options.resource_version_match.as_deref() {
                Some("Exact") => (version, None),
                None if options.limit > 0 => (version, None),
                _ => (None, None),
            },
        };
        self.reached(version.or(at)).await?;
        let mut list = match at {
            Some(at) => self.list_at(res, &selection, at, from.as_ref()).await?,
            None => self.list_now(res, &selection, from.as_ref().map(|from| from.after.as_str())).await?,
        };
        if !selection.by_converted && !res.shows_what_is_stored() {
            res.show_all(&mut list.entries).await?;
        }
        Ok(list)
    }

    /// A page of the present state. Every list is consistent, so it is not older than anything that was asked for.
    async fn list_now(&self, res: &Served, selection: &Selection, after: Option<&str>) -> Result<List, Status> {
        // Read before the cache: the cache may be newer than this, never older.
        let current = self.revision();
        if let (Some(path), None) = (selection.single(), after) {
            let revision = res.storage.cache.revision().max(current);
            let entries = selection.choose(res, res.storage.cache.get(&path).into_iter().collect(), 0).await?.entries;
            return Ok(List { entries, revision, ..List::default() });
        }
        if !selection.takes_long() {
            let (page, newest) = res.storage.cache.select(selection.window(after), |entry| selection.matches(entry));
            return Ok(list(page, newest.max(current), selection));
        }
        let (part, newest) = res.storage.cache.select(selection.first_part(after), |_| true);
        let at = newest.max(current);
        if let Some(page) = selection.choose_from(res, part, at).await? {
            return Ok(list(page, at, selection));
        }
        // Too much is written meanwhile to go on from there: all is taken at once.
        let (all, newest) = res.storage.cache.select(Window { limit: 0, ..selection.window(after) }, |_| true);
        let page = selection.choose(res, all.entries, selection.limit()).await?;
        Ok(list(page, newest.max(current), selection))
    }

    /// A page of the state at a revision.
    async fn list_at(&self, res: &Served, selection: &Selection, at: u64, from: Option<&Continuation>) -> Result<List, Status> {
        let after = from.map(|from| from.after.as_str());
        let cached = match selection.takes_long() {
            false => res.storage.cache.select_at(at, selection.window(after), |entry| selection.matches(entry)),
            true => match res.storage.cache.select_at(at, selection.first_part(after), |_| true) {
                Some(part) => selection.choose_from(res, part, at).await?,
                None => None,
            },
        };
        match (cached, after) {
            (Some(page), _) => Ok(list(page, at, selection)),
            (None, _) if !res.def.ephemeral => self.list_past(res, selection, at, from).await,
            (None, after) => Err(expired(after)),
        }
    }

    /// The same from the store's history.
    async fn list_past(&self, res: &Served, selection: &Selection, at: u64, from: Option<&Continuation>) -> Result<List, Status> {
        let after = from.map(|from| from.after.as_str());
        let namespace = selection.namespace.as_deref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        let prefix = format!("{}{namespace}", res.storage.prefix);
        // Not before the namespace, whatever the client says.
        let start = after.map(|after| format!("{}{after}\0", res.storage.prefix)).filter(|start| start.starts_with(&prefix));
        let mut start = start.unwrap_or_else(|| prefix.clone()).into_bytes();
        let end = format!("{}0", prefix.trim_end_matches('/'));
        let mut entries = Vec::new();
        loop {
            let wanted = match selection.limit() {
                limit if limit > 0 && !selection.is_narrowed() => PAGE.min((limit + 1).saturating_sub(entries.len())),
                _ => PAGE,
            };
            let found = self.engine.range(&start, end.as_bytes(), Some(at), wanted).await.map_err(|error| match error {
                store::Error::Compacted(_) => expired(after),
                error => storage_error(error),
            })?;
            let read = found.records.iter().map(|record| Arc::new(res.storage.cache.entry(&record.value, record.revision, None)));
            let most = if selection.limit() > 0 { (selection.limit() + 1).saturating_sub(entries.len()) } else { 0 };
            entries.append(&mut selection.choose(res, read.collect(), most).await?.entries);
            match found.records.last() {
                Some(last) if found.more && (selection.limit() == 0 || entries.len() <= selection.limit()) => {
                    start = [&last.key, &b"\0"[..]].concat();
                }
                _ => {
                    let more = selection.limit() > 0 && entries.len() > selection.limit();
                    let left = from.and_then(|from| from.rest).map(|rest| rest.saturating_sub(selection.limit()));
                    let behind = left.or((more && !found.more).then(|| entries.len() - selection.limit()));
                    if more {
                        entries.truncate(selection.limit());
                    }
                    return Ok(list(Page { entries, more, behind }, at, selection));
                }
            }
        }
    }
}

/// Whether a field says where an object is, which is the same in all versions.
fn is_place(field: &str) -> bool {
    matches!(field, "metadata.name" | "metadata.namespace")
}

/// How many terms selectors have.
fn terms(options: &ListOptions) -> usize {
    let labels = options.labels.as_ref().map_or(0, |labels| labels.requirements().len());
    labels + options.fields.as_ref().map_or(0, |fields| fields.0.len())
}

/// A state that is no longer kept. A list in pages can go on in the present state.
fn expired(after: Option<&str>) -> Status {
    match after {
        Some(after) => Status::continue_expired(Continuation { at: None, after: after.to_owned(), rest: None }.encode()),
        None => Status::resource_expired("The resourceVersion for the provided list is too old."),
    }
}

/// A page as a list. How many objects remain is unknown where selectors decide about them.
fn list(page: Page, revision: u64, selection: &Selection) -> List {
    let last = page.entries.last().filter(|_| page.more);
    let behind = page.behind.filter(|_| page.more && !selection.is_narrowed());
    List {
        continue_token: last.map(|last| Continuation::behind(last, revision, behind).encode()),
        remaining: behind.map(|count| i64::try_from(count).unwrap_or(i64::MAX)),
        entries: page.entries,
        revision,
    }
}

/// A number as Go's `strconv.ParseUint` reads it: without the sign that Rust takes.
pub(crate) fn unsigned(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A resource version from a request: none and "0" ask for anything.
pub(crate) fn parse_version(text: Option<&str>) -> Result<Option<u64>, Status> {
    match text {
        None | Some("" | "0") => Ok(None),
        Some(text) => unsigned(text).map(Some).ok_or_else(|| {
            Status::bad_request(format!(
                "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
            ))
        }),
    }
}
