//! One constructor per failure, worded as upstream's `pkg/api/errors`.

use super::{Cause, Details, Reason, Status};
use crate::field::Errors;
use crate::gvk::GroupResource;
use crate::text::quote;
use std::fmt::Display;

/// Why an update with a stale resourceVersion fails.
pub const OPTIMISTIC_LOCK_MESSAGE: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

impl Status {
    fn about(code: u16, reason: Reason, gr: &GroupResource, name: &str, message: String) -> Self {
        let details = Details { group: gr.group.clone(), kind: gr.resource.clone(), name: name.to_owned(), ..Details::default() };
        Self { code, reason, message, details: Some(Box::new(details)) }
    }

    /// 404: no such object.
    pub fn not_found(gr: &GroupResource, name: &str) -> Self {
        Self::about(404, Reason::NotFound, gr, name, format!("{gr} {} not found", quote(name)))
    }

    /// 404 for a path that serves nothing.
    pub fn page_not_found() -> Self {
        let mut status = Self::new(404, Reason::NotFound, "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 409: the name is taken.
    pub fn already_exists(gr: &GroupResource, name: &str) -> Self {
        Self::about(409, Reason::AlreadyExists, gr, name, format!("{gr} {} already exists", quote(name)))
    }

    /// 409: every generated name was taken.
    pub fn generate_name_conflict(gr: &GroupResource, name: &str, retry_after_seconds: i32) -> Self {
        let message =
            format!("{gr} {} already exists, the server was not able to generate a unique name for the object", quote(name));
        Self::about(409, Reason::AlreadyExists, gr, name, message).retry_after(retry_after_seconds)
    }

    /// 401; an empty reason becomes the usual one.
    pub fn unauthorized(reason: &str) -> Self {
        Self::new(401, Reason::Unauthorized, if reason.is_empty() { "not authorized" } else { reason })
    }

    /// 403, with why.
    pub fn forbidden(gr: &GroupResource, name: &str, why: impl Display) -> Self {
        let message = if gr.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{gr} is forbidden: {why}")
        } else {
            format!("{gr} {} is forbidden: {why}", quote(name))
        };
        Self::about(403, Reason::Forbidden, gr, name, message)
    }

    /// 409, with why.
    pub fn conflict(gr: &GroupResource, name: &str, why: impl Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {gr} {}: {why}", quote(name));
        Self::about(409, Reason::Conflict, gr, name, message)
    }

    /// 409: the resourceVersion is not the current one.
    pub fn conflict_modified(gr: &GroupResource, name: &str) -> Self {
        Self::conflict(gr, name, OPTIMISTIC_LOCK_MESSAGE)
    }

    /// 409: an update's UID precondition does not hold.
    pub fn uid_precondition(gr: &GroupResource, name: &str, wanted: &str, actual: &str) -> Self {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}");
        Self::conflict(gr, name, why)
    }

    /// 409: an update's resourceVersion precondition does not hold.
    pub fn resource_version_precondition(gr: &GroupResource, name: &str, wanted: &str, actual: &str) -> Self {
        let why =
            format!("Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {actual}");
        Self::conflict(gr, name, why)
    }

    /// 409: a deletion's UID precondition does not hold.
    pub fn delete_uid_precondition(gr: &GroupResource, name: &str, wanted: &str, actual: &str) -> Self {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({actual}). The object might have been deleted and then recreated"
        );
        Self::conflict(gr, name, why)
    }

    /// 409: a deletion's resourceVersion precondition does not hold.
    pub fn delete_resource_version_precondition(gr: &GroupResource, name: &str, wanted: &str, actual: &str) -> Self {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({actual}). The object might have been modified"
        );
        Self::conflict(gr, name, why)
    }

    /// 409: other managers own fields that an apply would change.
    pub fn apply_conflict(causes: Vec<Cause>, message: String) -> Self {
        let details = Details { causes, ..Details::default() };
        Self { code: 409, reason: Reason::Conflict, message, details: Some(Box::new(details)) }
    }

    /// 422: the object fails validation.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &Errors) -> Self {
        let qualified = GroupResource::new(group, kind);
        let mut message = format!("{qualified} {} is invalid", quote(name));
        if !errors.is_empty() {
            message.push_str(": ");
            message.push_str(&errors.to_string());
        }
        let mut status = Self::about(422, Reason::Invalid, &qualified, name, message);
        let causes = errors.iter().map(|e| Cause {
            reason: e.kind.reason().to_owned(),
            message: e.body(),
            field: e.path.as_str().to_owned(),
        });
        if let Some(details) = &mut status.details {
            details.causes = causes.collect();
        }
        status
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 405.
    pub fn method_not_supported(gr: &GroupResource, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind {}", quote(&gr.to_string()));
        Self::about(405, Reason::MethodNotAllowed, gr, "", message)
    }

    /// 405 for a path that serves other methods.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        let mut status = Self::new(405, Reason::MethodNotAllowed, message);
        status.details = Some(Box::default());
        status
    }

    /// 406, with the types that can be served.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, Reason::NotAcceptable, message)
    }

    /// 415, with the types that can be read.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {}", accepted.join(", "));
        Self::new(415, Reason::UnsupportedMediaType, message)
    }

    /// 410: the resource version is compacted away (reason `Expired`), with a message of the caller's.
    pub fn resource_expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 410: the list that a continue token is of is gone; `rest` continues in the present state.
    pub fn continue_expired(rest: String) -> Self {
        let mut status = Self::resource_expired(CONTINUE_EXPIRED);
        status.details.get_or_insert_default().continue_token = rest;
        status
    }

    /// 504: the resource version is in the future.
    pub fn too_large_resource_version(version: u64, current: u64) -> Self {
        let mut status = Self::timeout(format!("Too large resource version: {version}, current: {current}"), 1);
        let cause = Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        };
        status.details.get_or_insert_default().causes.push(cause);
        status
    }

    /// 410: the resource version is compacted away; list again.
    pub fn expired() -> Self {
        Self::resource_expired("The resourceVersion for the provided watch is too old.")
    }

    /// 410 with reason `Gone`.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Gone, message)
    }

    /// 413.
    pub fn too_large(message: impl Display) -> Self {
        Self::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {message}"))
    }

    /// 429 with the seconds after which to retry.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        let mut status = Self::new(429, Reason::TooManyRequests, message);
        status.details = Some(Box::new(Details { retry_after_seconds, ..Details::default() }));
        status
    }

    /// 500.
    pub fn internal(error: impl Display) -> Self {
        let cause = Cause { message: error.to_string(), ..Cause::default() };
        let mut status = Self::new(500, Reason::InternalError, format!("Internal error occurred: {error}"));
        status.details = Some(Box::new(Details { causes: vec![cause], ..Details::default() }));
        status
    }

    /// 500 with reason `ServerTimeout`: a transient failure, to be tried again.
    pub fn server_timeout(gr: &GroupResource, operation: &str, retry_after_seconds: i32) -> Self {
        let message = format!("The {operation} operation against {gr} could not be completed at this time, please try again.");
        Self::about(500, Reason::ServerTimeout, gr, operation, message).retry_after(retry_after_seconds)
    }

    /// 503.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message)
    }

    /// 504: the outcome is unknown.
    pub fn timeout(message: impl Display, retry_after_seconds: i32) -> Self {
        let mut status = Self::new(504, Reason::Timeout, format!("Timeout: {message}"));
        status.details = Some(Box::new(Details { retry_after_seconds, ..Details::default() }));
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{Error, Path};

    fn check(status: Status, code: u16, reason: &str, message: &str) {
        assert_eq!((status.code, status.reason.as_str(), status.message.as_str()), (code, reason, message));
    }

    #[test]
    fn wording() {
        let gr = GroupResource::new("apps", "deployments");
        check(Status::not_found(&gr, "x"), 404, "NotFound", r#"deployments.apps "x" not found"#);
        check(Status::already_exists(&gr, "x"), 409, "AlreadyExists", r#"deployments.apps "x" already exists"#);
        let modified = r#"Operation cannot be fulfilled on deployments.apps "x": the object has been modified; please apply your changes to the latest version and try again"#;
        check(Status::conflict_modified(&gr, "x"), 409, "Conflict", modified);
        let uid = r#"Operation cannot be fulfilled on deployments.apps "x": Precondition failed: UID in precondition: a, UID in object meta: b"#;
        check(Status::uid_precondition(&gr, "x", "a", "b"), 409, "Conflict", uid);
        check(Status::forbidden(&gr, "x", "no"), 403, "Forbidden", r#"deployments.apps "x" is forbidden: no"#);
        check(Status::forbidden(&gr, "", "no"), 403, "Forbidden", "deployments.apps is forbidden: no");
        check(Status::forbidden(&GroupResource::default(), "", "no"), 403, "Forbidden", "forbidden: no");
        let method = r#"patch is not supported on resources of kind "deployments.apps""#;
        check(Status::method_not_supported(&gr, "patch"), 405, "MethodNotAllowed", method);
        check(Status::too_large("limit is 3"), 413, "RequestEntityTooLarge", "Request entity too large: limit is 3");
        check(Status::internal("boom"), 500, "InternalError", "Internal error occurred: boom");
        check(Status::timeout("slow", 1), 504, "Timeout", "Timeout: slow");
        check(Status::unauthorized(""), 401, "Unauthorized", "not authorized");
    }

    #[test]
    fn invalid_objects() {
        let mut errors = Errors::new();
        errors.push(Error::required(&Path::new("spec.a"), ""));
        let one = Status::invalid("apps", "Deployment", "x", &errors);
        check(one.clone(), 422, "Invalid", r#"Deployment.apps "x" is invalid: spec.a: Required value"#);
        let cause = one.cause("FieldValueRequired").map(|c| (c.field.as_str(), c.message.as_str()));
        assert_eq!(cause, Some(("spec.a", "Required value")));
        errors.push(Error::invalid(&Path::new("spec.b"), 1, "bad"));
        let two = Status::invalid("", "Pod", "x", &errors);
        check(two, 422, "Invalid", r#"Pod "x" is invalid: [spec.a: Required value, spec.b: Invalid value: 1: bad]"#);
    }
}
