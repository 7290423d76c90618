//! The flags `--oidc-*`: one issuer, without a file.

use std::path::PathBuf;

use super::configuration::{ClaimRule, File, Issuer, Jwt, Mappings, Prefixed};
use super::jwt::ALGORITHMS;
use super::{Configuration, Invalid};

/// What the flags say. Their names and defaults are those of kube-apiserver.
#[derive(Clone, Debug)]
pub struct Flags {
    /// `--oidc-issuer-url`
    pub issuer_url: String,
    /// `--oidc-client-id`
    pub client_id: String,
    /// `--oidc-username-claim`
    pub username_claim: String,
    /// `--oidc-username-prefix`; `-` for none.
    pub username_prefix: Option<String>,
    /// `--oidc-groups-claim`
    pub groups_claim: Option<String>,
    /// `--oidc-groups-prefix`
    pub groups_prefix: String,
    /// `--oidc-signing-algs`
    pub signing_algs: Vec<String>,
    /// `--oidc-required-claim`
    pub required_claims: Vec<(String, String)>,
    /// `--oidc-ca-file`
    pub ca_file: Option<PathBuf>,
}

impl Flags {
    /// The configuration that they stand for. `authority` is what the file of `--oidc-ca-file` has.
    pub(in crate::authn) fn configuration(&self, authority: String, own: &[String]) -> Result<Configuration, Invalid> {
        if let Some(other) = self.signing_algs.iter().find(|algorithm| !ALGORITHMS.contains(&algorithm.as_str())) {
            return Err(Invalid::Decode(format!("oidc: unsupported signing alg: {other:?}")));
        }
        let prefix = match self.username_prefix.as_deref() {
            Some("-") => String::new(),
            // Names of other issuers must not be taken for those of this cluster; addresses cannot.
            None | Some("") if self.username_claim != "email" => format!("{}#", self.issuer_url),
            prefix => prefix.unwrap_or_default().to_owned(),
        };
        let groups = self.groups_claim.as_ref().map(|claim| Prefixed {
            claim: claim.clone(),
            prefix: Some(self.groups_prefix.clone()),
            ..Prefixed::default()
        });
        let required = self.required_claims.iter().map(|(claim, value)| ClaimRule {
            claim: claim.clone(),
            required_value: value.clone(),
            ..ClaimRule::default()
        });
        let jwt = Jwt {
            issuer: Issuer {
                url: self.issuer_url.clone(),
                audiences: vec![self.client_id.clone()],
                certificate_authority: authority,
                ..Issuer::default()
            },
            claim_validation_rules: required.collect(),
            claim_mappings: Mappings {
                username: Prefixed { claim: self.username_claim.clone(), prefix: Some(prefix), ..Prefixed::default() },
                groups: groups.unwrap_or_default(),
                ..Mappings::default()
            },
            ..Jwt::default()
        };
        Configuration::of(File { jwt: vec![jwt], ..File::default() }, &self.signing_algs, own)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn flags() -> Flags {
        Flags {
            issuer_url: "https://i".into(),
            client_id: "kubernetes".into(),
            username_claim: "sub".into(),
            username_prefix: None,
            groups_claim: None,
            groups_prefix: String::new(),
            signing_algs: vec!["RS256".into()],
            required_claims: Vec::new(),
            ca_file: None,
        }
    }

    #[test]
    fn names_and_groups() {
        let check = |flags: Flags, name: &str, groups: &[&str]| {
            let configuration = flags.configuration(String::new(), &["https://cluster".to_owned()]).unwrap();
            let claims = json!({"sub": "jane", "email": "j@e", "roles": "dev"});
            let user = configuration.issuers[0].mapping.user(&claims).unwrap();
            assert_eq!(
                (user.name.as_str(), &user.groups[..user.groups.len() - 1]),
                (name, &groups.iter().map(|group| (*group).to_owned()).collect::<Vec<_>>()[..])
            );
        };
        check(flags(), "https://i#jane", &[]);
        check(Flags { username_prefix: Some("-".into()), ..flags() }, "jane", &[]);
        check(Flags { username_prefix: Some("oidc:".into()), ..flags() }, "oidc:jane", &[]);
        check(Flags { username_claim: "email".into(), ..flags() }, "j@e", &[]);
        check(Flags { groups_claim: Some("roles".into()), groups_prefix: "g:".into(), ..flags() }, "https://i#jane", &["g:dev"]);
        let required = Flags { required_claims: vec![("hd".into(), "x".into())], ..flags() };
        let configuration = required.configuration(String::new(), &["https://cluster".to_owned()]).unwrap();
        assert!(configuration.issuers[0].mapping.user(&json!({"sub": "jane"})).is_err());
        assert!(Flags { signing_algs: vec!["none".into()], ..flags() }.configuration(String::new(), &[]).is_err());
        assert!(Flags { issuer_url: "http://i".into(), ..flags() }.configuration(String::new(), &[]).is_err());
    }
}
