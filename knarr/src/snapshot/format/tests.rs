#![allow(clippy::unwrap_used)]
use super::*;

fn head() -> Head {
    Head { format: FORMAT, version: "1.2.3".to_owned(), created: Timestamp::UNIX_EPOCH }
}

fn copied(key: &'static str, value: &'static [u8], expires: u64) -> Copied {
    let lane = if expires == 0 { Lane::Durable } else { Lane::Ephemeral };
    Copied { record: Record { key: key.into(), value: value.into(), revision: 3 }, lane, expires }
}

fn written(lines: Vec<Line>) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), head()).unwrap();
    lines.iter().for_each(|line| writer.line(line).unwrap());
    writer.finish(9).unwrap()
}

fn read(bytes: &[u8]) -> Result<(Vec<Item>, End), Error> {
    let mut reader = Reader::new(bytes)?;
    assert_eq!(reader.head, head());
    let mut items = Vec::new();
    while let Some(item) = reader.next()? {
        items.push(item);
    }
    Ok((items, reader.end.unwrap()))
}

/// Plain lines, compressed.
fn packed(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 0).unwrap()
}

#[test]
fn what_is_written_is_read() {
    let rows = [copied("/a", b"{\"text\":\"\\u00e4\n\"}", 0), copied("/b", b"\xff\x00", 0), copied("/c", b"", 7)];
    let part = || Part { name: "token".to_owned(), content: "secret\n".to_owned() };
    let lines = rows.iter().map(|row| Line::Record(Row::of(row.clone()).unwrap()));
    let (found, end) = read(&written(std::iter::once(Line::File(part())).chain(lines).collect())).unwrap();
    let expected = std::iter::once(Item::File(part())).chain(rows.into_iter().map(Item::Key)).collect::<Vec<_>>();
    assert_eq!((found, end), (expected, End { revision: 9, records: 3 }));
}

#[test]
fn what_is_cut_or_damaged_is_told() {
    let bytes = written(vec![Line::Record(Row::of(copied("/a", b"value of some length", 0)).unwrap())]);
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "cut at {length}");
    }
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x10;
        // A bit of the frame's header may mean nothing; what was written is there then.
        if let Ok(found) = std::panic::catch_unwind(|| read(&damaged)) {
            assert!(found.is_err() || found.unwrap() == read(&bytes).unwrap(), "damaged at {place}");
        }
    }
}

#[test]
fn what_is_no_snapshot_is_refused() {
    let begin = r#"{"snapshot":{"format":1,"version":"1.2.3","created":"1970-01-01T00:00:00Z"}}"#;
    let end = r#"{"end":{"revision":9,"records":0}}"#;
    let check = |text: &str, expected: &str| {
        let error = read(&packed(text)).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    };
    check("", "line 1");
    check("hello", "line 1");
    check(&begin.replace("1,", "2,"), "format 2");
    check(r#"{"snapshot":{"format":7,"other":true}}"#, "format 7");
    check(begin, "ends early");
    check(&format!("{begin}\n{begin}\n{end}\n"), "line 2: it begins again");
    check(&format!("{begin}\n{end}\n{end}\n"), "goes on behind its end");
    check(&format!("{begin}\n{}\n", end.replace(":0", ":1")), "0 of 1 records");
    check(&format!("{begin}\n{{\"new\":1}}\n{end}\n"), "line 2");
    let record = |rest: &str| format!(r#"{begin}{0}{{"record":{{"key":"/a","revision":1{rest}}}}}{0}"#, "\n");
    check(&record(""), "line 2: /a has not one value");
    check(&record(r#","value":"x","bytes":"eA==""#), "line 2: /a has not one value");
    check(&record(r#","bytes":"?""#), "line 2: ");
    assert!(read(&packed(&format!("{begin}\n{end}\n"))).is_ok());
}
