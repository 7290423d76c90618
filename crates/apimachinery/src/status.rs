//! `metav1.Status`: the one error type of the API, on both sides of the wire.

mod constructors;

pub use constructors::OPTIMISTIC_LOCK_MESSAGE;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::fmt;

/// A failure as a client sees it. Its text is the message.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// About what. Boxed to keep results small.
    pub details: Option<Box<Details>>,
}

macro_rules! reasons {
    ($($name:ident),+ $(,)?) => {
        /// Machine-readable reasons (`metav1.StatusReason`).
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Reason { $($name,)+ /** One that this version does not know; empty for none. */ Other(Box<str>) }
        impl Reason {
            /// As on the wire.
            pub fn as_str(&self) -> &str {
                match self { $(Self::$name => stringify!($name),)+ Self::Other(s) => s }
            }
        }
        impl From<&str> for Reason {
            fn from(s: &str) -> Self {
                match s { $(stringify!($name) => Self::$name,)+ other => Self::Other(other.into()) }
            }
        }
    };
}

reasons!(
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StorageReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
);

/// What a Status is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group, empty for the legacy one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource (or the kind, for invalid objects), as upstream fills it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// UID of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// One per field or manager.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds after which a retry makes sense; 0 for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
    /// Where an expired list goes on. On the wire it is in the Status's metadata, in the place of details.
    #[serde(skip)]
    pub continue_token: String,
}

/// One of several causes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Such as `FieldValueInvalid`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field, if any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// The wire form, in the order of upstream's struct: some clients' tests compare bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata<'a>,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Details>,
    code: u16,
}

#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(rename = "continue", skip_serializing_if = "str::is_empty")]
    continue_token: &'a str,
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let details = self.details.as_deref();
        let continue_token = details.map_or("", |details| &details.continue_token);
        let wire = Wire {
            kind: "Status",
            api_version: "v1",
            metadata: Metadata { continue_token },
            status: "Failure",
            message: &self.message,
            reason: self.reason.as_str(),
            details: details.filter(|_| continue_token.is_empty()),
            code: self.code,
        };
        wire.serialize(serializer)
    }
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

impl Status {
    /// A failure without details.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    /// As a `v1` Status object.
    pub fn to_value(&self) -> Value {
        // Texts and numbers under texts as keys: nothing of it can fail.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// As the text of a `v1` Status object, its fields in upstream's order.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The `v1` Status of a successful deletion and the like.
    pub fn success(details: &Details) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
    }

    /// Reads a Status object that says `Failure`; `None` for anything else.
    pub fn from_value(value: &Value) -> Option<Self> {
        let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("kind") != "Status" || !matches!(text("apiVersion"), "v1" | "meta.k8s.io/v1") || text("status") == "Success" {
            return None;
        }
        let continue_token = value.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default();
        let details = value.get("details").filter(|details| details.is_object()).map(Details::from_value);
        let goes_on =
            (!continue_token.is_empty()).then(|| Details { continue_token: continue_token.into(), ..Details::default() });
        Some(Self {
            code: value.get("code").and_then(Value::as_u64).and_then(|c| u16::try_from(c).ok()).unwrap_or(500),
            reason: text("reason").into(),
            message: text("message").to_owned(),
            details: details.or(goes_on).map(Box::new),
        })
    }

    /// Reads the body of a failed response. What is not a Status becomes one with the body as its message.
    pub fn from_response(code: u16, body: &[u8]) -> Self {
        let parsed = serde_json::from_slice(body).ok().and_then(|v| Self::from_value(&v));
        parsed.unwrap_or_else(|| {
            let message = String::from_utf8_lossy(body).trim().to_owned();
            let reason = reason_of_code(code);
            if message.is_empty() {
                let text = format!("the server responded with the status code {code} but did not return more information");
                return Self::new(code, reason, text);
            }
            Self::new(code, reason, message)
        })
    }

    /// Whether the reason is this one.
    pub fn is(&self, reason: Reason) -> bool {
        self.reason == reason
    }

    /// Sets the seconds after which to retry.
    #[must_use]
    pub fn retry_after(mut self, seconds: i32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The cause with this reason, if there is one.
    pub fn cause(&self, reason: &str) -> Option<&Cause> {
        self.details.as_ref()?.causes.iter().find(|c| c.reason == reason)
    }
}

/// The reason that goes with a code that came without one.
fn reason_of_code(code: u16) -> Reason {
    match code {
        400 => Reason::BadRequest,
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        406 => Reason::NotAcceptable,
        409 => Reason::Conflict,
        410 => Reason::Expired,
        413 => Reason::RequestEntityTooLarge,
        415 => Reason::UnsupportedMediaType,
        422 => Reason::Invalid,
        429 => Reason::TooManyRequests,
        503 => Reason::ServiceUnavailable,
        504 => Reason::Timeout,
        500.. => Reason::InternalError,
        _ => Reason::Other("".into()),
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Details {
    fn from_value(value: &Value) -> Self {
        let text = |key| string(value, key);
        let causes = value.get("causes").and_then(Value::as_array);
        Self {
            name: text("name"),
            group: text("group"),
            kind: text("kind"),
            uid: text("uid"),
            causes: causes.into_iter().flatten().map(Cause::from_value).collect(),
            retry_after_seconds: value.get("retryAfterSeconds").and_then(Value::as_i64).unwrap_or(0) as i32,
            continue_token: String::new(),
        }
    }
}

impl Cause {
    fn from_value(value: &Value) -> Self {
        let text = |key| string(value, key);
        Self { reason: text("reason"), message: text("message"), field: text("field") }
    }
}

fn string(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::GroupResource;

    #[test]
    fn round_trip() {
        let expired = Status::continue_expired("rest".into());
        assert_eq!((&expired.to_value()["metadata"]["continue"], expired.to_value().get("details")), (&"rest".into(), None));
        assert_eq!(Status::from_value(&expired.to_value()), Some(expired));
        let mut status = Status::not_found(&GroupResource::new("apps", "deployments"), "web").retry_after(3);
        let details = status.details.as_mut().unwrap();
        details.causes = vec![Cause { reason: "FieldValueInvalid".into(), message: "m".into(), field: "spec.x".into() }];
        details.uid = "u".into();
        assert_eq!(Status::from_value(&status.to_value()), Some(status));
    }

    #[test]
    fn wire_form() {
        let status = Status::not_found(&GroupResource::new("", "pods"), "a");
        let expected = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "pods \"a\" not found", "reason": "NotFound", "details": {"name": "a", "kind": "pods"}, "code": 404});
        assert_eq!(status.to_value(), expected);
        let text = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"a\" not found","reason":"NotFound","details":{"name":"a","kind":"pods"},"code":404}"#;
        assert_eq!(status.to_json(), text);
    }

    #[test]
    fn responses_that_are_not_a_status() {
        let check = |code, body: &str, reason: Reason, message: &str| {
            let status = Status::from_response(code, body.as_bytes());
            assert_eq!((status.reason, status.message.as_str()), (reason, message));
        };
        check(404, "404 page not found\n", Reason::NotFound, "404 page not found");
        let none = "the server responded with the status code 502 but did not return more information";
        check(502, "", Reason::InternalError, none);
        check(403, r#"{"kind":"Status","apiVersion":"v1","message":"m","reason":"Odd"}"#, Reason::Other("Odd".into()), "m");
    }
}
