//! What controllers ask about pods.

pub(crate) use ::pods::state::*;
