//! How much a pod may send and receive: the annotations `kubernetes.io/ingress-bandwidth` and `kubernetes.io/egress-bandwidth`, in bits a second
//! (<https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/network-plugins/#support-traffic-shaping>). Pure.

use std::collections::BTreeMap;

use apimachinery::quantity::{ParseError, Quantity};
use runtime::api::Bandwidth;

const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// Upstream's limits (`pkg/util/bandwidth`).
const MIN: i64 = 1_000;
const MAX: i64 = 1_000_000_000_000_000;

/// An annotation of bandwidth that says nothing that can be done.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(super) enum Error {
    /// It is no quantity.
    #[error("annotation {name}: {text:?} is no quantity of bits a second, such as 10M: {source}")]
    Quantity { name: &'static str, text: String, source: ParseError },
    /// It is outside what upstream takes.
    #[error("annotation {name}: {text:?} must be from 1k to 1P bits a second")]
    Range { name: &'static str, text: String },
}

/// What the annotations of a pod say. They hold when the sandbox is made, as upstream's do.
pub(super) fn of(annotations: &BTreeMap<String, String>) -> Result<Bandwidth, Error> {
    Ok(Bandwidth { ingress: rate(annotations, INGRESS)?, egress: rate(annotations, EGRESS)? })
}

fn rate(annotations: &BTreeMap<String, String>, name: &'static str) -> Result<Option<u64>, Error> {
    let Some(text) = annotations.get(name).cloned() else { return Ok(None) };
    let quantity = match Quantity::parse(&text) {
        Ok(quantity) => quantity,
        Err(source) => return Err(Error::Quantity { name, text, source }),
    };
    match quantity.as_i64() {
        bits @ MIN..=MAX => Ok(Some(bits.cast_unsigned())),
        _ => Err(Error::Range { name, text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limits and forms of upstream's `ExtractPodBandwidthResources`.
    #[test]
    fn rates_of_annotations() {
        let check = |name: &str, text: &str, expected: Option<Bandwidth>| {
            let found = of(&[(name.to_owned(), text.to_owned())].into());
            assert_eq!(found.ok(), expected, "{name}: {text}");
        };
        let ingress = |bits| Some(Bandwidth { ingress: Some(bits), egress: None });
        check(INGRESS, "10M", ingress(10_000_000));
        check(EGRESS, "1Gi", Some(Bandwidth { ingress: None, egress: Some(1 << 30) }));
        check(INGRESS, "1k", ingress(1_000));
        check(INGRESS, "1P", ingress(1_000_000_000_000_000));
        for wrong in ["999", "0", "-10M", "1001T", "fast", ""] {
            check(INGRESS, wrong, None);
            check(EGRESS, wrong, None);
        }
        check("example.com/ingress-bandwidth", "fast", Some(Bandwidth::default()));
    }
}
