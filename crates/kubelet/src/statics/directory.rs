//! The files of the directory, read again when they change.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::directory::Watch;
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
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
}

/// What was last read of a file.
#[derive(Default)]
struct Known {
    text: String,
    /// A file that makes no sense keeps the pod that it had: it may be half written.
    pod: Option<Arc<Pod>>,
}

/// Follows the files; without a directory there are no static pods.
pub async fn run(cx: Arc<Context>) -> Result<(), io::Error> {
    let Some(path) = cx.options.static_pods.clone() else {
        cx.statics.set(Pods::new());
        return Ok(());
    };
    fs::create_dir_all(&path)?;
    let mut watch = Watch::new(&path)?;
    let mut known = BTreeMap::new();
    loop {
        let (directory, node) = (path.clone(), cx.options.node_name.clone());
        let read = move || read_all(&directory, &node, known);
        let (pods, next) = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
        known = next;
        cx.statics.set(pods);
        watch.changed().await?;
    }
}

type Files = BTreeMap<PathBuf, Known>;

/// The pods of all files, in the order of their names: of two with one name the first one is taken.
fn read_all(directory: &Path, node: &str, mut before: Files) -> io::Result<(Pods, Files)> {
    let is_hidden = |path: &PathBuf| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.retain(|path| !is_hidden(path) && path.is_file());
    paths.sort();
    if paths.len() > FILES {
        tracing::error!(directory = %directory.display(), "there are more than {FILES} files of static pods: the rest is not looked at");
        paths.truncate(FILES);
    }
    let (mut pods, mut files) = (Pods::new(), Files::new());
    for path in paths {
        let mut known = before.remove(&path).unwrap_or_default();
        let known_text = known.text.clone();
        if let Err(error) = refresh(&path, node, &mut known)
            && known.text != known_text
        {
            tracing::error!(file = %path.display(), %error, "a static pod is refused");
        }
        if let Some(pod) = &known.pod {
            let taken = pods.entry(key(pod)).or_insert_with(|| pod.clone());
            if taken.metadata.uid != pod.metadata.uid {
                tracing::error!(file = %path.display(), pod = %key(pod), "a static pod is refused: another file has one of this name");
            }
        }
        files.insert(path, known);
    }
    Ok((pods, files))
}

fn refresh(path: &Path, node: &str, known: &mut Known) -> Result<(), Error> {
    let file = fs::File::open(path)?;
    let seen = file.metadata()?.modified().ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_default();
    let mut text = String::new();
    file.take(FILE + 1).read_to_string(&mut text)?;
    if text == known.text {
        return Ok(());
    }
    known.text.clone_from(&text);
    if text.len() as u64 > FILE {
        return Err(Error::Long);
    }
    known.pod = Some(Arc::new(manifest::pod(&text, path, node, seen)?));
    Ok(())
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
        let read = |known| read_all(directory.path(), "n", known).unwrap();
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
        assert_eq!(uid(&read(known).0, "a-n"), uid(&later, "a-n"));
    }
}
