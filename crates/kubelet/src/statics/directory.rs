//! The files of the directory, read again when they change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::directory::{Followed, Several, ways};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{Pods, key, manifest};
use crate::context::Context;

/// Most bytes of a file.
const FILE: u64 = 1 << 20;
/// Most files; more are not looked at.
const FILES: usize = 1024;

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it has more than 1 MiB")]
    Long,
    #[error("it is no text in UTF-8")]
    Text(#[from] std::str::Utf8Error),
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
}

/// What was last read of a file.
#[derive(Default)]
struct Known {
    bytes: Vec<u8>,
    /// What is wrong with them.
    fault: Option<String>,
    /// What was last said of the file.
    told: Option<String>,
    /// A file that makes no sense keeps the pod that it had: it may be half written.
    pod: Option<Arc<Pod>>,
}

/// Follows the files; without a directory there are no static pods. The directory may be gone for a while, and so are its pods then.
pub async fn run(cx: Arc<Context>) -> Result<(), io::Error> {
    let Some(path) = cx.options.static_pods.clone() else {
        cx.statics.set(Pods::new());
        return Ok(());
    };
    fs::create_dir_all(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let (mut changes, mut links) = (Followed::new(&path), Several::default());
    let mut known = Files::new();
    loop {
        let (directory, node) = (path.clone(), cx.options.node_name.clone());
        let read = move || (ways_of_links(&directory), read_all(&directory, &node, known));
        let (ways, (pods, next)) = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?;
        known = next;
        cx.statics.set(pods);
        // What has happened in a directory before it was followed is read now.
        if links.follow(&ways) {
            continue;
        }
        tokio::select! {
            () = changes.changed() => {}
            () = links.changed() => {}
        }
    }
}

/// The directories on the ways of symbolic links, of those in the directory and of its own: what they lead to may change there.
fn ways_of_links(directory: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink())).take(FILES);
    links.map(|entry| entry.path()).chain([directory.to_owned()]).flat_map(|path| ways(&path)).collect()
}

type Files = BTreeMap<PathBuf, Known>;

/// The pods of all files, in the order of their names: of two with one name the first one is taken.
fn read_all(directory: &Path, node: &str, before: Files) -> (Pods, Files) {
    let paths = match paths(directory) {
        Ok(paths) => paths,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(directory = %directory.display(), "there is no directory of static pods");
            Vec::new()
        }
        // The pods that it had stay.
        Err(error) => {
            tracing::error!(directory = %directory.display(), %error, "the static pods cannot be read");
            before.keys().cloned().collect()
        }
    };
    let (mut pods, mut files, mut before) = (Pods::new(), Files::new(), before);
    for path in paths {
        let mut known = before.remove(&path).unwrap_or_default();
        let mut refused = known.refresh(&path, node);
        if let Some(pod) = &known.pod {
            let taken = pods.entry(key(pod)).or_insert_with(|| pod.clone());
            if taken.metadata.uid != pod.metadata.uid {
                refused = Some(format!("another file has the pod {}", key(pod)));
            }
        }
        known.tell(&path, refused);
        files.insert(path, known);
    }
    (pods, files)
}

/// The files of the directory.
fn paths(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let is_hidden = |path: &PathBuf| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.retain(|path| !is_hidden(path) && path.is_file());
    paths.sort();
    if paths.len() > FILES {
        tracing::error!(directory = %directory.display(), "there are more than {FILES} files of static pods: the rest is not looked at");
        paths.truncate(FILES);
    }
    Ok(paths)
}

/// What is in the file, and when it was written.
fn read(path: &Path) -> Result<(Vec<u8>, Timestamp), Error> {
    let file = base::records::open(path)?;
    let written = file.metadata()?.modified().ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_default();
    let mut bytes = Vec::new();
    file.take(FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE { Err(Error::Long) } else { Ok((bytes, written)) }
}

fn parse(bytes: &[u8], path: &Path, node: &str, written: Timestamp) -> Result<Pod, Error> {
    Ok(manifest::pod(std::str::from_utf8(bytes)?, path, node, written)?)
}

impl Known {
    /// Reads the file again; says why it is not taken.
    fn refresh(&mut self, path: &Path, node: &str) -> Option<String> {
        let (bytes, written) = match read(path) {
            Ok(read) => read,
            Err(error) => return Some(error.to_string()),
        };
        if bytes != self.bytes {
            let parsed = parse(&bytes, path, node, written);
            self.fault = parsed.as_ref().err().map(Error::to_string);
            self.pod = parsed.map(Arc::new).ok().or(self.pod.take());
            self.bytes = bytes;
        }
        self.fault.clone()
    }

    /// Says why the file is refused, once.
    fn tell(&mut self, path: &Path, refused: Option<String>) {
        if let Some(error) = refused.as_ref().filter(|_| refused != self.told) {
            tracing::error!(file = %path.display(), error, "a static pod is refused");
        }
        self.told = refused;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pods: &Pods) -> Vec<&str> {
        pods.keys().map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn files_come_change_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let text = |name: &str, image: &str| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: c, image: {image}}}]}}}}"
            )
        };
        let write = |file: &str, text: &str| fs::write(directory.path().join(file), text).unwrap();
        let read = |known| read_all(directory.path(), "n", known);
        write("b.yaml", &text("b", "one"));
        write("a.yaml", &text("a", "one"));
        write(".hidden", &text("h", "one"));
        write("twice.yaml", &text("a", "two"));
        fs::create_dir(directory.path().join("sub")).unwrap();
        let (pods, known) = read(Files::new());
        assert_eq!(names(&pods), ["a-n", "b-n"]);
        let uid = |pods: &Pods, name: &str| pods.iter().find(|(key, _)| key.name == name).unwrap().1.metadata.uid.clone();
        write("a.yaml", "{");
        let (half, known) = read(known);
        assert_eq!(uid(&half, "a-n"), uid(&pods, "a-n"), "it is half written");
        write("a.yaml", &text("a", "three"));
        fs::remove_file(directory.path().join("b.yaml")).unwrap();
        let (later, known) = read(known);
        assert_eq!(names(&later), ["a-n"]);
        assert_ne!(uid(&later, "a-n"), uid(&pods, "a-n"));
        write("a.yaml", &"x".repeat(FILE as usize + 1));
        let (long, known) = read(known);
        assert_eq!(uid(&long, "a-n"), uid(&later, "a-n"));
        base::trees::remove(directory.path()).unwrap();
        assert_eq!(names(&read(known).0), [""; 0]);
    }

    /// What is wrong with a file is said, and again only when something else is.
    #[test]
    fn refusals_are_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
        let told = |files: &Files, path: &Path| files[path].told.clone().unwrap_or_default();
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: i}]}}";
        fs::write(&one, b"\xff\xfe{}").unwrap();
        fs::write(&two, pod).unwrap();
        let (pods, files) = read_all(directory.path(), "n", Files::new());
        assert_eq!((told(&files, &one).as_str(), names(&pods)), ("it is no text in UTF-8", vec!["a-n"]));
        let (_, files) = read_all(directory.path(), "n", files);
        assert_eq!(told(&files, &one), "it is no text in UTF-8");
        fs::write(&one, pod).unwrap();
        let (_, files) = read_all(directory.path(), "n", files);
        assert_eq!((told(&files, &one).as_str(), told(&files, &two).as_str()), ("", "another file has the pod default/a-n"));
        fs::write(&one, "x".repeat(FILE as usize + 1)).unwrap();
        assert_eq!(told(&read_all(directory.path(), "n", files).1, &one), "it has more than 1 MiB");
    }
}
