//! Failures as codes of gRPC.

use grpc::{Code, Error};
use runtime::api;

/// Something that is there already.
const ALREADY_EXISTS: Code = Code::Other(6);
/// It cannot be done in the state that something is in.
const FAILED_PRECONDITION: Code = Code::Other(9);
/// Others.
const UNKNOWN: Code = Code::Other(2);

/// The engine's failure.
pub(super) fn of(error: api::Error) -> Error {
    let code = match &error {
        api::Error::NotFound(_) | api::Error::ImageNotFound(_) => Code::NotFound,
        api::Error::InvalidImageName(_) => Code::InvalidArgument,
        api::Error::InUse(_) => FAILED_PRECONDITION,
        api::Error::RegistryUnavailable(_) => Code::Unavailable,
        api::Error::Timeout(_) => Code::DeadlineExceeded,
        api::Error::Unsupported(_) => Code::Unimplemented,
        api::Error::ImagePull(_) | api::Error::Create(_) | api::Error::Start(_) | api::Error::Internal(_) => UNKNOWN,
    };
    Error { code, message: error.to_string() }
}

pub(super) fn not_found(what: &str, id: &str) -> Error {
    Error { code: Code::NotFound, message: format!("{what} {id:?} not found") }
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error { code: Code::InvalidArgument, message: message.into() }
}

/// What the engine does not offer.
pub(super) fn unsupported(what: &str) -> Error {
    Error { code: Code::Unimplemented, message: format!("not offered: {what}") }
}

pub(super) fn exists(message: String) -> Error {
    Error { code: ALREADY_EXISTS, message }
}

pub(super) fn precondition(message: String) -> Error {
    Error { code: FAILED_PRECONDITION, message }
}

/// Idempotent calls succeed where what they are about is gone.
pub(super) fn gone_is_fine(result: api::Result<()>) -> Result<(), Error> {
    match result {
        Err(api::Error::NotFound(_)) => Ok(()),
        other => other.map_err(of),
    }
}

/// What is not there, for idempotent calls.
pub(super) fn if_there<T>(found: Result<T, Error>) -> Result<Option<T>, Error> {
    match found {
        Err(error) if error.code == Code::NotFound => Ok(None),
        other => other.map(Some),
    }
}
