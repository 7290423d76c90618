//! The Container Runtime Interface (`runtime.v1`), both ways: the kubelet's runtime behind another program's socket, and the built-in
//! engine behind a socket of our own.
//!
//! | module | what |
//! |---|---|
//! | [`client`] | another program's runtime, for the kubelet |
//! | [`convert`] | parts of containers as both write them |
//! | [`messages`] | what is said, by the names and numbers of `api.proto` |
//! | [`server`] | the engine for clients such as crictl |

pub mod client;
mod convert;
pub mod messages;
pub mod server;
