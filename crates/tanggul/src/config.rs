//! Configuration: one typed TOML file, unknown keys refused, reference generated from these types.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration `{0}` cannot be read")]
    File(String, #[source] std::io::Error),
    #[error("the configuration `{0}` does not fit: {1}")]
    Syntax(String, String),
    #[error("there is no limit `{0}` to be set; `tanggul limits` prints them all")]
    Limit(String),
    #[error("the context file `{0}` cannot be used: {1}")]
    Context(String, String),
}

/// The whole configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the data lies; its keys lie beside it, in `DIR.keys`.
    pub data: Option<PathBuf>,
    /// Where the keys lie, if not beside the data.
    pub keys: Option<PathBuf>,
    /// Addresses the doors listen on.
    pub listen: Listen,
    /// Certificates.
    pub tls: Tls,
    /// JSON-LD contexts: URL to file. Nothing is ever fetched.
    pub contexts: BTreeMap<String, PathBuf>,
    /// Where the hub may send to.
    pub egress: Egress,
    /// The log of acts.
    pub log: Log,
    /// What the store keeps free and when it seals.
    pub store: StoreConfig,
    /// The console.
    pub console: Console,
    /// Limits that are not the default, by the names that `tanggul limits` prints.
    pub limits: BTreeMap<String, usize>,
}

/// Addresses the doors listen on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// HTTPS: address and port.
    #[schemars(with = "String")]
    pub https: SocketAddr,
    /// MQTT over TLS: address and port.
    #[schemars(with = "String")]
    pub mqtt: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        Listen { https: ([127, 0, 0, 1], 8443).into(), mqtt: ([127, 0, 0, 1], 8883).into() }
    }
}

/// Certificates.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Names and addresses in the certificate that the hub's own CA makes.
    pub names: Vec<String>,
    /// A certificate chain in PEM, instead of one by the hub's own CA.
    pub certificate: Option<PathBuf>,
    /// The key that belongs to `certificate`, in PEM.
    pub key: Option<PathBuf>,
    /// Speak TLS 1.2 too, for devices that know no better.
    pub allow_tls12: bool,
}

impl Default for Tls {
    fn default() -> Self {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        Tls { names, certificate: None, key: None, allow_tls12: false }
    }
}

/// Where the hub may send to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    /// `host:port`, or `host` for any port. Nothing else is ever connected to.
    pub allow: Vec<String>,
}

/// The log of acts.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The log's name in checkpoints: a host and path of the city's own, without a scheme. It is
    /// fixed once the log has begun.
    pub origin: String,
}

impl Default for Log {
    fn default() -> Self {
        Log { origin: "tanggul.localhost/log".into() }
    }
}

/// The console.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Console {
    /// A map of the city as a PMTiles file of vector tiles; without it the map shows the boundaries
    /// that the hub holds.
    pub map: Option<PathBuf>,
}

/// What the store keeps free and when it seals.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Ordinary writes are refused when the disk has fewer MiB left.
    pub min_free_mib: u64,
    /// Points of a series that are reason to seal; with half as many it gets a chunk of its own.
    pub seal_points: usize,
    /// Unsealed commits of a dataset that are reason to seal.
    pub seal_commits: usize,
    /// Milliseconds that a commit of devices' readings waits for more of them: fewer commits and
    /// records, later acknowledgements.
    pub gather_ms: u64,
    /// Milliseconds between two looks at what is to be sealed, in steps of 100.
    pub seal_every_ms: u64,
    /// Milliseconds between two looks at what is past its retention, in steps of 100.
    pub retain_every_ms: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        let tidying = hub::Tidying::default();
        StoreConfig {
            min_free_mib: 64,
            seal_points: 512,
            seal_commits: 4_096,
            gather_ms: 20,
            seal_every_ms: tidying.seal_ms,
            retain_every_ms: tidying.retain_ms,
        }
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// When it cannot be read or a key is unknown or of another kind.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::File(shown.clone(), error))?;
        toml::from_str(&text).map_err(|error| ConfigError::Syntax(shown, error.to_string()))
    }

    /// The limits of the doors and the hub.
    ///
    /// # Errors
    /// When one is set that is not known.
    pub fn limits(&self) -> Result<(server::Limits, hub::Limits), ConfigError> {
        let (mut doors, mut own) = (server::Limits::default(), hub::Limits::default());
        for (name, value) in &self.limits {
            if !doors.set(name, *value) && !own.set(name, *value) {
                return Err(ConfigError::Limit(name.clone()));
            }
        }
        Ok((doors, own))
    }

    /// The documents of all contexts.
    ///
    /// # Errors
    /// When one cannot be read or is no JSON.
    pub fn context_documents(
        &self,
    ) -> Result<std::collections::HashMap<String, model::Value>, ConfigError> {
        let mut documents = std::collections::HashMap::new();
        for (url, path) in &self.contexts {
            let wrong = |what: String| ConfigError::Context(path.display().to_string(), what);
            let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let value = ngsild::parse_json(&bytes).map_err(|invalid| wrong(invalid.to_string()))?;
            documents.insert(url.clone(), value);
        }
        Ok(documents)
    }
}

/// The reference, from the types: every key with its kind, default and meaning.
pub fn reference() -> String {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap_or_default();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut text = String::from(
        "# Configuration\n\nOne TOML file; unknown keys are refused. Made from the types by \
         `tanggul config reference`.\n\n| key | kind | default | meaning |\n|---|---|---|---|\n",
    );
    rows(&mut text, &schema, &schema, &defaults, "");
    text
}

fn rows(
    text: &mut String,
    root: &serde_json::Value,
    schema: &serde_json::Value,
    defaults: &serde_json::Value,
    prefix: &str,
) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, property) in properties {
        let key = format!("{prefix}{name}");
        let target = property["$ref"].as_str().and_then(|path| path.rsplit('/').next());
        if let Some(inner) = target.map(|name| &root["$defs"][name]) {
            rows(text, root, inner, &defaults[name], &format!("{key}."));
            continue;
        }
        let kind = match &property["type"] {
            serde_json::Value::Array(kinds) => {
                kinds.first().and_then(|kind| kind.as_str()).unwrap_or("any").to_owned()
            }
            kind => kind.as_str().unwrap_or("any").to_owned(),
        };
        let meaning = property["description"].as_str().unwrap_or_default().replace('\n', " ");
        let default = match &defaults[name] {
            serde_json::Value::Null => "none".to_owned(),
            value => format!("`{value}`"),
        };
        text.push_str(&format!("| `{key}` | {kind} | {default} | {meaning} |\n"));
    }
}

/// A sample that is itself a working configuration.
pub fn sample() -> String {
    let mut config = Config { data: Some("/var/lib/tanggul".into()), ..Config::default() };
    config.egress.allow.push("receiver.example:443".into());
    toml::to_string_pretty(&config).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_a_configuration() {
        let config: Config = toml::from_str(&sample()).unwrap();
        assert_eq!(config.listen.https.port(), 8443);
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let error = toml::from_str::<Config>("[listen]\nhtps = \"127.0.0.1:1\"\n").unwrap_err();
        assert!(error.to_string().contains("htps"), "{error}");
        let config: Config = toml::from_str("[limits]\nhttp_bodi = 1\n").unwrap();
        assert!(config.limits().unwrap_err().to_string().contains("http_bodi"));
        let config: Config = toml::from_str("[limits]\nhttp_body = 7\nwatches = 8\n").unwrap();
        let (doors, own) = config.limits().unwrap();
        assert_eq!((doors.http_body, own.watches), (7, 8));
    }

    #[test]
    fn the_reference_in_docs_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        assert_eq!(std::fs::read_to_string(path).unwrap(), reference(), "run `cargo xtask docs`");
    }
}
