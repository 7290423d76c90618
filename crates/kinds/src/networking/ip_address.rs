//! IPAddress: an address of the cluster that is taken, and by whom.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names::path_segment_name;
use k8s_openapi::api::networking::v1::{IPAddress, ParentReference};

use crate::columns::Column;
use crate::def::{KindDef, NameRule};
use crate::rules::{self, text};
use crate::typed::Kind;
use crate::util::or_none;

impl Kind for IPAddress {
    const DEF: KindDef = KindDef::of::<Self>("ipaddress").short(&["ip"]).cluster().name(NameRule::IpAddress);

    fn validate(&self, errors: &mut Errors) {
        let (parent, path) = (&self.spec.parent_ref, Path::new("spec.parentRef"));
        if *parent == ParentReference::default() {
            return errors.push(Error::required(&path, ""));
        }
        if !text(&parent.group).is_empty() {
            rules::dns_subdomain(&path.child("group"), text(&parent.group), errors);
        }
        super::reference(&path.child("resource"), &parent.resource, errors);
        super::reference(&path.child("name"), &parent.name, errors);
        let namespace = text(&parent.namespace);
        errors.invalid_each(&path.child("namespace"), namespace, path_segment_name(namespace));
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        rules::immutable(&Path::new("spec.parentRef"), &self.spec.parent_ref, &old.spec.parent_ref, errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::NAME,
                Column::new("ParentRef", "The object that has the address.", |address, _| {
                    or_none(show(&address.spec.parent_ref))
                }),
            ]
        }
    }
}

/// `services/default/kubernetes`.
fn show(parent: &ParentReference) -> String {
    let resource = match text(&parent.group) {
        "" => parent.resource.clone(),
        group => format!("{}.{group}", parent.resource),
    };
    let parts = [resource.as_str(), text(&parent.namespace), &parent.name];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}
