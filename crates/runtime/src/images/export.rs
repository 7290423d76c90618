//! Images to an archive that is both an OCI layout and what `docker load` reads.
//!
//! Layers go out uncompressed: those bytes are known by the image's configuration, and so the image keeps its identifier. Its manifest is
//! another one than that of the registry, which named compressed layers.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use serde_json::{Value, json};

use super::layer::{Hashing, digest_of};
use super::manifest::ConfigFile;
use super::split::assemble;
use super::store::{Pins, Store};
use crate::api::{Error, Result};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image that goes out.
struct Exported {
    /// Names by tag.
    names: Vec<String>,
    config: Vec<u8>,
    /// Lowest first.
    diff_ids: Vec<String>,
}

/// What goes out, all of it known to be whole.
pub(super) struct Export {
    store: Arc<Store>,
    images: Vec<Exported>,
    /// Sizes of their layers, bytes.
    layers: BTreeMap<String, u64>,
    _pins: Vec<Pins>,
}

impl Export {
    /// Looks at each of the images: a layer that cannot be put together as it was is told before anything is written. Blocking.
    pub(super) fn new(store: &Arc<Store>, references: &[String]) -> Result<Self> {
        let mut export = Self { store: store.clone(), images: Vec::new(), layers: BTreeMap::new(), _pins: Vec::new() };
        for reference in references {
            let record = store.find(reference)?.ok_or_else(|| Error::NotFound(format!("image {reference}")))?;
            let failed = |error: &dyn std::fmt::Display| Error::Internal(format!("image {reference}: {error}"));
            let old = "it was stored by an earlier version, which has not kept all of it: remove it and pull it again";
            let config = store.document(&record.id).map_err(|error| failed(&error))?.ok_or_else(|| failed(&old))?;
            let diff_ids = ConfigFile::stored(&config)?.rootfs.diff_ids;
            export._pins.push(store.pin(&diff_ids));
            for diff_id in &diff_ids {
                if !export.layers.contains_key(diff_id) {
                    let size = whole(store, diff_id).map_err(|error| failed(&format!("layer {diff_id}: {error}")))?;
                    export.layers.insert(diff_id.clone(), size);
                }
            }
            let asked = super::registry::parse(reference).ok().map(|parsed| parsed.whole());
            let names = match asked.filter(|name| record.tags.contains(name)) {
                Some(name) => vec![name],
                None => record.tags.clone(),
            };
            export.images.push(Exported { names, config, diff_ids });
        }
        Ok(export)
    }

    /// Writes the archive. Blocking.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let (mut blobs, mut manifests, mut saved) = (BTreeMap::new(), Vec::new(), Vec::new());
        for image in &self.images {
            let manifest = self.manifest(image);
            let (digest, size) = (digest_of(&manifest), manifest.len());
            let entry =
                |annotations: Value| json!({"mediaType": MANIFEST, "digest": digest, "size": size, "annotations": annotations});
            let tag = |name: &str| name.rsplit(':').next().unwrap_or_default().to_owned();
            manifests.extend(
                image
                    .names
                    .iter()
                    .map(|name| entry(json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag(name)}))),
            );
            if image.names.is_empty() {
                manifests.push(entry(json!({})));
            }
            let layers: Vec<String> = image.diff_ids.iter().map(|id| path(id)).collect();
            saved.push(json!({"Config": path(&digest_of(&image.config)), "RepoTags": image.names, "Layers": layers}));
            blobs.insert(digest_of(&image.config), image.config.clone());
            blobs.insert(digest, manifest);
        }
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests});
        document(out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        document(out, "index.json", index.to_string().as_bytes())?;
        document(out, "manifest.json", json!(saved).to_string().as_bytes())?;
        for (digest, bytes) in &blobs {
            document(out, &path(digest), bytes)?;
        }
        for (diff_id, size) in &self.layers {
            head(out, &path(diff_id), *size)?;
            let (root, split) = self.store.parts(diff_id);
            assemble(&split, &root, out)?;
            pad(out, *size)?;
        }
        out.write_all(&[0; 1024])?;
        out.flush()
    }

    fn manifest(&self, image: &Exported) -> Vec<u8> {
        let layer = |id: &String| {
            let size = self.layers.get(id).copied().unwrap_or_default();
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": id, "size": size})
        };
        let layers: Vec<Value> = image.diff_ids.iter().map(layer).collect();
        let (digest, size) = (digest_of(&image.config), image.config.len());
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size});
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).to_string().into_bytes()
    }
}

/// The size of a layer's stream, when it can be put together as it was.
fn whole(store: &Store, diff_id: &str) -> io::Result<u64> {
    let (root, split) = store.parts(diff_id);
    let missing = "it has two files of one name, of which the first is gone, or an earlier version has unpacked it, so that it cannot be put together as it was";
    if !split.exists() {
        return Err(io::Error::new(io::ErrorKind::NotFound, missing));
    }
    let mut out = Hashing::new(io::sink());
    assemble(&split, &root, &mut out)?;
    let size = out.length();
    match out.digest() == diff_id {
        true => Ok(size),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its files are not those that it was unpacked to: remove the image and pull it again",
        )),
    }
}

fn path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn document(out: &mut impl Write, path: &str, bytes: &[u8]) -> io::Result<()> {
    head(out, path, bytes.len() as u64)?;
    out.write_all(bytes)?;
    pad(out, bytes.len() as u64)
}

fn head(out: &mut impl Write, path: &str, size: u64) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_cksum();
    out.write_all(header.as_bytes())
}

/// Fills the last block of 512 bytes.
fn pad(out: &mut impl Write, size: u64) -> io::Result<()> {
    let over = (size % 512) as usize;
    if over == 0 { Ok(()) } else { out.write_all(&[0; 512][over..]) }
}
