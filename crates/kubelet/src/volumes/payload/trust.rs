//! Certificates of authorities, from ClusterTrustBundles (KEP-3257).

use std::collections::{BTreeMap, HashSet};

use apimachinery::labels::Selector;
use base::tls::certificate_pem;
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;

/// The certificates that a source names, each once: no texts between them, and no headers ("aggressive normalization", API page). None where
/// the source is optional and names nothing.
pub(super) fn anchors(
    source: &ClusterTrustBundleProjection,
    bundles: &BTreeMap<String, ClusterTrustBundle>,
) -> Result<String, String> {
    let found = named(source, bundles)?;
    if found.is_empty() && source.optional != Some(true) {
        return Err(match (&source.name, &source.signer_name) {
            (Some(name), _) => format!("clustertrustbundle {name:?} not found"),
            (None, signer) => {
                let signer = signer.as_deref().unwrap_or_default();
                format!("combination of signerName={signer:?} and labelSelector matches no ClusterTrustBundle")
            }
        });
    }
    let mut seen = HashSet::new();
    let blocks = found.into_iter().flat_map(|bundle| pem::parse_many(&bundle.spec.trust_bundle).unwrap_or_default());
    let certificates = blocks.filter(|block| block.tag() == "CERTIFICATE" && seen.insert(block.contents().to_vec()));
    Ok(certificates.map(|block| certificate_pem(block.into_contents())).collect())
}

/// One by its name, or those of a signer that have the labels; without a selector none has.
fn named<'a>(
    source: &ClusterTrustBundleProjection,
    bundles: &'a BTreeMap<String, ClusterTrustBundle>,
) -> Result<Vec<&'a ClusterTrustBundle>, String> {
    if let Some(name) = &source.name {
        return Ok(bundles.get(name).into_iter().collect());
    }
    let Some(selector) = &source.label_selector else { return Ok(Vec::new()) };
    let selector = Selector::from_label_selector(Some(selector)).map_err(|error| format!("labelSelector: {error}"))?;
    let of_signer = |bundle: &&ClusterTrustBundle| bundle.spec.signer_name == source.signer_name;
    let selected = |bundle: &&ClusterTrustBundle| selector.matches(&bundle.metadata.labels.clone().unwrap_or_default());
    Ok(bundles.values().filter(of_signer).filter(selected).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn block(data: &str) -> String {
        certificate_pem(data.into())
    }

    fn bundle(name: &str, signer: Option<&str>, labels: &Value, text: &str) -> (String, ClusterTrustBundle) {
        let object = json!({"metadata": {"name": name, "labels": labels}, "spec": {"signerName": signer, "trustBundle": text}});
        (name.to_owned(), serde_json::from_value(object).unwrap())
    }

    #[test]
    fn bundles_by_name_and_by_signer() {
        let live = |on: &str| json!({"live": on});
        let noisy = block("A").replacen("-----\n", "-----\nkey: value\n\n", 1);
        let bundles = BTreeMap::from([
            bundle("own", None, &json!({}), &format!("words {noisy} words {}{}", block("B"), block("A"))),
            bundle("k.io:s:1", Some("k.io/s"), &live("yes"), &block("C")),
            bundle("k.io:s:2", Some("k.io/s"), &live("yes"), &format!("{}{}", block("D"), block("C"))),
            bundle("k.io:s:3", Some("k.io/s"), &live("no"), &block("E")),
            bundle("k.io:t:1", Some("k.io/t"), &live("yes"), &block("F")),
        ]);
        let check = |source: Value, expected: Result<&[&str], &str>| {
            let source: ClusterTrustBundleProjection = serde_json::from_value(source).unwrap();
            let expected = expected.map(|blocks| blocks.iter().map(|data| block(data)).collect::<String>());
            assert_eq!(anchors(&source, &bundles), expected.map_err(str::to_owned), "{source:?}");
        };
        check(json!({"name": "own", "path": "p"}), Ok(&["A", "B"]));
        check(json!({"name": "other", "path": "p"}), Err("clustertrustbundle \"other\" not found"));
        check(json!({"name": "other", "path": "p", "optional": true}), Ok(&[]));
        let of = |labels: Value| json!({"signerName": "k.io/s", "labelSelector": labels, "path": "p"});
        check(of(json!({"matchLabels": {"live": "yes"}})), Ok(&["C", "D"]));
        check(of(json!({})), Ok(&["C", "D", "E"]));
        let none = "combination of signerName=\"k.io/s\" and labelSelector matches no ClusterTrustBundle";
        check(of(json!(null)), Err(none));
        check(of(json!({"matchLabels": {"live": "perhaps"}})), Err(none));
    }
}
