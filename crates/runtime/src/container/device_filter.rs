//! Which devices the processes of a cgroup may open, with version 2 of control groups.
//!
//! Version 1 has a controller for that. Version 2 asks a program of the kernel's virtual machine that is attached to the
//! group (Documentation/admin-guide/cgroup-v2.rst, "Device controller"). libcontainer makes such programs only through C
//! libraries; the one that containers need is short enough to be written here.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use super::devices::{Access, Node};
use crate::api::DeviceKind;
use crate::images::tree::owned;

/// Major and minor numbers of the character devices that every container may use; none is every minor number.
const ALLOWED: &[(u32, Option<u32>)] = &[
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(1)), // console
    (5, Some(2)), // ptmx
    (136, None),  // terminals
];

const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MAKE_NODE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// `struct bpf_insn` of linux/bpf.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

/// Loads the word at `offset` of the context, which is in register 1.
const fn load(to: u8, offset: i16) -> Instruction {
    instruction(0x61, to, 1, offset, 0)
}

/// Skips `count` instructions unless the register has that value.
const fn unless(register: u8, value: i32, count: i16) -> Instruction {
    instruction(0x55, register, 0, count, value)
}

/// Answers 1 for yes, 0 for no.
const fn answer(value: i32) -> [Instruction; 2] {
    [instruction(0xb7, 0, 0, 0, value), instruction(0x95, 0, 0, 0, 0)]
}

/// The program, with devices that this container has been given; its context is `struct bpf_cgroup_dev_ctx`: access and type, major, minor.
fn program(given: &[Node]) -> Vec<Instruction> {
    let mut program = vec![
        load(2, 0),
        instruction(0xbc, 3, 2, 0, 0),
        instruction(0x54, 3, 0, 0, 0xffff),
        instruction(0x74, 2, 0, 0, 16),
        load(4, 4),
        load(5, 8),
    ];
    // Making a node is not using it.
    program.push(unless(2, MAKE_NODE, 2));
    program.extend(answer(1));
    for (major, minor) in ALLOWED {
        let minors = i16::from(minor.is_some());
        program.push(unless(3, CHARACTER, 3 + minors));
        program.push(unless(4, *major as i32, 2 + minors));
        program.extend(minor.map(|minor| unless(5, minor as i32, 2)));
        program.extend(answer(1));
    }
    for Node { numbers, access, .. } in given {
        let kind = if numbers.kind == DeviceKind::Block { BLOCK } else { CHARACTER };
        program.push(unless(3, kind, 7));
        program.push(unless(4, numbers.major as i32, 6));
        program.push(unless(5, numbers.minor as i32, 5));
        // What is asked for without what is allowed; the context in register 1 has been read.
        program.push(instruction(0xbc, 1, 2, 0, 0));
        program.push(instruction(0x54, 1, 0, 0, !mask(*access)));
        program.push(unless(1, 0, 2));
        program.extend(answer(1));
    }
    program.extend(answer(0));
    program
}

fn mask(access: Access) -> i32 {
    let bits = [(access.make, MAKE_NODE), (access.read, READ), (access.write, WRITE)];
    bits.into_iter().filter(|(may, _)| *may).map(|(_, bit)| bit).sum()
}

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
}

/// The beginning of `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// # Safety
/// `attributes` must be what `command` takes, with valid pointers.
unsafe fn bpf<T>(command: i32, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes are passed with their size; the kernel takes the rest as zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *const T, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Allows the processes of the cgroup at `directory` (and below) the usual devices, those that they are given, and no others. It stays as
/// long as the cgroup does.
pub(crate) fn restrict(directory: &Path, given: &[Node]) -> io::Result<()> {
    let instructions = program(given);
    let load = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel: 0,
        flags: 0,
    };
    // SAFETY: the instructions and the license outlive the call; the result is a new descriptor.
    let program: OwnedFd = owned(unsafe { bpf(PROG_LOAD, &load) }?);
    let group = File::open(directory)?;
    let attach =
        Attach { target: group.as_raw_fd() as u32, program: program.as_raw_fd() as u32, kind: CGROUP_DEVICE, flags: ALLOW_MULTI };
    // SAFETY: both descriptors are open.
    unsafe { bpf(PROG_ATTACH, &attach) }.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::{Device, DeviceNumbers};

    /// The program's answer, as the kernel finds it.
    fn evaluate(given: &[Node], access: u32, kind: u32, major: u32, minor: u32) -> i64 {
        let program = program(given);
        let mut registers = [0i64; 11];
        let mut at = 0usize;
        loop {
            let Instruction { code, registers: pair, offset, immediate } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            at += 1;
            match code {
                0x61 => registers[to] = i64::from([access << 16 | kind, major, minor][offset as usize / 4]),
                0xbc => registers[to] = registers[from],
                0x54 => registers[to] &= i64::from(immediate),
                0x74 => registers[to] >>= immediate,
                0xb7 => registers[to] = i64::from(immediate),
                0x55 if registers[to] != i64::from(immediate) => at += offset as usize,
                0x55 => {}
                _ => return registers[0],
            }
        }
    }

    #[test]
    fn usual_devices_are_open_and_disks_are_not() {
        let (block, character) = (1, 2);
        let check = |access, kind, major, minor, expected| {
            assert_eq!(evaluate(&[], access, kind, major, minor), expected, "{access} {kind} {major}:{minor}");
        };
        check(2, character, 1, 3, 1);
        check(6, character, 136, 77, 1);
        check(4, character, 5, 2, 1);
        check(2, character, 1, 1, 0);
        check(2, block, 1, 3, 0);
        check(2, block, 8, 0, 0);
        check(1, block, 8, 0, 1);
        check(3, block, 8, 0, 0);
    }

    fn given(permissions: &str, kind: DeviceKind, major: u32, minor: u32) -> Vec<Node> {
        let numbers = Some(DeviceNumbers { kind, major, minor });
        let device = Device { container_path: "/dev/x".into(), permissions: permissions.into(), numbers, ..Device::default() };
        super::super::devices::resolve(&[device]).unwrap()
    }

    #[test]
    fn devices_that_are_given_are_open_as_far_as_is_said() {
        let (block, character) = (1, 2);
        let check = |permissions: &str, access, kind, minor, expected| {
            let devices = given(permissions, DeviceKind::Block, 8, 1);
            assert_eq!(evaluate(&devices, access, kind, 8, minor), expected, "{permissions} {access} {kind} {minor}");
            assert_eq!(evaluate(&devices, 6, character, 1, 3), 1, "the usual devices");
        };
        check("r", 2, block, 1, 1);
        check("r", 4, block, 1, 0);
        check("r", 6, block, 1, 0);
        check("rw", 6, block, 1, 1);
        check("rw", 7, block, 1, 0);
        check("rwm", 7, block, 1, 1);
        check("rwm", 2, character, 1, 0);
        check("rwm", 2, block, 2, 0);
    }

    #[test]
    fn the_kernel_takes_it() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields[2] == "cgroup2");
        let (Some(mount), true) = (mount, nix::unistd::Uid::effective().is_root()) else {
            eprintln!("SKIPPED: needs root and a mounted cgroup2");
            return;
        };
        let group = Path::new(mount[1]).join(format!("knarr-devices-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        let kernel_log = given("r", DeviceKind::Character, 1, 11);
        let result = restrict(&group, &kernel_log).map(|()| {
            // 1:1 is memory, 1:5 zeros, 1:11 the kernel's log.
            let script = "echo 0 > $0/cgroup.procs; cd $(mktemp -d); mknod m c 1 1; mknod z c 1 5; head -c1 z | wc -c; head -c1 m || echo no; mknod k c 1 11; true < k && echo read; true > k || echo no";
            std::process::Command::new("sh").args(["-c", script]).arg(&group).output().unwrap()
        });
        std::fs::remove_dir(&group).unwrap();
        match result {
            Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), "1\nno\nread\nno\n"),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => eprintln!("SKIPPED: bpf(2): {error}"),
            Err(error) => panic!("{error}"),
        }
    }
}
