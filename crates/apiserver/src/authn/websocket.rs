//! Bearer tokens of WebSockets that browsers open: no script may set their headers, so the token comes as a subprotocol,
//! `base64url.bearer.authorization.k8s.io.` and the token in base64url.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::request::Parts;

const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Why a token in a subprotocol is refused, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("multiple base64.bearer.authorization tokens specified")]
    Several,
    #[error("invalid base64.bearer.authorization token encoding")]
    Encoding,
    #[error("invalid base64.bearer.authorization token")]
    Text,
    #[error("missing additional subprotocol")]
    Alone,
}

/// The token that a request carried, taken out of its headers.
#[derive(Clone)]
struct Token(Result<String, Error>);

/// Moves a token from the subprotocols of a WebSocket to where [`token`] finds it: it is no protocol to choose, and neither
/// kubelets nor other backends may see it.
pub(crate) fn take_token(parts: &mut Parts) {
    if !parts.headers.contains_key(SEC_WEBSOCKET_PROTOCOL) || !streaming::is_websocket(&parts.headers) {
        return;
    }
    let values = parts.headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
    let all = values.flat_map(|value| value.split(',')).map(str::trim);
    let (tokens, others): (Vec<&str>, Vec<&str>) = all.partition(|protocol| protocol.starts_with(PREFIX));
    let token = match tokens.as_slice() {
        [] => return,
        [one] if !others.is_empty() || *one == PREFIX => decode(&one[PREFIX.len()..]),
        [_] => Err(Error::Alone),
        _ => Err(Error::Several),
    };
    let others = HeaderValue::try_from(others.join(",")).ok().filter(|value| !value.is_empty());
    parts.headers.remove(SEC_WEBSOCKET_PROTOCOL);
    parts.headers.extend(others.map(|value| (SEC_WEBSOCKET_PROTOCOL, value)));
    parts.extensions.insert(Token(token));
}

fn decode(text: &str) -> Result<String, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::Encoding)?;
    String::from_utf8(bytes).map_err(|_| Error::Text)
}

/// The token; an empty one is none.
pub(super) fn token(parts: &Parts) -> Result<Option<&str>, Error> {
    match parts.extensions.get::<Token>() {
        None => Ok(None),
        Some(Token(Ok(token))) => Ok(Some(token.as_str()).filter(|token| !token.is_empty())),
        Some(Token(Err(error))) => Err(*error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check(protocols: &[&str], token_expected: Result<Option<&str>, Error>, left: Option<&str>) {
        let mut request = http::Request::get("/").header("connection", "Upgrade").header("upgrade", "websocket");
        for protocol in protocols {
            request = request.header(SEC_WEBSOCKET_PROTOCOL, *protocol);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        take_token(&mut parts);
        assert_eq!(token(&parts), token_expected, "{protocols:?}");
        assert_eq!(parts.headers.get(SEC_WEBSOCKET_PROTOCOL).map(|value| value.to_str().unwrap()), left, "{protocols:?}");
    }

    #[test]
    fn tokens() {
        let token = |text: &str| format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(text));
        check(&[&format!("v4.channel.k8s.io, {}", token("a.b"))], Ok(Some("a.b")), Some("v4.channel.k8s.io"));
        check(&[&token("a.b"), "x", "y,z"], Ok(Some("a.b")), Some("x,y,z"));
        check(&["v4.channel.k8s.io"], Ok(None), Some("v4.channel.k8s.io"));
        check(&[], Ok(None), None);
        check(&[PREFIX, "x"], Ok(None), Some("x"));
        check(&[&token("a")], Err(Error::Alone), None);
        check(&[&token("a"), &token("b"), "x"], Err(Error::Several), Some("x"));
        check(&[&format!("{PREFIX}!"), "x"], Err(Error::Encoding), Some("x"));
        check(&[&format!("{PREFIX}_w"), "x"], Err(Error::Text), Some("x"));
    }

    #[test]
    fn only_websockets_are_looked_at() {
        let (mut parts, ()) =
            http::Request::get("/").header(SEC_WEBSOCKET_PROTOCOL, format!("{PREFIX}YQ, x")).body(()).unwrap().into_parts();
        take_token(&mut parts);
        assert_eq!(super::token(&parts), Ok(None));
    }
}
