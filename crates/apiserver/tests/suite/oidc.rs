//! Tokens of another issuer, which is asked for its keys over TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apiserver::TokenKeys;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::https::Https;
use crate::server::{Answer, Server, admin, ask, start_with};

const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// An issuer of tokens.
struct Issuer {
    https: Https,
    url: String,
    /// The keys that it publishes, and how often it was asked for them.
    keys: Arc<Mutex<(Value, usize)>>,
}

fn answer(path: &str, url: &str, keys: &Mutex<(Value, usize)>) -> Option<Value> {
    match path {
        "/.well-known/openid-configuration" | "/elsewhere" => Some(json!({"issuer": url, "jwks_uri": format!("{url}/keys")})),
        "/keys" => {
            let mut keys = keys.lock();
            keys.1 += 1;
            Some(keys.0.clone())
        }
        _ => None,
    }
}

impl Issuer {
    async fn start() -> Self {
        let keys: Arc<Mutex<(Value, usize)>> = Arc::default();
        let (published, own) = (keys.clone(), Arc::new(Mutex::new(String::new())));
        let url = own.clone();
        let https = Https::start("localhost", None, 0, move |request: Request<hyper::body::Incoming>, _| {
            let found = answer(request.uri().path(), &url.lock(), &published);
            let body = found.as_ref().map(Value::to_string).unwrap_or_default();
            let response = Response::builder().status(if found.is_some() { 200 } else { 404 });
            let response = response.body(Full::<Bytes>::from(body).boxed()).unwrap();
            Box::pin(std::future::ready(response))
        });
        let https = https.await;
        let url = format!("https://localhost:{}", https.port);
        own.lock().clone_from(&url);
        Self { https, url, keys }
    }

    fn publish(&self, keys: &TokenKeys) {
        self.keys.lock().0 = keys.key_set();
    }

    /// A token for the audience `kubernetes` that is good for a minute, with these claims besides.
    fn token(&self, keys: &TokenKeys, claims: Value) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut whole = json!({"iss": self.url, "aud": ["kubernetes"], "exp": now + 60});
        whole.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        keys.issue(&whole).unwrap()
    }

    /// A configuration with this issuer, its mappings, and more.
    fn configuration(&self, issuer: &str, mappings: &str, more: &str) -> String {
        let authority = json!(self.https.authority.bundle());
        format!(
            "{{apiVersion: apiserver.config.k8s.io/v1, kind: AuthenticationConfiguration, {more} jwt: [{{issuer: {{url: '{}', audiences: [kubernetes], certificateAuthority: {authority} {issuer}}}, claimMappings: {mappings}}}]}}",
            self.url
        )
    }
}

const PLAIN: &str = "{username: {claim: sub, prefix: 'oidc:'}, groups: {claim: groups, prefix: ''}}";

fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(next, path).unwrap();
}

async fn serve(file: PathBuf) -> Server {
    let mut server = start_with(|options| options.authentication.file = Some(file)).await;
    let (service, tasks) = (server.service.take().unwrap(), server.tasks.clone());
    server.tasks.spawn("apiserver", base::tasks::OnFailure::Log, async move { service.run(tasks).await });
    server
}

async fn who(server: &Server, token: &str) -> Answer {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    ask(&server.api, "", &format!("POST {SELF}\nauthorization: Bearer {token}\ncontent-type: application/json\n\n{review}")).await
}

async fn name(server: &Server, token: &str) -> Option<String> {
    let answer = who(server, token).await;
    (answer.code == 201).then(|| answer.json()["status"]["userInfo"]["username"].as_str().unwrap().to_owned())
}

/// KEP-3331: "the API server supports multiple JWT authenticators", whose keys are discovered, and "reloads" the file.
#[tokio::test]
async fn tokens_of_another_issuer() {
    let issuer = Issuer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("authentication.yaml");
    let anonymous = "anonymous: {enabled: true, conditions: [{path: /livez}]},";
    replace(&file, &issuer.configuration("", PLAIN, anonymous));
    let server = serve(file.clone()).await;
    let (first, second) = (TokenKeys::in_memory("").unwrap(), TokenKeys::in_memory("").unwrap());
    issuer.publish(&first);

    let jane = json!({"sub": "jane", "groups": ["dev"], "jti": "7"});
    let info = who(&server, &issuer.token(&first, jane.clone())).await.json()["status"]["userInfo"].clone();
    assert_eq!(info["username"], "oidc:jane");
    assert_eq!(info["groups"], json!(["dev", "system:authenticated"]));
    assert_eq!(info["extra"], json!({"authentication.kubernetes.io/credential-id": ["JTI=7"]}));
    let refused = async |claims: Value| {
        let mut whole = jane.clone();
        whole.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        assert_eq!(who(&server, &issuer.token(&first, whole)).await.code, 401, "{claims}");
    };
    let now = jiff::Timestamp::now().as_second();
    refused(json!({"aud": "others"})).await;
    refused(json!({"exp": now - 1})).await;
    refused(json!({"exp": null})).await;
    refused(json!({"nbf": now + 600})).await;
    refused(json!({"nbf": (now + 600).to_string()})).await;
    refused(json!({"nbf": [now]})).await;
    refused(json!({"iat": "soon"})).await;
    refused(json!({"sub": null})).await;
    refused(json!({"iss": "https://nobody"})).await;
    assert_eq!(issuer.keys.lock().1, 1, "keys that are known are not asked for");
    // Times may be texts, as upstream's library reads them.
    let times = json!({"sub": "jane", "nbf": now.to_string(), "iat": now.to_string()});
    assert_eq!(name(&server, &issuer.token(&first, times)).await.as_deref(), Some("oidc:jane"));
    // Groups that are kept elsewhere are not asked for, and without them he would be another user; claims that come with the token are no matter.
    let elsewhere =
        |source: Value| json!({"sub": "jane", "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": source}});
    let far = elsewhere(json!({"endpoint": "https://graph.example/me"}));
    assert_eq!(who(&server, &issuer.token(&first, far)).await.code, 401);
    let near = elsewhere(json!({"JWT": "a.b.c"}));
    assert_eq!(name(&server, &issuer.token(&first, near)).await.as_deref(), Some("oidc:jane"));

    // Those who have no token are let in where the file says so.
    let code = async |path: &str| ask(&server.api, "", &format!("GET {path}")).await.code;
    assert_eq!([code("/livez").await, code("/version").await, code("/api").await], [200, 401, 401]);

    // A review by somebody who has got the token.
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": issuer.token(&first, jane.clone())}});
    let reviewed = admin(&server.api, &format!("POST /apis/authentication.k8s.io/v1/tokenreviews\n\n{review}")).await.json();
    assert_eq!(
        (&reviewed["status"]["authenticated"], &reviewed["status"]["user"]["username"]),
        (&json!(true), &json!("oidc:jane"))
    );

    // The issuer signs with another key from now on.
    issuer.publish(&second);
    while name(&server, &issuer.token(&second, jane.clone())).await.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(name(&server, &issuer.token(&first, jane.clone())).await, None, "the key before it is gone");

    // The file changes; what is wrong in it changes nothing.
    replace(&file, "{kind: Pod}");
    replace(
        &file,
        &issuer.configuration(
            &format!(", discoveryURL: '{}/elsewhere'", issuer.url),
            "{username: {expression: \"claims.sub + '@elsewhere'\"}}",
            "",
        ),
    );
    loop {
        let found = name(&server, &issuer.token(&second, jane.clone())).await;
        if found.as_deref() == Some("jane@elsewhere") {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_issuer_that_is_not_there_or_not_believed() {
    let issuer = Issuer::start().await;
    let keys = TokenKeys::in_memory("").unwrap();
    issuer.publish(&keys);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("authentication.yaml");
    let stranger = base::tls::Authority::in_memory("stranger").unwrap();
    let text = issuer.configuration("", PLAIN, "");
    let trusted = json!(issuer.https.authority.bundle()).to_string();
    replace(&file, &text.replace(&trusted, &json!(stranger.bundle()).to_string()));
    let server = serve(file.clone()).await;
    let token = issuer.token(&keys, json!({"sub": "jane"}));
    assert_eq!(who(&server, &token).await.code, 401, "who vouches for it is not believed");
    assert_eq!(issuer.keys.lock().1, 0);
    // Tokens of the cluster itself are good all the same.
    let signed = admin(&server.api, "GET /openid/v1/jwks").await;
    assert_eq!(signed.code, 200);
    replace(&file, &text);
    while name(&server, &token).await.is_none() {
        tokio::task::yield_now().await;
    }
    let wrong = start_error(&issuer.configuration(", discoveryURL: 'http://i'", PLAIN, "")).await;
    assert!(wrong.contains("jwt[0].issuer.discoveryURL: Invalid value: \"http://i\": URL scheme must be https"), "{wrong}");
}

/// Why a server with this file does not start.
async fn start_error(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("authentication.yaml");
    replace(&file, text);
    let (tasks, _failures) = base::tasks::Tasks::root();
    let store = store::Options { reserve: 0, ..store::Options::new(directory.path().join("db")) };
    let engine = Arc::new(store::Fjall::open(store, &tasks).await.unwrap());
    let authority = Arc::new(base::tls::Authority::in_memory("test-ca").unwrap());
    let mut options = crate::server::options(directory.path().join("pki"), true);
    options.authentication.file = Some(file);
    let started = apiserver::Service::new(engine, authority, options, base::readiness::Readiness::default(), &tasks).await;
    started.err().map(|error| error.to_string()).unwrap_or_default()
}

/// All who need the keys of an issuer that says nothing wait for one look at them, also when who has begun it goes away; that it was in vain counts
/// for a while, and nobody waits longer than his request may take.
#[tokio::test]
async fn a_silent_issuer_is_waited_for_once() {
    let (looks, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (counted, opened) = (looks.clone(), gate.clone());
    let https = Https::start("localhost", None, 0, move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        let opened = opened.clone();
        Box::pin(async move {
            opened.acquire().await.unwrap().forget();
            crate::https::whole(503, "")
        })
    });
    let https = https.await;
    let issuer = Issuer { url: format!("https://localhost:{}", https.port), https, keys: Arc::default() };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("authentication.yaml");
    replace(&file, &issuer.configuration("", PLAIN, ""));
    let server = serve(file).await;
    let token = issuer.token(&TokenKeys::in_memory("").unwrap(), json!({"sub": "jane"}));
    let looked = async || {
        while looks.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = who(&server, &token) => panic!("nobody has answered"),
        () = looked() => {}
    }
    // It was dropped with who had begun it; the next one begins anew, and all others join.
    looks.store(0, Ordering::Relaxed);
    let first = who(&server, &token);
    let others = futures::future::join_all((0..8).map(|_| who(&server, &token)));
    let late = async {
        looked().await;
        let get = format!("GET /version?timeout=50ms\nauthorization: Bearer {token}\n\n");
        let code = ask(&server.api, "", &get).await.code;
        gate.add_permits(100);
        code
    };
    let (first, others, late) = tokio::join!(first, others, late);
    assert_eq!((late, first.code), (504, 401));
    assert!(others.iter().all(|answer| answer.code == 401));
    assert_eq!(who(&server, &token).await.code, 401);
    assert_eq!(looks.load(Ordering::Relaxed), 1, "one look for all of them");
}
