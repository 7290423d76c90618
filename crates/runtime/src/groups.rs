//! Cgroups of pods, for a node whose containers another runtime makes: that one makes the groups of containers below those of pods, which the
//! kubelet's side makes, limits, reads and removes.

use std::io;
use std::path::PathBuf;

use crate::api::{Error, ProcessUsage, Resources, Result, Usage};
use crate::container::cgroup::Cgroups;

/// The cgroups below one root. All calls block.
#[derive(Clone, Debug)]
pub struct Groups {
    root: String,
    cgroups: Cgroups,
}

impl Groups {
    /// Finds the hierarchies of this machine.
    ///
    /// # Errors
    /// There are none.
    pub fn detect(root: String) -> io::Result<Self> {
        Ok(Self { root, cgroups: Cgroups::detect()? })
    }

    /// The root, which tells the nodes of one machine apart.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// A group below the root as the whole machine names it, without a leading slash.
    pub fn path(&self, group: &str) -> String {
        format!("{}/{group}", self.root)
    }

    /// Makes a group with limits.
    ///
    /// # Errors
    /// A limit that cannot be set.
    pub fn create(&self, group: &str, limits: &Resources) -> io::Result<()> {
        self.cgroups.create(&self.path(group), limits)
    }

    /// Changes the limits of a group whose processes run.
    ///
    /// # Errors
    /// It uses more memory than it may from now on.
    pub fn update(&self, group: &str, limits: &Resources) -> io::Result<()> {
        self.cgroups.update(&self.path(group), limits)
    }

    /// See [`crate::api::Runtime::limit_group`].
    ///
    /// # Errors
    /// A limit that cannot be set.
    pub fn limit(&self, group: &str, limits: &Resources) -> io::Result<()> {
        self.cgroups.limit(&self.path(group), limits)
    }

    /// What a group has used; none when it is not there.
    pub fn usage(&self, group: &str) -> Option<Usage> {
        self.cgroups.usage(&self.path(group))
    }

    /// What the processes of a group have open; none when it is not there.
    pub fn process_usage(&self, group: &str) -> Option<ProcessUsage> {
        let group = self.path(group);
        self.cgroups.exists(&group).then(|| self.cgroups.process_usage(&group))
    }

    /// Removes a group, whose processes are dead, with all below it.
    ///
    /// # Errors
    /// Processes are in it.
    pub fn remove(&self, group: &str) -> io::Result<()> {
        self.cgroups.remove(&self.path(group))
    }
}

/// A connection to a port on the loopback address of a network namespace, that of the node when none is given.
///
/// # Errors
/// Nobody listens there, or the namespace is gone.
pub async fn dial(netns: Option<PathBuf>, port: u16) -> Result<tokio::net::TcpStream> {
    crate::engine::dial(netns, port).await
}

/// Sends a process a signal by its name, such as `SIGTERM` or `SIGRTMIN+3`; one that is gone needs none.
///
/// # Errors
/// There is no signal of that name.
pub fn send_signal(pid: i32, name: &str) -> Result<()> {
    let number = crate::engine::signal_number(name).ok_or_else(|| Error::Unsupported(format!("signal {name:?}")))?;
    crate::shim::task::send_signal(pid, number);
    Ok(())
}
