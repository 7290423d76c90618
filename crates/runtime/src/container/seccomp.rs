//! Seccomp profiles, in the form of the OCI runtime specification (config-linux.md, seccomp).
//!
//! libcontainer would take a filter only through the C library libseccomp, and then leaves it out of executed commands.
//! So the helper loads one of its own, for both, as the last thing before the command. Other OCI runtimes get the profile.

mod calls;
pub(crate) mod profile;
mod program;

use std::io;

use oci_spec::runtime::LinuxSeccomp;

use super::caps;

/// Why a process could not be confined.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfineError {
    #[error("compiling the seccomp profile: {0}")]
    Compile(String),
    #[error("giving up capabilities: {0}")]
    Capabilities(io::Error),
    #[error("loading the seccomp filter: {0}")]
    Load(io::Error),
    #[error("giving up capabilities under the seccomp filter: {0}; without no_new_privs the profile has to allow capset")]
    Filtered(io::Error),
}

/// Loads the filter of `profile` for this process and gives up the capabilities that are not in `capabilities`.
///
/// With `no_new_privs` the filter comes last, so that the profile has to allow execve alone. Without it the kernel wants
/// SYS_ADMIN of who loads a filter; giving that up is the one call that comes after, and the profile has to allow capset.
pub(super) fn confine(capabilities: &[String], profile: &LinuxSeccomp, no_new_privs: bool) -> Result<(), ConfineError> {
    let filter = program::compile(profile).map_err(ConfineError::Compile)?;
    let mask = caps::mask(capabilities);
    let mut data = get().map_err(ConfineError::Capabilities)?;
    narrow(&mut data, mask);
    bound(mask);
    if no_new_privs {
        set(&data).map_err(ConfineError::Capabilities)?;
        return load(&filter).map_err(ConfineError::Load);
    }
    load(&filter).map_err(ConfineError::Load)?;
    set(&data).map_err(ConfineError::Filtered)
}

fn load(filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program points to a valid filter of that length, which the kernel copies.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct __user_cap_data_struct`, capget(2).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Makes every permitted capability effective: a change of the user clears them.
pub(super) fn raise() -> io::Result<()> {
    let mut data = get()?;
    data.iter_mut().for_each(|data| data.effective = data.permitted);
    set(&data)
}

/// Gives up all capabilities but those of the mask, also for later.
pub(super) fn keep(mask: u64) -> io::Result<()> {
    let mut data = get()?;
    narrow(&mut data, mask);
    bound(mask);
    set(&data)
}

/// Takes the capabilities that the mask lacks out of the bounding set, which needs SETPCAP. Those that the process has stay.
fn bound(mask: u64) {
    for capability in 0..caps::COUNT as u64 {
        // SAFETY: these calls take integers only. A capability that the bounding set lacks is gone already.
        unsafe {
            if mask >> capability & 1 == 0 && libc::prctl(libc::PR_CAPBSET_READ, capability) == 1 {
                libc::prctl(libc::PR_CAPBSET_DROP, capability);
            }
        }
    }
}

fn narrow(data: &mut [CapData; 2], mask: u64) {
    for (word, data) in data.iter_mut().enumerate() {
        let allowed = (mask >> (32 * word)) as u32;
        data.effective &= allowed;
        data.permitted &= allowed;
        data.inheritable &= allowed;
    }
}

/// Version 3 takes two data structures; the second word of the header is this process.
const HEADER: [u32; 2] = [0x2008_0522, 0];

fn get() -> io::Result<[CapData; 2]> {
    let mut data = [CapData::default(); 2];
    // SAFETY: a header and two data structures, as version 3 says.
    match unsafe { libc::syscall(libc::SYS_capget, HEADER.as_ptr(), data.as_mut_ptr()) } {
        0 => Ok(data),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set(data: &[CapData; 2]) -> io::Result<()> {
    // SAFETY: as in `get`.
    match unsafe { libc::syscall(libc::SYS_capset, HEADER.as_ptr(), data.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
