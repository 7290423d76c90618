//! `logs`: what containers have written.

use std::time::Duration;

use clap::Args;
use futures::stream::FuturesUnordered;
use futures::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, StreamExt};
use serde_json::Value;

use crate::discovery::escaped;
use crate::error::{Error, Result};
use crate::lists::with_query;
use crate::output::{complain, print_bytes, tell, visible};
use crate::pods;
use crate::session::{Connection, Session};
use crate::times;

/// Lines of each container when several pods are asked, as kubectl has it.
const TAIL_OF_MANY: i64 = 10;

/// Bytes of a line that are held back until it ends, when other logs are shown beside it. A longer one is shown as several.
const LONGEST: u64 = 1 << 20;

/// Options of `logs`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// POD, or TYPE/NAME: one of the pods that it has.
    #[arg(required_unless_present = "selector", conflicts_with = "selector")]
    target: Option<String>,
    /// The container.
    #[arg(conflicts_with_all = ["container", "selector"], value_name = "CONTAINER")]
    positional: Option<String>,
    /// Pods that have these labels, all of them.
    #[arg(short = 'l', long, value_name = "LABELS", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    selector: Option<String>,
    /// Show what is written afterwards, too.
    #[arg(short, long)]
    follow: bool,
    /// Of the container before its last restart.
    #[arg(short, long)]
    previous: bool,
    /// The container, if it is not the first or the one that the pod notes.
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// All containers of the pods.
    #[arg(long, conflicts_with_all = ["container", "positional"])]
    all_containers: bool,
    /// All pods of TYPE/NAME.
    #[arg(long)]
    all_pods: bool,
    /// Only the last lines; -1 is all.
    #[arg(long, allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only what was written lately, such as 5m.
    #[arg(long, value_parser = times::parse)]
    since: Option<Duration>,
    /// Only what was written since a time, such as 2026-01-01T00:00:00Z.
    #[arg(long, conflicts_with = "since")]
    since_time: Option<String>,
    /// The time of each line before it.
    #[arg(long)]
    timestamps: bool,
    /// Only so many bytes of each container.
    #[arg(long)]
    limit_bytes: Option<u64>,
    /// The pod and container of each line before it.
    #[arg(long)]
    prefix: bool,
    /// How many containers may be followed at once.
    #[arg(long, default_value_t = 5)]
    max_log_requests: usize,
    /// One that cannot be read does not end the others.
    #[arg(long)]
    ignore_errors: bool,
    #[command(flatten)]
    connection: Connection,
}

/// The log of one container.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    path: String,
    prefix: String,
}

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let session = Session::open(&options.connection).await?;
    let pods = which(&session, options).await?;
    let many = options.selector.is_some() || options.all_pods;
    let resource = session.resources().await?.named("pods")?;
    let mut sources = Vec::new();
    for pod in &pods {
        let path = format!("{}/log", resource.object(pod["metadata"]["namespace"].as_str(), pods::name(pod)));
        for container in containers(pod, options)? {
            let query = query(options, container, many);
            let prefix =
                if options.prefix { visible(&format!("[pod/{}/{container}] ", pods::name(pod)), &[]) } else { String::new() };
            sources.push(Source { path: with_query(&path, &[&query]), prefix });
        }
    }
    if options.follow && sources.len() > options.max_log_requests {
        return Err(Error::usage(format!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
            sources.len(),
            options.max_log_requests
        )));
    }
    let alone = sources.len() == 1;
    if options.follow {
        let mut all: FuturesUnordered<_> = sources.iter().map(|source| show(&session, source, alone)).collect();
        while let Some(shown) = all.next().await {
            settle(shown, options.ignore_errors)?;
        }
    } else {
        for source in &sources {
            settle(show(&session, source, alone).await, options.ignore_errors)?;
        }
    }
    Ok(())
}

fn settle(shown: Result<()>, ignore: bool) -> Result<()> {
    match shown {
        Err(error @ Error::Api(_)) if ignore => {
            complain(&error);
            Ok(())
        }
        shown => shown,
    }
}

async fn which(session: &Session, options: &Options) -> Result<Vec<Value>> {
    if let Some(selector) = &options.selector {
        let pods = pods::selected(session, selector).await?;
        if pods.is_empty() {
            tell(&format!("No resources found in {} namespace.", session.namespace));
        }
        return Ok(pods);
    }
    let target = pods::target(session, options.target.as_deref().unwrap_or_default()).await?;
    let mut pods = target.pods;
    if pods.len() > 1 && !options.all_pods {
        tell(&format!("Found {} pods, using pod/{}", pods.len(), pods::name(&pods[0])));
        pods.truncate(1);
    }
    Ok(pods)
}

fn containers<'p>(pod: &'p Value, options: &'p Options) -> Result<Vec<&'p str>> {
    if options.all_containers {
        return Ok(pods::containers(pod).collect());
    }
    let named = options.container.as_deref().or(options.positional.as_deref());
    let (container, chosen) = pods::container(pod, named)?;
    if !chosen {
        pods::tell_default(pod, container);
    }
    Ok(vec![container])
}

fn query(options: &Options, container: &str, many: bool) -> String {
    let tail = options.tail.or(many.then_some(TAIL_OF_MANY));
    let flag = |name: &str, on: bool| on.then(|| format!("{name}=true"));
    let parts = [
        Some(format!("container={}", escaped(container))),
        flag("follow", options.follow),
        flag("previous", options.previous),
        flag("timestamps", options.timestamps),
        tail.filter(|tail| *tail >= 0).map(|tail| format!("tailLines={tail}")),
        // A part of a second is one: no seconds would be refused.
        options.since.map(|since| format!("sinceSeconds={}", since.as_secs_f64().ceil().max(1.0) as u64)),
        options.since_time.as_ref().map(|time| format!("sinceTime={}", escaped(time))),
        options.limit_bytes.map(|limit| format!("limitBytes={limit}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("&")
}

/// Prints a log until its end: alone as it is, beside others in whole lines.
async fn show(session: &Session, source: &Source, alone: bool) -> Result<()> {
    let log = session.stream(&source.path, "*/*").await?;
    if alone && source.prefix.is_empty() {
        copy(log, print_bytes).await
    } else {
        copy_lines(log, &source.prefix, print_bytes).await
    }
}

fn broken(error: std::io::Error) -> Error {
    Error::io("the log", error)
}

async fn copy(mut log: impl AsyncRead + Unpin, mut print: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match log.read(&mut buffer).await.map_err(broken)? {
            0 => return Ok(()),
            length => print(&buffer[..length])?,
        }
    }
}

/// Prints each line at once and with its end: what another log prints in between stands between lines.
async fn copy_lines(mut log: impl AsyncBufRead + Unpin, prefix: &str, mut print: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut line = Vec::new();
    loop {
        line.extend_from_slice(prefix.as_bytes());
        let read = (&mut log).take(LONGEST).read_until(b'\n', &mut line).await;
        // What has come before it broke is shown, too.
        if line.len() > prefix.len() {
            if !line.ends_with(b"\n") {
                line.push(b'\n');
            }
            print(&line)?;
        }
        if read.map_err(broken)? == 0 {
            return Ok(());
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::testing::parsed;

    fn options(line: &str) -> Options {
        parsed(line).unwrap()
    }

    #[test]
    fn queries() {
        let check = |line: &str, many: bool, expected: &str| assert_eq!(query(&options(line), "c", many), expected, "{line}");
        check("p", false, "container=c");
        check("p -f -p --tail=5 --timestamps", false, "container=c&follow=true&previous=true&timestamps=true&tailLines=5");
        check("p --tail=-1 --since=90s", false, "container=c&sinceSeconds=90");
        check("p --since=10ms", false, "container=c&sinceSeconds=1");
        check("-l a=b", true, "container=c&tailLines=10");
        check("-l a=b --tail=-1", true, "container=c");
        check("p --since-time=2026-01-01T00:00:00Z", false, "container=c&sinceTime=2026-01-01T00%3A00%3A00Z");
    }

    /// A log that comes in parts, others in between.
    fn log(parts: &[&'static str]) -> impl AsyncBufRead + Unpin + use<> {
        let parts = futures::stream::iter(parts.to_vec()).then(|part| async move {
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>(part)
        });
        futures::TryStreamExt::into_async_read(Box::pin(parts))
    }

    #[tokio::test]
    async fn lines_of_several_logs_stay_whole() {
        let shown = std::cell::RefCell::new(Vec::new());
        let print = |bytes: &[u8]| {
            shown.borrow_mut().extend_from_slice(bytes);
            Ok(())
        };
        let a = copy_lines(log(&["on", "e\ntw", "o\n", "last"]), "", print);
        let b = copy_lines(log(&["1", "1", "1\n\n22", "2\n"]), "[b] ", print);
        futures::try_join!(a, b).unwrap();
        let text = String::from_utf8(shown.take()).unwrap();
        assert!(text.ends_with('\n'), "{text:?}");
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["[b] ", "[b] 111", "[b] 222", "last", "one", "two"]);
        copy(log(&["on", "e\r", "x"]), print).await.unwrap();
        assert_eq!(shown.take(), b"one\rx", "one alone is as it is");
        // What never ends is not kept in memory.
        let long: &str = Box::leak("x".repeat(LONGEST as usize / 2).into_boxed_str());
        copy_lines(log(&[long, long, "y"]), "", print).await.unwrap();
        let lengths: Vec<_> = shown.take().split(|byte| *byte == b'\n').map(<[u8]>::len).collect();
        assert_eq!(lengths, [LONGEST as usize, 1, 0]);
    }

    #[test]
    fn which_containers() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(containers(&pod, &options("p --all-containers")).unwrap(), ["a", "b"]);
        assert_eq!(containers(&pod, &options("p b")).unwrap(), ["b"]);
        assert_eq!(containers(&pod, &options("p -c a")).unwrap(), ["a"]);
        assert!(containers(&pod, &options("p -c x")).is_err());
    }
}
