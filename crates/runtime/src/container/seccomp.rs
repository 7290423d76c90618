//! The seccomp profile `RuntimeDefault`: system calls that a container has no business with fail with EPERM.
//!
//! libcontainer would take a filter only through the C library libseccomp, and then leaves it out of executed commands.
//! So the helper loads one of its own, for both, as the last thing before the command. It denies what the default profile
//! of other runtimes is documented to block, unless the container has the capability that goes with it.

use std::io;

use super::caps;

/// Filtered system calls and the capability (without `CAP_`) that allows them; empty when none does.
const FILTERED: &[(&str, &[libc::c_long])] = &[
    (
        "",
        &[
            libc::SYS_add_key,
            libc::SYS_keyctl,
            libc::SYS_request_key,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_userfaultfd,
            libc::SYS_nfsservctl,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_move_pages,
            libc::SYS_migrate_pages,
        ],
    ),
    (
        "SYS_ADMIN",
        &[
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_mount_setattr,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_pivot_root,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_setdomainname,
            libc::SYS_sethostname,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_lookup_dcookie,
            libc::SYS_fanotify_init,
        ],
    ),
    ("SYS_MODULE", &[libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module]),
    ("SYS_BOOT", &[libc::SYS_reboot]),
    ("SYS_PACCT", &[libc::SYS_acct]),
    ("SYS_TIME", &[libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime]),
    ("SYS_PTRACE", &[libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_kcmp, libc::SYS_process_madvise]),
    ("SYS_NICE", &[libc::SYS_mbind, libc::SYS_get_mempolicy, libc::SYS_set_mempolicy, libc::SYS_set_mempolicy_home_node]),
    ("SYS_TTY_CONFIG", &[libc::SYS_vhangup]),
    ("DAC_READ_SEARCH", &[libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at]),
    ("BPF", &[libc::SYS_bpf]),
    ("PERFMON", &[libc::SYS_perf_event_open]),
    ("SYSLOG", &[libc::SYS_syslog]),
];

#[cfg(target_arch = "x86_64")]
const NATIVE: &[(&str, &[libc::c_long])] = &[("SYS_RAWIO", &[libc::SYS_iopl, libc::SYS_ioperm]), ("", &[libc::SYS_uselib])];
#[cfg(not(target_arch = "x86_64"))]
const NATIVE: &[(&str, &[libc::c_long])] = &[];

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// New namespaces: mount, cgroup, uts, ipc, user, pid, net.
const NEW_NAMESPACES: u32 = 0x7e02_0000;
/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const fn errno(code: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | code as u32
}

fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

fn ret(action: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: action }
}

/// A jump that goes on when the test holds, and skips `skip` instructions when not.
fn unless(test: u32, value: u32, skip: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt: 0, jf: skip, k: value }
}

/// The filter for a container with these capabilities (`CAP_...`).
fn program(capabilities: &[String]) -> Vec<libc::sock_filter> {
    let has = |name: &str| capabilities.iter().any(|capability| capability.strip_prefix("CAP_") == Some(name));
    let mut program = vec![
        // Numbers mean something else to another architecture: 32-bit programs are refused.
        load(ARCHITECTURE),
        libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 1, jf: 0, k: ARCH },
        ret(errno(libc::ENOSYS)),
        load(NUMBER),
    ];
    if cfg!(target_arch = "x86_64") {
        // The x32 numbers.
        program.extend([unless(libc::BPF_JGE, 0x4000_0000, 1), ret(errno(libc::ENOSYS))]);
    }
    if !has("SYS_ADMIN") {
        // The flags of clone3 are in memory, where a filter cannot look: C libraries then take clone.
        program.extend([unless(libc::BPF_JEQ, libc::SYS_clone3 as u32, 1), ret(errno(libc::ENOSYS))]);
        program.extend([
            unless(libc::BPF_JEQ, libc::SYS_clone as u32, 4),
            load(FIRST_ARGUMENT),
            unless(libc::BPF_JSET, NEW_NAMESPACES, 1),
            ret(errno(libc::EPERM)),
            ret(ALLOW),
        ]);
    }
    for (capability, calls) in FILTERED.iter().chain(NATIVE) {
        if capability.is_empty() || !has(capability) {
            program.extend(calls.iter().flat_map(|call| [unless(libc::BPF_JEQ, *call as u32, 1), ret(errno(libc::EPERM))]));
        }
    }
    program.push(ret(ALLOW));
    program
}

/// Loads the filter for this process and gives up the capabilities that are not in `capabilities`. Needs SYS_ADMIN and
/// SETPCAP, or no_new_privs and nothing to give up.
pub(super) fn confine(capabilities: &[String]) -> io::Result<()> {
    let filter = program(capabilities);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter on a call, as the kernel does.
    fn evaluate(program: &[libc::sock_filter], number: u32, argument: u32, arch: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            match u32::from(step.code) & 7 {
                libc::BPF_LD => {
                    value = match step.k {
                        NUMBER => number,
                        ARCHITECTURE => arch,
                        _ => argument,
                    }
                }
                libc::BPF_RET => return step.k,
                _ => {
                    let holds = match u32::from(step.code) & 0xf0 {
                        libc::BPF_JEQ => value == step.k,
                        libc::BPF_JGE => value >= step.k,
                        _ => value & step.k != 0,
                    };
                    at += usize::from(if holds { step.jt } else { step.jf });
                }
            }
        }
    }

    fn check(capabilities: &[&str], call: libc::c_long, argument: u32, expected: u32) {
        let capabilities: Vec<String> = capabilities.iter().map(|name| format!("CAP_{name}")).collect();
        assert_eq!(evaluate(&program(&capabilities), call as u32, argument, ARCH), expected, "{call} {capabilities:?}");
    }

    #[test]
    fn calls_are_denied_unless_a_capability_goes_with_them() {
        let denied = errno(libc::EPERM);
        check(&[], libc::SYS_read, 0, ALLOW);
        check(&[], libc::SYS_mount, 0, denied);
        check(&["SYS_ADMIN"], libc::SYS_mount, 0, ALLOW);
        check(&["SYS_ADMIN"], libc::SYS_keyctl, 0, denied);
        check(&[], libc::SYS_syslog, 0, denied);
        check(&[], libc::SYS_clone, libc::SIGCHLD as u32, ALLOW);
        check(&[], libc::SYS_clone, libc::CLONE_NEWUSER as u32, denied);
        check(&["SYS_ADMIN"], libc::SYS_clone, libc::CLONE_NEWUSER as u32, ALLOW);
        check(&[], libc::SYS_clone3, 0, errno(libc::ENOSYS));
        assert_eq!(evaluate(&program(&[]), 0, 0, 0x4000_0003), errno(libc::ENOSYS));
    }
}
