//! YAML documents, as people and generators write them, and nastier.

use crate::dice::Dice;

const SCALARS: &[&str] = &[
    "a",
    "b c",
    "yes",
    "No",
    "on",
    "OFF",
    "y",
    "n",
    "true",
    "False",
    "~",
    "null",
    "NULL",
    "",
    "0",
    "-0",
    "+1",
    "10",
    "010",
    "0o17",
    "0O17",
    "08",
    "-010",
    "0x1F",
    "0X1f",
    "-0x1",
    "0b101",
    "-0b11",
    "0b2",
    "0b-1",
    "0b+1",
    "1_000",
    "_1",
    "1__0_",
    "0_7",
    "0x_1F",
    "10.0",
    "1.",
    ".5",
    "-.5",
    "+.5",
    ".5_0",
    "1e3",
    "1E+3",
    "1e-7",
    "1e20",
    "1e21",
    "1.5e300",
    "1e400",
    "-1e400",
    "1e",
    "e3",
    ".",
    "-",
    "+",
    "..",
    "...",
    "--1",
    "1.2.3",
    "100m",
    "1Gi",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "+9223372036854775808",
    "0xFFFFFFFFFFFFFFFF",
    "0xFFFFFFFFFFFFFFFFF",
    "123456789012345678901234567890",
    "0.1",
    "16777217.0",
    "1e6",
    "1e5",
    "123456.0",
    "1234567.0",
    "0.0001",
    "0.00001",
    ".inf",
    "-.INF",
    "+.Inf",
    ".nan",
    ".NaN",
    "2026-01-01",
    "2026-1-2T3:4:5Z",
    "2026-01-01 03:04:05",
    "1:30",
    "12:30:45",
    "190:20:30.15",
    "<<",
    "=",
    "a#b",
    "a:b",
    "http://x/y?z=1",
    "x@y",
    "%a",
    "\u{e9}\u{4e16}",
    "a-b",
    "-a",
    "?a",
    ":a",
    "a,b",
    "a]b",
    "@a",
    "`a",
    "!a",
    "&a",
    "*a",
    "{{ .Values.x }}",
    "a: b",
    "a #b",
    "'",
    "\"",
    "\\n",
    "\t",
    "| ",
    "> ",
];
const TAGS: &[&str] = &[
    "!!str ",
    "!!int ",
    "!!float ",
    "!!bool ",
    "!!null ",
    "!!binary ",
    "!!timestamp ",
    "!foo ",
    "!!set ",
    "! ",
    "!!merge ",
    "!<tag:yaml.org,2002:str> ",
];
const QUOTED: &[&str] = &[
    "'a'",
    "'it''s'",
    "\"a\\nb\"",
    "\"\\x41\\u00e9\\U0001F600\"",
    "\"a\\\n  b\"",
    "'yes'",
    "\"010\"",
    "''",
    "\"\"",
    "\"\\/\"",
    "\"\\e\\0\\_\\N\\L\\P\"",
    "'<<'",
    "\"a\n\n  b\"",
    "'a\n  b'",
    "\"\\q\"",
    "\"\\ud83d\\ude00\"",
    "\"a",
    "'a",
];
const BINARY: &[&str] = &["aGk=", "aG", "aGk", "\"aG\\nk=\"", "/w=="];
const EDGES: &[&str] = &[
    "%YAML 1.1\n---\n",
    "%YAML 1.2\n---\n",
    "%TAG ! tag:x,2000:\n---\n",
    "%FOO bar\n---\n",
    "---\n",
    "--- ",
    "--- # c\n",
    "# c\n",
    "\n\n",
    "\u{feff}",
    "...\n",
    "---\n---\n",
];
const ENDS: &[&str] =
    &["...\n", "---\n", "---\nb: 2\n", "...\n]\n", "# end", "\n\n", "--- |\n x\n", "...\n---\n...\n", "\t\n", "  "];

/// A document or several.
pub fn document(dice: &mut Dice) -> String {
    let mut writer = Writer { dice, anchors: 0 };
    let mut text = String::new();
    if writer.dice.chance(20) {
        text.push_str(writer.dice.word(EDGES));
    }
    writer.block(&mut text, 0, 0);
    if writer.dice.chance(15) {
        text.push_str(writer.dice.word(ENDS));
    }
    if writer.dice.chance(10) {
        spoil(writer.dice, &mut text);
    }
    text
}

/// Changes one character, or takes it away.
fn spoil(dice: &mut Dice, text: &mut String) {
    let mut characters: Vec<char> = text.chars().collect();
    if characters.is_empty() {
        return;
    }
    let at = dice.below(characters.len());
    match dice.below(3) {
        0 => drop(characters.remove(at)),
        1 => {
            characters[at] = *dice.pick(&[
                ' ', '\n', ':', '-', ',', '"', '\'', '#', '\t', '\u{85}', '\u{2028}', '\u{1}', '{', ']', '&', '*', '!', '|', '%',
                '?',
            ])
        }
        _ => characters.insert(at, *dice.pick(&[' ', '\n', '\r', ':', '-', ','])),
    }
    *text = characters.into_iter().collect();
}

struct Writer<'a> {
    dice: &'a mut Dice,
    anchors: usize,
}

impl Writer<'_> {
    /// A node in block style, which begins on a line of its own.
    fn block(&mut self, out: &mut String, indent: usize, depth: usize) {
        match if depth > 3 { 2 } else { self.dice.below(5) } {
            0 | 1 => self.mapping(out, indent, depth),
            2 if depth > 0 => {
                out.push_str(&" ".repeat(indent));
                self.inline(out, depth);
                out.push('\n');
            }
            2 | 3 => self.sequence(out, indent, depth),
            _ => self.mapping(out, indent, depth),
        }
    }

    fn mapping(&mut self, out: &mut String, indent: usize, depth: usize) {
        for _ in 0..=self.dice.below(4) {
            out.push_str(&" ".repeat(indent));
            if self.dice.chance(4) {
                out.push_str("? ");
                self.key(out);
                out.push('\n');
                out.push_str(&" ".repeat(indent));
            } else {
                self.key(out);
            }
            out.push(':');
            self.below(out, indent, depth, true);
        }
    }

    fn sequence(&mut self, out: &mut String, indent: usize, depth: usize) {
        for _ in 0..=self.dice.below(3) {
            out.push_str(&" ".repeat(indent));
            out.push('-');
            self.below(out, indent, depth, false);
        }
    }

    /// What follows `key:` or `-`.
    fn below(&mut self, out: &mut String, indent: usize, depth: usize, of_mapping: bool) {
        match self.dice.below(10) {
            0..=4 => {
                out.push(' ');
                self.inline(out, depth + 1);
                self.comment(out);
                out.push('\n');
            }
            5 => self.literal(out, indent),
            6 => out.push('\n'),
            _ => {
                self.properties(out);
                self.comment(out);
                out.push('\n');
                let compact = of_mapping && self.dice.chance(20);
                if compact {
                    self.sequence(out, indent, depth + 1)
                } else {
                    let deeper = indent + 1 + self.dice.below(3);
                    self.block(out, deeper, depth + 1)
                }
            }
        }
    }

    fn comment(&mut self, out: &mut String) {
        if self.dice.chance(10) {
            out.push_str(self.dice.word(&[" # c", " #", "#c", "\t# c"]));
        }
    }

    fn literal(&mut self, out: &mut String, indent: usize) {
        let head = ["|", ">", "|-", ">-", "|+", ">+", "|2", ">1-", "| # c", "|-2"];
        out.push_str(&format!(" {}\n", self.dice.pick(&head)));
        for _ in 0..self.dice.below(4) {
            let extra = self.dice.below(3);
            let line = self.dice.pick(&["a", "b c", "", "# no comment", "- x", "\ta", "k: v", "\"q"]);
            out.push_str(&format!("{}{line}\n", " ".repeat(indent + 2 + extra)));
        }
    }

    fn key(&mut self, out: &mut String) {
        match self.dice.below(20) {
            0 => out.push_str("<<"),
            1 => self.properties(out),
            2..=4 => out.push_str(self.dice.word(SCALARS)),
            5 => out.push_str(self.dice.word(QUOTED)),
            6 if self.anchors > 0 => out.push_str(&format!("*a{} ", self.dice.below(self.anchors))),
            _ => out.push_str(self.dice.word(&["a", "b", "c", "d", "e f", "g.h/i"])),
        }
    }

    fn properties(&mut self, out: &mut String) {
        if self.dice.chance(15) {
            out.push_str(&format!(" &a{}", self.anchors));
            self.anchors += 1;
        }
    }

    /// A node on the line that has begun.
    fn inline(&mut self, out: &mut String, depth: usize) {
        if self.dice.chance(6) {
            out.push_str(&format!("&a{} ", self.anchors));
            self.anchors += 1;
        }
        match self.dice.below(20) {
            0 if self.anchors > 0 => out.push_str(&format!("*a{}", self.dice.below(self.anchors))),
            1 => {
                let tag = *self.dice.pick(TAGS);
                out.push_str(tag);
                let scalars = if tag.starts_with("!!binary") { BINARY } else { SCALARS };
                out.push_str(self.dice.word(scalars));
            }
            2 | 3 => out.push_str(self.dice.word(QUOTED)),
            4 | 5 if depth < 5 => self.flow_sequence(out, depth),
            6 | 7 if depth < 5 => self.flow_mapping(out, depth),
            8 => {
                let glue = *self.dice.pick(&[" ", "\n  ", "\n         "]);
                out.push_str(&format!("{}{glue}{}", self.dice.word(SCALARS), self.dice.word(SCALARS)));
            }
            _ => out.push_str(self.dice.word(SCALARS)),
        }
    }

    fn flow_sequence(&mut self, out: &mut String, depth: usize) {
        out.push('[');
        for at in 0..self.dice.below(4) {
            if at > 0 {
                out.push_str(self.dice.word(&[", ", ",", " , ", ",\n   "]));
            }
            self.inline(out, depth + 1);
        }
        out.push_str(self.dice.word(&["]", "]", "]", " ]", ",]"]));
    }

    fn flow_mapping(&mut self, out: &mut String, depth: usize) {
        out.push('{');
        for at in 0..self.dice.below(4) {
            if at > 0 {
                out.push_str(self.dice.word(&[", ", ",", ",\n   "]));
            }
            self.key(out);
            if !self.dice.chance(8) {
                out.push_str(self.dice.word(&[": ", ": ", ": ", ":", " : "]));
                self.inline(out, depth + 1);
            }
        }
        out.push_str(self.dice.word(&["}", "}", "}", " }", ",}"]));
    }
}
