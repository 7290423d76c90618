//! `flowcontrol.apiserver.k8s.io`: API priority and fairness (KEP-1040).

mod bootstrap;
mod flow_schema;
mod priority_level_configuration;
#[cfg(test)]
mod tests;

pub use bootstrap::{Bootstrap, bootstrap, is_obsolete};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

use apimachinery::field::{Error, Errors, Path};

/// What a condition looks like here: all of it is optional, but its type.
fn validate_conditions<'a>(types: impl Iterator<Item = &'a str>, errors: &mut Errors) {
    let (path, mut seen) = (Path::new("status").child("conditions"), Vec::new());
    for (index, kind) in types.enumerate() {
        let at = path.index(index).child("type");
        if seen.contains(&kind) {
            errors.push(Error::duplicate(&at, kind));
        }
        if kind.is_empty() {
            errors.push(Error::required(&at, "must not be empty"));
        }
        seen.push(kind);
    }
}

fn has_wildcard(values: &[String]) -> bool {
    values.iter().any(|value| value == "*")
}
