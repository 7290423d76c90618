//! Regular expressions in the syntax of RE2, as Go's `regexp` reads it: rules in CEL, and patterns in schemas.
//!
//! The engine at hand is of the same family, but takes more, and reads some things otherwise. So an expression is read here by RE2's
//! grammar (github.com/google/re2/wiki/Syntax, and Go's `regexp/syntax` for what it refuses), and written for the engine.

mod class;
mod error;
mod escape;
#[cfg(test)]
mod tests;

use regex::{Regex, RegexBuilder};

pub use error::Error;
use error::Why;

/// Memory of one compiled expression, in bytes.
const MAX_SIZE: usize = 2 << 20;
/// The largest count of a repetition, and of repetitions in each other.
const MAX_REPEAT: u32 = 1000;

/// Compiles an expression.
pub fn compile(source: &str) -> Result<Regex, Error> {
    let written = translate(source)?;
    let whole = |why| Error::new(why, source);
    RegexBuilder::new(&written).size_limit(MAX_SIZE).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => whole(Why::TooLarge),
        // All else has been read already, but for what is nested more deeply than the engine goes.
        _ => whole(Why::TooDeep),
    })
}

/// The same expression as the engine writes it.
fn translate(source: &str) -> Result<String, Error> {
    let mut reader = Reader {
        source,
        rest: source,
        out: String::with_capacity(source.len() + 8),
        flags: String::new(),
        open: Vec::new(),
        last: Last::Nothing,
        most: 1,
    };
    while let Some(c) = reader.rest.chars().next() {
        reader.item(c)?;
    }
    match reader.open.is_empty() {
        true => Ok(reader.out),
        false => Err(Error::new(Why::MissingParenthesis, source)),
    }
}

/// What stands before a repetition.
#[derive(Clone, Copy)]
enum Last<'s> {
    /// The beginning of an alternative.
    Nothing,
    /// Something to repeat, and how often its parts are repeated by counts.
    Item(u32),
    /// A repetition, which must not be repeated itself, and the same number.
    Repetition(&'s str, u32),
    /// A repetition that something without a length parts from what follows, so that it can be repeated after all.
    Parted(u32),
}

struct Reader<'s> {
    source: &'s str,
    rest: &'s str,
    out: String,
    /// Flags that are not written yet: a repetition behind them is one of what stands before them.
    flags: String,
    /// For each open group, the largest count of what stood before it in the group around.
    open: Vec<u32>,
    last: Last<'s>,
    /// The largest count in the group so far.
    most: u32,
}

impl<'s> Reader<'s> {
    fn item(&mut self, c: char) -> Result<(), Error> {
        let before = self.rest;
        let counts = if c == '{' { repeat(&before[1..]) } else { None };
        if counts.is_none() && !matches!(c, '*' | '+' | '?') {
            self.out.push_str(&std::mem::take(&mut self.flags));
        }
        match c {
            '(' => return self.group(),
            ')' => {
                let Some(most) = self.open.pop() else { return Err(Error::new(Why::UnexpectedParenthesis, self.source)) };
                let own = std::mem::replace(&mut self.most, most);
                self.take(1);
                self.item_of(own);
            }
            '|' => {
                self.take(1);
                self.last = Last::Nothing;
            }
            // A question mark right behind a repetition would make it a lazy one.
            '?' if matches!(self.last, Last::Parted(_)) => {
                self.write("{0,1}", &before[1..]);
                return self.repetition(before, 1);
            }
            '*' | '+' | '?' => {
                self.take(1);
                return self.repetition(before, 1);
            }
            '{' => match counts {
                Some((counts, rest)) => {
                    let text = &before[..before.len() - rest.len()];
                    let (least, most) = counts.ok_or_else(|| Error::new(Why::RepeatCount, text))?;
                    self.take(text.len());
                    return self.repetition(before, most.unwrap_or(least).max(1));
                }
                None => {
                    self.rest = &before[1..];
                    self.literal(c);
                }
            },
            '[' => {
                self.rest = class::class(before, &mut self.out)?;
                self.item_of(1);
            }
            '\\' => return self.escape(),
            '^' | '$' | '.' => {
                self.take(1);
                self.item_of(1);
            }
            _ => {
                self.rest = &before[c.len_utf8()..];
                self.literal(c);
            }
        }
        Ok(())
    }

    /// Writes the next bytes as they are.
    fn take(&mut self, bytes: usize) {
        let (text, rest) = self.rest.split_at(bytes);
        self.out.push_str(text);
        self.rest = rest;
    }

    fn item_of(&mut self, repeated: u32) {
        self.last = Last::Item(repeated);
        self.most = self.most.max(repeated);
    }

    fn literal(&mut self, c: char) {
        escape::literal(c, &mut self.out);
        self.item_of(1);
    }

    /// A repetition that began at `before` and has been written; `count` is how often it repeats at least, or at most.
    fn repetition(&mut self, before: &'s str, count: u32) -> Result<(), Error> {
        if self.rest.starts_with('?') {
            self.take(1);
        }
        let text = &before[..before.len() - self.rest.len()];
        match self.last {
            Last::Nothing => Err(Error::new(Why::MissingArgument, text)),
            Last::Repetition(first, _) => Err(Error::new(Why::NestedRepetition, &format!("{first}{text}"))),
            Last::Item(repeated) | Last::Parted(repeated) => {
                let repeated = repeated.saturating_mul(count);
                if repeated > MAX_REPEAT {
                    return Err(Error::new(Why::RepeatCount, text));
                }
                self.most = self.most.max(repeated);
                self.last = Last::Repetition(text, repeated);
                Ok(())
            }
        }
    }

    /// What stands here has no length: it parts a repetition from what follows.
    fn part(&mut self) {
        if let Last::Repetition(_, repeated) = self.last {
            self.last = Last::Parted(repeated);
        }
    }

    /// A group, or flags for the rest of this one.
    fn group(&mut self) -> Result<(), Error> {
        let Some(inside) = self.rest.strip_prefix("(?") else {
            self.take(1);
            self.begin();
            return Ok(());
        };
        if let Some(named) = inside.strip_prefix("P<").or(inside.strip_prefix('<')) {
            let wrong = |text: &str| Error::new(Why::NamedCapture, text);
            let (name, rest) = named.split_once('>').ok_or_else(|| wrong(self.rest))?;
            let text = &self.rest[..self.rest.len() - rest.len()];
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !is_name {
                return Err(wrong(text));
            }
            // Nobody asks for a group by its name, and the engine has other rules for names.
            self.out.push('(');
            self.rest = rest;
            self.begin();
            return Ok(());
        }
        self.set_flags(inside)
    }

    fn begin(&mut self) {
        self.open.push(std::mem::replace(&mut self.most, 1));
        self.last = Last::Nothing;
    }

    /// Flags, behind `(?`.
    fn set_flags(&mut self, inside: &'s str) -> Result<(), Error> {
        let (mut on, mut off, mut negative, mut seen) = (String::new(), String::new(), false, false);
        for (at, c) in inside.char_indices() {
            let refused = || Error::new(Why::PerlSyntax, &self.rest[..2 + at + c.len_utf8()]);
            match c {
                'i' | 'm' | 's' | 'U' => {
                    let flags = if negative { &mut off } else { &mut on };
                    seen = true;
                    if !flags.contains(c) {
                        flags.push(c);
                    }
                }
                '-' if !negative => (negative, seen) = (true, false),
                ':' | ')' if !negative || seen => {
                    on.retain(|flag| !off.contains(flag));
                    let minus = if off.is_empty() { "" } else { "-" };
                    if c == ':' || !(on.is_empty() && off.is_empty()) {
                        self.flags = format!("(?{on}{minus}{off}{c}");
                    }
                    self.rest = &inside[at + 1..];
                    if c == ':' {
                        self.out.push_str(&std::mem::take(&mut self.flags));
                        self.begin();
                    } else {
                        self.part();
                    }
                    return Ok(());
                }
                _ => return Err(refused()),
            }
        }
        Err(Error::new(Why::PerlSyntax, self.rest))
    }

    /// What stands behind a backslash, outside of classes.
    fn escape(&mut self) -> Result<(), Error> {
        let after = &self.rest[1..];
        match after.chars().next() {
            Some('A' | 'z') => self.take(2),
            // Words are those of ASCII. The engine has no such way to say that a word goes on.
            Some('b') => self.write("(?-u:\\b)", &after[1..]),
            Some('B') => self.write("\\B", &after[1..]),
            Some('Q') => {
                let (text, rest) = after[1..].split_once("\\E").unwrap_or((&after[1..], ""));
                self.rest = rest;
                self.part();
                text.chars().for_each(|c| self.literal(c));
                return Ok(());
            }
            _ => self.rest = escape::outside(self.rest, &mut self.out)?,
        }
        self.item_of(1);
        Ok(())
    }

    fn write(&mut self, text: &str, rest: &'s str) {
        self.out.push_str(text);
        self.rest = rest;
    }
}

/// Counts of a repetition behind its `{`, and what is left: None where it is none and the brace means itself, no counts where they are too
/// large or the wrong way round.
type Counts = Option<(u32, Option<u32>)>;

fn repeat(after: &str) -> Option<(Counts, &str)> {
    let (inner, rest) = after.split_once('}')?;
    let (low, high) = inner.split_once(',').map_or((inner, None), |(low, high)| (low, Some(high)));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    let open = high.is_some_and(str::is_empty);
    let wrong = low.is_empty() || !is_number(low) || high.is_some_and(|high| !open && !is_number(high));
    if wrong {
        return None;
    }
    let number = |text: &str| text.parse().ok().filter(|number| *number <= MAX_REPEAT);
    let least = number(low);
    let most = match high {
        Some(_) if open => Some(None),
        Some(high) => number(high).map(Some),
        None => least.map(Some),
    };
    let counts = least.zip(most).filter(|(least, most)| most.is_none_or(|most| most >= *least));
    Some((counts, rest))
}
