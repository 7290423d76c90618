#![allow(clippy::unwrap_used)]
use std::fs;
use std::os::unix::fs::OpenOptionsExt;

use serde_json::{Value, json};

use super::*;

/// A directory with programs and files of a configuration.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.path("bin")).unwrap();
        for (name, mode) in [("ecr", 0o755), ("acr", 0o700), ("plain", 0o644)] {
            fs::OpenOptions::new().create_new(true).write(true).mode(mode).open(place.path("bin").join(name)).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> Result<Configuration, Error> {
        Configuration::read(&self.path(name), &self.path("bin"))
    }
}

fn file(providers: Value) -> Value {
    json!({"apiVersion": VERSIONS[0], "kind": "CredentialProviderConfig", "providers": providers})
}

fn entry(name: &str) -> Value {
    json!({"name": name, "matchImages": ["*.io"], "defaultCacheDuration": "12h", "apiVersion": EXCHANGES[0]})
}

/// The example of the documentation ("Configure a kubelet credential provider"), with what KEP-4412 adds.
#[test]
fn what_is_documented() {
    let place = Place::new();
    let text = r#"
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: ecr
    matchImages:
      - "*.dkr.ecr.*.amazonaws.com"
      - "registry.io:8080/path"
    defaultCacheDuration: "12h"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args: [get-credentials]
    env:
      - name: AWS_PROFILE
        value: example_profile
    tokenAttributes:
      serviceAccountTokenAudience: my-registry
      cacheType: Token
      requireServiceAccount: true
      requiredServiceAccountAnnotationKeys: [example.com/identity]
      optionalServiceAccountAnnotationKeys: [example.com/Tenant]
"#;
    place.write("config.yaml", text);
    let found = place.read("config.yaml").unwrap();
    let digest = Sha256::new().chain_update((text.len() as u64).to_be_bytes()).chain_update(text);
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found.hash, format!("sha256:{digest}"));
    let tokens = Tokens {
        audience: "my-registry".into(),
        per_token: true,
        required: true,
        required_annotations: vec!["example.com/identity".into()],
        optional_annotations: vec!["example.com/Tenant".into()],
    };
    let expected = Provider {
        name: "ecr".into(),
        program: place.path("bin/ecr"),
        args: vec!["get-credentials".into()],
        env: vec![("AWS_PROFILE".into(), "example_profile".into())],
        api_version: EXCHANGES[0].into(),
        images: ["*.dkr.ecr.*.amazonaws.com", "registry.io:8080/path"].map(|text| Pattern::parse(text).unwrap()).to_vec(),
        lifetime: Duration::from_secs(12 * 3600),
        tokens: Some(tokens),
    };
    assert_eq!(found.providers, [expected]);
}

/// The kubelet's flag: "If the path is a directory, it reads all .json, .yaml and .yml files in lexicographic order".
#[test]
fn directories_are_read_in_the_order_of_names() {
    let place = Place::new();
    place.write("d/20.yml", &file(json!([entry("ecr")])).to_string());
    place.write("d/10.json", &file(json!([entry("acr")])).to_string());
    place.write("d/00.txt", "no configuration");
    place.write("d/05.yaml/nested", "");
    let names = |found: Configuration| found.providers.into_iter().map(|provider| provider.name).collect::<Vec<_>>();
    assert_eq!(names(place.read("d").unwrap()), ["acr", "ecr"]);
    place.write("d/30.json", &file(json!([entry("acr")])).to_string());
    let error = place.read("d").unwrap_err().to_string();
    assert!(error.contains("d/30.json") && error.contains("\"acr\"") && error.contains("d/10.json"), "{error}");
    place.write("empty/00.txt", "");
    assert!(matches!(place.read("empty"), Err(Error::Empty(_))));
    assert!(matches!(place.read("nothing"), Err(Error::Read { .. })));
}

#[track_caller]
fn check(place: &Place, text: &str, expected: &[&str]) {
    place.write("c.yaml", text);
    let error = place.read("c.yaml").unwrap_err().to_string();
    let path = place.path("c.yaml").display().to_string();
    assert!(error.starts_with(&path), "the file is named: {error}");
    for text in expected {
        assert!(error.contains(text), "{text} is not in {error}");
    }
}

#[test]
fn files_that_are_none() {
    let place = Place::new();
    check(&place, "a: [", &["yaml"]);
    check(&place, "\u{1}", &["yaml"]);
    check(&place, "kind: CredentialProviderConfig\nkind: CredentialProviderConfig", &["already set in map"]);
    check(&place, "{}", &["no CredentialProviderConfig"]);
    check(
        &place,
        r#"{"apiVersion": "kubelet.config.k8s.io/v2", "kind": "CredentialProviderConfig"}"#,
        &["no CredentialProviderConfig"],
    );
    check(
        &place,
        r#"{"apiVersion": "kubelet.config.k8s.io/v1", "kind": "KubeletConfiguration"}"#,
        &["no CredentialProviderConfig"],
    );
    let mut other = file(json!([entry("ecr")]));
    other["providers"][0]["matchImage"] = json!([]);
    check(&place, &other.to_string(), &["unknown field `matchImage`"]);
    check(&place, &file(json!([])).to_string(), &["providers: Required value: at least 1 item in plugins is required"]);
}

/// A provider of which one field is this is refused with these words.
#[track_caller]
fn refused(field: &str, value: Value, expected: &str) {
    let place = Place::new();
    let mut entry = entry("ecr");
    entry["tokenAttributes"] =
        json!({"serviceAccountTokenAudience": "a", "cacheType": "ServiceAccount", "requireServiceAccount": true});
    place.write("c.yaml", &file(json!([entry])).to_string());
    place.read("c.yaml").unwrap();
    match field.split_once('.') {
        Some((outer, inner)) => entry[outer][inner] = value,
        None => entry[field] = value,
    }
    check(&place, &file(json!([entry])).to_string(), &[expected]);
}

#[test]
fn fields_that_make_no_sense() {
    refused("name", json!(""), "providers[0].name: Required value");
    refused("name", json!("a/b"), "providers[0].name: Invalid value: \"a/b\": provider name cannot contain '/'");
    refused("name", json!("a b"), "providers[0].name: Invalid value: \"a b\": provider name cannot contain spaces");
    refused("name", json!("."), "provider name cannot be '.'");
    refused("name", json!(".."), "provider name cannot be '..'");
    refused("apiVersion", json!(""), "providers[0].apiVersion: Required value");
    refused("apiVersion", json!("v1"), "providers[0].apiVersion: Unsupported value: \"v1\": supported values: ");
    refused("matchImages", json!([]), "providers[0].matchImages: Required value: at least 1 item in matchImages is required");
    refused(
        "matchImages",
        json!(["a.io", "b:x"]),
        "providers[0].matchImages[1]: Invalid value: \"b:x\": match image is invalid: ",
    );
    refused("defaultCacheDuration", json!(null), "providers[0].defaultCacheDuration: Required value");
    refused("defaultCacheDuration", json!("12"), "providers[0].defaultCacheDuration: Invalid value: \"12\": it is no duration");
    refused("defaultCacheDuration", json!("-1s"), "Invalid value: \"-1s\": must be greater than or equal to 0");
    refused("apiVersion", json!(EXCHANGES[2]), "providers[0].tokenAttributes: Forbidden: tokenAttributes is only supported for");
    refused(
        "tokenAttributes.serviceAccountTokenAudience",
        json!(""),
        "tokenAttributes.serviceAccountTokenAudience: Required value",
    );
    refused("tokenAttributes.requireServiceAccount", json!(null), "tokenAttributes.requireServiceAccount: Required value");
    refused("tokenAttributes.cacheType", json!(""), "tokenAttributes.cacheType: Required value: cacheType is required to be set");
    let unsupported = "tokenAttributes.cacheType: Unsupported value: \"Pod\": supported values: \"ServiceAccount\", \"Token\"";
    refused("tokenAttributes.cacheType", json!("Pod"), unsupported);
    let required = "tokenAttributes.requiredServiceAccountAnnotationKeys";
    refused(required, json!(["a b"]), "requiredServiceAccountAnnotationKeys: Invalid value: \"a b\": name part must consist of");
    refused(required, json!(["a", "a"]), "requiredServiceAccountAnnotationKeys: Duplicate value: \"a\"");
}

#[test]
fn annotations_are_required_or_optional() {
    let place = Place::new();
    let mut entry = entry("ecr");
    let keys = json!(["x/b", "x/a"]);
    entry["tokenAttributes"] = json!({"serviceAccountTokenAudience": "a", "cacheType": "ServiceAccount", "requireServiceAccount": false,
        "requiredServiceAccountAnnotationKeys": keys, "optionalServiceAccountAnnotationKeys": ["x/a"]});
    let both = "annotation keys cannot be both required and optional";
    let forbidden = "Forbidden: requireServiceAccount cannot be false when requiredServiceAccountAnnotationKeys is set";
    check(&place, &file(json!([entry])).to_string(), &[both, forbidden, "[\"x/a\"]"]);
}

#[test]
fn programs_are_there() {
    let place = Place::new();
    for (name, why) in [("gone", "No such file"), ("plain", "not executable")] {
        place.write("c.yaml", &file(json!([entry(name)])).to_string());
        let error = place.read("c.yaml").unwrap_err().to_string();
        assert!(error.contains(&place.path("bin").join(name).display().to_string()) && error.contains(why), "{error}");
    }
    check(&place, &file(json!([entry("ecr"), entry("ecr")])).to_string(), &["providers[1].name: Duplicate value: \"ecr\""]);
}
