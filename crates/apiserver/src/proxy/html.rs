//! Rewrites the links of an HTML page while it passes through. What is kept is the tag at hand, at most [`MAX_TAG`] bytes.

use std::ops::Range;

/// A longer tag passes as it is.
const MAX_TAG: usize = 64 << 10;

/// Which attributes of which elements are links (HTML 4 and the living standard).
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is text up to their end tag, whatever it looks like.
const RAW: &[&str] = &["script", "style", "textarea", "title", "iframe", "noembed", "noframes", "xmp"];

/// Where in the page the next byte is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Text,
    /// Nothing is looked at until these bytes; letters of either case. Then text, which begins with them unless `past`.
    Until {
        end: Vec<u8>,
        past: bool,
    },
}

/// A page on its way. `link` gives the new form of a link, or none when it stays.
pub(super) struct Rewriter<F> {
    link: F,
    state: State,
    pending: Vec<u8>,
}

impl<F: Fn(&str) -> Option<String>> Rewriter<F> {
    pub(super) fn new(link: F) -> Self {
        Self { link, state: State::Text, pending: Vec::new() }
    }

    /// Takes in the next part of the page; what is ready to go on.
    pub(super) fn push(&mut self, part: &[u8]) -> Vec<u8> {
        let mut page = std::mem::take(&mut self.pending);
        page.extend_from_slice(part);
        let mut out = Vec::with_capacity(page.len());
        let mut rest = page.as_slice();
        while let Some(taken) = self.step(rest, &mut out) {
            rest = &rest[taken..];
        }
        self.pending = rest.to_vec();
        out
    }

    /// The end of the page: what was held back.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    /// Moves on by some bytes; none when more are needed.
    fn step(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        if rest.is_empty() {
            return None;
        }
        if let State::Until { end, past } = &self.state {
            let (found, past) = (find(rest, end), *past);
            // The last bytes may be the beginning of the end.
            let taken = found.map_or((rest.len() + 1).saturating_sub(end.len()), |at| if past { at + end.len() } else { at });
            if found.is_some() {
                self.state = State::Text;
            }
            out.extend_from_slice(&rest[..taken]);
            return (taken > 0 || found.is_some()).then_some(taken);
        }
        let start = memchr::memchr(b'<', rest).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..start]);
        if start > 0 {
            return Some(start);
        }
        self.markup(rest, out)
    }

    /// Something that begins with `<`.
    fn markup(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let until = |end: &[u8]| State::Until { end: end.to_vec(), past: true };
        match rest.get(1)? {
            b'!' if rest.len() < 4 && b"<!--".starts_with(rest) => return None,
            b'!' if rest.starts_with(b"<!--") => self.state = until(b"-->"),
            b'!' | b'?' | b'/' => self.state = until(b">"),
            letter if letter.is_ascii_alphabetic() => return self.tag(rest, out),
            _ => {}
        }
        let taken = if rest.starts_with(b"<!--") { 4 } else { 1 };
        out.extend_from_slice(&rest[..taken]);
        Some(taken)
    }

    fn tag(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let Some(tag) = Tag::parse(rest) else {
            if rest.len() <= MAX_TAG {
                return None;
            }
            out.push(b'<');
            return Some(1);
        };
        let name = String::from_utf8_lossy(&rest[1..tag.name_end]).to_ascii_lowercase();
        let links = LINKS.iter().find(|(element, _)| *element == name).map_or(&[][..], |(_, attributes)| attributes);
        let mut copied = 0;
        for (attribute, value) in tag.attributes {
            let attribute = &rest[attribute];
            if !links.iter().any(|link| attribute.eq_ignore_ascii_case(link.as_bytes())) {
                continue;
            }
            let new = std::str::from_utf8(&rest[value.clone()]).ok().and_then(&self.link);
            let Some(new) = new else { continue };
            out.extend_from_slice(&rest[copied..value.start]);
            out.extend_from_slice(new.as_bytes());
            copied = value.end;
        }
        out.extend_from_slice(&rest[copied..tag.end]);
        if RAW.contains(&name.as_str()) {
            self.state = State::Until { end: format!("</{name}").into_bytes(), past: false };
        }
        Some(tag.end)
    }
}

/// The parts of a start tag, as ranges of the bytes that begin with it.
struct Tag {
    name_end: usize,
    attributes: Vec<(Range<usize>, Range<usize>)>,
    end: usize,
}

impl Tag {
    /// None when the tag does not end here.
    fn parse(page: &[u8]) -> Option<Self> {
        let run = |from: usize, stop: &dyn Fn(u8) -> bool| {
            page.get(from..)?.iter().position(|byte| stop(*byte)).map(|length| from + length)
        };
        let is_end = |byte: u8| byte.is_ascii_whitespace() || byte == b'>' || byte == b'/';
        let name_end = run(1, &is_end)?;
        let (mut at, mut attributes) = (name_end, Vec::new());
        loop {
            at = run(at, &|byte| !(byte.is_ascii_whitespace() || byte == b'/'))?;
            if page[at] == b'>' {
                return Some(Self { name_end, attributes, end: at + 1 });
            }
            let name = at..run(at + 1, &|byte| is_end(byte) || byte == b'=')?;
            let equals = run(name.end, &|byte| !byte.is_ascii_whitespace())?;
            if page[equals] != b'=' {
                at = equals;
                continue;
            }
            let start = run(equals + 1, &|byte| !byte.is_ascii_whitespace())?;
            let quote = page[start];
            let value = match quote {
                b'"' | b'\'' => start + 1..run(start + 1, &|byte| byte == quote)?,
                _ => start..run(start, &|byte| byte.is_ascii_whitespace() || byte == b'>')?,
            };
            at = value.end + usize::from(matches!(quote, b'"' | b'\''));
            attributes.push((name, value));
        }
    }
}

/// Finds `end` with letters of either case.
fn find(rest: &[u8], end: &[u8]) -> Option<usize> {
    rest.windows(end.len()).position(|window| window.eq_ignore_ascii_case(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page in one piece and byte by byte.
    fn check(page: &str, expected: &str) {
        for size in [page.len().max(1), 1] {
            let mut rewriter = Rewriter::new(|link: &str| link.starts_with('/').then(|| format!("/new{link}")));
            let mut out = Vec::new();
            page.as_bytes().chunks(size).for_each(|part| out.extend(rewriter.push(part)));
            out.extend(rewriter.finish());
            assert_eq!(String::from_utf8_lossy(&out), expected, "{size}");
        }
    }

    #[test]
    fn links_change_and_nothing_else() {
        check(r#"<a href="/x">/x</a>"#, r#"<a href="/new/x">/x</a>"#);
        check("<A class=b HREF = '/x' id=c>", "<A class=b HREF = '/new/x' id=c>");
        check("<img src=/x alt='a > b' longdesc=\"/y\"/>", "<img src=/new/x alt='a > b' longdesc=\"/new/y\"/>");
        check("<p href='/x'><a href='x'><a href><a href=''>", "<p href='/x'><a href='x'><a href><a href=''>");
        check("1 < 2 <a\nhref=\"/x\">", "1 < 2 <a\nhref=\"/new/x\">");
        check("<!-- <a href='/x'> --><a href='/x'>", "<!-- <a href='/x'> --><a href='/new/x'>");
        check("<!doctype html><?x <?><a href='/x'>", "<!doctype html><?x <?><a href='/new/x'>");
        let script = "<script src='/x'>if (a<b) '<a href=\"/x\">'</SCRIPT ><a href='/x'>";
        let rewritten = "<script src='/new/x'>if (a<b) '<a href=\"/x\">'</SCRIPT ><a href='/new/x'>";
        check(script, rewritten);
        check("<a href='/x", "<a href='/x");
        check("", "");
    }

    #[test]
    fn an_endless_tag_is_not_kept() {
        let mut rewriter = Rewriter::new(|_: &str| None);
        let page = format!("<a x=\"{}", "y".repeat(MAX_TAG));
        assert_eq!(rewriter.push(page.as_bytes()).len(), page.len());
        assert!(rewriter.pending.is_empty());
    }
}
