#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::spdy::{Frame, Head, Reader, Writer};

/// Echoes one forwarded connection.
async fn echo(mut connections: mpsc::Receiver<Connection>) -> u16 {
    let connection = connections.recv().await.unwrap();
    let (mut read, mut write) = tokio::io::split(connection.data);
    tokio::io::copy(&mut read, &mut write).await.unwrap();
    write.shutdown().await.unwrap();
    connection.port
}

async fn client<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> Vec<u8> {
    let (read, write) = tokio::io::split(io);
    let (mut reader, mut writer) = (Reader::new(read), Writer::new(write).unwrap());
    for (stream, kind) in [(1, "error"), (3, "data")] {
        let headers = vec![("streamtype", kind.to_owned()), ("port", "8080".to_owned()), ("requestid", "0".to_owned())];
        writer.write(Frame::Open { stream, headers }).await.unwrap();
    }
    // More than a window of 64 KiB, without ever sending a window update.
    let sending = async {
        for fin in [false, false, true] {
            let data = Bytes::from(vec![7; 60_000]);
            writer.write(Frame::Data { stream: 3, fin, data }).await.unwrap();
            writer.flush().await.unwrap();
        }
    };
    let receiving = async {
        let mut received = Vec::new();
        loop {
            match reader.next().await.unwrap().unwrap() {
                Head::Data { stream: 3, fin, mut length } => {
                    let mut buffer = [0; 4096];
                    while length > 0 {
                        let got = reader.data(&mut buffer, length).await.unwrap();
                        received.extend_from_slice(&buffer[..got]);
                        length -= got;
                    }
                    if fin {
                        return received;
                    }
                }
                Head::Data { stream: 1, length: 0, .. } | Head::Reply { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::join!(sending, receiving).1
}

async fn check<N, F>(near: N, far: F)
where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    let (sender, connections) = mpsc::channel(1);
    let (served, port, received) = tokio::join!(over_spdy(near, sender), echo(connections), client(far));
    served.unwrap();
    assert_eq!((port, received), (8080, vec![7; 180_000]));
}

/// A client that has opened its connections, said all and gone before anybody looks is heard, also where more connections wait than fit.
#[tokio::test]
async fn who_is_gone_before_the_pod_is_asked_is_heard() {
    // Which of two futures is polled first is left to chance.
    for _ in 0..20 {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (read, write) = tokio::io::split(far);
        let mut writer = Writer::new(write).unwrap();
        for (id, stream) in (0..4_u32).zip((1..).step_by(4)) {
            for (stream, kind) in [(stream, "error"), (stream + 2, "data")] {
                let headers = vec![("streamtype", kind.to_owned()), ("port", "80".to_owned()), ("requestid", id.to_string())];
                writer.write(Frame::Open { stream, headers }).await.unwrap();
            }
            writer.write(Frame::Data { stream: stream + 2, fin: true, data: Bytes::from_static(b"hello") }).await.unwrap();
        }
        writer.flush().await.unwrap();
        drop((read, writer));
        let (sender, mut connections) = mpsc::channel::<Connection>(1);
        let pod = async {
            let mut said = Vec::new();
            while let Some(mut connection) = connections.recv().await {
                let mut text = String::new();
                connection.data.read_to_string(&mut text).await.unwrap();
                said.push(text);
            }
            said
        };
        let (_, said) = tokio::join!(over_spdy(near, sender), pod);
        assert_eq!(said, ["hello"; 4]);
    }
}

#[tokio::test]
async fn spdy() {
    let (near, far) = tokio::io::duplex(4096);
    check(near, far).await;
}

#[tokio::test]
async fn spdy_inside_websocket() {
    let (near, far) = tokio::io::duplex(4096);
    let near = ByteStream::new(upgrade::websocket(near, false).await);
    check(near, ByteStream::new(WebSocketStream::<DuplexStream>::from_raw_socket(far, Role::Client, None).await)).await;
}

#[tokio::test]
async fn channels_start_with_their_port() {
    let (near, far) = tokio::io::duplex(4096);
    let (sender, mut connections) = mpsc::channel::<Connection>(1);
    let client = async {
        let mut socket = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let mut bytes = Vec::new();
        while let Some(Ok(message)) = futures::StreamExt::next(&mut socket).await {
            bytes.extend_from_slice(&message.into_data());
        }
        bytes
    };
    let pod = async {
        let mut connection = connections.recv().await.unwrap();
        connection.data.shutdown().await.unwrap();
        drop(connection.error);
        let mut rest = Vec::new();
        connection.data.read_to_end(&mut rest).await.unwrap();
    };
    let (served, (), received) = tokio::join!(over_channels(near, &[80], V4, sender), pod, client);
    served.unwrap();
    assert!(received.starts_with(&[0, 80, 0, 1, 80, 0]) || received.starts_with(&[1, 80, 0, 0, 80, 0]), "{received:?}");
}

/// What a WebSocket client gets that offers `protocol`: the status and the chosen one.
#[track_caller]
fn check_offer(query: &str, protocol: Option<&str>, expected: Result<Option<&str>, StatusCode>) {
    let mut request = Request::get(format!("/portForward/n/p?{query}"));
    let ws = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
    for (name, value) in ws.into_iter().chain(protocol.map(|protocol| ("sec-websocket-protocol", protocol))) {
        request = request.header(name, value);
    }
    let (tasks, _failures) = Tasks::root();
    let accepted = accept(&mut request.body(()).unwrap(), &tasks).map_err(|refusal| refusal.status);
    let chosen = accepted.map(|(response, _)| {
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        response.headers().get("sec-websocket-protocol").map(|value| value.to_str().unwrap().to_owned())
    });
    assert_eq!(chosen, expected.map(|chosen| chosen.map(str::to_owned)), "{query} {protocol:?}");
}

#[tokio::test]
async fn clients_without_a_subprotocol_speak_version_4() {
    check_offer("ports=80", None, Ok(None));
    check_offer("ports=80", Some(V4), Ok(Some(V4)));
    check_offer("ports=80", Some("v4.base64.channel.k8s.io, v4.channel.k8s.io"), Ok(Some(V4_BASE64)));
    check_offer("", Some(TUNNEL), Ok(Some(TUNNEL)));
    check_offer("ports=80", Some("v9"), Err(StatusCode::FORBIDDEN));
    // Which port a channel leads to stands in the query alone.
    check_offer("", None, Err(StatusCode::BAD_REQUEST));
    check_offer("", Some(V4), Err(StatusCode::BAD_REQUEST));
}

#[test]
fn port_queries() {
    assert_eq!(ports("ports=80&ports=81"), [80, 81]);
    assert_eq!(ports("port=80,81&x=1"), [80, 81]);
    assert!(ports("ports=99999").is_empty());
}

#[test]
fn hostile_streams_and_ports() {
    let opened = |id: u32, kind: &str| {
        let headers = vec![("streamtype".to_owned(), kind.to_owned()), ("port".to_owned(), "80".to_owned())];
        spdy::Opened { id, headers, stream: tokio::io::duplex(8).0 }
    };
    // The first stream has none before it.
    let mut pairs = Pairs::default();
    assert!(pairs.add(opened(1, "data")).is_none());
    assert!(pairs.add(opened(1, "nothing")).is_none());
    let query = |count: usize| vec!["port=80"; count].join("&");
    let mut request = Request::get(format!("/portForward/n/p?{}", query(MAX_PORTS + 1))).body(()).unwrap();
    let (tasks, _failures) = Tasks::root();
    let refusal = accept(&mut request, &tasks).map(drop).unwrap_err();
    assert!(refusal.message.contains("too many"), "{refusal}");
}

/// The server closes a WebSocket when the pod has sent its last byte. A pod that still reads gets what the client has sent before it saw
/// that.
#[tokio::test]
async fn a_pod_reads_on_after_its_last_byte() {
    use futures::SinkExt;
    use tokio_tungstenite::tungstenite::Message;
    const SAID: usize = 300_000;
    let (near, far) = tokio::io::duplex(4096);
    let ((sender, mut connections), (ended, end)) = (mpsc::channel::<Connection>(1), tokio::sync::oneshot::channel::<()>());
    let client = async {
        let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        end.await.unwrap();
        for _ in 0..3 {
            let message = [&[0][..], &[7; SAID / 3]].concat();
            client.send(Message::Binary(message.into())).await.unwrap();
        }
        client.close(None).await.unwrap();
    };
    let pod = async {
        let mut connection = connections.recv().await.unwrap();
        connection.data.shutdown().await.unwrap();
        connection.error.shutdown().await.unwrap();
        ended.send(()).unwrap();
        let mut said = Vec::new();
        connection.data.read_to_end(&mut said).await.unwrap();
        said.len()
    };
    let all = async { tokio::join!(over_channels(near, &[80], V4, sender), client, pod) };
    let (_, (), said) = tokio::time::timeout(crate::LAST, all).await.expect("all end");
    assert_eq!(said, SAID);
}
