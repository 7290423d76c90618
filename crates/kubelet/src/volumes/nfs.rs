//! NFS volumes: exports of a server, mounted for each pod (API `NFSVolumeSource`). To the kernel all mounts of an export are of one file system,
//! unless their options differ.
//!
//! No program of the node is needed: this kubelet resolves the server's name and settles the version, and the kernel does the rest. What is in
//! an export is its server's to own: nothing is given to a pod's group there, as upstream.

pub mod options;
mod statd;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use base::lookup::Lookups;
use k8s_openapi::api::core::v1::NFSVolumeSource;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::points;
use super::remote::{Calls, Turns};
use options::Options;

/// The directory of volumes of this kind in a pod's directory, upstream's name.
pub const DIRECTORY: &str = "kubernetes.io~nfs";
/// How long a pod waits for a mount before it is told. The kernel goes on, and what comes of it is known the next time.
const PATIENCE: Duration = Duration::from_secs(30);

static LOOKUPS: Lookups = Lookups::new(16);
/// Mounts by their places.
static MOUNTS: LazyLock<Calls<Result<(), Error>>> = LazyLock::new(Calls::default);
/// At most two mounts of one server hang at a time, and 64 of all servers.
static TURNS: LazyLock<Turns> = LazyLock::new(|| Turns::new(2, 64));

/// An export with how it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    server: String,
    path: String,
    read_only: bool,
    /// `mountOptions`.
    options: Vec<String>,
}

/// Why an export cannot be mounted: what an event says.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The server's name leads nowhere.
    #[error("the address of server {0:?} is not known: {1}")]
    Lookup(String, String),
    /// The server has none of the family that `proto` asks for.
    #[error("server {0:?} has no address that fits the mount option proto")]
    Family(String),
    /// The options cannot be used.
    #[error("{0}")]
    Options(String),
    /// Nothing came back.
    #[error("server {0:?} has not answered within {seconds} s", seconds = PATIENCE.as_secs())]
    Silence(String),
    /// The kernel can mount no exports.
    #[error("the kernel of this node has no NFS (module nfs)")]
    NoNfs,
    /// Locks of version 3 need a program.
    #[error(
        "{0} is to be mounted by NFS version 3, whose locks need rpc.statd, which does not run on this node: start it, or mount with the option nolock"
    )]
    NoStatd(String),
    /// The kernel refuses.
    #[error("{0}")]
    Refused(String),
    /// Something of this node.
    #[error("{0}")]
    Node(String),
}

impl Export {
    /// That of a volume.
    pub fn of(source: &NFSVolumeSource, options: &[String]) -> Self {
        let (server, path) = (source.server.clone(), source.path.clone());
        Self { server, path, read_only: source.read_only == Some(true), options: options.to_vec() }
    }

    /// The same, only to be read where the pod says so.
    #[must_use]
    pub fn to_read(mut self, is_read_only: bool) -> Self {
        self.read_only |= is_read_only;
        self
    }

    /// What the kernel is to mount, the server's address in brackets where it is one of IPv6.
    fn source(&self) -> String {
        match self.server.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", self.path),
            _ => format!("{}:{}", self.server, self.path),
        }
    }

    fn parsed(&self) -> Result<Options, Error> {
        let mut options = Options::of(&self.options).map_err(|error| Error::Options(error.to_string()))?;
        options.flags.set(MsFlags::MS_RDONLY, self.read_only || options.flags.contains(MsFlags::MS_RDONLY));
        Ok(options)
    }
}

/// Mounts an export at a place, unless that is done: then neither its server nor that of its name is asked, and nothing looks into the place. A
/// mount that hangs is waited for once more the next time.
///
/// # Errors
/// What an event says.
pub async fn set_up(export: &Export, at: &Path) -> Result<(), Error> {
    let node = |error: io::Error| Error::Node(error.to_string());
    let work = async {
        let place = at.to_owned();
        let looked = tokio::task::spawn_blocking(move || points::is_mount_point(&place)).await;
        if looked.map_err(io::Error::other).flatten().map_err(node)? {
            return Ok(());
        }
        let options = export.parsed()?;
        let unknown = |error: io::Error| Error::Lookup(export.server.clone(), error.to_string());
        let found = LOOKUPS.addresses(&export.server, 0).await.map_err(unknown)?;
        let mut addresses: Vec<IpAddr> = found.iter().map(std::net::SocketAddr::ip).collect();
        addresses.retain(|address| options.family.is_none_or(|family| family.has(address)));
        if addresses.is_empty() {
            return Err(Error::Family(export.server.clone()));
        }
        // Not by the thread that mounts: it may be late, and find that the pod and its directory have gone.
        tokio::fs::create_dir_all(at).await.map_err(node)?;
        let (source, place) = (export.source(), at.to_owned());
        let key = at.display().to_string();
        if let Some(mounted) = MOUNTS.running(&key).await {
            return mounted.map_err(node)?;
        }
        let turn = TURNS.take(&export.server).await;
        let mount = move || {
            let _turn = turn;
            mount_at(&source, &place, &options, &addresses)
        };
        MOUNTS.call(&key, mount).await.map_err(node)?
    };
    let silence = |_| Error::Silence(export.server.clone());
    tokio::time::timeout(PATIENCE, work).await.map_err(silence)?
}

/// Mounts for as long as the kernel takes.
fn mount_at(source: &str, at: &PathBuf, options: &Options, addresses: &[IpAddr]) -> Result<(), Error> {
    if points::is_mount_point(at).map_err(|error| Error::Node(error.to_string()))? {
        return Ok(());
    }
    let mount = |data: &str| mount(Some(source), at, Some("nfs"), options.flags, Some(data));
    try_all(source, options, addresses, statd::is_there, mount)
}

/// Mounts by the first version and address that the server takes.
fn try_all(
    source: &str,
    options: &Options,
    addresses: &[IpAddr],
    has_statd: impl Fn() -> bool,
    mut mount: impl FnMut(&str) -> Result<(), Errno>,
) -> Result<(), Error> {
    let mut refused = None;
    let result = options::negotiate(&options.versions, |version| {
        if version == "3" && options.locks && !has_statd() {
            refused = Some(Error::NoStatd(source.to_owned()));
            return Err(Errno::ENOLCK);
        }
        options::any_of(addresses, |address| {
            let data = options.data(version, address).map_err(|error| {
                refused = Some(Error::Options(error.to_string()));
                Errno::E2BIG
            })?;
            mount(&data)
        })
    });
    result.map_err(|error| match error {
        // The server's word on version 4: version 3 was no more than another try.
        Errno::ENOENT | Errno::EPERM => told(error, source, options),
        error => refused.unwrap_or_else(|| told(error, source, options)),
    })
}

/// What the kernel's refusal means.
fn told(error: Errno, source: &str, options: &Options) -> Error {
    let versions = options.versions.join(", ");
    Error::Refused(match error {
        Errno::ENODEV => return Error::NoNfs,
        Errno::EACCES => format!("access denied by server while mounting {source}"),
        Errno::ENOENT => format!("mounting {source} failed: the server exports no such directory"),
        Errno::EPROTONOSUPPORT => {
            format!("mounting {source} failed: the server, or the kernel of this node, does not have NFS version {versions}")
        }
        Errno::EINVAL => format!("mounting {source} failed: the kernel does not take the mount options (its log says which)"),
        error => format!("mounting {source} failed: {}", error.desc()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(server: &str, options: &[&str]) -> Export {
        let source = NFSVolumeSource { server: server.to_owned(), path: "/srv/data".to_owned(), read_only: None };
        Export::of(&source, &options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn sources_have_addresses_in_brackets() {
        let check = |server: &str, expected: &str| assert_eq!(export(server, &[]).source(), expected);
        check("nfs.example.com", "nfs.example.com:/srv/data");
        check("192.0.2.1", "192.0.2.1:/srv/data");
        check("2001:db8::1", "[2001:db8::1]:/srv/data");
    }

    /// API `NFSVolumeSource`: "readOnly here will force the NFS export to be mounted with read-only permissions." So does the pod's claim.
    #[test]
    fn exports_are_only_read_where_anything_says_so() {
        let check = |volume: Option<bool>, options: &[&str], claim: bool, expected: bool| {
            let source = NFSVolumeSource { read_only: volume, ..NFSVolumeSource::default() };
            let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
            let parsed = Export::of(&source, &options).to_read(claim).parsed().unwrap();
            assert_eq!(parsed.flags.contains(MsFlags::MS_RDONLY), expected, "{volume:?} {options:?} {claim}");
        };
        check(None, &[], false, false);
        check(Some(true), &[], false, true);
        check(Some(true), &["rw"], false, true);
        check(Some(false), &["ro"], false, true);
        check(None, &["rw"], true, true);
    }

    #[tokio::test]
    async fn what_cannot_be_mounted_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("v");
        let check = async |export: Export, expected: &str| {
            let error = set_up(&export, &at).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(export("no such name", &[]), "the address of server \"no such name\" is not known: ").await;
        check(export("192.0.2.1", &["proto=tcp6"]), "has no address that fits the mount option proto").await;
        check(export("192.0.2.1", &["mounthost=a"]), "mount option mounthost is not supported").await;
        let table = std::fs::read_to_string("/proc/filesystems").unwrap();
        if nix::unistd::Uid::effective().is_root() && !table.contains("nfs") {
            check(export("127.0.0.1", &["vers=4"]), "the kernel of this node has no NFS").await;
        }
    }

    /// What is mounted stays so when the name server or the export's own is out of order: pods are synced again and again.
    #[tokio::test]
    async fn what_is_mounted_is_asked_of_nobody() {
        if !nix::unistd::Uid::effective().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("v");
        std::fs::create_dir(&at).unwrap();
        let export = export("no such name", &[]);
        assert!(set_up(&export, &at).await.is_err());
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let result = set_up(&export, &at).await;
        points::unmount_below(directory.path()).unwrap();
        result.unwrap();
    }

    #[test]
    fn what_is_told_is_what_can_be_helped() {
        let check = |options: &[&str], answers: &[Errno], has_statd: bool, expected: &str| {
            let options = Options::of(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>()).unwrap();
            let mut left = answers.iter();
            let mount = |_: &str| Err(*left.next().unwrap());
            let error = try_all("s:/p", &options, &["192.0.2.1".parse().unwrap()], || has_statd, mount).unwrap_err().to_string();
            assert!(error.contains(expected), "{answers:?}: {error}");
            assert!(left.next().is_none(), "{answers:?}");
        };
        let (none, unknown, missing) = (Errno::EPROTONOSUPPORT, Errno::EINVAL, Errno::ENOENT);
        check(&[], &[none, none, none], false, "rpc.statd, which does not run");
        check(&[], &[unknown, none, none], false, "rpc.statd, which does not run");
        check(&["vers=3"], &[], false, "rpc.statd, which does not run");
        check(&[], &[missing], false, "the server exports no such directory");
        check(&[], &[none, missing], false, "the server exports no such directory");
        check(&[], &[Errno::EPERM], false, "mounting s:/p failed: Operation not permitted");
        check(&[], &[missing, Errno::EACCES], true, "the server exports no such directory");
        check(&["nolock"], &[missing, missing], false, "the server exports no such directory");
        check(&["vers=3"], &[Errno::EACCES], true, "access denied by server");
    }

    #[test]
    fn refusals_are_words() {
        let options = Options::of(&["vers=4.2".to_owned()]).unwrap();
        let check = |error: Errno, expected: &str| {
            let told = told(error, "s:/p", &options).to_string();
            assert!(told.contains(expected), "{told}");
        };
        check(Errno::ENODEV, "the kernel of this node has no NFS");
        check(Errno::EACCES, "access denied by server while mounting s:/p");
        check(Errno::EPROTONOSUPPORT, "does not have NFS version 4.2");
        check(Errno::ECONNREFUSED, "mounting s:/p failed: Connection refused");
    }
}
