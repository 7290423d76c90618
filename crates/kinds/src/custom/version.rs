//! From a definition to the kinds that it makes, one for each version.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;
use structural::{JsonPath, PathError, Structural, Unusable};

use super::CustomKind;
use super::columns::Columns;
use crate::def::{KindDef, Names, StatusKeeps, UnqualifiedFinalizers};
use crate::strategy::Strategy;
use crate::sub::{ScalePaths, Sub};
use crate::util::text;

/// A version of a custom resource.
#[derive(Clone)]
pub struct CustomVersion {
    /// Its facts and rules.
    pub kind: Arc<dyn Strategy>,
    /// Clients see it.
    pub served: bool,
    /// Objects are stored in it.
    pub storage: bool,
}

/// Why a definition cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// Its schema cannot be used.
    #[error("version {0}: {1}")]
    Schema(String, Unusable),
    /// A field that is selected by leads nowhere.
    #[error("version {0}: {1}")]
    Path(String, PathError),
}

/// What a definition that is accepted serves, best version first. `terminating` kinds take no new objects.
///
/// # Errors
/// It was accepted by a server that could do more than this one.
pub fn versions(definition: &Value, terminating: bool) -> Result<Vec<CustomVersion>, DefinitionError> {
    let list = definition.pointer("/spec/versions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut all = list.iter().map(|version| one(definition, version, terminating)).collect::<Result<Vec<_>, _>>()?;
    all.sort_by(|a, b| version_priority(&b.kind.def().version).cmp(&version_priority(&a.kind.def().version)));
    Ok(all)
}

fn one(definition: &Value, version: &Value, terminating: bool) -> Result<CustomVersion, DefinitionError> {
    let name = version["name"].as_str().unwrap_or_default().to_owned();
    let in_path = |error: PathError| DefinitionError::Path(name.clone(), error);
    let source = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
    let schema = Structural::compile(&source).map_err(|error| DefinitionError::Schema(name.clone(), error))?;
    let paths = version["selectableFields"].as_array().into_iter().flatten().filter_map(|field| field["jsonPath"].as_str());
    let paths: Vec<&str> = paths.collect();
    let fields = paths.iter().map(|path| JsonPath::parse(path)).collect::<Result<_, _>>().map_err(in_path)?;
    let kind = CustomKind {
        def: def(definition, version, terminating),
        columns: Columns::new(version["additionalPrinterColumns"].as_array()),
        selectable: Names::Given(paths.iter().map(|path| path.trim_start_matches('.').to_owned()).collect()),
        fields,
        schema: Arc::new(schema),
    };
    Ok(CustomVersion { kind: Arc::new(kind), served: version["served"] == true, storage: version["storage"] == true })
}

fn def(definition: &Value, version: &Value, terminating: bool) -> KindDef {
    let owned = |text: &str| Cow::Owned(text.to_owned());
    let name = |key: &str| owned(text(definition, &format!("/status/acceptedNames/{key}")));
    let names = |key: &str| {
        let list = definition.pointer(&format!("/status/acceptedNames/{key}")).and_then(Value::as_array).into_iter().flatten();
        Names::Given(list.filter_map(Value::as_str).map(str::to_owned).collect())
    };
    let (group, version_name) = (text(definition, "/spec/group"), version["name"].as_str().unwrap_or_default());
    let mut def = KindDef::unnamed().generation().versioned().unqualified_finalizers(UnqualifiedFinalizers::Told);
    def.group = owned(group);
    def.version = owned(version_name);
    def.kind = name("kind");
    def.list_kind = Some(name("listKind"));
    def.plural = name("plural");
    def.singular = name("singular");
    def.short_names = names("shortNames");
    def.categories = names("categories");
    def.namespaced = text(definition, "/spec/scope") == "Namespaced";
    def.status_is_optional = true;
    def.status_keeps = StatusKeeps::Metadata;
    def.subresources = subresources(version).into();
    if let Some(scale) = version.pointer("/subresources/scale") {
        def.scale = scale_paths(scale);
    }
    def.closing = terminating;
    if version["deprecated"] == true {
        let warning = version["deprecationWarning"].as_str().map(str::to_owned);
        def.deprecated = Some(warning.unwrap_or_else(|| format!("{group}/{version_name} {} is deprecated", def.kind)).into());
    }
    def
}

fn subresources(version: &Value) -> Vec<Sub> {
    let mut subs = Vec::new();
    if version.pointer("/subresources/status").is_some_and(|status| !status.is_null()) {
        subs.push(Sub::STATUS);
    }
    if version.pointer("/subresources/scale").is_some_and(Value::is_object) {
        subs.push(Sub::SCALE);
    }
    subs
}

fn scale_paths(scale: &Value) -> ScalePaths {
    let pointer = |key: &str| JsonPath::parse(scale[key].as_str()?).ok()?.pointer();
    ScalePaths {
        replicas: pointer("specReplicasPath").unwrap_or_default().into(),
        status_replicas: pointer("statusReplicasPath").unwrap_or_default().into(),
        selector: pointer("labelSelectorPath").filter(|pointer| !pointer.is_empty()).map(Cow::Owned),
    }
}

/// Which of several versions is the better one (Kubernetes documentation, "Version priority"): stable ones before beta before alpha,
/// of these the higher numbers first, and what is no such version last, by name.
pub fn version_priority(version: &str) -> (u8, u64, u64, std::cmp::Reverse<&str>) {
    let parse =
        |text: &str| (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten();
    let parsed = version.strip_prefix('v').and_then(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u64 = parse(&rest[..end])?;
        Some(match &rest[end..] {
            "" => (3, major, 0),
            stage => match (stage.strip_prefix("beta"), stage.strip_prefix("alpha")) {
                (Some(minor), _) => (2, major, parse(minor)?),
                (_, Some(minor)) => (1, major, parse(minor)?),
                _ => return None,
            },
        })
    });
    let (stage, major, minor) = parsed.unwrap_or_default();
    (stage, major, minor, std::cmp::Reverse(version))
}

#[cfg(test)]
mod tests {
    use super::version_priority;

    /// The example of the documentation.
    #[test]
    fn versions_by_priority() {
        let expected = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        let mut sorted = expected;
        sorted.reverse();
        sorted.sort_by(|a, b| version_priority(b).cmp(&version_priority(a)));
        assert_eq!(sorted, expected);
    }
}
