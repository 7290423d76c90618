//! kubectl against the cluster.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::Cluster;
use crate::programs::fetched;
use crate::wait::{PATIENCE, eventually_or};

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code, none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// The kubectl that `cargo xtask test` fetched, or the one that `KNARR_KUBECTL` names.
pub fn program() -> PathBuf {
    fetched("kubectl-1.36.4/usr/bin/kubectl", "KNARR_KUBECTL", "kubectl")
}

impl Cluster {
    /// A kubectl command, as [`Cluster::client_command`] makes it.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.client_command(&program());
        command.args(arguments);
        command
    }

    /// Runs kubectl whatever comes out of it.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(&mut self.kubectl_command(arguments))
    }

    /// Runs kubectl with these arguments and returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let outcome = self.try_kubectl(arguments);
        assert_eq!(outcome.code, Some(0), "kubectl {arguments:?}: {outcome:?}");
        outcome.stdout
    }

    /// The same for arguments without blanks in them, as one line.
    pub fn k(&self, line: &str) -> String {
        self.kubectl(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Waits until events tell all of this, by their reason or message. Events are written behind what they tell of, so who has seen that has
    /// not seen them yet. `selection` are arguments of `kubectl get events`.
    ///
    /// # Panics
    /// When they do not tell it within [`PATIENCE`].
    pub fn told(&self, selection: &str, words: &[&str]) {
        let line = format!("get events {selection} -o jsonpath={{range.items[*]}}{{.reason}}:{{.message}};{{end}}");
        eventually_or(&format!("events {selection}"), || {
            let told = self.k(&line);
            let missing: Vec<_> = words.iter().filter(|word| !told.contains(**word)).collect();
            missing.is_empty().then_some(()).ok_or_else(|| format!("{missing:?} in {told}"))
        });
    }

    /// Waits until the log of a pod's container is this. A container is ready before its program has said anything, and what that says reaches the
    /// log a moment later. `what` are arguments of `kubectl logs`.
    ///
    /// # Panics
    /// When it is not within [`PATIENCE`].
    pub fn logged(&self, what: &str, expected: &str) {
        eventually_or(&format!("the log of {what}"), || {
            let log = self.k(&format!("logs {what}"));
            (log == expected).then_some(()).ok_or_else(|| format!("is {log:?}, and to be {expected:?}"))
        });
    }

    /// Runs kubectl with an input, such as `apply -f -`.
    ///
    /// # Panics
    /// When it fails.
    pub fn k_with(&self, line: &str, input: &str) -> String {
        let outcome = self.try_k_with(line, input);
        assert_eq!(outcome.code, Some(0), "kubectl {line}: {outcome:?}");
        outcome.stdout
    }

    /// Runs kubectl with an input, whatever comes out of it.
    pub fn try_k_with(&self, line: &str, input: &str) -> Outcome {
        let path = self.scratch().join("input");
        std::fs::write(&path, input).unwrap();
        let mut command = self.kubectl_command(&line.split_whitespace().collect::<Vec<_>>());
        Outcome::of(command.stdin(std::fs::File::open(path).unwrap()))
    }

    /// Starts kubectl and reads what it prints while the test goes on.
    pub fn background(&self, line: &str) -> Background {
        Background::spawn(self.patient_command(&program()).args(line.split_whitespace()))
    }

    /// Starts kubectl on a terminal of its own.
    pub fn on_terminal(&self, line: &str) -> Background {
        let kubectl = self.kubectl_command(&[]);
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--flush", "--command", &format!("{} {line}", program().display()), "/dev/null"]);
        command.envs(kubectl.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
        Background::spawn(&mut command)
    }
}

/// A running command. It is killed with this value.
pub struct Background {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Background {
    /// Starts a command with pipes to it.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = lines(child.stdout.take().unwrap());
        Self { stdin: child.stdin.take(), child, lines }
    }

    /// Writes to its input.
    pub fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Ends its input.
    pub fn close(&mut self) {
        self.stdin = None;
    }

    /// The next line that contains this text.
    ///
    /// # Panics
    /// When none comes in time or the output ends before.
    pub fn line(&self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let line = self.lines.recv_timeout(*PATIENCE).unwrap_or_else(|_| panic!("no line with {text:?} after {seen:?}"));
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
    }

    /// The next line, until the output ends.
    ///
    /// # Panics
    /// When neither comes in time.
    pub fn next_line(&self) -> Option<String> {
        self.next_line_within(*PATIENCE)
    }

    /// The next line of a command that may be silent for this long, until the output ends.
    ///
    /// # Panics
    /// When neither comes in time.
    pub fn next_line_within(&self, limit: Duration) -> Option<String> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line within {limit:?}"),
        }
    }

    /// The rest of the output and the exit code.
    pub fn finish(mut self) -> (Vec<String>, Option<i32>) {
        self.close();
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(*PATIENCE) {
            rest.push(line);
        }
        (rest, self.child.wait().unwrap().code())
    }

    /// Asks it to end.
    pub fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}
