//! What an OCI image configuration says about running it (image-spec, config.md).
//!
//! Invariant: any JSON of that shape is accepted, other fields are ignored, and nothing here
//! reaches a file: values become arguments of an OCI runtime only.

use serde::Deserialize;

/// The part of an image configuration that running needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `NAME=value`.
    #[serde(deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// What always runs.
    #[serde(deserialize_with = "null_is_empty")]
    pub entrypoint: Vec<String>,
    /// Its default arguments, or the command where there is no entrypoint.
    #[serde(deserialize_with = "null_is_empty")]
    pub cmd: Vec<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`, …; empty for root.
    pub user: String,
    /// Where it starts; empty for `/`.
    pub working_dir: String,
}

#[derive(Deserialize)]
struct Outer {
    #[serde(default)]
    config: Option<ImageConfig>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl ImageConfig {
    /// Reads an image configuration.
    ///
    /// # Errors
    /// The parser's, with line and column.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(serde_json::from_slice::<Outer>(json)?.config.unwrap_or_default())
    }

    /// What to run: `entrypoint` and `args` replace the image's own; arguments that are not
    /// given are the image's only if the entrypoint is the image's too, as Docker does.
    #[must_use]
    pub fn command(&self, entrypoint: Option<&[String]>, args: &[String]) -> Vec<String> {
        let own = entrypoint.is_none();
        let mut command = entrypoint.unwrap_or(&self.entrypoint).to_vec();
        command.extend_from_slice(if args.is_empty() && own { &self.cmd } else { args });
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn commands_combine_as_in_docker() {
        let both =
            ImageConfig { entrypoint: words("python3"), cmd: words("main.py"), ..ImageConfig::default() };
        for (entrypoint, args, want) in [
            (None, "", "python3 main.py"),
            (None, "-c 1", "python3 -c 1"),
            (Some("sh"), "", "sh"),
            (Some("sh"), "-x", "sh -x"),
        ] {
            let entrypoint = entrypoint.map(words);
            assert_eq!(both.command(entrypoint.as_deref(), &words(args)), words(want));
        }
    }

    #[test]
    fn nulls_and_absences_are_empty() {
        for json in ["{}", r#"{"config":null}"#, r#"{"config":{"Env":null,"Cmd":null}}"#] {
            assert_eq!(ImageConfig::parse(json.as_bytes()).unwrap(), ImageConfig::default(), "{json}");
        }
        assert!(ImageConfig::parse(b"3").is_err());
        assert!(ImageConfig::parse(br#"{"config":{"Env":3}}"#).is_err());
    }
}
