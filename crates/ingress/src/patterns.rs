//! Regular expressions of Ingresses and routes: how much memory all of them may take, and those of one namespace.
//!
//! A short text can be a large automaton, and whoever may make Ingresses may make thousands of them: what bounds each bounds nothing.

use std::collections::HashMap;
use std::ops::Deref;
use std::str::Chars;
use std::sync::{Arc, LazyLock, OnceLock, Weak};

use base::budgets::shares::{Share, Shares};
use base::budgets::{Meter, memory};
use parking_lot::Mutex;
use regex::{Regex, RegexBuilder};
use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{Ast, GroupKind};

/// Bytes that the program of a compiled pattern may have: the least of these that it fits into is what it is counted with.
const SIZES: [usize; 9] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20];
/// How many times the size of its program a pattern takes: programs for both directions, and what is remembered while it is used, by each
/// thread for itself. Measured with one to four threads: 1 to 6 times where groups end at one place (`/\w{3}`), 2 to 15 times where they
/// may end at many (`.*\w{3}/(.*)/(\d+)`), and up to 60 times, which are few megabytes, for some of the smaller ones. Programs alone are at most 5 times.
const TIMES: usize = 8;
/// What is remembered while a pattern is used, in sizes of its program, and at least, bytes.
const CACHE_TIMES: usize = 2;
const LEAST_CACHE: usize = 16 << 10;
/// Bytes of all patterns, by the machine's memory, and the part of one namespace.
const LEAST: usize = 64 << 20;
const MOST: usize = 512 << 20;
const OF_NAMESPACE: usize = 4;

static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| {
    let room = usize::try_from(memory::of_objects() / 4).unwrap_or(MOST);
    let room = room.clamp(LEAST, MOST);
    Patterns::new(Some(Meter::new("ingress_patterns", room)), room)
});

/// Why there is no such pattern.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is none, or too large for any room.
    #[error("it is no regular expression that can be followed: {0}")]
    Wrong(#[from] regex::Error),
    /// Too many or too large ones are there already.
    #[error("there is no room for it beside the regular expressions of this namespace and of others")]
    NoRoom,
}

/// A compiled pattern.
#[derive(Debug)]
pub struct Pattern {
    regex: Regex,
    beginning: OnceLock<Box<str>>,
    key: Asked,
    /// None once it is let go of.
    room: Option<Share<Arc<str>>>,
    patterns: Patterns,
}

impl Pattern {
    /// How everything begins that it matches at its beginning ([`beginning`]). It is found out once, as requests depend on it.
    pub fn beginning(&self) -> &str {
        self.beginning.get_or_init(|| beginning(self.as_str()).unwrap_or_default().into())
    }
}

impl Deref for Pattern {
    type Target = Regex;

    fn deref(&self) -> &Regex {
        &self.regex
    }
}

/// Whose pattern it is, and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    namespace: Arc<str>,
    /// Letters match in either case.
    any_case: bool,
    text: Arc<str>,
}

/// The patterns that are in use. Cheap to clone.
#[derive(Clone, Debug)]
struct Patterns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Bytes, by namespace.
    room: Shares<Arc<str>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What is there already is not compiled, nor counted, again.
    known: HashMap<Asked, Weak<Pattern>>,
    /// How often something was let go of.
    freed: u64,
}

/// Compiles a pattern of a namespace.
///
/// # Errors
/// It is none, or there is no room for it.
pub fn pattern(namespace: &str, text: &str, any_case: bool) -> Result<Arc<Pattern>, Refused> {
    PATTERNS.get(Asked { namespace: namespace.into(), any_case, text: text.into() })
}

/// The ASCII letters, in lower case, with which everything begins that a pattern matches at its beginning. Nothing is compiled for that.
///
/// # Errors
/// It is none.
pub fn beginning(text: &str) -> Result<String, Box<regex_syntax::ast::Error>> {
    let mut letters = String::new();
    begin(&Parser::new().parse(text)?, &mut letters);
    Ok(letters)
}

/// Adds the letters with which all begins that this matches. Whether these are all of it, so that what follows it continues them.
fn begin(part: &Ast, letters: &mut String) -> bool {
    match part {
        Ast::Empty(_) | Ast::Assertion(_) => true,
        Ast::Literal(literal) if literal.c.is_ascii() => {
            letters.push(literal.c.to_ascii_lowercase());
            true
        }
        Ast::Group(group) => {
            let has_flags = matches!(&group.kind, GroupKind::NonCapturing(flags) if !flags.items.is_empty());
            !has_flags && begin(&group.ast, letters)
        }
        Ast::Concat(parts) => parts.asts.iter().all(|part| begin(part, letters)),
        _ => false,
    }
}

/// The same of a text that is no regular expression: the ASCII letters before the first that means something in one, none where what is beside them
/// may begin otherwise.
pub fn plain_beginning(text: &str) -> String {
    let mut depth = 0_usize;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            // What follows it stands for itself, as does what is in a class.
            '\\' => drop(letters.next()),
            '[' => letters = after_class(letters),
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return String::new(),
            _ => {}
        }
    }
    let is_plain = |letter: &char| letter.is_ascii() && !r"\.+*?()|[]{}^$".contains(*letter);
    let mut letters: String = text.chars().take_while(is_plain).map(|letter| letter.to_ascii_lowercase()).collect();
    // What may be repeated may be absent.
    if text[letters.len()..].starts_with(['*', '?', '{']) {
        letters.pop();
    }
    letters
}

/// What comes after a class that has begun; all of it where that does not end, and so is none.
fn after_class(inside: Chars<'_>) -> Chars<'_> {
    let mut letters = inside.clone();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            ']' => return letters,
            _ => {}
        }
    }
    inside
}

/// Another number after patterns were let go of, so that there may be room.
pub(crate) fn freed() -> u64 {
    PATTERNS.0.state.lock().freed
}

impl Patterns {
    fn new(meter: Option<Meter>, room: usize) -> Self {
        Self(Arc::new(Shared { room: Shares::of(meter, room / OF_NAMESPACE, room), state: Mutex::default() }))
    }

    fn get(&self, key: Asked) -> Result<Arc<Pattern>, Refused> {
        if let Some(known) = self.0.state.lock().known.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        for size in SIZES {
            let bytes = size * TIMES + 2 * key.text.len();
            let room = self.0.room.take_of(&key.namespace, bytes).ok_or(Refused::NoRoom)?;
            let mut builder = RegexBuilder::new(&key.text);
            builder.case_insensitive(key.any_case).size_limit(size).dfa_size_limit((size * CACHE_TIMES).max(LEAST_CACHE));
            match builder.build() {
                Ok(regex) => {
                    let (beginning, patterns) = (OnceLock::new(), self.clone());
                    let pattern = Arc::new(Pattern { regex, beginning, key: key.clone(), room: Some(room), patterns });
                    self.0.state.lock().known.insert(key, Arc::downgrade(&pattern));
                    return Ok(pattern);
                }
                Err(error) => {
                    let is_larger = matches!(error, regex::Error::CompiledTooBig(_)) && Some(&size) != SIZES.last();
                    if !is_larger {
                        return Err(error.into());
                    }
                }
            }
        }
        Err(Refused::NoRoom)
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        // Whoever sees that something was let go of finds its room.
        self.room = None;
        let mut state = self.patterns.0.state.lock();
        state.freed += 1;
        // Since its last user has gone the same one may have been compiled anew.
        if state.known.get(&self.key).is_some_and(|known| known.strong_count() == 0) {
            state.known.remove(&self.key);
        }
    }
}

/// Takes all the room that there is for patterns of a namespace.
#[cfg(test)]
pub(crate) fn fill(namespace: &str) -> Vec<Arc<Pattern>> {
    let of = |text: &'static str| (0..).map_while(move |number| pattern(namespace, &format!("{number}{text}"), false).ok());
    of(r"\w{12}").chain(of("")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asked(namespace: &str, text: &str) -> Asked {
        Asked { namespace: namespace.into(), any_case: true, text: text.into() }
    }

    /// So many of a namespace, each another one, as there is room for.
    fn fill(patterns: &Patterns, namespace: &str, text: &str) -> Vec<Arc<Pattern>> {
        (0..1000).map_while(|number| patterns.get(asked(namespace, &format!("/{number}{text}"))).ok()).collect()
    }

    #[test]
    fn all_patterns_together_are_bounded_and_those_of_a_namespace() {
        let patterns = Patterns::new(None, 4 << 20);
        let own = fill(&patterns, "a", "(/|$)(.*)");
        assert!((16..1000).contains(&own.len()), "{}", own.len());
        assert!(patterns.0.room.taken() <= 1 << 20);
        assert!(matches!(patterns.get(asked("a", "x")), Err(Refused::NoRoom)));
        let others: Vec<_> = ["b", "c", "d", "e"].iter().map(|namespace| fill(&patterns, namespace, "(/|$)(.*)").len()).collect();
        assert_eq!(others, vec![own.len(); 4], "each is let go of again");
        let more: Vec<_> = ["b", "c", "d"].iter().map(|namespace| fill(&patterns, namespace, "")).collect();
        assert!(more.iter().all(|more| !more.is_empty()) && patterns.0.room.taken() <= 4 << 20);
        drop((own, more));
        let state = patterns.0.state.lock();
        assert!(patterns.0.room.is_empty() && state.known.is_empty());
        assert!(state.freed > 0);
    }

    #[test]
    fn what_is_there_is_counted_once() {
        let patterns = Patterns::new(None, 4 << 20);
        let one = patterns.get(asked("a", "/x")).unwrap();
        let taken = patterns.0.room.taken();
        let again = patterns.get(asked("a", "/x")).unwrap();
        assert!(Arc::ptr_eq(&one, &again) && patterns.0.room.taken() == taken);
        let other = patterns.get(asked("b", "/x")).unwrap();
        assert_eq!(patterns.0.room.taken(), 2 * taken, "each namespace has room of its own");
        assert!(one.is_match("/X") && other.is_match("/x"));
    }

    #[test]
    fn large_ones_are_counted_as_what_they_are() {
        let patterns = Patterns::new(None, 256 << 20);
        let check = |text: &str, size: usize| {
            let pattern = patterns.get(asked("a", text)).unwrap();
            assert_eq!(patterns.0.room.taken(), (size << 10) * TIMES + 2 * text.len(), "{text}");
            drop(pattern);
        };
        check("^(?:/api(/|$)(.*))", 4);
        check(r"^(?:/api/v[0-9]+/([^/]+)/files(/|$)(.*))", 4);
        check("^(?:/[A-Za-z0-9_]{3})", 4);
        check("^(?:/[a-z]{60}(.*))", 32);
        check(r"^(?:/\w+/\w+)$", 128);
        check(r"^(?:/\w{3})", 256);
        for wrong in ["/(", r"(\w{100}){1000}"] {
            assert!(matches!(patterns.get(asked("a", wrong)), Err(Refused::Wrong(_))), "{wrong}");
        }
        assert!(patterns.0.room.is_empty());
    }
}
