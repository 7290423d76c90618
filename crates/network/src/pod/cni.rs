//! Pod networks of others: plugins of the Container Network Interface (CNI, specification 1.1.0), as a directory configures them.
//!
//! The plugins give a pod its interface and its addresses. What a sandbox was added with is kept in its lease before the first plugin runs,
//! so that it is taken away by the same plugins, whatever the directory says by then and whoever has crashed in between.

mod configuration;
mod plugin;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base::directory::Followed;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::watch;

pub(super) use configuration::Network;
use plugin::{Call, Command};

use super::{Attachment, Bandwidth};

/// Where configurations and plugins are, by default where everybody looks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// Of configurations: the first that can be read is the network, in the order of their names.
    pub configuration: PathBuf,
    /// Of plugins, in this order.
    pub plugins: Vec<PathBuf>,
}

impl Default for Directories {
    fn default() -> Self {
        Self { configuration: "/etc/cni/net.d".into(), plugins: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()] }
    }
}

/// Plugins could not do what they were asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is installed yet.
    #[error("no network is configured in {}: install a network plugin, or use another --pod-network", .0.display())]
    Unconfigured(PathBuf),
    /// The directory cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A plugin has not done it.
    #[error("CNI plugin {plugin} ({command}): {why}")]
    Plugin {
        /// Its type.
        plugin: String,
        /// ADD or DEL.
        command: &'static str,
        /// What it says, or why it says nothing.
        why: String,
    },
    /// The plugins have said nothing that a pod could have.
    #[error("the CNI network {0:?} has given the pod no address")]
    NoAddress(String),
    /// Nobody limits it.
    #[error("the pod's bandwidth cannot be limited: no plugin of the CNI network {0:?} has the capability \"bandwidth\"")]
    Bandwidth(String),
}

/// What a sandbox was added to, and what came of it: in its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Added {
    network: Network,
    netns: PathBuf,
    pod: Pod,
    bandwidth: Bandwidth,
    /// The plugins' last result; none until all have run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

/// The pod that plugins are told of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Directories {
    /// Why there is no network to add pods to; none when there is one.
    pub fn lacks(&self) -> Option<String> {
        configuration::load(&self.configuration).err().map(|error| error.to_string())
    }

    /// Tells by `told` whenever that changes, as long as somebody listens.
    pub async fn follow(self, told: watch::Sender<Option<String>>) {
        let mut changes = Followed::new(&self.configuration);
        loop {
            let directories = self.clone();
            // What cannot be looked at now is looked at again at the next change.
            if let Ok(lacks) = tokio::task::spawn_blocking(move || directories.lacks()).await {
                told.send_if_modified(|known| std::mem::replace(known, lacks.clone()) != lacks);
            }
            tokio::select! {
                () = changes.changed() => {}
                () = told.closed() => return,
            }
        }
    }

    /// What a sandbox will be added to: the network that is configured now.
    pub(super) fn begin(&self, netns: &Path, wanted: &Attachment) -> Result<Added, Error> {
        let network = configuration::load(&self.configuration)?;
        if wanted.bandwidth != Bandwidth::default() && !network.can("bandwidth") {
            return Err(Error::Bandwidth(network.name().to_owned()));
        }
        let (netns, pod, bandwidth) = (netns.to_owned(), wanted.pod.clone(), wanted.bandwidth);
        Ok(Added { network, netns, pod, bandwidth, result: None })
    }

    /// Runs all plugins, each of which is told what the one before has said. Returns the pod's addresses, one of each family.
    pub(super) async fn add(&self, sandbox: &str, added: &mut Added) -> Result<Vec<IpAddr>, Error> {
        let mut result = None;
        for plugin in added.network.plugins() {
            let call = self.call(Command::Add, sandbox, added, plugin, result.as_ref());
            result = Some(call.run().await?);
        }
        let addresses = result.as_ref().map(addresses).unwrap_or_default();
        if addresses.is_empty() {
            return Err(Error::NoAddress(added.network.name().to_owned()));
        }
        added.result = result;
        Ok(addresses)
    }

    /// Runs all plugins backwards, which take away what they have added. Each can do so again, and without the sandbox being there.
    pub(super) async fn delete(&self, sandbox: &str, added: &Added) -> Result<(), Error> {
        for plugin in added.network.plugins().rev() {
            self.call(Command::Del, sandbox, added, plugin, added.result.as_ref()).run().await?;
        }
        Ok(())
    }

    fn call<'a>(
        &'a self,
        command: Command,
        sandbox: &'a str,
        added: &'a Added,
        plugin: &'a Map<String, Value>,
        previous: Option<&Value>,
    ) -> Call<'a> {
        let configuration = added.network.configuration(plugin, previous, &added.runtime_config(plugin));
        Call { command, sandbox, netns: &added.netns, pod: &added.pod, directories: &self.plugins, configuration }
    }
}

impl Added {
    /// What a plugin is told of the pod, of what it can do (the conventions of CNI call it `runtimeConfig`). Host ports are none of it: they
    /// lead to pods by the node's own table, whoever connects these.
    fn runtime_config(&self, plugin: &Map<String, Value>) -> Map<String, Value> {
        // How much may wait in a burst, bits: what kubelets ask for.
        const BURST: u64 = i32::MAX as u64;
        let mut config = Map::new();
        let Bandwidth { ingress, egress } = self.bandwidth;
        if configuration::has(plugin, "bandwidth") && (ingress.is_some() || egress.is_some()) {
            let mut limits = Map::new();
            for (direction, rate) in [("ingress", ingress), ("egress", egress)] {
                if let Some(rate) = rate {
                    limits.insert(format!("{direction}Rate"), rate.into());
                    limits.insert(format!("{direction}Burst"), BURST.into());
                }
            }
            config.insert("bandwidth".to_owned(), limits.into());
        }
        config
    }
}

/// The addresses of a result, the first of each family.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let all = result["ips"].as_array().into_iter().flatten();
    let all = all.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse::<IpAddr>().ok());
    let mut found: Vec<IpAddr> = Vec::new();
    for address in all {
        if !found.iter().any(|one| one.is_ipv4() == address.is_ipv4()) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests;
