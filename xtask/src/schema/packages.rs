//! Which Go packages make up the API, and how Go types map to the table's types.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::go::{GoField, GoKind, GoPackage, GoType, markers};

/// The directories below `k8s.io`: every stable group version, those that discovery and webhooks use, and those of which [`PARTS`] are served.
const PACKAGES: &[&str] = &[
    "api/admission/v1",
    "api/admissionregistration/v1",
    "api/apidiscovery/v2",
    "api/apps/v1",
    "api/authentication/v1",
    "api/authorization/v1",
    "api/autoscaling/v1",
    "api/autoscaling/v2",
    "api/batch/v1",
    "api/certificates/v1",
    "api/certificates/v1beta1",
    "api/coordination/v1",
    "api/core/v1",
    "api/discovery/v1",
    "api/events/v1",
    "api/flowcontrol/v1",
    "api/networking/v1",
    "api/node/v1",
    "api/policy/v1",
    "api/rbac/v1",
    "api/resource/v1",
    "api/scheduling/v1",
    "api/storage/v1",
    "apiextensions-apiserver/pkg/apis/apiextensions/v1",
    "apimachinery/pkg/apis/meta/v1",
];

/// Of these packages only some kinds are part of the API that is served, with their lists.
const PARTS: &[(&str, &[&str])] = &[(
    "api/certificates/v1beta1",
    &["ClusterTrustBundle", "ClusterTrustBundleList", "PodCertificateRequest", "PodCertificateRequestList"],
)];

/// Whether a kind of a package is part of the API that is served.
pub(crate) fn is_served(dir: &str, kind: &str) -> bool {
    PARTS.iter().find(|(part, _)| *part == dir).is_none_or(|(_, kinds)| kinds.contains(&kind))
}

const EXTENSIONS: &str = "apiextensions-apiserver/pkg/apis/apiextensions/v1";
pub(crate) const META: &str = "apimachinery/pkg/apis/meta/v1";

/// All packages by directory.
pub(crate) struct Source {
    pub(crate) packages: BTreeMap<String, GoPackage>,
}

/// What a Go type expression means in the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resolved {
    /// `string`, `[]int32`, `{}quantity`, or with a struct's OpenAPI name.
    pub(crate) table: String,
    /// As Go's reflection prints the type: `v1.PullPolicy`.
    pub(crate) go: String,
    pub(crate) pointer: bool,
    /// The list is a message of its own in protobuf (`type Verbs []string`).
    pub(crate) wrapped: bool,
    /// Markers of the named type on the way, such as `+enum`, with the package and the name.
    pub(crate) named: Option<(String, String)>,
}

impl Source {
    /// Reads the packages below an unpacked `k8s.io` directory.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut packages = BTreeMap::new();
        for dir in PACKAGES {
            let mut package = GoPackage::default();
            let mut files: Vec<_> = fs::read_dir(root.join(dir))
                .with_context(|| format!("no {dir}: give --source the k8s.io directory of the Go sources"))?
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<_, _>>()?;
            files.sort();
            for file in files {
                let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let wanted =
                    name.ends_with(".go") && !name.ends_with("_test.go") && !name.starts_with("zz_") && !name.contains(".pb.");
                if wanted {
                    package.read(&fs::read_to_string(&file)?).with_context(|| file.display().to_string())?;
                }
            }
            packages.insert((*dir).to_owned(), package);
        }
        Ok(Self { packages })
    }

    pub(crate) fn package(&self, dir: &str) -> Result<&GoPackage> {
        self.packages.get(dir).with_context(|| format!("package {dir} is not in the list"))
    }

    pub(crate) fn find(&self, dir: &str, name: &str) -> Option<&GoType> {
        self.packages.get(dir)?.types.iter().find(|ty| ty.name == name)
    }

    /// The fields of a struct, following `type A B`.
    pub(crate) fn fields(&self, dir: &str, name: &str) -> Result<&[GoField]> {
        let ty = self.find(dir, name).with_context(|| format!("no type {name} in {dir}"))?;
        match &ty.kind {
            GoKind::Struct(fields) => Ok(fields),
            GoKind::Named(_) => bail!("{dir} {name} is not a struct"),
        }
    }

    /// Splits `metav1.Time` into the directory and the name; a bare name is in `dir` itself.
    pub(crate) fn locate(&self, dir: &str, expr: &str) -> Result<(String, String)> {
        let Some((alias, name)) = expr.split_once('.') else {
            return Ok((dir.to_owned(), expr.to_owned()));
        };
        let path = self.package(dir)?.imports.get(alias).with_context(|| format!("unknown import {alias} in {dir}"))?;
        Ok((path.trim_start_matches("k8s.io/").to_owned(), name.to_owned()))
    }

    pub(crate) fn resolve(&self, dir: &str, expr: &str) -> Result<Resolved> {
        if let Some(inner) = expr.strip_prefix('*') {
            return Ok(Resolved { pointer: true, ..self.resolve(dir, inner)? });
        }
        if expr == "[]byte" {
            return Ok(plain("bytes", "[]uint8"));
        }
        if let Some(inner) = expr.strip_prefix("[]") {
            let inner = self.resolve(dir, inner)?;
            let star = if inner.pointer { "*" } else { "" };
            return Ok(Resolved {
                pointer: false,
                table: format!("[]{}", inner.table),
                go: format!("[]{star}{}", inner.go),
                ..inner
            });
        }
        if let Some((key, value)) = expr.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
            let (key, value) = (self.resolve(dir, key)?, self.resolve(dir, value)?);
            let go = format!("map[{}]{}", key.go, value.go);
            return Ok(Resolved { pointer: false, table: format!("{{}}{}", value.table), go, named: None, ..value });
        }
        match expr {
            "string" | "bool" | "int32" | "int64" | "float64" => return Ok(plain(expr, expr)),
            "int" => return Ok(plain("int64", "int")),
            "interface{}" | "any" => return Ok(plain("any", "interface {}")),
            _ => {}
        }
        let (at, name) = self.locate(dir, expr)?;
        self.resolve_named(&at, &name)
    }

    fn resolve_named(&self, dir: &str, name: &str) -> Result<Resolved> {
        let go = format!("{}.{name}", dir.rsplit('/').next().unwrap_or_default());
        let special = match (dir, name) {
            ("apimachinery/pkg/api/resource", "Quantity") => "quantity",
            ("apimachinery/pkg/util/intstr", "IntOrString") => "intorstring",
            ("apimachinery/pkg/runtime", "RawExtension") => "raw",
            ("apimachinery/pkg/types", _) => "string",
            (META, "Time") => "time",
            (META, "MicroTime") => "microtime",
            (META, "Duration") => "duration",
            (META, "FieldsV1") => "fieldsv1",
            (EXTENSIONS, "JSON") => "json",
            (EXTENSIONS, "JSONSchemaPropsOrBool") => "?bool:",
            (EXTENSIONS, "JSONSchemaPropsOrArray") => "?list:",
            (EXTENSIONS, "JSONSchemaPropsOrStringArray") => "?strings:",
            _ => "",
        };
        if special.starts_with('?') {
            return Ok(plain(&format!("{special}{}", open_api_name(EXTENSIONS, "JSONSchemaProps")), &go));
        }
        if !special.is_empty() {
            return Ok(plain(special, &go));
        }
        let ty = self.find(dir, name).with_context(|| format!("no type {name} in {dir}"))?;
        let GoKind::Named(target) = &ty.kind else {
            return Ok(Resolved { table: open_api_name(dir, name), ..plain("", &go) });
        };
        let inner = self.resolve(dir, target)?;
        let wrapped = markers(&ty.comments, "protobuf.nullable").next().is_some();
        Ok(Resolved { go, wrapped, named: Some((dir.to_owned(), name.to_owned())), ..inner })
    }
}

fn plain(table: &str, go: &str) -> Resolved {
    Resolved { table: table.to_owned(), go: go.to_owned(), pointer: false, wrapped: false, named: None }
}

/// `api/core/v1` and `PodSpec` to `io.k8s.api.core.v1.PodSpec`.
pub(crate) fn open_api_name(dir: &str, name: &str) -> String {
    format!("io.k8s.{}.{name}", dir.replace('/', "."))
}
