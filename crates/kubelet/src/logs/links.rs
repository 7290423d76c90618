//! Links to the logs of containers by the names that log collectors know: `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`, as upstream's
//! kubelet makes them (`logSymlink` in kuberuntime).

use std::io;
use std::path::{Path, PathBuf};

/// The longest name of a file, in bytes.
const LONGEST: usize = 255;
const END: &str = ".log";

/// The directory of the links: beside that of the logs, `/var/log/containers` by convention.
pub fn directory(pod_logs: &Path) -> PathBuf {
    pod_logs.with_file_name("containers")
}

/// The name of the link of a container. One that is too long is cut before its end.
pub fn name((namespace, pod): (&str, &str), container: &str, id: &str) -> String {
    let name = format!("{pod}_{namespace}_{container}-{id}");
    let cut = name.floor_char_boundary(LONGEST - END.len());
    format!("{}{END}", &name[..cut])
}

/// Makes the link of a container that starts.
pub async fn make(link: &Path, log: &Path) -> io::Result<()> {
    match tokio::fs::symlink(log, link).await {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Removes the links to a log, or to all below a directory of logs. Blocking.
pub fn remove(directory: &Path, logs: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let link = entry?.path();
        if std::fs::read_link(&link).is_ok_and(|log| log.starts_with(logs)) {
            std::fs::remove_file(&link)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names() {
        assert_eq!(directory(Path::new("/var/log/pods")), Path::new("/var/log/containers"));
        assert_eq!(name(("kube-system", "web-0"), "main", "f00d"), "web-0_kube-system_main-f00d.log");
        let long = name(("n", &"p".repeat(253)), "c", "f00d");
        assert!(long.len() == LONGEST && long.ends_with("p.log"), "{long}");
    }

    #[tokio::test]
    async fn links_go_with_their_logs() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let logs = Path::new("/logs/a_b_1");
        for (link, log) in [("one.log", "x/0.log"), ("two.log", "x/1.log"), ("three.log", "y/0.log")] {
            make(&at(link), &logs.join(log)).await.unwrap();
            make(&at(link), &logs.join(log)).await.unwrap();
        }
        make(&at("other.log"), Path::new("/logs/a_b_12/x/0.log")).await.unwrap();
        std::fs::write(at("file.log"), "").unwrap();
        let left = || {
            let mut names: Vec<_> =
                std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        remove(directory.path(), &logs.join("x/0.log")).unwrap();
        assert_eq!(left(), ["file.log", "other.log", "three.log", "two.log"]);
        remove(directory.path(), logs).unwrap();
        assert_eq!(left(), ["file.log", "other.log"]);
        remove(&at("none"), logs).unwrap();
    }
}
