//! The container runtime: a CRI-shaped trait and the built-in engine behind it.

pub mod api;
pub mod images;
mod keyed;
