//! StorageClass: how volumes are made for claims.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{TopologySelectorLabelRequirement, TopologySelectorTerm};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use crate::columns::{Column, class_name};
use crate::core::pod::renamed_label;
use crate::def::KindDef;
use crate::rules::{self, list};
use crate::typed::Kind;
use crate::util::set_default;

/// Annotations of the class that claims without a class get, the old one second.
const DEFAULT: &[&str] = &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

impl Kind for StorageClass {
    const DEF: KindDef = KindDef::of::<Self>("storageclass").returns_deleted().short(&["sc"]).cluster();

    fn apply_defaults(object: &mut Value) {
        set_default(object, "reclaimPolicy", "Delete");
        set_default(object, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, errors: &mut Errors) {
        super::provisioner(&Path::new("provisioner"), &self.provisioner, errors);
        super::parameters(&Path::new("parameters"), self.parameters.as_ref(), errors);
        let policy = self.reclaim_policy.as_deref().filter(|policy| !policy.is_empty());
        rules::supported(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"], errors);
        let mode = self.volume_binding_mode.as_deref();
        rules::supported(&Path::new("volumeBindingMode"), mode, &["Immediate", "WaitForFirstConsumer"], errors);
        topologies(list(&self.allowed_topologies), &Path::new("allowedTopologies"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        super::no_updates("parameters", &self.parameters, &old.parameters, errors);
        super::no_updates("provisioner", &self.provisioner, &old.provisioner, errors);
        super::no_updates("reclaimPolicy", &self.reclaim_policy, &old.reclaim_policy, errors);
        rules::immutable(&Path::new("volumeBindingMode"), &self.volume_binding_mode, &old.volume_binding_mode, errors);
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (term, topology) in list(&self.allowed_topologies).iter().enumerate() {
            for (index, expression) in list(&topology.match_label_expressions).iter().enumerate() {
                let path = Path::new("allowedTopologies").index(term).child("matchLabelExpressions").index(index).child("key");
                let key = &expression.key;
                warnings.extend(renamed_label(key).map(|message| format!("{path}: {key} is {message}")));
            }
        }
        warnings
    }

    fn warnings_on_update(&self, _old: &Self) -> Vec<String> {
        self.warnings()
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::named(|class, _| class_name(&class.metadata, DEFAULT)),
                Column::new("Provisioner", "Who makes the volumes.", |class, _| class.provisioner.as_str().into()),
                Column::new("ReclaimPolicy", "What becomes of a volume when its claim is deleted.", |class, _| {
                    class.reclaim_policy.as_deref().unwrap_or("Delete").into()
                }),
                Column::new("VolumeBindingMode", "When claims are bound to volumes.", |class, _| {
                    class.volume_binding_mode.as_deref().unwrap_or("Immediate").into()
                }),
                Column::boolean("AllowVolumeExpansion", "Whether volumes can grow.", |class, _| {
                    class.allow_volume_expansion.unwrap_or(false).into()
                }),
                Column::AGE,
            ]
        }
    }
}

/// Where volumes may be made; no term says what another one says.
fn topologies(terms: &[TopologySelectorTerm], path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, term) in terms.iter().enumerate() {
        let path = path.index(index).child("matchLabelExpressions");
        let mut keys: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (index, expression) in list(&term.match_label_expressions).iter().enumerate() {
            let path = path.index(index);
            requirement(expression, &path, errors);
            if keys.contains_key(expression.key.as_str()) {
                errors.push(Error::duplicate(&path.child("key"), expression.key.as_str()));
            }
            keys.insert(&expression.key, expression.values.iter().map(String::as_str).collect());
        }
        if !seen.insert(keys) {
            errors.push(Error::duplicate(&path, json!("")));
        }
    }
}

fn requirement(requirement: &TopologySelectorLabelRequirement, path: &Path, errors: &mut Errors) {
    let values = path.child("values");
    if requirement.values.is_empty() {
        errors.push(Error::required(&values, ""));
    }
    let mut seen = HashSet::new();
    for (index, value) in requirement.values.iter().enumerate().filter(|(_, value)| !seen.insert(value.as_str())) {
        errors.push(Error::duplicate(&values.index(index), value.as_str()));
    }
    rules::qualified_name(&path.child("key"), &requirement.key, errors);
}
