//! Prints what the embedded engine does on this machine: `bench [DIR] [SECONDS]`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base::tasks::{OnFailure, Tasks};
use bytes::Bytes;
use store::{Change, Engine, Error, Expect, Fjall, Lane, Options, Write};
use tokio::sync::mpsc;

const VALUE: usize = 2048;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().unwrap_or_else(|| "/tmp/store-bench".into()));
    let seconds = args.next().map_or(Ok(5), |text| text.parse())?;
    let (tasks, _failures) = Tasks::root();
    println!("{VALUE} byte values, {seconds} s each, in {}", dir.display());
    let engine = Fjall::open(Options::new(&dir), &tasks).await?;
    println!("memory when open: {} MiB", resident()? >> 20);
    for (name, clients, keys) in
        [("create", 1, None), ("create", 64, None), ("overwrite", 64, Some(5000)), ("overwrite", 1, Some(5000))]
    {
        run(&engine, &tasks, name, clients, keys, Duration::from_secs(seconds)).await?;
        println!("  directory {} MiB, memory {} MiB", disk(&dir)? >> 20, resident()? >> 20);
    }
    let start = Instant::now();
    let page = engine.range(b"/overwrite", b"/overwritf", None, 0).await?;
    println!("range of {} records: {:?}", page.records.len(), start.elapsed());
    drop(page);
    engine.close().await;
    drop(engine);
    let start = Instant::now();
    let engine = Fjall::open(Options::new(&dir), &tasks).await?;
    println!("opened again in {:?}, directory {} MiB, memory {} MiB", start.elapsed(), disk(&dir)? >> 20, resident()? >> 20);
    engine.close().await;
    Ok(())
}

/// Commits from `clients` tasks for a while: new keys, or one of `keys`.
async fn run(
    engine: &Fjall,
    tasks: &Tasks,
    name: &'static str,
    clients: usize,
    keys: Option<usize>,
    time: Duration,
) -> Result<(), Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let (done, mut results) = mpsc::channel(clients);
    let start = Instant::now();
    for client in 0..clients {
        let (engine, stop, done) = (engine.clone(), stop.clone(), done.clone());
        let value = Bytes::from(vec![client as u8; VALUE]);
        let work = async move {
            let mut times = Vec::new();
            let mut n = client;
            while !stop.load(Ordering::Relaxed) {
                let key =
                    keys.map_or_else(|| format!("/{name}/{clients}/{n:012}"), |keys| format!("/{name}/{:012}", n * 7919 % keys));
                let begin = Instant::now();
                let change = Change::Put(value.clone());
                let write = Write {
                    key: key.into(),
                    expect: Expect::Anything,
                    change,
                    lane: Lane::Durable,
                    ttl: None,
                    note: None,
                    holds: Vec::new(),
                    removes: false,
                };
                engine.commit(write).await?;
                times.push(begin.elapsed());
                n += clients;
            }
            // The receiver outlives the clients.
            let _ = done.send(times).await;
            Ok::<_, Error>(())
        };
        tasks.spawn("client", OnFailure::Log, work);
    }
    drop(done);
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    while let Some(more) = results.recv().await {
        times.extend(more);
    }
    let elapsed = start.elapsed();
    times.sort_unstable();
    let at = |permille: usize| times.get(times.len() * permille / 1000).copied().unwrap_or_default();
    println!(
        "{name}, {clients} clients: {:.0} /s, p50 {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
        times.len() as f64 / elapsed.as_secs_f64(),
        at(500),
        at(990),
        at(999),
        times.last().copied().unwrap_or_default()
    );
    Ok(())
}

/// Bytes that the directory takes on disk.
fn disk(path: &std::path::Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        // Files come and go meanwhile.
        let Ok(metadata) = entry.metadata() else { continue };
        sum += if metadata.is_dir() { disk(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(sum)
}

/// Bytes of this process in memory.
fn resident() -> Result<u64, Box<dyn std::error::Error>> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').nth(1).ok_or("statm has no second field")?.parse()?;
    Ok(pages * 4096)
}
