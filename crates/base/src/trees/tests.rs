#![allow(clippy::unwrap_used)]
use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::mkdirat;

use super::*;

/// So many directories, one in the other, in a small thread's time and place: made as their maker makes them, by descriptor.
fn deep(root: &Path, levels: usize) {
    let mut here: OwnedFd = File::open(root).unwrap().into();
    for _ in 0..levels {
        mkdirat(&here, c"d", Mode::from_raw_mode(0o755)).unwrap();
        here = open(here.as_fd(), c"d").unwrap();
    }
}

/// With as little stack as nobody has.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(128 << 10).spawn(work).unwrap().join().unwrap();
}

#[test]
fn the_deepest_tree_is_removed() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    fs::create_dir(&root).unwrap();
    deep(&root, 20_000);
    let path = root.clone();
    on_a_small_stack(move || remove(&path).unwrap());
    assert!(!root.exists());
}

#[test]
fn the_widest_tree_is_removed_and_links_are_not_followed() {
    let home = tempfile::tempdir().unwrap();
    let (root, other) = (home.path().join("root"), home.path().join("other"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("kept"), "").unwrap();
    for number in 0..2000 {
        let directory = root.join(format!("a-name-that-takes-some-room-{number}"));
        fs::create_dir_all(directory.join("b")).unwrap();
        fs::write(directory.join("file"), "").unwrap();
        symlink(&other, directory.join("link")).unwrap();
    }
    symlink("nowhere", root.join("dangling")).unwrap();
    remove(&root).unwrap();
    assert!(!root.exists() && other.join("kept").exists());
    // A link itself, a file, and what is not there.
    symlink(&other, &root).unwrap();
    remove(&root).unwrap();
    assert!(!root.is_symlink() && other.join("kept").exists());
    remove(&other.join("kept")).unwrap();
    remove(&other.join("kept")).unwrap();
    remove(&other.join("missing/too")).unwrap();
    assert!(fs::read_dir(&other).unwrap().next().is_none());
}

/// A file system that numbers the entries of a directory by their place in it, as tmpfs does before Linux 6.6.
#[test]
fn what_a_walk_passes_over_is_removed_by_the_next() {
    let home = tempfile::tempdir().unwrap();
    let mount = |program: &str, arguments: &[&str]| {
        let done = std::process::Command::new(program).args(arguments).arg(home.path()).output().unwrap();
        done.status.success()
    };
    if !mount("mount", &["-t", "ramfs", "ramfs"]) {
        return eprintln!("SKIPPED: mounting needs root");
    }
    let root = home.path().join("root");
    for number in 0..40 {
        fs::create_dir_all(root.join(format!("{number}/b"))).unwrap();
        fs::write(root.join(format!("{number}/b/file")), "").unwrap();
    }
    let removed = remove(&root);
    let is_gone = !root.exists();
    assert!(mount("umount", &[]));
    removed.unwrap();
    assert!(is_gone);
}

/// Counts the files that it sees, and moves something whenever it comes to a directory.
struct Mover<F> {
    disturb: F,
    seen: Vec<CString>,
}

impl<F: FnMut()> Visitor for Mover<F> {
    fn file(&mut self, _: BorrowedFd<'_>, name: &CStr, _: &Stat) -> io::Result<()> {
        self.seen.push(name.to_owned());
        Ok(())
    }

    fn enter(&mut self, _: BorrowedFd<'_>, _: &Stat) -> io::Result<()> {
        (self.disturb)();
        Ok(())
    }
}

/// The names of the files that a walk sees while something is moved.
fn seen(root: &Path, disturb: impl FnMut()) -> Vec<String> {
    let mut mover = Mover { disturb, seen: Vec::new() };
    walk(File::open(root).unwrap().into(), &mut mover).unwrap();
    let mut names: Vec<String> = mover.seen.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_tree_that_moves_leads_nowhere_else() {
    let home = tempfile::tempdir().unwrap();
    let (root, other) = (home.path().join("root"), home.path().join("other"));
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/own"), "").unwrap();
    fs::write(root.join("z"), "").unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("not ours"), "").unwrap();
    let away = || {
        if fs::rename(root.join("a"), other.join("away")).is_ok() {
            symlink(&other, root.join("a")).unwrap();
        }
    };
    assert_eq!(seen(&root, away), ["own", "z"]);
}

/// Who moves directories without pause hides nothing that lies beside them.
#[test]
fn what_is_beside_what_moves_is_seen() {
    let home = tempfile::tempdir().unwrap();
    for number in 0..20 {
        fs::create_dir_all(home.path().join(format!("t{number}/x/y/z"))).unwrap();
        fs::create_dir(home.path().join(format!("u{number}"))).unwrap();
        fs::write(home.path().join(format!("large-{number}")), "").unwrap();
    }
    let to_and_fro = || {
        for number in 0..20 {
            let [one, other] = ["t", "u"].map(|side| home.path().join(format!("{side}{number}/x")));
            let (from, to) = if one.exists() { (one, other) } else { (other, one) };
            fs::rename(from, to).unwrap();
        }
    };
    let names = seen(home.path(), to_and_fro);
    assert_eq!(names.len(), 20, "{names:?}");
}

/// Deeper than directories stay open, what is left beside the one that was moved is missed, and nothing above.
#[test]
fn a_deep_directory_that_moves_costs_what_is_beside_it() {
    let home = tempfile::tempdir().unwrap();
    let at = |level: usize| (0..level).fold(home.path().to_owned(), |path, _| path.join("d"));
    fs::create_dir_all(at(OPEN + 20)).unwrap();
    for level in 0..=OPEN + 20 {
        fs::write(at(level).join(format!("file-{level:03}")), "").unwrap();
    }
    let mut entered = 0;
    let names = seen(home.path(), || {
        entered += 1;
        if entered == OPEN + 15 {
            fs::rename(at(OPEN + 10), home.path().join("away")).unwrap();
        }
    });
    let upto_open = (0..=OPEN).map(|level| format!("file-{level:03}"));
    assert!(upto_open.clone().all(|name| names.contains(&name)), "{names:?}");
}
