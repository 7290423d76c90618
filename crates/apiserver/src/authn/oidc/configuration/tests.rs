#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::authn::oidc::Error;

const OWN: &str = "https://cluster";

fn parse(body: &str) -> Result<Configuration, Invalid> {
    Configuration::parse(
        &format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n{body}"),
        &[OWN.to_owned()],
    )
}

/// An authenticator with these further fields.
fn jwt(issuer: &str, rest: &str) -> String {
    format!("jwt: [{{issuer: {{url: 'https://i', audiences: [a]{issuer}}}, {rest}}}]")
}

const SUB: &str = "claimMappings: {username: {claim: sub, prefix: ''}}";

/// The user that claims make, as `name uid groups extra`, or why they make none.
fn check(rest: &str, claims: Value, expected: Result<(&str, &str, &[&str], Value), &str>) {
    let configuration = parse(&jwt("", rest)).unwrap_or_else(|error| panic!("{rest}: {error}"));
    let user = configuration.issuers[0].mapping.user(&claims);
    let shown = user.map(|user| (user.name, user.uid, user.groups, json!(user.extra))).map_err(|error: Error| error.to_string());
    let expected = expected.map(|(name, uid, groups, extra)| {
        let groups = groups.iter().copied().chain(["system:authenticated"]).map(str::to_owned).collect();
        (name.to_owned(), uid.to_owned(), groups, extra)
    });
    assert_eq!(shown, expected.map_err(str::to_owned), "{rest}");
}

#[test]
fn users_of_claims() {
    let claims = json!({"sub": "jane", "email": "jane@example.com", "roles": ["dev", "", "ops"], "team": "blue", "jti": "7",
        "nested": {"admin": true}});
    check(SUB, claims.clone(), Ok(("jane", "", &[], json!({"authentication.kubernetes.io/credential-id": ["JTI=7"]}))));
    let check = |mappings: &str, expected| {
        check(
            &format!("claimMappings: {{{mappings}}}"),
            json!({"sub": "jane", "email": "jane@example.com",
        "roles": ["dev", "", "ops"], "team": "blue", "nested": {"admin": true}}),
            expected,
        )
    };
    check(
        "username: {claim: sub, prefix: 'oidc:'}, groups: {claim: roles, prefix: 'g:'}",
        Ok(("oidc:jane", "", &["g:dev", "g:ops"], json!({}))),
    );
    check(
        "username: {claim: email, prefix: ''}, groups: {claim: team, prefix: ''}, uid: {claim: sub}",
        Ok(("jane@example.com", "jane", &["blue"], json!({}))),
    );
    check("username: {claim: sub, prefix: ''}, groups: {claim: none, prefix: ''}", Ok(("jane", "", &[], json!({}))));
    check("username: {claim: none, prefix: ''}", Err("parse claim \"none\": claim not present"));
    check("username: {claim: roles, prefix: ''}", Err("parse claim \"roles\": it is no string"));
    check(
        "username: {expression: \"claims.sub + ':external'\"}, groups: {expression: 'claims.roles'}, uid: {expression: \"'u'\"}",
        Ok(("jane:external", "u", &["dev", "ops"], json!({}))),
    );
    check("username: {expression: \"''\"}", Err("empty username via CEL expression is not allowed"));
    check(
        "username: {expression: '1'}",
        Err("error evaluating username claim expression: username claim expression must return a string"),
    );
    check("username: {expression: 'claims.none'}", Err("error evaluating username claim expression: no such key: none"));
    check(
        "username: {claim: sub, prefix: ''}, extra: [{key: example.com/admin, valueExpression: \"has(claims.nested.admin) && claims.nested.admin ? 'true' : ''\"}, {key: example.com/no, valueExpression: \"''\"}]",
        Ok(("jane", "", &[], json!({"example.com/admin": ["true"]}))),
    );
}

#[test]
fn what_must_be_true_of_claims_and_users() {
    let rules = |rules: &str| format!("{SUB}, {rules}");
    let ok = Ok(("jane", "", &[][..], json!({})));
    let claims = || json!({"sub": "jane", "hd": "example.com", "exp": 86400, "nbf": 0});
    check(&rules("claimValidationRules: [{claim: hd, requiredValue: example.com}]"), claims(), ok.clone());
    check(
        &rules("claimValidationRules: [{claim: hd, requiredValue: other.com}]"),
        claims(),
        Err("required claim hd value does not match. Got = example.com, want = other.com"),
    );
    check(&rules("claimValidationRules: [{claim: none}]"), claims(), Err("required claim none not present in ID token"));
    check(
        &rules("claimValidationRules: [{expression: 'claims.exp - claims.nbf <= 3600', message: 'it lives too long'}]"),
        claims(),
        Err(
            "error evaluating claim validation expression: validation expression 'claims.exp - claims.nbf <= 3600' failed: it lives too long",
        ),
    );
    let no_system = "userValidationRules: [{expression: \"!user.username.startsWith('system:')\", message: 'reserved'}, {expression: 'user.groups.size() == 0'}]";
    check(&rules(no_system), claims(), ok);
    check(
        &rules(no_system),
        json!({"sub": "system:admin"}),
        Err(
            "error evaluating user info validation rule: validation expression '!user.username.startsWith('system:')' failed: reserved",
        ),
    );
    let verified = "claimMappings: {username: {claim: email, prefix: ''}}";
    check(verified, json!({"email": "a@b", "email_verified": false}), Err("email not verified"));
    check(verified, json!({"email": "a@b", "email_verified": true}), Ok(("a@b", "", &[], json!({}))));
}

#[test]
fn configurations_that_are_wrong() {
    let check = |body: &str, expected: &str| {
        let why = parse(body).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(why.contains(expected), "{body}: {why}");
    };
    let of = |issuer: &str| jwt(issuer, SUB);
    check("jwt: [{issuer: {audiences: [a]}}]", "jwt[0].issuer.url: Required value");
    check(
        &format!("jwt: [{{issuer: {{url: 'http://i', audiences: [a]}}, {SUB}}}]"),
        "jwt[0].issuer.url: Invalid value: \"http://i\": URL scheme must be https",
    );
    check(
        &format!("jwt: [{{issuer: {{url: '{OWN}', audiences: [a]}}, {SUB}}}]"),
        "URL must not overlap with disallowed issuers: [https://cluster]",
    );
    check(
        &format!("jwt: [{{issuer: {{url: 'https://u:p@i?q=1#f', audiences: []}}, {SUB}}}]"),
        "URL must not contain a username or password",
    );
    check(&format!("jwt: [{{issuer: {{url: 'https://i#f', audiences: []}}, {SUB}}}]"), "URL must not contain a fragment");
    check(
        &format!("jwt: [{{issuer: {{url: 'https://i', audiences: []}}, {SUB}}}]"),
        "at least one jwt[0].issuer.audiences is required",
    );
    check(
        &format!("jwt: [{{issuer: {{url: 'https://i', audiences: [a, b]}}, {SUB}}}]"),
        "audienceMatchPolicy must be MatchAny for multiple audiences",
    );
    check(&of(", audienceMatchPolicy: All"), "audienceMatchPolicy must be empty or MatchAny for single audience");
    check(&of(", discoveryURL: 'https://i/'"), "discoveryURL must be different from URL");
    check(&of(", certificateAuthority: x"), "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\"");
    check(&of(", colour: red"), "unknown field `colour`");
    check(&jwt("", "claimMappings: {}"), "jwt[0].claimMappings.username: Required value: claim or expression is required");
    check(
        &jwt("", "claimMappings: {username: {claim: sub}}"),
        "username.prefix: Required value: prefix is required when claim is set",
    );
    check(&jwt("", "claimMappings: {username: {claim: sub, expression: x}}"), "claim and expression can't both be set");
    check(
        &jwt("", "claimMappings: {username: {expression: 'claims.'}}"),
        "claimMappings.username.expression: Invalid value: \"claims.\": compilation failed",
    );
    check(&jwt("", "claimMappings: {username: {expression: claims.email}}"), "claims.email_verified must be used");
    check(
        &jwt("", &format!("{SUB}, claimValidationRules: [{{}}]")),
        "claimValidationRules[0]: Required value: claim or expression is required",
    );
    check(
        &jwt("", &format!("{SUB}, claimValidationRules: [{{claim: a}}, {{claim: a}}]")),
        "claimValidationRules[1].claim: Duplicate value: \"a\"",
    );
    check(&jwt("", &format!("{SUB}, userValidationRules: [{{}}]")), "userValidationRules[0].expression: Required value");
    let claim = |rule: &str| jwt("", &format!("{SUB}, claimValidationRules: [{{expression: \"{rule}\"}}]"));
    check(&claim("claims.exp"), "claimValidationRules[0].expression: Invalid value: \"claims.exp\": must evaluate to bool");
    check(&jwt("", &format!("{SUB}, userValidationRules: [{{expression: 'user.name == user.uid'}}]")), "undefined field 'name'");
    let extra = |key: &str| {
        jwt(
            "",
            &format!(
                "claimMappings: {{username: {{claim: sub, prefix: ''}}, extra: [{{key: {key}, valueExpression: \"'a'\"}}]}}"
            ),
        )
    };
    check(&extra("a.kubernetes.io/b"), "reserved for Kubernetes use");
    check(&extra("example.com/B"), "must be lowercase");
    check(&extra("b"), "must be a domain-prefixed path");
    check(
        "anonymous: {enabled: false, conditions: [{path: /livez}]}",
        "enabled should be set to true when conditions are defined",
    );
    let twice = format!(
        "jwt: [{{issuer: {{url: 'https://i', audiences: [a]}}, {SUB}}}, {{issuer: {{url: 'https://i', audiences: [a]}}, {SUB}}}]"
    );
    check(&twice, "jwt[1].issuer.url: Duplicate value: \"https://i\"");
    let verified = "claimMappings: {username: {expression: 'claims.email_verified ? claims.email : claims.sub'}}";
    assert!(parse(&jwt("", verified)).is_ok());
    assert!(matches!(Configuration::parse("kind: Pod", &[]), Err(Invalid::Kind)));
}

#[test]
fn where_nobody_needs_a_name() {
    let check = |body: &str, expected: Option<[bool; 2]>| {
        let anonymous = parse(body).unwrap().anonymous;
        assert_eq!(anonymous.map(|anonymous| ["/livez", "/api"].map(|path| anonymous.allows(path))), expected, "{body}");
    };
    check("jwt: []", None);
    check("anonymous: {enabled: false}", Some([false, false]));
    check("anonymous: {enabled: true}", Some([true, true]));
    check("anonymous: {enabled: true, conditions: [{path: /livez}]}", Some([true, false]));
}
