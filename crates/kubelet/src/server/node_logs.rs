//! `/logs/`: files and directories of the node's log directory, as upstream's kubelet serves `/var/log`.
//!
//! A pod may mount that directory and put links there, so what a path leads to has to be below it, wherever links went on the way
//! (upstream follows them anywhere, to every file of the node). What was found is looked at before it is opened: a device or a pipe
//! would do something, or wait.
//!
//! | module | what |
//! |---|---|
//! | [`ranges`] | parts of files, pure |
//! | [`query`] | queries of services' logs (KEP-2258), pure |
//! | [`journal`] | the logs of services |

mod journal;
mod query;
mod ranges;

use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::{Body, text};
use query::Query;
use ranges::Part;

/// How much of a file tells what it is, in bytes.
const BEGINNING: u64 = 512;
/// What is not escaped in a link.
const LINK: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The journal's own program.
const JOURNALCTL: &str = "journalctl";

/// Answers with what `path`, as it stands in the URL after `/logs/`, leads to below `root`, or with what the query of the URL asks for where
/// queries are answered.
pub(super) async fn answer(root: PathBuf, path: &str, headers: &HeaderMap, query: Option<&str>) -> Response<Body> {
    let query = match query.map(Query::parse).transpose() {
        Ok(query) => query.flatten(),
        Err(errors) => return text(StatusCode::BAD_REQUEST, errors.to_string()),
    };
    let Some(query) = query else {
        let decoded = percent_decode_str(path).decode_utf8();
        return match decoded {
            Ok(path) => file_or_directory(root, &path, headers).await,
            Err(_) => not_found(),
        };
    };
    if !path.is_empty() {
        return text(StatusCode::NOT_ACCEPTABLE, "path not allowed in query mode");
    }
    match query.check() {
        Err(errors) => text(StatusCode::NOT_ACCEPTABLE, errors.to_string()),
        Ok(Some(file)) => file_or_directory(root, file.trim_start_matches('/'), headers).await,
        Ok(None) => journal::answer(JOURNALCTL.as_ref(), root, &query).await,
    }
}

/// Answers with what a path leads to.
async fn file_or_directory(root: PathBuf, path: &str, headers: &HeaderMap) -> Response<Body> {
    let Some(relative) = relative(path) else { return not_found() };
    let slashed = path.is_empty() || path.ends_with('/');
    let found = tokio::task::spawn_blocking(move || look(&root, &relative, slashed)).await;
    match found.map_err(io::Error::other).flatten() {
        Ok(Answer::Listing(listing)) => page(listing),
        Ok(Answer::Elsewhere(place)) => redirect(&place),
        Ok(Answer::File(found)) => contents(found, headers).await,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => not_found(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => text(StatusCode::FORBIDDEN, "403 Forbidden"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("500 Internal Server Error: {error}")),
    }
}

enum Answer {
    Listing(String),
    /// A directory by a path without its slash, from which relative links would lead elsewhere.
    Elsewhere(String),
    File(Found),
}

/// A file as it was when it was found: what is appended while it is read would never end.
struct Found {
    file: File,
    length: u64,
    changed: SystemTime,
    media_type: &'static str,
}

/// The path below the root. None when it could leave it.
fn relative(path: &str) -> Option<PathBuf> {
    let relative = Path::new(path);
    let is_plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    (is_plain && !path.contains('\0')).then(|| relative.to_owned())
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

/// The file as it is now. Its beginning tells whether it is text.
fn file(path: &Path) -> io::Result<Answer> {
    let (mut file, mut beginning) = (File::open(path)?, Vec::new());
    let metadata = file.metadata()?;
    file.by_ref().take(BEGINNING).read_to_end(&mut beginning)?;
    file.rewind()?;
    let media_type = if beginning.contains(&0) { "application/octet-stream" } else { "text/plain; charset=utf-8" };
    Ok(Answer::File(Found { file, length: metadata.len(), changed: metadata.modified()?, media_type }))
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

/// The file, or the part of it that is asked for, as Go's `http.FileServer` answers.
async fn contents(found: Found, headers: &HeaderMap) -> Response<Body> {
    let Found { mut file, length, changed, media_type } = found;
    let (status, first, count) = match Part::of(headers, length, changed) {
        Part::Whole => (StatusCode::OK, 0, length),
        Part::Bytes(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Part::Nothing => {
            let mut response = text(StatusCode::RANGE_NOT_SATISFIABLE, "invalid range: failed to overlap");
            insert(&mut response, header::CONTENT_RANGE, &format!("bytes */{length}"));
            return response;
        }
        Part::Unchanged => return dated(text(StatusCode::NOT_MODIFIED, ""), changed),
        Part::Changed => return text(StatusCode::PRECONDITION_FAILED, ""),
    };
    let sought = tokio::task::spawn_blocking(move || file.seek(SeekFrom::Start(first)).map(|_| file)).await;
    let file = match sought.map_err(io::Error::other).flatten() {
        Ok(file) => file,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("500 Internal Server Error: {error}")),
    };
    let chunks = ReaderStream::new(tokio::fs::File::from_std(file).take(count));
    let mut response = Response::new(StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync());
    *response.status_mut() = status;
    if status == StatusCode::PARTIAL_CONTENT {
        insert(&mut response, header::CONTENT_RANGE, &format!("bytes {first}-{}/{length}", first + count - 1));
    }
    insert(&mut response, header::CONTENT_LENGTH, &count.to_string());
    insert(&mut response, header::ACCEPT_RANGES, "bytes");
    insert(&mut response, header::CONTENT_TYPE, media_type);
    dated(response, changed)
}

fn dated(mut response: Response<Body>, changed: SystemTime) -> Response<Body> {
    insert(&mut response, header::LAST_MODIFIED, &httpdate::fmt_http_date(ranges::seconds(changed)));
    response
}

fn insert(response: &mut Response<Body>, name: header::HeaderName, value: &str) {
    response.headers_mut().extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
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
            let response = answer(root.clone(), path, &HeaderMap::new(), None).await;
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

    #[tokio::test]
    async fn parts_of_files() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.log"), "0123456789").unwrap();
        let ask = async |headers: &[(header::HeaderName, &str)]| {
            let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            let (parts, body) = answer(directory.path().to_owned(), "a.log", &headers, None).await.into_parts();
            let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
            let told = |name| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
            let changed = told(header::LAST_MODIFIED);
            ((parts.status.as_u16(), told(header::CONTENT_RANGE), told(header::CONTENT_LENGTH), body), changed)
        };
        let part = |status, range: &str, length: &str, body: &str| (status, range.to_owned(), length.to_owned(), body.to_owned());
        let (whole, changed) = ask(&[]).await;
        assert_eq!(whole, part(200, "", "10", "0123456789"));
        assert_eq!(ask(&[(header::RANGE, "bytes=2-4")]).await.0, part(206, "bytes 2-4/10", "3", "234"));
        assert_eq!(ask(&[(header::RANGE, "bytes=-2")]).await.0, part(206, "bytes 8-9/10", "2", "89"));
        let nothing = part(416, "bytes */10", "", "invalid range: failed to overlap");
        assert_eq!(ask(&[(header::RANGE, "bytes=10-")]).await.0, nothing);
        assert_eq!(ask(&[(header::IF_MODIFIED_SINCE, &changed)]).await, (part(304, "", "", ""), changed));
    }

    #[tokio::test]
    async fn queries_of_files() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("log");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a%41.log"), "of a\n").unwrap();
        fs::write(directory.path().join("shadow"), "secret").unwrap();
        symlink("../shadow", root.join("out")).unwrap();
        let check = async |path: &str, query: Option<&str>, expected: (u16, &str)| {
            let (parts, body) = answer(root.clone(), path, &HeaderMap::new(), query).await.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            assert_eq!((parts.status.as_u16(), String::from_utf8_lossy(&body).as_ref()), expected, "{path} {query:?}");
        };
        check("", Some("query=/a%2541.log"), (200, "of a\n")).await;
        check("a%2541.log", Some(""), (200, "of a\n")).await;
        check("", Some("query=/../shadow"), (404, "404 page not found")).await;
        check("", Some("query=/out"), (403, "403 Forbidden")).await;
        check("", Some("query=/none"), (404, "404 page not found")).await;
        check("a%2541.log", Some("query=kubelet"), (406, "path not allowed in query mode")).await;
        check("", Some("query=kube.let"), (406, "query: Invalid value: \"kube.let\": input contains unsupported characters"))
            .await;
        check("", Some("query=+"), (400, "query: Invalid value: [\" \"]: query cannot be empty")).await;
        // Who does not answer queries shows the directory, as upstream.
        let listing = "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n\
                       <a href=\"a%2541.log\">a%41.log</a>\n<a href=\"out\">out</a>\n</pre>\n";
        check("", None, (200, listing)).await;
    }
}
