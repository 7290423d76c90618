//! Files that symbolic links lead to: what they are may change elsewhere than where the links are.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use futures::future::select_all;

use crate::directory::Followed;

/// Most links on the way to a file, as the kernel's.
const LINKS: usize = 40;

/// The directories in which a change may have `path` lead to something else: those of the links on its way, and that of what it leads to. None
/// where no link is on its way. Blocking.
pub fn ways(path: &Path) -> BTreeSet<PathBuf> {
    let parts = |path: &Path| -> Vec<OsString> { path.components().rev().map(|part| part.as_os_str().to_owned()).collect() };
    let (mut ways, mut at, mut left) = (BTreeSet::new(), PathBuf::new(), LINKS);
    let mut parts_left = parts(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    while let Some(part) = parts_left.pop() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => drop(at.pop()),
            Some(Component::CurDir) | None => {}
            Some(_) => {
                let next = at.join(&part);
                match fs::read_link(&next) {
                    Ok(target) if left > 0 => {
                        left -= 1;
                        ways.insert(at.clone());
                        parts_left.extend(parts(&target));
                    }
                    _ => at = next,
                }
            }
        }
    }
    if !ways.is_empty() {
        ways.extend(at.parent().map(Path::to_owned));
    }
    ways
}

/// Directories that are followed as long as somebody wants to know of them.
#[derive(Default)]
pub struct Several(BTreeMap<PathBuf, Followed>);

impl Several {
    /// Follows these and no others from now on. Whether one is new: what has happened in it before is not told.
    pub fn follow(&mut self, wanted: &BTreeSet<PathBuf>) -> bool {
        self.0.retain(|path, _| wanted.contains(path));
        let known = self.0.len();
        for path in wanted {
            self.0.entry(path.clone()).or_insert_with(|| Followed::new(path));
        }
        self.0.len() > known
    }

    /// Returns when something may have changed in one of them; never where there is none. Safe to drop and call again.
    pub async fn changed(&mut self) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.0.values_mut().map(|followed| Box::pin(followed.changed()))).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_ways_of_links() {
        let home = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(home.path()).unwrap();
        let at = |path: &str| root.join(path);
        for directory in ["here", "there/v1", "far"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        fs::write(at("here/plain"), "").unwrap();
        symlink("../there/current/file", at("here/relative")).unwrap();
        symlink("v1", at("there/current")).unwrap();
        symlink(at("far/gone"), at("there/v1/file")).unwrap();
        symlink("loop", at("here/loop")).unwrap();
        let check = |path: &str, expected: &[&str]| {
            assert_eq!(ways(&at(path)), expected.iter().map(|path| at(path)).collect(), "{path}");
        };
        check("here/plain", &[]);
        check("here/none", &[]);
        check("here/relative", &["here", "there", "there/v1", "far"]);
        check("there/current/../v1/file", &["there", "there/v1", "far"]);
        check("here/loop", &["here"]);
    }

    #[tokio::test]
    async fn each_of_several_is_told_of() {
        let home = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| home.path().join(name));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&other).unwrap();
        let mut several = Several::default();
        assert!(several.follow(&[one.clone(), other.clone()].into()) && !several.follow(&[other.clone()].into()));
        assert!(several.follow(&[one.clone(), other.clone()].into()));
        for directory in [&one, &other] {
            fs::write(directory.join("a"), "x").unwrap();
            tokio::time::timeout(std::time::Duration::from_secs(5), several.changed()).await.unwrap();
        }
    }
}
