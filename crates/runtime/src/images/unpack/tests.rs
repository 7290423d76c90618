#![allow(clippy::unwrap_used)]
use super::*;
use std::os::unix::fs::MetadataExt;

type Item<'a> = (EntryType, &'a str, &'a str, u32);

fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, content, mode) in items {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_mtime(1);
        header.set_uid(0);
        header.set_gid(0);
        // Written by hand: the library refuses to write hostile names.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        let data = if kind.is_file() { content.as_bytes() } else { &[] };
        header.set_size(data.len() as u64);
        if !kind.is_file() {
            header.set_link_name_literal(content).unwrap();
        }
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn check(items: &[Item<'_>], expected: Result<&[(&str, &str)], &str>) {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: unpacking sets owners and whiteouts, which needs root");
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    let target = outer.path().join("layer");
    std::fs::create_dir(&target).unwrap();
    match (unpack(&archive(items)[..], &target, &Split::new(io::sink())), expected) {
        (Ok(_), Ok(files)) => {
            for (path, content) in files {
                let stat = std::fs::symlink_metadata(target.join(path)).unwrap();
                match *content {
                    "WHITEOUT" => assert_eq!((stat.mode() & libc::S_IFMT, stat.rdev()), (libc::S_IFCHR, 0), "{path}"),
                    content => assert_eq!(std::fs::read_to_string(target.join(path)).unwrap(), content, "{path}"),
                }
            }
        }
        (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
        (result, _) => panic!("{items:?}: {result:?}"),
    }
    assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1, "nothing beside the layer: {items:?}");
}

#[test]
fn layers_unpack_and_hostile_ones_stay_inside() {
    use EntryType as T;
    check(&[(T::Regular, "a/b/c", "x", 0o4755)], Ok(&[("a/b/c", "x")]));
    check(&[(T::Regular, "a", "x", 0o644), (T::Link, "b", "a", 0o644)], Ok(&[("b", "x")]));
    check(&[(T::Regular, "a", "old", 0o644), (T::Regular, "a", "new", 0o644)], Ok(&[("a", "new")]));
    check(&[(T::Regular, "d/.wh.gone", "", 0o644)], Ok(&[("d/gone", "WHITEOUT")]));
    check(&[(T::Regular, "../x", "x", 0o644)], Err("leaves the layer"));
    check(&[(T::Link, "x", "../../etc/passwd", 0o644)], Err("leaves the layer"));
    // An absolute link is taken as a process inside would.
    check(
        &[(T::Directory, "in", "", 0o755), (T::Symlink, "l", "/in", 0o777), (T::Regular, "l/f", "x", 0o644)],
        Ok(&[("in/f", "x")]),
    );
    check(&[(T::Symlink, "l", "../..", 0o777), (T::Regular, "l/f", "x", 0o644)], Ok(&[("f", "x")]));
    // A link to what only a layer below has: the directory is made where it leads, as containerd does.
    check(
        &[(T::Symlink, "var/run", "/run", 0o777), (T::Regular, "var/run/a/f", "x", 0o644), (T::Regular, "run/g", "y", 0o644)],
        Ok(&[("run/a/f", "x"), ("run/g", "y")]),
    );
    check(
        &[(T::Symlink, "l", "m/n", 0o777), (T::Symlink, "m", "../o", 0o777), (T::Regular, "l/f", "x", 0o644)],
        Ok(&[("o/n/f", "x")]),
    );
    check(&[(T::Symlink, "l", "l", 0o777), (T::Regular, "l/f", "x", 0o644)], Err(""));
    check(&[(T::Regular, "f", "", 0o644), (T::Symlink, "l", "f", 0o777), (T::Regular, "l/f", "x", 0o644)], Err(""));
    // Names before `..` are no matter.
    check(&[(T::Regular, "a/../b", "x", 0o644), (T::Link, "c", "z/../b", 0o644)], Ok(&[("b", "x"), ("c", "x")]));
    check(&[(T::Regular, "a/../../b", "x", 0o644)], Err("leaves the layer"));
    // A directory in the way of a file, with content.
    check(&[(T::Regular, "d/e/f", "x", 0o644), (T::Regular, "d", "file", 0o644)], Ok(&[("d", "file")]));
}

/// As Python's tarfile writes them: what does not apply to an entry is blank, and here everything else, too.
#[test]
fn blank_fields_are_zero() {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: unpacking sets owners, which needs root");
        return;
    }
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name) in [(b'6', "pipe"), (b'0', "file"), (0, "old/")] {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().linkflag = [kind];
        let fields = header.as_ustar_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.dev_major = [0; 8];
        fields.dev_minor = [b' '; 8];
        (fields.mode, fields.uid, fields.gid, fields.mtime) = ([b' '; 8], [0; 8], [b' '; 8], [0; 12]);
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
    }
    let target = tempfile::tempdir().unwrap();
    unpack(&builder.into_inner().unwrap()[..], target.path(), &Split::new(io::sink())).unwrap();
    for (name, kind) in [("pipe", libc::S_IFIFO), ("file", libc::S_IFREG), ("old", libc::S_IFDIR)] {
        let stat = std::fs::symlink_metadata(target.path().join(name)).unwrap();
        assert_eq!((stat.mode(), stat.uid(), stat.gid(), stat.mtime(), stat.rdev()), (kind, 0, 0, 0, 0), "{name}");
    }
}

/// An archive of so many entries with these paths.
fn many(kind: EntryType, count: usize, path: fn(usize) -> String, link: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for number in 0..count {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(0);
        match kind {
            EntryType::Link => builder.append_link(&mut header, path(number), link).unwrap(),
            _ => builder.append_data(&mut header, path(number), io::empty()).unwrap(),
        }
    }
    builder.into_inner().unwrap()
}

/// What entries take in memory has a bound, whatever they take in the stream.
#[test]
fn entries_leave_little_in_memory() {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: unpacking sets owners, which needs root");
        return;
    }
    let check = |kind: EntryType, count: usize, path: fn(usize) -> String, expected: Result<usize, &str>| {
        let target = tempfile::tempdir().unwrap();
        let long = "d/".repeat(2000);
        match (unpack(&many(kind, count, path, &long)[..], target.path(), &Split::new(io::sink())), expected) {
            (Ok(unpacked), Ok(links)) => assert_eq!(unpacked.loose.links.len(), links),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (other, _) => panic!("{kind:?} {other:?}"),
        }
    };
    check(EntryType::Directory, 3000, |_| "a/".repeat(100), Ok(0));
    check(EntryType::Link, 3000, |_| "link".to_owned(), Ok(1));
    check(EntryType::Link, 1000, |number| format!("link{number}"), Ok(1000));
    check(EntryType::Link, 4000, |number| format!("link{number}"), Err("hard links to other layers' files"));
}

/// A header of this type that announces `size` bytes, and zeros for ever.
fn endless(kind: u8, size: u64) -> impl Read {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::new(kind));
    header.set_size(size);
    header.set_cksum();
    io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(0))
}

#[test]
fn headers_are_bounded() {
    for kind in [b'L', b'K', b'x'] {
        let target = tempfile::tempdir().unwrap();
        let error = unpack(endless(kind, 1 << 40), target.path(), &Split::new(io::sink())).unwrap_err().to_string();
        assert!(error.contains("headers of an entry are larger"), "{error}");
    }
}

#[test]
fn noise_is_refused() {
    // Deterministic: valid archives with bytes changed, and noise.
    let good = archive(&[(EntryType::Regular, "a/b", "x", 0o644), (EntryType::Symlink, "l", "a", 0o777)]);
    let mut seed = 0x9e37_79b9_u64;
    let mut next = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    for _ in 0..500 {
        let outer = tempfile::tempdir().unwrap();
        let target = outer.path().join("layer");
        std::fs::create_dir(&target).unwrap();
        let mut bytes = good.clone();
        for _ in 0..=next() % 8 {
            let at = next() % bytes.len();
            bytes[at] = next() as u8;
        }
        // The checksum would refuse nearly all.
        let mut header = tar::Header::from_byte_slice(&bytes[..512]).clone();
        header.set_cksum();
        bytes[..512].copy_from_slice(header.as_bytes());
        // Refused or not, it ends and stays inside.
        let _ = unpack(&bytes[..], &target, &Split::new(io::sink()));
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
    }
}

#[test]
fn modes_times_and_opaque_marks_are_kept() {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let target = tempfile::tempdir().unwrap();
    let items: &[Item<'_>] = &[
        (EntryType::Directory, "d", "", 0o1777),
        (EntryType::Regular, "d/.wh..wh..opq", "", 0),
        (EntryType::Regular, "s", "x", 0o4755),
    ];
    unpack(&archive(items)[..], target.path(), &Split::new(io::sink())).unwrap();
    let stat = std::fs::metadata(target.path().join("d")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.mtime()), (0o1777, 1));
    assert_eq!(std::fs::metadata(target.path().join("s")).unwrap().mode() & 0o7777, 0o4755);
    let path = CString::new(target.path().join("d").as_os_str().as_bytes()).unwrap();
    let mut value = [0u8; 4];
    // SAFETY: the buffer is passed with its length.
    let read =
        unsafe { libc::lgetxattr(path.as_ptr(), c"trusted.overlay.opaque".as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    assert_eq!(&value[..read as usize], b"y");
}
