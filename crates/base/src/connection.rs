//! What goes wrong with connections, in the words of Go's `net`, `crypto/tls` and `net/http`: people and their tools know them from events,
//! messages of clients and logs of every Kubernetes, and look for them.

use std::error::Error;
use std::io;

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, InvalidMessage};

/// What the standard library says before the reason why a name has no address.
const LOOKUP: &str = "failed to lookup address information: ";

/// Why there is no connection to `address`, `HOST:PORT`: `dial tcp 10.0.0.1:80: connect: connection refused`.
pub fn dial(address: &str, error: &io::Error) -> String {
    if error.raw_os_error().is_some() {
        return format!("dial tcp {address}: connect: {}", system(error));
    }
    if let Some(why) = error.to_string().strip_prefix(LOOKUP) {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        // EAI_NONAME and EAI_NODATA.
        let is_unknown = ["Name or service not known", "No address associated with hostname"].contains(&why);
        return format!("dial tcp: lookup {host}: {}", if is_unknown { "no such host" } else { why });
    }
    format!("dial tcp {address}: {}", why(error))
}

/// Why an exchange over a connection has come to nothing: the cause below what the libraries between have to say of it, and all of that where the cause
/// is none of the network's.
pub fn why(error: &(dyn Error + 'static)) -> String {
    causes(error).find_map(known).unwrap_or_else(|| {
        let mut text = String::new();
        for cause in causes(error).map(ToString::to_string) {
            // Some libraries say of themselves what their cause says.
            if text.is_empty() {
                text = cause;
            } else if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        text
    })
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let this = next?;
        next = this.source();
        Some(this)
    })
}

/// Whether a connection is none since the other side's certificate is of nobody who is trusted.
pub fn is_unknown_authority(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|error| match (error.downcast_ref::<rustls::Error>(), error.downcast_ref::<io::Error>()) {
        (Some(error), _) => *error == rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer),
        (None, Some(error)) => error.get_ref().is_some_and(|inner| is_unknown_authority(inner)),
        (None, None) => false,
    })
}

fn known(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return error.is_incomplete_message().then(|| "EOF".to_owned());
    }
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(tls(error));
    }
    let error = error.downcast_ref::<io::Error>()?;
    if let Some(inner) = error.get_ref() {
        return causes(inner).find_map(known);
    }
    match error.kind() {
        io::ErrorKind::ConnectionReset => Some("read: connection reset by peer".to_owned()),
        io::ErrorKind::BrokenPipe => Some("write: broken pipe".to_owned()),
        io::ErrorKind::UnexpectedEof => Some("unexpected EOF".to_owned()),
        io::ErrorKind::TimedOut if error.raw_os_error().is_none() => Some("i/o timeout".to_owned()),
        // These come of connecting; others may come of it, or later.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Some(format!("connect: {}", system(error)))
        }
        _ => error.raw_os_error().map(|_| system(error)),
    }
}

/// What the system calls an error: its text without number, in lower case.
fn system(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// What Go says of a certificate that is not valid at the time (`x509.CertificateInvalidError`), before it says what time it is: who reads it sees
/// a clock that is wrong.
const EXPIRED: &str = "certificate has expired or is not yet valid";

fn moment(time: UnixTime) -> String {
    let moment = i64::try_from(time.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    moment.map_or_else(|| time.as_secs().to_string(), |moment| moment.to_string())
}

/// Why a TLS connection is none.
pub fn tls(error: &rustls::Error) -> String {
    let x509 = |why: String| format!("tls: failed to verify certificate: x509: {why}");
    match error {
        rustls::Error::InvalidCertificate(why) => x509(match why {
            CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
            CertificateError::Expired | CertificateError::NotValidYet => EXPIRED.to_owned(),
            CertificateError::ExpiredContext { time, not_after } => {
                format!("{EXPIRED}: current time {} is after {}", moment(*time), moment(*not_after))
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                format!("{EXPIRED}: current time {} is before {}", moment(*time), moment(*not_before))
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                format!("certificate is valid for {}, not {}", names(presented), expected.to_str())
            }
            other => other.to_string(),
        }),
        rustls::Error::AlertReceived(alert) => format!("remote error: tls: {}", words(*alert)),
        // No record of TLS. All that we speak over it is HTTP, and so is what comes from who does not expect TLS.
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "http: server gave HTTP response to HTTPS client".to_owned()
        }
        other => format!("tls: {other}"),
    }
}

/// The names in a certificate, which rustls tells as `DnsName("a")` and `IpAddress(1.2.3.4)`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        inside.trim_matches('"').to_owned()
    };
    if presented.is_empty() { "no names".to_owned() } else { presented.iter().map(bare).collect::<Vec<_>>().join(", ") }
}

/// What Go calls an alert (`crypto/tls/alert.go`); most are as here, in another form: `BadCertificate` is `bad certificate`.
fn words(alert: AlertDescription) -> String {
    let other = match alert {
        AlertDescription::BadRecordMac => "bad record MAC",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::DecodeError => "error decoding message",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::InsufficientSecurity => "insufficient security level",
        AlertDescription::UnrecognisedName => "unrecognized name",
        AlertDescription::UnknownPSKIdentity => "unknown PSK identity",
        _ => "",
    };
    if !other.is_empty() {
        return other.to_owned();
    }
    let mut text = String::new();
    for letter in format!("{alert:?}").chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nix::libc;

    use super::*;

    /// `net.OpError` and `net.DNSError`.
    #[test]
    fn why_nobody_is_reached() {
        let check = |error: io::Error, expected: &str| assert_eq!(dial("a.example:80", &error), expected);
        let system = io::Error::from_raw_os_error;
        check(system(libc::ECONNREFUSED), "dial tcp a.example:80: connect: connection refused");
        check(system(libc::EHOSTUNREACH), "dial tcp a.example:80: connect: no route to host");
        check(system(libc::ENETUNREACH), "dial tcp a.example:80: connect: network is unreachable");
        check(system(libc::ETIMEDOUT), "dial tcp a.example:80: connect: connection timed out");
        check(io::ErrorKind::TimedOut.into(), "dial tcp a.example:80: i/o timeout");
        check(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout"), "dial tcp a.example:80: i/o timeout");
        check(io::Error::other("no tunnel"), "dial tcp a.example:80: no tunnel");
        check(io::Error::other(format!("{LOOKUP}Name or service not known")), "dial tcp: lookup a.example: no such host");
        let later = format!("{LOOKUP}Temporary failure in name resolution");
        check(io::Error::other(later), "dial tcp: lookup a.example: Temporary failure in name resolution");
        use std::net::ToSocketAddrs;
        let error = "no-such-name.invalid:80".to_socket_addrs().unwrap_err();
        assert!(dial("no-such-name.invalid:80", &error).starts_with("dial tcp: lookup no-such-name.invalid: "), "{error}");
    }

    #[test]
    fn what_tls_says() {
        let check = |error: rustls::Error, expected: &str| {
            assert_eq!(why(&io::Error::new(io::ErrorKind::InvalidData, error)), expected);
        };
        let verify = |why: CertificateError| rustls::Error::InvalidCertificate(why);
        let unknown = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
        check(verify(CertificateError::UnknownIssuer), unknown);
        let expired = "tls: failed to verify certificate: x509: certificate has expired or is not yet valid";
        check(verify(CertificateError::Expired), expired);
        check(verify(CertificateError::NotValidYet), expired);
        let at = |seconds: u64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let (time, early, late) = (at(1_780_000_000), at(1_700_000_000), at(1_800_000_000));
        let after = format!("{expired}: current time 2026-05-28T20:26:40Z is after 2023-11-14T22:13:20Z");
        check(verify(CertificateError::ExpiredContext { time, not_after: early }), &after);
        let before = format!("{expired}: current time 2026-05-28T20:26:40Z is before 2027-01-15T08:00:00Z");
        check(verify(CertificateError::NotValidYetContext { time, not_before: late }), &before);
        let other = CertificateError::NotValidForNameContext {
            expected: rustls_pki_types::ServerName::try_from("b.example").unwrap(),
            presented: vec!["DnsName(\"a.example\")".to_owned(), "IpAddress(10.0.0.1)".to_owned()],
        };
        let valid = "tls: failed to verify certificate: x509: certificate is valid for a.example, 10.0.0.1, not b.example";
        check(verify(other), valid);
        check(rustls::Error::AlertReceived(AlertDescription::BadCertificate), "remote error: tls: bad certificate");
        check(rustls::Error::AlertReceived(AlertDescription::UnknownCA), "remote error: tls: unknown certificate authority");
        check(rustls::Error::AlertReceived(AlertDescription::CertificateExpired), "remote error: tls: expired certificate");
        check(
            rustls::Error::AlertReceived(AlertDescription::ProtocolVersion),
            "remote error: tls: protocol version not supported",
        );
        check(rustls::Error::AlertReceived(AlertDescription::HandshakeFailure), "remote error: tls: handshake failure");
        let plain = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        check(plain, "http: server gave HTTP response to HTTPS client");
    }

    #[test]
    fn certificates_of_nobody_who_is_trusted() {
        let check = |error: CertificateError, expected: bool| {
            let error = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(error));
            assert_eq!(is_unknown_authority(&Around(io::Error::other(error))), expected);
        };
        check(CertificateError::UnknownIssuer, true);
        check(CertificateError::Expired, false);
        assert!(!is_unknown_authority(&io::Error::from(io::ErrorKind::ConnectionReset)));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("request failed")]
    struct Around(#[source] io::Error);

    #[test]
    fn the_cause_is_told() {
        assert_eq!(why(&Around(io::Error::from_raw_os_error(libc::ECONNRESET))), "read: connection reset by peer");
        assert_eq!(why(&Around(io::Error::from_raw_os_error(libc::EPIPE))), "write: broken pipe");
        assert_eq!(why(&Around(io::ErrorKind::UnexpectedEof.into())), "unexpected EOF");
        assert_eq!(why(&Around(io::Error::from_raw_os_error(libc::ECONNREFUSED))), "connect: connection refused");
        assert_eq!(why(&Around(io::Error::from_raw_os_error(libc::ETIMEDOUT))), "connection timed out");
        assert_eq!(why(&Around(io::Error::other("something else"))), "request failed: something else");
    }
}
