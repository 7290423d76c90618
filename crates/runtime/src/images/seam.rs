//! What of a layer depends on the layers below it.
//!
//! A layer is unpacked by itself, once for all images that have it. Others unpack it on top of the layers below, where directories that
//! it does not mention keep their owner and mode or lead elsewhere as links, and hard links find files that it does not have. That is
//! noted when a layer is unpacked ([`super::loose`]), and an image that needs it gets one more layer on top, which puts it right ([`Seam`]).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::copy::{Copy, equal};
use super::layer::digest_of;
use super::loose::{Loose, Unpacked};
use super::noted::Room;
use super::tree::parts;

/// Most bytes of paths of what a seam has.
const PATHS: usize = 64 << 20;

/// Most links on the way of one path.
const LINKS: usize = 40;

/// A layer of an image.
pub(super) struct Layer {
    root: PathBuf,
    loose: Loose,
}

impl Layer {
    pub(super) fn new(root: PathBuf, loose: Loose) -> Self {
        Self { root, loose }
    }
}

/// The name of the seam of these layers.
pub(super) fn id(layers: &[String]) -> String {
    digest_of(format!("seam of {}", layers.join(" ")).as_bytes())
}

/// What a layer shows at a path.
struct Seen<'a> {
    layer: &'a Layer,
    path: PathBuf,
    found: fs::Metadata,
}

impl Seen<'_> {
    /// Whether it is no more than a directory that was made for what is in it.
    fn is_implied(&self, path: &str) -> bool {
        self.found.is_dir() && self.layer.loose.directories.contains(path)
    }
}

/// What layers show at `path`, the top one first; they are given lowest first. True when what is there, if anything, hides what
/// layers below them might show.
fn look<'a>(layers: &'a [Layer], path: &str) -> io::Result<(Vec<Seen<'a>>, bool)> {
    let mut seen = Vec::new();
    for layer in layers.iter().rev() {
        let (mut at, mut parts, mut hides) = (layer.root.clone(), Path::new(path).components(), false);
        loop {
            let found = match fs::symlink_metadata(&at) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            let is_whiteout = found.file_type().is_char_device() && found.rdev() == 0;
            hides = hides || !found.is_dir() || is_opaque(&at)?;
            let Some(part) = parts.next() else {
                if !is_whiteout {
                    seen.push(Seen { layer, path: at, found });
                }
                break;
            };
            if !found.is_dir() {
                break;
            }
            at.push(part);
        }
        if hides {
            return Ok((seen, true));
        }
    }
    Ok((seen, false))
}

fn is_opaque(path: &Path) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut value = [0_u8; 1];
    // SAFETY: both strings end with NUL and the buffer is passed with its length.
    let length = unsafe { libc::lgetxattr(path.as_ptr(), c"trusted.overlay.opaque".as_ptr(), value.as_mut_ptr().cast(), 1) };
    Ok(length == 1 && value == *b"y")
}

/// The directory of which a container is to see owner and mode at `path`: the topmost that a layer speaks of, else the topmost.
fn told(layers: &[Layer], path: &str) -> io::Result<Option<(PathBuf, fs::Metadata)>> {
    let (mut seen, _) = look(layers, path)?;
    let index = seen.iter().position(|seen| !seen.is_implied(path)).unwrap_or(0);
    if seen.is_empty() || !seen[index].found.is_dir() {
        return Ok(None);
    }
    let seen = seen.swap_remove(index);
    Ok(Some((seen.path, seen.found)))
}

/// Where `path` leads when links on its way are followed; none when they lead in a circle.
fn place(layers: &[Layer], path: &str) -> io::Result<Option<String>> {
    let (mut place, mut links, mut todo) = (String::new(), 0, parts(Path::new(path)));
    while let Some(part) = todo.pop() {
        let Some(part) = part.to_str() else { return Ok(None) };
        if part == ".." {
            place.truncate(place.rfind('/').unwrap_or(0));
            continue;
        }
        let next = join(&place, part);
        let (seen, _) = look(layers, &next)?;
        let told = seen.iter().find(|seen| !seen.is_implied(&next));
        let Some(link) = told.filter(|seen| seen.found.is_symlink()) else {
            place = next;
            continue;
        };
        links += 1;
        if links > LINKS {
            return Ok(None);
        }
        let target = fs::read_link(&link.path)?;
        if target.is_absolute() {
            place.clear();
        }
        todo.extend(parts(&target));
    }
    Ok(Some(place))
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// What the topmost layer of an image has to put right.
pub(super) struct Seam<'a> {
    layers: &'a [Layer],
    /// Directories, and of which one they have owner and mode where it is not the one that layers speak of.
    directories: BTreeMap<String, Option<PathBuf>>,
    /// Files and what is to be seen there.
    files: BTreeMap<String, PathBuf>,
    room: Room,
}

impl<'a> Seam<'a> {
    /// The seam of an image, lowest layer first; none when it needs none. Blocking.
    pub(super) fn of(layers: &'a [Layer]) -> io::Result<Option<Self>> {
        Self::within(layers, Room::new("files that links of lower layers lead elsewhere", PATHS))
    }

    fn within(layers: &'a [Layer], room: Room) -> io::Result<Option<Self>> {
        let mut seam = Self { layers, directories: BTreeMap::new(), files: BTreeMap::new(), room };
        let implied: BTreeSet<&String> = layers.iter().flat_map(|layer| &layer.loose.directories).collect();
        // Below what only one layer has, others have nothing.
        let mut alone = HashSet::new();
        for path in implied {
            let parent = path.rfind('/').map_or("", |end| &path[..end]);
            if alone.contains(parent) || seam.directory(path)? {
                alone.insert(path.as_str());
            }
        }
        for (number, layer) in layers.iter().enumerate() {
            for (path, target) in &layer.loose.links {
                let (above, hidden) = look(&layers[number + 1..], path)?;
                let place = place(layers, path)?.filter(|_| above.is_empty() && !hidden);
                if let Some(place) = place {
                    seam.files.insert(place, file(&layers[..=number], target)?);
                }
            }
        }
        Ok(if seam.directories.is_empty() && seam.files.is_empty() { None } else { Some(seam) })
    }

    /// A directory that some layer does not mention: what the layers below say of it is to hold. True when only one layer has it.
    fn directory(&mut self, path: &str) -> io::Result<bool> {
        let (seen, _) = look(self.layers, path)?;
        let index = seen.iter().position(|seen| !seen.is_implied(path));
        // None where nobody says anything, or the topmost layer itself does.
        let Some(index) = index.filter(|index| *index > 0) else { return Ok(seen.len() < 2) };
        let (top, told) = (&seen[0].found, &seen[index]);
        let same = |found: &fs::Metadata| (found.mode(), found.uid(), found.gid());
        if told.found.is_dir() && same(&told.found) != same(top) {
            self.directories.insert(path.to_owned(), None);
        }
        if told.found.is_symlink()
            && let Some(place) = place(self.layers, path)?
        {
            self.files.insert(path.to_owned(), told.path.clone());
            for seen in seen[..index].iter().rev() {
                self.carry(seen.layer, &seen.path, &place)?;
            }
        }
        Ok(false)
    }

    /// Takes what a layer has in a directory to where a link leads. Not by calls of itself: a layer may be deep.
    fn carry(&mut self, layer: &Layer, from: &Path, to: &str) -> io::Result<()> {
        let mut todo = vec![(from.to_owned(), to.to_owned())];
        while let Some((from, to)) = todo.pop() {
            for entry in fs::read_dir(from)? {
                let entry = entry?;
                let (source, name) = (entry.path(), entry.file_name());
                let (Some(name), Ok(own)) = (name.to_str(), source.strip_prefix(&layer.root)) else { continue };
                let target = join(&to, name);
                // What is replaced counts as well: a link may carry the same files often.
                self.room.take(&source)?;
                self.room.take(Path::new(&target))?;
                if !fs::symlink_metadata(&source)?.is_dir() {
                    self.directories.remove(&target);
                    self.files.insert(target, source);
                    continue;
                }
                self.files.remove(&target);
                let is_implied = own.to_str().is_some_and(|own| layer.loose.directories.contains(own));
                self.directories.insert(target.clone(), (!is_implied).then(|| source.clone()));
                todo.push((source, target));
            }
        }
        Ok(())
    }

    /// Makes it in the empty directory `root`. Blocking.
    pub(super) fn make(&self, root: &Path) -> io::Result<Unpacked> {
        let parents = self.files.keys().filter_map(|path| Path::new(path).parent()?.to_str());
        let mut directories = BTreeSet::from([""]);
        for path in self.directories.keys().map(String::as_str).chain(parents) {
            directories.extend(Path::new(path).ancestors().filter_map(Path::to_str));
        }
        // Before there are links: nothing is ever made by way of one.
        for path in directories.iter().filter(|path| !path.is_empty()) {
            fs::create_dir(root.join(path))?;
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o755))?;
        }
        let (mut size, mut first) = (0, BTreeMap::new());
        for (path, source) in &self.files {
            let target = root.join(path);
            if let Some(first) = first.get(source) {
                fs::hard_link(first, &target)?;
                continue;
            }
            Copy::default().entry(source, &target)?;
            size += fs::symlink_metadata(&target)?.len();
            first.insert(source, target);
        }
        // Those below first: filling a directory changes its times.
        for path in directories.iter().rev() {
            let like = match self.directories.get(*path) {
                Some(Some(source)) => Some((source.clone(), fs::symlink_metadata(source)?)),
                _ => told(self.layers, path)?,
            };
            if let Some((source, found)) = like {
                equal(&source, &root.join(path), &found)?;
            }
        }
        Ok(Unpacked::new(size))
    }
}

/// The file that a hard link to `target` names, with these layers.
fn file(layers: &[Layer], target: &str) -> io::Result<PathBuf> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("hard link to {target}, which is in no layer"));
    let found = place(layers, target)?.ok_or_else(missing)?;
    let mut target = found.as_str();
    // A chain of links is no longer than there are of them.
    for _ in 0..=layers.iter().map(|layer| layer.loose.links.len()).sum() {
        let (seen, _) = look(layers, target)?;
        if let Some(seen) = seen.into_iter().next() {
            return if seen.found.is_dir() { Err(missing()) } else { Ok(seen.path) };
        }
        target = layers.iter().rev().find_map(|layer| layer.loose.links.get(target)).ok_or_else(missing)?;
    }
    Err(missing())
}

#[cfg(test)]
mod tests;
