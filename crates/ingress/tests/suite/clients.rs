//! Certificates of clients.

use std::net::SocketAddr;
use std::sync::Arc;

use base::tls::{Authority, Identity, Request as Issue};
use http::StatusCode;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::net::TcpStream;

use crate::world::{Answer, World, ask, full, get, rule, send};

/// Asks over TLS for one host by the handshake and perhaps another one by the request, with a certificate or without.
pub(crate) async fn asked(world: &World, https: SocketAddr, (sni, host): (&str, &str), identity: Option<&Identity>) -> Answer {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(base::tls::roots(world.authority.bundle()).unwrap());
    let config = match identity {
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).flatten().collect();
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    let stream = TcpStream::connect(https).await.unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let claims = get(host, "/x").header("ssl-client-verify", "SUCCESS").header("ssl_client_verify", "SUCCESS");
    send(stream, claims.header("connection", "ssl-client-verify, ssl-client-cert").body(full("")).unwrap()).await
}

#[tokio::test]
async fn clients_prove_who_they_are() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    let staff = Authority::in_memory("staff").unwrap();
    world.secret("staff", "Opaque", &[("ca.crt", staff.bundle())]);
    let hosts = ["shop.example", "staff.example", "maybe.example", "page.example"];
    for host in hosts {
        world.certificate(host, host);
    }
    let ingress = |host: &str, annotations: &[(&str, &str)]| {
        let tls = json!([{"hosts": [host], "secretName": host}]);
        world.ingress(host, annotations, &json!({"tls": tls, "rules": [rule(host, "/", "Prefix", "web")]}));
    };
    let secret = ("auth-tls-secret", "a/staff");
    ingress("shop.example", &[]);
    ingress(
        "staff.example",
        &[secret, ("auth-tls-pass-certificate-to-upstream", "true"), ("auth-tls-match-cn", "CN=(anna|berta)")],
    );
    ingress("maybe.example", &[secret, ("auth-tls-verify-client", "optional")]);
    ingress("page.example", &[secret, ("auth-tls-error-page", "https://shop.example/how")]);
    let (http, https) = world.start_tls().await;
    let issue = |by: &Authority, name: &str| by.issue(&Issue::Client { user: name.into(), groups: Vec::new() }).unwrap();
    let (anna, carl, stranger) = (issue(&staff, "anna"), issue(&staff, "carl"), issue(&world.authority, "anna"));
    let check = async |host: &str, identity: Option<&Identity>, status: u16| {
        let answer = asked(&world, https, (host, host), identity).await;
        assert_eq!(answer.status.as_u16(), status, "{host}");
        answer
    };
    let seen = check("staff.example", Some(&anna), 200).await.seen();
    let header = |name: &str| seen["headers"][name].as_str().unwrap_or_default();
    assert_eq!((header("ssl-client-verify"), header("ssl-client-subject-dn")), ("SUCCESS", "CN=anna"));
    assert!(header("ssl-client-issuer-dn").contains("CN=staff"), "{seen}");
    assert!(header("ssl-client-cert").starts_with("-----BEGIN%20CERTIFICATE-----%0A"), "{seen}");
    check("staff.example", Some(&carl), 403).await;
    check("staff.example", Some(&stranger), 400).await;
    check("staff.example", None, 400).await;
    // What a client says of itself is worth nothing.
    let seen = check("maybe.example", None, 200).await.seen();
    assert_eq!(seen["headers"]["ssl-client-verify"], "NONE");
    assert_eq!(seen["headers"].get("ssl_client_verify"), None);
    check("maybe.example", Some(&stranger), 400).await;
    let answer = check("page.example", None, 302).await;
    assert_eq!(answer.header("location"), "https://shop.example/how");
    // Others are not asked, and do not lead to who is.
    let seen = check("shop.example", Some(&anna), 200).await.seen();
    assert!(seen["headers"].get("ssl-client-subject-dn").is_none());
    let answer = asked(&world, https, ("shop.example", "staff.example"), Some(&anna)).await;
    assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(ask(http, get("staff.example", "/x")).await.status, StatusCode::PERMANENT_REDIRECT);
}

#[tokio::test]
async fn without_authorities_nobody_passes() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.certificate("cert", "staff.example");
    let tls = json!([{"hosts": ["staff.example"], "secretName": "cert"}]);
    let spec = json!({"tls": tls, "rules": [rule("staff.example", "/", "Prefix", "web")]});
    world.ingress("staff", &[("auth-tls-secret", "a/none")], &spec);
    let (_, https) = world.start_tls().await;
    let anna = world.authority.issue(&Issue::Client { user: "anna".into(), groups: Vec::new() }).unwrap();
    let answer = asked(&world, https, ("staff.example", "staff.example"), Some(&anna)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}
