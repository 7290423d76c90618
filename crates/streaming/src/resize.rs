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
        found_in(&value).map(&mut found);
    }
    used
}

/// The size in one value, as Go decodes it (`TerminalSize`): names in any case, a side that is missing or null is 0, the last one of
/// several counts. A size with a side of 0 is passed over, as upstream's `HandleResizing` and containerd do.
fn found_in(value: &serde_json::Value) -> Option<(u16, u16)> {
    let (mut width, mut height) = (0, 0);
    for (name, value) in value.as_object()? {
        let side = match name {
            name if name.eq_ignore_ascii_case("Width") => &mut width,
            name if name.eq_ignore_ascii_case("Height") => &mut height,
            _ => continue,
        };
        if !value.is_null() {
            *side = u16::try_from(value.as_u64()?).ok()?;
        }
    }
    Some((width, height)).filter(|(width, height)| *width > 0 && *height > 0)
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
        check(r#"{"height":40,"width":100} {"WIDTH":1,"hEIGHT":2,"x":3}"#, &[(100, 40), (1, 2)], "");
        check(r#"{"Height":40} {"Width":null,"Height":1} {} {"Width":8,"width":9,"Height":1}"#, &[(9, 1)], "");
        check(r#"{"Width":"80","Height":24} [1] 7"#, &[], "");
    }
}
