//! A connection to a cluster: which one, as whom, and requests.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use futures::{AsyncBufRead, TryStreamExt};
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT, WARNING};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::{Client, Config};
use serde_json::Value;

use crate::discovery::{self, Resource, Resources};
use crate::error::{Error, Result, chain};
use crate::output::tell;

/// The server's data directory when none is named.
pub const DATA_DIR: &str = "/var/lib/knarr";

/// Which cluster, and which namespace of it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Connection {
    /// File that says where the cluster is and who we are. Otherwise those that KUBECONFIG names, else that of the data directory.
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    kubeconfig: Option<PathBuf>,
    /// Context of that file, if not its current one.
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    context: Option<String>,
    /// Data directory of a server on this machine.
    #[arg(long, default_value = DATA_DIR, value_name = "DIR", help_heading = "Cluster")]
    data_dir: PathBuf,
    /// Namespace, if not that of the context.
    #[arg(short, long, value_name = "NAME", help_heading = "Cluster")]
    namespace: Option<String>,
}

/// Answers in JSON.
pub(crate) const JSON: &str = "application/json";
/// Lists as tables where the server can, for what is shown.
pub(crate) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// A cluster that is asked.
pub(crate) struct Session {
    pub(crate) client: Client,
    /// The namespace that is meant when none is named.
    pub(crate) namespace: String,
    /// Whether the namespace was named on the command line.
    pub(crate) namespace_named: bool,
    server: String,
    resources: OnceCell<Resources>,
    warned: RefCell<BTreeSet<String>>,
}

/// What is sent besides a path.
#[derive(Default)]
pub(crate) struct Payload {
    /// Type of the content.
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
}

impl Payload {
    pub(crate) fn of(content_type: &'static str, body: &Value) -> Self {
        Self { content_type, body: body.to_string().into_bytes() }
    }
}

impl Session {
    /// Reads the configuration. Nothing is asked yet.
    ///
    /// # Errors
    /// There is no configuration, or it cannot be used.
    pub(crate) async fn open(options: &Connection) -> Result<Self> {
        let kubeconfig = read(options)?;
        let chosen = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig, &chosen).await?;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| Error::usage(chain(&error)))?;
        let namespace_named = options.namespace.is_some();
        Ok(Self { client, namespace, namespace_named, server, resources: OnceCell::new(), warned: RefCell::default() })
    }

    /// What the server serves; asked once.
    pub(crate) async fn resources(&self) -> Result<&Resources> {
        if let Some(resources) = self.resources.get() {
            return Ok(resources);
        }
        let resources = self.discover().await?;
        Ok(self.resources.get_or_init(|| resources))
    }

    /// What the server serves now.
    pub(crate) async fn discover(&self) -> Result<Resources> {
        let (core, groups) = futures::try_join!(
            self.ask(Method::GET, "/api", discovery::ACCEPT, Payload::default()),
            self.ask(Method::GET, "/apis", discovery::ACCEPT, Payload::default())
        )?;
        discovery::parse(&[core.1, groups.1])
    }

    /// The namespace of objects of a resource, none where it has none.
    pub(crate) fn namespace_of(&self, resource: &Resource) -> Option<&str> {
        resource.namespaced.then_some(self.namespace.as_str())
    }

    /// Reads a path.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.ask(Method::GET, path, JSON, Payload::default()).await?.1)
    }

    /// Reads a path; none where there is no such object.
    pub(crate) async fn get_opt(&self, path: &str) -> Result<Option<Value>> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a request, and gives the answer.
    ///
    /// # Errors
    /// The server is not reached, or refuses.
    pub(crate) async fn ask(&self, method: Method, path: &str, accept: &str, payload: Payload) -> Result<(StatusCode, Value)> {
        let (status, text) = self.ask_text(method, path, accept, payload).await?;
        let value = serde_json::from_str(&text)
            .map_err(|error| Error::Answer { what: "with something that is not JSON", text: error.to_string() })?;
        Ok((status, value))
    }

    /// The same, as text.
    pub(crate) async fn ask_text(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        payload: Payload,
    ) -> Result<(StatusCode, String)> {
        let response = self.send(method, path, accept, payload).await?;
        let status = response.status();
        Ok((status, self.text(response).await?))
    }

    /// Makes a request whose answer goes on and on.
    pub(crate) async fn stream(&self, path: &str, accept: &str) -> Result<impl AsyncBufRead + use<>> {
        let response = self.send(Method::GET, path, accept, Payload::default()).await?;
        Ok(response.into_body().into_data_stream().map_err(std::io::Error::other).into_async_read())
    }

    async fn send(&self, method: Method, path: &str, accept: &str, payload: Payload) -> Result<Response<Body>> {
        let agent = concat!("knarr/", env!("CARGO_PKG_VERSION"));
        let mut request = Request::builder().method(method).uri(path).header(ACCEPT, accept).header(USER_AGENT, agent);
        if !payload.content_type.is_empty() {
            request = request.header(CONTENT_TYPE, payload.content_type);
        }
        let request = request.body(Body::from(payload.body)).map_err(|error| Error::usage(format!("{path}: {error}")))?;
        let response = self.client.send(request).await.map_err(|error| self.failed(error))?;
        self.warn(response.headers());
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status();
        let text = self.text(response).await?;
        let status = serde_json::from_str::<Status>(&text).ok().filter(|status| !status.message.is_empty() || status.code != 0);
        Err(Error::Api(Box::new(status.unwrap_or_else(|| Status {
            code: code.as_u16(),
            message: if text.trim().is_empty() { code.to_string() } else { text.trim().to_owned() },
            ..Status::default()
        }))))
    }

    async fn text(&self, response: Response<Body>) -> Result<String> {
        let body = response.into_body().collect().await.map_err(|error| self.failed(error))?;
        String::from_utf8(body.to_bytes().into())
            .map_err(|error| Error::Answer { what: "with something that is not text", text: error.to_string() })
    }

    /// What a failure of the client library means.
    pub(crate) fn failed(&self, error: kube::Error) -> Error {
        match error {
            kube::Error::Api(status) => Error::Api(status),
            // Its own text says nothing but that it is an error of the transport.
            kube::Error::Service(error) => Error::Unreachable { server: self.server.clone(), cause: chain(error.as_ref()) },
            error @ kube::Error::UpgradeConnection(_) => Error::Answer { what: "with no WebSocket", text: chain(&error) },
            error => Error::Unreachable { server: self.server.clone(), cause: chain(&error) },
        }
    }

    /// Tells each warning of the server once.
    fn warn(&self, headers: &HeaderMap) {
        for value in headers.get_all(WARNING).iter().filter_map(|value| value.to_str().ok()) {
            if let Some(text) = warning(value)
                && self.warned.borrow_mut().insert(text.clone())
            {
                tell(&format!("Warning: {text}"));
            }
        }
    }
}

/// The text of a warning header (RFC 7234): `299 - "text"`.
fn warning(header: &str) -> Option<String> {
    let quoted = header.strip_prefix("299 ")?.split_once(' ')?.1;
    let mut text = String::new();
    let mut chars = quoted.strip_prefix('"')?.chars();
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => text.push(chars.next()?),
            c => text.push(c),
        }
    }
}

fn read(options: &Connection) -> Result<Kubeconfig> {
    if let Some(path) = &options.kubeconfig {
        return read_file(path);
    }
    if let Some(kubeconfig) = Kubeconfig::from_env()? {
        return Ok(kubeconfig);
    }
    let path = options.data_dir.join("kubeconfig");
    if !path.try_exists().map_err(|error| Error::io(path.display().to_string(), error))? {
        return Err(Error::NoKubeconfig(path));
    }
    read_file(&path)
}

fn read_file(path: &Path) -> Result<Kubeconfig> {
    match Kubeconfig::read_from(path) {
        Err(kube::config::KubeconfigError::ReadConfig(cause, path)) => Err(Error::io(path.display().to_string(), cause)),
        read => Ok(read?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings() {
        let check = |header: &str, expected: Option<&str>| assert_eq!(warning(header).as_deref(), expected, "{header}");
        check("299 - \"v1 Endpoints is deprecated\"", Some("v1 Endpoints is deprecated"));
        check("299 knarr \"a \\\"b\\\" c\"", Some("a \"b\" c"));
        check("199 - \"other\"", None);
        check("299 - \"open", None);
    }
}
