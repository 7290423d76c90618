//! The client against a small runtime of this process.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use ::runtime::api::{self, Credentials, Error, Runtime};
use bytes::Bytes;
use grpc::server::{Limits, Service, decode, serve, unimplemented};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

/// A runtime with one image, which it gives to one user.
#[derive(Default)]
struct Small {
    driver: Option<CgroupDriver>,
    /// The process of its container, if it runs one.
    process: Option<u32>,
    /// With what times it was told to stop that.
    stops: Arc<parking_lot::Mutex<Vec<i64>>>,
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
            ExecRequest::METHOD => {
                let asked: ExecRequest = decode(message)?;
                assert!(!(asked.tty && asked.stderr), "a terminal has one output");
                ExecResponse { url: asked.cmd.concat() }.encode_to_vec()
            }
            ContainerStatusRequest::METHOD if self.process.is_some() => {
                let pid = self.process.unwrap();
                let state =
                    if Path::new(&format!("/proc/{pid}")).exists() { ContainerState::Running } else { ContainerState::Exited };
                let (state, stop_signal) = (state as i32, Signal::SigUsr1 as i32);
                let status = ContainerStatus { id: "c".into(), state, stop_signal, ..Default::default() };
                let info = [("info".to_owned(), format!("{{\"pid\": {pid}}}"))].into();
                ContainerStatusResponse { status: Some(status), info }.encode_to_vec()
            }
            StopContainerRequest::METHOD => {
                self.stops.lock().push(decode::<StopContainerRequest>(message)?.timeout);
                StopContainerResponse::default().encode_to_vec()
            }
            AttachRequest::METHOD => return Err(refused(Code::NotFound, "container \"c\"")),
            other => return Err(unimplemented(other)),
        })
    }
}

/// Serves while `work` is done with a client of it.
async fn with<T>(driver: Option<CgroupDriver>, work: impl AsyncFnOnce(Result<Client>) -> T) -> T {
    with_runtime(Small { driver, ..Default::default() }, work).await
}

async fn with_runtime<T>(runtime: Small, work: impl AsyncFnOnce(Result<Client>) -> T) -> T {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let server = serve(UnixListener::bind(&path).unwrap(), Arc::new(runtime), Limits::few(Duration::from_secs(60)));
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
    assert!(tasks.drain(Duration::from_secs(60)).await);
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

/// A session at `address`, which the runtime gives for the command of that name.
async fn session(address: &str) -> Result<(String, i32)> {
    with(None, async |client| {
        let command = vec![address.to_owned()];
        let asked = api::ExecRequest { command, tty: false, stdin: true, stdout: true, stderr: true };
        let api::Streams { stdin, stdout, exit, .. } = client.unwrap().exec("c", asked).await?;
        let (mut stdin, mut stdout, mut text) = (stdin.unwrap(), stdout.unwrap(), String::new());
        stdin.write_all(b"typed").await.unwrap();
        stdin.shutdown().await.unwrap();
        stdout.read_to_string(&mut text).await.unwrap();
        Ok((text, exit.await.unwrap()?))
    })
    .await
}

#[tokio::test]
async fn sessions_are_where_the_runtime_says() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/exec/token", listener.local_addr().unwrap());
    let (tasks, _failures) = Tasks::root();
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(|mut request: http::Request<hyper::body::Incoming>| {
            let all = streaming::exec::Streams { stdin: true, stdout: true, stderr: true, tty: false };
            let (response, session) = streaming::exec::accept(&mut request, all, &tasks).unwrap();
            tasks.spawn_until_cancelled("command", OnFailure::Log, async move {
                let mut session = session.await?;
                tokio::io::copy(session.stdin.as_mut().unwrap(), session.stdout.as_mut().unwrap()).await?;
                drop((session.stdout, session.stderr));
                session.finisher.finish(streaming::exec::Outcome::Exit(4));
                Ok::<_, streaming::Error>(())
            });
            async move { Ok::<_, std::convert::Infallible>(response.map(|()| http_body_util::Empty::<Bytes>::new())) }
        });
        let io = hyper_util::rt::TokioIo::new(stream);
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await.unwrap();
    };
    let (seen, ()) = tokio::join!(session(&address), serving);
    assert_eq!(seen.unwrap(), ("typed".to_owned(), 4));
    assert!(tasks.drain(Duration::from_secs(60)).await);

    let told = |seen: Result<(String, i32)>| seen.unwrap_err().to_string();
    assert!(told(session("https://127.0.0.1:1/exec/token").await).contains("TLS"));
    assert!(told(session("/exec/token").await).contains("http://HOST:PORT/PATH"));
    let asked = api::ExecRequest { stdout: true, ..Default::default() };
    let attached = with(None, async |client| client.unwrap().attach("c", asked).await.map(drop)).await;
    assert!(matches!(attached, Err(Error::NotFound(_))));
}

/// A runtime that tells the signal with which the container was made stops it by that (KEP-4960); any other is sent by the kubelet, and the
/// runtime ends what is left.
#[tokio::test]
async fn signals_that_stop_a_container() {
    let mut process = tokio::process::Command::new("sleep").arg("1000").kill_on_drop(true).spawn().unwrap();
    let stops = Arc::default();
    let runtime = Small { process: process.id(), stops: Arc::clone(&stops), ..Default::default() };
    with_runtime(runtime, async |client| {
        let client = client.unwrap();
        client.stop_container("c", Duration::from_millis(6500), Some("SIGUSR1")).await.unwrap();
        client.stop_container("c", Duration::from_secs(3), None).await.unwrap();
        assert!(process.try_wait().unwrap().is_none(), "it was sent nothing");
        let (stopped, ended) =
            tokio::join!(client.stop_container("c", Duration::from_secs(60), Some("SIGRTMIN+3")), process.wait());
        stopped.unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.unwrap()), Some(37));
    })
    .await;
    assert_eq!(*stops.lock(), [7, 3, 0]);
}

/// What is kept of a container is there for a kubelet that starts again, and goes with it.
#[tokio::test]
async fn records_are_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Records::open(directory.path().to_owned()).unwrap().containers;
    let log = Some(records::Log { path: "/l".into(), bytes: 1, files: 2 });
    let record = records::ContainerRecord { sandbox: "s".into(), image_reference: "i".into(), log, ..Default::default() };
    let first = open();
    first.keep("../c", record.clone()).await.unwrap();
    first.keep("d", record.clone()).await.unwrap();
    assert!(!Path::new("/c").exists() && directory.path().join("container-___c.json").exists());
    std::fs::write(directory.path().join("container-d.json"), "{").unwrap();
    let again = open();
    let found = again.get("../c").unwrap();
    assert_eq!((found.image_reference, found.log), (record.image_reference, record.log));
    assert!(again.get("d").is_none(), "what cannot be read is not there");
    again.forget("../c").await;
    assert!(again.get("../c").is_none() && open().get("../c").is_none());
    assert!(Records::open(directory.path().to_owned()).unwrap().sandboxes.get("d").is_none());
}
