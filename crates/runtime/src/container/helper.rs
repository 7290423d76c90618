//! The OCI helper: a process of one thread that makes a container or executes a command in one, and ends.
//!
//! libcontainer changes its process (not dumpable, OOM score) and runs Rust after a raw clone, so it never runs in the
//! server. The helper's standard streams are the container's. What happened is left in a result file: everything else
//! that the helper has open is inherited by the container.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use oci_spec::runtime::{Process, Spec};
use serde::{Deserialize, Serialize};

use super::enter::{self, Target};
use super::report::{self, START, is_unexecuted, report, report_start};
use super::{streams, user};
use crate::api::IdRange;
use crate::shim::protocol::{Failure, HelperResult};

/// What the helper shall do; its only argument, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HelperRequest {
    pub(crate) id: String,
    /// The OCI bundle.
    pub(crate) bundle: PathBuf,
    /// An OCI process document: execute it in the running container rather than make one.
    pub(crate) process: Option<PathBuf>,
    /// The container to execute it in.
    pub(crate) target: Option<Target>,
    /// A unix socket that takes the terminal.
    pub(crate) console: Option<PathBuf>,
    pub(crate) oci_root: PathBuf,
    /// Another OCI runtime.
    pub(crate) runtime: Option<PathBuf>,
    /// Ids of the pod's user namespace, where it has one.
    #[serde(default)]
    pub(crate) users: Option<IdRange>,
    pub(crate) result: PathBuf,
    /// The container has ended: its hooks for that run, and nothing else is done.
    #[serde(default)]
    pub(crate) is_over: bool,
}

/// Runs the helper; gives its exit code.
pub(crate) fn main(argument: &str) -> i32 {
    let request: HelperRequest = match serde_json::from_str(argument) {
        Ok(request) => request,
        Err(error) => {
            eprintln!("oci-helper: {error}");
            return 2;
        }
    };
    super::birth::begin();
    if request.is_over {
        return super::hooks::poststop(&request);
    }
    // Opened now: the helper may be in another mount namespace when it has something to say.
    let Ok(mut file) = File::create(&request.result) else { return 1 };
    let result = match &request.runtime {
        None => built_in(&request),
        Some(program) => external(program, &request),
    };
    let result = result.unwrap_or_else(|(kind, message)| HelperResult::Failed { kind, message });
    let bytes = serde_json::to_vec(&result).unwrap_or_default();
    i32::from(file.write_all(&bytes).is_err())
}

/// Nothing but a filter keeps the command's process from saying why it ends.
const UNEXECUTED: &str =
    "the command's process ended before it was executed, and could not say why: does the seccomp profile refuse execve?";

type Outcome = Result<HelperResult, (Failure, String)>;

fn built_in(request: &HelperRequest) -> Outcome {
    let failed = |error: std::io::Error| (Failure::Other, error.to_string());
    // Closed by the kernel when the command is executed: its end says that this succeeded.
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|error| failed(error.into()))?;
    // Reports are small; a full pipe must not block the container's init.
    let _ = nix::fcntl::fcntl(write.as_raw_fd(), nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK));
    report::to(write.as_raw_fd());
    let _ = tracing::subscriber::set_global_default(Reporter);
    let outcome = match (&request.process, &request.target) {
        (None, _) => create(request),
        (Some(process), Some(target)) => enter::execute(request, process, target),
        (Some(_), None) => Err("no container to execute the command in".to_owned()),
    };
    report::to(-1);
    drop(write);
    let reports = read_reports(read);
    match outcome {
        Ok(pid) => match start_failure(&reports)
            .or_else(|| super::hooks::start_failure(&reports))
            .or_else(|| (request.process.is_none() && is_unexecuted(pid)).then(|| UNEXECUTED.to_owned()))
        {
            Some(message) => Err((Failure::Start, message)),
            None => Ok(HelperResult::Running { pid }),
        },
        Err(error) => match start_failure(&reports).or_else(|| directory_failure(&reports)) {
            Some(message) => Err((Failure::Start, message)),
            None => Err((Failure::Create, explain(&error, &reports))),
        },
    }
}

fn read_reports(read: OwnedFd) -> String {
    let mut bytes = Vec::new();
    let _ = File::from(read).take(64 << 10).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn start_failure(reports: &str) -> Option<String> {
    reports.lines().find_map(|line| line.strip_prefix(START)).map(str::to_owned)
}

/// A working directory that cannot be entered is the user's error, like a missing command.
fn directory_failure(reports: &str) -> Option<String> {
    reports.lines().find(|line| line.contains("failed to chdir")).map(|line| format!("chdir to the working directory: {line}"))
}

/// The error with the first report, which is nearest to the cause.
fn explain(error: &str, reports: &str) -> String {
    match reports.lines().next() {
        Some(cause) if !error.contains(cause) => format!("{error}: {cause}"),
        _ => error.to_owned(),
    }
}

fn builder(request: &HelperRequest) -> Result<ContainerBuilder, String> {
    Ok(ContainerBuilder::new(request.id.clone(), SyscallType::default())
        .with_root_path(&request.oci_root)
        .map_err(|error| chain(&error))?
        .with_executor(Exec)
        .with_console_socket(request.console.clone()))
}

fn create(request: &HelperRequest) -> Result<i32, String> {
    let mut container = builder(request)?
        .as_init(&request.bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|error| chain(&error))?;
    let init = container.pid().map(|pid| pid.as_raw());
    let spec: Spec = enter::read(&request.bundle.join("config.json"))?;
    let uid = spec.process().as_ref().map(|process| process.user().uid()).unwrap_or_default();
    streams::give(request.console.as_ref().and(init), uid, request.users);
    if let (Some(dev), Some(init)) = (super::spec::volume_at_dev(&spec)?, init) {
        dev.mount(init)?;
    }
    if let Err(error) = container.start() {
        // Its program may run already: a hook that comes after that has failed.
        if let Some(init) = init {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(init), nix::sys::signal::SIGKILL);
        }
        return Err(chain(&error));
    }
    init.ok_or_else(|| "the container has no process".to_owned())
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Executes the container's command, and says why when that fails.
#[derive(Clone)]
struct Exec;

impl Executor for Exec {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let (program, args) = command(process).map_err(ExecutorError::Other)?;
        let to_c = |text: &str| std::ffi::CString::new(text).map_err(|_| ExecutorError::InvalidArg);
        let args = args.iter().map(|arg| to_c(arg)).collect::<Result<Vec<_>, _>>()?;
        let path = to_c(&program)?;
        let env = user::environment(process).iter().map(|entry| to_c(entry)).collect::<Result<Vec<_>, _>>()?;
        let no_new_privs = process.no_new_privileges().unwrap_or(false);
        super::birth::complete();
        // Last: the filter may refuse everything but what executes the command.
        if let Some((kept, profile)) = super::spec::confinement(spec)
            && let Err(error) = super::seccomp::confine(&kept, &profile, no_new_privs)
        {
            report_start(&error.to_string());
            return Err(ExecutorError::Other(error.to_string()));
        }
        let Err(error) = nix::unistd::execve(&path, &args, &env);
        report_start(&format!("exec {program:?}: {}", describe(error)));
        Err(ExecutorError::Other(format!("exec {program:?}: {}", error.desc())))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let process = spec.process().as_ref().ok_or(ExecutorValidationError::ArgValidationError("no process".to_owned()))?;
        match command(process) {
            Ok(_) => Ok(()),
            Err(message) => {
                report_start(&message);
                Err(ExecutorValidationError::ArgValidationError(message))
            }
        }
    }
}

/// The path of the program and its arguments, or the error in the words that users know from runc.
pub(super) fn command(process: &Process) -> Result<(String, Vec<String>), String> {
    let args = process.args().clone().unwrap_or_default();
    let name = args.first().filter(|name| !name.is_empty()).ok_or("no command specified")?;
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok((name.clone(), args)),
            Err(text @ ("permission denied" | "is a directory")) => Err(format!("exec: {name:?}: {text}")),
            Err(text) => Err(format!("exec: {name:?}: stat {name}: {text}")),
        };
    }
    let env = process.env().clone().unwrap_or_default();
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let mut denied = false;
    for dir in path.split(':').filter(|dir| !dir.is_empty()) {
        let candidate = Path::new(dir).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok((candidate.to_string_lossy().into_owned(), args)),
            Err(text) => denied |= text == "permission denied",
        }
    }
    let text = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Err(format!("exec: {name:?}: {text}"))
}

fn executable(path: &Path) -> Result<(), &'static str> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => "permission denied",
        _ => "no such file or directory",
    })?;
    if metadata.is_dir() {
        return Err("is a directory");
    }
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).map_err(|_| "permission denied")
}

pub(super) fn describe(error: nix::errno::Errno) -> String {
    match error {
        nix::errno::Errno::ENOEXEC => "exec format error".to_owned(),
        nix::errno::Errno::EACCES => "permission denied".to_owned(),
        nix::errno::Errno::ENOENT => "no such file or directory".to_owned(),
        other => other.desc().to_lowercase(),
    }
}

/// Writes libcontainer's ERROR events to the report pipe: its own errors hide the cause.
struct Reporter;

impl tracing::Subscriber for Reporter {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        report(text.0.trim());
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write as _;
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?} "),
            name => write!(self.0, "{name}={value:?} "),
        };
    }
}

/// Makes or enters a container with another OCI runtime, whose command line is runc's.
fn external(program: &Path, request: &HelperRequest) -> Outcome {
    let pid_file = request.result.with_extension("pid");
    let mut first = Command::new(program);
    let log = request.result.with_extension("log");
    first.arg("--log").arg(&log).arg("--root").arg(&request.oci_root);
    match &request.process {
        None => first.arg("create").arg("--bundle").arg(&request.bundle),
        Some(process) => first.args(["exec", "--detach"]).arg("--process").arg(process),
    };
    first.arg("--pid-file").arg(&pid_file);
    if let Some(console) = &request.console {
        first.arg("--console-socket").arg(console);
    }
    let outcome = run(first.arg(&request.id), &log);
    let outcome = outcome.and_then(|()| match &request.process {
        None => run(
            Command::new(program).arg("--log").arg(&log).arg("--root").arg(&request.oci_root).args(["start", &request.id]),
            &log,
        ),
        Some(_) => Ok(()),
    });
    let pid = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok());
    let _ = fs::remove_file(&pid_file);
    let _ = fs::remove_file(&log);
    match (outcome, pid) {
        (Ok(()), Some(pid)) => Ok(HelperResult::Running { pid }),
        (Ok(()), None) => Err((Failure::Create, format!("{} left no pid file", program.display()))),
        (Err(message), _) => {
            let kind = if message.contains("exec: ") || message.contains("exec /") { Failure::Start } else { Failure::Create };
            Err((kind, message))
        }
    }
}

fn run(command: &mut Command, log: &Path) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(log).unwrap_or_default();
    let message = text
        .lines()
        .rev()
        .find_map(|line| line.split_once("msg=").map(|(_, message)| message.trim_matches('"').replace("\\\"", "\"")));
    Err(message.unwrap_or_else(|| format!("{:?}: {status}", command.get_program())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use oci_spec::runtime::ProcessBuilder;

    fn check(args: &[&str], expected: Result<&str, &str>) {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let process = ProcessBuilder::default().args(args).env(vec!["PATH=/nowhere:/bin".to_owned()]).build().unwrap();
        let result = command(&process);
        assert_eq!(result.as_ref().map(|(path, _)| path.as_str()).map_err(String::as_str), expected);
    }

    #[test]
    fn commands_are_found_or_explained() {
        check(&["sh", "-c"], Ok("/bin/sh"));
        check(&["/bin/sh"], Ok("/bin/sh"));
        check(&["nosuch"], Err("exec: \"nosuch\": executable file not found in $PATH"));
        check(&["/nosuch"], Err("exec: \"/nosuch\": stat /nosuch: no such file or directory"));
        check(&["/etc"], Err("exec: \"/etc\": is a directory"));
        check(&["/etc/passwd"], Err("exec: \"/etc/passwd\": permission denied"));
        check(&[], Err("no command specified"));
    }
}
