//! Writes the descriptions of types and fields, and the values of enumerations, which only OpenAPI documents need.

use std::fmt::Write;

use anyhow::Result;

use super::go::{GoConst, markers};
use super::packages::Source;
use super::table::{Row, Type};

/// The stream's text: `@TYPE\tDESCRIPTION`, then `FIELD\tDESCRIPTION\tVALUE...` for each field that has any.
pub(crate) fn write(source: &Source, types: &[Type]) -> Result<String> {
    let mut out = String::new();
    for ty in types {
        let docs = &source.package(&ty.dir)?.docs;
        let comments = source.find(&ty.dir, &ty.go).map_or(&[][..], |ty| &ty.comments);
        let description = docs.get(&ty.go).and_then(|docs| docs.get("")).cloned().unwrap_or_else(|| paragraphs(comments));
        writeln!(out, "@{}\t{}", ty.name, escape(&description))?;
        for row in &ty.rows {
            let owner = source.package(&row.owner.0)?.docs.get(&row.owner.1);
            let mut text = owner.and_then(|docs| docs.get(&row.json)).cloned().unwrap_or_else(|| paragraphs(&row.comments));
            let values = enumeration(source, row)?;
            if !values.is_empty() {
                let mut lines: Vec<_> = values.iter().map(|value| line(value)).collect();
                lines.sort();
                write!(text, "\n\nPossible enum values:\n{}", lines.join("\n"))?;
            }
            let mut names: Vec<_> = values.iter().map(|value| value.value.as_str()).collect();
            names.sort_unstable();
            write!(out, "{}\t{}", row.json, escape(&text))?;
            names.iter().try_for_each(|name| write!(out, "\t{name}"))?;
            out.push('\n');
        }
    }
    Ok(out)
}

/// The constants of a field's type if that is marked `+enum`.
fn enumeration<'a>(source: &'a Source, row: &Row) -> Result<Vec<&'a GoConst>> {
    let Some((dir, name)) = row.named.as_ref().filter(|_| row.ty == "string") else { return Ok(Vec::new()) };
    let marked = source.find(dir, name).is_some_and(|ty| markers(&ty.comments, "enum").next().is_some());
    if !marked {
        return Ok(Vec::new());
    }
    let mut values: Vec<&GoConst> = source.package(dir)?.consts.iter().filter(|value| value.ty == *name).collect();
    values.sort_by(|a, b| a.value.cmp(&b.value));
    values.dedup_by(|a, b| a.value == b.value);
    Ok(values)
}

/// ` - "Always" means ...`: the comment of a constant without its own name at the start.
fn line(value: &GoConst) -> String {
    let comment = value.comments.iter().filter(|line| !line.starts_with('+')).cloned().collect::<Vec<_>>().join(" ");
    let comment = comment.trim().trim_start_matches(&value.name).split_whitespace().collect::<Vec<_>>().join(" ");
    format!(" - `\"{}\"` {comment}", value.value).trim_end().to_owned()
}

/// A comment as running text, for packages without generated descriptions: markers, notes to developers and what follows `---` are
/// left out, blank lines separate paragraphs.
fn paragraphs(comments: &[String]) -> String {
    let lines = comments.iter().map(|line| line.trim()).take_while(|line| *line != "---");
    let mut out = String::new();
    for line in lines.filter(|line| !line.starts_with('+') && !line.starts_with("TODO")) {
        match line {
            "" => out.push_str("\n\n"),
            line if out.is_empty() || out.ends_with('\n') => out.push_str(line),
            line if line.starts_with("- ") => out.extend(["\n", line]),
            line => out.extend([" ", line]),
        }
    }
    out.trim().to_owned()
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t")
}
