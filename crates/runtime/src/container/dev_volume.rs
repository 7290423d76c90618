//! A volume at `/dev`.
//!
//! libcontainer fills `/dev` with links and device nodes after all mounts are made, so it would fill the volume, which may be the node's own
//! `/dev`; runc leaves a `/dev` alone that is a bind mount. Therefore libcontainer gets the usual `/dev`, and the volume comes on top when it is
//! done, before the container's command runs; what is mounted below `/dev` comes on top of the volume again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use serde::{Deserialize, Serialize};

use super::report::report;
use super::trees::{AT_RECURSIVE, Attributes, MOUNT_ATTR_RDONLY, attach_tree, change, clone_tree};
use crate::api::{Mount, Propagation};

pub(super) const DEV: &str = "/dev";

/// The volume, and what is mounted above it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dev {
    source: PathBuf,
    readonly: bool,
    /// Mounts below it are only read, too.
    recursive: bool,
    /// A flag of mount(2).
    propagation: u64,
    above: Vec<PathBuf>,
}

impl Dev {
    /// Of the volume's mount, and where all other mounts of the container are.
    pub(super) fn new(mount: &Mount, others: &BTreeSet<PathBuf>) -> Self {
        let propagation = match mount.propagation {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::HostToContainer => libc::MS_SLAVE,
            Propagation::Bidirectional => libc::MS_SHARED,
        };
        let mut above: Vec<PathBuf> = Vec::new();
        for place in others.iter().filter(|place| place.starts_with(DEV) && **place != *DEV) {
            // What is mounted below a mount goes with it, and comes right after it.
            if above.last().is_none_or(|known| !place.starts_with(known)) {
                above.push(place.clone());
            }
        }
        let (readonly, recursive) = (mount.readonly, mount.recursive_readonly);
        Self { source: mount.host_path.clone(), readonly, recursive, propagation, above }
    }

    /// Mounts it in the container whose init waits to begin. What goes wrong is reported. The caller has one thread.
    pub(super) fn mount(&self, init: i32) -> Result<(), String> {
        // SAFETY: this process has one thread.
        match unsafe { fork() }.map_err(|errno| format!("fork: {errno}"))? {
            ForkResult::Parent { child } => match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) => Ok(()),
                Ok(status) => Err(format!("the volume at {DEV} cannot be mounted ({status:?})")),
                Err(errno) => Err(format!("the volume at {DEV}: {errno}")),
            },
            ForkResult::Child => {
                let done = self.attach(init);
                if let Err(error) = &done {
                    report(&format!("the volume at {DEV} ({}) cannot be mounted: {error}", self.source.display()));
                }
                // SAFETY: ends the child, whose memory is a copy of the parent's.
                unsafe { libc::_exit(i32::from(done.is_err())) }
            }
        }
    }

    fn attach(&self, init: i32) -> io::Result<()> {
        let namespace = File::open(format!("/proc/{init}/ns/mnt"))?;
        let volume = clone_tree(&self.source)?;
        change(&volume, AT_RECURSIVE, &Attributes { propagation: self.propagation, ..Attributes::default() })?;
        if self.readonly {
            let flags = if self.recursive { AT_RECURSIVE } else { 0 };
            change(&volume, flags, &Attributes { set: MOUNT_ATTR_RDONLY, ..Attributes::default() })?;
        }
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        let kept = self.above.iter().map(|place| Ok((place, fs::metadata(place)?.is_dir(), clone_tree(place)?)));
        let kept = kept.collect::<io::Result<Vec<(&PathBuf, bool, OwnedFd)>>>()?;
        attach_tree(&volume, Path::new(DEV))?;
        for (place, is_directory, tree) in kept {
            // Nobody needs it, and it may be the node's directory that would get one more.
            if place == Path::new("/dev/mqueue") && fs::symlink_metadata(place).is_err() {
                continue;
            }
            let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", place.display()));
            make(place, is_directory).and_then(|()| attach_tree(&tree, place)).map_err(failed)?;
        }
        Ok(())
    }
}

/// Makes what something is to be mounted at, unless it is there.
fn make(place: &Path, is_directory: bool) -> io::Result<()> {
    if place.symlink_metadata().is_ok() {
        return Ok(());
    }
    if is_directory {
        return fs::create_dir_all(place);
    }
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create_new(place).map(drop)
}
