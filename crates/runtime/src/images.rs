//! Images: pulled from registries or imported from archives, unpacked once per layer.

pub(crate) mod copy;
mod export;
mod header;
mod import;
mod layer;
mod loose;
pub(crate) mod manifest;
mod metered;
mod peers;
pub mod registry;
mod seam;
mod shared;
mod split;
pub(crate) mod store;
pub(crate) mod tree;
mod unpack;

use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use oci_client::Reference;
use oci_client::manifest::OciDescriptor;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use self::export::Export;
use self::layer::{LayerError, Piece, PieceReader, digest_of, unpack_layer};
use self::manifest::{ACCEPT, ConfigFile, Descriptor, Manifest, NESTED, check_digest};
use self::peers::Sources;
pub use self::peers::{LayerStream, Outcome, PeerError, Peers, Shared};
use self::registry::{Endpoint, Registries, explain};
use self::store::{Record, Store};
use crate::api::{Credentials, Error, Image, Result};
use crate::keyed::Keyed;

/// Layers of one pull that are unpacked at the same time.
const PARALLEL_LAYERS: usize = 3;
/// Image configurations are small; a larger one is hostile.
const CONFIG_LIMIT: u64 = 8 << 20;
/// Pieces of a stream that wait for the disk or for who reads them, each some tens of KiB.
const PIECES: usize = 32;
/// Bytes of a piece of an archive.
const PIECE: usize = 64 << 10;

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
    /// One pull of a reference, and one unpacking of a layer, at a time: the others wait and find it there.
    busy: Keyed,
}

impl Images {
    /// Opens the image store in `dir`. Blocking.
    pub(crate) fn open(dir: &Path, registries: Registries, peers: Option<Arc<dyn Peers>>) -> Result<Self> {
        // Already installed when another part of the process was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = Store::open(dir).map_err(|error| Error::Internal(format!("image store {}: {error}", dir.display())))?;
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
        let failed = |error| explain(&endpoint.reference, &error);
        let (bytes, digest) = endpoint.manifest(ACCEPT).await?;
        let mut manifest = Manifest::parse(&bytes)?;
        for _ in 0..NESTED {
            if !manifest.is_index() {
                break;
            }
            let chosen = manifest.for_this_machine()?.digest.clone();
            check_digest(&chosen)?;
            let child = endpoint.reference.clone_with_digest(chosen);
            let (bytes, _) = endpoint.client.pull_manifest_raw(&child, &endpoint.auth, ACCEPT).await.map_err(failed)?;
            manifest = Manifest::parse(&bytes)?;
        }
        let Some(config) = &manifest.config else {
            return Err(Error::ImagePull(format!("{}: the manifest has no configuration", reference.whole())));
        };
        let document = self.config(endpoint, config).await?;
        let file = ConfigFile::parse(&document, manifest.layers.len())?;
        let _pins = self.store.pin(&file.rootfs.diff_ids);
        // The registry has named the layers to who may know them: from here on their digests say what they are, wherever they come from.
        let sources = self.sources(&reference.whole(), &file.rootfs.diff_ids, 1).await;
        let all = manifest.layers.iter().zip(&file.rootfs.diff_ids);
        let layers: Vec<_> = all.map(|(layer, id)| self.layer((endpoint, &sources), layer, id, observer)).collect();
        let sizes: Vec<u64> = futures::stream::iter(layers).buffer_unordered(PARALLEL_LAYERS).try_collect().await?;
        let name = format!("{}/{}", reference.registry(), reference.repository());
        let tags = reference.tag().filter(|_| reference.digest().is_none()).map(|tag| format!("{name}:{tag}"));
        let record = Record {
            id: config.digest.clone(),
            tags: tags.into_iter().collect(),
            digests: vec![format!("{name}@{digest}")],
            imported: Vec::new(),
            layers: file.rootfs.diff_ids,
            size: sizes.iter().sum(),
            config: file.config,
            pulled: Timestamp::now(),
        };
        self.complete(record, document, &sources).await
    }

    /// Stores an image whose layers are here.
    async fn complete(&self, record: Record, document: Bytes, sources: &Sources) -> Result<Image> {
        let store = self.store.clone();
        let stored = blocking(move || store.complete(record, &document)).await?;
        let stored = stored.map_err(|error| Error::ImagePull(format!("storing the image: {error}")))?;
        Ok(Image { nodes: sources.used(), ..stored.image() })
    }

    /// The nodes that have those of these layers that are not here.
    async fn sources(&self, image: &str, diff_ids: &[String], failures: usize) -> Sources {
        let missing = diff_ids.iter().filter(|id| self.store.layer_size(id).is_none()).cloned().collect();
        Sources::of(self.peers.as_ref(), image, missing, failures).await
    }

    async fn config(&self, endpoint: &Endpoint, config: &Descriptor) -> Result<Bytes> {
        check_digest(&config.digest)?;
        let mut stream = endpoint
            .client
            .pull_blob_stream(&endpoint.reference, &descriptor(config))
            .await
            .map_err(|error| explain(&endpoint.reference, &error))?;
        let mut bytes = BytesMut::new();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| Error::ImagePull(format!("image configuration {}: {error}", config.digest)))?;
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > CONFIG_LIMIT {
                return Err(Error::ImagePull(format!(
                    "image configuration {} is larger than {CONFIG_LIMIT} bytes",
                    config.digest
                )));
            }
        }
        let actual = digest_of(&bytes);
        if actual != config.digest {
            return Err(Error::ImagePull(format!(
                "image configuration: digest mismatch: expected {}, the data has {actual}",
                config.digest
            )));
        }
        Ok(bytes.freeze())
    }

    /// Downloads and unpacks one layer unless it is here; gives its size.
    async fn layer(
        &self,
        (endpoint, sources): (&Endpoint, &Sources),
        layer: &Descriptor,
        diff_id: &str,
        observer: Option<&Observer>,
    ) -> Result<u64> {
        check_digest(&layer.digest)?;
        let _one = self.busy.lock(diff_id).await;
        let seen = |size: u64| {
            move |done| {
                if let Some(observer) = observer {
                    let _ = observer.try_send(Progress { layer: layer.digest.clone(), done, size, is_ready: false });
                }
            }
        };
        let size = match self.store.layer_size(diff_id) {
            Some(size) => size,
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

    async fn download(&self, endpoint: &Endpoint, layer: &Descriptor, diff_id: &str, seen: impl FnMut(u64)) -> Result<u64> {
        let stream = endpoint
            .client
            .pull_blob_stream(&endpoint.reference, &descriptor(layer))
            .await
            .map_err(|error| explain(&endpoint.reference, &error))?;
        let most = if layer.size == 0 { u64::MAX } else { layer.size };
        let unpacked = unpacked(&self.store, stream, Some(&layer.digest), diff_id, most, seen).await;
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
        let importing = blocking(move || import::import(&store, PieceReader::new(receiver), name.as_deref()));
        let (images, ()) = futures::join!(importing, feed(archive, sender, u64::MAX, |_| ()));
        images?
    }

    /// See [`crate::Engine::export`].
    pub(crate) async fn export(&self, references: Vec<String>) -> Result<mpsc::Receiver<io::Result<Bytes>>> {
        let store = self.store.clone();
        let export = blocking(move || Export::new(&store, &references)).await??;
        let (sender, receiver) = mpsc::channel(PIECES);
        drop(tokio::task::spawn_blocking(move || {
            let mut out = BufWriter::with_capacity(PIECE, Pieces { sender, patience: None });
            if let Err(error) = export.write(&mut out) {
                // Who reads it no longer needs no reason.
                let _ = out.get_ref().sender.blocking_send(Err(error));
            }
        }));
        Ok(receiver)
    }
}

/// Unpacks a layer, as [`unpack_layer`] does, while it comes; its unpacked size.
async fn unpacked<E: Display>(
    store: &Arc<Store>,
    stream: impl Stream<Item = std::result::Result<Bytes, E>> + Unpin,
    digest: Option<&str>,
    diff_id: &str,
    most: u64,
    seen: impl FnMut(u64),
) -> std::result::Result<u64, LayerError> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let (store, digest, diff) = (store.clone(), digest.map(str::to_owned), diff_id.to_owned());
    let unpacking = tokio::task::spawn_blocking(move || {
        store.add_layer(&diff, |target| unpack_layer(PieceReader::new(receiver), digest.as_deref(), &diff, target))
    });
    feed(stream, sender, most, seen).await;
    unpacking.await.map_err(|error| LayerError::Io(io::Error::other(error)))?
}

/// Hands a stream on to the thread that reads it, unless it is longer than `most` bytes; `seen` is told how much has come.
async fn feed<E: Display>(
    mut stream: impl Stream<Item = std::result::Result<Bytes, E>> + Unpin,
    sender: mpsc::Sender<Piece>,
    most: u64,
    mut seen: impl FnMut(u64),
) {
    let mut done = 0;
    loop {
        let piece = match stream.next().await {
            Some(Ok(data)) if data.len() as u64 > most - done => {
                Piece::Failed(format!("the data is larger than the {most} bytes of the manifest"))
            }
            Some(Ok(data)) => {
                done += data.len() as u64;
                seen(done);
                Piece::Data(data)
            }
            Some(Err(error)) => Piece::Failed(error.to_string()),
            None => Piece::End,
        };
        let last = !matches!(piece, Piece::Data(_));
        // A reader that is gone has an answer already.
        if sender.send(piece).await.is_err() || last {
            break;
        }
    }
}

/// Sends what is written to it.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    /// How long the reader may leave a piece; for ever, if none.
    patience: Option<Duration>,
}

impl Write for Pieces {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let piece = Ok(Bytes::copy_from_slice(buffer));
        let sent = match self.patience {
            None => self.sender.blocking_send(piece).is_ok(),
            Some(patience) => Handle::current().block_on(self.sender.send_timeout(piece, patience)).is_ok(),
        };
        if sent { Ok(buffer.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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

fn descriptor(from: &Descriptor) -> OciDescriptor {
    OciDescriptor {
        digest: from.digest.clone(),
        size: from.size as i64,
        media_type: from.media_type.clone(),
        ..Default::default()
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
