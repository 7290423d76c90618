//! What is made of the objects of a kind, once for each change: compiled webhooks and policies, numbers of priorities.
//!
//! It is looked at when a request comes, by the revision of the cache: what a client has written is in force when it has its answer,
//! and a cluster without any such object pays one look at a number.

use std::sync::{Arc, OnceLock};

use apimachinery::meta;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use registry::{Registry, Served};
use serde_json::Value;

const GROUP: &str = "admissionregistration.k8s.io";

/// What is made of one object.
pub(super) struct Item<T> {
    /// Of the object.
    pub(super) name: String,
    revision: u64,
    /// What was made of it.
    pub(super) value: Arc<T>,
}

type Make<T> = Box<dyn Fn(&str, &Value) -> T + Send + Sync>;

/// What is made of all objects of a kind, in the order of their names.
pub(super) struct Current<T> {
    group: &'static str,
    plural: &'static str,
    make: Make<T>,
    served: OnceLock<Option<Arc<Served>>>,
    made: ArcSwapOption<Made<T>>,
    /// Held while it is made: of many requests after a change, one does the work.
    making: Mutex<()>,
}

struct Made<T> {
    revision: u64,
    items: Arc<[Item<T>]>,
}

impl<T> Current<T> {
    /// Of a kind of admission registrations, by this function, which is given the name of an object and the object.
    pub(super) fn new(plural: &'static str, make: impl Fn(&str, &Value) -> T + Send + Sync + 'static) -> Self {
        Self::of(GROUP, plural, make)
    }

    /// The same of a kind of another group.
    pub(super) fn of(
        group: &'static str,
        plural: &'static str,
        make: impl Fn(&str, &Value) -> T + Send + Sync + 'static,
    ) -> Self {
        let make = Box::new(make);
        Self { group, plural, make, served: OnceLock::new(), made: ArcSwapOption::empty(), making: Mutex::new(()) }
    }

    /// All, as the registry has them now.
    pub(super) fn get(&self, registry: &Registry) -> Arc<[Item<T>]> {
        let served = self.served.get_or_init(|| registry.resource(self.group, "v1", self.plural));
        let Some(served) = served else { return Arc::new([]) };
        let is_current = |made: &Made<T>| made.revision == registry.seen(served);
        if let Some(made) = self.made.load().as_ref().filter(|made| is_current(made)) {
            return made.items.clone();
        }
        let _making = self.making.lock();
        let before = self.made.load_full();
        if let Some(made) = before.as_ref().filter(|made| is_current(made)) {
            return made.items.clone();
        }
        let (entries, revision) = registry.peek_all(served);
        let known = before.map(|made| made.items.clone()).unwrap_or_else(|| Arc::new([]));
        let items = entries.iter().map(|entry| {
            let same = known.binary_search_by(|item| item.name.as_str().cmp(entry.name())).ok();
            let same = same.map(|at| &known[at]).filter(|item| item.revision == entry.revision);
            let value = same.map_or_else(|| Arc::new((self.make)(entry.name(), &entry.value())), |item| item.value.clone());
            Item { name: entry.name().to_owned(), revision: entry.revision, value }
        });
        let items: Arc<[Item<T>]> = items.collect();
        self.made.store(Some(Arc::new(Made { revision, items: items.clone() })));
        items
    }
}

/// Whether a request is about the registrations themselves: nobody may keep an administrator from removing what keeps everybody from
/// writing.
pub(super) fn is_exempt(a: &registry::Request<'_>) -> bool {
    a.resource.def.group == GROUP
}

/// The name of a kind's object in a request, or the name that its body says.
pub(super) fn name<'a>(a: &'a registry::Request<'_>) -> &'a str {
    if a.name.is_empty() { a.object().map(meta::name).unwrap_or_default() } else { a.name }
}
