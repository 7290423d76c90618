//! ClusterTrustBundle: certificates of authorities, for pods (KEP-3257; upstream: `pkg/apis/certificates/validation`).

use std::collections::BTreeMap;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use serde_json::Value;

use super::pem;
use crate::columns::Column;
use crate::def::{KindDef, NameRule};
use crate::rules;
use crate::typed::Kind;
use crate::util::{or_none, text};

/// The longest bundle, bytes.
const MAX_SIZE: usize = 1 << 20;

impl Kind for ClusterTrustBundle {
    const DEF: KindDef = KindDef::of::<Self>("clustertrustbundle").cluster().name(NameRule::PathSegment).versioned();
    const SELECTABLE: &'static [&'static str] = &["spec.signerName"];

    fn field(object: &Value, _name: &'static str) -> String {
        text(object, "/spec/signerName").to_owned()
    }

    fn validate_create(&self, errors: &mut Errors) {
        validate_names(self, errors);
        validate_bundle(&self.spec.trust_bundle, &Path::new("spec.trustBundle"), errors);
    }

    /// A bundle that stays is not read again: another version of this program might read it in another way.
    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        validate_names(self, errors);
        if self.spec.trust_bundle != old.spec.trust_bundle {
            validate_bundle(&self.spec.trust_bundle, &Path::new("spec.trustBundle"), errors);
        }
        let (new, old) = (rules::text(&self.spec.signer_name), rules::text(&old.spec.signer_name));
        rules::immutable(&Path::new("spec.signerName"), &new, &old, errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            let description = "signerName indicates the associated signer, if any.";
            &[Column::NAME, Column::new("SignerName", description, |bundle, _| or_none(rules::text(&bundle.spec.signer_name)))]
        }
    }
}

/// A bundle of a signer has the signer's name before its own, and no other one has a colon.
fn validate_names(bundle: &ClusterTrustBundle, errors: &mut Errors) {
    let (signer, name) = (rules::text(&bundle.spec.signer_name), rules::text(&bundle.metadata.name));
    let at = Path::new("metadata.name");
    for problem in name_problems(name, signer) {
        errors.push(Error::invalid(&at, name, problem));
    }
    if !signer.is_empty() {
        rules::signer_name(&Path::new("spec.signerName"), signer, errors);
    }
}

/// What is wrong with the name of a bundle of this signer, or of none.
fn name_problems(name: &str, signer: &str) -> Vec<String> {
    let prefix = format!("{}:", signer.replace('/', ":"));
    let rest = if signer.is_empty() { Some(name) } else { name.strip_prefix(&prefix) };
    match rest {
        Some(rest) if signer.is_empty() && rest.contains(':') => {
            vec!["ClusterTrustBundle without signer name must not have \":\" in its name".to_owned()]
        }
        Some(rest) => names::dns1123_subdomain(rest),
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")],
    }
}

/// What is wrong with a name by which a pod asks for a bundle: the part before the last colon says whose it is.
pub(crate) fn reference_problems(name: &str) -> Vec<String> {
    let signer = name.rsplit_once(':').map_or_else(String::new, |(signer, _)| signer.replace(':', "/"));
    name_problems(name, &signer)
}

fn validate_bundle(bundle: &str, path: &Path, errors: &mut Errors) {
    if bundle.len() > MAX_SIZE {
        return errors.push(Error::too_long(path, MAX_SIZE));
    }
    let mut refuse = |detail: String| errors.push(Error::invalid(path, "<value omitted>", detail));
    let (mut places, mut is_wrong) = (BTreeMap::<Vec<u8>, Vec<usize>>::new(), false);
    for (index, block) in pem::blocks(bundle).into_iter().enumerate() {
        match pem::check_authority(&block) {
            Ok(()) => places.entry(block.into_contents()).or_default().push(index),
            Err(why) => {
                is_wrong = true;
                refuse(format!("entry {index} {why}"));
            }
        }
    }
    if is_wrong {
        return;
    }
    if places.is_empty() {
        refuse("at least one trust anchor must be provided".to_owned());
    }
    for indices in places.values().filter(|indices| indices.len() > 1) {
        let indices: Vec<_> = indices.iter().map(ToString::to_string).collect();
        refuse(format!("duplicate trust anchor (indices [{}])", indices.join(" ")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::untyped::{created, updated};

    const ROOT: &str = include_str!("testdata/root.pem");
    const OTHER: &str = include_str!("testdata/other.pem");
    const LEAF: &str = include_str!("testdata/leaf.pem");

    fn bundle(name: &str, signer: Option<&str>, pem: &str) -> Value {
        json!({"apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle", "metadata": {"name": name},
            "spec": {"signerName": signer, "trustBundle": pem}})
    }

    /// Cases of upstream's TestValidateClusterTrustBundle.
    #[test]
    fn new_bundles() {
        let check = |name: &str, signer: Option<&str>, pem: &str, expected: &[&str]| {
            assert_eq!(created(bundle(name, signer, pem)), expected, "{name} {signer:?}");
        };
        check("foo", None, ROOT, &[]);
        check("foo", None, &format!("{ROOT}garbage\n{OTHER}"), &[]);
        check("k8s.io:foo:bar", Some("k8s.io/foo"), ROOT, &[]);
        let colon = "ClusterTrustBundle without signer name must not have \":\" in its name";
        check("k8s.io:bar:foo", None, ROOT, &[&format!("metadata.name: Invalid value: \"k8s.io:bar:foo\": {colon}")]);
        let prefix = "ClusterTrustBundle for signerName k8s.io/foo must be named with prefix k8s.io:foo:";
        check(
            "k8s.io:bar:foo",
            Some("k8s.io/foo"),
            ROOT,
            &[&format!("metadata.name: Invalid value: \"k8s.io:bar:foo\": {prefix}")],
        );
        let value = |detail: &str| format!("spec.trustBundle: Invalid value: \"<value omitted>\": {detail}");
        check("foo", None, "", &[&value("at least one trust anchor must be provided")]);
        check("foo", None, "garbage", &[&value("at least one trust anchor must be provided")]);
        check("foo", None, &format!("{ROOT}{OTHER}{ROOT}"), &[&value("duplicate trust anchor (indices [0 2])")]);
        check("foo", None, LEAF, &[&value("entry 0 does not have the CA bit set")]);
        let typed = ROOT.replace("CERTIFICATE", "NOTACERTIFICATE");
        check("foo", None, &typed, &[&value("entry 0 has bad block type: NOTACERTIFICATE")]);
        let headed = ROOT.replacen("CERTIFICATE-----\n", "CERTIFICATE-----\nkey: value\n\n", 1);
        check("foo", None, &headed, &[&value("entry 0 has PEM block headers")]);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        check("foo", None, &format!("{ROOT}{broken}"), &[&value("entry 1 does not parse as X.509")]);
        check("foo", None, &"x".repeat((1 << 20) + 1), &["spec.trustBundle: Too long: may not be more than 1048576 bytes"]);
    }

    #[test]
    fn changed_bundles() {
        let check = |new: Value, old: Value, expected: &[&str]| assert_eq!(updated(old, new), expected);
        check(bundle("foo", None, OTHER), bundle("foo", None, ROOT), &[]);
        check(bundle("foo", None, "as it was"), bundle("foo", None, "as it was"), &[]);
        let gone = ["spec.trustBundle: Invalid value: \"<value omitted>\": at least one trust anchor must be provided"];
        check(bundle("foo", None, "x"), bundle("foo", None, ROOT), &gone);
        let fixed = ["spec.signerName: Invalid value: \"k8s.io/foo\": field is immutable"];
        check(bundle("k8s.io:foo:b", Some("k8s.io/foo"), ROOT), bundle("k8s.io:foo:b", Some("k8s.io/bar"), ROOT), &fixed);
    }
}
