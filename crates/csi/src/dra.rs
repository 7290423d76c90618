//! Drivers of devices that pods claim (`DRAPlugin` of the kubelet's `dra` interface, `v1` and `v1beta1`): what they are asked and what they say.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;

use grpc::{Code, Endpoint, Error, Held, Messages};

/// The type of plugins that prepare claims, when they register.
pub const DRA: &str = "DRAPlugin";
/// How long a driver may take for a claim, as with upstream.
const LIMIT: Duration = Duration::from_secs(45);

/// The interface in two versions, with the same messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `v1`.
    V1,
    /// `v1beta1`.
    V1Beta1,
}

impl Version {
    /// The best that a driver names, in the form in which it registers.
    pub fn best<'a>(named: impl Iterator<Item = &'a str> + Clone) -> Option<Self> {
        let speaks = |version: &str| named.clone().any(|one| one == version);
        let known = [("v1.DRAPlugin", Self::V1), ("v1beta1.DRAPlugin", Self::V1Beta1)];
        known.into_iter().find(|(name, _)| speaks(name)).map(|(_, version)| version)
    }

    fn method(self, name: &str) -> String {
        let version = if self == Self::V1 { "v1" } else { "v1beta1" };
        format!("/k8s.io.kubelet.pkg.apis.dra.{version}.DRAPlugin/{name}")
    }
}

/// A claim, by which a driver looks it up.
#[derive(Clone, PartialEq, Message)]
pub struct Claim {
    /// Its namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Its uid.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Claims {
    #[prost(message, repeated, tag = "1")]
    claims: Vec<Claim>,
}

#[derive(Clone, PartialEq, Message)]
struct Prepared {
    #[prost(btree_map = "string, message", tag = "1")]
    claims: BTreeMap<String, PreparedClaim>,
}

#[derive(Clone, PartialEq, Message)]
struct PreparedClaim {
    #[prost(message, repeated, tag = "1")]
    devices: Vec<Device>,
    #[prost(string, tag = "2")]
    error: String,
}

/// A device that has been prepared.
#[derive(Clone, PartialEq, Message)]
pub struct Device {
    /// Requests of the claim that it is for; none are all.
    #[prost(string, repeated, tag = "1")]
    pub request_names: Vec<String>,
    /// Its pool.
    #[prost(string, tag = "2")]
    pub pool_name: String,
    /// Its name.
    #[prost(string, tag = "3")]
    pub device_name: String,
    /// What it is called by the Container Device Interface.
    #[prost(string, repeated, tag = "4")]
    pub cdi_device_ids: Vec<String>,
    /// Which part of the device it is, where several claims have parts of it.
    #[prost(string, optional, tag = "5")]
    pub share_id: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Unprepared {
    #[prost(btree_map = "string, message", tag = "1")]
    claims: BTreeMap<String, UnpreparedClaim>,
}

#[derive(Clone, PartialEq, Message)]
struct UnpreparedClaim {
    #[prost(string, tag = "1")]
    error: String,
}

/// Where a device is among those of its driver.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceName {
    /// Its pool.
    #[prost(string, tag = "1")]
    pub pool_name: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub device_name: String,
}

/// How a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
pub enum HealthStatus {
    /// Nobody can say.
    Unknown = 0,
    /// As it should be.
    Healthy = 1,
    /// It has a problem.
    Unhealthy = 2,
}

/// How a device is, as its driver has found it.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceHealth {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub device: Option<DeviceName>,
    /// How.
    #[prost(enumeration = "HealthStatus", tag = "2")]
    pub health: i32,
    /// When that was found, in seconds since the epoch.
    #[prost(int64, tag = "3")]
    pub last_updated_time: i64,
    /// After so many seconds nobody can say any more; as many as the kubelet wants where there are none.
    #[prost(int64, tag = "4")]
    pub health_check_timeout_seconds: i64,
    /// For people.
    #[prost(string, tag = "5")]
    pub message: String,
}

/// How all devices of a driver are.
#[derive(Clone, PartialEq, Message)]
pub struct Healths {
    /// One by one.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<DeviceHealth>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchHealth {}

/// A driver of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    endpoint: Endpoint,
    version: Version,
}

/// What a driver has said of a claim, if that was no error.
fn said<T>(answer: Option<T>, error: impl FnOnce(&T) -> &str) -> Result<T, Error> {
    let refused = |message: &str| Error { code: Code::Other(2), message: message.to_owned() };
    let answer = answer.ok_or_else(|| refused("the driver says nothing of the claim"))?;
    match error(&answer) {
        "" => Ok(answer),
        text => Err(refused(text)),
    }
}

impl Plugin {
    /// The one that listens at `endpoint`.
    pub fn new(endpoint: Endpoint, version: Version) -> Self {
        Self { endpoint, version }
    }

    /// Prepares the devices of a claim for use on the node. Idempotent.
    ///
    /// # Errors
    /// The driver does not answer, or it refuses.
    pub async fn prepare(&self, claim: Claim) -> Result<Vec<Device>, Error> {
        let (uid, method) = (claim.uid.clone(), self.version.method("NodePrepareResources"));
        let mut answer: Prepared = self.endpoint.call(&method, &Claims { claims: vec![claim] }, LIMIT).await?;
        Ok(said(answer.claims.remove(&uid), |one| &one.error)?.devices)
    }

    /// How its devices are, from now on (`DRAResourceHealth` of the kubelet's `dra-health` interface, `v1alpha1`).
    ///
    /// # Errors
    /// The driver does not answer. One that does not watch its devices says so in the answer: [`Code::Unimplemented`].
    pub async fn watch_health(&self) -> Result<Messages<Healths>, Error> {
        self.endpoint.stream("/v1alpha1.DRAResourceHealth/NodeWatchResources", &WatchHealth {}, LIMIT).await
    }

    /// Waits, once it has been reached, until it is there no more: its process has ended, or has closed the connection.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn hold(&self) -> Result<Held, Error> {
        self.endpoint.hold().await
    }

    /// Undoes [`Self::prepare`]. Idempotent.
    ///
    /// # Errors
    /// See [`Self::prepare`].
    pub async fn unprepare(&self, claim: Claim) -> Result<(), Error> {
        let (uid, method) = (claim.uid.clone(), self.version.method("NodeUnprepareResources"));
        let mut answer: Unprepared = self.endpoint.call(&method, &Claims { claims: vec![claim] }, LIMIT).await?;
        said(answer.claims.remove(&uid), |one| &one.error).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_spoken() {
        let check = |named: &[&str], expected| assert_eq!(Version::best(named.iter().copied()), expected, "{named:?}");
        check(&["v1beta1.DRAPlugin", "v1.DRAPlugin"], Some(Version::V1));
        check(&["v1beta1.DRAPlugin"], Some(Version::V1Beta1));
        check(&["v1alpha4", "1.0.0"], None);
    }
}
