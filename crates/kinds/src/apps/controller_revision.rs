//! ControllerRevision.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::apps::v1::ControllerRevision;

use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::{self, list};
use crate::typed::Kind;
use crate::util::or_none;

impl Kind for ControllerRevision {
    const DEF: KindDef = KindDef::new("apps", "v1", "ControllerRevision", "controllerrevisions", "controllerrevision");

    fn validate(&self, errors: &mut Errors) {
        match self.data.as_ref().map(|data| &data.0) {
            None | Some(serde_json::Value::Null) => errors.push(Error::required(&Path::new("data"), "data is mandatory")),
            Some(_) => {}
        }
        rules::non_negative(&Path::new("revision"), self.revision, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.data != old.data {
            let data = self.data.as_ref().map(|data| data.0.clone()).unwrap_or_default();
            errors.push(Error::invalid(&Path::new("data"), data, apimachinery::meta::IMMUTABLE));
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("Controller", "Controller of the object", |revision, _| {
                    let owners = list(&revision.metadata.owner_references);
                    let owner = owners.iter().find(|owner| owner.controller == Some(true));
                    or_none(owner.map(controller).unwrap_or_default())
                }),
                Column::integer(
                    "Revision",
                    "Revision indicates the revision of the state represented by Data.",
                    |revision, _| revision.revision.into(),
                ),
            ]
        }
    }
}

/// `statefulset.apps/web`.
fn controller(owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference) -> String {
    let kind = owner.kind.to_lowercase();
    match owner.api_version.split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", owner.name),
        None => format!("{kind}/{}", owner.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;
    use serde_json::json;

    #[test]
    fn revisions() {
        check::<ControllerRevision>(json!({"data": {"a": 1}, "revision": 1}), &[]);
        check::<ControllerRevision>(
            json!({"revision": -1}),
            &["data: Required value: data is mandatory", "revision: Invalid value: -1: must be greater than or equal to 0"],
        );
    }
}
