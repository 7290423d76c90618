//! The container runtime: a CRI-shaped trait and the built-in engine behind it.
//!
//! The binary is three programs: the server with the engine, one shim per pod, and the OCI helper, which makes one
//! container and ends. [`dispatch`] tells which one this process is.

pub mod api;
mod container;
mod disk;
mod engine;
mod groups;
pub mod images;
mod kernel_log;
mod keyed;
pub mod memory;
pub mod rotation;
mod shim;
mod stall;
mod sysctls;
mod uptime;
pub mod variables;

pub use container::app_armor::has_app_armor;
pub use disk::{DiskUsage, disk_usage};
pub use engine::{Engine, Options, START_LIMIT};
pub use groups::{Groups, dial, send_signal};
pub use images::registry::Registries;
pub use images::{LayerStream, Observer, Outcome, PeerError, Peers, Progress, Shared};
pub use kernel_log::KernelLog;
pub use stall::Stalls;
pub use uptime::uptime;

use std::ffi::OsString;
use std::path::Path;

/// Runs the shim or the OCI helper when `args` (with the program's name first) ask for one; gives the exit code.
/// To be called before anything else in `main`: these processes are small and have one thread.
pub fn dispatch(args: &[OsString]) -> Option<i32> {
    match (args.get(1)?.to_str()?, args.get(2)) {
        ("shim", Some(dir)) => {
            // Containers have the limit of descriptors that this machine gives to programs, not the server's own.
            let limit = args.get(3).and_then(|limit| limit.to_str()?.parse().ok());
            limit.into_iter().for_each(base::budgets::descriptors::lower);
            Some(shim::main(Path::new(dir)))
        }
        ("oci-helper", Some(request)) => Some(container::helper::main(request.to_str().unwrap_or_default())),
        _ => None,
    }
}
