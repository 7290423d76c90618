//! `-f`: objects in files, directories and standard input, as YAML or JSON, several in one.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use crate::discovery::Resource;
use crate::error::{Error, Result};
use crate::selection::Wanted;
use crate::session::Session;

/// Largest file that is read, bytes.
const MAX_FILE: u64 = 64 << 20;
/// Names of files in directories that are manifests.
const ENDINGS: [&str; 3] = ["json", "yaml", "yml"];

/// Where objects are written down.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Files {
    /// File or directory with objects, - for standard input; may be given several times.
    #[arg(short, long, value_name = "FILE", value_delimiter = ',', help_heading = "Files")]
    filename: Vec<String>,
    /// Directories with those in them.
    #[arg(short = 'R', long, requires = "filename", help_heading = "Files")]
    recursive: bool,
}

impl Files {
    pub(crate) fn is_empty(&self) -> bool {
        self.filename.is_empty()
    }
}

/// One object, and where it is from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) source: String,
    pub(crate) object: Value,
}

impl Manifest {
    fn field<'v>(&'v self, name: &str) -> &'v str {
        self.object[name].as_str().unwrap_or_default()
    }

    pub(crate) fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Whether other objects need it to be there first: the namespace that they are in, the definition of their kind.
    fn comes_first(&self) -> bool {
        matches!(self.field("kind"), "Namespace") && self.field("apiVersion") == "v1" || self.is_definition()
    }

    /// Whether it defines a kind.
    pub(crate) fn is_definition(&self) -> bool {
        self.field("kind") == "CustomResourceDefinition" && self.field("apiVersion").starts_with("apiextensions.k8s.io/")
    }

    /// The resource that it is one of, if the server has it.
    pub(crate) fn resource<'r>(&self, resources: &'r crate::discovery::Resources) -> Option<&'r Resource> {
        resources.of_kind(self.field("apiVersion"), self.field("kind"))
    }

    /// The server has no such kind.
    pub(crate) fn unknown(&self) -> Error {
        Error::usage(format!(
            "resource mapping not found for name: {:?} namespace: {:?} from {:?}: no matches for kind {:?} in version {:?}\nensure CRDs are installed first",
            self.name(),
            self.object["metadata"]["namespace"].as_str().unwrap_or_default(),
            self.source,
            self.field("kind"),
            self.field("apiVersion"),
        ))
    }

    /// Its namespace, none where its kind has none.
    ///
    /// # Errors
    /// It names another one than the command line.
    pub(crate) fn namespace<'s>(&'s self, session: &'s Session, resource: &Resource) -> Result<Option<&'s str>> {
        let Some(own) = self.object["metadata"]["namespace"].as_str().filter(|name| !name.is_empty() && resource.namespaced)
        else {
            return Ok(session.namespace_of(resource));
        };
        if session.namespace_named && own != session.namespace {
            return Err(Error::usage(format!(
                "the namespace from the provided object {own:?} does not match the namespace {:?}. You must pass '--namespace={own}' to \
                 perform this operation.",
                session.namespace
            )));
        }
        Ok(Some(own))
    }
}

/// Reads all of them, in order.
///
/// # Errors
/// A file cannot be read, or has what is no object.
pub(crate) fn read(files: &Files) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for name in &files.filename {
        if name == "-" {
            let text = read_text("standard input", std::io::stdin().lock())?;
            manifests.extend(parse("STDIN", &text)?);
            continue;
        }
        if name.starts_with("http://") || name.starts_with("https://") {
            return Err(Error::usage(format!("{name}: manifests are not fetched: fetch it with another program, and use -f -")));
        }
        for path in paths(Path::new(name), files.recursive)? {
            let shown = path.display().to_string();
            let file = std::fs::File::open(&path).map_err(|error| Error::io(shown.clone(), error))?;
            manifests.extend(parse(&shown, &read_text(&shown, file)?)?);
        }
    }
    if manifests.is_empty() {
        return Err(Error::usage("no objects passed"));
    }
    Ok(manifests)
}

fn read_text(name: &str, reader: impl Read) -> Result<String> {
    let mut text = String::new();
    reader.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| Error::io(name, error))?;
    if text.len() as u64 > MAX_FILE {
        return Err(Error::usage(format!("{name}: more than {} MiB", MAX_FILE >> 20)));
    }
    Ok(text)
}

/// A file itself, or the manifests of a directory by name.
fn paths(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    let wrong = |error| match error {
        error if std::io::Error::kind(&error) == std::io::ErrorKind::NotFound => {
            Error::usage(format!("the path {:?} does not exist", path.display().to_string()))
        }
        error => Error::io(path.display().to_string(), error),
    };
    if !std::fs::metadata(path).map_err(wrong)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>).map_err(wrong)?;
    let mut entries: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            if recursive {
                found.extend(paths(&entry, true)?);
            }
        } else if entry.extension().is_some_and(|end| ENDINGS.iter().any(|known| end == *known)) {
            found.push(entry);
        }
    }
    Ok(found)
}

/// The objects of a text. Lists are their elements.
fn parse(source: &str, text: &str) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for value in documents(source, text)? {
        let kind = value["kind"].as_str().unwrap_or_default();
        let items = value.get("items").and_then(Value::as_array).filter(|_| kind.ends_with("List"));
        let objects = items.cloned().unwrap_or_else(|| vec![value.clone()]);
        for object in objects {
            for field in ["apiVersion", "kind"] {
                if object[field].as_str().unwrap_or_default().is_empty() {
                    return Err(Error::usage(format!("error validating {source:?}: error validating data: {field} not set")));
                }
            }
            manifests.push(Manifest { source: source.to_owned(), object });
        }
    }
    Ok(manifests)
}

fn documents(source: &str, text: &str) -> Result<Vec<Value>> {
    if text.trim_start().starts_with(['{', '[']) {
        // JSON, one after the other. What is YAML all the same goes on below.
        let all: std::result::Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        if let Ok(all) = all {
            return Ok(all);
        }
    }
    let mut found = Vec::new();
    for document in split(text) {
        let wrong = |why: String| Error::usage(format!("error parsing {source}: error converting YAML to JSON: {why}"));
        let (value, duplicates) = apimachinery::yaml::parse(&document).map_err(|error| wrong(error.to_string()))?;
        if let Some(told) = duplicates.first() {
            return Err(wrong(told.clone()));
        }
        if !value.is_null() {
            found.push(value);
        }
    }
    Ok(found)
}

/// The documents of a YAML text: lines that begin with `---` are between them. Lines keep their numbers, which errors tell.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("---") {
            documents.push("\n".repeat(number + 1));
        } else if let Some(document) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents
}

/// Namespaces and definitions first, the rest in its order.
pub(crate) fn ordered(mut manifests: Vec<Manifest>) -> Vec<Manifest> {
    manifests.sort_by_key(|manifest| !manifest.comes_first());
    manifests
}

/// The objects that files name, as those that arguments name, each with its namespace.
///
/// # Errors
/// As [`read`], or the server has no such kind.
pub(crate) async fn wanted<'s>(session: &'s Session, files: &Files) -> Result<(Vec<Wanted<'s>>, Vec<Option<String>>)> {
    let resources = session.resources().await?;
    let (mut wanted, mut namespaces) = (Vec::new(), Vec::new());
    for manifest in read(files)? {
        let resource = manifest.resource(resources).ok_or_else(|| manifest.unknown())?;
        namespaces.push(manifest.namespace(session, resource)?.map(str::to_owned));
        wanted.push(Wanted { resource, names: vec![manifest.name().to_owned()] });
    }
    Ok((wanted, namespaces))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn kinds(text: &str) -> Result<Vec<String>> {
        let named = |manifest: &Manifest| format!("{}/{}", manifest.field("kind"), manifest.name());
        Ok(parse("f", text)?.iter().map(named).collect())
    }

    #[test]
    fn documents_of_a_text() {
        let check = |text: &str, expected: &[&str]| assert_eq!(kinds(text).unwrap(), expected, "{text}");
        check("apiVersion: v1\nkind: A\nmetadata: {name: a}\n---\napiVersion: v1\nkind: B\n", &["A/a", "B/"]);
        check("---\n# only a comment\n--- # again\napiVersion: v1\nkind: A\n---\n", &["A/"]);
        check("{apiVersion: v1, kind: A}", &["A/"]);
        check("{\"apiVersion\": \"v1\", \"kind\": \"A\"}\n{\"apiVersion\": \"v1\",\n\t\"kind\": \"B\"}", &["A/", "B/"]);
        check("apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: A}\n- {apiVersion: v1, kind: B}\n", &["A/", "B/"]);
        check("apiVersion: v1\nkind: A\ndata: {text: \"a\\n--- b\"}\n", &["A/"]);
        check("", &[]);
    }

    #[test]
    fn no_objects() {
        let check = |text: &str, expected: &str| {
            let told = kinds(text).unwrap_err().to_string();
            assert!(told.contains(expected), "{told}");
        };
        check("a: b", "apiVersion not set");
        check("apiVersion: v1", "kind not set");
        check("apiVersion: v1\nkind: A\n---\nkind: B\nkind: C\n", "line 5: key \"kind\" already set in map");
        check("a: [", "error converting YAML to JSON");
    }

    #[test]
    fn what_others_need_comes_first() {
        let text = "{apiVersion: v1, kind: Pod}\n---\n{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition}\n---\n\
                    {apiVersion: v1, kind: Secret}\n---\n{apiVersion: v1, kind: Namespace}";
        let kinds: Vec<_> = ordered(parse("f", text).unwrap()).iter().map(|manifest| manifest.field("kind").to_owned()).collect();
        assert_eq!(kinds, ["CustomResourceDefinition", "Namespace", "Pod", "Secret"]);
    }

    #[test]
    fn manifests_of_a_directory() {
        let directory = std::env::temp_dir().join(format!("ctl-manifests-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("below")).unwrap();
        for name in ["b.yaml", "a.json", "readme.md", "below/c.yml"] {
            std::fs::write(directory.join(name), "").unwrap();
        }
        let names = |recursive| {
            let found = paths(&directory, recursive).unwrap();
            found.iter().map(|path| path.strip_prefix(&directory).unwrap().display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["a.json", "b.yaml"]);
        assert_eq!(names(true), ["a.json", "b.yaml", "below/c.yml"]);
        for name in ["b.yaml", "a.json", "readme.md", "below/c.yml"] {
            std::fs::remove_file(directory.join(name)).unwrap();
        }
        std::fs::remove_dir(directory.join("below")).unwrap();
        std::fs::remove_dir(&directory).unwrap();
        assert!(paths(&directory, false).unwrap_err().to_string().contains("does not exist"));
    }
}
