//! What `cargo xtask bench` measures. It runs in a program of its own, built for speed as the server is.

pub mod load;
pub mod pods;
pub mod usage;
