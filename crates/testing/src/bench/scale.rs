//! What must not grow with the number of objects or of watchers.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base::tasks::Tasks;
use bytes::Bytes;
use futures::future::try_join_all;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::load::{Ask, Until, once, run};
use super::ratios::{Side, held_pod};
use super::{CLIENTS, MAPS, PODS, usage};
use crate::api::Endpoint;

/// Objects of a page.
const PAGE: u64 = 500;
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Makes pods that nobody schedules, with these numbers, which the API shows in 4 KB; how many seconds that took.
///
/// # Errors
/// When the server refuses one.
pub async fn fill(endpoint: &Endpoint, from: u64, to: u64) -> Result<f64> {
    let bare = once(endpoint, Ask::post(format!("{PODS}?dryRun=All"), held_pod("many-sample", 0).to_string())).await?.len();
    let padding = 4096_usize.checked_sub(bare).context("a pod is smaller than 4 KB")?;
    let body = |number: u64| Bytes::from(held_pod(&format!("many-{:06}", from + number), padding).to_string());
    let count = to.saturating_sub(from);
    Ok(run(endpoint, CLIENTS, Until::Count(count), |number| Ask::post(PODS, body(number))).await?.seconds)
}

/// CPU time of a page of 500 pods from the middle of so many, as the second page of a list.
///
/// # Errors
/// When the server refuses.
pub async fn page(endpoint: &Endpoint, pid: i32, pods: u64, time: Duration) -> Result<Duration> {
    let first = once(endpoint, Ask::get(format!("{PODS}?limit={}", pods / 2))).await?;
    let list: Value = serde_json::from_slice(&first)?;
    let token = list["metadata"]["continue"].as_str().context("there are more")?.to_owned();
    let ask = |_| Ask::get(format!("{PODS}?limit={PAGE}&continue={token}"));
    Side { endpoint, pid }.cost(2, Until::Time(time), ask).await
}

/// A Table of all pods: seconds, and bytes by which the server's memory grew meanwhile.
///
/// # Errors
/// When the server refuses.
pub async fn table(endpoint: &Endpoint, pid: i32) -> Result<(f64, u64)> {
    let before = usage::forget_peak(pid)?;
    let start = Instant::now();
    let ask = Ask { accept: TABLE, ..Ask::get(PODS) };
    run(endpoint, 1, Until::Count(1), |_| ask.clone()).await?;
    Ok((start.elapsed().as_secs_f64(), usage::peak(pid).saturating_sub(before)))
}

/// What became of many watchers of a busy kind.
pub struct Watched {
    /// Creations a second.
    pub rate: f64,
    /// Seconds from the last creation until all watchers had seen it.
    pub behind: f64,
    /// Watches that the server ended, and which went on from where they were.
    pub resumed: u64,
    /// Watchers that could not go on.
    pub lost: u64,
    /// Bytes by which the server's memory grew.
    pub memory: u64,
}

/// Creates so many small ConfigMaps, at most `rate` a second, under so many watchers.
///
/// # Errors
/// When the server refuses anything but a watch from too long ago.
pub async fn watchers(endpoint: &Endpoint, pid: i32, watchers: usize, rate: u32, creates: u64) -> Result<Watched> {
    let (tasks, _failures) = Tasks::root();
    let list: Value = serde_json::from_slice(&once(endpoint, Ask::get(format!("{MAPS}?limit=1"))).await?)?;
    let version: u64 = list["metadata"]["resourceVersion"].as_str().context("a list has a version")?.parse()?;
    let before = usage::forget_peak(pid)?;
    let (resumed, lost) = (Cell::new(0), Cell::new(0));
    let watch = |_| async {
        let mut watcher = Watcher { endpoint, tasks: &tasks, version, left: creates, line: Vec::new() };
        while watcher.left > 0 {
            if !watcher.follow().await? {
                lost.set(lost.get() + 1);
                return Ok(());
            }
            resumed.set(resumed.get() + u64::from(watcher.left > 0));
        }
        anyhow::Ok(())
    };
    let start = Instant::now();
    let pace = move |number: u64| start + Duration::from_secs(number) / rate;
    let create = async {
        let done = super::load::run_paced(endpoint, CLIENTS, Until::Count(creates), pace, small_map).await?;
        anyhow::Ok((done, Instant::now()))
    };
    let (watched, created) = tokio::join!(try_join_all((0..watchers).map(watch)), create);
    watched?;
    let (done, last) = created?;
    tasks.drain(Duration::from_secs(1)).await;
    let memory = usage::peak(pid).saturating_sub(before);
    let (resumed, lost) = (resumed.get(), lost.get());
    Ok(Watched { rate: done.rate(), behind: last.elapsed().as_secs_f64(), resumed, lost, memory })
}

fn small_map(number: u64) -> Ask {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("watched-{number}")}});
    Ask::post(MAPS, object.to_string())
}

/// One watcher, which goes on where its watch has ended.
struct Watcher<'a> {
    endpoint: &'a Endpoint,
    tasks: &'a Tasks,
    /// Of the last event.
    version: u64,
    /// Events still to come.
    left: u64,
    /// The beginning of the line that is being read.
    line: Vec<u8>,
}

impl Watcher<'_> {
    /// Bytes of an event within which its resource version stands.
    const HEAD: usize = 200;

    /// Watches until all was seen or the watch ends; false when the server no longer has what follows, and says so at once.
    async fn follow(&mut self) -> Result<bool> {
        let mut connection = self.endpoint.connect(self.tasks).await?;
        let path = format!("{MAPS}?watch=true&resourceVersion={}", self.version);
        let answer = connection.send_request(Ask::get(path).request()?).await?;
        if answer.status() != StatusCode::OK {
            bail!("the server answered a watch with {}", answer.status());
        }
        self.line.clear();
        let left = self.left;
        let mut body = answer.into_body();
        while self.left > 0 {
            let Some(Ok(frame)) = body.frame().await else { return Ok(true) };
            for part in frame.data_ref().into_iter().flat_map(|data| data.split_inclusive(|byte| *byte == b'\n')) {
                let room = Self::HEAD.saturating_sub(self.line.len());
                self.line.extend_from_slice(&part[..part.len().min(room)]);
                if part.ends_with(b"\n") && !self.event()? {
                    return Ok(self.left < left);
                }
            }
        }
        Ok(true)
    }

    /// Takes in a line; false for an error.
    fn event(&mut self) -> Result<bool> {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        if text.starts_with(r#"{"type":"ERROR""#) {
            return Ok(false);
        }
        let version = text.split(r#""resourceVersion":""#).nth(1).and_then(|rest| rest.split('"').next());
        let version = version.context("an event has a version")?.parse()?;
        if version <= self.version {
            bail!("an event of version {version} came after {}", self.version);
        }
        self.version = version;
        self.left = self.left.saturating_sub(1);
        Ok(true)
    }
}
