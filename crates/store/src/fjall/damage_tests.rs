//! Files that change on their own: the database says so, or shows all that it had, and never panics in its caller.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base::tasks::Tasks;

use super::stage::Table;
use super::*;
use crate::Expect;
use crate::contract::{self, write};

/// Everything that can be read: the present and the past.
type Content = (Vec<Record>, Vec<(Revision, Bytes, Option<Bytes>)>);

fn options(dir: &Path) -> Options {
    Options { reserve: 1 << 20, ..Options::new(dir) }
}

async fn read(dir: &Path) -> Result<Content, Error> {
    let (tasks, _failures) = Tasks::root();
    let engine = Fjall::open(options(dir), &tasks).await?;
    let read = async {
        let page = engine.range(b"", b"", None, 0).await?;
        let history = contract::history(&engine, "", engine.compacted()).await?;
        Ok((page.records, history.into_iter().map(|event| (event.revision, event.key, event.value)).collect()))
    };
    let content = read.await;
    engine.close().await;
    content
}

/// A store with tables, a sealed past in them, and a journal. Returns its content.
async fn make(dir: &Path) -> Content {
    let (tasks, _failures) = Tasks::root();
    let engine = Fjall::open(options(dir), &tasks).await.unwrap();
    let put = async |from: usize, to: usize| {
        for n in from..to {
            let value = (n % 7 != 6).then(|| format!("{n} ").repeat(20 + n % 50));
            engine
                .commit(write(&format!("/k/{}", (n - usize::from(n % 7 == 6)) % 40), Expect::Anything, value.as_deref()))
                .await
                .unwrap();
        }
    };
    put(0, 100).await;
    engine.0.shared.read(|database| database.flush(Table::Log).and(database.flush(Table::Index))).unwrap();
    while engine.0.shared.read(|database| Ok(database.is_flushing(Table::Log) || database.is_flushing(Table::Index))).unwrap() {
        tokio::task::yield_now().await;
    }
    put(100, 160).await;
    engine.close().await;
    // Opening cuts the journal to what is written in it.
    read(dir).await.unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    all.sort();
    all
}

fn restore(dir: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    base::trees::remove(dir).unwrap();
    for (path, bytes) in files {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn noise(seed: u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for shift in [13, 7, 17, 13, 7, 17] {
        state ^= state << shift;
        state ^= state >> (shift / 2 + 1);
    }
    state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_or_harmless() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let whole = make(&dir).await;
    assert!(whole.0.len() > 30 && whole.1.len() == 160);
    let originals: BTreeMap<_, _> = files(&dir).into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
    let names: Vec<_> = originals.keys().filter(|path| !originals[*path].is_empty()).collect();
    let (mut found, mut harmless, mut silent) = (0, 0, Vec::new());
    for round in 0..400 {
        let path = names[noise(round) as usize % names.len()];
        let mut bytes = originals[path].clone();
        let (at, bit) = (noise(round + 1000) as usize % bytes.len(), noise(round + 2000) % 8);
        bytes[at] ^= 1 << bit;
        restore(&dir, &originals);
        fs::write(path, bytes).unwrap();
        match read(&dir).await {
            Ok(content) if content == whole => harmless += 1,
            Ok(_) => silent.push(format!("{} at {at} bit {bit}", path.strip_prefix(&dir).unwrap().display())),
            Err(Error::Damaged(_) | Error::Failed(_) | Error::NewerFormat { .. }) => found += 1,
            Err(error) => panic!("{error}"),
        }
    }
    println!("found {found}, harmless {harmless}, silent {silent:?}");
    assert!(found > 100);
    assert_eq!(silent, Vec::<String>::new());
}

/// Each file cut short, or gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_data_is_found() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let whole = make(&dir).await;
    let originals: BTreeMap<_, _> = files(&dir).into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
    for (path, bytes) in &originals {
        for keep in [None, Some(0), Some(bytes.len() / 2), Some(bytes.len().saturating_sub(1))] {
            restore(&dir, &originals);
            match keep {
                None => fs::remove_file(path).unwrap(),
                Some(keep) => fs::write(path, &bytes[..keep]).unwrap(),
            }
            match read(&dir).await {
                Ok(content) => assert!(content == whole, "{} cut to {keep:?}", path.display()),
                Err(Error::Damaged(_) | Error::Failed(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}
