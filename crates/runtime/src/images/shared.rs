//! What this node gives other nodes of its images, and what it takes of theirs that no registry has.

use std::io::{BufWriter, Write};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::layer::digest_of;
use super::manifest::{ConfigFile, check_digest};
use super::peers::{LayerStream, Sources};
use super::split::assemble;
use super::store::{Record, Store, name};
use super::threads::{self, PIECE, PIECES, Pieces};
use super::{CONFIG_LIMIT, Images, blocking, registry};
use crate::api::{Error, Image, Result};

/// How long another node may leave a piece of a layer: it keeps a place from others meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

impl Images {
    /// See [`super::Shared::layers`].
    pub(crate) async fn shared_layers(&self, diff_ids: Vec<String>) -> Result<Vec<String>> {
        let store = self.store.clone();
        blocking(move || diff_ids.into_iter().filter(|id| is_shared(&store, id)).collect()).await
    }

    /// See [`super::Shared::layer`].
    pub(crate) async fn shared_layer(&self, diff_id: &str) -> Result<LayerStream> {
        let (store, id) = (self.store.clone(), diff_id.to_owned());
        let pins = self.store.pin(std::slice::from_ref(&id));
        let (sender, mut receiver) = mpsc::channel(PIECES);
        let is_here = {
            let (store, id) = (store.clone(), id.clone());
            blocking(move || is_shared(&store, &id)).await?
        };
        if !is_here {
            return Err(Error::NotFound(format!("layer {diff_id}")));
        }
        let mut out = BufWriter::with_capacity(PIECE, Pieces::new(sender, Some(PATIENCE)));
        threads::begin("layer", move || {
            let _pins = pins;
            let (root, split) = store.parts(&id);
            let written = assemble(&split, &root, &mut out).and_then(|()| out.flush());
            if let Err(error) = written {
                // Who reads it no longer needs no reason.
                out.get_ref().fail(error);
            }
        })?;
        Ok(futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).boxed())
    }

    /// See [`super::Shared::imported`].
    pub(crate) async fn imported(&self, reference: &str) -> Result<Option<(Image, Bytes)>> {
        let name = name(reference)?;
        let found = self.store.list().into_iter().find(|record| record.imported.contains(&name));
        let Some(record) = found else { return Ok(None) };
        let (store, id) = (self.store.clone(), record.id.clone());
        let document = blocking(move || store.document(&id)).await?;
        let document = document.map_err(|error| Error::Internal(format!("image {reference}: {error}")))?;
        Ok(document.map(|document| (record.image(), document.into())))
    }

    /// See [`crate::api::Runtime::take_image`].
    pub(crate) async fn take(&self, reference: &str) -> Result<Option<Image>> {
        let parsed = registry::parse(reference)?;
        // What a digest names is in a registry, or is named by another digest: imports make names with tags.
        let (Some(peers), None) = (&self.peers, parsed.digest()) else { return Ok(None) };
        let name = parsed.whole();
        let _one = self.busy.lock(&name).await;
        let Some((node, document)) = peers.imported(&name).await else { return Ok(None) };
        if document.len() > CONFIG_LIMIT {
            return Err(Error::ImagePull(format!(
                "image configuration of {name} on node {node} is larger than {CONFIG_LIMIT} bytes"
            )));
        }
        let file = ConfigFile::stored(&document)?;
        let diff_ids = file.rootfs.diff_ids;
        diff_ids.iter().try_for_each(|id| check_digest(id))?;
        let _pins = self.store.pin(&diff_ids);
        let missing: Vec<String> = diff_ids.iter().filter(|id| self.store.open_layer_size(id).is_none()).cloned().collect();
        let sources = Sources::of(self.peers.as_ref(), &name, missing, usize::MAX).await;
        let mut size = 0;
        // One after the other: nodes are asked for no more at once than they serve.
        for diff_id in &diff_ids {
            let _one = self.busy.lock(&format!("nodes {diff_id}")).await;
            let here = self.store.open_layer_size(diff_id);
            size += match here {
                Some(size) => size,
                None => sources.layer(&self.store, diff_id, u64::MAX, |_| ()).await.ok_or_else(|| {
                    Error::ImagePull(format!("{name} was imported on node {node}, and no node gives layer {diff_id}"))
                })?,
            };
        }
        let record = Record {
            id: digest_of(&document),
            tags: vec![name.clone()],
            digests: Vec::new(),
            imported: vec![name],
            layers: diff_ids,
            size,
            config: file.config,
            pulled: Timestamp::now(),
        };
        let image = self.complete(record, document, &sources).await?;
        // The node that has told of it, also where all layers were here.
        Ok(Some(Image { nodes: vec![node.to_string()], ..image }))
    }
}

/// Whether a layer is here that anybody may have, with what it is put together again from. Who asks is another node, and not who asks there.
fn is_shared(store: &Store, diff_id: &str) -> bool {
    check_digest(diff_id).is_ok() && store.parts(diff_id).1.exists() && store.open_layer_size(diff_id).is_some()
}
