//! Kernel settings of the calling thread's network namespace.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::netns::within;

/// A setting could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {key} to {value}: {source}; set it on the host or run with a writable /proc/sys/net")]
pub struct Error {
    key: String,
    value: &'static str,
    source: io::Error,
}

/// Sets `key` (with slashes, below /proc/sys) unless it has the value already. A host may be set up right and read-only.
pub(crate) fn set(key: String, value: &'static str) -> Result<(), Error> {
    let path = PathBuf::from("/proc/sys").join(&key);
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|source| Error { key: key.clone(), value, source })?;
    tracing::info!(key, value, "changed a kernel setting of this machine");
    Ok(())
}

/// Sets values by their files below `/proc/sys` in another network namespace.
pub(crate) fn set_in(netns: &Path, settings: &BTreeMap<String, String>) -> Result<(), super::Error> {
    if settings.is_empty() {
        return Ok(());
    }
    let set = |(key, value): (&String, &String)| {
        let failed = |source| super::Error::Setting { key: key.clone(), value: value.clone(), source };
        std::fs::write(PathBuf::from("/proc/sys").join(key), value).map_err(failed)
    };
    let done = within(netns, || settings.iter().try_for_each(set));
    done.map_err(|source| super::Error::Namespace { path: netns.to_owned(), source })?
}

/// How long a connection is known one side of which has ended, as long as nothing is said, in seconds: through a service, what the other side says after
/// that reaches nobody. A server may think for long after it has heard all; the kernel's own value is a minute. (kube-proxy's default.)
const HALF_CLOSED: &str = "3600";

/// Lets connections live on that are closed by half. Rules that look at connections have to be there: with them comes what knows them.
pub(crate) fn keep_half_closed() -> Result<(), Error> {
    set_at_least("net/netfilter/nf_conntrack_tcp_timeout_close_wait", HALF_CLOSED)
}

/// Sets `key`, a number, where the kernel has it and it is less.
fn set_at_least(key: &str, least: &'static str) -> Result<(), Error> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let now = std::fs::read_to_string(PathBuf::from("/proc/sys").join(key)).ok().and_then(|text| number(&text));
    if now.is_some_and(|now| Some(now) < number(least)) { set(key.to_owned(), least) } else { Ok(()) }
}

/// Sets `key` where the kernel has it.
pub(crate) fn set_if_there(key: &str, value: &'static str) -> Result<(), Error> {
    match PathBuf::from("/proc/sys").join(key).exists() {
        true => set(key.to_owned(), value),
        false => Ok(()),
    }
}

/// Lets the machine go on learning its routes from the routers of its links, which a machine that forwards does not do by itself: it
/// would lose its default route. Links whose names begin with one of `own` are not asked.
pub(crate) fn keep_router_advertisements(own: &[&str]) -> Result<(), Error> {
    let links = std::fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten();
    let names = links.filter_map(|link| link.file_name().into_string().ok());
    for name in
        names.filter(|name| !["all", "default", "lo"].contains(&name.as_str()) && !own.iter().any(|own| name.starts_with(own)))
    {
        let key = format!("net/ipv6/conf/{name}/accept_ra");
        if is(&key, "1") && is(&format!("net/ipv6/conf/{name}/forwarding"), "0") {
            set(key, "2")?;
        }
    }
    Ok(())
}

/// Whether `key` is there and has the value.
pub(crate) fn is(key: &str, value: &str) -> bool {
    std::fs::read_to_string(PathBuf::from("/proc/sys").join(key)).is_ok_and(|now| now.trim() == value)
}
