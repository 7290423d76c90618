//! `port-forward`: ports of this machine that lead to those of a pod.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base::listen::accepted;
use clap::Args;
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use streaming::join::splice;
use tokio::net::{TcpListener, TcpStream};

use crate::error::{Error, Result};
use crate::output::{say, tell};
use crate::pods::{self, Target};
use crate::session::{Connection, Session};

/// Options of `port-forward`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// POD, or TYPE/NAME: one of the pods that it has.
    target: String,
    /// LOCAL:REMOTE, PORT for the same on both sides, or :REMOTE for any local one. Remote ports may be names.
    #[arg(required = true, value_name = "PORTS")]
    ports: Vec<String>,
    /// Addresses of this machine to listen at.
    #[arg(long, default_value = "localhost", value_delimiter = ',')]
    address: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Runs it until the pod is gone or the user ends it.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let session = Session::open(&options.connection).await?;
    let target = pods::target(&session, &options.target).await?;
    let Some(pod) = target.pods.first() else { return Err(Error::usage("no pods are there")) };
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if phase != "Running" {
        return Err(Error::usage(format!("unable to forward port because pod is not running. Current status={phase}")));
    }
    let mut listeners = Vec::new();
    for ports in &options.ports {
        let (mut local, remote) = pair(&target, pod, ports)?;
        for address in addresses(&options.address)? {
            match TcpListener::bind(SocketAddr::new(address, local)).await {
                Ok(listener) => {
                    let bound = listener.local_addr().map_err(|error| Error::io("the socket", error))?;
                    local = bound.port();
                    say(&format!("Forwarding from {bound} -> {remote}"))?;
                    listeners.push((listener, remote));
                }
                // Machines without IPv6 have one address less.
                Err(error) if address == Ipv6Addr::LOCALHOST && error.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err(error) => {
                    return Err(Error::usage(format!("unable to listen on {}: {error}", SocketAddr::new(address, local))));
                }
            }
        }
    }
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let forward = Forward { session: &session, api: Api::namespaced(session.client.clone(), namespace), pod: pods::name(pod) };
    forward.serve(&listeners).await
}

struct Forward<'a> {
    session: &'a Session,
    api: Api<Pod>,
    pod: &'a str,
}

impl Forward<'_> {
    async fn serve(&self, listeners: &[(TcpListener, u16)]) -> Result<()> {
        let mut accepts: FuturesUnordered<_> = listeners.iter().map(accept).collect();
        let mut connections: FuturesUnordered<LocalBoxFuture<'_, Result<()>>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some((listener, stream)) = accepts.next() => {
                    accepts.push(accept(listener));
                    let port = stream.local_addr().map(|address| address.port()).unwrap_or_default();
                    say(&format!("Handling connection for {port}"))?;
                    connections.push(Box::pin(self.connect(stream, listener.1)));
                }
                Some(ended) = connections.next() => ended?,
                else => return Ok(()),
            }
        }
    }

    /// Leads one connection to the pod, over a connection to the API of its own.
    ///
    /// # Errors
    /// There is no such pod any more.
    async fn connect(&self, stream: TcpStream, port: u16) -> Result<()> {
        let failed = |why: &str| tell(&format!("an error occurred forwarding to port {port} of pod {}: {why}", self.pod));
        let mut forwarder = match self.api.portforward(self.pod, &[port]).await {
            Ok(forwarder) => forwarder,
            Err(error) => {
                let error = self.session.failed(error);
                if error.is_not_found() {
                    return Err(Error::usage("lost connection to pod"));
                }
                failed(&error.to_string());
                return Ok(());
            }
        };
        let error = forwarder.take_error(port);
        if let Some(pod) = forwarder.take_stream(port) {
            splice(stream, pod).await;
        }
        if let Some(error) = error
            && let Some(Some(why)) = futures::FutureExt::now_or_never(error)
        {
            failed(&why);
        }
        forwarder.abort();
        Ok(())
    }
}

async fn accept(listener: &(TcpListener, u16)) -> (&(TcpListener, u16), TcpStream) {
    (listener, accepted(|| listener.0.accept()).await.0)
}

fn addresses(names: &[String]) -> Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for name in names {
        match name.as_str() {
            "localhost" => addresses.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]),
            name => addresses.push(name.parse().map_err(|_| Error::usage(format!("{name:?} is no address")))?),
        }
    }
    Ok(addresses)
}

/// The local port and the pod's, of `LOCAL:REMOTE`, `PORT` or `:REMOTE`.
fn pair(target: &Target<'_>, pod: &Value, ports: &str) -> Result<(u16, u16)> {
    let wrong = || Error::usage(format!("invalid port format {ports:?}"));
    let (local, remote) = match ports.split_once(':') {
        Some((local, remote)) => (Some(local), remote),
        None => (None, ports),
    };
    let number = |text: &str| text.parse::<u16>().ok();
    let local = match local {
        None => number(remote),
        Some("") => Some(0),
        Some(local) => Some(number(local).ok_or_else(wrong)?),
    };
    let object = &target.object;
    let remote = if object["kind"] == "Service" {
        of_service(object, pod, remote)
    } else {
        number(remote).or_else(|| of_name(pod, remote))
    };
    let remote = remote.filter(|port| *port != 0);
    let remote = remote.ok_or_else(|| {
        let what = target.resource.named(pods::name(object));
        Error::usage(format!("{what} has no port {:?}", ports.rsplit(':').next().unwrap_or_default()))
    })?;
    // A name has no number of its own to listen at.
    Ok((local.unwrap_or(remote), remote))
}

/// The port of a pod behind a port of a service, by number or name.
fn of_service(service: &Value, pod: &Value, port: &str) -> Option<u16> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let matches =
        |entry: &&Value| entry["name"] == port || entry["port"].as_u64().is_some_and(|number| number.to_string() == port);
    let entry = ports.into_iter().find(matches)?;
    let small = |value: &Value| u16::try_from(value.as_u64()?).ok();
    if service["spec"]["clusterIP"] == "None" {
        // Without an address of its own, the port is the pod's.
        return small(&entry["port"]);
    }
    match &entry["targetPort"] {
        Value::String(name) => of_name(pod, name),
        target => small(target).or_else(|| small(&entry["port"])),
    }
}

/// The number of a port that a container of a pod names.
fn of_name(pod: &Value, name: &str) -> Option<u16> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    u16::try_from(ports.find(|port| port["name"] == name)?["containerPort"].as_u64()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn ports() {
        let resources = crate::discovery::tests::some();
        let pod = json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service = |ip: &str| {
            let ports = json!([{"name": "web", "port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 9}, {"port": 82}]);
            json!({"kind": "Service", "metadata": {"name": "s"}, "spec": {"clusterIP": ip, "ports": ports}})
        };
        let check = |object: &Value, ports: &str, expected: Option<(u16, u16)>| {
            let resource = resources.named(object["kind"].as_str().unwrap()).unwrap();
            let target = Target { resource, object: object.clone(), pods: Vec::new() };
            assert_eq!(pair(&target, &pod, ports).ok(), expected, "{ports}");
        };
        check(&pod, "80", Some((80, 80)));
        check(&pod, "8000:80", Some((8000, 80)));
        check(&pod, ":80", Some((0, 80)));
        check(&pod, "http", Some((8080, 8080)));
        check(&pod, "1:http", Some((1, 8080)));
        check(&pod, "x", None);
        check(&pod, "70000", None);
        check(&pod, "x:80", None);
        check(&service("10.0.0.1"), "80", Some((80, 8080)));
        check(&service("10.0.0.1"), "web", Some((8080, 8080)));
        check(&service("10.0.0.1"), "7:81", Some((7, 9)));
        check(&service("10.0.0.1"), "82", Some((82, 82)));
        check(&service("None"), "81", Some((81, 81)));
        check(&service("10.0.0.1"), "83", None);
    }
}
