#![allow(clippy::unwrap_used)]
use tar::EntryType::{self, Directory, Link, Regular, Symlink};

use super::*;
use crate::images::split::Split;
use crate::images::unpack::unpack;

/// Type, path, mode, owner, and the content or the target of a link.
type Item<'a> = (EntryType, &'a str, u32, u64, &'a str);

fn layer(root: &Path, items: &[Item<'_>]) -> Layer {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, mode, owner, content) in items {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_size(0);
        if matches!(*kind, Link | Symlink) {
            builder.append_link(&mut header, path, content).unwrap();
        } else {
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
    }
    fs::create_dir(root).unwrap();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    let unpacked = unpack(&builder.into_inner().unwrap()[..], root, &Split::new(io::sink())).unwrap();
    Layer::new(root.to_owned(), unpacked.loose)
}

/// What the seam of these layers, lowest first, holds: path, mode, owner and content.
fn check(layers: &[&[Item<'_>]], expected: Result<&[(&str, u32, u32, &str)], &str>) {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("SKIPPED: unpacking sets owners, which needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let layers: Vec<Layer> =
        layers.iter().enumerate().map(|(number, items)| layer(&dir.path().join(number.to_string()), items)).collect();
    let root = dir.path().join("seam");
    fs::create_dir(&root).unwrap();
    let made = Seam::of(&layers).and_then(|seam| seam.map(|seam| seam.make(&root)).transpose());
    let mut found = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let (Ok(Some(_)), Some(path)) = (&made, left.pop()) {
        let stat = fs::symlink_metadata(root.join(&path)).unwrap();
        let content = match stat.is_symlink() {
            true => format!("-> {}", fs::read_link(root.join(&path)).unwrap().display()),
            false => fs::read_to_string(root.join(&path)).unwrap_or_default(),
        };
        found.push((path.display().to_string(), stat.mode() & 0o7777, stat.uid(), content));
        let children = fs::read_dir(root.join(&path)).into_iter().filter(|_| stat.is_dir()).flatten().flatten();
        left.extend(children.map(|entry| path.join(entry.file_name())));
    }
    found.sort();
    let found: Vec<_> =
        found.iter().map(|(path, mode, owner, content)| (path.as_str(), *mode, *owner, content.as_str())).collect();
    match expected {
        Ok(expected) => assert_eq!((found.as_slice(), made.is_ok()), (expected, true)),
        Err(text) => assert!(made.as_ref().is_err_and(|error| error.to_string().contains(text)), "{made:?}"),
    }
}

const TMP: Item<'static> = (Directory, "tmp/", 0o1777, 0, "");
const FILE: Item<'static> = (Regular, "tmp/x", 0o600, 5, "text");

#[test]
fn directories_that_a_layer_does_not_mention_stay_as_they_are() {
    check(&[&[TMP], &[FILE]], Ok(&[("", 0o755, 0, ""), ("tmp", 0o1777, 0, "")]));
    let private = (Directory, "srv/priv/", 0o700, 9, "");
    let below = (Regular, "srv/priv/a/b", 0o600, 0, "");
    check(
        &[&[private], &[(Regular, "srv/priv/x", 0o600, 0, "")], &[below]],
        Ok(&[("", 0o755, 0, ""), ("srv", 0o755, 0, ""), ("srv/priv", 0o700, 9, "")]),
    );
    // Said by the layer itself, said by one above, the same anyhow, nowhere said.
    check(&[&[TMP], &[(Directory, "tmp/", 0o755, 0, ""), FILE]], Ok(&[]));
    check(&[&[TMP], &[FILE], &[(Directory, "tmp/", 0o700, 0, "")]], Ok(&[]));
    check(&[&[(Directory, "tmp/", 0o755, 0, "")], &[FILE]], Ok(&[]));
    check(&[&[FILE]], Ok(&[]));
    // Removed and made anew.
    check(&[&[TMP], &[(Regular, ".wh.tmp", 0, 0, "")], &[FILE]], Ok(&[]));
    check(&[&[TMP], &[(Regular, "tmp/.wh..wh..opq", 0, 0, ""), FILE]], Ok(&[]));
    check(&[&[(Directory, "./", 0o711, 3, "")], &[FILE]], Ok(&[("", 0o711, 3, "")]));
}

#[test]
fn hard_links_lead_to_lower_layers() {
    let link = (Link, "opt/h", 0o644, 0, "tmp/x");
    let made: &[_] = &[("", 0o755, 0, ""), ("opt", 0o755, 0, ""), ("opt/h", 0o600, 5, "text")];
    check(&[&[FILE], &[link]], Ok(made));
    check(&[&[FILE], &[link], &[(Regular, "tmp/x", 0o644, 0, "new")]], Ok(made));
    check(&[&[FILE], &[link], &[(Regular, "opt/.wh.h", 0, 0, "")]], Ok(&[]));
    check(&[&[FILE], &[link], &[(Regular, "opt/h", 0o644, 0, "other")]], Ok(&[]));
    check(
        &[&[FILE], &[(Link, "opt/g", 0o644, 0, "tmp/x")], &[(Link, "opt/h", 0o644, 0, "opt/g")]],
        Ok(&[("", 0o755, 0, ""), ("opt", 0o755, 0, ""), ("opt/g", 0o600, 5, "text"), ("opt/h", 0o600, 5, "text")]),
    );
    check(&[&[(Regular, "other", 0, 0, "")], &[link]], Err("hard link to tmp/x, which is in no layer"));
    check(&[&[FILE], &[(Regular, "tmp/.wh.x", 0, 0, ""), link]], Err("no layer"));
}

/// The layer of a program for a distribution whose `/bin` is a link.
#[test]
fn files_go_where_links_of_lower_layers_lead() {
    let base: &[Item<'_>] =
        &[(Directory, "usr/", 0o755, 0, ""), (Directory, "usr/bin/", 0o751, 0, ""), (Symlink, "bin", 0o777, 0, "usr/bin")];
    let program: &[Item<'_>] = &[(Regular, "bin/app", 0o755, 2, "app"), (Directory, "bin/sub/", 0o700, 3, "")];
    check(
        &[base, program],
        Ok(&[
            ("", 0o755, 0, ""),
            ("bin", 0o777, 0, "-> usr/bin"),
            ("usr", 0o755, 0, ""),
            ("usr/bin", 0o751, 0, ""),
            ("usr/bin/app", 0o755, 2, "app"),
            ("usr/bin/sub", 0o700, 3, ""),
        ]),
    );
    let round: &[Item<'_>] = &[(Symlink, "bin", 0o777, 0, "bin")];
    check(&[round, program], Ok(&[]));
    // A layer that says that it is a directory has one.
    check(&[base, &[(Directory, "bin/", 0o755, 0, ""), (Regular, "bin/app", 0o755, 2, "app")]], Ok(&[]));
    check(
        &[base, &[(Regular, "usr/bin/a", 0o755, 2, "a")], &[(Link, "opt/h", 0, 0, "bin/a")]],
        Ok(&[
            ("", 0o755, 0, ""),
            ("opt", 0o755, 0, ""),
            ("opt/h", 0o755, 2, "a"),
            ("usr", 0o755, 0, ""),
            ("usr/bin", 0o751, 0, ""),
        ]),
    );
}

#[test]
fn links_carry_no_more_files_than_can_be_kept_track_of() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("SKIPPED: unpacking sets owners, which needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<String> = (0..100).map(|number| format!("bin/{number}")).collect();
    let program: Vec<Item<'_>> = files.iter().map(|path| (Regular, path.as_str(), 0o644, 0, "")).collect();
    let base = layer(&dir.path().join("0"), &[(Directory, "usr/bin/", 0o755, 0, ""), (Symlink, "bin", 0o777, 0, "usr/bin")]);
    let layers = [base, layer(&dir.path().join("1"), &program)];
    let most = |most: usize| Seam::within(&layers, Room::new("files", most)).map(|seam| seam.unwrap().files.len());
    assert_eq!(most(1 << 20).unwrap(), 101);
    assert!(most(1 << 10).unwrap_err().to_string().contains("files are more than"));
}
