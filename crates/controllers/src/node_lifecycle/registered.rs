//! Events of nodes that come and go, under upstream's names: autoscalers and people follow them.

use std::collections::HashMap;

use client::events::{Recorder, Type};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use parking_lot::Mutex;

use crate::meta;

/// The nodes that are there, by name, with their UIDs.
#[derive(Default)]
pub(super) struct Registered(Mutex<HashMap<String, String>>);

impl Registered {
    /// Takes what there is under a name now, and tells what has changed.
    pub(super) fn look(&self, name: &str, node: Option<&Node>, events: &Recorder) {
        for (uid, came) in self.changes(name, node.map(meta::uid)) {
            let (reason, what) = match came {
                true => ("RegisteredNode", format!("Registered Node {name} in Controller")),
                false => ("RemovingNode", format!("Removing Node {name} from Controller")),
            };
            let about = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(name.to_owned()),
                uid: Some(uid),
                ..ObjectReference::default()
            };
            events.event(&about, Type::Normal, reason, format!("Node {name} event: {what}"));
        }
    }

    /// Which nodes of that name have gone (false) or come, by UID.
    fn changes(&self, name: &str, uid: Option<&str>) -> Vec<(String, bool)> {
        let mut known = self.0.lock();
        let before = known.get(name).cloned();
        if before.as_deref() == uid {
            return Vec::new();
        }
        match uid {
            Some(uid) => known.insert(name.to_owned(), uid.to_owned()),
            None => known.remove(name),
        };
        let gone = before.map(|uid| (uid, false));
        gone.into_iter().chain(uid.map(|uid| (uid.to_owned(), true))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_told_once() {
        let registered = Registered::default();
        let check = |uid: Option<&str>, expected: &[(&str, bool)]| {
            let expected: Vec<_> = expected.iter().map(|(uid, came)| ((*uid).to_owned(), *came)).collect();
            assert_eq!(registered.changes("n", uid), expected, "{uid:?}");
        };
        check(None, &[]);
        check(Some("a"), &[("a", true)]);
        check(Some("a"), &[]);
        check(Some("b"), &[("a", false), ("b", true)]);
        check(None, &[("b", false)]);
        check(None, &[]);
    }
}
