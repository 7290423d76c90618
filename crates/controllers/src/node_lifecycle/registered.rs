//! Nodes that the controller knows: their coming and going is told, as upstream does, also when the controller begins.

use std::collections::HashMap;

use client::events::Type;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use parking_lot::Mutex;

use crate::controller::Cx;
use crate::meta;

/// The uid of each known node, by name.
#[derive(Default)]
pub(super) struct Registered(Mutex<HashMap<String, String>>);

impl Registered {
    /// Takes a node that is there.
    pub(super) fn there(&self, cx: &Cx, node: &Node) {
        let (name, uid) = (meta::name(node), meta::uid(node));
        let before = self.0.lock().insert(name.to_owned(), uid.to_owned());
        if before.as_deref() != Some(uid) {
            tell(cx, name, uid, "RegisteredNode", &format!("Registered Node {name} in Controller"));
        }
    }

    /// Takes a node that is not there.
    pub(super) fn gone(&self, cx: &Cx, name: &str) {
        if let Some(uid) = self.0.lock().remove(name) {
            tell(cx, name, &uid, "RemovingNode", &format!("Removing Node {name} from Controller"));
        }
    }
}

fn tell(cx: &Cx, name: &str, uid: &str, reason: &str, what: &str) {
    let text = |text: &str| Some(text.to_owned());
    let node = ObjectReference {
        api_version: text("v1"),
        kind: text("Node"),
        name: text(name),
        uid: text(uid),
        ..ObjectReference::default()
    };
    cx.events.event(&node, Type::Normal, reason, format!("Node {name} event: {what}"));
}
