use super::*;
use base::tls::{Authority, Resolver, Verifier};
use base::{tasks, tls};
use client::fake::Fake;
use hyper::service::service_fn;
use runtime::Peers;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// How a node answers.
#[derive(Clone, Copy)]
enum Does {
    /// It has these layers, and each of them is its own name.
    Has(&'static [&'static str]),
    Answers(u16, &'static str),
    /// Ends in the middle of a layer.
    Dies,
    /// Takes the connection and says nothing.
    Stalls,
    /// Speaks another protocol.
    Babbles,
}

struct Cluster {
    authority: Arc<Authority>,
    fake: Fake,
    tasks: Tasks,
    _failures: tasks::Failures,
}

impl Cluster {
    fn new() -> Self {
        let (tasks, failures) = Tasks::root();
        Self { authority: Arc::new(Authority::in_memory("test").unwrap()), fake: Fake::default(), tasks, _failures: failures }
    }

    fn put(&self, name: &str, port: u16) {
        let status = json!({"conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}});
        self.fake.put::<Node>(&serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap());
    }

    /// A node whose certificate is for `certified`.
    async fn serve(&self, name: &str, certified: &str, does: Does) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.put(name, listener.local_addr().unwrap().port());
        let request = tls::Request::Server { name: certified.to_owned(), sans: vec![certified.to_owned()] };
        let resolver = Resolver::memory(self.authority.clone(), request).unwrap();
        let verifier = Verifier::new(self.authority.bundle()).unwrap();
        let acceptor = TlsAcceptor::from(tls::server(resolver, Some(verifier)).unwrap());
        let tasks = self.tasks.clone();
        self.tasks.spawn_until_cancelled("node", OnFailure::Log, async move {
            loop {
                let (stream, _) = listener.accept().await?;
                let acceptor = acceptor.clone();
                tasks.spawn_until_cancelled("connection", OnFailure::Log, async move {
                    connection(stream, acceptor, does).await;
                    Ok::<_, io::Error>(())
                });
            }
            #[allow(unreachable_code)]
            Ok::<_, io::Error>(())
        });
    }

    fn others(&self) -> OtherNodes {
        let request = tls::Request::Client { user: "system:node:n1".to_owned(), groups: vec!["system:nodes".to_owned()] };
        let identity = Resolver::memory(self.authority.clone(), request).unwrap();
        let tls = tls::client(self.authority.bundle(), Some(identity)).unwrap();
        let informers = Informers::new(self.fake.client(), self.tasks.clone());
        OtherNodes::new(informers, "n1".to_owned(), tls, true, self.tasks.clone())
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, does: Does) {
    use tokio::io::AsyncWriteExt;
    if matches!(does, Does::Stalls) {
        return std::future::pending().await;
    }
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let raw: &[u8] = match does {
        Does::Babbles => b"220 mail.example ESMTP\r\n",
        Does::Dies => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nlayer\r\n",
        _ => b"",
    };
    if !raw.is_empty() {
        let _ = stream.write_all(raw).await;
        let _ = stream.shutdown().await;
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| async move {
        let path = request.uri().path_and_query().unwrap().to_string();
        let (status, body) = match does {
            Does::Has(layers) if path == "/knarr/images/layers" => (200, json!(layers).to_string()),
            Does::Has(layers) => match path.strip_prefix("/knarr/images/layers/").filter(|id| layers.contains(id)) {
                Some(id) => (200, id.to_owned()),
                None => (404, String::new()),
            },
            Does::Answers(status, body) => (status, body.to_owned()),
            _ => (500, String::new()),
        };
        Ok::<_, Infallible>(Response::builder().status(status).body(Full::new(Bytes::from(body))).unwrap())
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn layers(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[tokio::test]
async fn layers_are_found_where_they_are() {
    let cluster = Cluster::new();
    cluster.serve("n2", "n2", Does::Has(&["sha256:a", "sha256:other"])).await;
    cluster.serve("n3", "n3", Does::Has(&["sha256:b"])).await;
    // Somebody else at the address of a node, nodes that have nothing to say, and one that is gone.
    cluster.serve("n4", "n3", Does::Has(&["sha256:c"])).await;
    cluster.serve("n5", "n5", Does::Answers(503, "")).await;
    cluster.serve("n6", "n6", Does::Answers(200, "{}")).await;
    cluster.serve("n7", "n7", Does::Babbles).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    cluster.put("n8", gone.port());
    // This node asks itself nothing.
    cluster.serve("n1", "n1", Does::Has(&["sha256:c"])).await;
    let others = cluster.others();
    let found = others.holders("x:1", &layers(&["sha256:a", "sha256:b", "sha256:c"])).await;
    assert_eq!(found, [vec![Arc::from("n2")], vec![Arc::from("n3")], vec![]]);
    let mut out: Vec<String> = others.out.lock().keys().cloned().collect();
    out.sort();
    assert_eq!(out, ["n6", "n7"], "who answers nonsense is not asked again");

    let layer = others.layer("n2", "sha256:a").await.unwrap_or_else(|error| panic!("{error}"));
    let pieces: Vec<Bytes> = layer.map(Result::unwrap).collect().await;
    assert_eq!(pieces.concat(), b"sha256:a");
    let failure = async |node: &str| others.layer(node, "sha256:a").await.err();
    assert_eq!(failure("n3").await, Some(PeerError::Busy), "it has it no more");
    assert_eq!(failure("n5").await, Some(PeerError::Busy));
    assert!(matches!(failure("n9").await, Some(PeerError::Failed(_))));
}

#[tokio::test]
async fn a_layer_that_ends_in_the_middle_is_an_error() {
    let cluster = Cluster::new();
    cluster.serve("n2", "n2", Does::Dies).await;
    let others = cluster.others();
    others.informers.of::<Node>().synced().await;
    let layer = others.layer("n2", "sha256:a").await.unwrap_or_else(|error| panic!("{error}"));
    let pieces: Vec<io::Result<Bytes>> = layer.collect().await;
    assert!(pieces.last().is_some_and(Result::is_err), "{pieces:?}");
    others.told("n2", Outcome::Failed("it is not whole".to_owned()));
    assert!(others.candidates("x:1").await.is_empty());
}

#[tokio::test]
async fn a_node_that_stalls_makes_others_wait_once() {
    let cluster = Cluster::new();
    cluster.serve("n2", "n2", Does::Stalls).await;
    let others = cluster.others();
    assert_eq!(others.holders("x:1", &layers(&["sha256:a"])).await, [Vec::<Arc<str>>::new()]);
    assert!(others.candidates("x:1").await.is_empty());
    // Whoever has the layers is enough.
    let cluster = Cluster::new();
    cluster.serve("n2", "n2", Does::Stalls).await;
    cluster.serve("n3", "n3", Does::Has(&["sha256:a"])).await;
    let others = cluster.others();
    assert_eq!(others.holders("x:1", &layers(&["sha256:a"])).await, [vec![Arc::from("n3")]]);
}

#[tokio::test]
async fn images_are_found_by_name() {
    let cluster = Cluster::new();
    cluster.serve("n2", "n2", Does::Answers(404, "no such image")).await;
    cluster.serve("n3", "n3", Does::Answers(200, "configuration")).await;
    let others = cluster.others();
    let found = others.imported("docker.io/library/app:1").await;
    assert_eq!(found, Some((Arc::from("n3"), Bytes::from_static(b"configuration"))));
    let others = OtherNodes { names: false, ..cluster.others() };
    assert_eq!(others.imported("docker.io/library/app:1").await, None);
}
