#![allow(clippy::unwrap_used)]
use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::mkdirat;

use super::*;

/// So many directories, one in the other, in a small thread's time and place: made as their maker makes them, by descriptor.
fn deep(root: &Path, levels: usize) {
    let mut here: OwnedFd = fs::File::open(root).unwrap().into();
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

/// Counts what it sees, and puts a link to elsewhere in the place of a directory that it is about to be told of.
struct Mover<'a> {
    root: &'a Path,
    other: &'a Path,
    seen: usize,
}

impl Visitor for Mover<'_> {
    fn file(&mut self, _: BorrowedFd<'_>, _: &CStr, _: &Stat) -> io::Result<()> {
        self.seen += 1;
        Ok(())
    }

    fn enter(&mut self, _: BorrowedFd<'_>, _: &Stat) -> io::Result<()> {
        let away = self.other.join("away");
        if !away.exists() {
            fs::rename(self.root.join("a"), away)?;
            symlink(self.other, self.root.join("a"))?;
        }
        Ok(())
    }
}

#[test]
fn a_tree_that_moves_leads_nowhere_else() {
    let home = tempfile::tempdir().unwrap();
    let (root, other) = (home.path().join("root"), home.path().join("other"));
    fs::create_dir_all(root.join("a")).unwrap();
    fs::write(root.join("a/own"), "").unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("not ours"), "").unwrap();
    let mut mover = Mover { root: &root, other: &other, seen: 0 };
    let error = walk(fs::File::open(&root).unwrap().into(), &mut mover).unwrap_err();
    assert!(error.to_string().contains("moved away") && mover.seen == 1, "{error} {}", mover.seen);
}
