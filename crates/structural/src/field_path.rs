//! The `fieldPath` of a rule: where in the object what it says is told (upstream: `schema/cel`, `ValidFieldPath`).

/// A part of a schema, as paths are followed through it.
pub trait Declares: Copy {
    /// Whether it declares fields by their names.
    fn has_fields(self) -> bool;
    /// The part that a field of that name has.
    fn field(self, name: &str) -> Option<Self>;
    /// Whether it declares fields of any name.
    fn has_entries(self) -> bool;
    /// The part that they have, where something is said of them.
    fn entry(self) -> Option<Self>;
}

/// The path as errors have it, `a.b[key]`; none where it leads to no field that is declared.
pub fn field_path<P: Declares>(schema: P, path: &str) -> Option<String> {
    let (mut at, mut out, mut rest) = (Some(schema), String::new(), path);
    while let Some((delimiter, after)) = token(rest) {
        let (name, after) = match delimiter {
            "." => token(after).map(|(name, after)| (name.to_owned(), after))?,
            "[" => {
                let (quoted, after) = token(after)?;
                (unquoted(quoted)?, after.strip_prefix(']')?)
            }
            _ => return None,
        };
        let part = at?;
        if part.has_fields() {
            at = Some(part.field(&name)?);
            let dot = if out.is_empty() { "" } else { "." };
            out.push_str(&format!("{dot}{name}"));
        } else if part.has_entries() {
            at = part.entry();
            out.push_str(&format!("[{name}]"));
        } else {
            return None;
        }
        rest = after;
    }
    Some(out)
}

/// The next delimiter, quoted text or name, and what follows it.
fn token(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let end = match bytes.first()? {
        b'.' | b'[' | b']' => 1,
        b'\'' => (1..bytes.len()).find(|at| bytes[*at] == b'\'' && bytes[at - 1] != b'\\').map_or(bytes.len(), |at| at + 1),
        _ => bytes.iter().position(|byte| b".[]".contains(byte)).unwrap_or(bytes.len()),
    };
    Some(text.split_at(end))
}

/// What stands between quotes, without escapes.
fn unquoted(text: &str) -> Option<String> {
    let mut chars = text.strip_prefix('\'')?.strip_suffix('\'')?.chars();
    let mut out = String::new();
    while let Some(one) = chars.next() {
        out.push(match one {
            '\\' => match chars.next()? {
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\x0b',
                same @ ('\'' | '\\') => same,
                _ => return None,
            },
            one => one,
        });
    }
    Some(out)
}
