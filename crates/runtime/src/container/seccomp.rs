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

/// Loads the filter of `profile` for this process and gives up the capabilities that are not in `capabilities`. Needs
/// SYS_ADMIN and SETPCAP, or no_new_privs and nothing to give up. The profile must allow capset and prctl.
pub(super) fn confine(capabilities: &[String], profile: &LinuxSeccomp) -> io::Result<()> {
    let filter = program::compile(profile).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program points to a valid filter of that length, which the kernel copies.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    keep(caps::mask(capabilities))
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
    for capability in 0..caps::COUNT as u64 {
        // SAFETY: these calls take integers only. A capability that the bounding set lacks is gone already.
        unsafe {
            if mask >> capability & 1 == 0 && libc::prctl(libc::PR_CAPBSET_READ, capability) == 1 {
                libc::prctl(libc::PR_CAPBSET_DROP, capability);
            }
        }
    }
    for (word, data) in data.iter_mut().enumerate() {
        let allowed = (mask >> (32 * word)) as u32;
        data.effective &= allowed;
        data.permitted &= allowed;
        data.inheritable &= allowed;
    }
    set(&data)
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
