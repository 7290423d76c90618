//! Terminal sizes: a stream of JSON objects `{"Width":80,"Height":24}`.

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::Stream;

const MAX_PENDING: usize = 4096;

/// Hands the sizes on as `(width, height)`, until the stream or the receiver ends. A receiver that lags misses
/// sizes in between, never the order.
pub(crate) async fn forward(mut stream: Stream, sizes: mpsc::Sender<(u16, u16)>) {
    let mut pending = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut pending).await {
        let used = parse(&pending, |size| {
            let _ = sizes.try_send(size);
        });
        pending.drain(..used);
        if pending.len() > MAX_PENDING {
            return;
        }
    }
}

fn parse(bytes: &[u8], mut found: impl FnMut((u16, u16))) -> usize {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<serde_json::Value>();
    let mut used = 0;
    while let Some(Ok(value)) = values.next() {
        used = values.byte_offset();
        let side = |name| value.get(name).and_then(serde_json::Value::as_u64).and_then(|n| u16::try_from(n).ok());
        if let (Some(width), Some(height)) = (side("Width"), side("Height")) {
            found((width, height));
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(u16, u16)], left: &str) {
        let mut sizes = Vec::new();
        let used = parse(text.as_bytes(), |size| sizes.push(size));
        assert_eq!((sizes.as_slice(), text[used..].trim_start()), (expected, left));
    }

    #[test]
    fn sizes() {
        check(r#"{"Width":80,"Height":24}"#, &[(80, 24)], "");
        check("{\"Width\":80,\"Height\":24}\n{\"Width\":1,\"Height\":2}\n{\"Wi", &[(80, 24), (1, 2)], "{\"Wi");
        check(r#"{"Width":70000,"Height":24}"#, &[], "");
    }
}
