//! The EncryptionConfiguration of `knarr secrets-encryption`, and how the commands change it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::EncryptionCommand;

/// What stands above all.
const HEAD: &str = "# Written by `knarr secrets-encryption`. What is encrypted cannot be read without its key: keep a copy.\n";

/// A key and its name.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Key {
    name: String,
    secret: String,
}

/// The keys, the one that encrypts first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    keys: Vec<Key>,
    /// Whether anything is encrypted from now on.
    pub(super) enabled: bool,
}

/// What is done to the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// What it is while Secrets are written anew.
    pub(super) first: Keys,
    /// What it is then, if that is something else.
    pub(super) after: Option<Keys>,
}

impl Keys {
    /// The names of the keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.name.as_str())
    }

    /// Reads the file; None when there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(path.display().to_string()),
        };
        Self::parse(&text).with_context(|| path.display().to_string()).map(Some)
    }

    fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_saphyr::from_str(text)?;
        let providers = value["resources"][0]["providers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let keys = providers.iter().find_map(|provider| provider["aesgcm"]["keys"].as_array());
        let Some(keys) = keys else { bail!("it is not as `knarr secrets-encryption` writes it") };
        let keys = keys.iter().map(|key| Ok(serde_json::from_value(key.clone())?)).collect::<Result<_>>()?;
        let enabled = providers.first().is_some_and(|provider| provider["aesgcm"].is_object());
        Ok(Self { keys, enabled })
    }

    fn render(&self) -> Result<String> {
        let (encrypted, plain) = (json!({"aesgcm": {"keys": self.keys}}), json!({"identity": {}}));
        let providers = if self.enabled { [encrypted, plain] } else { [plain, encrypted] };
        let configuration = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": providers}]});
        Ok(format!("{HEAD}{}\n", serde_json::to_string_pretty(&configuration)?))
    }

    /// Writes the file, for nobody else to read.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        base::tls::write_private(path, self.render()?.as_bytes()).with_context(|| path.display().to_string())
    }

    /// With a new key, which comes first.
    fn with(mut self, secret: String) -> Self {
        let number = |key: &Key| key.name.strip_prefix("key-")?.parse::<u32>().ok();
        let next = self.keys.iter().filter_map(number).max().unwrap_or(0) + 1;
        self.keys.insert(0, Key { name: format!("key-{next}"), secret });
        self
    }
}

/// What a command makes of the keys. `secret` makes a new one.
pub(super) fn plan(keys: Option<Keys>, command: EncryptionCommand, secret: impl FnOnce() -> Option<String>) -> Result<Plan> {
    let secret = || secret().context("this machine has no random numbers");
    let plain = |first| Ok(Plan { first, after: None });
    match (command, keys) {
        (EncryptionCommand::Enable, None) => plain(Keys { keys: Vec::new(), enabled: true }.with(secret()?)),
        (EncryptionCommand::Enable, Some(keys)) => plain(Keys { enabled: true, ..keys }),
        (_, None) => bail!("Secrets are not encrypted: `knarr secrets-encryption enable` changes that"),
        (EncryptionCommand::Disable, Some(keys)) => plain(Keys { enabled: false, ..keys }),
        (EncryptionCommand::Rotate, Some(keys)) if keys.enabled => {
            let first = keys.with(secret()?);
            let newest = first.keys.first().cloned().into_iter().collect();
            Ok(Plan { after: Some(Keys { keys: newest, enabled: true }), first })
        }
        (EncryptionCommand::Rotate, Some(_)) => {
            bail!("Secrets are not encrypted: `knarr secrets-encryption enable` changes that")
        }
        (EncryptionCommand::Reencrypt | EncryptionCommand::Status, Some(keys)) => plain(keys),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The keys as `+key-2 key-1`: + when they encrypt, - when they only decrypt.
    fn show(keys: &Keys) -> String {
        format!("{}{}", if keys.enabled { '+' } else { '-' }, keys.names().collect::<Vec<_>>().join(" "))
    }

    fn of(text: &str) -> Option<Keys> {
        let keys = text.get(1..)?.split(' ').map(|name| Key { name: name.into(), secret: name.into() }).collect();
        Some(Keys { keys, enabled: text.starts_with('+') })
    }

    #[test]
    fn what_commands_make_of_keys() {
        let check = |before: &str, command, expected: Option<(&str, Option<&str>)>| {
            let plan = plan(of(before), command, || Some("new".into())).ok();
            let shown = plan.map(|plan| (show(&plan.first), plan.after.as_ref().map(show)));
            let shown = shown.as_ref().map(|(first, after)| (first.as_str(), after.as_deref()));
            assert_eq!(shown, expected, "{before} {command:?}");
        };
        check("", EncryptionCommand::Enable, Some(("+key-1", None)));
        check("-key-1", EncryptionCommand::Enable, Some(("+key-1", None)));
        check("+key-1", EncryptionCommand::Enable, Some(("+key-1", None)));
        check("+key-1", EncryptionCommand::Disable, Some(("-key-1", None)));
        check("+key-1", EncryptionCommand::Rotate, Some(("+key-2 key-1", Some("+key-2"))));
        // A rotation that was not finished goes on with another key.
        check("+key-2 key-1", EncryptionCommand::Rotate, Some(("+key-3 key-2 key-1", Some("+key-3"))));
        check("+key-2 key-1", EncryptionCommand::Reencrypt, Some(("+key-2 key-1", None)));
        for command in [EncryptionCommand::Disable, EncryptionCommand::Rotate, EncryptionCommand::Reencrypt] {
            check("", command, None);
        }
        check("-key-1", EncryptionCommand::Rotate, None);
    }

    #[test]
    fn the_file_says_what_the_keys_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("encryption.yaml");
        assert_eq!(Keys::read(&path).unwrap(), None);
        for text in ["+key-2 key-1", "-key-1"] {
            let keys = of(text).unwrap();
            keys.write(&path).unwrap();
            assert_eq!(Keys::read(&path).unwrap(), Some(keys));
        }
        std::fs::write(&path, "{resources: [{providers: [{aescbc: {keys: []}}]}]}").unwrap();
        assert!(Keys::read(&path).is_err(), "somebody else's");
    }
}
