//! The client against a small runtime of this process.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use ::runtime::api::{Credentials, Error, Runtime};
use bytes::Bytes;
use grpc::server::{Service, decode, serve, unimplemented};
use prost::Message;
use tokio::net::UnixListener;

use super::*;

/// A runtime with one image, which it gives to one user.
struct Small {
    driver: Option<CgroupDriver>,
}

impl Service for Small {
    async fn call(&self, method: &str, message: Bytes) -> std::result::Result<Vec<u8>, grpc::Error> {
        let refused = |code, message: &str| grpc::Error { code, message: message.to_owned() };
        let handler = |name: &str, user_namespaces| RuntimeHandler {
            name: name.to_owned(),
            features: Some(RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces }),
        };
        Ok(match method {
            VersionRequest::METHOD => {
                VersionResponse { runtime_name: "small".into(), runtime_version: "1.2".into(), ..Default::default() }
                    .encode_to_vec()
            }
            StatusRequest::METHOD => {
                StatusResponse { runtime_handlers: vec![handler("", false), handler("kata", true)], ..Default::default() }
                    .encode_to_vec()
            }
            RuntimeConfigRequest::METHOD => {
                let driver = self.driver.ok_or_else(|| unimplemented(method))?;
                let linux = LinuxRuntimeConfiguration { cgroup_driver: driver as i32 };
                RuntimeConfigResponse { linux: Some(linux) }.encode_to_vec()
            }
            ImageFsInfoRequest::METHOD => ImageFsInfoResponse::default().encode_to_vec(),
            PullImageRequest::METHOD => {
                let asked: PullImageRequest = decode(message)?;
                match asked.auth.unwrap_or_default().username.as_str() {
                    "known" => PullImageResponse { image_ref: "sha256:1".into() }.encode_to_vec(),
                    "" => return Err(refused(Code::NotFound, "no such image")),
                    _ => return Err(refused(Code::Other(2), "401 Unauthorized")),
                }
            }
            ImageStatusRequest::METHOD => {
                let asked: ImageStatusRequest = decode(message)?;
                let there = asked.image.is_some_and(|image| image.image == "sha256:1");
                let image = crate::messages::Image { id: "sha256:1".into(), username: "www".into(), ..Default::default() };
                ImageStatusResponse { image: there.then_some(image), ..Default::default() }.encode_to_vec()
            }
            ListContainersRequest::METHOD => {
                let container = Container { id: "c".into(), image_id: "sha256:1".into(), ..Default::default() };
                ListContainersResponse { containers: vec![container] }.encode_to_vec()
            }
            ListPodSandboxRequest::METHOD => ListPodSandboxResponse::default().encode_to_vec(),
            other => return Err(unimplemented(other)),
        })
    }
}

/// Serves while `work` is done with a client of it.
async fn with<T>(driver: Option<CgroupDriver>, work: impl AsyncFnOnce(Result<Client>) -> T) -> T {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let server = serve(UnixListener::bind(&path).unwrap(), Arc::new(Small { driver }), Duration::from_secs(60));
    let (tasks, _failures) = Tasks::root();
    let options = Options {
        endpoint: format!("unix://{}", path.display()),
        directory: directory.path().join("records"),
        cgroup_root: "none".into(),
    };
    let client = async { work(Client::connect(options, &tasks).await).await };
    let done = tokio::select! {
        ended = server => panic!("{ended:?}"),
        done = client => done,
    };
    assert!(tasks.drain(Duration::from_secs(5)).await);
    done
}

#[tokio::test]
async fn a_runtime_is_known_by_what_it_says() {
    with(None, async |client| {
        let client = client.unwrap();
        assert_eq!(client.version(), "small://1.2");
        assert!(client.features().recursive_readonly && !client.features().user_namespaces);
        assert!(client.check_handler("").await.is_ok() && client.check_handler("kata").await.is_ok());
        let refused = client.check_handler("gvisor").await.unwrap_err().to_string();
        assert!(refused.contains("\"gvisor\"") && refused.contains("kata"), "{refused}");
    })
    .await;
    with(Some(CgroupDriver::Cgroupfs), async |client| assert!(client.is_ok())).await;
    with(Some(CgroupDriver::Systemd), async |client| {
        assert!(matches!(client.err(), Some(Error::Unsupported(text)) if text.contains("SystemdCgroup = false")));
    })
    .await;
}

/// All credentials are tried, and an image that is used stays: the interface itself removes it.
#[tokio::test]
async fn images_are_pulled_with_any_of_the_credentials() {
    with(None, async |client| {
        let client = client.unwrap();
        let user = |name: &str| Credentials { username: name.into(), password: "p".into() };
        let pulled = client.pull_image("r/i:1", &[user("other"), user("known")]).await.unwrap();
        assert_eq!((pulled.id.as_str(), pulled.user.unwrap().to_string().as_str()), ("sha256:1", "www"));
        assert!(
            matches!(client.pull_image("r/i:1", &[user("other")]).await, Err(Error::ImagePull(text)) if text.contains("401"))
        );
        assert!(matches!(client.pull_image("r/i:1", &[]).await, Err(Error::ImageNotFound(_))));
        assert!(client.image("sha256:2").await.unwrap().is_none());
        assert!(matches!(client.remove_image("sha256:1").await, Err(Error::InUse(_))));
        assert!(matches!(client.container("c").await, Err(Error::Unsupported(_))), "what is not served is told so");
    })
    .await;
}

/// What is kept of a container is there for a kubelet that starts again, and goes with it.
#[test]
fn records_are_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Records::open(directory.path().to_owned()).unwrap();
    let record = records::ContainerRecord { sandbox: "s".into(), image_reference: "i".into(), ..Default::default() };
    open().keep_container("../c", &record).unwrap();
    assert!(!Path::new("/c").exists() && directory.path().join("container-___c.json").exists());
    assert_eq!(open().container("../c").unwrap().image_reference, "i");
    open().forget_container("../c");
    assert!(open().container("../c").is_none());
}
