//! The fields of an AuthenticationConfiguration.

use serde::Deserialize;

/// The file.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct File {
    #[serde(default, rename = "apiVersion")]
    pub(in super::super) _api_version: String,
    #[serde(default, rename = "kind")]
    pub(in super::super) _kind: String,
    #[serde(default)]
    pub(in super::super) jwt: Vec<Jwt>,
    pub(in super::super) anonymous: Option<AnonymousRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct AnonymousRule {
    pub(in super::super) enabled: bool,
    #[serde(default)]
    pub(in super::super) conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Condition {
    pub(in super::super) path: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(in super::super) struct Jwt {
    pub(in super::super) issuer: Issuer,
    pub(in super::super) claim_validation_rules: Vec<ClaimRule>,
    pub(in super::super) claim_mappings: Mappings,
    pub(in super::super) user_validation_rules: Vec<UserRule>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(in super::super) struct Issuer {
    pub(in super::super) url: String,
    #[serde(rename = "discoveryURL")]
    pub(in super::super) discovery_url: Option<String>,
    pub(in super::super) certificate_authority: String,
    pub(in super::super) audiences: Vec<String>,
    pub(in super::super) audience_match_policy: String,
    pub(in super::super) egress_selector_type: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(in super::super) struct ClaimRule {
    pub(in super::super) claim: String,
    pub(in super::super) required_value: String,
    pub(in super::super) expression: String,
    pub(in super::super) message: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(in super::super) struct UserRule {
    pub(in super::super) expression: String,
    pub(in super::super) message: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(in super::super) struct Mappings {
    pub(in super::super) username: Prefixed,
    pub(in super::super) groups: Prefixed,
    pub(in super::super) uid: Plain,
    pub(in super::super) extra: Vec<Extra>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(in super::super) struct Prefixed {
    pub(in super::super) claim: String,
    pub(in super::super) prefix: Option<String>,
    pub(in super::super) expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(in super::super) struct Plain {
    pub(in super::super) claim: String,
    pub(in super::super) expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(in super::super) struct Extra {
    pub(in super::super) key: String,
    pub(in super::super) value_expression: String,
}
