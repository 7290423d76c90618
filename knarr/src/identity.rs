//! The components' identities: each has its own, and no more rights than upstream's roles give it.

use apiserver::{Api, authn};
use client::Client;

/// A client of the API in this process with an identity.
fn client(api: &Api, user: registry::User) -> Client {
    Client::new(api.as_user(user), "default")
}

/// A component by its user name, such as `system:kube-scheduler`.
pub(crate) fn component(api: &Api, name: &str) -> Client {
    client(api, authn::user(name, Vec::new()))
}

/// A controller by its service account in `kube-system`.
pub(crate) fn controller(api: &Api, account: &str) -> Client {
    client(api, authn::service_account("kube-system", account))
}

/// A kubelet.
pub(crate) fn node(api: &Api, name: &str) -> Client {
    client(api, authn::user(format!("system:node:{name}"), vec!["system:nodes".to_owned()]))
}

/// The API server itself, for the objects that it keeps.
pub(crate) fn apiserver(api: &Api) -> Client {
    client(api, authn::user("system:apiserver", vec!["system:masters".to_owned()]))
}
