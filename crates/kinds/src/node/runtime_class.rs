//! RuntimeClass.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::node::v1::RuntimeClass;

use crate::columns::Column;
use crate::core::pod;
use crate::def::KindDef;
use crate::rules;
use crate::typed::Kind;

impl Kind for RuntimeClass {
    const DEF: KindDef = KindDef::new("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", "runtimeclass")
        .returns_deleted()
        .cluster()
        .create_on_update()
        .versioned();

    fn validate(&self, errors: &mut Errors) {
        errors.invalid_each(&Path::new("handler"), &self.handler, names::dns1123_label(&self.handler));
        if let Some(amounts) = self.overhead.as_ref().and_then(|overhead| overhead.pod_fixed.as_ref()) {
            pod::validate_overhead(amounts, &Path::new("overhead.podFixed"), errors);
        }
        let Some(scheduling) = &self.scheduling else { return };
        let (path, given) = (Path::new("scheduling"), rules::list(&scheduling.tolerations));
        rules::labels(&path.child("nodeSelector"), scheduling.node_selector.as_ref(), errors);
        let path = path.child("tolerations");
        pod::tolerations(given, &path, errors);
        let keys = given.iter().map(|one| (&one.key, &one.operator, &one.value, &one.effect, one.toleration_seconds));
        for index in rules::repeated(keys) {
            errors.push(Error::duplicate(&path.index(index), serde_json::json!(given[index])));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.handler != old.handler {
            errors.push(Error::invalid(&Path::new("handler"), self.handler.as_str(), "field is immutable"));
        }
    }

    fn warnings(&self) -> Vec<String> {
        let selector = self.scheduling.as_ref().and_then(|scheduling| scheduling.node_selector.as_ref());
        let renamed = selector.into_iter().flatten().filter_map(|(key, _)| pod::renamed_label(key));
        renamed.map(|message| format!("scheduling.nodeSelector: {message}")).collect()
    }

    fn warnings_on_update(&self, _old: &Self) -> Vec<String> {
        self.warnings()
    }

    fn columns() -> &'static [Column<Self>] {
        const { &[Column::new("Handler", "Name of the runtime configuration on the nodes.", |class, _| class.handler.clone().into())] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check_warnings;
    use serde_json::json;

    /// Upstream's `pkg/api/node/util.go`.
    #[test]
    fn old_labels() {
        let class = |key: &str| json!({"handler": "runc", "scheduling": {"nodeSelector": {key: "x"}}});
        check_warnings::<RuntimeClass>(json!({"handler": "runc"}), &[]);
        check_warnings::<RuntimeClass>(class("kubernetes.io/arch"), &[]);
        check_warnings::<RuntimeClass>(
            class("beta.kubernetes.io/arch"),
            &["scheduling.nodeSelector: deprecated since v1.14; use \"kubernetes.io/arch\" instead"],
        );
    }
}
