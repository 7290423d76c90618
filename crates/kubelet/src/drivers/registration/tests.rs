#![allow(clippy::unwrap_used)]
use bytes::Bytes;
use csi::messages::NodeGetInfoResponse;
use grpc::{Code, server};
use k8s_openapi::api::storage::v1::CSINode;
use prost::Message;
use tokio::net::UnixListener;

use super::*;
use crate::testing::Cell;

#[test]
fn plugins_that_are_taken() {
    let check = |kind: &str, name: &str, versions: &[&str], expected: Option<&str>| {
        let supported_versions = versions.iter().map(|version| (*version).to_owned()).collect();
        let info = PluginInfo { kind: kind.to_owned(), name: name.to_owned(), endpoint: String::new(), supported_versions };
        assert_eq!(check(&info).err().map(|error| error.to_string()).as_deref(), expected);
    };
    check("CSIPlugin", "d", &["1.0.0"], None);
    check("CSIPlugin", "d", &["0.3.0", "v1.12.0"], None);
    let versions = "none of the versions [\"0.3.0\", \"10.0.0\"] is supported: this kubelet speaks CSI 1.x";
    check("CSIPlugin", "d", &["0.3.0", "10.0.0"], Some(versions));
    check("DRAPlugin", "d", &["v1.DRAPlugin"], None);
    let versions = "none of the versions [\"1.0.0\"] is supported: this kubelet speaks v1.DRAPlugin and v1beta1.DRAPlugin";
    check("DRAPlugin", "d", &["1.0.0"], Some(versions));
    check("OtherPlugin", "d", &["1.0.0"], Some("plugin type \"OtherPlugin\" is not supported by this kubelet"));
    check("DevicePlugin", "example.com/berth", &["v1beta1"], None);
    check("CSIPlugin", "", &["1.0.0"], Some("the plugin has no name"));
}

#[test]
fn only_sockets_are_plugins() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file.sock"), "").unwrap();
    let path = directory.path().join("d-reg.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let found = sockets(directory.path()).unwrap();
    assert_eq!(found.iter().map(|socket| socket.path.clone()).collect::<Vec<_>>(), [path]);
}

/// EMFILE, EIO and the like say nothing of the plugins, while a directory that is gone has none.
#[test]
fn what_cannot_be_read_is_no_empty_directory() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    assert!(sockets(&directory.path().join("file")).is_err());
    assert_eq!(sockets(&directory.path().join("none")).unwrap(), BTreeSet::new());
}

/// A registrar that crashed leaves its socket's file, and binds it anew at its next start. On most file systems the new file has the number of the
/// one before.
#[test]
fn a_socket_that_is_bound_anew_is_another() {
    use std::os::unix::net::UnixListener;
    let (directory, parent) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let path = directory.path().join("d-reg.sock");
    let bind = || UnixListener::bind(&path).unwrap();
    let mut followed = Sockets::default();
    drop(bind());
    let first = followed.settle(sockets(directory.path()).unwrap(), &parent);
    let [(_, one, gone)] = first.as_slice() else { panic!("{first:?}") };
    assert!(followed.settle(sockets(directory.path()).unwrap(), &parent).is_empty() && !gone.is_cancelled());
    // The clock of the file system goes on: a registrar does not start again within a tick.
    let made = || std::fs::metadata(&path).unwrap().created().ok();
    let (before, probe) = (made(), directory.path().join("probe"));
    let is_now = || {
        let _ = std::fs::remove_file(&probe);
        std::fs::write(&probe, "").unwrap();
        std::fs::metadata(&probe).unwrap().created().ok()
    };
    while before.is_some() && is_now() == before {}
    std::fs::remove_file(&path).unwrap();
    drop(bind());
    let second = followed.settle(sockets(directory.path()).unwrap(), &parent);
    let [(_, other, _)] = second.as_slice() else { panic!("{second:?}") };
    assert!(gone.is_cancelled() && one < other, "{first:?} {second:?}");
    std::fs::remove_file(&path).unwrap();
    assert!(followed.settle(sockets(directory.path()).unwrap(), &parent).is_empty() && followed.followed.is_empty());
}

/// A driver at the socket by which it makes itself known, which can be told nothing.
struct Deaf(&'static str);

impl server::Service for Deaf {
    async fn call(&self, method: &str, _message: Bytes) -> Result<Vec<u8>, Rpc> {
        match method {
            "/pluginregistration.Registration/GetInfo" => Ok(PluginInfo {
                kind: protocol::CSI.to_owned(),
                name: self.0.to_owned(),
                endpoint: String::new(),
                supported_versions: vec!["1.0.0".to_owned()],
            }
            .encode_to_vec()),
            "/csi.v1.Node/NodeGetInfo" => {
                Ok(NodeGetInfoResponse { node_id: "there".to_owned(), ..NodeGetInfoResponse::default() }.encode_to_vec())
            }
            other => Err(Rpc { code: Code::Unavailable, message: other.to_owned() }),
        }
    }
}

/// A registrar may end between saying who the driver is and being told that it is taken.
#[tokio::test]
async fn a_driver_that_was_told_nothing_goes_with_its_socket() {
    let cell = Cell::new();
    cell.start().await;
    let path = cell.directory.path().join("kubelet/plugins_registry/d-reg.sock");
    let names = |all: &[CSINode]| -> Vec<String> {
        all.iter().flat_map(|node| &node.spec.drivers).map(|driver| driver.name.clone()).collect()
    };
    let until = async |expected: &[&str]| {
        let found = cell.fake.until::<CSINode>(|all| !all.is_empty() && names(all) == expected);
        tokio::time::timeout(Duration::from_secs(60), found).await.expect("the CSINode object did not get there");
    };
    until(&[]).await;
    let listener = UnixListener::bind(&path).unwrap();
    let served = server::serve(listener, Arc::new(Deaf("d")), server::Limits::few(Duration::from_secs(60)));
    tokio::select! {
        never = served => match never {},
        () = until(&["d"]) => {}
    }
    std::fs::remove_file(&path).unwrap();
    until(&[]).await;
}
