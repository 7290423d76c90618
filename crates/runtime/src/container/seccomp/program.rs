//! A seccomp profile as a program of the kernel's packet filter (seccomp(2), bpf instructions of linux/filter.h).

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use super::calls;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
/// Most instructions that the kernel takes (BPF_MAXINSNS).
const LIMIT: usize = 4096;

/// Where a jump inside the test of one argument leads.
#[derive(Clone, Copy)]
enum Target {
    Next,
    Pass,
    Fail,
}

/// One instruction of the test of an argument.
#[derive(Clone, Copy)]
enum Step {
    Load(u32),
    And(u32),
    /// Test, value, target when it holds, target when not.
    Jump(u32, u32, Target, Target),
}

fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

fn ret(action: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: action }
}

fn jump(test: u32, value: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt, jf, k: value }
}

/// The program of `profile`: rules in their order, the first that fits decides. System calls that this machine does not
/// know are left out, as other runtimes do. Calls of other architectures have other numbers and fail with ENOSYS.
pub(super) fn compile(profile: &LinuxSeccomp) -> Result<Vec<libc::sock_filter>, String> {
    let unknown = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let mut program = vec![load(ARCHITECTURE), jump(libc::BPF_JEQ, ARCH, 1, 0), ret(unknown), load(NUMBER)];
    if cfg!(target_arch = "x86_64") {
        // The x32 numbers.
        program.extend([jump(libc::BPF_JGE, 0x4000_0000, 0, 1), ret(unknown)]);
    }
    for rule in profile.syscalls().iter().flatten() {
        let action = action(rule.action(), rule.errno_ret())?;
        for number in rule.names().iter().filter_map(|name| calls::number(name)) {
            program.extend(self::rule(number, rule, action)?);
        }
    }
    program.push(ret(action(profile.default_action(), profile.default_errno_ret())?));
    match program.len() <= LIMIT {
        true => Ok(program),
        false => Err(format!("the profile makes {} instructions, the kernel takes {LIMIT}", program.len())),
    }
}

fn action(action: LinuxSeccompAction, code: Option<u32>) -> Result<u32, String> {
    match action {
        LinuxSeccompAction::ScmpActNotify => Err("SCMP_ACT_NOTIFY needs an agent, which this runtime does not offer".to_owned()),
        action => Ok(action.as_u32(code.map(|code| code & 0xffff))),
    }
}

/// Answers `action` when the call is `number` and all its arguments fit; goes on with the next rule otherwise.
fn rule(number: u32, rule: &LinuxSyscall, action: u32) -> Result<Vec<libc::sock_filter>, String> {
    let tests: Vec<Vec<Step>> = rule.args().iter().flatten().map(test).collect::<Result<_, _>>()?;
    if tests.is_empty() {
        return Ok(vec![jump(libc::BPF_JEQ, number, 0, 1), ret(action)]);
    }
    let mut body = Vec::new();
    let whole: usize = tests.iter().map(Vec::len).sum();
    for steps in &tests {
        let end = body.len() + steps.len();
        for step in steps {
            let at = body.len() + 1;
            let distance = |target: Target| match target {
                Target::Next => 0,
                Target::Pass => end - at,
                // Past the answer, to where the number is loaded again.
                Target::Fail => whole + 1 - at,
            } as u8;
            body.push(match *step {
                Step::Load(offset) => load(offset),
                Step::And(mask) => {
                    libc::sock_filter { code: (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16, jt: 0, jf: 0, k: mask }
                }
                Step::Jump(kind, value, holds, fails) => jump(kind, value, distance(holds), distance(fails)),
            });
        }
    }
    body.extend([ret(action), load(NUMBER)]);
    body.insert(0, jump(libc::BPF_JEQ, number, 0, body.len() as u8));
    Ok(body)
}

/// Compares one argument, 64 bits in two halves.
fn test(arg: &LinuxSeccompArg) -> Result<Vec<Step>, String> {
    use Step::{And, Jump, Load};
    use Target::{Fail, Next, Pass};
    let (eq, gt, ge) = (libc::BPF_JEQ, libc::BPF_JGT, libc::BPF_JGE);
    let index = u32::try_from(arg.index()).ok().filter(|index| *index < 6);
    let low_at = ARGUMENTS + 8 * index.ok_or_else(|| format!("system calls have no argument {}", arg.index()))?;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (high, low) = halves(arg.value());
    let (load_high, load_low) = (Load(low_at + 4), Load(low_at));
    Ok(match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => vec![load_high, Jump(eq, high, Next, Fail), load_low, Jump(eq, low, Pass, Fail)],
        LinuxSeccompOperator::ScmpCmpNe => vec![load_high, Jump(eq, high, Next, Pass), load_low, Jump(eq, low, Fail, Pass)],
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let (wanted_high, wanted_low) = halves(arg.value_two().unwrap_or(0));
            vec![load_high, And(high), Jump(eq, wanted_high, Next, Fail), load_low, And(low), Jump(eq, wanted_low, Pass, Fail)]
        }
        op @ (LinuxSeccompOperator::ScmpCmpGt | LinuxSeccompOperator::ScmpCmpGe) => {
            let kind = if op == LinuxSeccompOperator::ScmpCmpGt { gt } else { ge };
            vec![load_high, Jump(gt, high, Pass, Next), Jump(eq, high, Next, Fail), load_low, Jump(kind, low, Pass, Fail)]
        }
        op @ (LinuxSeccompOperator::ScmpCmpLt | LinuxSeccompOperator::ScmpCmpLe) => {
            let kind = if op == LinuxSeccompOperator::ScmpCmpLt { ge } else { gt };
            vec![load_high, Jump(gt, high, Fail, Next), Jump(eq, high, Next, Pass), load_low, Jump(kind, low, Fail, Pass)]
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::profile::runtime_default;
    use super::*;
    use serde_json::{Value, json};

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    fn errno(code: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | code as u32
    }

    /// Runs the filter on a call, as the kernel does.
    fn evaluate(program: &[libc::sock_filter], number: u32, argument: u64, arch: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            match u32::from(step.code) & 7 {
                libc::BPF_LD => {
                    value = match step.k {
                        NUMBER => number,
                        ARCHITECTURE => arch,
                        offset if offset % 8 == 4 => (argument >> 32) as u32,
                        _ => argument as u32,
                    }
                }
                libc::BPF_ALU => value &= step.k,
                libc::BPF_RET => return step.k,
                _ => {
                    let holds = match u32::from(step.code) & 0xf0 {
                        libc::BPF_JEQ => value == step.k,
                        libc::BPF_JGE => value >= step.k,
                        _ => value > step.k,
                    };
                    at += usize::from(if holds { step.jt } else { step.jf });
                }
            }
        }
    }

    #[track_caller]
    fn check(profile: Value, call: libc::c_long, argument: u64, expected: u32) {
        let program = compile(&serde_json::from_value(profile).unwrap()).unwrap();
        assert_eq!(evaluate(&program, call as u32, argument, ARCH), expected, "{call} {argument:#x}");
    }

    #[test]
    fn calls_are_denied_unless_a_capability_goes_with_them() {
        let default =
            |capabilities: &[&str]| runtime_default(&capabilities.iter().map(|name| format!("CAP_{name}")).collect::<Vec<_>>());
        let denied = errno(libc::EPERM);
        check(default(&[]), libc::SYS_read, 0, ALLOW);
        check(default(&[]), libc::SYS_mount, 0, denied);
        check(default(&["SYS_ADMIN"]), libc::SYS_mount, 0, ALLOW);
        check(default(&["SYS_ADMIN"]), libc::SYS_keyctl, 0, denied);
        check(default(&[]), libc::SYS_syslog, 0, denied);
        check(default(&[]), libc::SYS_clone, libc::SIGCHLD as u64, ALLOW);
        check(default(&[]), libc::SYS_clone, libc::CLONE_NEWUSER as u64, denied);
        check(default(&[]), libc::SYS_clone, (libc::CLONE_NEWNET | libc::SIGCHLD) as u64, denied);
        check(default(&["SYS_ADMIN"]), libc::SYS_clone, libc::CLONE_NEWUSER as u64, ALLOW);
        check(default(&[]), libc::SYS_clone3, 0, errno(libc::ENOSYS));
        let program = compile(&serde_json::from_value(default(&[])).unwrap()).unwrap();
        assert_eq!(evaluate(&program, 0, 0, 0x4000_0003), errno(libc::ENOSYS));
        let names = default(&[])["syscalls"].as_array().unwrap().clone();
        let names = names.iter().flat_map(|rule| rule["names"].as_array().unwrap());
        assert_eq!(names.filter(|name| calls::number(name.as_str().unwrap()).is_none()).count(), 0);
    }

    #[test]
    fn arguments_are_compared_in_64_bits() {
        let check = |op: &str, value: u64, argument: u64, fits: bool| {
            let rule = json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
                "args": [{"index": 1, "value": value, "valueTwo": 8, "op": op}]});
            let profile =
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule, {"names": ["socket"], "action": "SCMP_ACT_KILL"}]});
            let other = libc::SECCOMP_RET_KILL_THREAD;
            check(profile.clone(), libc::SYS_socket, argument, if fits { errno(97) } else { other });
            check(profile, libc::SYS_read, argument, ALLOW);
        };
        let wide = 5 << 32;
        for (op, below, same, above) in [
            ("SCMP_CMP_EQ", false, true, false),
            ("SCMP_CMP_NE", true, false, true),
            ("SCMP_CMP_LT", true, false, false),
            ("SCMP_CMP_LE", true, true, false),
            ("SCMP_CMP_GE", false, true, true),
            ("SCMP_CMP_GT", false, false, true),
        ] {
            for (argument, fits) in
                [(wide - 1, below), (wide + 6, below), (wide + 7, same), (wide + 8, above), (wide << 1, above)]
            {
                check(op, wide + 7, argument, fits);
            }
        }
        check("SCMP_CMP_MASKED_EQ", 12, 0xff04, false);
        check("SCMP_CMP_MASKED_EQ", 12, 0xf0_0000_0008, true);
    }

    #[test]
    fn all_arguments_must_fit() {
        let args = |second: u64| json!([{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": second, "op": "SCMP_CMP_EQ"}]);
        let profile = |second| {
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
                "syscalls": [{"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": args(second)}]})
        };
        check(profile(7), libc::SYS_ioctl, 7, ALLOW);
        check(profile(8), libc::SYS_ioctl, 7, errno(38));
    }
}
