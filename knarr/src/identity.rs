//! The components' identities: each has its own, and no more rights than upstream's roles give it.

use std::sync::LazyLock;

use apiserver::{Api, authn};
use base::metrics::Page;
use client::Client;
use client::measured::Meter;
use client::remote::Remote;
use http::header::{HeaderValue, USER_AGENT};
use tower::ServiceExt;

/// Who a component says it is: the default field manager of what it writes, as with upstream's programs.
const KUBELET: HeaderValue = HeaderValue::from_static("kubelet");
const CONTROLLERS: HeaderValue = HeaderValue::from_static("kube-controller-manager");
const SCHEDULER: HeaderValue = HeaderValue::from_static("kube-scheduler");
const PROXY: HeaderValue = HeaderValue::from_static("kube-proxy");
const INGRESS: HeaderValue = HeaderValue::from_static("knarr-ingress");
const API_SERVER: HeaderValue = HeaderValue::from_static("kube-apiserver");

/// The service account that ingress speaks as; its rights are those of `bootstrap::ingress`.
pub(crate) const INGRESS_ACCOUNT: &str = "knarr-ingress";

/// Where the API is, as the figures of requests name it. In this process there is no address.
const HOST: &str = "kubernetes.default.svc";

/// The requests of the server's components and of the node's.
static SERVER: LazyLock<Meter> = LazyLock::new(|| Meter::new(Page::Server, HOST));
static NODE: LazyLock<Meter> = LazyLock::new(|| Meter::new(Page::Node, HOST));

/// A client of the API in this process with an identity.
fn client(api: &Api, user: registry::User, agent: HeaderValue, meter: &Meter) -> Client {
    let service = api.as_user(user).map_request(move |mut request: http::Request<_>| {
        request.headers_mut().insert(USER_AGENT, agent.clone());
        request
    });
    Client::new(meter.measure(service), "default")
}

/// The controllers' shared informers.
pub(crate) fn controllers(api: &Api) -> Client {
    client(api, authn::user("system:kube-controller-manager", Vec::new()), CONTROLLERS, &SERVER)
}

/// The scheduler.
pub(crate) fn scheduler(api: &Api) -> Client {
    client(api, authn::user("system:kube-scheduler", Vec::new()), SCHEDULER, &SERVER)
}

/// The service proxy, and the cluster DNS, which reads the same.
pub(crate) fn proxy(api: &Api) -> Client {
    client(api, authn::user("system:kube-proxy", Vec::new()), PROXY, &NODE)
}

/// The way in from outside.
pub(crate) fn ingress(api: &Api) -> Client {
    client(api, authn::service_account("kube-system", INGRESS_ACCOUNT), INGRESS, &NODE)
}

/// A controller by its service account in `kube-system`.
pub(crate) fn controller(api: &Api, account: &str) -> Client {
    client(api, authn::service_account("kube-system", account), CONTROLLERS, &SERVER)
}

/// A kubelet.
pub(crate) fn node(api: &Api, name: &str) -> Client {
    client(api, authn::user(format!("system:node:{name}"), vec!["system:nodes".to_owned()]), KUBELET, &NODE)
}

/// A node on another machine than the server's.
pub(crate) fn remote_node(remote: Remote) -> Client {
    Client::new(NODE.measure(remote.with_agent(KUBELET)), "default")
}

/// Its service proxy and DNS, with the node's identity: who holds the one could always read by the other.
pub(crate) fn remote_proxy(remote: Remote) -> Client {
    Client::new(NODE.measure(remote.with_agent(PROXY)), "default")
}

/// The API server itself, for the objects that it keeps.
pub(crate) fn apiserver(api: &Api) -> Client {
    client(api, authn::user("system:apiserver", vec!["system:masters".to_owned()]), API_SERVER, &SERVER)
}
