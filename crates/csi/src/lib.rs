//! How a kubelet talks to storage drivers (Container Storage Interface 1.x) and how these make themselves known to it (the kubelet's plugin
//! registration, v1). Messages and calls only: what is called when is decided by the kubelet.
//!
//! | module | what |
//! |---|---|
//! | [`grpc`] | unary calls over a Unix socket |
//! | [`messages`] | what is said, by the names and numbers of `csi.proto` |
//! | [`registration`] | `pluginregistration.Registration` |
//! | [`driver`] | the node service of a driver, call by call |

pub mod driver;
pub mod grpc;
pub mod messages;
pub mod registration;

pub use driver::Driver;
pub use grpc::{Code, Error};
