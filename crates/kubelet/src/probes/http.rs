//! HTTP requests of probes and hooks: one connection each, no certificate checks, redirects only on the same host.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base::connection;
use base::lookup::Lookups;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;

const REDIRECTS: usize = 10;
/// Header lines of an answer at most: hyper takes 100 unless it is told, Go counts bytes.
const HEADERS: usize = 1000;

/// Port number of a reference by number or by name in `container`.
pub fn port(reference: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match reference {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name)) {
            Some(port) => port.container_port,
            None => name.parse().map_err(|_| format!("couldn't find port: {name:?}"))?,
        },
    };
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// Octets that a query has none of. Others, such as braces, are sent as they are.
const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>');
/// Octets that a path has none of.
const PATH: &AsciiSet = &QUERY.add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');
/// The same, of a path that is no URL.
const PLAIN: &AsciiSet = &PATH.add(b'%').add(b'?').add(b'#');

/// `path` as it stands in a request. It is a URL, which may have a query and octets that are escaped already; where their escapes make no sense it is
/// a plain path.
fn escape(path: &str) -> String {
    let is_hex = |at: usize| path.as_bytes().get(at).is_some_and(u8::is_ascii_hexdigit);
    if path.bytes().enumerate().any(|(at, byte)| byte == b'%' && !(is_hex(at + 1) && is_hex(at + 2))) {
        return utf8_percent_encode(path, PLAIN).to_string();
    }
    let path = path.split_once('#').map_or(path, |(path, _)| path);
    match path.split_once('?') {
        Some((path, query)) => format!("{}?{}", utf8_percent_encode(path, PATH), utf8_percent_encode(query, QUERY)),
        None => utf8_percent_encode(path, PATH).to_string(),
    }
}

/// Who asks: it is part of the user agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Whether a container works.
    Probe,
    /// A lifecycle hook.
    Hook,
}

impl Purpose {
    fn agent(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Probe => "kube-probe/1.36",
            Self::Hook => "kube-lifecycle/1.36",
        })
    }
}

/// Why there is no answer: what events say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server was asked by HTTPS, and speaks HTTP.
    #[error("{0}")]
    Plain(String),
    /// The server has answered, and not sent the body in time.
    #[error("{0}")]
    Body(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<String> for Error {
    fn from(error: String) -> Self {
        Self::Other(error)
    }
}

impl Error {
    /// The same of a request to a URL.
    fn of(self, uri: &Uri) -> Self {
        let told = |error: String| format!("Get \"{uri}\": {error}");
        match self {
            Self::Plain(error) => Self::Plain(told(error)),
            Self::Body(error) => Self::Body(error),
            Self::Other(error) => Self::Other(told(error)),
        }
    }

    /// Of a handshake that has failed.
    fn of_handshake(error: &std::io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let is_plain = matches!(tls, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)));
        let why = connection::why(error);
        if is_plain { Self::Plain(why) } else { Self::Other(why) }
    }
}

/// A request of a probe or hook.
#[derive(Clone, Debug)]
pub struct Get {
    uri: Uri,
    headers: HeaderMap,
}

impl Get {
    /// Prepares the request of `action`, to the pod's address where it names no host.
    pub fn new(action: &HTTPGetAction, container: &Container, pod_ip: Option<IpAddr>, purpose: Purpose) -> Result<Self, String> {
        let host = match action.host.clone().filter(|host| !host.is_empty()) {
            Some(host) => host,
            None => pod_ip.ok_or("the pod has no address")?.to_string(),
        };
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
        let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
        let port = port(&action.port, container)?;
        let path = escape(action.path.as_deref().unwrap_or("/"));
        let slash = if path.starts_with('/') { "" } else { "/" };
        let uri = format!("{scheme}://{host}:{port}{slash}{path}");
        let uri = uri.parse().map_err(|error| format!("{uri:?} is no URL: {error}"))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, purpose.agent());
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        for own in action.http_headers.iter().flatten() {
            let name: HeaderName = own.name.parse().map_err(|_| format!("{:?} is no header name", own.name))?;
            let value: HeaderValue = own.value.parse().map_err(|_| format!("invalid value of header {:?}", own.name))?;
            // An empty value takes a default header away.
            let default = matches!(name, header::USER_AGENT | header::ACCEPT);
            match (default, own.value.is_empty()) {
                (true, true) => drop(headers.remove(&name)),
                (true, false) => drop(headers.insert(name, value)),
                _ => drop(headers.append(name, value)),
            }
        }
        Ok(Self { uri, headers })
    }

    /// Sends it, follows redirects on the same host, and returns the status code and the beginning of the body.
    /// A redirect to another host is not followed and counts as an answer.
    pub async fn send(&self, timeout: Duration) -> Result<(u16, String), Error> {
        let late = |_| Error::Other("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned());
        let end = Instant::now() + timeout;
        let answer = tokio::time::timeout_at(end, self.follow(end)).await.map_err(late).flatten();
        answer.map_err(|error| error.of(&self.uri))
    }

    /// The same request by HTTP, without what only the server that was meant may read.
    pub fn by_http(&self) -> Result<Self, String> {
        let mut parts = self.uri.clone().into_parts();
        parts.scheme = Some(http::uri::Scheme::HTTP);
        let uri = Uri::from_parts(parts).map_err(|error| error.to_string())?;
        let mut headers = self.headers.clone();
        headers.remove(header::AUTHORIZATION);
        Ok(Self { uri, headers })
    }

    /// Host and port.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    async fn follow(&self, end: Instant) -> Result<(u16, String), Error> {
        let mut uri = self.uri.clone();
        for _ in 0..REDIRECTS {
            let answer = request(&uri, &self.headers, end).await?;
            let location = answer.location.as_deref().filter(|_| matches!(answer.status, 301..=303 | 307 | 308));
            match location.and_then(|location| redirect(&uri, location)) {
                Some(next) if next.host() == self.uri.host() => uri = next,
                _ => return Ok((answer.status, answer.body.map_err(Error::Body)?)),
            }
        }
        Err(Error::Other(format!("stopped after {REDIRECTS} redirects")))
    }
}

struct Answer {
    status: u16,
    location: Option<String>,
    /// The beginning of the body, or why it has not come.
    body: Result<String, String>,
}

/// Where a redirect leads.
fn redirect(from: &Uri, location: &str) -> Option<Uri> {
    if location.contains("://") {
        return location.parse().ok();
    }
    let origin = format!("{}://{}", from.scheme_str()?, from.authority()?);
    if location.starts_with('/') {
        return format!("{origin}{location}").parse().ok();
    }
    let (directory, _) = from.path().rsplit_once('/')?;
    format!("{origin}{directory}/{location}").parse().ok()
}

async fn beginning(response: Response<Incoming>) -> String {
    let mut body = Limited::new(response.into_body(), super::OUTPUT);
    let mut text = Vec::new();
    // A body that is cut short or too long still says something.
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            text.extend_from_slice(data);
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

async fn request(uri: &Uri, headers: &HeaderMap, end: Instant) -> Result<Answer, Error> {
    let host = uri.host().unwrap_or_default();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = connect(host, port).await?;
    let mut request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()));
    if let Some(own) = request.headers_mut() {
        own.extend(headers.clone());
        if !own.contains_key(header::HOST) {
            let host = uri.authority().and_then(|authority| authority.as_str().parse().ok());
            host.map(|host| own.insert(header::HOST, host));
        }
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    if !secure {
        return Ok(exchange(TokioIo::new(stream), request, end).await?);
    }
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|error| error.to_string())?;
    let stream =
        tokio_rustls::TlsConnector::from(TLS.clone()).connect(name, stream).await.map_err(|error| Error::of_handshake(&error))?;
    Ok(exchange(TokioIo::new(stream), request, end).await?)
}

/// Names in probes and hooks.
static LOOKUPS: Lookups = Lookups::new(64);

/// Connects as a probe does; the error reads as upstream's.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let target = format!("{host}:{port}");
    // Whoever has the pod chooses the host.
    let stream = LOOKUPS.connect(host, port).await;
    stream.map_err(|error| connection::dial(&target, &error))
}

async fn exchange<S>(io: TokioIo<S>, request: Request<Empty<Bytes>>, end: Instant) -> Result<Answer, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = builder().handshake(io).await.map_err(|error| connection::why(&error))?;
    let work = async {
        let response = sender.send_request(request).await.map_err(|error| connection::why(&error))?;
        let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok()).map(str::to_owned);
        let status = response.status().as_u16();
        let late = |_| Err("context deadline exceeded (Client.Timeout or context cancellation while reading body)".to_owned());
        let body = tokio::time::timeout_at(end, beginning(response)).await.map_or_else(late, Ok);
        Ok(Answer { status, location, body })
    };
    beside(connection, work).await
}

/// Drives a client connection while `work` uses it. What the connection has to say, `work` hears by itself.
pub(crate) async fn beside<T>(connection: impl Future<Output = Result<(), hyper::Error>>, work: impl Future<Output = T>) -> T {
    let (mut connection, mut work) = (std::pin::pin!(connection), std::pin::pin!(work));
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            _ = &mut connection, if open => open = false,
        }
    }
}

/// Probes ask whether somebody answers, not who.
static TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    Arc::new(base::tls::client_of_anybody().unwrap_or_else(|error| unreachable!("TLS 1.2 and 1.3 are spoken: {error}")))
});

/// Reads what Go reads: many headers, spaces before the colon of one, and folded ones.
fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_headers(HEADERS);
    builder.allow_spaces_after_header_name_in_responses(true).allow_obsolete_multiline_headers_in_responses(true);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(action: Value, expected: Result<&str, &str>) {
        let container = serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]})).unwrap();
        let action = serde_json::from_value(action).unwrap();
        let get = Get::new(&action, &container, Some("10.0.0.2".parse().unwrap()), Purpose::Probe);
        assert_eq!(get.map(|get| get.uri.to_string()), expected.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn urls() {
        check(json!({"port": 80}), Ok("http://10.0.0.2:80/"));
        check(json!({"port": "web", "path": "health?x=1", "scheme": "HTTPS"}), Ok("https://10.0.0.2:8080/health?x=1"));
        check(json!({"port": 80, "host": "::1"}), Ok("http://[::1]:80/"));
        check(json!({"port": 80, "path": "/a b/ü"}), Ok("http://10.0.0.2:80/a%20b/%C3%BC"));
        check(json!({"port": 80, "path": "/a%20b?q=up{x=\"y z\"}|1#top"}), Ok("http://10.0.0.2:80/a%20b?q=up{x=%22y%20z%22}|1"));
        check(json!({"port": 80, "path": "/100%?x"}), Ok("http://10.0.0.2:80/100%25%3Fx"));
        check(json!({"port": 80, "path": "/a{b}|c"}), Ok("http://10.0.0.2:80/a%7Bb%7D%7Cc"));
        check(json!({"port": "other"}), Err("couldn't find port: \"other\""));
        check(json!({"port": 0}), Err("invalid port number: 0"));
    }

    #[test]
    fn redirects() {
        let from: Uri = "http://a:1/x/y".parse().unwrap();
        let check = |location: &str, expected: &str| assert_eq!(redirect(&from, location).unwrap().to_string(), expected);
        check("/z", "http://a:1/z");
        check("z", "http://a:1/x/z");
        check("https://b/z", "https://b/z");
    }

    /// Upstream throws away what comes of a probe whose body it cannot read (`prober.probe`); one that is too long or ends early has a status.
    #[tokio::test]
    async fn a_body_that_does_not_come_is_no_failure() {
        use tokio::io::AsyncWriteExt;
        let container = serde_json::from_value(json!({"name": "c"})).unwrap();
        let ask = async |body: &str, ends: bool, patience: u64| {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let action = serde_json::from_value(json!({"port": port, "host": "127.0.0.1"})).unwrap();
            let get = Get::new(&action, &container, None, Purpose::Probe).unwrap();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n{body}");
                stream.write_all(text.as_bytes()).await.unwrap();
                if ends {
                    stream.shutdown().await.unwrap();
                }
                stream
            };
            let (answer, _stream) = tokio::join!(get.send(Duration::from_millis(patience)), serve);
            answer.map(|(status, body)| (status, body.len()))
        };
        assert_eq!(ask("short", true, 60_000).await.unwrap().0, 200);
        assert_eq!(ask(&"x".repeat(15_000), false, 60_000).await.unwrap().0, 200);
        assert!(matches!(ask("", false, 3_000).await, Err(Error::Body(why)) if why.contains("while reading body")));
    }

    /// `net/textproto` of Go takes them, so that servers which send them have always been ready.
    #[tokio::test]
    async fn answers_of_odd_servers() {
        use tokio::io::AsyncWriteExt;
        let container = serde_json::from_value(json!({"name": "c"})).unwrap();
        let ask = async |headers: &str| {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let action = serde_json::from_value(json!({"port": port, "host": "127.0.0.1"})).unwrap();
            let get = Get::new(&action, &container, None, Purpose::Probe).unwrap();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{headers}\r\nok");
                stream.write_all(text.as_bytes()).await.unwrap();
                stream
            };
            let (answer, _stream) = tokio::join!(get.send(Duration::from_secs(60)), serve);
            answer.unwrap().0
        };
        let many: String = (0..300).map(|number| format!("X-{number}: y\r\n")).collect();
        for headers in [many.as_str(), "Server : x\r\n", "X-Folded: a\r\n b\r\n"] {
            assert_eq!(ask(headers).await, 200, "{headers}");
        }
    }

    /// What events say of a failed probe, which people and their tools look for (`net/http` of Go).
    #[tokio::test]
    async fn why_a_probe_fails() {
        use tokio::io::AsyncWriteExt;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            let (ends, _) = listener.accept().await.unwrap();
            drop(ends);
            let (mut plain, _) = listener.accept().await.unwrap();
            plain.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            plain
        };
        let container = serde_json::from_value(json!({"name": "c"})).unwrap();
        let ask = async |scheme: &str| {
            let action = serde_json::from_value(json!({"port": port, "host": "127.0.0.1", "scheme": scheme})).unwrap();
            let get = Get::new(&action, &container, None, Purpose::Probe).unwrap();
            get.send(Duration::from_secs(60)).await.unwrap_err().to_string()
        };
        let asked = async { [ask("HTTP").await, ask("HTTPS").await] };
        let (answers, plain) = tokio::join!(asked, serve);
        drop((plain, listener));
        let gone = ask("HTTP").await;
        let is_closed = [": EOF", ": read: connection reset by peer"].iter().any(|end| answers[0].ends_with(end));
        assert!(is_closed, "{}", answers[0]);
        let url = format!("127.0.0.1:{port}");
        assert_eq!(answers[1], format!("Get \"https://{url}/\": http: server gave HTTP response to HTTPS client"));
        assert_eq!(gone, format!("Get \"http://{url}/\": dial tcp {url}: connect: connection refused"));
    }
}
