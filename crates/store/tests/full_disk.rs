//! A full disk refuses writes, loses nothing, and heals by itself.
//!
//! The test runs itself again as a child in a mount namespace of its own, with a small disk in memory.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base::tasks::Tasks;
use common::{noise, write};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use store::{Engine, Error, Fjall, History, Options, Revision};

const DIRECTORY: &str = "KNARR_STORE_FULL_DISK";
const VALUE: usize = 64 << 10;

/// Runs the named test of this file as the only one of a child process.
fn run(test: &str) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can mount a small disk");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, dir.path())
        .output()
        .unwrap();
    let text = [child.stdout, child.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    println!("{}{}", text[0], text[1]);
    assert!(child.status.success());
}

/// In the child: a disk of `mib` that nobody else sees, and a runtime.
fn on_small_disk<F: Future<Output = ()>>(mib: u64, test: impl FnOnce(std::path::PathBuf) -> F) {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    // Before any other thread starts in the namespace that we leave.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("disk"), dir.as_os_str(), Some("tmpfs"), MsFlags::empty(), Some(format!("size={mib}m").as_str())).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test(dir.into()));
}

async fn open(dir: &Path, reserve: u64, tasks: &Tasks) -> Fjall {
    let history = History { entries: 10, bytes: 1 << 20, keep: Duration::ZERO };
    Fjall::open(Options { history, reserve, ..Options::new(dir.join("data")) }, tasks).await.unwrap()
}

/// Writes new keys until the disk is full; how many were acknowledged.
async fn fill(engine: &Fjall, prefix: &str) -> u64 {
    for n in 0.. {
        match engine.commit(write(&format!("/{prefix}/{n}"), Some(noise(n, VALUE)))).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, Error::NoSpace);
                return n;
            }
        }
    }
    unreachable!()
}

async fn all_there(engine: &Fjall, prefix: &str, count: u64) {
    for n in 0..count {
        let record = engine.get(format!("/{prefix}/{n}").as_bytes()).await.unwrap().unwrap();
        assert_eq!(record.value, noise(n, VALUE), "{prefix} {n}");
    }
}

#[test]
fn writes_are_refused_before_the_disk_is_full() {
    run("child_fills_the_disk");
}

#[test]
fn child_fills_the_disk() {
    on_small_disk(256, |dir| async move {
        let (tasks, mut failures) = Tasks::root();
        let engine = open(&dir, 128 << 20, &tasks).await;
        let count = fill(&engine, "a").await;
        assert!(count > 300, "{count} writes fit");
        let revision = engine.revision();
        assert_eq!(fill(&engine, "b").await, 0, "full is full");
        assert_eq!(engine.revision(), revision, "a refused write takes no revision");
        all_there(&engine, "a", count).await;

        // Deletions still work, and make room.
        for n in 0..count {
            engine.commit(write(&format!("/a/{n}"), None)).await.unwrap();
        }
        engine.compact(engine.revision()).await.unwrap();
        let mut tries = 0;
        while let Err(error) = engine.commit(write("/again", Some(noise(1, VALUE)))).await {
            assert_eq!(error, Error::NoSpace);
            tries += 1;
            assert!(tries < 100, "no room after everything was deleted");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        engine.close().await;
        assert!(failures.try_recv().is_err());
    });
}

#[test]
fn somebody_else_fills_the_disk() {
    run("child_is_out_of_room_in_the_middle");
}

/// Another process takes the reserve too, so writes fail in the middle, and so do flushes.
#[test]
fn child_is_out_of_room_in_the_middle() {
    on_small_disk(200, |dir| async move {
        let (tasks, mut failures) = Tasks::root();
        // With no reserve every write meets the real error.
        let engine = open(&dir, 0, &tasks).await;
        let mut last: Revision = 0;
        let mut counts = Vec::new();
        for round in 0..4 {
            let prefix = format!("r{round}");
            let ballast = dir.join("ballast");
            let free = nix::sys::statvfs::statvfs(&dir).unwrap();
            let free = free.blocks_available() * free.fragment_size();
            fs::write(&ballast, vec![1; (free - (12 << 20).min(free)) as usize]).unwrap();
            let count = fill(&engine, &prefix).await;
            assert!(engine.revision() >= last + count);
            last = engine.revision();
            counts.push((prefix, count));
            for (prefix, count) in &counts {
                all_there(&engine, prefix, *count).await;
            }
            // The disk is full still, unless a flush has let go of a journal meanwhile.
            match engine.commit(write("/more", Some(noise(1, VALUE)))).await {
                Ok(revision) => last = revision,
                Err(error) => assert_eq!(error, Error::NoSpace),
            }
            fs::remove_file(&ballast).unwrap();
            let revision = engine.commit(write("/more", Some(noise(2, VALUE)))).await.unwrap();
            assert_eq!(revision, last + 1, "writes resume by themselves");
            last = revision;
        }
        let metrics = base::metrics::Page::Server.encode(base::metrics::Format::Text);
        let reopened = metrics.lines().find(|line| line.starts_with("knarr_store_reopened_total")).unwrap().to_owned();
        println!("{counts:?}, {reopened}");
        assert!(!reopened.ends_with(" 0"), "the real error was met");
        engine.close().await;
        let engine = open(&dir, 0, &tasks).await;
        assert_eq!(engine.revision(), last);
        for (prefix, count) in &counts {
            all_there(&engine, prefix, *count).await;
        }
        engine.close().await;
        assert!(failures.try_recv().is_err());
    });
}
