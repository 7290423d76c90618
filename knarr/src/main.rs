//! `knarr`: a whole Kubernetes cluster in one process.

mod agent;
mod bootstrap;
mod certificate;
mod cli;
mod commands;
mod dev;
mod identity;
mod images;
mod kubeconfig;
mod local;
mod node;
mod paths;
mod preflight;
mod private_socket;
mod process;
mod running;
mod server;
mod snapshot;
mod systemd;
mod token;
mod version;

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::process::ExitCode;

/// A fifth of what creating an object costs was the C library's allocator.
#[global_allocator]
static ALLOCATOR: runtime::memory::Allocator = runtime::memory::Allocator;

/// The address by which this machine reaches others: that of its default route, else the first that is not loopback and not
/// of the network of pods.
fn default_address() -> Option<IpAddr> {
    routed_address().or_else(|| {
        let interfaces = nix::ifaddrs::getifaddrs().ok()?.filter(|interface| !interface.interface_name.starts_with("knarr"));
        let mut addresses = interfaces.filter_map(|interface| Some(IpAddr::V4(interface.address?.as_sockaddr_in()?.ip())));
        addresses.find(|address| !address.is_loopback())
    })
}

/// The address of this machine's default route.
fn routed_address() -> Option<IpAddr> {
    // The target is TEST-NET-1.
    source_address("0.0.0.0:0", "192.0.2.1:9")
}

/// The address of this machine's default route of IPv6, if there is one that others can answer.
fn routed_address_v6() -> Option<IpAddr> {
    // The target is the network for documentation.
    let address = source_address("[::]:0", "[2001:db8::1]:9")?;
    let usable = |address: &Ipv6Addr| !address.is_loopback() && !address.is_unspecified() && !address.is_unicast_link_local();
    matches!(address, IpAddr::V6(address) if usable(&address)).then_some(address)
}

/// The address with which this machine would send to `target`. Connecting a datagram socket sends nothing; it makes the kernel choose.
fn source_address(any: &str, target: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).and_then(|()| socket.local_addr()).map(|address| address.ip()).ok()
}

fn main() -> ExitCode {
    // Shims and the OCI helper are this same program: they are small, and go their own way before anything else.
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = runtime::dispatch(&args) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    // A program that is executed by a link of /proc is called after the link.
    let _ = nix::sys::prctl::set_name(c"knarr");
    if let Err(error) = systemd::take() {
        eprintln!("knarr: what the service manager has said: {error}");
        return ExitCode::FAILURE;
    }
    let cli = cli::Cli::read(args);
    // The client library logs failed requests as errors; who made them says what they mean.
    let level = format!("kube_client::client::builder=off,{}", cli.log_level);
    if let Err(error) = base::logging::init(cli.format(), &level) {
        eprintln!("knarr: --log-level: {error}");
        return ExitCode::from(2);
    }
    match commands::run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("knarr: {}", ctl::visible(&told(&error), &['\n', '\t']));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes. The API's answers are told by their messages alone.
fn told(error: &anyhow::Error) -> String {
    let texts = error.chain().map(|cause| cause.downcast_ref().map_or_else(|| cause.to_string(), client::why));
    // A cause that shows what it was caused by says it already.
    let mut told: Vec<String> = Vec::new();
    for text in texts {
        if told.last().is_none_or(|last| !last.ends_with(&text)) {
            told.push(text);
        }
    }
    told.join(": ")
}
