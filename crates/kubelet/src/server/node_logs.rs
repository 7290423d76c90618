//! `/logs/`: files and directories of the node's log directory, as upstream's kubelet serves `/var/log`.
//!
//! A pod may mount that directory and put links there, so what a path leads to has to be below it, wherever links went on the way
//! (upstream follows them anywhere, to every file of the node). What was found is looked at before it is opened: a device or a pipe
//! would do something, or wait.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Take};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::{Body, text};

/// How much of a file tells what it is, in bytes.
const BEGINNING: u64 = 512;
/// What is not escaped in a link.
const LINK: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Answers with what `path`, as it stands in the URL after `/logs/`, leads to below `root`.
pub(super) async fn answer(root: PathBuf, path: String) -> Response<Body> {
    let Some(relative) = relative(&path) else { return not_found() };
    let slashed = path.is_empty() || path.ends_with('/');
    let found = tokio::task::spawn_blocking(move || look(&root, &relative, slashed)).await;
    match found.map_err(io::Error::other).flatten() {
        Ok(Answer::Listing(listing)) => page(listing),
        Ok(Answer::Elsewhere(place)) => redirect(&place),
        Ok(Answer::File(file, media_type)) => contents(file, media_type),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => not_found(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => text(StatusCode::FORBIDDEN, "403 Forbidden"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("500 Internal Server Error: {error}")),
    }
}

enum Answer {
    Listing(String),
    /// A directory by a path without its slash, from which relative links would lead elsewhere.
    Elsewhere(String),
    File(Take<File>, &'static str),
}

/// The path below the root. None when it could leave it.
fn relative(path: &str) -> Option<PathBuf> {
    let decoded = percent_decode_str(path).decode_utf8().ok()?;
    let relative = Path::new(decoded.as_ref());
    let is_plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    (is_plain && !decoded.contains('\0')).then(|| relative.to_owned())
}

/// Looks for what is there.
fn look(root: &Path, relative: &Path, slashed: bool) -> io::Result<Answer> {
    let root = root.canonicalize()?;
    let place = File::options().read(true).custom_flags(libc::O_PATH).open(root.join(relative))?;
    // Whatever becomes of the path, this file descriptor is what was found.
    let found = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
    if !fs::read_link(&found)?.starts_with(&root) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "a link out of the log directory"));
    }
    let kind = fs::metadata(&found)?.file_type();
    if kind.is_dir() && slashed {
        listing(&found).map(Answer::Listing)
    } else if kind.is_dir() {
        let name = relative.file_name().unwrap_or_default().to_string_lossy();
        Ok(Answer::Elsewhere(format!("{}/", utf8_percent_encode(&name, LINK))))
    } else if slashed {
        Err(io::ErrorKind::NotFound.into())
    } else if kind.is_file() {
        file(&found)
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "neither a file nor a directory"))
    }
}

/// The file as it is now: what is appended while it is read would never end. Its beginning tells whether it is text.
fn file(path: &Path) -> io::Result<Answer> {
    let (mut file, mut beginning) = (File::open(path)?, Vec::new());
    let length = file.metadata()?.len();
    file.by_ref().take(BEGINNING).read_to_end(&mut beginning)?;
    file.rewind()?;
    let media_type = if beginning.contains(&0) { "application/octet-stream" } else { "text/plain; charset=utf-8" };
    Ok(Answer::File(file.take(length), media_type))
}

/// A page of links, in the order of names.
fn listing(directory: &Path) -> io::Result<String> {
    let mut names = fs::read_dir(directory)?
        .map(|entry| {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok(if entry.file_type()?.is_dir() { format!("{name}/") } else { name })
        })
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    let mut page = String::from("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n");
    for name in names {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "<a href=\"{}\">{}</a>", utf8_percent_encode(&name, LINK), escaped(&name));
    }
    page.push_str("</pre>\n");
    Ok(page)
}

/// As text of a page.
fn escaped(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;")
}

fn contents(file: Take<File>, media_type: &'static str) -> Response<Body> {
    let length = file.limit();
    let chunks = ReaderStream::new(tokio::fs::File::from_std(file.into_inner()).take(length));
    let mut response = Response::new(StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn page(page: String) -> Response<Body> {
    let mut response = text(StatusCode::OK, page);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

fn redirect(place: &str) -> Response<Body> {
    let mut response = text(StatusCode::MOVED_PERMANENTLY, "");
    response.headers_mut().extend(HeaderValue::from_str(place).ok().map(|place| (header::LOCATION, place)));
    response
}

fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;

    use super::*;

    #[tokio::test]
    async fn what_is_below_the_directory_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (root, outside) = (directory.path().join("log"), directory.path().join("shadow"));
        fs::create_dir_all(root.join("pods/a b")).unwrap();
        fs::write(root.join("pods/a b/<1>.log"), "one\ntwo\n").unwrap();
        fs::write(root.join("binary"), b"a\0b").unwrap();
        fs::write(&outside, "secret").unwrap();
        symlink(root.join("pods/a b/<1>.log"), root.join("link.log")).unwrap();
        symlink(&outside, root.join("out")).unwrap();
        symlink("..", root.join("up")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), Mode::S_IRWXU).unwrap();
        let check = async |path: &str, expected: (u16, &str, &str)| {
            let response = answer(root.clone(), path.to_owned()).await;
            let (parts, body) = response.into_parts();
            let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let told = if parts.status.is_redirection() { header("location") } else { header("content-type") };
            let body = body.collect().await.unwrap().to_bytes();
            let body = String::from_utf8_lossy(&body);
            assert_eq!(parts.status.as_u16(), expected.0, "{path}: {body}");
            assert_eq!((told, body.as_ref()), (expected.1, expected.2), "{path}");
        };
        let html = |links: &str| {
            format!("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n{links}</pre>\n")
        };
        let (plain, page) = ("text/plain; charset=utf-8", "text/html; charset=utf-8");
        check("pods/a%20b/", (200, page, &html("<a href=\"%3C1%3E.log\">&lt;1&gt;.log</a>\n"))).await;
        check("pods/", (200, page, &html("<a href=\"a%20b/\">a b/</a>\n"))).await;
        check("pods", (301, "pods/", "")).await;
        check("pods/a%20b/%3C1%3E.log", (200, plain, "one\ntwo\n")).await;
        check("link.log", (200, plain, "one\ntwo\n")).await;
        check("binary", (200, "application/octet-stream", "a\0b")).await;
        for path in [
            "none",
            "binary/",
            "..",
            "../shadow",
            "%2e%2e/shadow",
            "pods/%2e%2e/%2e%2e/shadow",
            "/etc/passwd",
            "%2fetc/passwd",
            "a%00",
        ] {
            check(path, (404, "", "404 page not found")).await;
        }
        // A pipe without a writer would wait for ever; links of pods lead to nothing outside.
        for path in ["out", "up/", "up/shadow", "pipe"] {
            check(path, (403, "", "403 Forbidden")).await;
        }
    }
}
