//! Logs of services: the journal's, or what stands under their names in the directory.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base::programs::{self, Limits};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio_util::io::ReaderStream;

use super::query::Query;
use super::{Answer, look};
use crate::server::Body;

/// Longest time that a query takes: then its answer ends.
const TIME: Duration = Duration::from_secs(30);
/// Most bytes of the names of units.
const UNITS: u64 = 4 << 20;

type Chunks = BoxStream<'static, io::Result<Bytes>>;

/// Answers a query of services. `program` is journalctl.
pub(super) async fn answer(program: &OsStr, root: PathBuf, query: &Query) -> Response<Body> {
    let units = units(program).await;
    let (of_journal, of_files): (Vec<&str>, Vec<&str>) =
        query.services.iter().map(String::as_str).partition(|service| units.contains(&format!("{service}.service")));
    let mut parts: Vec<Chunks> = Vec::new();
    if !of_journal.is_empty() {
        let said = ask(program, query.arguments(&of_journal));
        parts.push(said.unwrap_or_else(|_| say("\nerror: journal output not available\n".to_owned())));
    }
    if !of_files.is_empty() && query.has_options() {
        let names = of_files.join(" ");
        let message =
            format!("\noptions present and query resolved to log files for [{names}]\ntry without specifying options\n");
        parts.push(say(message));
    } else {
        for service in of_files {
            parts.push(file_of(root.clone(), service.to_owned()).await);
        }
    }
    let all = stream::iter(parts).flatten().take_until(tokio::time::sleep(TIME));
    let mut response = Response::new(StreamBody::new(all.map(|chunk| chunk.map(Frame::data))).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=UTF-8"));
    response
}

/// The units that the journal has something of; none where there is no journal.
async fn units(program: &OsStr) -> BTreeSet<String> {
    let mut command = Command::new(program);
    command.args(["--field", "_SYSTEMD_UNIT"]);
    let limits = Limits { time: TIME, answer: UNITS };
    match programs::ask(command, b"", limits, &mut Vec::new()).await {
        Ok((status, answer)) if status.success() => String::from_utf8_lossy(&answer).lines().map(str::to_owned).collect(),
        _ => BTreeSet::new(),
    }
}

/// What the program says, and complains of. It ends with the stream.
fn ask(program: &OsStr, arguments: Vec<String>) -> io::Result<Chunks> {
    let (reader, writer) = io::pipe()?;
    let child: Child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .kill_on_drop(true)
        .spawn()?;
    let chunks = ReaderStream::new(pipe::Receiver::from_owned_fd(reader.into())?);
    Ok(chunks
        .map(move |chunk| {
            let _runs = &child;
            chunk
        })
        .boxed())
}

fn say(message: String) -> Chunks {
    stream::once(std::future::ready(Ok(Bytes::from(message)))).boxed()
}

/// The first of the service's files that there is.
async fn file_of(root: PathBuf, service: String) -> Chunks {
    let names = [service.clone(), format!("{service}.log"), format!("{service}/{service}.log")];
    let find = move || {
        for name in names {
            match look(&root, name.as_ref(), false) {
                Ok(Answer::File(file)) => return Ok(Some(file)),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    };
    match tokio::task::spawn_blocking(find).await.map_err(io::Error::other).flatten() {
        Ok(Some(found)) => ReaderStream::new(tokio::fs::File::from_std(found.file).take(found.length)).boxed(),
        Ok(None) => say(format!("\nlog not found for {service}\n")),
        Err(error) => say(format!("\nerror getting log for {service}: {error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    /// A journal of the units `kubelet` and `sshd`, which says what it was asked.
    fn journal(directory: &Path) -> PathBuf {
        let program = directory.join("journalctl");
        let script = "#!/bin/sh\nif [ \"$1\" = --field ]; then echo kubelet.service; echo sshd.service; exit; fi\n\
                      for word in \"$@\"; do echo \"$word\"; done\necho complains >&2\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    /// KEP-2258: services that log to the journal are read from there, others from files under /var/log.
    #[tokio::test]
    async fn services_are_in_the_journal_or_in_files() {
        let directory = tempfile::tempdir().unwrap();
        let (root, program) = (directory.path().join("log"), journal(directory.path()));
        std::fs::create_dir_all(root.join("deep")).unwrap();
        std::fs::create_dir(root.join("empty")).unwrap();
        std::fs::write(root.join("plain"), "of plain\n").unwrap();
        std::fs::write(root.join("dotted.log"), "of dotted\n").unwrap();
        std::fs::write(root.join("deep/deep.log"), "of deep\n").unwrap();
        std::fs::write(directory.path().join("shadow"), "secret\n").unwrap();
        symlink("../shadow", root.join("out.log")).unwrap();
        let check = async |program: &Path, query: &str, expected: &str| {
            let query = Query::parse(query).unwrap().unwrap();
            let response = answer(program.as_os_str(), root.clone(), &query).await;
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(String::from_utf8_lossy(&body), expected, "{query:?}");
        };
        let asked = "--utc\n--no-pager\n--output=short-precise\n";
        check(&program, "query=kubelet&query=sshd", &format!("{asked}--unit=kubelet\n--unit=sshd\ncomplains\n")).await;
        check(&program, "query=plain&query=dotted&query=deep", "of plain\nof dotted\nof deep\n").await;
        check(&program, "query=kubelet&query=plain", &format!("{asked}--unit=kubelet\ncomplains\nof plain\n")).await;
        let with_options = "\noptions present and query resolved to log files for [plain deep]\ntry without specifying options\n";
        check(&program, "query=plain&query=deep&tailLines=1", with_options).await;
        check(&program, "query=kube", "\nlog not found for kube\n").await;
        check(&program, "query=empty", "\nlog not found for empty\n").await;
        check(&program, "query=out", "\nerror getting log for out: a link out of the log directory\n").await;
        let none = directory.path().join("none");
        check(&none, "query=kubelet", "\nlog not found for kubelet\n").await;
        check(&none, "query=dotted", "of dotted\n").await;
    }
}
