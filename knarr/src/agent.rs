//! `knarr agent`: a node whose server is on another machine.
//!
//! It joins with a token, and is then known by certificates that it keeps current. Whatever happens to the server, pods and their network
//! go on with what the node knows.

mod authority;
mod certificates;
mod join;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base::readiness::Readiness;
use base::tasks::{OnFailure, Tasks};
use base::tls::{self, Resolver};
use client::Client;
use client::kube;
use client::remote::Remote;
use kubelet::shutdown::Periods;
use tokio::sync::Notify;

use crate::bootstrap::nodes::{CLUSTER, NODE_AUTHORITY};
use crate::node::{self, Certificates, Clients, Cluster, Node};
use crate::paths::{Paths, spelled};
use crate::process::{self, Ending, create_private, make_private};
use crate::running::Running;
use crate::{cli, identity, preflight, systemd};
use certificates::{Kind, Member};

/// How long the components may take to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Time between two questions for the cluster's authorities, while no tunnel is opened.
const AUTHORITIES: Duration = Duration::from_secs(60);

/// Runs until a signal or a failure.
pub(crate) fn run(options: cli::Agent) -> Result<()> {
    preflight::check(true)?;
    preflight::node(&options.node)?;
    let options = cli::Agent { data_dir: spelled(&options.data_dir)?, ..options };
    preflight::pod_network(&options.data_dir)?;
    options.node.protocols.tell();
    // Nothing between a signal and the end can fail by what the options say.
    let drain = options.node.shutdown.on_exit()?;
    process::run(serve(options, drain))
}

async fn serve(options: cli::Agent, drain: Option<Periods>) -> Result<()> {
    let (tasks, failures) = Tasks::root();
    let mut ending = Ending::new(failures)?;
    let running = Running::default();
    let paths = Paths::new(&options.data_dir);
    create_private(&options.data_dir)?;
    process::lock_for_life(&paths.lock())?;
    for part in [paths.pki(), paths.runtime(), paths.kubelet(), paths.network()] {
        make_private(&part)?;
    }
    let ended = ending.wait(start(&options, &paths, &running, &tasks)).await;
    process::tell_end(&ended);
    // An error tells of itself; one at the start has stopped nothing.
    if ended.is_ok() {
        ending.drain(&running, drain).await;
    }
    if !tasks.drain(DRAIN).await {
        tracing::warn!(left = tasks.len(), "some components did not end in time");
    }
    ended
}

/// Starts the node, and ends only when it has to be built anew.
async fn start(options: &cli::Agent, paths: &Paths, running: &Running, tasks: &Tasks) -> Result<()> {
    let identity = node::Identity::of(&options.node)?;
    paths.keep_node_name(&identity.name)?;
    let mut member = Member::new(options, paths, identity.clone()).await?;
    member.join(tasks).await?;
    let clients = Https(member.remote()?);
    member.follow_signer(&clients.kubelet(), tasks).await;
    let cluster = match known_cluster(paths)? {
        Some(cluster) => cluster,
        None => learn_cluster(&clients.kubelet(), paths).await?,
    };
    let identity = identity.within(&cluster)?;
    member.set_identity(identity.clone());
    let member = Arc::new(member);
    let key = (controllers::NODE_KEY.to_owned(), member.fingerprint()?);
    let issuer = member.issuer().map(|issuer| (NODE_AUTHORITY.to_owned(), issuer));
    let node = node::Options {
        annotations: [key].into_iter().chain(issuer).collect(),
        ..node::Options::new(&options.node, identity, cluster.clone(), options.bind_address)
    };
    let opened = Arc::new(Notify::new());
    let reach = tunnel::Reach { node: node.identity.ips.clone(), kubelet: node.listen, pods: node.cluster.pods.clone() };
    let (server, tls) = member.connection()?;
    let tunnel = tunnel::keep(server, tls, Arc::new(reach), opened.clone(), tasks.clone());
    let name = node.identity.name.clone();
    let own = node.identity.routed();
    let changed = Node::build(node, paths, &clients, member.as_ref(), &Readiness::default(), tasks).await?.start(running).await?;
    for kind in [Kind::Client, Kind::Serving] {
        let keeper = member.clone().keep(kind, clients.kubelet(), tasks.clone());
        tasks.spawn_until_cancelled(format!("{} certificate", kind.name()), OnFailure::Shutdown, keeper);
    }
    tasks.spawn_until_cancelled("tunnel to the server", OnFailure::Shutdown, tunnel);
    process::settle(tasks);
    tracing::info!(node = name, server = options.server, "knarr {} runs pods", env!("CARGO_PKG_VERSION"));
    systemd::serves(tasks);
    let newer = until_another(&cluster, &opened, (&member, clients.kubelet()), paths);
    tokio::select! {
        ended = process::until_changed(own, Some(changed)) => ended,
        ended = newer => ended,
    }
}

/// What the cluster was when this node ran last. A file that is damaged is taken for none: the server says it again.
fn known_cluster(paths: &Paths) -> Result<Option<Cluster>> {
    let path = paths.cluster();
    let Some(text) = tls::read_private(&path)? else { return Ok(None) };
    match serde_json::from_str(&text) {
        Ok(cluster) => Ok(Some(cluster)),
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "the file is damaged, asking the server what the cluster is");
            Ok(None)
        }
    }
}

/// Waits until the server says that the cluster is another than the node has begun with, or that others are its authorities. It is asked whenever
/// a tunnel to it is `opened`, for it writes what the cluster is when it starts, before it is ready. Now and then it is asked for its authorities
/// all the same: to a node whose certificate is of one that has gone, no tunnel is opened.
async fn until_another(begun: &Cluster, opened: &Notify, (member, client): (&Member, Client), paths: &Paths) -> Result<()> {
    loop {
        let is_opened = tokio::select! {
            () = opened.notified() => true,
            () = tokio::time::sleep(AUTHORITIES) => false,
        };
        if is_opened {
            join::until("the server is not ready", || async {
                client.request_text(http::Request::get("/readyz").body(Vec::new()).map_err(kube::Error::HttpError)?).await
            })
            .await;
        }
        match member.trusts_others(&client).await {
            Ok(false) => {}
            Ok(true) => return Err(process::Again::Authorities.into()),
            Err(error) => tracing::error!(%error, "the node cannot keep whom the server says to trust"),
        }
        if !is_opened {
            continue;
        }
        match learn_cluster(&client, paths).await {
            Ok(cluster) if cluster == *begun => {}
            Ok(_) => return Err(process::Again::Cluster.into()),
            // A server of another version may say what this one cannot read: pods and their network go on.
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the node goes on with what it knows of the cluster"),
        }
    }
}

/// What the server says of the cluster; asks until it does, and keeps it for a start without the server.
async fn learn_cluster(client: &Client, paths: &Paths) -> Result<Cluster> {
    let path = format!("/api/v1/namespaces/kube-system/configmaps/{CLUSTER}");
    let map: serde_json::Value = join::until("what the cluster is cannot be read", || async {
        client.request(http::Request::get(&path).body(Vec::new()).map_err(kube::Error::HttpError)?).await
    })
    .await;
    let text = map["data"]["cluster"].as_str().unwrap_or_default();
    let cluster = serde_json::from_str(text)
        .with_context(|| format!("ConfigMap kube-system/{CLUSTER}: was it made by another version?"))?;
    tls::write_private(&paths.cluster(), text.as_bytes())?;
    Ok(cluster)
}

/// The API of another machine.
struct Https(Remote);

impl Clients for Https {
    fn kubelet(&self) -> Client {
        identity::remote_node(self.0.clone())
    }

    fn proxy(&self) -> Client {
        identity::remote_proxy(self.0.clone())
    }
}

impl Certificates for Member {
    fn bundle(&self) -> String {
        self.authority().to_owned()
    }

    fn client(&self, _: &node::Identity) -> Result<rustls::ClientConfig, tls::Error> {
        let (certificate, key) = self.files(Kind::Client);
        tls::client(self.authority(), Some(Resolver::files(&certificate, &key)?))
    }

    fn serving(&self, _: &node::Identity) -> Result<Arc<Resolver>, tls::Error> {
        let (certificate, key) = self.files(Kind::Serving);
        Resolver::pending(&certificate, &key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_damaged_file_is_taken_for_none() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path());
        assert!(known_cluster(&paths).unwrap().is_none());
        for text in ["", "{", "7"] {
            tls::write_private(&paths.cluster(), text.as_bytes()).unwrap();
            assert!(known_cluster(&paths).unwrap().is_none(), "{text:?}");
        }
    }
}
