//! The certificates and authorities of a data directory: what there is of them, new ones now, and new authorities
//! (docs/certificates.md).

pub(crate) mod asked;
pub(crate) mod authorities;
pub(crate) mod follow;
pub(crate) mod leaves;
pub(crate) mod report;
