//! Why what a client sent is no object of the kind that it is meant to be.

use apimachinery::Status;
use kinds::GroupVersionKindRef;
use schema::TypeError;

use crate::context::StrictDecodingError;

/// Why a body, or what a patch makes, cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    /// Nobody knows what the body of a sub-resource looks like.
    #[error("no schema for subresource {0}")]
    NoSchema(String),
    /// It is no object, or one of another kind.
    #[error("{0}")]
    Kind(String),
    /// A field has a value of the wrong type.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// Fields are unknown or occur twice, and the request is strict about that.
    #[error(transparent)]
    Strict(#[from] StrictDecodingError),
}

impl DecodeError {
    /// The answer to a request whose body should have been of this kind.
    pub(crate) fn bad_request(self, (_, version, kind): GroupVersionKindRef<'_>) -> Status {
        match self {
            Self::NoSchema(_) => Status::internal(self),
            Self::Kind(_) => Status::bad_request(self.to_string()),
            Self::Type(_) | Self::Strict(_) => {
                Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {self}"))
            }
        }
    }
}
