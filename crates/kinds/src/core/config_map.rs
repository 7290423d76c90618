//! ConfigMap.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use std::collections::BTreeMap;

use super::data::{sizes, validate_data, validate_immutable};
use crate::columns::Column;
use crate::def::KindDef;
use crate::typed::Kind;

impl Kind for ConfigMap {
    const DEF: KindDef = KindDef::new("", "v1", "ConfigMap", "configmaps", "configmap").short(&["cm"]);

    fn validate(&self, errors: &mut Errors) {
        let (text, binary) = (sizes(&self.data, String::len), sizes(&self.binary_data, |bytes: &ByteString| bytes.0.len()));
        if let Some((key, _)) =
            text.iter().find(|(key, _)| self.binary_data.as_ref().is_some_and(|other| other.contains_key(*key)))
        {
            let detail = "duplicate of key present in binaryData";
            errors.push(Error::invalid(&Path::new("data").key(key), key.as_str(), detail));
        }
        validate_data(&[("data", text), ("binaryData", binary)], &Path::new("[]"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let same = [("data", self.data == old.data), ("binaryData", self.binary_data == old.binary_data)];
        validate_immutable(old.immutable, self.immutable, &same, errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[Column::integer("Data", "Data contains the configuration data.", |map, _| {
                (map.data.as_ref().map_or(0, BTreeMap::len) + map.binary_data.as_ref().map_or(0, BTreeMap::len)).into()
            })]
        }
    }
}
