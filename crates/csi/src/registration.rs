//! `pluginregistration.Registration`: what a sidecar of a driver serves at a socket in the kubelet's directory of plugins.

use std::time::Duration;

use prost::Message;

use grpc::{Endpoint, Error};

/// The type of plugins that are storage drivers.
pub const CSI: &str = "CSIPlugin";
/// The type of plugins that give devices.
pub const DEVICES: &str = "DevicePlugin";
/// How long a plugin may take to say who it is.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, PartialEq, Message)]
struct InfoRequest {}

/// Who a plugin is.
#[derive(Clone, PartialEq, Message)]
pub struct PluginInfo {
    /// Its type, such as [`CSI`].
    #[prost(string, tag = "1")]
    pub kind: String,
    /// The driver's name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The driver's own socket; empty when it is this one.
    #[prost(string, tag = "3")]
    pub endpoint: String,
    /// Versions of the interface that it speaks.
    #[prost(string, repeated, tag = "4")]
    pub supported_versions: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct RegistrationStatus {
    #[prost(bool, tag = "1")]
    plugin_registered: bool,
    #[prost(string, tag = "2")]
    error: String,
}

/// Asks a plugin who it is.
///
/// # Errors
/// It does not answer.
pub async fn info(socket: &Endpoint) -> Result<PluginInfo, Error> {
    socket.call("/pluginregistration.Registration/GetInfo", &InfoRequest {}, LIMIT).await
}

/// Tells a plugin what became of its registration.
///
/// # Errors
/// It does not answer.
pub async fn notify(socket: &Endpoint, outcome: Result<(), &str>) -> Result<(), Error> {
    let status = RegistrationStatus { plugin_registered: outcome.is_ok(), error: outcome.err().unwrap_or_default().to_owned() };
    let done: Result<crate::messages::Done, _> =
        socket.call("/pluginregistration.Registration/NotifyRegistrationStatus", &status, LIMIT).await;
    done.map(drop)
}
