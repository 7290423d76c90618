//! Images from an archive: an OCI layout, or what `docker save` writes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;

use super::layer::{LayerError, decompress, digest_of, unpack_layer};
use super::manifest::{ConfigFile, Descriptor, Manifest, NESTED, check_digest};
use super::metered::{HEADERS, Metered};
use super::origins::Origins;
use super::store::{Record, Store};
use super::tree::parts;
use crate::api::{Error, Image, Result};

/// Documents of an archive are small; blobs that are layers are never read whole.
const DOCUMENT_LIMIT: u64 = 8 << 20;
/// Most members of an archive; images have a few for each layer.
const MEMBERS: usize = 1 << 16;

/// One image of `docker save`'s manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An image of an archive: its names, and where its parts are.
struct Found {
    names: Vec<String>,
    /// The digest of its manifest, where it has one.
    manifest: Option<String>,
    config: Vec<u8>,
    /// Members of the archive with their digests, where the archive tells them; lowest first.
    layers: Vec<(String, Option<String>)>,
}

/// Imports the images of an archive, compressed or not. `name` is one more name for its only image. Blocking.
pub(super) fn import(store: &Arc<Store>, source: impl Read, name: Option<&str>) -> Result<Vec<Image>> {
    if let Some(name) = name
        && super::registry::parse(name)?.digest().is_some()
    {
        return Err(Error::InvalidImageName(format!("{name:?} names an image by its digest: give a name and a tag")));
    }
    let archive = Archive::open(store, source).map_err(|error| unreadable(&error))?;
    let mut found = if archive.files.contains_key("index.json") {
        archive.layout()?
    } else if archive.files.contains_key("manifest.json") {
        archive.saved()?
    } else {
        return Err(Error::ImagePull("neither an OCI layout (index.json) nor a docker archive (manifest.json)".to_owned()));
    };
    if let Some(name) = name {
        let first = found.first().map(|image| digest_of(&image.config));
        if found.iter().any(|image| Some(digest_of(&image.config)) != first) {
            return Err(Error::InvalidImageName(format!("the archive has several images: {name:?} cannot be the name of all")));
        }
        found.iter_mut().take(1).for_each(|image| image.names.push(name.to_owned()));
    }
    let mut images: Vec<Image> = Vec::new();
    for image in &found {
        let image = archive.store(store, image)?;
        // Layouts list an image once for each of its names.
        images.retain(|known| known.id != image.id);
        images.push(image);
    }
    Ok(images)
}

fn unreadable(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull => Error::ImagePull("no space left on device: free some space or remove images".to_owned()),
        _ => Error::ImagePull(format!("the archive cannot be read: {error}")),
    }
}

/// A tar file and where its members are.
struct Archive {
    file: File,
    files: HashMap<String, (u64, u64)>,
    /// Members that are links, and where they lead: older versions of docker save layers once.
    links: HashMap<String, String>,
}

impl Archive {
    /// Members are read in another order than they come: the archive is on disk meanwhile, in a file that nobody else sees.
    fn open(store: &Store, source: impl Read) -> io::Result<Self> {
        let mut file = store.scratch()?;
        io::copy(&mut decompress(source)?, &mut file)?;
        file.rewind()?;
        let (metered, allowed) = Metered::new(&file);
        let (mut files, mut links) = (HashMap::new(), HashMap::new());
        let mut archive = tar::Archive::new(metered);
        let mut entries = archive.entries_with_seek()?;
        loop {
            allowed.set(HEADERS);
            let Some(entry) = entries.next() else { break };
            let entry = entry?;
            if files.len() + links.len() > MEMBERS {
                return Err(io::Error::other(format!("it has more than {MEMBERS} members")));
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            let kind = entry.header().entry_type();
            if kind.is_file() {
                files.insert(name, (entry.raw_file_position(), entry.size()));
            } else if let Some(target) = entry.link_name_bytes().filter(|_| kind.is_symlink()) {
                let target = beside(&name, &String::from_utf8_lossy(&target));
                links.insert(name, target);
            }
        }
        Ok(Self { file, files, links })
    }

    fn member(&self, name: &str) -> Result<io::Take<File>> {
        let name = self.links.get(name).map_or(name, String::as_str);
        let &(position, size) =
            self.files.get(name).ok_or_else(|| Error::ImagePull(format!("{name} is missing from the archive")))?;
        let open = || -> io::Result<io::Take<File>> {
            let mut file = self.file.try_clone()?;
            file.seek(SeekFrom::Start(position))?;
            Ok(file.take(size))
        };
        open().map_err(|error| Error::ImagePull(format!("{name}: {error}")))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.member(name)?
            .take(DOCUMENT_LIMIT)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::ImagePull(format!("{name}: {error}")))?;
        Ok(bytes)
    }

    fn blob(&self, digest: &str) -> Result<Vec<u8>> {
        let bytes = self.document(&blob_name(digest)?)?;
        let actual = digest_of(&bytes);
        if actual != digest {
            return Err(Error::ImagePull(format!("digest mismatch: expected {digest}, the data has {actual}")));
        }
        Ok(bytes)
    }

    fn layout(&self) -> Result<Vec<Found>> {
        let index = Manifest::parse(&self.document("index.json")?)?;
        let fitting = index.manifests.iter().filter(|entry| entry.is_for_this_machine());
        let images = fitting.map(|entry| self.layout_image(entry)).collect::<Result<Vec<_>>>()?;
        if images.is_empty() {
            index.for_this_machine()?;
        }
        Ok(images)
    }

    fn layout_image(&self, entry: &Descriptor) -> Result<Found> {
        let mut manifest = Manifest::parse(&self.blob(&entry.digest)?)?;
        for _ in 0..NESTED {
            if !manifest.is_index() {
                break;
            }
            let chosen = manifest.for_this_machine()?.digest.clone();
            manifest = Manifest::parse(&self.blob(&chosen)?)?;
        }
        let Some(config) = &manifest.config else { return Err(Error::ImagePull("the manifest has no configuration".to_owned())) };
        let layer = |layer: &Descriptor| Ok((blob_name(&layer.digest)?, Some(layer.digest.clone())));
        let named = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
        let name = named.into_iter().find_map(|key| entry.annotations.get(key));
        Ok(Found {
            // A bare tag such as "latest" names no repository.
            names: name.into_iter().filter(|name| name.contains(['/', ':'])).cloned().collect(),
            manifest: Some(entry.digest.clone()),
            config: self.blob(&config.digest)?,
            layers: manifest.layers.iter().map(layer).collect::<Result<_>>()?,
        })
    }

    fn saved(&self) -> Result<Vec<Found>> {
        let saved: Vec<SavedImage> = serde_json::from_slice(&self.document("manifest.json")?)
            .map_err(|error| Error::ImagePull(format!("manifest.json: {error}")))?;
        let image = |image: SavedImage| {
            let layers = image.layers.into_iter().map(|layer| (layer, None)).collect();
            let config = self.document(&image.config)?;
            Ok(Found { names: image.repo_tags.unwrap_or_default(), manifest: None, config, layers })
        };
        saved.into_iter().map(image).collect()
    }

    fn store(&self, store: &Arc<Store>, found: &Found) -> Result<Image> {
        let file = ConfigFile::parse(&found.config, found.layers.len())?;
        let _pins = store.pin(&file.rootfs.diff_ids);
        let mut size = 0;
        for ((name, digest), diff_id) in found.layers.iter().zip(&file.rootfs.diff_ids) {
            size += match store.open_layer_size(diff_id) {
                Some(size) => size,
                None => {
                    let member = self.member(name)?;
                    let added = store
                        .add_layer::<LayerError>(diff_id, |target| unpack_layer(member, digest.as_deref(), diff_id, target))
                        .and_then(|size| Ok(store.add_origins(diff_id, &Origins::open()).map(|()| size)?));
                    added.map_err(|error| super::layer_error(digest.as_ref().unwrap_or(diff_id), &error))?
                }
            };
        }
        let (mut tags, mut digests) = (Vec::new(), Vec::new());
        for name in &found.names {
            let reference = super::registry::parse(name)?;
            let repository = format!("{}/{}", reference.registry(), reference.repository());
            tags.extend(reference.tag().map(|tag| format!("{repository}:{tag}")));
            digests.extend(found.manifest.iter().map(|digest| format!("{repository}@{digest}")));
        }
        let (config, layers) = (file.config, file.rootfs.diff_ids);
        let (id, imported, pulled) = (digest_of(&found.config), tags.clone(), Timestamp::now());
        let record = Record { id, tags, digests, imported, layers, size, config, pulled };
        let stored =
            store.complete(record, &found.config).map_err(|error| Error::ImagePull(format!("storing the image: {error}")))?;
        Ok(stored.image())
    }
}

/// Where a link of an archive leads.
fn beside(name: &str, target: &str) -> String {
    let mut place = parts(Path::new(name).parent().unwrap_or(Path::new("")));
    place.reverse();
    for part in parts(Path::new(target)).into_iter().rev() {
        if part == ".." {
            place.pop();
        } else {
            place.push(part);
        }
    }
    place.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn blob_name(digest: &str) -> Result<String> {
    check_digest(digest)?;
    Ok(format!("blobs/{}", digest.replacen(':', "/", 1)))
}

#[cfg(test)]
mod tests;
