//! Reads the small part of Go in which Kubernetes declares its API types: type declarations with struct tags, doc
//! comments, string constants, imports, and the maps of field descriptions in `types_swagger_doc_generated.go`.

use std::collections::HashMap;

use anyhow::{Context, Result};

/// One field of a struct. `name` is empty for an embedded field.
#[derive(Debug, Clone, Default)]
pub(crate) struct GoField {
    pub(crate) name: String,
    /// The Go type expression, for instance `[]Container` or `*metav1.Time`.
    pub(crate) ty: String,
    pub(crate) tag: String,
    pub(crate) comments: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum GoKind {
    Struct(Vec<GoField>),
    /// `type A B` and `type A = B`.
    Named(String),
}

#[derive(Debug, Clone)]
pub(crate) struct GoType {
    pub(crate) name: String,
    pub(crate) comments: Vec<String>,
    pub(crate) kind: GoKind,
}

/// A typed string constant: `PullAlways PullPolicy = "Always"`.
#[derive(Debug, Clone)]
pub(crate) struct GoConst {
    pub(crate) name: String,
    pub(crate) ty: String,
    pub(crate) value: String,
    pub(crate) comments: Vec<String>,
}

/// Everything of interest in the files of one package.
#[derive(Debug, Default)]
pub(crate) struct GoPackage {
    /// Alias to import path.
    pub(crate) imports: HashMap<String, String>,
    pub(crate) types: Vec<GoType>,
    pub(crate) consts: Vec<GoConst>,
    /// Type name to (field name to description); the type's own is under the empty name.
    pub(crate) docs: HashMap<String, HashMap<String, String>>,
    pub(crate) group: String,
}

impl GoPackage {
    /// Adds the declarations of one source file.
    pub(crate) fn read(&mut self, text: &str) -> Result<()> {
        let mut lines = text.lines();
        let (mut block, mut previous) = (Vec::new(), Vec::new());
        while let Some(line) = lines.next() {
            let trimmed = line.trim();
            if let Some(comment) = trimmed.strip_prefix("//") {
                block.push(comment.strip_prefix(' ').unwrap_or(comment).to_owned());
                continue;
            }
            if trimmed.is_empty() {
                previous = std::mem::take(&mut block);
                continue;
            }
            let comments = || previous.iter().filter(|line| line.starts_with('+')).chain(&block).cloned().collect();
            if trimmed == "import (" {
                self.read_imports(&mut lines);
            } else if trimmed == "const (" {
                self.read_consts(&mut lines);
            } else if let Some(rest) = line.strip_prefix("const GroupName = ") {
                self.group = unquote(rest).unwrap_or_default();
            } else if let Some(rest) = line.strip_prefix("const ") {
                self.read_const(rest, &block);
            } else if let Some(rest) = line.strip_prefix("var map_") {
                self.read_docs(rest, &mut lines)?;
            } else if let Some(rest) = line.strip_prefix("type ") {
                let ty = read_type(rest, comments(), &mut lines)?;
                self.types.push(ty);
            }
            block.clear();
            previous.clear();
        }
        Ok(())
    }

    fn read_imports<'a>(&mut self, lines: &mut impl Iterator<Item = &'a str>) {
        for line in lines.map(str::trim).take_while(|line| *line != ")") {
            let (alias, path) = line.split_once('"').unwrap_or(("", ""));
            let path = path.trim_end_matches('"');
            let alias = match alias.trim() {
                "" => path.rsplit('/').next().unwrap_or_default(),
                alias => alias,
            };
            self.imports.insert(alias.to_owned(), path.to_owned());
        }
    }

    fn read_consts<'a>(&mut self, lines: &mut impl Iterator<Item = &'a str>) {
        let mut block = Vec::new();
        for line in lines.map(str::trim).take_while(|line| *line != ")") {
            match line.strip_prefix("//") {
                Some(comment) => block.push(comment.trim().to_owned()),
                None => {
                    self.read_const(line, &block);
                    block.clear();
                }
            }
        }
    }

    fn read_const(&mut self, line: &str, comments: &[String]) {
        let Some((left, right)) = line.split_once('=') else { return };
        let mut words = left.split_whitespace();
        if let (Some(name), Some(ty), Some(value)) = (words.next(), words.next(), unquote(right.trim())) {
            self.consts.push(GoConst { name: name.to_owned(), ty: ty.to_owned(), value, comments: comments.to_vec() });
        }
    }

    fn read_docs<'a>(&mut self, head: &str, lines: &mut impl Iterator<Item = &'a str>) -> Result<()> {
        let name = head.split(' ').next().unwrap_or_default().to_owned();
        let docs = self.docs.entry(name).or_default();
        for line in lines.map(str::trim).take_while(|line| *line != "}") {
            let (key, value) = line.split_once(':').with_context(|| format!("not a description: {line}"))?;
            let text = unquote(value.trim().trim_end_matches(',')).with_context(|| format!("not a string: {line}"))?;
            docs.insert(key.trim_matches('"').to_owned(), text);
        }
        Ok(())
    }
}

/// Reads a declaration after the word `type`.
fn read_type<'a>(head: &str, comments: Vec<String>, lines: &mut impl Iterator<Item = &'a str>) -> Result<GoType> {
    let (name, rest) = head.split_once(' ').with_context(|| format!("not a type: {head}"))?;
    let rest = rest.trim();
    let kind = match rest {
        "struct {" => GoKind::Struct(read_fields(lines)),
        "struct{}" | "struct {}" => GoKind::Struct(Vec::new()),
        _ => {
            if rest.ends_with('{') {
                lines.take_while(|line| *line != "}").for_each(drop);
            }
            let named = rest.strip_prefix("= ").unwrap_or(rest);
            GoKind::Named(named.split("//").next().unwrap_or_default().trim().to_owned())
        }
    };
    Ok(GoType { name: name.to_owned(), comments, kind })
}

fn read_fields<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Vec<GoField> {
    let (mut fields, mut block) = (Vec::new(), Vec::new());
    for line in lines.take_while(|line| *line != "}").map(str::trim) {
        if let Some(comment) = line.strip_prefix("//") {
            block.push(comment.strip_prefix(' ').unwrap_or(comment).to_owned());
        } else if line.is_empty() {
            block.clear();
        } else {
            fields.push(read_field(line, std::mem::take(&mut block)));
        }
    }
    fields
}

fn read_field(line: &str, comments: Vec<String>) -> GoField {
    let mut parts = line.split('`');
    let (left, tag) = (parts.next().unwrap_or_default().trim(), parts.next().unwrap_or_default());
    let left = left.split("//").next().unwrap_or_default().trim();
    let (name, ty) = match left.split_once(char::is_whitespace) {
        Some((name, ty)) => (name, ty.trim()),
        None => ("", left),
    };
    GoField { name: name.to_owned(), ty: ty.to_owned(), tag: tag.to_owned(), comments }
}

/// The value of a struct tag: `json`, `protobuf`, `patchStrategy`, `patchMergeKey`.
pub(crate) fn struct_tag<'a>(tag: &'a str, key: &str) -> Option<&'a str> {
    let start = tag.find(&format!("{key}:\""))? + key.len() + 2;
    tag[start..].split('"').next()
}

/// The values of a comment marker: `marker(comments, "listType")` for `// +listType=map`.
pub(crate) fn markers<'a>(comments: &'a [String], key: &'a str) -> impl Iterator<Item = &'a str> {
    comments.iter().filter_map(move |line| {
        let rest = line.trim().strip_prefix('+')?.strip_prefix(key)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value.trim()),
            None => rest.is_empty().then_some(""),
        }
    })
}

/// The contents of a Go string literal, interpreted or raw.
fn unquote(literal: &str) -> Option<String> {
    if let Some(raw) = literal.strip_prefix('`') {
        return raw.split('`').next().map(str::to_owned);
    }
    let mut out = String::new();
    let mut chars = literal.strip_prefix('"')?.chars();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => out.push(match chars.next()? {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_a_struct_with_markers_and_tags() {
        let mut package = GoPackage::default();
        package
            .read("// +structType=atomic\n\n// Doc.\ntype A struct {\n\tB `json:\",inline\"`\n\t// x\n\t// +optional\n\tC []string `json:\"c,omitempty\" protobuf:\"bytes,2,rep\"` // t\n}\n\ntype D = string\n")
            .unwrap();
        let a = &package.types[0];
        assert_eq!(markers(&a.comments, "structType").collect::<Vec<_>>(), ["atomic"]);
        let GoKind::Struct(fields) = &a.kind else { panic!("not a struct") };
        assert_eq!((fields[0].name.as_str(), fields[0].ty.as_str()), ("", "B"));
        assert_eq!((fields[1].ty.as_str(), struct_tag(&fields[1].tag, "protobuf")), ("[]string", Some("bytes,2,rep")));
        assert_eq!(markers(&fields[1].comments, "optional").count(), 1);
        assert!(matches!(&package.types[1].kind, GoKind::Named(name) if name == "string"));
    }

    #[test]
    fn reads_constants_and_descriptions() {
        let mut package = GoPackage::default();
        package
            .read("const (\n\t// Doc.\n\tX T = \"x\"\n)\nvar map_T = map[string]string{\n\t\"\": \"a \\\"b\\\"\",\n}\n")
            .unwrap();
        assert_eq!((package.consts[0].ty.as_str(), package.consts[0].value.as_str()), ("T", "x"));
        assert_eq!(package.docs["T"][""], "a \"b\"");
    }
}
