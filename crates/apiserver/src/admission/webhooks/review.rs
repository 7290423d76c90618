//! AdmissionReview on the wire (`admission.k8s.io/v1` and `v1beta1`, which differ in nothing that is sent).

use std::collections::BTreeMap;

use apimachinery::{Reason, Status, json_syntax};
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admission::attributes::Attributes;

const GROUP: &str = "admission.k8s.io";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Review<'a> {
    kind: &'static str,
    api_version: String,
    request: Question<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    uid: &'a str,
    #[serde(flatten)]
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    old_object: Option<&'a Value>,
}

impl<'a> Review<'a> {
    pub(super) fn new(
        version: &str,
        uid: &'a str,
        attributes: &'a Attributes<'a>,
        (object, old_object): (Option<&'a Value>, Option<&'a Value>),
    ) -> Self {
        let request = Question { uid, attributes, object, old_object };
        Self { kind: "AdmissionReview", api_version: format!("{GROUP}/{version}"), request }
    }
}

/// What comes back. Everything may be missing: whoever answers can be anybody.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    api_version: Option<String>,
    kind: Option<String>,
    response: Option<Response>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: Option<String>,
    allowed: Option<bool>,
    status: Option<Value>,
    patch: Option<String>,
    patch_type: Option<String>,
    audit_annotations: Option<BTreeMap<String, String>>,
    warnings: Option<Vec<String>>,
}

/// What a webhook says.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    /// Why it refuses, if it does.
    pub(super) refused: Option<Status>,
    /// A JSON patch.
    pub(super) patch: Option<Vec<u8>>,
    pub(super) audit_annotations: BTreeMap<String, String>,
    pub(super) warnings: Vec<String>,
}

/// Reads a reply and holds it against the rules: it answers the very question, and a webhook that may only look sends no patch.
pub(super) fn read(body: &[u8], version: &str, uid: &str, hook: &str, is_mutating: bool) -> Result<Answer, String> {
    let reply: Reply = serde_json::from_slice(body).map_err(|error| {
        let why = json_syntax::told(body, &error);
        format!("failed to call webhook: couldn't get version/kind; json parse error: {why}")
    })?;
    let invalid = |why: String| format!("received invalid webhook response: {why}");
    let (api_version, kind) = (reply.api_version.unwrap_or_default(), reply.kind.unwrap_or_default());
    let (wanted, is_v1) = (format!("{GROUP}/{version}"), version == "v1");
    // Webhooks of the older version need not say what they send.
    if (api_version != wanted || kind != "AdmissionReview") && (is_v1 || !(api_version.is_empty() && kind.is_empty())) {
        let got = if api_version.contains('/') { api_version } else { format!("/{api_version}") };
        return Err(invalid(format!("expected webhook response of {wanted}, Kind=AdmissionReview, got {got}, Kind={kind}")));
    }
    let response = reply.response.ok_or_else(|| invalid("webhook response was absent".to_owned()))?;
    let told = response.uid.as_deref().unwrap_or_default();
    if is_v1 && told != uid {
        return Err(invalid(format!("expected response.uid={uid:?}, got {told:?}")));
    }
    let patch = patch(&response, is_mutating, is_v1).map_err(invalid)?;
    let refused = (response.allowed != Some(true)).then(|| refusal(hook, response.status.as_ref()));
    Ok(Answer {
        refused,
        patch,
        audit_annotations: response.audit_annotations.unwrap_or_default(),
        warnings: response.warnings.unwrap_or_default(),
    })
}

fn patch(response: &Response, is_mutating: bool, is_v1: bool) -> Result<Option<Vec<u8>>, String> {
    let text = response.patch.as_deref().filter(|patch| !patch.is_empty());
    match (text, response.patch_type.as_deref(), is_mutating) {
        (Some(_), _, false) => Err("validating webhook may not return response.patch".to_owned()),
        (None, Some(_), false) => Err("validating webhook may not return response.patchType".to_owned()),
        (Some(_), None, true) if is_v1 => Err("webhook returned response.patch but not response.patchType".to_owned()),
        (None, Some(_), true) if is_v1 => Err("webhook returned response.patchType but not response.patch".to_owned()),
        (Some(_), Some(""), true) => Err("webhook returned invalid response.patchType of \"\"".to_owned()),
        (Some(_), Some(kind), true) if kind != "JSONPatch" => Err(format!("unsupported patch type {kind:?}")),
        (Some(text), ..) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            bytes.map(Some).map_err(|error| format!("response.patch is no base64: {error}"))
        }
        (None, ..) => Ok(None),
    }
}

/// What a client is told of a refusal (upstream: `webhookerrors.ToStatusErr`).
fn refusal(hook: &str, status: Option<&Value>) -> Status {
    let text = |key: &str| status.and_then(|status| status[key].as_str()).filter(|text| !text.is_empty());
    let denied = format!("admission webhook \"{hook}\" denied the request");
    let message = match (text("message"), text("reason")) {
        (Some(message), _) => format!("{denied}: {message}"),
        (None, Some(reason)) => format!("{denied}: {reason}"),
        (None, None) => format!("{denied} without explanation"),
    };
    // What a webhook calls a success is none.
    let code = status.and_then(|status| status["code"].as_u64()).and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
    let details = status.and_then(|status| {
        let failure = serde_json::json!({"kind": "Status", "apiVersion": "v1", "details": status["details"]});
        Status::from_value(&failure)?.details
    });
    Status { details, ..Status::new(code, Reason::from(text("reason").unwrap_or_default()), message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The refusal's code and message, and the patch; or the error.
    type Expected<'a> = Result<(Option<(u16, &'a str)>, Option<&'a str>), &'a str>;

    /// What `read` makes of a reply to the question `u`: the refusal's code and message, the patch, or the error.
    #[track_caller]
    fn check(is_mutating: bool, change: Value, expected: Expected<'_>) {
        let mut reply =
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": "u", "allowed": true}});
        for (pointer, value) in change.as_object().into_iter().flatten() {
            let (place, key) = pointer.rsplit_once('/').unwrap_or_default();
            reply.pointer_mut(place).unwrap_or(&mut Value::Null)[key] = value.clone();
        }
        let got = read(reply.to_string().as_bytes(), "v1", "u", "a.b.c", is_mutating);
        let got = got.map(|answer| {
            let patch = answer.patch.map(|patch| String::from_utf8_lossy(&patch).into_owned());
            (answer.refused.map(|status| (status.code, status.message)), patch)
        });
        let expected = expected
            .map_err(str::to_owned)
            .map(|(refused, patch)| (refused.map(|(code, message)| (code, message.to_owned())), patch.map(str::to_owned)));
        assert_eq!(got, expected, "{reply}");
    }

    /// Cases of upstream's `TestVerifyAdmissionResponse` and `TestToStatusErr`.
    #[test]
    fn replies() {
        let encoded = base64::engine::general_purpose::STANDARD.encode("[]");
        let denied = "admission webhook \"a.b.c\" denied the request";
        check(true, json!({}), Ok((None, None)));
        check(true, json!({"/response/patch": encoded, "/response/patchType": "JSONPatch"}), Ok((None, Some("[]"))));
        check(true, json!({"/response/allowed": false}), Ok((Some((400, &format!("{denied} without explanation"))), None)));
        for (status, code, why) in [
            (json!({"message": "no", "code": 403, "reason": "Forbidden"}), 403, ": no"),
            (json!({"reason": "Forbidden", "code": 200}), 400, ": Forbidden"),
            (json!({"code": 70000, "status": "Success"}), 400, " without explanation"),
            (json!("no object"), 400, " without explanation"),
        ] {
            let change = json!({"/response/allowed": false, "/response/status": status});
            check(false, change, Ok((Some((code, &format!("{denied}{why}"))), None)));
        }
        let invalid = |why: &str| format!("received invalid webhook response: {why}");
        for (is_mutating, change, why) in [
            (true, json!({"/response/uid": "v"}), "expected response.uid=\"u\", got \"v\""),
            (true, json!({"/response/uid": null}), "expected response.uid=\"u\", got \"\""),
            (true, json!({"/response": null}), "webhook response was absent"),
            (
                true,
                json!({"/kind": "Status", "/apiVersion": "v1"}),
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /v1, Kind=Status",
            ),
            (true, json!({"/response/patch": encoded}), "webhook returned response.patch but not response.patchType"),
            (true, json!({"/response/patchType": "JSONPatch"}), "webhook returned response.patchType but not response.patch"),
            (true, json!({"/response/patch": encoded, "/response/patchType": "Merge"}), "unsupported patch type \"Merge\""),
            (false, json!({"/response/patch": encoded}), "validating webhook may not return response.patch"),
            (false, json!({"/response/patchType": "JSONPatch"}), "validating webhook may not return response.patchType"),
        ] {
            check(is_mutating, change, Err(&invalid(why)));
        }
        let wrong = read(b"<html>", "v1", "u", "a.b.c", true).unwrap_or_else(|why| Answer {
            refused: Some(Status::internal(why)),
            patch: None,
            audit_annotations: BTreeMap::new(),
            warnings: Vec::new(),
        });
        assert!(wrong.refused.is_some_and(|status| status.message.contains("couldn't get version/kind; json parse error: ")));
        // The older version says neither what it is nor what it answers.
        assert!(read(b"{\"response\": {\"allowed\": true}}", "v1beta1", "u", "a.b.c", true).is_ok());
    }
}
