//! Conversion between the versions of a custom resource.

use apimachinery::field::{Error, Errors, Path};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceConversion;

use crate::rules;

const NONE: &str = "None";
const WEBHOOK: &str = "Webhook";
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];

pub(super) fn validate(conversion: &CustomResourceConversion, path: &Path, errors: &mut Errors) {
    rules::one_of(&path.child("strategy"), &conversion.strategy, &[NONE, WEBHOOK], errors);
    let client = conversion.webhook.as_ref().and_then(|webhook| webhook.client_config.as_ref());
    let versions = conversion.webhook.as_ref().map(|webhook| webhook.conversion_review_versions.as_slice()).unwrap_or_default();
    let (at, review) = (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    if conversion.strategy != WEBHOOK {
        let detail = "should not be set when strategy is not set to Webhook";
        if client.is_some() {
            errors.push(Error::forbidden(&at, detail));
        }
        if !versions.is_empty() {
            errors.push(Error::forbidden(&review, detail));
        }
        return;
    }
    match client {
        Some(client) => rules::webhook_client(&at, client.url.as_deref(), client.service.as_ref().map(Into::into), errors),
        None => errors.push(Error::required(&at, "required when strategy is set to Webhook")),
    }
    if versions.is_empty() {
        return errors.push(Error::required(&review, ""));
    }
    rules::review_versions(versions, &review, errors);
    if !versions.iter().any(|version| REVIEW_VERSIONS.contains(&version.as_str())) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(Error::invalid(&review, versions, detail));
    }
}

/// The authorities of the webhook, empty when none are named.
fn bundle(conversion: Option<&CustomResourceConversion>) -> &[u8] {
    let client = conversion.and_then(|conversion| conversion.webhook.as_ref()?.client_config.as_ref());
    client.and_then(|client| client.ca_bundle.as_ref()).map_or(&[], |bundle| bundle.0.as_slice())
}

/// An unreadable bundle takes nothing away from a definition that is not established, or whose bundle is unreadable already. With any other
/// one the objects could be converted no more (upstream: `allowInvalidCABundle`).
pub(super) fn validate_bundle(
    new: Option<&CustomResourceConversion>,
    old: Option<&CustomResourceConversion>,
    path: &Path,
    errors: &mut Errors,
) {
    let converts = new.is_some_and(|conversion| conversion.strategy == WEBHOOK);
    if let Err(error) = rules::check_bundle(bundle(new))
        && converts
        && rules::check_bundle(bundle(old)).is_ok()
    {
        let shown = STANDARD.encode(bundle(new));
        errors.push(Error::invalid(&path.child("webhookClientConfig").child("caBundle"), shown, error.to_string()));
    }
}
