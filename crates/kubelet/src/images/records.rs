//! Images that this kubelet has pulled and is pulling, on disk: after a crash it is known which of the node's images need credentials
//! (KEP-2535). Directories and names of files are upstream's.

use base::files::{self, Outlives};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::access::{Access, Decision, Question, Record, Shown, Verification};
use super::sources::Source;

const PULLED: &str = "pulled";
const PULLING: &str = "pulling";

/// A pull that was begun: upstream's `ImagePullIntent`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Intent {
    kind: String,
    api_version: String,
    image: String,
}

#[derive(Default)]
struct State {
    /// By identifier of the image.
    pulled: BTreeMap<String, Record>,
    /// How many pulls go on, by the image's name; none of one that an earlier kubelet has begun.
    pulling: BTreeMap<String, usize>,
    /// Files that an earlier kubelet has written and nobody can read. What they are about needs credentials.
    damaged: BTreeSet<(&'static str, String)>,
}

impl State {
    fn is_damaged(&self, kind: &'static str, name: &str) -> bool {
        !self.damaged.is_empty() && self.damaged.contains(&(kind, file_of(name)))
    }
}

/// The records of a node.
pub struct Records {
    directory: PathBuf,
    state: Mutex<State>,
    /// Files are written by one at a time.
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl Records {
    /// Reads what an earlier kubelet has written. Blocking.
    ///
    /// # Errors
    /// The records cannot be read: which images need credentials is not known then.
    pub fn load(data_dir: &Path) -> io::Result<Self> {
        let directory = data_dir.join("image_manager");
        let pulled = read::<Record>(&directory.join(PULLED))?;
        let pulling = read::<Intent>(&directory.join(PULLING))?;
        let of = |kind, files: Vec<String>| files.into_iter().map(move |file| (kind, file));
        let state = State {
            pulled: pulled.whole.into_iter().map(|record| (record.image_ref.clone(), record)).collect(),
            pulling: pulling.whole.into_iter().map(|intent| (intent.image, 0)).collect(),
            damaged: of(PULLED, pulled.damaged).chain(of(PULLING, pulling.damaged)).collect(),
        };
        Ok(Self { directory, state: Mutex::new(state), writing: Arc::default() })
    }

    /// Names of images of which an earlier kubelet has begun a pull and not told of its end.
    pub fn interrupted(&self) -> Vec<String> {
        self.state.lock().pulling.iter().filter(|(_, count)| **count == 0).map(|(image, _)| image.clone()).collect()
    }

    /// Forgets images that were not on the node at that time.
    ///
    /// # Errors
    /// A record cannot be removed.
    pub async fn keep(&self, images: &BTreeSet<String>, since: Timestamp) -> io::Result<()> {
        let is_gone = |(id, record): &(&String, &Record)| !images.contains(*id) && record.is_older_than(since);
        let gone: Vec<String> = self.state.lock().pulled.iter().filter(is_gone).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.remove(PULLED, &id).await?;
            self.state.lock().pulled.remove(&id);
        }
        let files: BTreeSet<String> = images.iter().map(|id| file_of(id)).collect();
        let is_gone = |(kind, file): &(&str, String)| *kind == PULLED && !files.contains(file);
        let gone: Vec<_> = self.state.lock().damaged.iter().filter(|damaged| is_gone(damaged)).cloned().collect();
        for damaged in gone {
            self.remove_file(damaged).await?;
        }
        Ok(())
    }

    /// A pull is about to begin.
    ///
    /// # Errors
    /// It cannot be written down.
    pub async fn begin(&self, image: &str) -> io::Result<()> {
        let kind = "ImagePullIntent".to_owned();
        let intent = Intent { kind, api_version: "kubelet.config.k8s.io/v1beta1".to_owned(), image: image.to_owned() };
        *self.state.lock().pulling.entry(image.to_owned()).or_default() += 1;
        self.write(PULLING, image, serde_json::to_vec(&intent)?).await
    }

    /// A pull has ended: with the image of this identifier, which is open to `access`, or with none.
    ///
    /// # Errors
    /// It cannot be written down: the next kubelet takes the image for one whose pull was interrupted.
    pub async fn end(&self, image: &str, pulled: Option<(&str, Access)>) -> io::Result<()> {
        if let Some((id, access)) = pulled {
            self.add(id, super::repository(image), &access).await?;
        }
        let is_last = {
            let mut state = self.state.lock();
            let left = state.pulling.get(image).map_or(0, |count| count.saturating_sub(1));
            match left {
                0 => drop(state.pulling.remove(image)),
                left => drop(state.pulling.insert(image.to_owned(), left)),
            }
            left == 0
        };
        if is_last { self.remove(PULLING, image).await } else { Ok(()) }
    }

    /// Adds who may use an image by the name of a repository.
    ///
    /// # Errors
    /// It cannot be written down.
    pub async fn add(&self, id: &str, repository: String, access: &Access) -> io::Result<()> {
        let text = {
            let mut state = self.state.lock();
            let now = Timestamp::now();
            let is_known = state.pulled.contains_key(id);
            let record = state.pulled.entry(id.to_owned()).or_insert_with(|| Record::new(id, now));
            if !record.add(&repository, access, now) && is_known {
                return Ok(());
            }
            serde_json::to_vec(record)?
        };
        self.write(PULLED, id, text).await
    }

    /// What decides about an image, for `answer`.
    pub fn ask<T>(&self, verification: &Verification, (image, id): (&str, &str), answer: impl FnOnce(Question<'_>) -> T) -> T {
        let state = self.state.lock();
        // Nobody is known to have access by a record that is damaged.
        let unknown = state.is_damaged(PULLED, id).then(|| Record::new(id, Timestamp::now()));
        let record = state.pulled.get(id).or(unknown.as_ref());
        let is_being_pulled = state.pulling.contains_key(image) || state.is_damaged(PULLING, image);
        answer(Question { verification, record, is_being_pulled, repository: &super::repository(image) })
    }

    /// Whether a pod that shows this may use an image of the node.
    pub async fn decide(&self, verification: &Verification, (image, id): (&str, &str), shown: &Shown) -> bool {
        match self.ask(verification, (image, id), |question| question.decide(shown)) {
            Decision::Granted => true,
            Decision::Pull => false,
            Decision::GrantedTo(secret) => {
                if let Err(error) = self.add(id, super::repository(image), &Access::by(Source::Secret(secret))).await {
                    tracing::warn!(image, %error, "it is not written down that a secret gives access to an image");
                }
                true
            }
        }
    }

    async fn write(&self, kind: &'static str, name: &str, bytes: Vec<u8>) -> io::Result<()> {
        self.state.lock().damaged.remove(&(kind, file_of(name)));
        let path = self.directory.join(kind).join(file_of(name));
        self.change(move || files::replace(&path, &bytes, Outlives::Machine)).await
    }

    async fn remove(&self, kind: &'static str, name: &str) -> io::Result<()> {
        self.remove_file((kind, file_of(name))).await
    }

    async fn remove_file(&self, file: (&'static str, String)) -> io::Result<()> {
        let path = self.directory.join(file.0).join(&file.1);
        self.state.lock().damaged.remove(&file);
        self.change(move || match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }

    async fn change(&self, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let one = self.writing.clone().lock_owned().await;
        let work = move || {
            let _one = one;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }
}

/// The name of the file about an image.
fn file_of(name: &str) -> String {
    format!("sha256-{}", pods::csi::digest(name))
}

/// The records of a directory, without what a crash has left of those that were being written.
fn read<T: serde::de::DeserializeOwned>(directory: &Path) -> io::Result<base::records::Records<T>> {
    let is_whole = |name: &str| name.starts_with("sha256-");
    let records = base::records::read(directory, is_whole)?;
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let entry = entry?;
        if !is_whole(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::sources::PullSecret;

    const IMAGE: &str = "r.io/a/b:1";

    fn secret() -> PullSecret {
        PullSecret { uid: "u".into(), namespace: "n".into(), name: "s".into(), credential_hash: "h".into() }
    }

    async fn check(records: &Records, secrets: &[PullSecret], expected: bool) {
        let shown = Shown { secrets: secrets.to_vec(), account: None };
        assert_eq!(records.decide(&Verification::default(), (IMAGE, "sha256:1"), &shown).await, expected);
    }

    #[tokio::test]
    async fn the_next_kubelet_knows_what_this_one_has_pulled() {
        let directory = tempfile::tempdir().unwrap();
        let load = || Records::load(directory.path()).unwrap();
        let records = load();
        check(&records, &[], true).await;
        records.begin(IMAGE).await.unwrap();
        check(&records, &[], false).await;
        // Killed here, it may have been pulled or not.
        let records = load();
        assert_eq!(records.interrupted(), [IMAGE]);
        check(&records, &[secret()], false).await;
        records.begin(IMAGE).await.unwrap();
        records.begin(IMAGE).await.unwrap();
        assert!(records.interrupted().is_empty());
        records.end(IMAGE, None).await.unwrap();
        records.end(IMAGE, Some(("sha256:1", Access::by(Source::Secret(secret()))))).await.unwrap();
        let records = load();
        assert!(records.interrupted().is_empty());
        check(&records, &[secret()], true).await;
        check(&records, &[], false).await;
        records.keep(&BTreeSet::from(["sha256:1".to_owned()]), Timestamp::now()).await.unwrap();
        check(&records, &[], false).await;
        // It was pulled after somebody had looked.
        records.keep(&BTreeSet::new(), Timestamp::UNIX_EPOCH).await.unwrap();
        check(&records, &[], false).await;
        records.keep(&BTreeSet::new(), Timestamp::now()).await.unwrap();
        check(&load(), &[], true).await;
    }

    /// What is damaged opens its image to nobody, and is whole again after the next pull.
    #[tokio::test]
    async fn images_of_damaged_records_need_credentials() {
        let directory = tempfile::tempdir().unwrap();
        let load = || Records::load(directory.path()).unwrap();
        load().begin(IMAGE).await.unwrap();
        load().end(IMAGE, Some(("sha256:1", Access::by(Source::Secret(secret()))))).await.unwrap();
        let (pulled, pulling) = (directory.path().join("image_manager/pulled"), directory.path().join("image_manager/pulling"));
        fs::write(pulling.join(".half"), "").unwrap();
        fs::write(pulled.join("sha256-0"), "").unwrap();
        check(&load(), &[secret()], true).await;
        assert_eq!(fs::read_dir(&pulling).unwrap().count(), 0);

        fs::write(pulled.join(file_of("sha256:1")), "{").unwrap();
        let records = load();
        check(&records, &[], false).await;
        check(&records, &[secret()], false).await;
        records.begin(IMAGE).await.unwrap();
        fs::write(pulling.join(file_of(IMAGE)), "").unwrap();
        let records = load();
        check(&records, &[secret()], false).await;
        records.end(IMAGE, Some(("sha256:1", Access::by(Source::Secret(secret()))))).await.unwrap();
        check(&records, &[secret()], true).await;
        check(&load(), &[secret()], true).await;
        check(&load(), &[], false).await;
        load().keep(&BTreeSet::from(["sha256:1".to_owned()]), Timestamp::now()).await.unwrap();
        assert_eq!(fs::read_dir(&pulled).unwrap().count(), 1, "the image of the other is gone");
    }
}
