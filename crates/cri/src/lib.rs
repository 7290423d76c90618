//! The Container Runtime Interface (`runtime.v1`), both ways: the kubelet's runtime behind another program's socket, and the built-in
//! engine behind a socket of our own.
//!
//! | module | what |
//! |---|---|
//! | [`client`] | another program's runtime, for the kubelet |
//! | [`messages`] | what is said, by the names and numbers of `api.proto` |

pub mod client;
pub mod messages;
