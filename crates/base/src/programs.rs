//! Programs that answer a question: it goes to their standard input, and the answer comes from their standard output.

mod left;

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Most bytes of a program's standard error that are kept.
const COMPLAINT: u64 = 4 << 10;
/// Time to read what a program has written before it ended. Its streams may stay open: a helper that it has left in the background has them, too.
const REST: Duration = Duration::from_secs(1);

/// What a program may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From its start to its end.
    pub time: Duration,
    /// Of its answer, in bytes.
    pub answer: u64,
}

/// A program has not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be started, or not be spoken with.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It answers without end.
    #[error("the answer has more than {0} bytes")]
    TooLong(u64),
    /// It takes too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// Runs a program to its end: how it has ended, and what it has answered. The beginning of its standard error is put into `complaint`. The
/// program and what it has started are killed when it takes too long, writes too much, or nobody waits for the answer any more; what still
/// runs in its process group when the program has ended by itself is let be, and ended when later runs leave more and more.
///
/// # Errors
/// It has not answered within its limits; how it has ended is no error here.
pub async fn ask(
    command: Command,
    question: &[u8],
    limits: Limits,
    complaint: &mut Vec<u8>,
) -> Result<(ExitStatus, Vec<u8>), Error> {
    let run = run(command, question, limits.answer, complaint);
    tokio::time::timeout(limits.time, run).await.unwrap_or(Err(Error::Timeout(limits.time)))
}

async fn run(mut command: Command, question: &[u8], most: u64, complaint: &mut Vec<u8>) -> Result<(ExitStatus, Vec<u8>), Error> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = command.as_std().get_program().to_owned();
    let mut group = Group(command.process_group(0).kill_on_drop(true).spawn()?);
    let leader = group.leader();
    let (mut stdin, stdout, stderr) = (group.0.stdin.take(), group.0.stdout.take(), group.0.stderr.take());
    let write = async {
        // A program may answer without reading its question.
        if let Some(mut stdin) = stdin.take() {
            let _ = stdin.write_all(question).await;
        }
        Ok(())
    };
    let mut answer = Vec::new();
    let status = {
        let spoken = async { tokio::try_join!(read(stdout, most, &mut answer), write, listen(stderr, complaint)) };
        tokio::pin!(spoken);
        tokio::select! {
            all = &mut spoken => {
                all?;
                group.0.wait().await?
            }
            status = group.0.wait() => {
                if let Ok(all) = tokio::time::timeout(REST, spoken).await {
                    all?;
                }
                status?
            }
        }
    };
    if let Some(leader) = leader {
        // A process that stops remembers nothing.
        let _ = tokio::task::spawn_blocking(move || left::remember(&program, leader)).await;
    }
    Ok((status, answer))
}

/// A program's output, unless that is too much.
async fn read(stream: Option<impl AsyncRead + Unpin>, most: u64, output: &mut Vec<u8>) -> Result<(), Error> {
    let Some(stream) = stream else { return Ok(()) };
    stream.take(most + 1).read_to_end(output).await?;
    if output.len() as u64 > most { Err(Error::TooLong(most)) } else { Ok(()) }
}

/// Keeps the beginning of a stream and reads the rest, so that its writer does not wait.
async fn listen(stream: Option<impl AsyncRead + Unpin>, beginning: &mut Vec<u8>) -> Result<(), Error> {
    if let Some(mut stream) = stream {
        (&mut stream).take(COMPLAINT).read_to_end(beginning).await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    }
    Ok(())
}

/// A program in a process group of its own, which has its number until it was waited for.
struct Group(Child);

impl Group {
    /// None: it has ended, and the number may be another's.
    fn leader(&self) -> Option<i32> {
        self.0.id().and_then(|id| i32::try_from(id).ok())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader() {
            let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn say(script: &str, question: &[u8], time: Duration) -> (Result<(Option<i32>, String), String>, String) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut complaint = Vec::new();
        let answer = ask(command, question, Limits { time, answer: 1 << 10 }, &mut complaint).await;
        let answer = answer.map(|(status, output)| (status.code(), String::from_utf8(output).unwrap()));
        (answer.map_err(|error| error.to_string()), String::from_utf8(complaint).unwrap())
    }

    #[tokio::test]
    async fn programs_answer() {
        let long = Duration::from_secs(60);
        let check = async |script: &str, expected: Result<(i32, &str), &str>, complaint: &str| {
            let (answer, complained) = say(script, b"question", long).await;
            let answer = answer.as_ref().map(|(code, text)| (code.unwrap(), text.as_str())).map_err(String::as_str);
            assert_eq!((answer, complained.as_str()), (expected, complaint), "{script}");
        };
        check("cat", Ok((0, "question")), "").await;
        // An answer comes with a failure, too, and without the question being read.
        check("echo no >&2; echo answer; exit 3", Ok((3, "answer\n")), "no\n").await;
        check("yes", Err("the answer has more than 1024 bytes"), "").await;
        // Who is left in the background, with the streams, keeps nobody waiting, whether it is silent or not.
        check("sleep 30 & echo answer; echo so >&2", Ok((0, "answer\n")), "so\n").await;
        check("sleep 30 <&0 & echo no >&2; exit 3", Ok((3, "")), "no\n").await;
        let (_, complaint) = say("yes >&2 & sleep 0.1; kill $!", b"", long).await;
        assert!(complaint.len() <= 4 << 10);
    }

    #[tokio::test]
    async fn a_program_that_leaves_a_helper_at_every_run_gathers_few() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        std::fs::write(&program, "#!/bin/sh\nsleep 1000 >/dev/null 2>&1 & echo $!\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let run = async || {
            let limits = Limits { time: Duration::from_secs(60), answer: 1 << 10 };
            let (_, answer) = ask(Command::new(&program), b"", limits, &mut Vec::new()).await.unwrap();
            String::from_utf8(answer).unwrap().trim().parse::<i32>().unwrap()
        };
        let still_runs = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        let mut helpers = Vec::new();
        for _ in 0..left::MOST {
            helpers.push(run().await);
        }
        assert!(helpers.iter().all(|pid| still_runs(*pid)), "a few are let be");
        // One that has ended by itself makes room.
        nix::sys::signal::kill(Pid::from_raw(helpers[3]), Signal::SIGKILL).unwrap();
        while still_runs(helpers[3]) {
            tokio::task::yield_now().await;
        }
        helpers.push(run().await);
        assert!(still_runs(helpers[0]));
        helpers.push(run().await);
        while still_runs(helpers[0]) {
            tokio::task::yield_now().await;
        }
        assert!(still_runs(helpers[1]) && helpers[4..].iter().all(|pid| still_runs(*pid)));
        for pid in helpers.into_iter().filter(|pid| still_runs(*pid)) {
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    #[tokio::test]
    async fn whoever_takes_too_long_ends_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let (answer, _) = say(&script, b"", Duration::from_millis(500)).await;
        assert_eq!(answer.unwrap_err(), "no answer within 500ms");
        let child: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let still_runs = || std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while still_runs() {
            tokio::task::yield_now().await;
        }
    }
}
