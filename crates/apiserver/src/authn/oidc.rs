//! Tokens of other issuers: JSON Web Tokens as OpenID Connect has them (KEP-3331, structured authentication).
//!
//! An issuer's keys are asked for when its first token comes, and again when a token is signed with a key that is not among them. What
//! a token's claims make of its user is decided in [`mapping`], over data.

pub mod configuration;
mod flags;
mod issuer;
mod jwt;
mod mapping;

use apimachinery::field::Errors;

pub use configuration::{Anonymous, Configuration};
pub use flags::Flags;
pub(super) use issuer::Issuer;
pub(super) use jwt::untrusted_issuer;

/// Why the configuration of authentication cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It is no YAML, or has fields that there are not.
    #[error("{0}")]
    Decode(String),
    /// It is something else.
    #[error("it is not an AuthenticationConfiguration of apiserver.config.k8s.io")]
    Kind,
    /// Fields are wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Fields(Errors),
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no JSON Web Token.
    #[error("malformed jwt")]
    Malformed,
    /// It is signed in a way that is not accepted.
    #[error("id token signed with unsupported algorithm {0:?}")]
    Algorithm(String),
    /// Whoever does not understand what it marks as critical must refuse it (RFC 7515, 4.1.11), and nothing of that kind is understood.
    #[error("id token has critical header parameters that are not understood")]
    Critical,
    /// No key of the issuer has signed it.
    #[error("failed to verify id token signature")]
    Signature,
    /// It has ended.
    #[error("token is expired")]
    Expired,
    /// It has not begun.
    #[error("token is not valid yet")]
    NotYet,
    /// It is for others.
    #[error("expected audience in {expected:?} got {found:?}")]
    Audience {
        /// Who it should be for.
        expected: Vec<String>,
        /// Who it is for.
        found: Vec<String>,
    },
    /// The issuer's keys cannot be had.
    #[error("issuer {url}: {why}")]
    Issuer {
        /// Which.
        url: String,
        /// Why.
        why: String,
    },
    /// Its claims make no user.
    #[error("{0}")]
    Claims(String),
}
