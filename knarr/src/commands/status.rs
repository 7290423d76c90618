//! `knarr status`: what is ready, what is not, and why.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use client::Api;
use client::kube::config::{KubeConfigOptions, Kubeconfig};
use client::kube::{self, Client, Config};
use k8s_openapi::api::core::v1::Node;

use crate::cli::Status;
use crate::paths::{Paths, spelled};

/// Least and greatest time between two looks at a server that is not there yet: nothing tells when it will be. In between it is a tenth of the
/// time that has passed, so that who measures a start is told of it in time, and who waits long does not keep the server busy.
const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Prints the state; with `--wait`, when everything is ready.
pub(crate) fn run(options: &Status) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let paths = Paths::new(&spelled(&options.data_dir)?);
    let start = Instant::now();
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
                Err(_) => tokio::time::sleep((start.elapsed() / 10).clamp(RETRY.0, RETRY.1)).await,
            }
        }
    })
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
    fn failed_checks_are_found() {
        let page =
            "[+]ping ok\n[-]poststarthook/a failed: reason withheld\n[-]dns failed: reason withheld\nreadyz check failed\n";
        assert_eq!(failed(page).collect::<Vec<_>>(), ["poststarthook/a", "dns"]);
    }
}
