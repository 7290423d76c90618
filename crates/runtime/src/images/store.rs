//! Images and unpacked layers on disk.
//!
//! `records/HEX.json` describes an image, `configs/HEX.json` is its configuration as it came; `layers/HEX/fs` is one unpacked layer (HEX: the first 32 digits of its diff ID,
//! so that many fit into the one page that mount options may take). A layer is made below `tmp` and renamed when it is
//! whole and on disk, so what has its name is complete. `tmp` is emptied at start.

mod layers;

use base::files::{self, Outlives};
use base::trees::Temporary;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use self::layers::LOOSE;
use super::manifest::ImageConfig;
use super::seam::{self, Layer, Seam};
use crate::api::{Error, Image, Result, User};

/// Layers that are unpacked at the same time: more than one pod gets of them (`kubelet` pulls few of its images at once).
const UNPACKED: usize = 12;
/// Most bytes of the files [`LOOSE`] of all layers of one image.
const LOOSE_OF_AN_IMAGE: u64 = 32 << 20;

/// What is kept of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) tags: Vec<String>,
    pub(crate) digests: Vec<String>,
    /// Those of the tags that the image has by an import: no registry has named it so.
    #[serde(default)]
    pub(crate) imported: Vec<String>,
    /// Diff IDs, lowest first, and perhaps a seam on top of them.
    pub(crate) layers: Vec<String>,
    pub(crate) size: u64,
    pub(crate) config: ImageConfig,
    pub(crate) pulled: Timestamp,
}

impl Record {
    pub(crate) fn image(&self) -> Image {
        let user = self.config.user.split(':').next().unwrap_or_default();
        Image {
            id: self.id.clone(),
            tags: self.tags.clone(),
            digests: self.digests.clone(),
            size: self.size,
            user: (!user.is_empty()).then(|| User::parse(user)),
            pinned: false,
            nodes: Vec::new(),
        }
    }

    /// Whether the image is one of this repository, which is named with its registry.
    pub(super) fn is_of(&self, repository: &str) -> bool {
        self.digests.iter().any(|digest| digest.split('@').next() == Some(repository))
    }

    /// Takes names away that `loses` names.
    fn lose(&mut self, loses: impl Fn(&String) -> bool) {
        self.tags.retain(|tag| !loses(tag));
        self.imported.retain(|tag| !loses(tag));
    }
}

#[derive(Default)]
struct State {
    records: BTreeMap<String, Arc<Record>>,
    /// Layers that a running pull relies on, by count.
    pinned: HashMap<String, usize>,
}

/// The image store below one directory.
pub(crate) struct Store {
    dir: PathBuf,
    state: Mutex<State>,
    /// A record is damaged: the layers that nobody knows may be its own, and those of containers that run.
    keeps_all: bool,
    turns: Arc<Semaphore>,
}

impl Store {
    /// Opens the store at `dir` and removes what an interrupted pull or removal left. `is_used`: containers may run on its layers. While they
    /// may, a damaged record keeps all layers; when none does, as after a restart of the machine, it goes.
    pub(crate) fn open(dir: &Path, is_used: bool) -> io::Result<Self> {
        base::trees::remove(&dir.join("tmp"))?;
        for name in ["tmp", "layers", "records", "configs"] {
            fs::create_dir_all(dir.join(name))?;
        }
        let is_whole = |name: &str| name.ends_with(".json");
        for entry in fs::read_dir(dir.join("records"))? {
            let entry = entry?;
            if !is_whole(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path())?;
            }
        }
        let base::records::Records { whole: mut records, damaged } =
            base::records::read::<Record>(&dir.join("records"), is_whole)?;
        if !is_used {
            for name in &damaged {
                tracing::warn!(record = name, "removing the damaged record of an image, on whose layers no container runs");
                let path = dir.join("records").join(name);
                base::trees::remove(&path)?;
            }
        }
        // A crash between the two writes of a tag that moved leaves it in both: the later pull has it.
        records.sort_by_key(|record| record.pulled);
        let mut state = State::default();
        for record in records {
            for other in state.records.values_mut() {
                Arc::make_mut(other).lose(|tag| record.tags.contains(tag));
            }
            state.records.insert(record.id.clone(), Arc::new(record));
        }
        let store = Self {
            dir: dir.to_owned(),
            state: Mutex::new(state),
            keeps_all: is_used && !damaged.is_empty(),
            turns: Arc::new(Semaphore::new(UNPACKED)),
        };
        store.sweep()?;
        Ok(store)
    }

    /// The directory that relative layer paths start from.
    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.dir.join("layers")
    }

    /// The layer's root, relative to [`Store::layers_dir`].
    pub(crate) fn layer_path(diff_id: &str) -> String {
        format!("{}/fs", short(diff_id))
    }

    /// Stores an image whose layers are here, as [`Store::put`] does, with a seam on top of them if it needs one. Blocking.
    pub(crate) fn complete(self: &Arc<Self>, mut record: Record, document: &[u8]) -> io::Result<Arc<Record>> {
        let id = seam::id(&record.layers);
        let _pin = self.pin(std::slice::from_ref(&id));
        if self.layer_size(&id).is_none() {
            let mut left = LOOSE_OF_AN_IMAGE;
            let mut layer = |id: &String| {
                let size = fs::metadata(self.layers_dir().join(short(id)).join(LOOSE)).map_or(0, |found| found.len());
                left = left.checked_sub(size).ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        "its layers depend on each other in more places than can be kept track of",
                    )
                })?;
                Ok(Layer::new(self.layers_dir().join(Self::layer_path(id)), self.loose(id)?))
            };
            let layers = record.layers.iter().map(&mut layer).collect::<io::Result<Vec<_>>>()?;
            let Some(seam) = Seam::of(&layers)? else { return self.put(record, document) };
            self.add_layer::<io::Error>(&id, |target| seam.make(target))?;
        }
        record.layers.push(id);
        self.put(record, document)
    }

    /// Keeps layers from being removed until the guard is dropped.
    pub(crate) fn pin(self: &Arc<Self>, layers: &[String]) -> Pins {
        let mut state = self.state.lock();
        for layer in layers {
            *state.pinned.entry(layer.clone()).or_default() += 1;
        }
        Pins { store: self.clone(), layers: layers.to_vec() }
    }

    /// Stores the image and its configuration, or adds tags and digests to the one that is there. Its tags leave other images. Blocking.
    fn put(&self, mut record: Record, document: &[u8]) -> io::Result<Arc<Record>> {
        let mut state = self.state.lock();
        let config = self.config_path(&record.id);
        if !config.exists() {
            files::replace(&config, document, Outlives::Machine)?;
        }
        if let Some(known) = state.records.get(&record.id) {
            merge(&mut record.tags, &known.tags);
            merge(&mut record.digests, &known.digests);
            merge(&mut record.imported, &known.imported);
        }
        self.write(&record)?;
        let record = Arc::new(record);
        let losers: Vec<Arc<Record>> = state
            .records
            .values()
            .filter(|other| other.id != record.id && other.tags.iter().any(|tag| record.tags.contains(tag)))
            .cloned()
            .collect();
        for loser in losers {
            let mut loser = Record::clone(&loser);
            loser.lose(|tag| record.tags.contains(tag));
            self.write(&loser)?;
            state.records.insert(loser.id.clone(), Arc::new(loser));
        }
        state.records.insert(record.id.clone(), record.clone());
        Ok(record)
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        files::replace(&self.record_path(&record.id), &serde_json::to_vec(record)?, Outlives::Machine)
    }

    fn record_path(&self, id: &str) -> PathBuf {
        self.dir.join("records").join(format!("{}.json", id.trim_start_matches("sha256:")))
    }

    fn config_path(&self, id: &str) -> PathBuf {
        self.dir.join("configs").join(format!("{}.json", id.trim_start_matches("sha256:")))
    }

    /// The configuration of an image, the bytes whose digest is its identifier; none of one that an earlier version has stored. Blocking.
    pub(super) fn document(&self, id: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.config_path(id)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A file without a name, for what comes from outside.
    pub(super) fn scratch(&self) -> io::Result<fs::File> {
        tempfile::tempfile_in(self.dir.join("tmp"))
    }

    /// By identifier.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Record>> {
        self.state.lock().records.get(id).cloned()
    }

    /// By identifier, tag or digest.
    pub(crate) fn find(&self, reference: &str) -> Result<Option<Arc<Record>>> {
        if let Some(record) = self.get(reference) {
            return Ok(Some(record));
        }
        if reference.starts_with("sha256:") {
            return Ok(None);
        }
        let wanted = name(reference)?;
        let state = self.state.lock();
        Ok(state.records.values().find(|r| r.tags.contains(&wanted) || r.digests.contains(&wanted)).cloned())
    }

    /// All images.
    pub(crate) fn list(&self) -> Vec<Arc<Record>> {
        self.state.lock().records.values().cloned().collect()
    }

    /// Removes the image and the layers that only it has; `users` tells who uses it. Blocking.
    pub(crate) fn remove(&self, reference: &str, users: impl FnOnce(&str) -> Option<String>) -> Result<()> {
        let Some(record) = self.find(reference)? else { return Err(Error::NotFound(format!("image {reference}"))) };
        {
            let mut state = self.state.lock();
            if let Some(user) = users(&record.id) {
                return Err(Error::InUse(format!("image {reference} is in use by {user}: remove that first")));
            }
            fs::remove_file(self.record_path(&record.id)).map_err(internal)?;
            state.records.remove(&record.id);
        }
        self.sweep().map_err(internal)
    }

    /// Takes the name away from the image that has it, and removes the image when that was its last one, as [`Store::remove`] does; what an
    /// identifier names goes with all its names. Gives the image when it is gone. Blocking.
    pub(crate) fn untag(&self, reference: &str, users: impl FnOnce(&str) -> Option<String>) -> Result<Option<Arc<Record>>> {
        let missing = || Error::NotFound(format!("image {reference}"));
        if !reference.starts_with("sha256:") {
            let name = name(reference)?;
            let mut state = self.state.lock();
            let has = |record: &Arc<Record>| record.tags.contains(&name) || record.digests.contains(&name);
            let mut record = Record::clone(state.records.values().find(|record| has(record)).ok_or_else(missing)?);
            if record.tags.iter().any(|tag| *tag != name) {
                record.lose(|tag| *tag == name);
                record.digests.retain(|digest| *digest != name);
                self.write(&record).map_err(internal)?;
                state.records.insert(record.id.clone(), Arc::new(record));
                return Ok(None);
            }
        }
        let record = self.find(reference)?.ok_or_else(missing)?;
        self.remove(&record.id, users).map(|()| Some(record))
    }

    /// Removes layers that no image and no pull needs, and configurations of images that are gone.
    fn sweep(&self) -> io::Result<()> {
        if self.keeps_all {
            return Ok(());
        }
        let trash = Temporary::new(&self.dir.join("tmp"), "trash-")?;
        {
            let state = self.state.lock();
            let kept: std::collections::HashSet<&str> = state
                .records
                .values()
                .flat_map(|record| &record.layers)
                .chain(state.pinned.keys())
                .map(|layer| short(layer))
                .collect();
            for entry in fs::read_dir(self.layers_dir())? {
                let entry = entry?;
                if !entry.file_name().to_str().is_some_and(|name| kept.contains(name)) {
                    fs::rename(entry.path(), trash.path().join(entry.file_name()))?;
                }
            }
            let kept: std::collections::HashSet<PathBuf> = state.records.keys().map(|id| self.config_path(id)).collect();
            for entry in fs::read_dir(self.dir.join("configs"))? {
                let path = entry?.path();
                if !kept.contains(&path) {
                    fs::remove_file(path)?;
                }
            }
        }
        trash.close()
    }
}

/// See [`Store::pin`].
pub(crate) struct Pins {
    store: Arc<Store>,
    layers: Vec<String>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut state = self.store.state.lock();
        for layer in &self.layers {
            if let Some(count) = state.pinned.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    state.pinned.remove(layer);
                }
            }
        }
    }
}

/// The whole name that a reference stands for, by tag or by digest.
pub(super) fn name(reference: &str) -> Result<String> {
    let parsed = super::registry::parse(reference)?;
    Ok(match parsed.digest() {
        Some(digest) => format!("{}/{}@{digest}", parsed.registry(), parsed.repository()),
        None => parsed.whole(),
    })
}

fn short(diff_id: &str) -> &str {
    let hex = diff_id.strip_prefix("sha256:").unwrap_or(diff_id);
    hex.get(..32).unwrap_or(hex)
}

fn merge(into: &mut Vec<String>, from: &[String]) {
    for value in from {
        if !into.contains(value) {
            into.push(value.clone());
        }
    }
}

fn internal(error: io::Error) -> Error {
    Error::Internal(format!("image store: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::images::loose::Unpacked;

    fn record(id: char, tags: &[&str], layers: &[&str]) -> Record {
        Record {
            id: format!("sha256:{}", id.to_string().repeat(64)),
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            digests: vec![],
            imported: vec![],
            layers: layers.iter().map(|l| (*l).to_owned()).collect(),
            size: 1,
            config: ImageConfig { user: "10:20".to_owned(), ..ImageConfig::default() },
            pulled: Timestamp::now(),
        }
    }

    fn layer(store: &Store, id: &str) {
        store.add_layer::<io::Error>(id, |path| fs::write(path.join("f"), id).map(|()| Unpacked::new(7))).unwrap();
    }

    /// A container of the image may run on its layers.
    #[test]
    fn a_damaged_record_costs_its_image_and_no_layer() {
        let dir = tempfile::tempdir().unwrap();
        let open = |is_used: bool| Arc::new(Store::open(dir.path(), is_used).unwrap());
        let store = open(true);
        let both = [record('a', &["r/a:1"], &["l1"]), record('b', &["r/b:1"], &["l2"])];
        let pins = store.pin(&["l1".to_owned(), "l2".to_owned()]);
        for (record, id) in both.iter().zip(["l1", "l2"]) {
            layer(&store, id);
            store.put(record.clone(), b"{}").unwrap();
        }
        drop((pins, store));
        let path = dir.path().join("records").join(format!("{}.json", "a".repeat(64)));
        fs::write(&path, "").unwrap();
        let store = open(true);
        assert_eq!((store.get(&both[0].id).is_some(), store.get(&both[1].id).is_some()), (false, true));
        assert!(store.layer_size("l1").is_some());
        // The next pull makes it whole.
        store.put(both[0].clone(), b"{}").unwrap();
        assert!(open(true).get(&both[0].id).is_some());
    }

    /// After a restart of the machine no container can run on its layers: they would be kept for ever.
    #[test]
    fn a_damaged_record_goes_when_nothing_runs() {
        let dir = tempfile::tempdir().unwrap();
        let open = |is_used: bool| Store::open(dir.path(), is_used).unwrap();
        layer(&open(true), "l1");
        let path = dir.path().join("records").join(format!("{}.json", "a".repeat(64)));
        fs::write(&path, "{").unwrap();
        assert!(open(true).layer_size("l1").is_some() && path.exists());
        let store = open(false);
        assert!(store.layer_size("l1").is_none() && !path.exists());
        layer(&store, "l2");
        assert!(open(true).layer_size("l2").is_none(), "layers of no image are removed again");
    }

    #[test]
    fn tags_move_and_layers_go_with_their_last_image() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path(), true).unwrap());
        let pins = store.pin(&["l1".to_owned(), "l2".to_owned()]);
        layer(&store, "l1");
        layer(&store, "l2");
        let tag = "docker.io/library/x:1";
        store.put(record('a', &[tag], &["l1"]), b"a").unwrap();
        store.put(record('b', &[tag], &["l1", "l2"]), b"b").unwrap();
        store.put(record('b', &["docker.io/library/y:2"], &["l1", "l2"]), b"b").unwrap();
        drop(pins);
        assert_eq!(store.find("x:1").unwrap().unwrap().id, record('b', &[], &[]).id);
        assert_eq!(store.get(&record('a', &[], &[]).id).unwrap().tags.len(), 0);
        assert_eq!(store.find("x:1").unwrap().unwrap().image().user, Some(User::Id(10)));

        let user = |_: &str| Some("c1".to_owned());
        assert!(matches!(store.remove("x:1", user), Err(Error::InUse(text)) if text.contains("in use by c1")));
        assert!(store.untag("y:2", user).unwrap().is_none(), "a name may go, the image stays");
        assert!(store.find("y:2").unwrap().is_none());
        assert!(matches!(store.untag("x:1", user), Err(Error::InUse(_))));
        assert!(matches!(store.untag("y:2", user), Err(Error::NotFound(_))));
        assert_eq!(store.document(&record('b', &[], &[]).id).unwrap().as_deref(), Some(&b"b"[..]));
        assert_eq!(store.untag("x:1", |_| None).unwrap().unwrap().id, record('b', &[], &[]).id);
        assert_eq!(store.document(&record('b', &[], &[]).id).unwrap(), None);
        assert_eq!((store.layer_size("l1"), store.layer_size("l2")), (Some(7), None));

        let again = Store::open(dir.path(), true).unwrap();
        assert_eq!(again.list().len(), 1);
        assert_eq!(again.layer_size("l1"), Some(7));
        assert!(matches!(again.remove("nothing", |_| None), Err(Error::NotFound(_))));
    }

    #[test]
    fn leftovers_are_cleaned_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), true).unwrap();
        layer(&store, "orphan");
        fs::create_dir_all(dir.path().join("tmp/layer-x/fs")).unwrap();
        fs::write(dir.path().join("records/x.tmp"), "half").unwrap();
        let store = Store::open(dir.path(), true).unwrap();
        assert_eq!(store.layer_size("orphan"), None);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path().join("records")).unwrap().count(), 0);
    }
}
