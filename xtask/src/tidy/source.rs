//! The workspace's Rust files, and what none of them may contain.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::tools;

/// Crates that may say `unsafe`: they make system calls, or stand in for them.
const UNSAFE: &[&str] = &["crates/runtime", "crates/network", "crates/simulator"];

/// One file.
pub struct File {
    /// Below the workspace's root.
    pub path: String,
    /// Its text.
    pub text: String,
    /// Test code from the first line to the last.
    pub test: bool,
}

impl File {
    /// The lines before the file's test module: production code.
    pub fn production(&self) -> &str {
        if self.test {
            return "";
        }
        let end = self.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        &self.text[..end]
    }
}

/// Reads every Rust file of the workspace.
pub fn read() -> Result<Vec<File>> {
    let root = tools::root();
    let mut files = Vec::new();
    for directory in ["knarr", "xtask", "crates"] {
        walk(&root.join(directory), &root, &mut files)?;
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn walk(directory: &Path, root: &Path, files: &mut Vec<File>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let path: PathBuf = entry?.path();
        if path.is_dir() {
            walk(&path, root, files)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path)?;
            let path = path.strip_prefix(root)?.to_string_lossy().into_owned();
            files.push(File { test: is_test(&path), path, text });
        }
    }
    Ok(())
}

/// Integration tests, test modules in files of their own, tools of developers, and the crate that only tests use.
fn is_test(path: &str) -> bool {
    let part = |part: &str| {
        matches!(part, "tests" | "tests.rs" | "testing" | "testing.rs" | "benches" | "examples" | "test_support.rs")
            || part.ends_with("_tests.rs")
    };
    path.split('/').any(part)
}

/// Complaints about single files and about crates that left the common lints.
pub fn check(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    let unwrap = concat!(".unwrap", "()");
    let home =
        tools::root().parent().filter(|parent| parent.components().count() > 1).map(|parent| format!("{}/", parent.display()));
    for file in files {
        let allowed = file.production().contains("allow(clippy::unwrap_used)");
        for (number, line) in file.production().lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains(unwrap) && !allowed {
                complaints.push(format!("{}:{}: unwrap outside tests", file.path, number + 1));
            }
        }
        if file.path.ends_with("/mod.rs") && !file.path.ends_with("/tests/common/mod.rs") {
            complaints.push(format!("{}: a module with parts is a file beside its directory, name.rs and name/", file.path));
        }
        if home.as_ref().is_some_and(|home| file.text.contains(home)) {
            complaints.push(format!("{}: names a directory of this machine", file.path));
        }
    }
    complaints.extend(lints());
    complaints.extend(notes(&tools::root().join("release-notes")));
    complaints
}

/// Release notes say something.
fn notes(directory: &Path) -> Vec<String> {
    let mut complaints = Vec::new();
    let entries: std::io::Result<Vec<_>> = fs::read_dir(directory).and_then(Iterator::collect);
    let entries = entries.unwrap_or_else(|error| {
        complaints.push(format!("{}: {error}", directory.display()));
        Vec::new()
    });
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            complaints.extend(notes(&path));
            continue;
        }
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => complaints.push(format!("{}: says nothing", path.display())),
            Ok(_) => {}
            Err(error) => complaints.push(format!("{}: {error}", path.display())),
        }
    }
    complaints
}

/// Every crate takes the workspace's lints, which forbid `unsafe`; three say why they do not.
fn lints() -> Vec<String> {
    let root = tools::root();
    let crates = fs::read_dir(root.join("crates")).into_iter().flatten().flatten();
    let names = crates.map(|entry| format!("crates/{}", entry.file_name().to_string_lossy()));
    let free = |name: &String| !UNSAFE.contains(&name.as_str());
    let manifests = names.filter(free).chain(["knarr".to_owned(), "xtask".to_owned()]);
    let strays = manifests.filter(|name| {
        let manifest = fs::read_to_string(root.join(name).join("Cargo.toml")).unwrap_or_default();
        !manifest.contains("[lints]\nworkspace = true")
    });
    strays.map(|name| format!("{name}/Cargo.toml does not take the workspace's lints, which forbid unsafe code")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_files() {
        let check = |path: &str, expected: bool| assert_eq!(is_test(path), expected, "{path}");
        check("crates/store/tests/crash.rs", true);
        check("crates/testing/src/lib.rs", true);
        check("crates/kinds/src/pod/tests.rs", true);
        check("crates/kinds/src/core/pod.rs", false);
    }

    #[test]
    fn production_ends_where_tests_begin() {
        let text = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n".to_owned();
        let file = File { path: String::new(), text, test: false };
        assert_eq!(file.production(), "fn a() {}\n");
    }

    #[test]
    fn empty_and_unreadable_notes_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("unreleased");
        fs::create_dir(&below).unwrap();
        fs::write(below.join("said.md"), "- Something.\n").unwrap();
        assert_eq!(notes(directory.path()), Vec::<String>::new());
        fs::write(below.join("empty.md"), "\n").unwrap();
        assert_eq!(notes(directory.path()), [format!("{}: says nothing", below.join("empty.md").display())]);
        // Nobody reads what is no text, or not there; not even root.
        fs::write(below.join("empty.md"), [0xff]).unwrap();
        for path in [directory.path(), &below.join("absent")] {
            assert_eq!(notes(path).len(), 1, "{}", path.display());
        }
    }
}
