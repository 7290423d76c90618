#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn channel_messages() {
    for encoding in [Encoding::Binary, Encoding::Base64] {
        let message = encode(2, b"abc", encoding);
        assert_eq!(decode(message, encoding), Some((2, Bytes::from_static(b"abc"))));
        assert_eq!(decode(encode(1, b"", encoding), encoding), Some((1, Bytes::new())));
    }
    assert_eq!(encode(1, b"hi", Encoding::Base64), Message::Text("1aGk=".into()));
    assert_eq!(decode(Message::Text("!".into()), Encoding::Base64), None);
    assert_eq!(decode(Message::Ping(Bytes::new()), Encoding::Binary), None);
}

/// A watch or a log: the client sees the end although it answers nothing.
#[tokio::test]
async fn messages_end_with_the_connection() {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let socket = crate::upgrade::websocket(server, true).await;
    let messages = futures::stream::iter([Message::Text("a".into()), Message::Binary(Bytes::from_static(b"b"))]);
    let reading = async {
        let mut bytes = Vec::new();
        tokio::time::timeout(crate::LINGER / 3, client.read_to_end(&mut bytes)).await.expect("the server ends it").unwrap();
        drop(client);
        bytes
    };
    let (sent, bytes) = tokio::join!(send_all(socket, messages), reading);
    sent.unwrap();
    assert_eq!(bytes, b"\x81\x01a\x82\x01b\x88\x02\x03\xe8");
}

/// "If an endpoint receives a Close frame and did not previously send a Close frame, the endpoint MUST send a Close frame in response"
/// (RFC 6455, 5.5.1): on channels, of a byte stream, and of messages one way.
#[tokio::test]
async fn a_close_is_answered() {
    use tokio_tungstenite::tungstenite::protocol::Role;
    for way in 0..3 {
        let (client, server) = tokio::io::duplex(1 << 16);
        let client = async {
            let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
            let bye = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
            client.send(encode(0, b"said", Encoding::Binary)).await.unwrap();
            client.close(Some(bye.clone())).await.unwrap();
            let answer = tokio::time::timeout(crate::LINGER / 3, client.next()).await.expect("an answer").unwrap().unwrap();
            assert_eq!(answer, Message::Close(Some(bye)), "way {way}");
            assert!(client.next().await.is_none());
        };
        let serving = async {
            let server = crate::upgrade::websocket(server, true).await;
            let ((mut input, near), (_output, theirs)) = (tokio::io::duplex(10), tokio::io::duplex(10));
            let near = Channel { id: 0, stream: near, way: Way::In };
            let said = match way {
                0 => {
                    let channels = vec![near, Channel { id: 1, stream: theirs, way: Way::Out }];
                    let mut said = Vec::new();
                    let (served, _) = tokio::join!(serve(server, channels, Encoding::Binary), input.read_to_end(&mut said));
                    served.unwrap();
                    said
                }
                1 => {
                    let mut said = Vec::new();
                    ByteStream::new(server).read_to_end(&mut said).await.unwrap();
                    said.split_off(1)
                }
                _ => {
                    send_all(server, futures::stream::pending()).await.unwrap();
                    b"said".to_vec()
                }
            };
            assert_eq!(said, b"said", "way {way}");
        };
        tokio::join!(client, serving);
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// A process that reads nothing keeps no connection whose client has gone.
#[tokio::test]
async fn a_client_that_goes_is_seen_while_nobody_reads() {
    use tokio_tungstenite::tungstenite::protocol::Role;
    let (client, server) = tokio::io::duplex(1 << 20);
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    for _ in 0..3 {
        client.send(encode(0, &[1; 100], Encoding::Binary)).await.unwrap();
        client.send(Message::Ping(Bytes::new())).await.unwrap();
    }
    drop(client);
    let (_unread, theirs) = tokio::io::duplex(10);
    let channels = vec![(0, Some(tokio::io::split(theirs).1))];
    let (_sink, mut source) = crate::upgrade::websocket(server, true).await.split();
    let mut receiver = Receiver::new(channels, Encoding::Binary, std::time::Duration::from_millis(1));
    let receiving = receiver.run(&mut source);
    tokio::time::timeout(LAST, receiving).await.expect("it is seen").unwrap();
}

/// A client of v4 ends its input by going: what it has said before is read whole, also by a process that answers what nobody takes.
#[tokio::test]
async fn what_a_client_has_said_before_it_goes_is_read() {
    use tokio_tungstenite::tungstenite::protocol::Role;
    const SAID: usize = 100_000;
    for round in 0..100 {
        let (client, server) = tokio::io::duplex(1 << 20);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        for number in 0..5 {
            client.send(encode(0, &[number; SAID / 5], Encoding::Binary)).await.unwrap();
        }
        if round % 2 == 0 {
            client.close(None).await.unwrap();
        }
        // Who has closed may stay, and is gone at once otherwise.
        let client = (round % 4 == 0).then_some(client);
        let ((mut input, theirs), (mut answers, output)) = (tokio::io::duplex(100 + round), tokio::io::duplex(1000));
        let channels = vec![Channel { id: 0, stream: theirs, way: Way::In }, Channel { id: 1, stream: output, way: Way::Out }];
        let echo = async {
            let (mut got, mut buffer) = (Vec::new(), [0; 1000]);
            while let Ok(length @ 1..) = input.read(&mut buffer).await {
                got.extend_from_slice(&buffer[..length]);
                // Nobody may listen any more.
                let _ = answers.write_all(&buffer[..length]).await;
            }
            got
        };
        let serving = serve(crate::upgrade::websocket(server, true).await, channels, Encoding::Binary);
        let both = tokio::time::timeout(LAST, async { tokio::join!(serving, echo) });
        let (served, got) = both.await.expect("both end");
        drop((served, client));
        assert!(got.chunks(SAID / 5).map(|part| part[0]).eq(0..5) && got.len() == SAID, "{round}: {}", got.len());
    }
}

/// Upstream's `websocketChannel.DataFromSocket` (`apimachinery/pkg/util/httpstream/wsstream`): what comes on a channel that is not read is dropped.
#[tokio::test]
async fn what_a_client_sends_where_nobody_reads_holds_nothing_up() {
    use tokio_tungstenite::tungstenite::protocol::Role;
    let (client, server) = tokio::io::duplex(1 << 20);
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    for (id, data) in [(0, b"one".as_slice()), (1, &[0; 1000]), (CLOSE, &[1]), (0, b"two"), (CLOSE, &[0])] {
        client.send(encode(id, data, Encoding::Binary)).await.unwrap();
    }
    let ((mut input, stdin), (_output, stdout)) = (tokio::io::duplex(10), tokio::io::duplex(10));
    let channels = vec![Channel { id: 0, stream: stdin, way: Way::In }, Channel { id: 1, stream: stdout, way: Way::Out }];
    let reading = async {
        let mut said = Vec::new();
        input.read_to_end(&mut said).await.unwrap();
        said
    };
    let socket = crate::upgrade::websocket(server, true).await;
    tokio::select! {
        served = serve(socket, channels, Encoding::Binary) => panic!("{served:?}"),
        said = tokio::time::timeout(LAST, reading) => assert_eq!(said.expect("it is read"), b"onetwo"),
    }
}

/// A connection's bytes with faults in them end it, with an error or without.
#[test]
fn fuzz_messages() {
    use tokio_tungstenite::tungstenite::protocol::Role;
    let mut bytes = Vec::new();
    wait(async {
        let (client, server) = tokio::io::duplex(1 << 16);
        let mut writer = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        for text in ["first", "second", "third"] {
            writer.send(encode(0, text.as_bytes(), Encoding::Binary)).await.unwrap();
            writer.send(Message::Text("0YWJj".into())).await.unwrap();
            writer.send(Message::Ping(Bytes::new())).await.unwrap();
        }
        drop(writer);
        tokio::io::BufReader::new(server).read_to_end(&mut bytes).await.unwrap();
    });
    fuzz::fuzz(&[&bytes], &["\u{0}", "\u{7f}"], |input| {
        for encoding in [Encoding::Binary, Encoding::Base64] {
            let got = wait(async {
                let (mut client, server) = tokio::io::duplex(fuzz::MAX_INPUT);
                client.write_all(input).await.unwrap();
                client.shutdown().await.unwrap();
                let socket = crate::upgrade::websocket(server, true).await;
                let (mut ours, theirs) = tokio::io::duplex(fuzz::MAX_INPUT);
                let channels = vec![(0, Some(tokio::io::split(theirs).1))];
                let (_sink, mut source) = socket.split();
                let reading = async {
                    let mut got = Vec::new();
                    ours.read_to_end(&mut got).await.unwrap();
                    got
                };
                let receiving = async {
                    let mut receiver = Receiver::new(channels, encoding, LAST);
                    receiver.run(&mut source).await
                };
                tokio::join!(receiving, reading).1
            });
            assert!(got.len() <= input.len());
        }
    });
}
