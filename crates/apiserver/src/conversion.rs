//! Conversion webhooks of CustomResourceDefinitions (upstream: `apiextensions-apiserver/pkg/apiserver/conversion`).
//!
//! What a webhook answers is not trusted: it may change what an object says, and its labels and annotations, but not which object it is.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};
use std::time::Duration;

use apimachinery::field::{Errors, Path};
use apimachinery::{Reason, Status, gvk, json_syntax, meta};
use async_trait::async_trait;
use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};
use http_body_util::Full;
use kinds::util::text;
use registry::{Converter, Registry};
use serde_json::{Value, json};

use crate::remote::{Endpoint, Limits, Remotes, Target};

/// Upstream's time for a conversion, and how large its answer may be.
const LIMITS: Limits = Limits { time: Duration::from_secs(30), bytes: 32 << 20 };
const JSON: &str = "application/json";
/// Versions of reviews that can be sent.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

/// A webhook that converts.
struct Webhook {
    registry: Weak<Registry>,
    /// What is called, or why it cannot be.
    endpoint: Result<Arc<Endpoint>, String>,
    /// Version of the reviews that it is sent: the first of those that it names and that are known here.
    review: &'static str,
}

/// Who converts between the versions of a definition; none where only the name of the version changes.
pub(crate) fn of(definition: &Value, registry: &Arc<Registry>, remotes: &Remotes) -> Option<Arc<dyn Converter>> {
    if text(definition, "/spec/conversion/strategy") != "Webhook" {
        return None;
    }
    let config = definition.pointer("/spec/conversion/webhook/clientConfig").unwrap_or(&Value::Null);
    let endpoint = Target::of_client_config(config).map(|target| remotes.endpoint(&target)).map_err(|error| error.to_string());
    Some(Arc::new(Webhook { registry: Arc::downgrade(registry), endpoint, review: review_version(definition) }))
}

/// Which reviews the webhook of a definition understands. Validation has seen to it that one of them is known.
fn review_version(definition: &Value) -> &'static str {
    let named = definition.pointer("/spec/conversion/webhook/conversionReviewVersions").and_then(Value::as_array);
    let mut named = named.into_iter().flatten().filter_map(Value::as_str);
    named.find_map(|name| REVIEWS.into_iter().find(|known| *known == name)).unwrap_or(REVIEWS[0])
}

/// Upstream's error: no reason, and no prefix.
fn failure(message: String) -> Status {
    Status::new(500, Reason::Other("".into()), message)
}

/// `group/version, Kind=Kind`.
fn kind_of(object: &Value) -> String {
    format!("{}, Kind={}", meta::api_version(object), meta::kind(object))
}

#[async_trait]
impl Converter for Webhook {
    async fn convert(&self, objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>, Status> {
        let Some(first) = objects.first() else { return Ok(objects) };
        let of = kind_of(first);
        let failed = |why: &dyn std::fmt::Display| failure(format!("conversion webhook for {of} failed: {why}"));
        let endpoint = self.endpoint.as_ref().map_err(|why| failed(why))?;
        let registry = self.registry.upgrade().ok_or_else(|| failed(&"the server ends"))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{}", self.review),
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
        });
        let path = format!("{}?timeout=30s", endpoint.target().path);
        let request = Request::post(path).header(CONTENT_TYPE, JSON).header(ACCEPT, JSON);
        let request = request.body(Full::from(review.to_string())).map_err(|error| failed(&error))?;
        let url = endpoint.target().url("timeout=30s");
        let answer = endpoint.call(&registry, request, LIMITS).await;
        let answer = answer.map_err(|error| failed(&format!("Post \"{url}\": {error}")))?;
        if !answer.status().is_success() {
            return Err(failed(&refusal(answer.status().as_u16(), answer.body())));
        }
        let undecodable =
            |error: &_| format!("couldn't get version/kind; json parse error: {}", json_syntax::told(answer.body(), error));
        let review: Value = serde_json::from_slice(answer.body()).map_err(|error| failed(&undecodable(&error)))?;
        let converted = response(&review, self.review, &uid).map_err(|why| failed(&why))?;
        accept(&objects, converted, api_version).map_err(|why| failure(format!("conversion webhook for {of} {why}")))
    }
}

/// What a server has said that does not convert, as upstream's client tells it.
fn refusal(code: u16, body: &[u8]) -> String {
    let said = String::from_utf8_lossy(&body[..body.len().min(1024)]).trim().to_owned();
    match code {
        404 => "the server could not find the requested resource".to_owned(),
        500.. if !said.is_empty() => format!("an error on the server ({said:?}) has prevented the request from succeeding"),
        code => format!("the server responded with the status code {code} but did not return more information"),
    }
}

/// The objects of an answer to a review of this version. Of the type and the uid of a v1beta1 answer nothing is asked, as upstream.
fn response(review: &Value, sent: &str, uid: &str) -> Result<Vec<Value>, String> {
    let (version, kind) = (meta::api_version(review), meta::kind(review));
    let named = sent == "v1";
    if named && (version, kind) != ("apiextensions.k8s.io/v1", "ConversionReview") {
        let (group, version) = gvk::split_api_version(version).unwrap_or_default();
        return Err(format!(
            "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got {group}/{version}, Kind={kind}"
        ));
    }
    let Some(response) = review.get("response").filter(|response| response.is_object()) else {
        return Err("no response provided".to_owned());
    };
    if named && text(response, "/uid") != uid {
        return Err(format!("expected response.uid {uid:?}, got {:?}", text(response, "/uid")));
    }
    let status = text(response, "/result/status");
    if status != "Success" {
        let message = text(response, "/result/message");
        return Err(match message {
            "" => format!("response.result.status was '{status}', not 'Success'"),
            message => message.to_owned(),
        });
    }
    Ok(response["convertedObjects"].as_array().cloned().unwrap_or_default())
}

/// The objects, if they are those that were asked for. Of the metadata labels and annotations alone are the webhook's to change.
fn accept(originals: &[Value], converted: Vec<Value>, api_version: &str) -> Result<Vec<Value>, String> {
    if converted.len() != originals.len() {
        return Err(format!("returned {} objects, expected {}", converted.len(), originals.len()));
    }
    let accepted = originals.iter().zip(converted).enumerate().map(|(index, (original, object))| {
        accept_one(original, object, api_version)
            .map_err(|why| format!("returned invalid converted object at index {index}: {why}"))
    });
    accepted.collect()
}

fn accept_one(original: &Value, mut object: Value, api_version: &str) -> Result<Value, String> {
    let given = meta::api_version(&object);
    if given != api_version {
        return Err(format!("invalid groupVersion (expected {api_version}, received {given})"));
    }
    let (was, is) = (meta::kind(original), meta::kind(&object));
    if was != is {
        return Err(format!("invalid kind (expected {was}, received {is})"));
    }
    if !object.get("metadata").is_some_and(Value::is_object) {
        return Err("invalid metadata of type <nil> in converted object".to_owned());
    }
    for (key, word) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (was, is) = (meta::get(original, key), meta::get(&object, key));
        if was != is {
            return Err(format!("must have the same {word}: {was} != {is}"));
        }
    }
    let mut metadata = original["metadata"].clone();
    for key in ["labels", "annotations"] {
        let given = object["metadata"].get(key).filter(|map| !map.is_null());
        if let Some(given) = given {
            let texts = given.as_object().is_some_and(|map| map.values().all(Value::is_string));
            if !texts {
                return Err(format!("invalid {key} in converted object: they are no map of texts"));
            }
            if original["metadata"].get(key) != Some(given) {
                check_texts(key, given)?;
            }
            metadata[key] = given.clone();
        } else if let Some(metadata) = metadata.as_object_mut() {
            metadata.remove(key);
        }
    }
    object["metadata"] = metadata;
    Ok(object)
}

/// Labels or annotations that a webhook has changed follow the rules of all labels and annotations.
fn check_texts(key: &str, given: &Value) -> Result<(), String> {
    let (Some(given), mut errors) = (given.as_object(), Errors::new()) else { return Ok(()) };
    match key {
        "labels" => meta::validate_labels(given, &Path::new("metadata.labels"), &mut errors),
        _ => meta::validate_annotations(given, &Path::new("metadata.annotations"), &mut errors),
    }
    if errors.is_empty() { Ok(()) } else { Err(errors.to_string()) }
}
