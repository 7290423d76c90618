//! A server in this process, and requests to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use apiserver::{Api, Body, Handle, Options, Service};
use base::readiness::Readiness;
use base::tasks::{Failures, Tasks};
use base::tls::Authority;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use registry::User;
use serde_json::{Value, json};
use tower::Service as _;

/// Options of a server of a test, which keeps its keys in `pki`.
pub(crate) fn options(pki: PathBuf, anonymous: bool) -> Options {
    Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: Default::default(),
        pki,
        names: Vec::new(),
        advertised: "10.0.0.1:6443".parse().unwrap(),
        public_address: "127.0.0.1:6443".into(),
        domain: "cluster.local".into(),
        service_accounts: apiserver::Issuers::from("https://kubernetes.default.svc.cluster.local").into(),
        authentication: apiserver::authn::Options::anonymous(anonymous),
        admission: None,
        admission_plugins: Vec::new(),
        tolerations: Default::default(),
        authorization: Default::default(),
        audit: None,
        build: apiserver::Build::default(),
        flags: std::sync::Arc::new([("port".to_owned(), "0".to_owned())].into()),
        registry: registry::Options::new(vec!["10.43.0.0/16".parse().unwrap()]),
    }
}

/// A server whose service does not listen yet.
pub(crate) struct Server {
    pub(crate) api: Api,
    pub(crate) tasks: Tasks,
    pub(crate) authority: Arc<Authority>,
    pub(crate) service: Option<Service>,
    /// Where it listens, once it runs.
    pub(crate) address: SocketAddr,
    engine: Arc<store::Fjall>,
    _failures: Failures,
    dir: tempfile::TempDir,
}

impl Server {
    /// Begins to listen and to follow.
    pub(crate) fn run(&mut self) {
        let (service, tasks) = (self.service.take().unwrap(), self.tasks.clone());
        self.tasks.spawn("apiserver", base::tasks::OnFailure::Log, async move { service.run(tasks).await });
    }

    /// Ends the API, and opens it again over the same store.
    pub(crate) async fn restart(&mut self) {
        let options = options(self.dir.path().join("pki"), true);
        let (engine, authority) = (self.engine.clone(), self.authority.clone());
        let service = Service::new(engine, authority, options, Readiness::default(), &self.tasks).await.unwrap();
        Handle { api: self.api, address: self.address } = service.handle().unwrap();
        self.service = Some(service);
    }
}

/// A server over an empty store that listens and follows its own objects, such as roles.
pub(crate) async fn serve() -> Server {
    serve_with(|_| {}).await
}

/// The same, with other options.
pub(crate) async fn serve_with(change: impl FnOnce(&mut Options)) -> Server {
    let mut server = start_with(change).await;
    server.run();
    server
}

/// A server over an empty store.
pub(crate) async fn start(anonymous: bool) -> Server {
    start_with(|options| options.authentication.anonymous = anonymous).await
}

/// The same, with other options.
pub(crate) async fn start_with(change: impl FnOnce(&mut Options)) -> Server {
    start_within(u64::MAX, change).await
}

/// The same, with a store that takes so many bytes of objects.
pub(crate) async fn start_within(quota: u64, change: impl FnOnce(&mut Options)) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let (tasks, failures) = Tasks::root();
    let store = store::Options { reserve: 0, quota, ..store::Options::new(dir.path().join("db")) };
    let engine = Arc::new(store::Fjall::open(store, &tasks).await.unwrap());
    let authority = Arc::new(Authority::in_memory("test-ca").unwrap());
    let mut options = options(dir.path().join("pki"), true);
    change(&mut options);
    let service = Service::new(engine.clone(), authority.clone(), options, Readiness::default(), &tasks).await.unwrap();
    let Handle { api, address } = service.handle().unwrap();
    Server { api, tasks, authority, service: Some(service), address, engine, _failures: failures, dir }
}

/// What the server answered.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }
}

/// `GET /path` with headers `Name: value` below, then an empty line and the body.
pub(crate) async fn ask(api: &Api, user: &str, request: &str) -> Answer {
    let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
    let mut lines = head.lines();
    let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
    let mut builder = Request::builder().method(method).uri(path);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        builder = builder.header(name, value);
    }
    let request = builder.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let response = match user {
        "" => api.clone().call(request).await.unwrap(),
        user => {
            let groups = if user == "admin" { vec!["system:masters".into()] } else { Vec::new() };
            api.as_user(User { name: user.into(), groups, ..User::default() }).call(request).await.unwrap()
        }
    };
    let (parts, body): (_, Body) = response.into_parts();
    Answer { code: parts.status.as_u16(), headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
}

pub(crate) async fn admin(api: &Api, request: &str) -> Answer {
    ask(api, "admin", request).await
}

pub(crate) fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

pub(crate) async fn namespace(api: &Api, name: &str) {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let made = admin(api, &format!("POST /api/v1/namespaces\n\n{body}")).await;
    assert_eq!(made.code, 201, "{:?}", made.body);
}

/// A namespace with the ServiceAccount that a controller makes on a whole cluster, so that pods are admitted.
pub(crate) async fn populated_namespace(api: &Api, name: &str) {
    namespace(api, name).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let made = admin(api, &format!("POST /api/v1/namespaces/{name}/serviceaccounts\n\n{account}")).await;
    assert_eq!(made.code, 201, "{:?}", made.body);
}

/// Binds rules to a user in the whole cluster, and waits until they apply.
pub(crate) async fn grant(api: &Api, user: &str, rules: Value, until: &str) {
    let path = "/apis/rbac.authorization.k8s.io/v1";
    let role =
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": user}, "rules": rules});
    assert_eq!(admin(api, &format!("POST {path}/clusterroles\n\n{role}")).await.code, 201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}]});
    assert_eq!(admin(api, &format!("POST {path}/clusterrolebindings\n\n{binding}")).await.code, 201);
    while ask(api, user, until).await.code == 403 {
        tokio::task::yield_now().await;
    }
}
