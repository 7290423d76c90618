//! ServiceCIDR: ranges from which services get their addresses.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::meta::IMMUTABLE;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use serde_json::json;

use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::{self, list};
use crate::sub::Sub;
use crate::typed::Kind;

/// One range of each family.
const MAX_RANGES: usize = 2;

impl Kind for ServiceCIDR {
    const DEF: KindDef = KindDef::of::<Self>("servicecidr").cluster().status_keeps_metadata().subresources(&[Sub::STATUS]);

    fn validate_create(&self, errors: &mut Errors) {
        validate_ranges(ranges(self), &path(), errors);
    }

    /// A range of the other family may be added, and nothing else may change.
    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (new, old, path) = (ranges(self), ranges(old), path());
        if new.len() != old.len() && (old.len(), new.len()) != (1, 2) {
            return errors.push(Error::invalid(&path, new.to_vec(), IMMUTABLE));
        }
        for (index, (new, _)) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new != old) {
            errors.push(Error::invalid(&path.index(index), new.as_str(), IMMUTABLE));
        }
        if new.len() != old.len() {
            validate_ranges(new, &path, errors);
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const { &[Column::new("CIDRs", "Ranges of addresses.", |range, _| ranges(range).join(",").into())] }
    }
}

fn path() -> Path {
    Path::new("spec.cidrs")
}

fn ranges(range: &ServiceCIDR) -> &[String] {
    range.spec.as_ref().map(|spec| list(&spec.cidrs)).unwrap_or_default()
}

fn validate_ranges(ranges: &[String], path: &Path, errors: &mut Errors) {
    if ranges.is_empty() {
        return errors.push(Error::required(path, "at least one CIDR required"));
    }
    if ranges.len() > MAX_RANGES {
        return errors.push(Error::invalid(path, json!({"cidrs": ranges}), "may only hold up to 2 values"));
    }
    for (index, range) in ranges.iter().enumerate() {
        rules::canonical_cidr(&path.index(index), range, errors);
    }
    let families: Vec<_> = ranges.iter().filter_map(|range| rules::family(range.split('/').next()?)).collect();
    if families.len() == MAX_RANGES && families.iter().collect::<HashSet<_>>().len() == 1 {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(Error::invalid(path, ranges.to_vec(), detail));
    }
}
