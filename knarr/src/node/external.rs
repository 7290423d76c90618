//! Which runtime runs the pods: the built-in one, or another program's behind a socket (the Container Runtime Interface).

use std::io::ErrorKind;
use std::sync::Arc;

use ::network::Backend;
use anyhow::{Context, Result, bail};
use base::tasks::Tasks;
use runtime::api::Runtime;

use super::{Around, Options, open_runtime};
use crate::paths::Paths;

/// A runtime that answers.
pub(super) struct Opened {
    pub(super) runtime: Arc<dyn Runtime>,
    /// The built-in one, where it is that.
    pub(super) engine: Option<runtime::Engine>,
}

/// Opens the runtime that the options name. A data directory has pods of one: they would be lost to the other.
pub(super) async fn open(options: &Options, paths: &Paths, around: Around, tasks: &Tasks) -> Result<Opened> {
    let before = endpoint_of(paths)?;
    let Some(endpoint) = &options.runtime_endpoint else {
        if let Some(before) = before {
            bail!(
                "the pods of this data directory run at {before}: give it with --container-runtime-endpoint, or run `knarr killall` first"
            );
        }
        let engine = open_runtime(options, paths, around, tasks).await?;
        return Ok(Opened { runtime: Arc::new(engine.clone()), engine: Some(engine) });
    };
    if options.cluster.backend != Backend::Cni {
        bail!("--container-runtime-endpoint needs --pod-network cni: other runtimes connect their pods by network plugins");
    }
    if options.registries.is_some() {
        bail!("--registries is for the built-in runtime: the one at {endpoint} has a configuration of its own");
    }
    if before.is_none() && paths.run().join("sandboxes").read_dir().is_ok_and(|mut found| found.next().is_some()) {
        bail!("pods of the built-in runtime are here: run `knarr killall` first");
    }
    let client = connect(endpoint, paths, tasks).await?;
    base::tls::write_private(&paths.runtime_endpoint(), endpoint.as_bytes())?;
    Ok(Opened { runtime: Arc::new(client), engine: None })
}

/// The runtime at a socket.
pub(crate) async fn connect(endpoint: &str, paths: &Paths, tasks: &Tasks) -> Result<cri::client::Client> {
    let options =
        cri::client::Options { endpoint: endpoint.to_owned(), directory: paths.runtime_records(), cgroup_root: paths.cgroup() };
    let connected = cri::client::Client::connect(options, tasks).await;
    connected.with_context(|| format!("container runtime at {endpoint}"))
}

/// The socket of the runtime that has the pods of a data directory; none is the built-in one.
pub(crate) fn endpoint_of(paths: &Paths) -> Result<Option<String>> {
    let path = paths.runtime_endpoint();
    match std::fs::read_to_string(&path) {
        Ok(endpoint) => Ok(Some(endpoint)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}
