//! Turns the JSON form of an object into Kubernetes' protobuf and back, driven by the type table.
//!
//! Upstream encodes with gogo/protobuf: fields in the order of their numbers; what is not a pointer is always written, zero or
//! not; nil lists, maps and bytes are not. The special types (quantity, time and so on) are small messages of their own.
//! Source: `generated.proto` of each API group, and <https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>.

mod decode;
mod encode;
mod envelope;
mod wire;

pub use decode::decode;
pub use encode::encode;
pub use envelope::{MAGIC, envelope, put_message, unwrap_envelope, watch_event, wrap_envelope};

/// Messages nest at most this deep.
const MAX_DEPTH: usize = 100;

/// Why a message could not be read, or an object not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "proto: the message does not start with the Kubernetes prefix; send the body as application/json or with its envelope"
    )]
    Prefix,
    #[error("proto: unexpected end of the message")]
    Truncated,
    #[error("proto: an integer is longer than ten bytes")]
    Varint,
    #[error("proto: illegal tag {0}")]
    Tag(u64),
    #[error("proto: wrong wire type {wire} for field {field}")]
    WireType { field: &'static str, wire: u8 },
    #[error("proto: messages nest deeper than {MAX_DEPTH} levels")]
    Depth,
    #[error("proto: {}", crate::decode::TOO_MANY)]
    TooMany,
    #[error("proto: field {0} is not valid UTF-8")]
    Utf8(&'static str),
    #[error("proto: field {field}: {message}")]
    Value { field: &'static str, message: String },
    #[error("proto: field {0} does not have the JSON type that the schema wants; decode the object against the schema first")]
    Json(&'static str),
}

#[cfg(test)]
mod tests;
