//! What a signer says of a certificate that it has issued.

use apimachinery::field::{Error, Errors, Path};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1beta1::{PodCertificateRequestSpec, PodCertificateRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::key;
use crate::certificates::pem;
use crate::rules;

/// The longest chain, bytes.
const MAX_CHAIN: usize = 100 << 10;
/// How far the beginning of a certificate may be from now.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// How far a refresh has to be from both ends.
const MARGIN: SignedDuration = SignedDuration::from_mins(10);
const MIN_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// The first thing that is wrong, as upstream tells it.
struct Wrong(Error);

pub(super) fn validate(status: &PodCertificateRequestStatus, spec: &PodCertificateRequestSpec, path: &Path, errors: &mut Errors) {
    if let Err(Wrong(error)) = check(status, spec, path) {
        errors.push(error);
    }
}

fn check(status: &PodCertificateRequestStatus, spec: &PodCertificateRequestSpec, path: &Path) -> Result<(), Wrong> {
    let (at, chain) = (path.child("certificateChain"), rules::text(&status.certificate_chain));
    if chain.len() > MAX_CHAIN {
        return Err(Wrong(Error::too_long(&at, MAX_CHAIN)));
    }
    let wrong = |detail: &str| Wrong(Error::invalid(&at, chain, detail));
    let blocks = pem::blocks(chain);
    let Some((leaf, others)) = blocks.split_first() else {
        return Err(wrong("issued certificate chain must contain at least one certificate"));
    };
    if blocks.iter().any(|block| block.tag() != "CERTIFICATE") {
        return Err(wrong("issued certificate chain must consist entirely of CERTIFICATE PEM blocks"));
    }
    let leaf = pem::certificate(leaf.contents()).ok_or_else(|| wrong("leaf certificate does not parse as valid X.509"))?;
    check_names(&leaf, &at)?;
    if key::of(spec).is_none_or(|key| key != leaf.public_key().raw) {
        return Err(wrong("leaf certificate was not issued to the requested public key"));
    }
    check_times(status, spec, &leaf, path)?;
    if others.iter().any(|block| pem::certificate(block.contents()).is_none()) {
        return Err(wrong("intermediate certificate does not parse as valid X.509"));
    }
    Ok(())
}

fn check_names(leaf: &X509Certificate<'_>, at: &Path) -> Result<(), Wrong> {
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Ok(()) };
    for name in &names.value.general_names {
        let GeneralName::DNSName(name) = name else { continue };
        let detail = if name.is_empty() {
            "leaf certificate should not contain empty DNSName"
        } else if name.contains("..") {
            "leaf certificate's DNSName should not contain '..'"
        } else if name.starts_with('.') || name.ends_with('.') {
            "leaf certificate's DNSName should not start or end with '.'"
        } else {
            continue;
        };
        return Err(Wrong(Error::invalid(at, *name, detail)));
    }
    Ok(())
}

fn check_times(
    status: &PodCertificateRequestStatus,
    spec: &PodCertificateRequestSpec,
    leaf: &X509Certificate<'_>,
    path: &Path,
) -> Result<(), Wrong> {
    let told = |field: &str, time: &Option<Time>, detail: &str| {
        time.as_ref().map(|time| time.0).ok_or_else(|| Wrong(Error::required(&path.child(field), detail)))
    };
    let consistent = "must be present and consistent with the issued certificate";
    let begins = told("notBefore", &status.not_before, consistent)?;
    let ends = told("notAfter", &status.not_after, consistent)?;
    let refresh = "must be present and in the range [notbefore+10min, notafter-10min]";
    let refresh = told("beginRefreshAt", &status.begin_refresh_at, refresh)?;
    let wrong =
        |field: &str, value: serde_json::Value, detail: &str| Err(Wrong(Error::invalid(&path.child(field), value, detail)));
    let of_leaf = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).unwrap_or_default();
    let (is_from, is_until) = (of_leaf(leaf.validity().not_before), of_leaf(leaf.validity().not_after));
    if begins != is_from {
        return wrong("notBefore", json!(status.not_before), "must be set to the NotBefore time encoded in the leaf certificate");
    }
    if begins.duration_since(Timestamp::now()).abs() >= SKEW {
        return wrong("notBefore", json!(status.not_before), "must be set to within 5 minutes of kube-apiserver's current time");
    }
    if ends != is_until {
        return wrong("notAfter", json!(status.not_after), "must be set to the NotAfter time encoded in the leaf certificate");
    }
    let life = ends.duration_since(begins);
    let shown = || apimachinery::time::duration_text(life.unsigned_abs()).into();
    if life < MIN_LIFE {
        return wrong("certificateChain", shown(), "leaf certificate lifetime must be >= 1 hour");
    }
    let max = spec.max_expiration_seconds.unwrap_or_default();
    if life > SignedDuration::from_secs(max.into()) {
        let detail = format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({max})");
        return wrong("certificateChain", shown(), &detail);
    }
    if refresh.duration_since(begins) < MARGIN {
        return wrong("beginRefreshAt", json!(status.begin_refresh_at), "must be at least 10 minutes after status.notBefore");
    }
    if ends.duration_since(refresh) < MARGIN {
        return wrong("beginRefreshAt", json!(status.begin_refresh_at), "must be at least 10 minutes before status.notAfter");
    }
    Ok(())
}
