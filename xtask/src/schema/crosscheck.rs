//! Compares the table with the merge schema that upstream generated for server-side apply
//! (`client-go/applyconfigurations/internal/internal.go`): list kinds, keys and atomic structs and maps must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::table::Type;

/// `TYPE FIELD` (or only `TYPE` for the struct itself) to `atomic`, `set` or `map=KEYS`.
type Facts = BTreeMap<String, String>;

/// Fails when a list, a map or a struct merges differently there.
pub(crate) fn check(root: &Path, types: &[Type]) -> Result<()> {
    let path = root.join("client-go/applyconfigurations/internal/internal.go");
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    let (upstream, ours) = (upstream(&text), ours(types));
    let known = |name: &&String| {
        let ty = name.split(' ').next().unwrap_or_default();
        types.iter().any(|candidate| candidate.name == ty) && text.contains(&format!("\n- name: {ty}\n"))
    };
    let names: BTreeSet<_> = upstream.keys().chain(ours.keys()).filter(known).collect();
    for name in &names {
        let fact = |facts: &Facts| facts.get(*name).cloned().unwrap_or_default();
        let (theirs, ours) = (fact(&upstream), fact(&ours));
        ensure!(ours == theirs, "{name} merges as {theirs:?} upstream, as {ours:?} in the table");
    }
    ensure!(names.len() > 250, "only {} facts were compared: has the format of {} changed?", names.len(), path.display());
    Ok(())
}

/// Reads the YAML by indentation: its shape is fixed.
fn upstream(text: &str) -> Facts {
    let mut facts = Facts::new();
    let (mut ty, mut field, mut keys) = (String::new(), String::new(), Vec::new());
    let mut in_list = false;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let item = line.trim();
        if let (0, Some(name)) = (indent, item.strip_prefix("- name: ")) {
            (ty, field) = (name.to_owned(), String::new());
        } else if let (4, Some(name)) = (indent, item.strip_prefix("- name: ")) {
            (field, in_list) = (format!(" {name}"), false);
            keys.clear();
        } else if indent == 8 && item == "list:" {
            in_list = true;
        } else if let (4 | 10, Some(relationship)) = (indent, item.strip_prefix("elementRelationship: ")) {
            let name = if indent == 4 { ty.clone() } else { format!("{ty}{field}") };
            facts.insert(name, relationship.to_owned());
        } else if let (true, 10, Some(key)) = (in_list, indent, item.strip_prefix("- ")) {
            keys.push(key.to_owned());
            facts.insert(format!("{ty}{field}"), format!("map={}", keys.join(",")));
        }
    }
    for value in facts.values_mut() {
        match value.as_str() {
            "associative" => "set".clone_into(value),
            // What a map or a struct is without any marker.
            "separable" => value.clear(),
            _ => {}
        }
    }
    facts
}

fn ours(types: &[Type]) -> Facts {
    let mut facts = Facts::new();
    for ty in types {
        if ty.atomic {
            facts.insert(ty.name.clone(), "atomic".to_owned());
        }
        for row in &ty.rows {
            let atomic = row.flags.iter().any(|flag| flag == "atomic");
            let fact = match row.list.as_str() {
                "" if atomic || row.ty.starts_with("[]") => "atomic",
                "" => continue,
                list => list,
            };
            facts.insert(format!("{} {}", ty.name, row.json), fact.to_owned());
        }
    }
    facts
}
