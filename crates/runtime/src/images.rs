//! Images: pulled from registries or imported from archives, unpacked once per layer.

pub(crate) mod copy;
mod export;
mod header;
mod import;
mod layer;
mod loose;
pub(crate) mod manifest;
mod metered;
mod noted;
mod origins;
mod pace;
mod peers;
pub mod registry;
mod seam;
mod shared;
mod split;
mod spool;
pub(crate) mod store;
mod threads;
pub(crate) mod tree;
mod unpack;

use std::fmt::Display;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use oci_spec::distribution::Reference;
use tokio::sync::mpsc;

use self::export::Export;
use self::layer::LayerError;
use self::manifest::{ConfigFile, Descriptor, Manifest, NESTED, check_digest};
use self::origins::Origins;
use self::peers::Sources;
pub use self::peers::{LayerStream, Outcome, PeerError, Peers, Shared};
use self::registry::{Endpoint, Failure, Registries};
use self::spool::Expected;
use self::store::{Record, Store};
use self::threads::{PIECE, PIECES, PieceReader, Pieces, feed, thread};
use crate::api::{Credentials, Error, Image, Result};
use crate::keyed::Keyed;

/// Layers of one pull that are unpacked at the same time.
const PARALLEL_LAYERS: usize = 3;
/// Image configurations are small; a larger one is hostile.
const CONFIG_LIMIT: usize = 4 << 20;

/// How far the download of a layer is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The layer's digest.
    pub layer: String,
    /// Bytes that have come.
    pub done: u64,
    /// Bytes that there are; 0 when the manifest does not tell.
    pub size: u64,
    /// It is unpacked.
    pub is_ready: bool,
}

/// Where progress is told; what finds no room is left out, but not that a layer is ready.
pub type Observer = mpsc::Sender<Progress>;

/// The images of this node.
pub(crate) struct Images {
    store: Arc<Store>,
    registries: Registries,
    /// Other nodes, which may have layers.
    peers: Option<Arc<dyn Peers>>,
    /// One pull of a reference, and of a blob of a registry, at a time: the others wait and find it there.
    busy: Keyed,
}

/// A blob by what its registry says of it.
struct Blob {
    digest: String,
    /// Bytes; 0 when it is not told.
    size: u64,
}

impl Blob {
    fn of(descriptor: &Descriptor) -> Result<Self> {
        check_digest(&descriptor.digest)?;
        Ok(Self { digest: descriptor.digest.clone(), size: descriptor.size })
    }
}

/// What a registry says of an image: little memory, however long its documents are.
struct Named {
    /// Digest of the manifest, or of the index that leads to it.
    digest: String,
    config: Blob,
    layers: Vec<Blob>,
}

impl Images {
    /// Opens the image store in `dir`; `is_used` as for [`Store::open`]. Blocking.
    pub(crate) fn open(dir: &Path, is_used: bool, registries: Registries, peers: Option<Arc<dyn Peers>>) -> Result<Self> {
        // Already installed when another part of the process was faster.
        let _ = rustls::crypto::CryptoProvider::clone(&base::tls::provider()).install_default();
        let store =
            Store::open(dir, is_used).map_err(|error| Error::Internal(format!("image store {}: {error}", dir.display())))?;
        Ok(Self { store: Arc::new(store), registries, peers, busy: Keyed::default() })
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// See [`crate::api::Runtime::pull_image`]. Progress is told to the observer.
    pub(crate) async fn pull(&self, reference: &str, credentials: &[Credentials], observer: Option<&Observer>) -> Result<Image> {
        let reference = registry::parse(reference)?;
        let _one = self.busy.lock(&reference.whole()).await;
        let mut failures: Vec<Error> = Vec::new();
        for endpoint in self.registries.endpoints(&reference, credentials)? {
            match self.pull_from(&reference, &endpoint, observer).await {
                Ok(image) => return Ok(image),
                Err(error) => failures.push(error),
            }
        }
        Err(join(failures))
    }

    async fn pull_from(&self, reference: &Reference, endpoint: &Endpoint, observer: Option<&Observer>) -> Result<Image> {
        let Named { digest, config, layers } = named(endpoint).await?;
        let (document, diff_ids) = self.config(endpoint, &config, layers.len()).await?;
        let _pins = self.store.pin(&diff_ids);
        let name = format!("{}/{}", reference.registry(), reference.repository());
        // Whoever is shown the manifest of an image in a repository may have the image.
        let is_known = self.store.get(&config.digest).is_some_and(|record| record.is_of(&name));
        // Digests say what layers are, wherever they come from.
        let sources = self.sources(&reference.whole(), &diff_ids, 1).await;
        let all = layers.iter().zip(&diff_ids);
        let pulls: Vec<_> = all.map(|(layer, id)| self.layer((endpoint, &sources), layer, (id, is_known), observer)).collect();
        let sizes: Vec<u64> = futures::stream::iter(pulls).buffer_unordered(PARALLEL_LAYERS).try_collect().await?;
        let document = spool::recall(document).await.map_err(|error| stored(&error))?;
        let file = ConfigFile::stored(&document)?;
        let tags = reference.tag().filter(|_| reference.digest().is_none()).map(|tag| format!("{name}:{tag}"));
        let record = Record {
            id: config.digest,
            tags: tags.into_iter().collect(),
            digests: vec![format!("{name}@{digest}")],
            imported: Vec::new(),
            layers: diff_ids,
            size: sizes.iter().sum(),
            config: file.config,
            pulled: Timestamp::now(),
        };
        self.complete(record, document, &sources).await
    }

    /// Stores an image whose layers are here.
    async fn complete(&self, record: Record, document: Bytes, sources: &Sources) -> Result<Image> {
        let store = self.store.clone();
        let complete = blocking(move || store.complete(record, &document)).await?;
        let complete = complete.map_err(|error| stored(&error))?;
        Ok(Image { nodes: sources.used(), ..complete.image() })
    }

    /// The nodes that have those of these layers that are not here.
    async fn sources(&self, image: &str, diff_ids: &[String], failures: usize) -> Sources {
        let missing = diff_ids.iter().filter(|id| self.store.layer_size(id).is_none()).cloned().collect();
        Sources::of(self.peers.as_ref(), image, missing, failures).await
    }

    /// The configuration of an image of so many layers, on disk until they are here, and their diff IDs.
    async fn config(&self, endpoint: &Endpoint, config: &Blob, layers: usize) -> Result<(std::fs::File, Vec<String>)> {
        let document = endpoint.small_blob(&config.digest, CONFIG_LIMIT).await.map_err(|failure| match failure {
            Failure::Digest { .. } | Failure::TooLarge(_) => Error::ImagePull(format!("image configuration: {failure}")),
            other => other.of_part(&endpoint.reference),
        })?;
        let file = ConfigFile::parse(&document.bytes, layers)?;
        let kept = spool::keep(&self.store, document.bytes.clone()).await.map_err(|error| stored(&error))?;
        Ok((kept, file.rootfs.diff_ids))
    }

    /// Downloads and unpacks one layer unless it is here; gives its size.
    async fn layer(
        &self,
        (endpoint, sources): (&Endpoint, &Sources),
        layer: &Blob,
        (diff_id, is_known): (&str, bool),
        observer: Option<&Observer>,
    ) -> Result<u64> {
        // To wait for another pull saves work, and is no worse than to pull: it has the same blob from the same host. Who names the layer of
        // somebody else's image, with a blob that takes for ever, is in nobody's way.
        let _one = self.busy.lock(&format!("{} {} {diff_id}", endpoint.host(), layer.digest)).await;
        let seen = |size: u64| {
            move |done| {
                if let Some(observer) = observer {
                    let _ = observer.try_send(Progress { layer: layer.digest.clone(), done, size, is_ready: false });
                }
            }
        };
        let here = self.store.layer_size(diff_id);
        let size = match here {
            Some(size) if is_known || self.may_have(endpoint, layer, diff_id).await => size,
            // Nodes have no more to give than is here.
            Some(_) => self.download(endpoint, layer, diff_id, seen(layer.size)).await?,
            // A node sends it uncompressed, and nobody knows how large it is then.
            None => match sources.layer(&self.store, diff_id, peers::most(layer.size), seen(0)).await {
                Some(size) => size,
                None => self.download(endpoint, layer, diff_id, seen(layer.size)).await?,
            },
        };
        if let Some(observer) = observer {
            let (name, size) = (layer.digest.clone(), layer.size);
            // Nobody may look any more.
            let _ = observer.send(Progress { layer: name, done: size, size, is_ready: true }).await;
        }
        Ok(size)
    }

    /// Whether who asks here may have a layer that is on the node.
    async fn may_have(&self, endpoint: &Endpoint, layer: &Blob, diff_id: &str) -> bool {
        let origins = self.store.origins(diff_id);
        origins.is_open || origins.has(endpoint.host(), &layer.digest) && endpoint.has_blob(&layer.digest).await
    }

    async fn download(&self, endpoint: &Endpoint, layer: &Blob, diff_id: &str, seen: impl FnMut(u64)) -> Result<u64> {
        let stream = endpoint.blob(&layer.digest).await.map_err(|failure| failure.of_part(&endpoint.reference))?;
        let most = if layer.size == 0 { u64::MAX } else { layer.size };
        let origins = Origins::of(endpoint.host(), &layer.digest, endpoint.is_open());
        let expected = Expected { digest: Some(layer.digest.clone()), diff_id: diff_id.to_owned(), most, origins };
        let unpacked = spool::unpacked(&self.store, stream, expected, seen).await;
        unpacked.map_err(|error| layer_error(&layer.digest, &error))
    }

    /// All images.
    pub(crate) fn list(&self) -> Vec<Image> {
        self.store.list().iter().map(|record| record.image()).collect()
    }

    /// See [`crate::api::Runtime::image`].
    pub(crate) fn find(&self, reference: &str) -> Result<Option<Image>> {
        Ok(self.store.find(reference)?.map(|record| record.image()))
    }

    /// See [`crate::Engine::import`].
    pub(crate) async fn import<E: Display>(
        &self,
        archive: impl Stream<Item = std::result::Result<Bytes, E>> + Unpin,
        name: Option<&str>,
    ) -> Result<Vec<Image>> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let (store, name) = (self.store.clone(), name.map(str::to_owned));
        let importing = thread("import", move || import::import(&store, PieceReader::new(receiver), name.as_deref()));
        let (images, ()) = futures::join!(importing, feed(archive, sender));
        images?
    }

    /// See [`crate::Engine::export`].
    pub(crate) async fn export(&self, references: Vec<String>) -> Result<mpsc::Receiver<io::Result<Bytes>>> {
        let store = self.store.clone();
        let export = blocking(move || Export::new(&store, &references)).await??;
        let (sender, receiver) = mpsc::channel(PIECES);
        let mut out = BufWriter::with_capacity(PIECE, Pieces::new(sender, None));
        threads::begin("export", move || {
            if let Err(error) = export.write(&mut out) {
                // Who reads it no longer needs no reason.
                out.get_ref().fail(error);
            }
        })?;
        Ok(receiver)
    }
}

/// Asks a registry for the manifest of an image, by way of indexes.
async fn named(endpoint: &Endpoint) -> Result<Named> {
    let (document, digest) = endpoint.manifest().await.map_err(|failure| failure.of_manifest(&endpoint.reference))?;
    let mut manifest = Manifest::parse(&document.bytes)?;
    drop(document);
    for _ in 0..NESTED {
        if !manifest.is_index() {
            break;
        }
        let chosen = Blob::of(manifest.for_this_machine()?)?.digest;
        let document = endpoint.child(&chosen).await.map_err(|failure| failure.of_part(&endpoint.reference))?;
        manifest = Manifest::parse(&document.bytes)?;
    }
    let Some(config) = &manifest.config else {
        return Err(Error::ImagePull(format!("{}: the manifest has no configuration", endpoint.reference.whole())));
    };
    Ok(Named { digest, config: Blob::of(config)?, layers: manifest.layers.iter().map(Blob::of).collect::<Result<_>>()? })
}

fn stored(error: &io::Error) -> Error {
    Error::ImagePull(format!("storing the image: {error}"))
}

fn layer_error(digest: &str, error: &LayerError) -> Error {
    Error::ImagePull(format!("layer {digest}: {error}"))
}

impl From<std::io::Error> for LayerError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return Self::Full("the image store".to_owned());
        }
        Self::Io(error)
    }
}

/// One error out of those of all endpoints; a registry's answer says more than silence.
fn join(mut failures: Vec<Error>) -> Error {
    failures.dedup_by_key(|error| error.to_string());
    let text = failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let any = |is: fn(&Error) -> bool| failures.iter().any(is);
    if any(|error| matches!(error, Error::ImagePull(_))) {
        Error::ImagePull(text)
    } else if any(|error| matches!(error, Error::RegistryUnavailable(_))) {
        Error::RegistryUnavailable(text)
    } else {
        Error::ImageNotFound(text)
    }
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(format!("a blocking task failed: {error}")))
}
