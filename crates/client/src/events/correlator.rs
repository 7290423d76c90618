//! Decides what becomes of an event: a new object, a higher count, or nothing. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use super::Type;

/// Entries that each table remembers.
const CAPACITY: usize = 1024;
/// Events that differ by message only, within [`SIMILAR_SECONDS`], before they are combined.
const SIMILAR_MAX: usize = 10;
const SIMILAR_SECONDS: i64 = 600;
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;

/// Something that happened to an object.
#[derive(Clone, Debug)]
pub(super) struct Incident {
    pub(super) object: ObjectReference,
    pub(super) kind: Type,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) at: Timestamp,
}

/// What to do about it.
#[derive(Debug)]
pub(super) enum Decision {
    Drop,
    Create(String, Incident),
    Repeat { name: String, count: i32, first: Timestamp, incident: Incident },
}

/// Namespace, name, uid and field path of the object, kind of event, reason.
type Subject = (String, String, String, String, Type, String);

struct Similar {
    messages: Vec<String>,
    last: Timestamp,
}

struct Seen {
    name: String,
    count: i32,
    first: Timestamp,
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

/// A map that forgets its oldest key when full.
struct Bounded<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Hash + Eq + Clone, V> Bounded<K, V> {
    fn get_or_insert(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        if !self.map.contains_key(&key) {
            if self.map.len() >= CAPACITY
                && let Some(oldest) = self.order.pop_front()
            {
                self.map.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        self.map.entry(key).or_insert_with(value)
    }
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), order: VecDeque::new() }
    }
}

#[derive(Default)]
pub(super) struct Correlator {
    similar: Bounded<Subject, Similar>,
    seen: Bounded<(Subject, String), Seen>,
    buckets: Bounded<(String, String, String), Bucket>,
}

impl Correlator {
    pub(super) fn decide(&mut self, mut incident: Incident) -> Decision {
        let subject = subject(&incident);
        let combined = self.combine(&subject, &mut incident);
        if !self.admit(&incident) {
            return Decision::Drop;
        }
        let key = (subject, if combined { String::new() } else { incident.message.clone() });
        let seen = self.seen.get_or_insert(key, || Seen { name: event_name(&incident), count: 0, first: incident.at });
        seen.count += 1;
        match seen.count {
            1 => Decision::Create(seen.name.clone(), incident),
            count => Decision::Repeat { name: seen.name.clone(), count, first: seen.first, incident },
        }
    }

    /// Whether the incident belongs to a crowd of similar ones; marks its message if so.
    fn combine(&mut self, subject: &Subject, incident: &mut Incident) -> bool {
        let now = incident.at;
        let similar = self.similar.get_or_insert(subject.clone(), || Similar { messages: Vec::new(), last: now });
        if now.as_second() - similar.last.as_second() > SIMILAR_SECONDS {
            *similar = Similar { messages: Vec::new(), last: now };
        }
        similar.last = now;
        if !similar.messages.contains(&incident.message) {
            if similar.messages.len() >= SIMILAR_MAX {
                incident.message = super::bounded(format!("(combined from similar events): {}", incident.message));
                return true;
            }
            similar.messages.push(incident.message.clone());
        }
        false
    }

    /// Takes a token of the object's bucket.
    fn admit(&mut self, incident: &Incident) -> bool {
        let object = &incident.object;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let key = (text(&object.namespace), text(&object.name), text(&object.uid));
        let bucket = self.buckets.get_or_insert(key, || Bucket { tokens: BURST, at: incident.at });
        let elapsed = incident.at.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + elapsed / REFILL_SECONDS).min(BURST);
        bucket.at = incident.at;
        let admitted = bucket.tokens >= 1.0;
        bucket.tokens -= f64::from(u8::from(admitted));
        admitted
    }
}

fn subject(incident: &Incident) -> Subject {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let object = &incident.object;
    (
        text(&object.namespace),
        text(&object.name),
        text(&object.uid),
        text(&object.field_path),
        incident.kind,
        incident.reason.clone(),
    )
}

/// `<object>.<nanoseconds in hexadecimal>`, as upstream names events.
fn event_name(incident: &Incident) -> String {
    format!("{}.{:x}", incident.object.name.as_deref().unwrap_or("unknown"), incident.at.as_nanosecond())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Feeds (seconds, message) and compares with "+" (create), a count, or "-" (dropped).
    fn check(incidents: impl IntoIterator<Item = (i64, String)>, expected: &str) {
        let mut correlator = Correlator::default();
        let mut shown = Vec::new();
        for (second, message) in incidents {
            let incident = Incident {
                object: ObjectReference { name: Some("a".into()), ..Default::default() },
                kind: Type::Normal,
                reason: "R".into(),
                message,
                annotations: BTreeMap::new(),
                at: Timestamp::from_second(1_000_000 + second).unwrap(),
            };
            shown.push(match correlator.decide(incident) {
                Decision::Drop => "-".to_owned(),
                Decision::Create(_, incident) if incident.message.starts_with("(combined") => "c".to_owned(),
                Decision::Create(..) => "+".to_owned(),
                Decision::Repeat { count, .. } => count.to_string(),
            });
        }
        assert_eq!(shown.join(" "), expected);
    }

    #[test]
    fn counts_combines_and_limits() {
        check([(0, "x".into()), (1, "x".into()), (2, "y".into()), (3, "x".into())], "+ 2 + 3");
        check((0..13).map(|i| (i, format!("m{i}"))), "+ + + + + + + + + + c 2 3");
        check((0..27).map(|_| (0, "x".into())).chain([(300, "x".into())]), {
            "+ 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 - - 26"
        });
    }
}
