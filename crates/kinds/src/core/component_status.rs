//! ComponentStatus: whether a part of the control plane works.

use k8s_openapi::api::core::v1::{ComponentCondition, ComponentStatus};

use crate::columns::Column;
use crate::def::{Computed, KindDef};
use crate::typed::Kind;

/// The condition that tells it.
fn healthy(component: &ComponentStatus) -> Option<&ComponentCondition> {
    component.conditions.iter().flatten().find(|condition| condition.type_ == "Healthy")
}

impl Kind for ComponentStatus {
    const DEF: KindDef = KindDef::new("", "v1", "ComponentStatus", "componentstatuses", "")
        .deprecated("v1 ComponentStatus is deprecated in v1.19+")
        .short(&["cs"])
        .cluster()
        .computed(Computed::Health);

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::NAME,
                Column::new("Status", "Status of the component conditions", |component, _| {
                    let status = healthy(component).map_or("Unknown", |condition| match condition.status.as_str() {
                        "True" => "Healthy",
                        _ => "Unhealthy",
                    });
                    status.into()
                }),
                Column::new("Message", "Message of the component conditions", |component, _| {
                    healthy(component).and_then(|condition| condition.message.as_deref()).unwrap_or_default().into()
                }),
                Column::new("Error", "Error of the component conditions", |component, _| {
                    healthy(component).and_then(|condition| condition.error.as_deref()).unwrap_or_default().into()
                }),
            ]
        }
    }
}
