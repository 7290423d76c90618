//! Images from a file: an archive of an OCI layout, or of `docker save`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;

use super::layer::{LayerError, decompress, digest_of, unpack_layer};
use super::manifest::{ConfigFile, Descriptor, Manifest, check_digest};
use super::store::{Record, Store};
use crate::api::{Error, Image, Result};

/// Documents of an archive are small; blobs that are layers are never read whole.
const DOCUMENT_LIMIT: u64 = 8 << 20;

/// One image of `docker save`'s manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Imports the images of the archive `file`. Blocking.
pub(super) fn import(store: &Arc<Store>, file: &Path) -> Result<Vec<Image>> {
    let failed = |error: io::Error| Error::ImagePull(format!("{}: {error}", file.display()));
    let mut archive = Archive::open(file).map_err(failed)?;
    let images = if archive.files.contains_key("index.json") {
        archive.layout(store)
    } else if archive.files.contains_key("manifest.json") {
        archive.saved(store)
    } else {
        Err(Error::ImagePull("neither an OCI layout (index.json) nor a docker archive (manifest.json)".to_owned()))
    };
    images.map_err(|error| Error::ImagePull(format!("{}: {error}", file.display())))
}

/// A tar file and where its members are.
struct Archive {
    file: File,
    files: HashMap<String, (u64, u64)>,
}

impl Archive {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut magic = [0; 6];
        let count = file.read(&mut magic)?;
        file.rewind()?;
        if matches!(magic[..count], [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0xfd, b'7', b'z', ..]) {
            // Members are read in another order than they are stored.
            let mut plain = tempfile::tempfile()?;
            io::copy(&mut decompress(file)?, &mut plain)?;
            plain.rewind()?;
            file = plain;
        }
        let mut files = HashMap::new();
        for entry in tar::Archive::new(&file).entries_with_seek()? {
            let entry = entry?;
            if entry.header().entry_type().is_file() {
                let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
                files.insert(name, (entry.raw_file_position(), entry.size()));
            }
        }
        Ok(Self { file, files })
    }

    fn member(&mut self, name: &str) -> Result<io::Take<File>> {
        let &(position, size) =
            self.files.get(name).ok_or_else(|| Error::ImagePull(format!("{name} is missing from the archive")))?;
        let open = || -> io::Result<io::Take<File>> {
            let mut file = self.file.try_clone()?;
            file.seek(SeekFrom::Start(position))?;
            Ok(file.take(size))
        };
        open().map_err(|error| Error::ImagePull(format!("{name}: {error}")))
    }

    fn document(&mut self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.member(name)?
            .take(DOCUMENT_LIMIT)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::ImagePull(format!("{name}: {error}")))?;
        Ok(bytes)
    }

    fn blob(&mut self, digest: &str) -> Result<Vec<u8>> {
        let bytes = self.document(&blob_name(digest)?)?;
        let actual = digest_of(&bytes);
        if actual != digest {
            return Err(Error::ImagePull(format!("digest mismatch: expected {digest}, the data has {actual}")));
        }
        Ok(bytes)
    }

    fn layout(&mut self, store: &Arc<Store>) -> Result<Vec<Image>> {
        let index = Manifest::parse(&self.document("index.json")?)?;
        let mut images = Vec::new();
        for entry in &index.manifests {
            images.push(self.layout_image(store, entry)?);
        }
        if images.is_empty() {
            return Err(Error::ImagePull("index.json lists no image".to_owned()));
        }
        Ok(images)
    }

    fn layout_image(&mut self, store: &Arc<Store>, entry: &Descriptor) -> Result<Image> {
        let mut manifest = Manifest::parse(&self.blob(&entry.digest)?)?;
        if !manifest.manifests.is_empty() {
            let chosen = manifest.for_this_machine()?.digest.clone();
            manifest = Manifest::parse(&self.blob(&chosen)?)?;
        }
        let Some(config) = &manifest.config else { return Err(Error::ImagePull("the manifest has no configuration".to_owned())) };
        let document = self.blob(&config.digest)?;
        let layers = manifest.layers.iter().map(|l| Ok((blob_name(&l.digest)?, l.digest.clone()))).collect::<Result<Vec<_>>>()?;
        let named = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
        let name = named.into_iter().find_map(|key| entry.annotations.get(key));
        // A bare tag such as "latest" names no repository.
        let names: Vec<String> = name.into_iter().filter(|name| name.contains(['/', ':'])).cloned().collect();
        self.store_image(store, &config.digest, &document, &layers, &names, Some(&entry.digest))
    }

    fn saved(&mut self, store: &Arc<Store>) -> Result<Vec<Image>> {
        let saved: Vec<SavedImage> = serde_json::from_slice(&self.document("manifest.json")?)
            .map_err(|error| Error::ImagePull(format!("manifest.json: {error}")))?;
        let mut images = Vec::new();
        for image in saved {
            let document = self.document(&image.config)?;
            let mut layers = Vec::new();
            for layer in image.layers {
                let digest = self.digest(&layer)?;
                layers.push((layer, digest));
            }
            let names = image.repo_tags.unwrap_or_default();
            images.push(self.store_image(store, &digest_of(&document), &document, &layers, &names, None)?);
        }
        Ok(images)
    }

    fn digest(&mut self, name: &str) -> Result<String> {
        use sha2::Digest as _;
        let mut member = self.member(name)?;
        let mut hash = sha2::Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match member.read(&mut buffer) {
                Ok(0) => return Ok(super::layer::format_digest(hash)),
                Ok(count) => hash.update(&buffer[..count]),
                Err(error) => return Err(Error::ImagePull(format!("{name}: {error}"))),
            }
        }
    }

    fn store_image(
        &mut self,
        store: &Arc<Store>,
        id: &str,
        document: &[u8],
        layers: &[(String, String)],
        names: &[String],
        manifest: Option<&str>,
    ) -> Result<Image> {
        let file = ConfigFile::parse(document, layers.len())?;
        let _pins = store.pin(&file.rootfs.diff_ids);
        let mut size = 0;
        for ((name, digest), diff_id) in layers.iter().zip(&file.rootfs.diff_ids) {
            size += match store.layer_size(diff_id) {
                Some(size) => size,
                None => {
                    let member = self.member(name)?;
                    store
                        .add_layer::<LayerError>(diff_id, |target| unpack_layer(member, digest, diff_id, target))
                        .map_err(|error| super::layer_error(digest, &error))?
                }
            };
        }
        let (mut tags, mut digests) = (Vec::new(), Vec::new());
        for name in names {
            let reference = super::registry::parse(name)?;
            let repository = format!("{}/{}", reference.registry(), reference.repository());
            tags.extend(reference.tag().map(|tag| format!("{repository}:{tag}")));
            digests.extend(manifest.map(|digest| format!("{repository}@{digest}")));
        }
        let (config, layers) = (file.config, file.rootfs.diff_ids);
        let record = Record { id: id.to_owned(), tags, digests, layers, size, config, pulled: Timestamp::now() };
        let stored = store.complete(record).map_err(|error| Error::ImagePull(format!("storing the image: {error}")))?;
        Ok(stored.image())
    }
}

fn blob_name(digest: &str) -> Result<String> {
    check_digest(digest)?;
    Ok(format!("blobs/{}", digest.replacen(':', "/", 1)))
}
