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
enum State {
    Text,
    /// Nothing is looked at until these bytes; letters of either case. Then text, which begins with them unless `past`.
    Until {
        end: Vec<u8>,
        past: bool,
    },
    /// In a start tag.
    Tag(Tag),
}

/// A page on its way. `link` gives the new form of a link, or none when it stays. Every byte is looked at once, however the page is
/// cut into parts.
pub(super) struct Rewriter<F> {
    link: F,
    state: State,
    /// The last bytes, which may be the beginning of something; fewer than that is long.
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
        let mut held = match std::mem::replace(&mut self.state, State::Text) {
            State::Tag(tag) => tag.text,
            _ => Vec::new(),
        };
        held.append(&mut self.pending);
        held
    }

    /// Moves on by some bytes; none when more are needed.
    fn step(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        if rest.is_empty() {
            return None;
        }
        match &mut self.state {
            State::Text => {
                let start = memchr::memchr(b'<', rest).unwrap_or(rest.len());
                out.extend_from_slice(&rest[..start]);
                if start > 0 { Some(start) } else { self.markup(rest, out) }
            }
            State::Until { end, past } => {
                let (found, past) = (find(rest, end), *past);
                // The last bytes may be the beginning of the end.
                let taken = found.map_or((rest.len() + 1).saturating_sub(end.len()), |at| if past { at + end.len() } else { at });
                if found.is_some() {
                    self.state = State::Text;
                }
                out.extend_from_slice(&rest[..taken]);
                (taken > 0 || found.is_some()).then_some(taken)
            }
            State::Tag(tag) => {
                let taken = rest.iter().position(|byte| !tag.goes_on(*byte)).map_or(rest.len(), |last| last + 1);
                if tag.at == At::End {
                    self.end_tag(out);
                } else if tag.text.len() > MAX_TAG {
                    out.append(&mut tag.text);
                    self.state = State::Text;
                }
                Some(taken)
            }
        }
    }

    /// Something that begins with `<`.
    fn markup(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let until = |end: &[u8]| State::Until { end: end.to_vec(), past: true };
        match rest.get(1)? {
            b'!' if rest.len() < 4 && b"<!--".starts_with(rest) => return None,
            b'!' if rest.starts_with(b"<!--") => self.state = until(b"-->"),
            b'!' | b'?' | b'/' => self.state = until(b">"),
            letter if letter.is_ascii_alphabetic() => {
                self.state = State::Tag(Tag::new());
                return Some(1);
            }
            _ => {}
        }
        let taken = if rest.starts_with(b"<!--") { 4 } else { 1 };
        out.extend_from_slice(&rest[..taken]);
        Some(taken)
    }

    /// The tag is complete: out it goes, with new links.
    fn end_tag(&mut self, out: &mut Vec<u8>) {
        let State::Tag(tag) = std::mem::replace(&mut self.state, State::Text) else { return };
        let text = tag.text;
        let name = String::from_utf8_lossy(&text[1..tag.name_end]).to_ascii_lowercase();
        let links = LINKS.iter().find(|(element, _)| *element == name).map_or(&[][..], |(_, attributes)| attributes);
        let mut copied = 0;
        for (attribute, value) in tag.attributes {
            let attribute = &text[attribute];
            if !links.iter().any(|link| attribute.eq_ignore_ascii_case(link.as_bytes())) {
                continue;
            }
            let new = std::str::from_utf8(&text[value.clone()]).ok().and_then(&self.link);
            let Some(new) = new else { continue };
            out.extend_from_slice(&text[copied..value.start]);
            out.extend_from_slice(new.as_bytes());
            copied = value.end;
        }
        out.extend_from_slice(&text[copied..]);
        if RAW.contains(&name.as_str()) {
            self.state = State::Until { end: format!("</{name}").into_bytes(), past: false };
        }
    }
}

/// What the next byte of a start tag belongs to. Ranges and positions are of the tag's text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Name,
    BetweenAttributes,
    AttributeName(usize),
    AfterAttributeName(Range<usize>),
    BeforeValue(Range<usize>),
    Value {
        name: Range<usize>,
        start: usize,
        quote: Option<u8>,
    },
    /// Behind its last byte.
    End,
}

/// A start tag as far as it has come.
struct Tag {
    text: Vec<u8>,
    at: At,
    name_end: usize,
    /// Names and values.
    attributes: Vec<(Range<usize>, Range<usize>)>,
}

impl Tag {
    fn new() -> Self {
        Self { text: vec![b'<'], at: At::Name, name_end: 0, attributes: Vec::new() }
    }

    /// Takes in the next byte; whether the tag goes on, and may.
    fn goes_on(&mut self, byte: u8) -> bool {
        let position = self.text.len();
        self.text.push(byte);
        // A byte that ends one part may begin the next one: some parts are passed in one go.
        while self.moves(byte, position) {}
        self.at != At::End && self.text.len() <= MAX_TAG
    }

    /// Moves to another part; whether the byte belongs to a further one.
    fn moves(&mut self, byte: u8, position: usize) -> bool {
        let space = byte.is_ascii_whitespace();
        let ends_name = space || byte == b'>' || byte == b'/';
        let (at, again) = match std::mem::replace(&mut self.at, At::End) {
            At::Name if ends_name => {
                self.name_end = position;
                (At::BetweenAttributes, true)
            }
            At::BetweenAttributes if space || byte == b'/' => (At::BetweenAttributes, false),
            At::BetweenAttributes if byte == b'>' => (At::End, false),
            At::BetweenAttributes => (At::AttributeName(position), false),
            At::AttributeName(start) if ends_name || byte == b'=' => (At::AfterAttributeName(start..position), true),
            At::AfterAttributeName(name) if space => (At::AfterAttributeName(name), false),
            At::AfterAttributeName(name) if byte == b'=' => (At::BeforeValue(name), false),
            At::AfterAttributeName(_) => (At::BetweenAttributes, true),
            At::BeforeValue(name) if space => (At::BeforeValue(name), false),
            At::BeforeValue(name) if matches!(byte, b'"' | b'\'') => {
                (At::Value { name, start: position + 1, quote: Some(byte) }, false)
            }
            At::BeforeValue(name) => (At::Value { name, start: position, quote: None }, true),
            At::Value { name, start, quote: Some(quote) } if byte == quote => {
                self.attributes.push((name, start..position));
                (At::BetweenAttributes, false)
            }
            At::Value { name, start, quote: None } if space || byte == b'>' => {
                self.attributes.push((name, start..position));
                (At::BetweenAttributes, true)
            }
            same => (same, false),
        };
        self.at = at;
        again
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
        assert!(rewriter.finish().is_empty());
    }

    /// What never ends is looked at once all the same: a megabyte of each, in one part and in many small ones. Whatever began
    /// again at each tag, or with each part, would not end within the time of a test.
    #[test]
    fn tags_without_an_end_cost_no_more_than_others() {
        let check = |piece: &str| {
            let page = piece.repeat((1 << 20) / piece.len());
            for size in [page.len(), 7] {
                let mut rewriter = Rewriter::new(|_: &str| None);
                let mut length = 0;
                page.as_bytes().chunks(size).for_each(|part| length += rewriter.push(part).len());
                assert_eq!(length + rewriter.finish().len(), page.len());
            }
        };
        check("<a");
        check("<a href='");
        check("<a b ");
        check("<!-");
        check("<a b=<");
        check("</script");
        check("<script>");
    }
}
