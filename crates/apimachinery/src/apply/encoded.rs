//! Managed fields that stay text.
//!
//! A write of a status concerns the entry of its manager, seldom another one, and hardly ever changes which fields that one owns.
//! Decoding all entries, encoding them again and letting go of the trees would cost more than the rest of such a write.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::compare::{Diff, compare};
use super::managed::{MAX_UPDATE_MANAGERS, Managed};
use super::set::{self, Set, children, is_member};
use super::{By, Seen, record};
use crate::meta;

/// What tells entries apart and sorts them; of the fields the text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(borrow, default)]
    operation: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
    #[serde(borrow, default)]
    manager: Cow<'a, str>,
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    subresource: Cow<'a, str>,
    #[serde(borrow, default, rename = "fieldsV1")]
    fields: Option<&'a RawValue>,
}

impl<'a> Entry<'a> {
    fn order(&self) -> [&str; 5] {
        [&self.operation, &self.time, &self.manager, &self.api_version, &self.subresource]
    }

    fn is_own(&self, by: &By<'_>, api_version: &str) -> bool {
        let own = ["Update", by.manager(), api_version, by.subresource];
        [&*self.operation, &*self.manager, &*self.api_version, &*self.subresource] == own
    }

    /// Whether it may own some of what differs, or has to go for a reason of its own.
    fn concerns(&self, roots: &[String], api_version: &str) -> bool {
        let Some(fields) = self.fields.map(RawValue::get) else { return true };
        let names = |root: &String| fields.contains(root.as_str());
        self.api_version != api_version || fields == "{}" || roots.iter().any(names)
    }
}

/// Does what [`super::update`] does for a write through a sub-resource, where the entries are not in the objects: `stored` is their
/// list as text, and so is the result; none where there are none.
pub fn update_encoded(seen: Seen<'_>, stored: &str, old: &Value, new: &Value, by: &By<'_>) -> Option<String> {
    let texts: Vec<&RawValue> = serde_json::from_str(stored).ok().filter(|texts: &Vec<_>| !texts.is_empty())?;
    let diff = compare(seen.types.root(), old, new).without(&set::of_fields(by.reset));
    if diff.is_empty() {
        return Some(stored.to_owned());
    }
    let entries: Result<Vec<Entry<'_>>, _> = texts.iter().map(|text| serde_json::from_str(text.get())).collect();
    let Ok(entries) = entries else { return decode(seen, &texts, diff, (old, new), by).map(|entries| list(&entries)) };
    let api_version = meta::api_version(new);
    let roots: Vec<String> =
        diff.changed.keys().chain(diff.removed.keys()).map(|key| Value::from(key.as_str()).to_string()).collect();
    let concerned = |entry: &Entry<'_>| entry.is_own(by, api_version) || entry.concerns(&roots, api_version);
    let (mut touched, mut kept) = (Vec::new(), Vec::with_capacity(entries.len() + 1));
    for (entry, text) in entries.into_iter().zip(texts.iter().copied()) {
        if concerned(&entry) { touched.push((entry, text)) } else { kept.push((entry, Cow::Borrowed(text.get()))) }
    }
    if let [(own, _)] = &touched[..]
        && let Some(text) = renewed(own, &diff, by, api_version)
    {
        let (mut own, _) = touched.remove(0);
        own.time = by.now.into();
        kept.push((own, text.into()));
        return Some(join(kept));
    }
    if kept.iter().filter(|(entry, _)| entry.operation == "Update").count() + touched.len() >= MAX_UPDATE_MANAGERS {
        return decode(seen, &texts, diff, (old, new), by).map(|entries| list(&entries));
    }
    let touched: Vec<&RawValue> = touched.into_iter().map(|(_, text)| text).collect();
    let changed: Vec<String> = decode(seen, &touched, diff, (old, new), by)?.iter().map(Value::to_string).collect();
    for text in &changed {
        kept.push((serde_json::from_str(text).ok()?, text.as_str().into()));
    }
    Some(join(kept))
}

/// Does it with the entries themselves.
fn decode(seen: Seen<'_>, texts: &[&RawValue], diff: Diff, objects: (&Value, &Value), by: &By<'_>) -> Option<Vec<Value>> {
    let entries: Vec<Value> = texts.iter().filter_map(|text| serde_json::from_str(text.get()).ok()).collect();
    let mut managed = Managed::decode(&entries).ok()?;
    record(seen, &mut managed, diff, objects, by);
    managed.cap();
    Some(managed.encode())
}

/// The text of the writer's own entry where nothing of it changes but the time: it owns already what it has written.
fn renewed(own: &Entry<'_>, diff: &Diff, by: &By<'_>, api_version: &str) -> Option<String> {
    let fields = own.fields.filter(|_| diff.removed.is_empty() && own.is_own(by, api_version))?.get();
    if !contains(fields, &diff.changed) {
        return None;
    }
    let text = |text: &str| Value::from(text).to_string();
    let mut out = format!(
        r#"{{"apiVersion":{},"fieldsType":"FieldsV1","fieldsV1":{fields},"manager":{},"operation":"Update""#,
        text(api_version),
        text(by.manager())
    );
    for (name, value) in [("subresource", by.subresource), ("time", by.now)] {
        if !value.is_empty() {
            out.push_str(&format!(r#","{name}":{}"#, text(value)));
        }
    }
    out.push('}');
    Some(out)
}

/// The list of entries, in upstream's order.
fn join(mut entries: Vec<(Entry<'_>, Cow<'_, str>)>) -> String {
    entries.sort_by(|(a, _), (b, _)| a.order().cmp(&b.order()));
    let mut out = String::with_capacity(entries.iter().map(|(_, text)| text.len() + 1).sum::<usize>() + 2);
    out.push('[');
    for (_, text) in entries {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&text);
    }
    out.push(']');
    out
}

fn list(entries: &[Value]) -> String {
    let texts: Vec<String> = entries.iter().map(Value::to_string).collect();
    format!("[{}]", texts.join(","))
}

/// Whether all paths of a set are in one that is text.
fn contains(text: &str, wanted: &Set) -> bool {
    let mut reader = serde_json::Deserializer::from_str(text);
    Below(wanted).deserialize(&mut reader).is_ok_and(|(all, _)| all)
}

/// Reads what lies below a path: whether all that is wanted there is in it, and whether the path itself is.
struct Below<'s>(&'s Set);

impl<'de> DeserializeSeed<'de> for Below<'_> {
    type Value = (bool, bool);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Below<'_> {
    type Value = (bool, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a set of paths")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut all, mut is_empty, mut is_itself) = (0, true, true, false);
        while let Some(below) = elements.next_key_seed(Element(self.0))? {
            is_empty = false;
            match below {
                Known::Wanted(below) => {
                    let (all_below, itself) = elements.next_value_seed(Below(below))?;
                    found += 1;
                    all &= all_below && (itself || !is_member(below));
                }
                known => {
                    is_itself |= matches!(known, Known::Itself);
                    elements.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok((all && found == children(self.0).count(), is_empty || is_itself))
    }
}

/// A path element of the text.
enum Known<'s> {
    /// The path that leads here is in the set.
    Itself,
    Wanted(&'s Set),
    Other,
}

/// Reads a path element.
struct Element<'s>(&'s Set);

impl<'de, 's> DeserializeSeed<'de> for Element<'s> {
    type Value = Known<'s>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'s> Visitor<'_> for Element<'s> {
    type Value = Known<'s>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path element")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(match self.0.get(name).and_then(Value::as_object) {
            _ if name == set::SELF => Known::Itself,
            Some(below) => Known::Wanted(below),
            None => Known::Other,
        })
    }
}
