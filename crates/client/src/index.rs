//! Named indexes of an informer's objects, so that a reader pays for what it finds and not for what there is.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::slot::{ByKey, Slot};
use crate::{Entry, Informer, Object};

/// The values under which one object is found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Values(Vec<String>);

impl Values {
    /// Adds a value.
    pub fn add(&mut self, value: impl Into<String>) {
        self.0.push(value.into());
    }
}

/// One index of an informer: objects by a value that they say of themselves. Cheap to clone.
pub struct Index<K> {
    informer: Informer<K>,
    place: usize,
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self { informer: self.informer.clone(), place: self.place }
    }
}

impl<K: Object> Index<K> {
    pub(crate) fn new(informer: Informer<K>, place: usize) -> Self {
        Self { informer, place }
    }

    /// The objects with this value, by key.
    pub fn get(&self, value: &str) -> Vec<Arc<K>> {
        self.informer.indexed(self.place, value)
    }

    /// The same, which nobody has decoded yet.
    pub fn entries(&self, value: &str) -> Vec<Entry<K>> {
        self.informer.entries_indexed(self.place, value)
    }

    /// How many objects have this value.
    pub fn count(&self, value: &str) -> usize {
        self.informer.count_indexed(self.place, value)
    }
}

/// Says under which values an object is found.
type ValuesOf<K> = Box<dyn Fn(&Slot<K>, &mut Values) + Send + Sync>;

/// Reads the values of an object from its JSON, without decoding all of it. False when it cannot tell: then the object is decoded.
pub type Lean = fn(&[u8], &mut Values) -> bool;

/// Objects by value, and what says an object's values.
pub(crate) struct Table<K> {
    pub(crate) name: &'static str,
    values: ValuesOf<K>,
    lean: Option<Lean>,
    objects: HashMap<Box<str>, BTreeSet<ByKey<K>>>,
}

impl<K> Table<K> {
    pub(crate) fn new(name: &'static str, values: impl Fn(&Slot<K>, &mut Values) + Send + Sync + 'static) -> Self {
        Self { name, values: Box::new(values), lean: None, objects: HashMap::new() }
    }

    /// The same, where many objects at once are read without being decoded.
    pub(crate) fn with_lean(self, lean: Option<Lean>) -> Self {
        Self { lean, ..self }
    }

    /// The objects with this value, by key.
    pub(crate) fn get(&self, value: &str) -> impl Iterator<Item = &Arc<Slot<K>>> {
        self.objects.get(value).into_iter().flatten().map(|ByKey(slot)| slot)
    }

    /// How many objects have this value.
    pub(crate) fn count(&self, value: &str) -> usize {
        self.objects.get(value).map_or(0, BTreeSet::len)
    }

    /// An object was `old` and is `new`. It is one of `many`: who looks at single changes decodes them anyway.
    pub(crate) fn change(&mut self, old: Option<&Arc<Slot<K>>>, new: Option<&Arc<Slot<K>>>, many: bool) {
        let (before, after) = (self.values_of(old, true, many), self.values_of(new, false, many));
        let Some(key) = old.or(new).map(|slot| &slot.key) else { return };
        for value in before.0.iter().filter(|value| !after.0.contains(*value)) {
            if let Some(objects) = self.objects.get_mut(value.as_str()) {
                objects.remove(key);
                if objects.is_empty() {
                    self.objects.remove(value.as_str());
                }
            }
        }
        for (value, new) in after.0.into_iter().filter_map(|value| Some((value, new?))) {
            self.objects.entry(value.into()).or_default().replace(ByKey(new.clone()));
        }
    }

    fn values_of(&self, object: Option<&Arc<Slot<K>>>, is_old: bool, many: bool) -> Values {
        let mut values = Values::default();
        let Some(object) = object else { return values };
        // Nobody else looks at what has been, once it is forgotten.
        let unread = many || (is_old && object.decoded().is_none());
        if !self.lean.is_some_and(|lean| unread && lean(object.json(), &mut values)) {
            values.0.clear();
            (self.values)(object, &mut values);
        }
        values
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn map(name: &str, colours: &[&str]) -> Arc<Slot<ConfigMap>> {
        let data: serde_json::Map<_, _> = colours.iter().map(|colour| ((*colour).to_owned(), json!(""))).collect();
        let json = json!({"metadata": {"namespace": "a", "name": name}, "data": data}).to_string();
        Arc::new(Slot::new(json.into(), &Arc::default()).unwrap())
    }

    #[test]
    fn many_objects_are_read_without_being_decoded() {
        let undecoded = |_: &Slot<ConfigMap>, values: &mut Values| values.add("decoded");
        let mut table = Table::new("x", undecoded).with_lean(Some(|json, values| {
            values.add("lean");
            json.windows(3).any(|text| text == b"red")
        }));
        table.change(None, Some(&map("x", &["red"])), true);
        table.change(None, Some(&map("y", &["blue"])), true);
        table.change(None, Some(&map("z", &["red"])), false);
        let keys = |value: &str| table.get(value).map(|slot| slot.key.name.clone()).collect::<Vec<_>>();
        assert_eq!((keys("lean"), keys("decoded")), (vec!["x".to_owned()], vec!["y".to_owned(), "z".to_owned()]));
    }

    #[test]
    fn follows_values_and_leaves_none_behind() {
        let mut table = Table::new("colour", |slot: &Slot<ConfigMap>, values| {
            let map = slot.get().unwrap();
            map.data.iter().flatten().for_each(|(colour, _)| values.add(colour));
        });
        let check = |table: &Table<ConfigMap>, colour: &str, expected: &[&str]| {
            let names: Vec<&str> = table.get(colour).map(|slot| slot.key.name.as_str()).collect();
            assert_eq!(names, expected, "{colour}");
        };
        let (x, y) = (map("x", &["red", "blue"]), map("y", &["red"]));
        table.change(None, Some(&x), false);
        table.change(None, Some(&y), false);
        check(&table, "red", &["x", "y"]);
        check(&table, "blue", &["x"]);
        let green = map("x", &["green"]);
        table.change(Some(&x), Some(&green), false);
        check(&table, "red", &["y"]);
        check(&table, "blue", &[]);
        check(&table, "green", &["x"]);
        // The same values: what is found is what is there now.
        let again = map("x", &["green"]);
        table.change(Some(&green), Some(&again), false);
        assert!(table.get("green").all(|slot| Arc::ptr_eq(slot, &again)) && table.count("green") == 1);
        table.change(Some(&again), None, false);
        table.change(Some(&y), None, false);
        assert!(table.objects.is_empty());
    }
}
