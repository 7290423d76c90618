//! The server over real sockets on the loopback interface.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use base::readiness::Readiness;
use base::tasks::Tasks;
use client::Informers;
use client::fake::Fake;
use dns::{Options, Server, Upstreams};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(60);

/// An upstream on a thread: every name has the address `octets`, except that `big.*` is cut off on UDP, `edns.*` wants EDNS there, `fails.*` fails and `gone.*` is not there.
fn upstream(octets: [u8; 4]) -> SocketAddr {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).unwrap();
    let reply = move |bytes: &[u8], over_udp: bool| {
        let mut message = Message::from_vec(bytes).unwrap().into_response();
        let name = message.queries[0].name().clone();
        let says = |start: &str| name.to_string().starts_with(start);
        if over_udp && says("big") {
            message.metadata.truncation = true;
        } else if says("fails") {
            message.metadata.response_code = ResponseCode::ServFail;
        } else if says("gone") {
            message.metadata.response_code = ResponseCode::NXDomain;
        } else if over_udp && says("edns") && message.edns.as_ref().is_none_or(|edns| edns.max_payload() < 1232) {
            message.metadata.response_code = ResponseCode::FormErr;
        } else {
            message.add_answer(Record::from_rdata(name, 60, RData::A(std::net::Ipv4Addr::from(octets).into())));
        }
        message.to_vec().unwrap()
    };
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
            udp.send_to(&reply(&buffer[..length], true), peer).unwrap();
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let query = read_framed(&mut stream);
            let reply = reply(&query, false);
            stream.write_all(&[&(reply.len() as u16).to_be_bytes()[..], &reply].concat()).unwrap();
        }
    });
    address
}

fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

fn query(name: &str) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

fn udp(server: SocketAddr, name: &str) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    let query = query(name);
    socket.send_to(&query.to_vec().unwrap(), server).unwrap();
    let mut buffer = [0; 4096];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    let reply = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!((reply.metadata.id, &reply.queries), (query.metadata.id, &query.queries));
    reply
}

fn tcp(server: SocketAddr, name: &str) -> Message {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let bytes = query(name).to_vec().unwrap();
    stream.write_all(&[&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()).unwrap();
    Message::from_vec(&read_framed(&mut stream)).unwrap()
}

fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

fn put_service(fake: &Fake, name: &str, spec: Value) {
    let metadata = json!({"namespace": "a", "name": name});
    fake.put::<Service>(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap());
}

struct Running {
    runtime: tokio::runtime::Runtime,
    fake: Fake,
    tasks: Tasks,
    server: SocketAddr,
}

fn start(upstreams: Vec<SocketAddr>) -> Running {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let fake = Fake::default();
    put_service(&fake, "web", json!({"clusterIP": "10.43.0.7"}));
    put_service(&fake, "out", json!({"type": "ExternalName", "externalName": "www.example.com"}));
    for target in ["big", "edns", "fails", "gone"] {
        put_service(&fake, target, json!({"type": "ExternalName", "externalName": format!("{target}.example.com")}));
    }
    put_service(&fake, "many", json!({"clusterIP": "None"}));
    let endpoints: Vec<Value> = (1..200).map(|i| json!({"addresses": [format!("10.42.0.{i}")]})).collect();
    let metadata = json!({"namespace": "a", "name": "many-1", "labels": {"kubernetes.io/service-name": "many"}});
    let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": []});
    fake.put::<EndpointSlice>(&serde_json::from_value(slice).unwrap());
    let (tasks, _) = Tasks::root();
    let readiness = Readiness::default();
    let server = runtime.block_on(async {
        let options = Options {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            domain: "cluster.local".to_owned(),
            upstreams: Upstreams::Servers(upstreams),
            stub_domains: BTreeMap::from([("corp.example".to_owned(), vec![upstream([192, 0, 2, 9])])]),
        };
        let server = Server::bind(options, tasks.clone()).await.unwrap();
        let address = server.addresses()[0];
        server.run(&Informers::new(fake.client(), tasks.clone()), readiness.gate("dns"));
        readiness.wait(&["dns"]).await;
        address
    });
    Running { runtime, fake, tasks, server }
}

#[test]
fn answers_and_forwards() {
    // The first upstream never answers a connection: nobody listens there.
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let running = start(vec![nobody, upstream([192, 0, 2, 1])]);
    let server = running.server;
    assert_eq!(data(&udp(server, "web.a.svc.cluster.local.")), ["10.43.0.7"]);
    assert!(udp(server, "web.a.svc.cluster.local.").metadata.authoritative);
    let denied = udp(server, "no.a.svc.cluster.local.");
    assert_eq!((denied.metadata.response_code, denied.authorities.len()), (ResponseCode::NXDomain, 1));
    assert_eq!(data(&udp(server, "www.example.com.")), ["192.0.2.1"]);
    assert_eq!(data(&tcp(server, "www.example.com.")), ["192.0.2.1"]);
    assert_eq!(data(&udp(server, "git.Corp.example.")), ["192.0.2.9"], "stub domain");
    assert!(udp(server, "big.example.com.").metadata.truncation);
    assert_eq!(data(&tcp(server, "big.example.com.")), ["192.0.2.1"]);
    let alias = udp(server, "out.a.svc.cluster.local.");
    let target = CNAME(Name::from_ascii("www.example.com.").unwrap());
    assert_eq!((alias.answers.len(), &alias.answers[0].data), (2, &RData::CNAME(target)));
    // RFC 2181, 9: what is cut off is not the answer; RFC 6604, 3: the code is that of the last name.
    for (target, records, code) in [
        ("big", 2, ResponseCode::NoError),
        ("edns", 2, ResponseCode::NoError),
        ("fails", 0, ResponseCode::ServFail),
        ("gone", 1, ResponseCode::NXDomain),
    ] {
        for alias in
            [udp(server, &format!("{target}.a.svc.cluster.local.")), tcp(server, &format!("{target}.a.svc.cluster.local."))]
        {
            let found = (alias.answers.len(), alias.metadata.response_code, alias.metadata.truncation);
            assert_eq!(found, (records, code, false), "{target}");
        }
    }
    let many = udp(server, "many.a.svc.cluster.local.");
    assert!(many.metadata.truncation && !many.answers.is_empty());
    assert_eq!(tcp(server, "many.a.svc.cluster.local.").answers.len(), 199);

    put_service(&running.fake, "new", json!({"clusterIP": "10.43.0.8"}));
    let deadline = std::time::Instant::now() + WAIT;
    while data(&udp(server, "new.a.svc.cluster.local.")) != ["10.43.0.8"] {
        assert!(std::time::Instant::now() < deadline, "the new service never appears");
    }
    let bare = || udp(server, "bare.svc.cluster.local.").metadata.response_code;
    assert_eq!(bare(), ResponseCode::NXDomain);
    running.fake.put::<Namespace>(&serde_json::from_value(json!({"metadata": {"name": "bare"}})).unwrap());
    let deadline = std::time::Instant::now() + WAIT;
    while bare() != ResponseCode::NoError {
        assert!(std::time::Instant::now() < deadline, "the new namespace never appears");
    }
    assert!(running.runtime.block_on(running.tasks.drain(WAIT)), "stops");
}

#[test]
fn without_upstream_it_fails_but_serves_the_cluster() {
    let running = start(Vec::new());
    assert_eq!(udp(running.server, "www.example.com.").metadata.response_code, ResponseCode::ServFail);
    assert_eq!(data(&tcp(running.server, "web.a.svc.cluster.local.")), ["10.43.0.7"]);
}

#[test]
fn what_was_answered_is_not_asked_again() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let once = std::thread::spawn(move || {
        let mut buffer = [0; 512];
        let (length, peer) = socket.recv_from(&mut buffer).unwrap();
        let mut reply = Message::from_vec(&buffer[..length]).unwrap().into_response();
        let name = reply.queries[0].name().clone();
        reply.add_answer(Record::from_rdata(name, 60, RData::A(std::net::Ipv4Addr::new(192, 0, 2, 5).into())));
        socket.send_to(&reply.to_vec().unwrap(), peer).unwrap();
    });
    let running = start(vec![address]);
    assert_eq!(data(&udp(running.server, "www.example.com.")), ["192.0.2.5"]);
    once.join().unwrap();
    // Nobody listens there any more.
    assert_eq!(data(&udp(running.server, "WWW.example.com.")), ["192.0.2.5"]);
    assert_eq!(udp(running.server, "other.example.com.").metadata.response_code, ResponseCode::ServFail);
}

/// A server that says more than its client takes, and things that are no messages. RFC 2181, 9: "The TC bit should be set in responses only when an RRSet is required
/// as a part of the response, but could not be included in its entirety."
#[test]
fn faulty_servers_do_no_harm() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let mut reply = Message::from_vec(&buffer[..length]).unwrap().into_response();
            let name = reply.queries[0].name().clone();
            for last in 1..=60 {
                reply.add_answer(Record::from_rdata(name.clone(), 60, RData::A(std::net::Ipv4Addr::new(192, 0, 2, last).into())));
            }
            let mut bytes = reply.to_vec().unwrap();
            match name.to_string().split('.').next().unwrap() {
                // The first answer's name leads to itself.
                "loop" => bytes[length..length + 2].copy_from_slice(&(0xC000 | length as u16).to_be_bytes()),
                "fewer" => bytes[7] += 1,
                _ => {}
            }
            socket.send_to(&bytes, peer).unwrap();
        }
    });
    let running = start(vec![address]);
    // The second answer comes from what was kept of the first.
    for _ in 0..2 {
        let large = udp(running.server, "large.example.com.");
        assert!(large.metadata.truncation && (1..60).contains(&large.answers.len()), "{} answers", large.answers.len());
        assert!(large.to_vec().unwrap().len() <= 512);
    }
    for name in ["loop.example.com.", "fewer.example.com."] {
        let reply = udp(running.server, name);
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::ServFail, 0), "{name}");
    }
}

/// RFC 1123, 6.1.3.3: a resolver sends a question again before it gives up, also when it has only one server to ask.
#[test]
fn a_lost_question_is_asked_again() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        for attempt in 0.. {
            let (length, peer) = socket.recv_from(&mut buffer).unwrap();
            if attempt % 2 == 1 {
                let reply = Message::from_vec(&buffer[..length]).unwrap().into_response();
                socket.send_to(&reply.to_vec().unwrap(), peer).unwrap();
            }
        }
    });
    let running = start(vec![address]);
    assert_eq!(udp(running.server, "www.example.com.").metadata.response_code, ResponseCode::NoError);
}

/// RFC 7766, 6.2.2: "DNS servers MAY impose limits on the number of concurrent TCP connections being handled for any particular client IP
/// address". Who holds many loses the one that is silent longest, and nobody waits for him.
#[test]
fn one_client_takes_no_places_from_others() {
    let running = start(Vec::new());
    let ask = |stream: &mut TcpStream| {
        let bytes = query("web.a.svc.cluster.local.").to_vec().unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.write_all(&[&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()).unwrap();
        Message::from_vec(&read_framed(stream)).unwrap()
    };
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(running.server).unwrap();
        assert_eq!(data(&ask(&mut stream)), ["10.43.0.7"]);
        held.push(stream);
    }
    assert_eq!(held[0].read(&mut [0]).unwrap(), 0, "the first has ended");
    assert_eq!(data(&ask(held.last_mut().unwrap())), ["10.43.0.7"], "the last has not");
    assert_eq!(data(&tcp(running.server, "web.a.svc.cluster.local.")), ["10.43.0.7"]);
}

/// An answer that no message takes is cut, and says so, as RFC 2181, 9 asks for.
#[test]
fn a_service_may_have_more_than_a_message_takes() {
    let running = start(Vec::new());
    put_service(&running.fake, "wide", json!({"clusterIP": "None"}));
    let ports: Vec<Value> = (1..=20_000).map(|number| json!({"name": format!("p{number}"), "port": number})).collect();
    let endpoints: Vec<Value> = (0..1000).map(|i| json!({"addresses": [format!("10.42.{}.{}", i / 250, i % 250)]})).collect();
    let metadata = json!({"namespace": "a", "name": "wide-1", "labels": {"kubernetes.io/service-name": "wide"}});
    let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
    running.fake.put::<EndpointSlice>(&serde_json::from_value(slice).unwrap());
    let mut srv = Message::query();
    srv.add_query(Query::query(Name::from_ascii("wide.a.svc.cluster.local.").unwrap(), RecordType::SRV));
    let bytes = srv.to_vec().unwrap();
    let deadline = std::time::Instant::now() + WAIT;
    let whole = loop {
        let mut stream = TcpStream::connect(running.server).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.write_all(&[&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()).unwrap();
        let reply = Message::from_vec(&read_framed(&mut stream)).unwrap();
        if !reply.answers.is_empty() {
            break reply;
        }
        assert!(std::time::Instant::now() < deadline, "the service never appears");
    };
    assert!(whole.metadata.truncation && whole.answers.len() > 500, "{}", whole.answers.len());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket.send_to(&bytes, running.server).unwrap();
    let mut buffer = [0; 4096];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    let cut = Message::from_vec(&buffer[..length]).unwrap();
    assert!(length <= 512 && cut.metadata.truncation && !cut.answers.is_empty());
}

/// Who asks more than others are asked for at once gives up his own questions, the oldest first, and keeps nobody from asking.
#[test]
fn one_client_does_not_ask_for_all() {
    let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = upstream.recv_from(&mut buffer) {
            let reply = Message::from_vec(&buffer[..length]).unwrap().into_response();
            if reply.queries[0].name().to_string().starts_with("fast") {
                upstream.send_to(&reply.to_vec().unwrap(), peer).unwrap();
            }
        }
    });
    let running = start(vec![address]);
    let greedy = UdpSocket::bind("127.0.0.2:0").unwrap();
    greedy.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut buffer = [0; 4096];
    let refused = (1..=1000).find_map(|round| {
        for number in 100 * (round - 1)..100 * round {
            greedy.send_to(&query(&format!("slow-{number}.example.com.")).to_vec().unwrap(), running.server).unwrap();
        }
        let mut refused = Vec::new();
        while let Ok((length, _)) = greedy.recv_from(&mut buffer) {
            let reply = Message::from_vec(&buffer[..length]).unwrap();
            if reply.metadata.response_code == ResponseCode::Refused {
                refused.push(reply.queries[0].name().to_string());
            }
        }
        (!refused.is_empty()).then_some((100 * round, refused))
    });
    let (asked, refused) = refused.expect("its questions have an end");
    // They are refused at once, so that their replies come in any order: each has a client's part of later ones.
    for name in refused {
        let number: usize = name["slow-".len()..].split('.').next().unwrap().parse().unwrap();
        assert!(number + 500 < asked, "{name} of {asked}");
    }
    // Who asks loses some datagrams where a busy machine has no room for them, and asks again.
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    other.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let answered = (0..40).find_map(|_| {
        other.send_to(&query("fast.example.com.").to_vec().unwrap(), running.server).unwrap();
        let (length, _) = other.recv_from(&mut buffer).ok()?;
        Message::from_vec(&buffer[..length]).ok()
    });
    assert_eq!(answered.unwrap().metadata.response_code, ResponseCode::NoError);
}
