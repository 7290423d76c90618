//! Requests for certificates of pods (KEP-4317): those for clients of the API server are answered, and all are removed after a while.

pub(crate) mod cleaning;
pub(crate) mod signing;
