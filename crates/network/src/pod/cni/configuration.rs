//! Networks as files configure them (CNI specification, section 1). Pure, but for reading the directory.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Error;

/// The versions of the specification whose results have the form that is read here.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Most bytes of a file.
const FILE: u64 = 1 << 20;

/// A network and its plugins, in the order in which they add a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::pod) struct Network {
    name: String,
    version: String,
    plugins: Vec<Map<String, Value>>,
}

impl Network {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn plugins(&self) -> impl DoubleEndedIterator<Item = &Map<String, Value>> {
        self.plugins.iter()
    }

    /// Whether one of its plugins has a capability.
    pub(super) fn can(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| has(plugin, capability))
    }

    /// What a plugin is told: its own part of the configuration, the network's name and version, what the plugin before has said, and what it can be
    /// told of the pod.
    pub(super) fn configuration(
        &self,
        plugin: &Map<String, Value>,
        previous: Option<&Value>,
        runtime: &Map<String, Value>,
    ) -> Map<String, Value> {
        let mut configuration = plugin.clone();
        configuration.insert("name".to_owned(), self.name.clone().into());
        configuration.insert("cniVersion".to_owned(), self.version.clone().into());
        configuration.extend(previous.map(|previous| ("prevResult".to_owned(), previous.clone())));
        if !runtime.is_empty() {
            configuration.insert("runtimeConfig".to_owned(), runtime.clone().into());
        }
        // It is for who runs the plugins.
        configuration.remove("capabilities");
        configuration
    }

    /// The network of a file: a list of plugins, or one plugin.
    fn read(file: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(file).map_err(|error| error.to_string())?;
        let Value::Object(mut top) = value else { return Err("is no object".to_owned()) };
        let text = |top: &Map<String, Value>, key: &str| top.get(key).and_then(Value::as_str).map(str::to_owned);
        let name =
            text(&top, "name").filter(|name| is_name(name)).ok_or("\"name\" has to be a name of letters, digits, _, . and -")?;
        let version = text(&top, "cniVersion").unwrap_or_default();
        if !VERSIONS.contains(&version.as_str()) {
            return Err(format!("\"cniVersion\" is {version:?}: known are {}", VERSIONS.join(", ")));
        }
        let plugins = match top.remove("plugins") {
            None => vec![Value::Object(top)],
            Some(Value::Array(plugins)) if !plugins.is_empty() => plugins,
            Some(_) => return Err("\"plugins\" has to be a list of plugins".to_owned()),
        };
        let plugin = |plugin: Value| match plugin {
            Value::Object(plugin) if text(&plugin, "type").is_some_and(|kind| is_name(&kind)) => Ok(plugin),
            _ => Err("the \"type\" of a plugin has to be the name of a program"),
        };
        Ok(Self { name, version, plugins: plugins.into_iter().map(plugin).collect::<Result<_, _>>()? })
    }
}

/// Whether a plugin says that it can be told of something.
pub(super) fn has(plugin: &Map<String, Value>, capability: &str) -> bool {
    plugin.get("capabilities").and_then(|all| all[capability].as_bool()).unwrap_or(false)
}

/// The network of a directory: that of the first file which can be read, in the order of their names, as everybody chooses who runs plugins.
pub(super) fn load(directory: &Path) -> Result<Network, Error> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path, source }
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Unconfigured(directory.to_owned())),
        entries => entries.map_err(unreadable(directory))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(unreadable(directory))?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|end| ["conflist", "conf", "json"].iter().any(|known| end == *known)));
    paths.sort();
    for path in paths {
        let file = base::records::read_file(&path, FILE).map_err(unreadable(&path))?;
        match Network::read(&String::from_utf8_lossy(&file)) {
            Ok(network) => return Ok(network),
            Err(why) => tracing::warn!(file = %path.display(), why, "this configures no network, the next one is tried"),
        }
    }
    Err(Error::Unconfigured(directory.to_owned()))
}

/// A name that can be one of a file, too.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files() {
        #[track_caller]
        fn check(file: &str, expected: Result<&[&str], &str>) {
            let read = Network::read(file);
            let kinds = |network: &Network| network.plugins().map(|one| one["type"].as_str().unwrap().to_owned()).collect();
            let found: Result<Vec<String>, _> = read.as_ref().map(kinds).map_err(String::as_str);
            assert_eq!(found, expected.map(|kinds| kinds.iter().map(|kind| (*kind).to_owned()).collect()), "{file}");
        }
        check(r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "a"}, {"type": "b"}]}"#, Ok(&["a", "b"]));
        check(r#"{"cniVersion": "0.3.1", "name": "n", "type": "a"}"#, Ok(&["a"]));
        check(r#"{"cniVersion": "1.0.0", "name": "n", "plugins": []}"#, Err("\"plugins\" has to be a list of plugins"));
        let name = "\"name\" has to be a name of letters, digits, _, . and -";
        check(r#"{"cniVersion": "1.0.0", "name": "../n", "type": "a"}"#, Err(name));
        check(r#"{"cniVersion": "1.0.0", "type": "a"}"#, Err(name));
        let kind = "the \"type\" of a plugin has to be the name of a program";
        for plugin in [r#"{}"#, r#"{"type": "../sh"}"#, r#"{"type": "/bin/sh"}"#, "7"] {
            check(&format!(r#"{{"cniVersion": "1.0.0", "name": "n", "plugins": [{plugin}]}}"#), Err(kind));
        }
        let known = "known are 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0";
        check(r#"{"cniVersion": "0.2.0", "name": "n", "type": "a"}"#, Err(&format!("\"cniVersion\" is \"0.2.0\": {known}")));
        check(r#"{"name": "n", "type": "a"}"#, Err(&format!("\"cniVersion\" is \"\": {known}")));
        check("[]", Err("is no object"));
        assert!(Network::read("{").is_err());
    }

    #[test]
    fn the_first_that_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let named = |name: &str| format!(r#"{{"cniVersion": "1.0.0", "name": "{name}", "type": "a"}}"#);
        let load = || load(directory.path()).map(|network| network.name).map_err(|error| error.to_string());
        assert!(load().unwrap_err().starts_with("no network is configured in "));
        for (file, text) in
            [("30-c.conf", named("c")), ("10-a.conflist", "{".to_owned()), ("00-readme", named("no")), ("20-b.json", named("b"))]
        {
            fs::write(directory.path().join(file), text).unwrap();
        }
        assert_eq!(load().unwrap(), "b");
        assert!(super::load(&directory.path().join("missing")).is_err());
    }

    #[test]
    fn what_plugins_are_told() {
        let network = Network::read(
            r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "a", "x": 1, "capabilities": {"bandwidth": true}}]}"#,
        )
        .unwrap();
        let plugin = network.plugins().next().unwrap();
        let told = |previous: Option<&Value>, runtime: Value| {
            Value::Object(network.configuration(plugin, previous, runtime.as_object().unwrap()))
        };
        let first = serde_json::json!({"type": "a", "x": 1, "name": "n", "cniVersion": "1.0.0"});
        assert_eq!(told(None, serde_json::json!({})), first);
        let previous = serde_json::json!({"ips": []});
        let mut second = first;
        second["prevResult"] = previous.clone();
        second["runtimeConfig"] = serde_json::json!({"bandwidth": {}});
        assert_eq!(told(Some(&previous), serde_json::json!({"bandwidth": {}})), second);
        assert!(network.can("bandwidth") && !network.can("portMappings"));
    }
}
