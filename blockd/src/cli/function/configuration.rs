//! What a function is run with: flags, and the fields of the Lambda API that they become.

use anyhow::{Result, bail};
use blockd::cpus::cpus;
use blockd::report_kind::RemoteError;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

/// What runs a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RuntimeArg {
    /// The image's own runtime client
    Image,
    /// The image serves HTTP
    Http,
    /// Lantern's Python runtime
    Python,
    /// Lantern's Java runtime
    Java,
}

/// What a function is run with.
#[derive(Debug, Args)]
#[command(next_help_heading = "Function")]
pub(crate) struct Configuration {
    /// What runs it [default: image]
    #[arg(long, value_enum)]
    runtime: Option<RuntimeArg>,
    /// Longest invocation, in seconds, 1 to 900 [default: 3]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Most memory of a sandbox, in MiB, 128 to 10240 [default: measured]
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Most CPU of a sandbox, such as 1.5 [default: not limited]
    #[arg(long, value_name = "CPUS", value_parser = checked_cpus)]
    cpus: Option<String>,
    /// Most invocations at once in a sandbox, 1 to 1024 [default: 1 for image, else 64]
    #[arg(long, value_name = "N")]
    max_concurrency: Option<u32>,
    /// Network: none or bridge [default: none]
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// Environment variable; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Run this instead of the image's entrypoint
    #[arg(long)]
    entrypoint: Option<String>,
    /// Working directory
    #[arg(long, short)]
    workdir: Option<String>,
    /// Who is told of events that came to nothing: ARN of a function, or
    /// arn:aws:lantern:::dead-letters
    #[arg(long, value_name = "ARN")]
    dead_letter: Option<String>,
    /// The image's command, or the handler for python and java
    #[arg(last = true)]
    command: Vec<String>,
}

fn checked_cpus(text: &str) -> Result<String, String> {
    cpus(text).map(|_| text.into())
}

impl Configuration {
    /// The variables that are named, with Lantern's own settings.
    fn variables(&self) -> Result<Vec<(String, Value)>> {
        let mut variables = Vec::new();
        let runtime = self.runtime.and_then(|runtime| runtime.to_possible_value());
        for (name, value) in [
            ("LANTERN_RUNTIME", runtime.map(|value| value.get_name().to_owned())),
            ("LANTERN_MAX_CONCURRENCY", self.max_concurrency.map(|most| most.to_string())),
            ("LANTERN_CPUS", self.cpus.clone()),
            ("LANTERN_NETWORK", self.network.clone()),
        ] {
            variables.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        for text in &self.env {
            let Some((name, value)) = text.split_once('=') else {
                bail!(RemoteError { message: format!("-e {text:?} must be NAME=VALUE"), exit_code: 2 });
            };
            variables.push((name.into(), value.into()));
        }
        Ok(variables)
    }

    /// The fields of the Lambda API for what is named, over what there is `before`.
    pub(super) fn body(&self, before: &Value) -> Result<Value> {
        let mut body = json!({});
        for (field, value) in [("Timeout", self.timeout), ("MemorySize", self.memory)] {
            if let Some(value) = value {
                body[field] = value.into();
            }
        }
        let variables = self.variables()?;
        if !variables.is_empty() {
            let mut merged = before["Environment"]["Variables"].as_object().cloned().unwrap_or_default();
            merged.extend(variables);
            body["Environment"] = json!({"Variables": merged});
        }
        let mut image = before["ImageConfigResponse"]["ImageConfig"].as_object().cloned().unwrap_or_default();
        let known = image.clone();
        if let Some(program) = &self.entrypoint {
            image.insert("EntryPoint".into(), json!([program]));
        }
        if !self.command.is_empty() {
            image.insert("Command".into(), json!(self.command));
        }
        if let Some(directory) = &self.workdir {
            image.insert("WorkingDirectory".into(), json!(directory));
        }
        if image != known {
            body["ImageConfig"] = image.into();
        }
        if let Some(arn) = &self.dead_letter {
            body["DeadLetterConfig"] = json!({"TargetArn": arn});
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(words: &str) -> Configuration {
        #[derive(Debug, clap::Parser)]
        struct Parser {
            #[command(flatten)]
            configuration: Configuration,
        }
        let words = std::iter::once("x").chain(words.split(' ').filter(|word| !word.is_empty()));
        <Parser as clap::Parser>::parse_from(words).configuration
    }

    #[test]
    fn flags_become_fields_over_what_there_is() {
        let before = json!({
            "Environment": {"Variables": {"AB": "1", "CD": "2"}},
            "ImageConfigResponse": {"ImageConfig": {"Command": ["old"], "WorkingDirectory": "/w"}},
        });
        let flags = "--runtime python --timeout 9 --memory 128 --cpus 0.5 -e AB=3=4 -- app.handler";
        assert_eq!(
            configuration(flags).body(&before).unwrap(),
            json!({
                "Timeout": 9, "MemorySize": 128,
                "Environment": {"Variables":
                    {"AB": "3=4", "CD": "2", "LANTERN_RUNTIME": "python", "LANTERN_CPUS": "0.5"}},
                "ImageConfig": {"Command": ["app.handler"], "WorkingDirectory": "/w"},
            })
        );
        assert_eq!(configuration("").body(&before).unwrap(), json!({}));
        assert!(configuration("-e AB").body(&before).is_err());
    }
}
