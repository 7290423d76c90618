//! How a kubelet talks to its plugins: storage drivers (Container Storage Interface 1.x) and device plugins, and how these make themselves
//! known to it (the kubelet's plugin registration, v1). Messages and calls only (by [`grpc`]): what is called when is decided by the kubelet.
//!
//! | module | what |
//! |---|---|
//! | [`messages`] | what is said, by the names and numbers of `csi.proto` |
//! | [`registration`] | `pluginregistration.Registration` |
//! | [`driver`] | the node service of a driver, call by call |
//! | [`dra`] | drivers of devices that pods claim |
//! | [`devices`], [`pod_resources`] | device plugins (`v1beta1`), and who has which devices |

pub mod devices;
pub mod dra;
pub mod driver;
pub mod messages;
pub mod pod_resources;
pub mod registration;

pub use driver::Driver;
