//! rustls configurations, all with one provider.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use signatures::provider;

use super::{Error, Protocols, Resolver, Verifier};

/// The certificates of a PEM bundle as trust anchors.
pub fn roots(bundle: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.map_err(|error| Error::Parse(format!("certificate authority: {error}")))?)?;
    }
    if roots.is_empty() {
        return Err(Error::Parse("certificate authority: no certificate in the bundle".into()));
    }
    Ok(roots)
}

/// The authorities that the machine trusts; none where it has no list. Reads files, which takes some milliseconds.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// A server that speaks HTTP/2 and HTTP/1.1 and all that there is of TLS, with the resolver's certificate. With a verifier it asks clients for
/// theirs, each time: a resumed session would go on with the certificate of the one before.
pub fn server(resolver: Arc<Resolver>, verifier: Option<Arc<Verifier>>) -> Result<Arc<ServerConfig>, Error> {
    server_speaking(&Protocols::default(), resolver, verifier)
}

/// The same, of those protocols.
pub fn server_speaking(
    protocols: &Protocols,
    resolver: Arc<Resolver>,
    verifier: Option<Arc<Verifier>>,
) -> Result<Arc<ServerConfig>, Error> {
    let builder = ServerConfig::builder_with_provider(protocols.provider()).with_protocol_versions(protocols.versions())?;
    let is_asking = verifier.is_some();
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(resolver);
    if is_asking {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client that trusts `bundle` and presents the resolver's certificate, if there is one. It offers HTTP/1.1 only:
/// the protocol that upgrades need; set `alpn_protocols` for more.
pub fn client(bundle: &str, resolver: Option<Arc<Resolver>>) -> Result<ClientConfig, Error> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(bundle)?);
    let mut config = match resolver {
        Some(resolver) => {
            let mut config = builder.with_client_cert_resolver(resolver);
            // A renewed certificate is shown at the next connection.
            config.resumption = Resumption::disabled();
            config
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tls::{Authority, Peer, Request, Version};
    use rustls::SupportedProtocolVersion;
    use rustls::pki_types::ServerName;
    use rustls::version::{TLS12, TLS13};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    #[tokio::test]
    async fn each_connection_shows_its_certificate() {
        use rustls::HandshakeKind;
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let authority = Arc::new(Authority::in_memory("ca").unwrap());
        let memory = |request| Resolver::memory(authority.clone(), request).unwrap();
        let own = || memory(Request::Server { name: "s".into(), sans: vec!["localhost".into()] });
        let jane = || memory(Request::Client { user: "jane".into(), groups: vec![] });
        let check = async |acceptor: TlsAcceptor, client: ClientConfig, second: HandshakeKind| {
            let connector = TlsConnector::from(Arc::new(client));
            for expected in [HandshakeKind::Full, second] {
                let (a, b) = tokio::io::duplex(64 << 10);
                let name = ServerName::try_from("localhost").unwrap();
                let (served, connected) = tokio::join!(acceptor.accept(a), connector.connect(name, b));
                let (mut served, mut connected) = (served.unwrap(), connected.unwrap());
                // What is read comes after the tickets.
                served.write_all(b"x").await.unwrap();
                served.flush().await.unwrap();
                connected.read_exact(&mut [0]).await.unwrap();
                assert_eq!(connected.get_ref().1.handshake_kind(), Some(expected));
            }
        };
        let verifier = Verifier::new(authority.bundle()).unwrap();
        let acceptor = |verifier| TlsAcceptor::from(server(own(), verifier).unwrap());
        let bundle = authority.bundle();
        let resuming = |mut client: ClientConfig| {
            client.resumption = Resumption::in_memory_sessions(8);
            client
        };
        check(acceptor(None), client(bundle, None).unwrap(), HandshakeKind::Resumed).await;
        check(acceptor(None), client(bundle, Some(jane())).unwrap(), HandshakeKind::Full).await;
        check(acceptor(Some(verifier.clone())), client(bundle, Some(jane())).unwrap(), HandshakeKind::Full).await;
        check(acceptor(Some(verifier)), resuming(client(bundle, Some(jane())).unwrap()), HandshakeKind::Full).await;
    }

    #[tokio::test]
    async fn what_is_not_spoken() {
        let authority = Arc::new(Authority::in_memory("ca").unwrap());
        let check = async |protocols: Protocols, offered: &'static SupportedProtocolVersion, suite: &str, expected: bool| {
            let request = Request::Server { name: "s".into(), sans: vec!["localhost".into()] };
            let identity = Resolver::memory(authority.clone(), request).unwrap();
            let acceptor = TlsAcceptor::from(server_speaking(&protocols, identity, None).unwrap());
            let suites = vec![suite.parse().unwrap()];
            let offers = Protocols { suites, ..Protocols::default() }.provider();
            let builder = ClientConfig::builder_with_provider(offers).with_protocol_versions(&[offered]).unwrap();
            let client = builder.with_root_certificates(roots(authority.bundle()).unwrap()).with_no_client_auth();
            let (a, b) = tokio::io::duplex(64 << 10);
            let name = ServerName::try_from("localhost").unwrap();
            let (_, connected) = tokio::join!(acceptor.accept(a), TlsConnector::from(Arc::new(client)).connect(name, b));
            assert_eq!(connected.is_ok(), expected, "{protocols:?}, {offered:?}, {suite}");
        };
        let (strong, other) = ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
        let newest = || Protocols { oldest: Version::Tls13, suites: vec![] };
        let chosen = || Protocols { oldest: Version::Tls12, suites: vec![strong.parse().unwrap()] };
        check(Protocols::default(), &TLS12, other, true).await;
        check(Protocols::default(), &TLS13, other, true).await;
        check(newest(), &TLS12, other, false).await;
        check(newest(), &TLS13, other, true).await;
        check(chosen(), &TLS12, other, false).await;
        check(chosen(), &TLS12, strong, true).await;
        check(chosen(), &TLS13, other, true).await;
    }

    async fn check(client_authority: &Arc<Authority>, authority: &Arc<Authority>, groups: Option<&[&str]>) -> Peer {
        let request = Request::Server { name: "s".into(), sans: vec!["localhost".into()] };
        let server_identity = Resolver::memory(authority.clone(), request).unwrap();
        let verifier = Verifier::new(authority.bundle()).unwrap();
        let acceptor = TlsAcceptor::from(server(server_identity, Some(verifier.clone())).unwrap());
        let identity = groups.map(|groups| {
            let groups = groups.iter().map(|&g| g.to_owned()).collect();
            Resolver::memory(client_authority.clone(), Request::Client { user: "jane".into(), groups }).unwrap()
        });
        let connector = TlsConnector::from(Arc::new(client(authority.bundle(), identity).unwrap()));
        let (a, b) = tokio::io::duplex(64 << 10);
        let name = ServerName::try_from("localhost").unwrap();
        let (served, connected) = tokio::join!(acceptor.accept(a), connector.connect(name, b));
        connected.unwrap();
        verifier.peer(served.unwrap().get_ref().1.peer_certificates())
    }

    #[tokio::test]
    async fn peers() {
        let authority = Arc::new(Authority::in_memory("cluster").unwrap());
        let stranger = Arc::new(Authority::in_memory("cluster").unwrap());
        assert_eq!(check(&authority, &authority, None).await, Peer::Anonymous);
        let Peer::User { name, groups, .. } = check(&authority, &authority, Some(&["system:masters", "b"])).await else {
            panic!("a certificate of the cluster");
        };
        assert_eq!((name.as_str(), groups), ("jane", vec!["system:masters".to_owned(), "b".to_owned()]));
        assert!(matches!(check(&stranger, &authority, Some(&["system:masters"])).await, Peer::Invalid(_)));
    }
}
