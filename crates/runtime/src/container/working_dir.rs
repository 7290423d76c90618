//! The working directory of a container. It is made where it is missing, as other runtimes make it once all is mounted: in the root file
//! system, or in the volume that it is in.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::fcntl::OFlag;
use serde_json::Value;

use super::mapped::Mapped;
use crate::images::tree::Tree;

/// A volume as a container is shown it.
pub(crate) struct Volume<'a> {
    /// What is mounted.
    pub(crate) shown: &'a Path,
    /// Where its files are for the node.
    pub(crate) files: &'a Path,
    /// Its files have the owners that users of the container are for the node.
    pub(crate) is_users: bool,
}

/// Makes the directory `path` of a container with the OCI configuration `spec`, whose root file system is `tree`. Blocking.
///
/// # Errors
/// It cannot be made.
pub(crate) fn make(
    tree: &mut Tree,
    path: &Path,
    spec: &Value,
    volumes: &[Volume<'_>],
    mapped: Option<&Mapped>,
) -> io::Result<()> {
    let mounts = mounts(spec);
    let place = tree.resolve(path, &|place| mounts.iter().any(|mount| mount.destination == place))?;
    let Some(mount) = covering(&mounts, &place) else {
        return make_in(tree, place.strip_prefix("/").unwrap_or(&place), mapped);
    };
    let rest = place.strip_prefix(mount.destination).unwrap_or(Path::new(""));
    let volume = volumes.iter().find(|volume| Some(volume.shown) == mount.source);
    // What cannot be written to has the directory, or the container does not start.
    let Some(volume) = volume.filter(|volume| !mount.is_read_only && volume.files.is_dir()) else { return Ok(()) };
    let mut files = Tree::open(volume.files)?;
    // A link leads to somewhere in the container, which the volume alone does not tell.
    if files.resolve(rest, &|_| false)? != Path::new("/").join(rest) {
        return Ok(());
    }
    make_in(&mut files, rest, mapped.filter(|_| volume.is_users))
}

/// Makes a directory with its parents, which belong to root of the container.
fn make_in(tree: &mut Tree, path: &Path, mapped: Option<&Mapped>) -> io::Result<()> {
    tree.directory(path)?;
    let Some(mapped) = mapped else { return Ok(()) };
    for made in tree.take_made() {
        mapped.adopt(tree.open_beneath(&made, OFlag::O_PATH | OFlag::O_DIRECTORY)?.as_raw_fd())?;
    }
    Ok(())
}

/// A mount of a container.
#[derive(Debug, PartialEq, Eq)]
struct Mounted<'a> {
    destination: &'a Path,
    /// The directory that is bound, if it is one.
    source: Option<&'a Path>,
    is_read_only: bool,
}

/// The mounts of an OCI configuration, in their order.
fn mounts(spec: &Value) -> Vec<Mounted<'_>> {
    spec["mounts"].as_array().into_iter().flatten().filter_map(mounted).collect()
}

fn mounted(mount: &Value) -> Option<Mounted<'_>> {
    let text = |name: &str| mount[name].as_str();
    let is_read_only = mount["options"].as_array().is_some_and(|options| options.iter().any(|option| option == "ro"));
    let source = text("source").filter(|_| text("type") == Some("bind")).map(Path::new);
    Some(Mounted { destination: Path::new(text("destination")?), source, is_read_only })
}

/// The mount that has what is at `place`: the innermost one, and of several at one place the last.
fn covering<'a>(mounts: &'a [Mounted<'a>], place: &Path) -> Option<&'a Mounted<'a>> {
    let depth = |mount: &&Mounted<'_>| mount.destination.components().count();
    mounts.iter().filter(|mount| place.starts_with(mount.destination)).max_by_key(depth)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_innermost_mount_has_it() {
        let bind = |destination: &str, source: &str, mode: &str| json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind", mode]});
        let proc = json!({"destination": "/proc", "type": "proc", "source": "proc"});
        let spec = json!({"mounts": [proc, bind("/data", "/v", "rw"), bind("/data/in", "/w", "ro"), bind("/data", "/x", "rw")]});
        let mounts = mounts(&spec);
        let check = |place: &str, expected: Option<(Option<&str>, bool)>| {
            let found = covering(&mounts, Path::new(place)).map(|mount| (mount.source, mount.is_read_only));
            assert_eq!(found, expected.map(|(source, mode)| (source.map(Path::new), mode)), "{place}");
        };
        check("/data/app", Some((Some("/x"), false)));
        check("/data", Some((Some("/x"), false)));
        check("/data/in/app", Some((Some("/w"), true)));
        check("/database", None);
        check("/proc/x", Some((None, false)));
    }

    /// runc makes it in what is mounted (`prepareRootfs`): images have working directories below places at which pods mount volumes.
    #[test]
    fn it_is_made_where_the_container_looks_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["root/etc", "volume/there", "read"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        symlink("/data", at("root/link")).unwrap();
        symlink("/etc", at("volume/out")).unwrap();
        let bind = |destination: &str, source: PathBuf, mode: &str| json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind", mode]});
        let mounts = [bind("/data", at("shown"), "rw"), bind("/read", at("read"), "ro"), bind("/file", at("volume"), "rw")];
        let spec = json!({"mounts": mounts});
        let check = |path: &str, made: Option<&str>| {
            let mut tree = Tree::open(&at("root")).unwrap();
            let (shown, files, read) = (at("shown"), at("volume"), at("read"));
            let volumes = [
                Volume { shown: &shown, files: &files, is_users: false },
                Volume { shown: &read, files: &read, is_users: false },
            ];
            make(&mut tree, Path::new(path), &spec, &volumes, None).unwrap();
            assert_eq!(made.map(|name| at(name).is_dir()), made.map(|_| true), "{path}");
        };
        check("/made/here", Some("root/made/here"));
        check("/../../up", Some("root/up"));
        check("/data/app/in", Some("volume/app/in"));
        check("/link/linked", Some("volume/linked"));
        check("/data/there", Some("volume/there"));
        check("/data", None);
        // A link of the volume leads out of it, and nothing is made in its place; nor is it in what is only read, or is no volume.
        check("/data/out/x", None);
        check("/read/x", None);
        check("/file/x", None);
        let left = |name: &str| fs::read_dir(at(name)).unwrap().count();
        assert_eq!((left("root/etc"), left("read"), at("volume/etc").exists(), at("volume/x").exists()), (0, 0, false, false));
        assert_eq!(left("root"), 4, "etc, link, made and up");
    }
}
