#![allow(clippy::unwrap_used)]
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use futures::StreamExt;

use super::*;
use crate::images::registry::{Registries, parse};

/// What a registry does with a request.
enum Does {
    /// Answers with this head and body.
    Says(String, Vec<u8>),
    /// Begins so, and sends on and on.
    Floods(String),
    /// Begins so, and sends no more.
    Stalls(String),
}

fn ok(body: &str) -> Does {
    Does::Says("200 OK".to_owned(), body.into())
}

fn asks(challenge: &str) -> Does {
    Does::Says(format!("401 Unauthorized\r\nWWW-Authenticate: {challenge}"), Vec::new())
}

/// A registry at the address that is given back. It is told the path and the credentials of each request.
fn serve(does: impl Fn(&str, &str) -> Does + Send + Sync + 'static) -> String {
    let (listener, does) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(does));
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let does = does.clone();
            // Whoever hangs up has ended its connection.
            std::thread::spawn(move || drop(answer(stream, &*does)));
        }
    });
    address
}

fn answer(mut stream: TcpStream, does: &dyn Fn(&str, &str) -> Does) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut path, mut shown) = (String::new(), String::new());
    for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if path.is_empty() {
            line.split(' ').nth(1).unwrap_or_default().clone_into(&mut path);
        }
        if let Some(("authorization", value)) = line.split_once(": ") {
            value.clone_into(&mut shown);
        }
    }
    match does(&path, &shown) {
        Does::Says(head, body) => {
            stream.write_all(
                format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).as_bytes(),
            )?;
            stream.write_all(&body)
        }
        Does::Floods(head) => {
            stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes())?;
            loop {
                stream.write_all(&[b' '; 64 << 10])?;
            }
        }
        Does::Stalls(head) => {
            stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n{{").as_bytes())?;
            reader.read_line(&mut String::new()).map(drop)
        }
    }
}

/// Of an image of the registry, with credentials or without any.
fn endpoint(address: &str, credentials: Option<(&str, &str)>) -> Endpoint {
    let _ = rustls::crypto::CryptoProvider::clone(&base::tls::provider()).install_default();
    let credentials = credentials.map(|(user, word)| Credentials { username: user.to_owned(), password: word.to_owned() });
    let reference = parse(&format!("{address}/app:1")).unwrap();
    Registries::default().endpoints(&reference, credentials.as_slice()).unwrap().remove(0)
}

#[tokio::test]
async fn no_answer_is_read_for_ever() {
    let check = async |does: fn(&str) -> Does, expected: &str| {
        let address = serve(move |path, _| does(path));
        let Err(failure) = endpoint(&address, None).manifest().await else { panic!("{expected}") };
        assert!(failure.to_string().contains(expected), "{failure}");
        let Err(failure) = endpoint(&address, None).small_blob("sha256:0", 1 << 20).await else { panic!("{expected}") };
        assert!(failure.to_string().contains(&expected.replace("4194304", "1048576")), "{failure}");
    };
    check(|_| Does::Floods("200 OK".to_owned()), "larger than 4194304 bytes").await;
    check(|_| Does::Floods("404 Not Found".to_owned()), "it answers 404").await;
    check(|_| Does::Floods("500 No".to_owned()), "it answers 500").await;
    check(|_| Does::Floods("401 No".to_owned()), "pull access denied").await;
}

#[tokio::test]
async fn token_servers_are_strangers_as_well() {
    let check = async |does: fn() -> Does, expected: &str| {
        let tokens = serve(move |_, _| does());
        let address = serve(move |_, _| asks(&format!("Bearer realm=\"http://{tokens}/token\"")));
        let Err(failure) = endpoint(&address, None).manifest().await else { panic!("{expected}") };
        assert!(failure.to_string().contains(expected), "{failure}");
    };
    check(|| Does::Floods("200 OK".to_owned()), "token server: the document is larger").await;
    check(|| Does::Floods("500 No".to_owned()), "token server: it answers 500").await;
    check(|| Does::Says("403 No".to_owned(), b"unknown user".to_vec()), "pull access denied").await;
    check(|| Does::Says("503 No".to_owned(), b"later".to_vec()), "token server: it answers 503").await;
    check(|| ok("{\"token\":\"a\\nb\"}"), "its token is none").await;
    check(|| ok("[]"), "token server").await;
    let address = serve(|_, _| asks("Bearer realm=\"nowhere\""));
    assert!(endpoint(&address, None).manifest().await.is_err_and(|failure| failure.to_string().contains("token server")));
}

/// What a registry makes us ask of others is asked from this machine: whoever names the image does not see what they answer.
#[tokio::test]
async fn what_others_say_is_not_repeated() {
    let check = async |does: fn(&str) -> Does, expected: bool| {
        let other = serve(move |path, _| does(path));
        let elsewhere = other.clone();
        let hops = serve(move |path, _| Does::Says(format!("307 There\r\nLocation: http://{elsewhere}{path}"), Vec::new()));
        let tokens = serve(move |_, _| asks(&format!("Bearer realm=\"http://{other}/token\"")));
        for registry in [hops, tokens] {
            let Err(failure) = endpoint(&registry, None).manifest().await else { panic!("{registry}") };
            assert_eq!(failure.to_string().contains("secret"), expected, "{failure}");
        }
    };
    check(|_| Does::Says("503 No".to_owned(), b"secret".to_vec()), false).await;
    check(|_| Does::Says("403 No".to_owned(), b"{\"errors\":[{\"code\":\"secret\"}]}".to_vec()), false).await;
    check(
        |path| if path.starts_with("/token") { ok("\"secret\"") } else { Does::Says("500 No".to_owned(), b"secret".to_vec()) },
        false,
    )
    .await;
    let own = serve(|_, _| Does::Says("503 No".to_owned(), b"not so secret".to_vec()));
    let Err(failure) = endpoint(&own, None).manifest().await else { panic!() };
    assert!(failure.to_string().contains("not so secret"), "{failure}");
}

#[tokio::test]
async fn a_registry_elsewhere_leads_to_nothing_that_is_here() {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = asked.clone();
    let inside = serve(move |_, _| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ok("{}")
    });
    let port = inside.rsplit_once(':').unwrap().1.to_owned();
    for host in ["127.0.0.1", "localhost", "127.0.0.2"] {
        let at = format!("http://{host}:{port}");
        let there = at.clone();
        let hops = serve(move |path, _| Does::Says(format!("307 There\r\nLocation: {there}{path}"), Vec::new()));
        let tokens = serve(move |_, _| asks(&format!("Bearer realm=\"{at}/token\"")));
        for registry in [hops, tokens] {
            let (reach, known) = (Reach::of("r.io"), endpoint(&registry, None));
            let http = crate::images::registry::client("r.io", &Default::default(), &reach).unwrap();
            let elsewhere = Endpoint::new((http, reach), "http", known.reference, None);
            let Err(failure) = elsewhere.manifest().await else { panic!("{host}") };
            assert!(failure.to_string().contains("which is this machine or its link"), "{failure}");
        }
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn who_stalls_is_given_up() {
    let stalls = || Does::Stalls("200 OK".to_owned());
    let mut silent = endpoint(&serve(move |_, _| stalls()), None);
    silent.time = Duration::from_millis(50);
    assert!(matches!(silent.manifest().await, Err(Failure::Slow(_))));
    let tokens = serve(move |_, _| stalls());
    let mut silent = endpoint(&serve(move |_, _| asks(&format!("Bearer realm=\"http://{tokens}/\""))), None);
    silent.time = Duration::from_millis(50);
    assert!(matches!(silent.manifest().await, Err(Failure::Slow(_))));
}

#[tokio::test]
async fn large_documents_come_a_few_at_a_time() {
    let large = || Does::Says("200 OK".to_owned(), vec![b' '; SMALL + 1]);
    let address = serve(move |path, _| if path.ends_with("small") { ok("{}") } else { large() });
    let endpoint = endpoint(&address, None);
    let (large, small) = (endpoint.url("manifests", "large"), endpoint.url("manifests", "small"));
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(endpoint.document(&large, DOCUMENT).await.unwrap());
    }
    let waits = tokio::time::timeout(Duration::from_millis(50), endpoint.document(&large, DOCUMENT)).await;
    assert!(waits.is_err(), "eight are enough");
    endpoint.document(&small, DOCUMENT).await.unwrap();
    held.pop();
    endpoint.document(&large, DOCUMENT).await.unwrap();
}

#[tokio::test]
async fn credentials_are_shown_to_whom_they_are_for() {
    // Basic, to the registry that asks for it.
    let address = serve(|_, shown| if shown == "Basic bWU6c2VjcmV0" { ok("{}") } else { asks("Basic realm=\"x\"") });
    let me = Some(("me", "secret"));
    endpoint(&address, me).manifest().await.unwrap();
    assert!(matches!(endpoint(&address, None).manifest().await, Err(Failure::Unauthorized)));
    assert!(matches!(endpoint(&address, Some(("me", "other"))).manifest().await, Err(Failure::Unauthorized)));
    // Nobody else: neither its challenge nor its address counts.
    let thief = serve(|_, shown| if shown.is_empty() { asks("Basic realm=\"x\"") } else { ok("{\"stolen\":true}") });
    let address = serve(move |path, shown| match shown {
        "" if path.starts_with("/v2") => Does::Says(format!("307 There\r\nLocation: http://{thief}{path}"), Vec::new()),
        shown => ok(shown),
    });
    assert!(matches!(endpoint(&address, me).manifest().await, Err(Failure::Unauthorized)));
    // A token, which is asked for again when it is too old.
    let tokens = serve(|path, shown| {
        assert!(path.contains("scope=repository%3Aapp%3Apull") && path.contains("service=s"), "{path}");
        ok(&format!("{{\"access_token\":\"for-{}\"}}", shown.len()))
    });
    let address = serve(move |_, shown| match shown {
        "Bearer for-18" => ok("{}"),
        _ => asks(&format!("Bearer realm=\"http://{tokens}/token\",service=\"s\"")),
    });
    let with_token = endpoint(&address, me);
    with_token.manifest().await.unwrap();
    *with_token.authorization.lock() = Some(HeaderValue::from_static("Bearer old"));
    with_token.manifest().await.unwrap();
}

#[tokio::test]
async fn documents_are_what_their_digests_say() {
    let address = serve(|path, _| match path {
        "/v2/app/manifests/1" => Does::Says("200 OK\r\nDocker-Content-Digest: sha256:0".to_owned(), b"{}".to_vec()),
        _ => ok("{}"),
    });
    let endpoint = endpoint(&address, None);
    let digest = digest_of(b"{}");
    assert!(matches!(endpoint.manifest().await, Err(Failure::Digest { .. })));
    assert!(matches!(endpoint.child("sha256:1").await, Err(Failure::Digest { .. })));
    assert_eq!(endpoint.child(&digest).await.unwrap().bytes, "{}");
    assert_eq!(endpoint.small_blob(&digest, 2).await.unwrap().bytes, "{}");
    assert!(matches!(endpoint.small_blob(&digest, 1).await, Err(Failure::TooLarge(1))));
    let pieces: Vec<_> = endpoint.blob(&digest).await.unwrap().collect().await;
    assert_eq!(pieces[0].as_ref().unwrap(), "{}");
}

#[test]
fn challenges() {
    let check = |headers: &[&'static str], expected: Option<Challenge>| {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        assert_eq!(challenge(&map), expected, "{headers:?}");
    };
    let bearer = |service: Option<&str>| {
        Some(Challenge::Bearer { realm: "https://t.io/a".to_owned(), service: service.map(str::to_owned) })
    };
    check(&[], None);
    check(&["Basic realm=\"x\""], Some(Challenge::Basic));
    check(&["bearer realm=\"https://t.io/a\",service=\"s\",scope=\"x\""], bearer(Some("s")));
    check(&["Basic realm=\"x\"", "Bearer realm=\"https://t.io/a\""], bearer(None));
    check(&["Bearer service=\"s\""], None);
    check(&["Negotiate"], None);
    check(&["\"\"\",,"], None);
}
