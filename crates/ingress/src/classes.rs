//! Which Ingresses are ours. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

/// What an IngressClass of ours names as its controller.
pub const CONTROLLER: &str = "knarr.io/ingress";
/// The class that there is from the start.
pub const CLASS: &str = "knarr";

/// The annotation of the default class.
pub const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// The old way to name the class of an Ingress.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

/// The classes of ours by name, and whether each is the default.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Classes(BTreeMap<String, bool>);

impl Classes {
    /// A class is as given; none when it is gone. Whether that changes which Ingresses are ours.
    pub fn set(&mut self, name: &str, class: Option<&IngressClass>) -> bool {
        let ours = class.filter(|class| class.spec.as_ref().and_then(|spec| spec.controller.as_deref()) == Some(CONTROLLER));
        let default = ours.map(is_default);
        match default {
            Some(default) => self.0.insert(name.to_owned(), default) != Some(default),
            None => self.0.remove(name).is_some(),
        }
    }

    /// Whether the Ingress is ours: by its class, by the old annotation, or because it names none and ours is the default.
    pub fn claims(&self, ingress: &Ingress) -> bool {
        if let Some(class) = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref()) {
            return self.0.contains_key(class);
        }
        match ingress.metadata.annotations.as_ref().and_then(|all| all.get(OLD_CLASS)) {
            Some(class) => self.0.contains_key(class),
            None => self.0.values().any(|default| *default),
        }
    }
}

/// Whether a class is the default one.
pub fn is_default(class: &IngressClass) -> bool {
    class.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT)).is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn class(name: &str, controller: &str, default: &str) -> IngressClass {
        let metadata = json!({"name": name, "annotations": {DEFAULT: default}});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"controller": controller}})).unwrap()
    }

    #[test]
    fn claims() {
        let check = |default: &str, class_name: Option<&str>, annotation: Option<&str>, expected: bool| {
            let mut classes = Classes::default();
            assert!(classes.set("own", Some(&class("own", CONTROLLER, default))));
            assert!(!classes.set("other", Some(&class("other", "example.com/c", "true"))));
            let annotations: BTreeMap<_, _> = annotation.map(|value| (OLD_CLASS, value)).into_iter().collect();
            let spec = json!({"ingressClassName": class_name});
            let ingress = serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": spec})).unwrap();
            assert_eq!(classes.claims(&ingress), expected, "{class_name:?} {annotation:?}");
        };
        check("false", Some("own"), None, true);
        check("false", Some("other"), None, false);
        check("true", Some("gone"), None, false);
        check("false", None, Some("own"), true);
        check("true", None, Some("nginx"), false);
        check("false", Some("other"), Some("own"), false);
        check("true", None, None, true);
        check("false", None, None, false);
    }

    #[test]
    fn changes() {
        let mut classes = Classes::default();
        assert!(classes.set("own", Some(&class("own", CONTROLLER, "true"))));
        assert!(!classes.set("own", Some(&class("own", CONTROLLER, "true"))));
        assert!(classes.set("own", Some(&class("own", CONTROLLER, "false"))));
        assert!(classes.set("own", Some(&class("own", "example.com/c", "false"))));
        assert!(!classes.set("own", None));
    }
}
