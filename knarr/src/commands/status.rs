//! `knarr status`: what is ready, what is not, and why.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use client::Api;
use client::kube::config::{KubeConfigOptions, Kubeconfig};
use client::kube::{self, Client, Config};
use k8s_openapi::api::core::v1::Node;

use crate::cli::Status;
use crate::paths::{Paths, spelled};
use crate::process;

/// Least and greatest time between two looks at a server that is not there yet: nothing tells when it will be. In between it is a tenth of the
/// time that has passed, so that who measures a start is told of it in time, and who waits long does not keep the server busy.
const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// How long nobody has to have worked with the data directory for it to be sure that no server begins to: one that is started again, by itself or
/// by a service manager, lets go of the directory for a moment. Where no server has ever worked, it is waited for as long as it takes.
const ABSENT: Duration = Duration::from_secs(10);

/// Prints the state; with `--wait`, when everything is ready.
pub(crate) fn run(options: &Status) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let paths = Paths::new(&spelled(&options.data_dir)?);
    let (start, mut absence) = (Instant::now(), Absence::default());
    runtime.block_on(async {
        loop {
            let state = look(&paths).await;
            let waiting = options.wait && start.elapsed() < options.timeout;
            match state {
                Ok(report) => {
                    print!("{}", ctl::visible(&report, &['\n', '\t']));
                    return Ok(());
                }
                Err(error) if !waiting => return Err(error),
                Err(error) if absence.lasts(presence(&paths), Instant::now()) => {
                    let directory = options.data_dir.display();
                    return Err(error.context(format!(
                        "no server works with the data directory {directory}: if one was started, it has said why it ended"
                    )));
                }
                Err(_) => tokio::time::sleep((start.elapsed() / 10).clamp(RETRY.0, RETRY.1)).await,
            }
        }
    })
}

/// Who works with a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// Nobody, and nobody ever has: who waits may have come first.
    Never,
    /// Nobody any more.
    Gone,
    /// A process, as far as it can be told.
    There,
}

fn presence(paths: &Paths) -> Presence {
    match process::is_locked(&paths.lock()) {
        Ok(false) if paths.lock().exists() => Presence::Gone,
        Ok(false) => Presence::Never,
        Ok(true) | Err(_) => Presence::There,
    }
}

/// Since when nobody has worked with a data directory with which somebody has.
#[derive(Default)]
struct Absence(Option<Instant>);

impl Absence {
    /// Whether that is so long that nobody comes any more.
    fn lasts(&mut self, presence: Presence, now: Instant) -> bool {
        let Self(since) = self;
        *since = since.or(Some(now)).filter(|_| presence == Presence::Gone);
        since.is_some_and(|since| now.duration_since(since) >= ABSENT)
    }
}

/// A report when everything is ready, else what is not.
pub(crate) async fn look(paths: &Paths) -> Result<String> {
    let text = super::token::kubeconfig(&paths.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(Kubeconfig::from_yaml(&text)?, &KubeConfigOptions::default()).await?;
    let server = config.cluster_url.to_string();
    let client = Client::try_from(config)?;
    let ready = http::Request::get("/readyz?verbose").body(Vec::new())?;
    let checks = match client.request_text(ready).await {
        Err(kube::Error::Api(status)) if status.code == 500 => {
            bail!("the API server at {server} is not ready: {}", reasons(&client, &status.message).await)
        }
        result => result.with_context(|| format!("the API server at {server} does not answer"))?,
    };
    let nodes = Api::<Node>::all(client).list(&Default::default()).await?;
    let mut report = format!("server {server}\n{checks}");
    let name = std::fs::read_to_string(paths.node_name()).unwrap_or_default();
    if !name.is_empty() && !nodes.items.iter().any(|node| node.metadata.name.as_deref() == Some(name.trim())) {
        bail!("node {name} is not registered yet");
    }
    for node in &nodes.items {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        match ready {
            Some(condition) if condition.status == "True" => report.push_str(&format!("node {name} is ready\n")),
            Some(condition) => bail!("node {name} is not ready: {}", condition.message.as_deref().unwrap_or("no reason given")),
            None => bail!("node {name} has not reported yet"),
        }
    }
    Ok(report)
}

/// Why the checks failed that a page of checks withholds the reasons of: each tells it at its own path.
async fn reasons(client: &Client, page: &str) -> String {
    let mut reasons = Vec::new();
    for name in failed(page) {
        let one = http::Request::get(format!("/readyz/{name}")).body(Vec::new());
        let why = match one.map(|request| client.request_text(request)) {
            // It has become ready in the meantime.
            Ok(answer) => answer.await.err().map(|error| client::why(&error)),
            Err(_) => None,
        };
        reasons.extend(why.map(|why| format!("{name}: {}", why.trim().trim_start_matches("internal server error: "))));
    }
    reasons.join("; ")
}

/// The names of the checks that failed.
fn failed(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter_map(|line| line.strip_prefix("[-]")?.split_once(" failed:")).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_waited_for_unless_there_is_none_for_long() {
        let (mut absence, start) = (Absence::default(), Instant::now());
        let mut lasts = |presence: Presence, seconds: u64| absence.lasts(presence, start + Duration::from_secs(seconds));
        use Presence::{Gone, Never, There};
        // It begins late, works for long, begins again, and ends.
        let seen =
            [(Never, 0), (Never, 40), (There, 41), (There, 60), (Gone, 61), (There, 62), (Gone, 63), (Gone, 72), (Gone, 73)];
        let told = seen.map(|(presence, at)| lasts(presence, at));
        assert_eq!(told, [false, false, false, false, false, false, false, false, true]);
    }

    #[test]
    fn failed_checks_are_found() {
        let page =
            "[+]ping ok\n[-]poststarthook/a failed: reason withheld\n[-]dns failed: reason withheld\nreadyz check failed\n";
        assert_eq!(failed(page).collect::<Vec<_>>(), ["poststarthook/a", "dns"]);
    }
}
