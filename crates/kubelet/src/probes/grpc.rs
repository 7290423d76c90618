//! `grpc.health.v1.Health/Check` over plain HTTP/2 (gRPC health checking protocol).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::http::{beside, connect};

/// Bytes that the server may send before they are read; the least of HTTP/2.
const WINDOW: u32 = 65_535;

/// Asks for the health of `service`; the error is what an event says.
pub async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    let late = || {
        format!("timeout: failed to connect service \"{host}:{port}\" within {}s: context deadline exceeded", timeout.as_secs())
    };
    tokio::time::timeout(timeout, ask(host, port, service)).await.map_err(|_| late())?
}

async fn ask(host: &str, port: u16, service: &str) -> Result<(), String> {
    let stream = connect(host, port).await?;
    let failed = |error: hyper::Error| format!("error: health rpc failed: {}", base::connection::why(&error));
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    // A server can make us hold no more than this.
    builder.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "kube-probe/1.36")
        .body(Full::new(encode(service)))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let early = response.headers().get("grpc-status").cloned();
        let body = Limited::new(response.into_body(), super::OUTPUT).collect().await;
        let body = body.map_err(|error| format!("error: health rpc failed: {}", base::connection::why(&*error)))?;
        let status = body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned()).or(early);
        judge(status.as_ref().and_then(|status| status.to_str().ok()), &body.to_bytes())
    };
    beside(connection, exchange).await
}

/// A length-prefixed `HealthCheckRequest { service = 1 }`.
fn encode(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.unsplit(message);
    frame.freeze()
}

/// `HealthCheckResponse { status = 1 }`: 1 is SERVING.
fn judge(grpc_status: Option<&str>, frame: &[u8]) -> Result<(), String> {
    match grpc_status {
        Some("0") => {}
        Some("12") => {
            return Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned());
        }
        Some("5") => return Err("error: health rpc failed: unknown service".to_owned()),
        other => return Err(format!("error: health rpc failed: status {}", other.unwrap_or("unknown"))),
    }
    let status = match frame.get(5..) {
        Some([0x08, status, ..]) => *status,
        _ => 0,
    };
    match status {
        1 => Ok(()),
        2 => Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
        3 => Err("service unhealthy (responded with \"SERVICE_UNKNOWN\")".to_owned()),
        _ => Err("service unhealthy (responded with \"UNKNOWN\")".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_the_request() {
        assert_eq!(encode("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(encode("ab").as_ref(), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    }

    /// An endless answer, of which the probe reads the beginning.
    #[tokio::test]
    async fn a_body_has_an_end() {
        use std::convert::Infallible;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(async |_| {
                let frames =
                    futures::stream::repeat_with(|| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(vec![0; 1000]))));
                Ok::<_, Infallible>(http::Response::new(http_body_util::StreamBody::new(frames)))
            });
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
        };
        let asked = tokio::select! {
            asked = check("127.0.0.1", port, "", Duration::from_secs(60)) => asked,
            served = server => panic!("the server ended: {served:?}"),
        };
        assert_eq!(asked, Err("error: health rpc failed: length limit exceeded".to_owned()));
    }

    #[test]
    fn judges_the_answer() {
        let check = |status, frame: &[u8], expected: Option<&str>| {
            assert_eq!(judge(status, frame).err().as_deref(), expected);
        };
        check(Some("0"), &[0, 0, 0, 0, 2, 8, 1], None);
        check(Some("0"), &[0, 0, 0, 0, 2, 8, 2], Some("service unhealthy (responded with \"NOT_SERVING\")"));
        check(Some("0"), &[0, 0, 0, 0, 0], Some("service unhealthy (responded with \"UNKNOWN\")"));
        check(Some("5"), &[], Some("error: health rpc failed: unknown service"));
        check(None, &[], Some("error: health rpc failed: status unknown"));
    }
}
