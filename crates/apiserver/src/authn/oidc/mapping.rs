//! What the claims of a token make of its user.

use apimachinery::text::quote;
use cel::{Budget, Program};
use registry::User;
use serde_json::{Value, json};

use super::Error;
use crate::authn;

/// What all expressions of a token may cost.
const BUDGET: u64 = 10_000_000;
/// Where a token's identifier is kept.
const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// A value of the user.
#[derive(Debug)]
pub(super) enum Source {
    /// A claim as it is, behind a prefix.
    Claim { claim: String, prefix: String },
    /// What an expression makes of the claims.
    Expression(Program),
}

/// Something that must be true.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) program: Program,
    pub(super) source: String,
    pub(super) message: String,
}

/// How a user is made of claims, and what must be true of both.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) username: Source,
    pub(super) groups: Option<Source>,
    pub(super) uid: Option<Source>,
    pub(super) extra: Vec<(String, Program)>,
    /// Claims with the values that they must have.
    pub(super) required: Vec<(String, String)>,
    pub(super) claim_rules: Vec<Rule>,
    pub(super) user_rules: Vec<Rule>,
}

fn wrong(why: impl Into<String>) -> Error {
    Error::Claims(why.into())
}

/// What an expression makes of a variable.
fn evaluate(program: &Program, variable: &str, value: &Value, budget: &mut Budget, what: &str) -> Result<Value, Error> {
    let failed = |why: &dyn std::fmt::Display| wrong(format!("error evaluating {what}: {why}"));
    let found = program.evaluate(&[(variable, cel::Value::of(value, None))], budget).map_err(|error| failed(&error))?;
    found.to_json().map_err(|why| failed(&why))
}

/// Texts, of which empty ones count as none.
fn texts(value: Value, what: &str) -> Result<Vec<String>, Error> {
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        _ => Err(wrong(format!("error evaluating {what}: expression must return a string or a list of strings"))),
    };
    let all = match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.into_iter().map(text).collect::<Result<_, _>>()?,
        other => vec![text(other)?],
    };
    Ok(all.into_iter().filter(|text| !text.is_empty()).collect())
}

fn claim<'a>(claims: &'a Value, name: &str) -> Result<&'a str, Error> {
    match &claims[name] {
        Value::String(text) => Ok(text),
        Value::Null => Err(wrong(format!("parse claim {}: claim not present", quote(name)))),
        _ => Err(wrong(format!("parse claim {}: it is no string", quote(name)))),
    }
}

/// Refuses a token whose groups have to be asked for at an address that it names (OpenID Connect Core 1.0, section 5.6.2): they are not
/// asked for, and without them it would be another user. Upstream refuses it, too, where it cannot have them.
fn refuse_distributed(claims: &Value, claim: &str) -> Result<(), Error> {
    let source = claims["_claim_names"][claim].as_str().filter(|_| claims.get(claim).is_none());
    let Some(source) = source else { return Ok(()) };
    match claims["_claim_sources"][source]["endpoint"].as_str() {
        None | Some("") => Ok(()),
        Some(_) => Err(wrong(format!("distributed claims are not resolved: the token has no groups in {}", quote(claim)))),
    }
}

impl Mapping {
    /// The user, if all is as it must be.
    pub(super) fn user(&self, claims: &Value) -> Result<User, Error> {
        let mut budget = Budget::new(BUDGET);
        let name = self.name(claims, &mut budget)?;
        let mut user = authn::user(name, self.groups(claims, &mut budget)?);
        user.uid = match &self.uid {
            None => String::new(),
            Some(Source::Claim { claim: name, .. }) => claim(claims, name)?.to_owned(),
            Some(Source::Expression(program)) => {
                match evaluate(program, "claims", claims, &mut budget, "uid claim expression")? {
                    Value::String(uid) => uid,
                    _ => return Err(wrong("error evaluating uid claim expression: uid claim expression must return a string")),
                }
            }
        };
        if let Some(id) = claims["jti"].as_str().filter(|id| !id.is_empty()) {
            user.extra.insert(CREDENTIAL.to_owned(), vec![format!("JTI={id}")]);
        }
        for (key, program) in &self.extra {
            let values =
                texts(evaluate(program, "claims", claims, &mut budget, "extra claim expression")?, "extra claim expression")?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        self.check_claims(claims, &mut budget)?;
        self.check_user(&user, &mut budget)?;
        Ok(user)
    }

    fn name(&self, claims: &Value, budget: &mut Budget) -> Result<String, Error> {
        match &self.username {
            Source::Claim { claim: name, prefix } => {
                let text = claim(claims, name)?;
                let verified = &claims["email_verified"];
                if name == "email" && !verified.is_null() && *verified != true {
                    return Err(wrong("email not verified"));
                }
                Ok(format!("{prefix}{text}"))
            }
            Source::Expression(program) => match evaluate(program, "claims", claims, budget, "username claim expression")? {
                Value::String(name) if name.is_empty() => Err(wrong("empty username via CEL expression is not allowed")),
                Value::String(name) => Ok(name),
                _ => Err(wrong("error evaluating username claim expression: username claim expression must return a string")),
            },
        }
    }

    fn groups(&self, claims: &Value, budget: &mut Budget) -> Result<Vec<String>, Error> {
        match &self.groups {
            None => Ok(Vec::new()),
            Some(Source::Claim { claim, prefix }) => {
                refuse_distributed(claims, claim)?;
                let groups = texts(claims[claim.as_str()].clone(), &format!("groups claim {}", quote(claim)))?;
                Ok(groups.into_iter().map(|group| format!("{prefix}{group}")).collect())
            }
            Some(Source::Expression(program)) => {
                texts(evaluate(program, "claims", claims, budget, "group claim expression")?, "group claim expression")
            }
        }
    }

    fn check_claims(&self, claims: &Value, budget: &mut Budget) -> Result<(), Error> {
        for (name, value) in &self.required {
            if claims[name.as_str()].is_null() {
                return Err(wrong(format!("required claim {name} not present in ID token")));
            }
            let found = claim(claims, name)?;
            if found != value {
                return Err(wrong(format!("required claim {name} value does not match. Got = {found}, want = {value}")));
            }
        }
        hold(&self.claim_rules, "claims", claims, budget, "claim validation expression")
    }

    fn check_user(&self, user: &User, budget: &mut Budget) -> Result<(), Error> {
        if self.user_rules.is_empty() {
            return Ok(());
        }
        // What a token makes of its user, without the group that everybody has.
        let groups: Vec<_> = user.groups.iter().filter(|group| *group != authn::AUTHENTICATED).collect();
        let info = json!({"username": user.name, "uid": user.uid, "groups": groups, "extra": user.extra});
        hold(&self.user_rules, "user", &info, budget, "user info validation rule")
    }
}

fn hold(rules: &[Rule], variable: &str, value: &Value, budget: &mut Budget, what: &str) -> Result<(), Error> {
    for rule in rules {
        match evaluate(&rule.program, variable, value, budget, what)? {
            Value::Bool(true) => {}
            Value::Bool(false) => {
                let message = if rule.message.is_empty() { "validation failed" } else { &rule.message };
                return Err(wrong(format!("error evaluating {what}: validation expression '{}' failed: {message}", rule.source)));
            }
            _ => return Err(wrong(format!("error evaluating {what}: validation expression must return a boolean"))),
        }
    }
    Ok(())
}
