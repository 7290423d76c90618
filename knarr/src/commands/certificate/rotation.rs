//! `knarr certificate rotate-ca`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base::tls;
use client::kube::Client;
use client::kube::api::ListParams;
use client::{Api, kube};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use super::super::token::{client, why};
use super::{Owner, authority};
use crate::bootstrap::nodes::{INFO, NODE_AUTHORITY, published};
use crate::certificate::authorities;
use crate::paths::{self, Paths};
use crate::{dev, process};

/// How long the server may take to start again with other authorities.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks at it.
const RETRY: Duration = Duration::from_millis(250);
/// Until then kubelets have brought each pod a token of the new key, which they do when four fifths of its hour have passed.
const TOKENS: SignedDuration = SignedDuration::from_hours(1);

/// Begins a rotation. The data directory as the user has named it.
pub(super) fn begin(paths: &Paths, data_dir: &Path) -> Result<()> {
    alone(paths, async {
        let has_begun = authorities::begin(&paths.pki(), Timestamp::now())?;
        let is_running = process::is_locked(&paths.lock())?;
        if is_running {
            in_force(paths).await?;
        }
        if !has_begun {
            println!("A rotation is under way already: nothing has changed.");
        }
        let when = if is_running { "issues" } else { "issues, once it runs," };
        let named = match data_dir == Path::new(paths::DEFAULT) {
            true => String::new(),
            false => format!(" --data-dir {}", data_dir.display()),
        };
        println!(
            "The server {when} certificates of a new authority, and tokens of a new key. Those of before stay good.
Copy {} to where it is used, have pods started again that read their cluster's authority only once,
and tokens for machines that join made again (knarr token create{named}). Connected agents follow by themselves.
Then, after an hour at the earliest: knarr certificate rotate-ca --finish{named}",
            dev::kubeconfig(data_dir)?.display()
        );
        Ok(())
    })
}

/// Ends a rotation.
pub(super) fn finish(paths: &Paths, force: bool) -> Result<()> {
    alone(paths, async {
        if !force {
            may_end(paths).await?;
        }
        let had_begun = authorities::finish(&paths.pki())?;
        if process::is_locked(&paths.lock())? {
            in_force(paths).await?;
        }
        match had_begun {
            true => println!("The authorities and the key of before are trusted no longer."),
            false => println!("No rotation is under way: nothing has changed."),
        }
        Ok(())
    })
}

/// Runs one of these on a server's data directory, with nobody else at it: two at once would each undo what the other one has begun.
fn alone(paths: &Paths, work: impl Future<Output = Result<()>>) -> Result<()> {
    if Owner::of(paths)? == Owner::Agent {
        bail!("this is the data directory of an agent: authorities are rotated on the server's machine, and agents follow");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _lock = process::lock(&paths.pki().join("rotation.lock")).context("knarr certificate rotate-ca")?;
    runtime.block_on(work)
}

/// Refuses the end while it would shut somebody out who is known.
async fn may_end(paths: &Paths) -> Result<()> {
    if !authorities::is_rotating(&paths.pki())? {
        return Ok(());
    }
    let bundle = authority(paths)?;
    let mut reasons: Vec<String> =
        authorities::begun(&bundle).and_then(|begun| early(begun, Timestamp::now())).into_iter().collect();
    match process::is_locked(&paths.lock())? {
        true => reasons.extend(behind(paths, &bundle).await?),
        false => reasons.push("the server does not run, and whether all nodes have followed is not known".to_owned()),
    }
    match reasons.is_empty() {
        true => Ok(()),
        false => bail!("{} (--force ends the rotation all the same, and shuts out whoever has not followed)", reasons.join("; ")),
    }
}

/// Why it is too early for the end of a rotation.
fn early(begun: Timestamp, now: Timestamp) -> Option<String> {
    let left = TOKENS - now.duration_since(begun);
    let minutes = left.as_secs().div_euclid(60) + 1;
    left.is_positive().then(|| format!("for {minutes} minutes more, pods may have tokens of the key of before only"))
}

/// Which nodes have not followed.
async fn behind(paths: &Paths, bundle: &str) -> Result<Option<String>> {
    in_force(paths).await?;
    let client = client(&paths.kubeconfig()).await?;
    let nodes = Api::<Node>::all(client).list(&ListParams::default()).await.map_err(why)?;
    let (behind, unknown) = followers(&nodes.items, &tls::digest_of_signer(bundle)?);
    if !unknown.is_empty() {
        println!("Whether these nodes have followed is not known, since they run another kubelet: {}", unknown.join(", "));
    }
    let reason = format!("these nodes have no certificate of the new authority yet: {}", behind.join(", "));
    Ok((!behind.is_empty()).then_some(reason))
}

/// The nodes that have no certificate of the signer with this digest, and those of which nobody can tell: they run another kubelet.
fn followers(nodes: &[Node], signer: &str) -> (Vec<String>, Vec<String>) {
    let (mut behind, mut unknown) = (Vec::new(), Vec::new());
    for node in nodes {
        let annotation = |name: &str| node.metadata.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str);
        let name = node.metadata.name.clone().unwrap_or_default();
        match annotation(controllers::NODE_KEY) {
            // The server's own.
            Some("none") => {}
            None => unknown.push(name),
            Some(_) if annotation(NODE_AUTHORITY) == Some(signer) => {}
            Some(_) => behind.push(name),
        }
    }
    (behind, unknown)
}

/// Waits until the server that runs has the authorities of the data directory.
async fn in_force(paths: &Paths) -> Result<()> {
    let wanted = tls::certificates(&authority(paths)?)?;
    let start = Instant::now();
    loop {
        // Its kubeconfig is written anew meanwhile.
        let told = match client(&paths.kubeconfig()).await {
            Ok(client) => told(&client).await,
            Err(error) => Err(error),
        };
        match told {
            Ok(told) if told == wanted => return Ok(()),
            Ok(_) if start.elapsed() > PATIENCE => {
                bail!("the server goes on with other authorities than those of {}: see its log", paths.pki().display())
            }
            Err(error) if start.elapsed() > PATIENCE => {
                let context = "a server works with this data directory, and its API cannot be asked which authorities it has";
                return Err(error.context(context));
            }
            _ => tokio::time::sleep(RETRY).await,
        }
    }
}

/// The authorities that the server says it has, once it is ready.
async fn told(client: &Client) -> Result<Vec<String>> {
    let get = |path: &str| http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError);
    client.request_text(get("/readyz")?).await?;
    let info: Value = client.request(get(INFO)?).await?;
    Ok(tls::certificates(&published(&info)?)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_have_an_hour() {
        let check = |second: i64, expected: Option<&str>| {
            let now = Timestamp::from_second(1_800_000_000 + second).unwrap();
            let early = early(Timestamp::from_second(1_800_000_000).unwrap(), now);
            assert_eq!(early.as_deref().map(|text| text.split(',').next().unwrap()), expected, "{second}");
        };
        check(1, Some("for 60 minutes more"));
        check(3599, Some("for 1 minutes more"));
        check(3600, None);
        check(-60, Some("for 62 minutes more"));
    }

    #[test]
    fn nodes_that_have_not_followed() {
        let node = |name: &str, key: Option<&str>, authority: Option<&str>| {
            let pairs = [(controllers::NODE_KEY, key), (NODE_AUTHORITY, authority)];
            let annotations = pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
            let mut node = Node::default();
            node.metadata.name = Some(name.to_owned());
            node.metadata.annotations = Some(annotations);
            node
        };
        let nodes = [
            node("server", Some("none"), None),
            node("new", Some("k1"), Some("b")),
            node("old", Some("k2"), Some("a")),
            node("older", Some("k3"), None),
            node("upstream", None, None),
        ];
        assert_eq!(followers(&nodes, "b"), (vec!["old".to_owned(), "older".to_owned()], vec!["upstream".to_owned()]));
    }
}
