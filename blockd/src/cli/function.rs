//! `blockd function`: the functions of a daemon, through its control socket.

mod bench;
mod configuration;
mod output;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blockd::api::{Client, DEFAULT_TENANT, Ids, ShownLetter, ShownStats, status};
use blockd::config::ClientArgs;
use blockd::report_kind::RemoteError;
use bytes::Bytes;
use clap::{Args, Subcommand};
use configuration::Configuration;
use http_body_util::Full;
use hyper::{Method, Request, Response};
use photon::invocation::LogLine;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::ExitCode;

/// Exit code of `invoke` where the function failed.
const FUNCTION_FAILED: u8 = 1;
/// Longest payload that is read, in bytes: the daemon says more clearly what is too long.
const MAX_PAYLOAD_BYTES: u64 = 7 << 20;

/// Which daemon, and whose functions.
#[derive(Debug, Args)]
pub(crate) struct Whose {
    /// Whose functions
    #[arg(long, env = "LANTERN_TENANT", default_value = DEFAULT_TENANT)]
    tenant: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum FunctionCommand {
    /// Make a function of an image
    #[command(
        after_help = "Examples:\n  blockd function create hello app\n  blockd function create hello app --runtime python --timeout 30 -e STAGE=test -- app.handler"
    )]
    Create {
        /// Its name
        name: String,
        /// Name or digest (sha256:…) of the image
        image: String,
        #[command(flatten)]
        configuration: Box<Configuration>,
        #[command(flatten)]
        whose: Whose,
    },
    /// Change what a function is run with; what is not named stays
    #[command(
        after_help = "Examples:\n  blockd function update hello --image app:2\n  blockd function update hello --timeout 60 -e STAGE=prod"
    )]
    Update {
        /// Its name
        name: String,
        /// Name or digest (sha256:…) of another image
        #[arg(long)]
        image: Option<String>,
        #[command(flatten)]
        configuration: Box<Configuration>,
        #[command(flatten)]
        whose: Whose,
    },
    /// Show a function, as JSON
    #[command(after_help = "Examples:\n  blockd function get hello | jq .Configuration")]
    Get {
        /// Its name
        name: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// List functions
    #[command(
        after_help = "Examples:\n  blockd function list\n  blockd function list --json | jq -r '.[].FunctionName'"
    )]
    List {
        #[command(flatten)]
        whose: Whose,
    },
    /// Invoke a function and print its answer
    #[command(
        after_help = "Examples:\n  blockd function invoke hello '{\"name\":\"you\"}'\n  blockd function invoke hello @event.json --log\n  echo '{}' | blockd function invoke hello -\n  blockd function invoke hello --async\n\nExit codes: 1 the function failed (its error is printed); else as for blockd."
    )]
    Invoke {
        /// Its name
        name: String,
        /// JSON, @FILE, or - for standard input [default: {}]
        payload: Option<String>,
        /// Only hand the event over: it is run later, and again if it fails
        #[arg(long = "async", conflicts_with = "log")]
        asynchronous: bool,
        /// Print the end of its log on standard error
        #[arg(long)]
        log: bool,
        #[command(flatten)]
        whose: Whose,
    },
    /// Fire many invocations at once and say what they cost: latency, sandboxes, memory
    #[command(
        after_help = "Examples:\n  blockd function bench hello --at-once 200\n  blockd function bench hello '{\"name\":\"you\"}' --at-once 50 --json | jq .bytes_per_invocation\n\nMemory is read on this host, as root. Exit code 1 if one of them failed or was refused."
    )]
    Bench {
        /// Its name
        name: String,
        /// JSON, @FILE, or - for standard input [default: {}]
        payload: Option<String>,
        /// So many
        #[arg(long, default_value_t = 100)]
        at_once: usize,
        #[command(flatten)]
        whose: Whose,
    },
    /// Print the newest log lines of a function
    #[command(
        after_help = "Examples:\n  blockd function logs hello\n  blockd function logs hello --bytes 1000000 --json"
    )]
    Logs {
        /// Its name
        name: String,
        /// Most bytes [default: 65536]
        #[arg(long)]
        bytes: Option<usize>,
        #[command(flatten)]
        whose: Whose,
    },
    /// Show what a function's sandboxes do
    #[command(
        after_help = "Examples:\n  blockd function stats hello\n  blockd function stats hello --json | jq .function.sandboxes"
    )]
    Stats {
        /// Its name
        name: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// Remove a function; what runs of it ends first
    #[command(after_help = "Examples:\n  blockd function delete hello")]
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// Print the events that came to nothing, the oldest first
    #[command(
        after_help = "Examples:\n  blockd function dead-letters\n  blockd function dead-letters --drain --json > letters.json"
    )]
    DeadLetters {
        /// Remove them once they are printed
        #[arg(long)]
        drain: bool,
        #[command(flatten)]
        whose: Whose,
    },
}

/// A daemon's functions, as one tenant sees them.
struct Functions {
    client: Client,
    tenant: String,
    json: bool,
}

impl Functions {
    async fn of(whose: Whose) -> Result<Self> {
        let client = crate::daemon(whose.client).await?;
        Ok(Self { client, tenant: whose.tenant, json: whose.json })
    }

    /// Sends a request; an answer that is a refusal is an error with the exit code it means.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        let response = self.client.functions(&self.tenant, request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let kind = response.headers().get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        let exit_code = kind.map_or(70, status::exit_code);
        let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        let message = body["Message"].as_str().map_or_else(
            || format!("the daemon refused with {}; is it of the same version?", response.status()),
            Into::into,
        );
        Err(RemoteError { message, exit_code }.into())
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Bytes>> {
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        self.send(request.body(Full::new(body.into()))?).await
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let response = self.call(Method::GET, path, None).await?;
        serde_json::from_slice(response.body()).context("the daemon speaks another version; restart it")
    }
}

/// A name as a part of a path.
fn part(name: &str) -> String {
    use std::fmt::Write;
    name.bytes().fold(String::with_capacity(name.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

fn path(name: &str, end: &str) -> String {
    format!("/v1/lambda/2015-03-31/functions/{}{end}", part(name))
}

fn payload(given: Option<&str>) -> Result<Bytes> {
    let mut bytes = Vec::new();
    match given {
        None => {}
        Some("-") => drop(std::io::stdin().lock().take(MAX_PAYLOAD_BYTES).read_to_end(&mut bytes)?),
        Some(text) => match text.strip_prefix('@') {
            Some(file) => {
                let opened = std::fs::File::open(file).with_context(|| format!("cannot read {file}"))?;
                opened.take(MAX_PAYLOAD_BYTES).read_to_end(&mut bytes)?;
            }
            None => bytes.extend_from_slice(text.as_bytes()),
        },
    }
    Ok(bytes.into())
}

async fn create(functions: &Functions, name: &str, image: &str, configuration: &Configuration) -> Result<()> {
    let mut body = configuration.body(&Value::Null)?;
    body["FunctionName"] = name.into();
    body["PackageType"] = "Image".into();
    body["Code"] = json!({"ImageUri": image});
    let made = functions.call(Method::POST, "/v1/lambda/2015-03-31/functions", Some(&body)).await?;
    output::one(functions.json, "made", made.body())
}

async fn update(
    functions: &Functions,
    name: &str,
    image: Option<&str>,
    configuration: &Configuration,
) -> Result<()> {
    let mut changed = None;
    let before: Value = functions.read(&path(name, "/configuration")).await?;
    let body = configuration.body(&before)?;
    if body != json!({}) {
        changed = Some(functions.call(Method::PUT, &path(name, "/configuration"), Some(&body)).await?);
    }
    if let Some(image) = image {
        let body = json!({"ImageUri": image});
        changed = Some(functions.call(Method::PUT, &path(name, "/code"), Some(&body)).await?);
    }
    let Some(changed) = changed else {
        bail!(RemoteError { message: "nothing to change; see --help".into(), exit_code: 2 });
    };
    output::one(functions.json, "changed", changed.body())
}

async fn list(functions: &Functions) -> Result<()> {
    let mut all = Vec::new();
    let mut query = String::new();
    loop {
        let page: Value = functions.read(&format!("/v1/lambda/2015-03-31/functions{query}")).await?;
        all.extend(page["Functions"].as_array().cloned().unwrap_or_default());
        match page["NextMarker"].as_str() {
            Some(marker) => query = format!("?Marker={}", part(marker)),
            None => return output::list(functions.json, &all),
        }
    }
}

async fn invoke(
    functions: &Functions,
    name: &str,
    given: Option<&str>,
    (asynchronous, log): (bool, bool),
) -> Result<ExitCode> {
    let request = Request::post(path(name, "/invocations"))
        .header("x-amz-invocation-type", if asynchronous { "Event" } else { "RequestResponse" })
        .header("x-amz-log-type", if log { "Tail" } else { "None" });
    let response = functions.send(request.body(Full::new(payload(given)?))?).await?;
    let headers = response.headers();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(tail) = text("x-amz-log-result").and_then(|value| STANDARD.decode(value).ok()) {
        std::io::stderr().write_all(&tail)?;
    }
    let mut out = std::io::stdout().lock();
    if asynchronous {
        writeln!(out, "{}", text("x-amzn-requestid").unwrap_or_default())?;
    } else {
        out.write_all(response.body())?;
        writeln!(out)?;
    }
    let failed = headers.contains_key("x-amz-function-error");
    Ok(if failed { ExitCode::from(FUNCTION_FAILED) } else { ExitCode::SUCCESS })
}

/// All of them, as many at a time as the daemon gives. Removed only after they are printed, so
/// that a closed pipe loses none.
async fn dead_letters(functions: &Functions, drain: bool) -> Result<()> {
    let mut query = String::new();
    loop {
        let letters: Vec<ShownLetter> = functions.read(&format!("/v1/dead-letters{query}")).await?;
        output::dead_letters(functions.json, &letters)?;
        let Some(last) = letters.last() else { return Ok(()) };
        query = format!("?after={}", last.id);
        if drain {
            let ids = Ids { ids: letters.iter().map(|letter| letter.id).collect() };
            let body = serde_json::to_value(ids)?;
            functions.call(Method::POST, "/v1/dead-letters/remove", Some(&body)).await?;
        }
    }
}

/// Does what is asked.
pub(crate) async fn run(command: FunctionCommand) -> Result<ExitCode> {
    use FunctionCommand as C;
    match command {
        C::Create { name, image, configuration, whose } => {
            create(&Functions::of(whose).await?, &name, &image, &configuration).await?;
        }
        C::Update { name, image, configuration, whose } => {
            update(&Functions::of(whose).await?, &name, image.as_deref(), &configuration).await?;
        }
        C::Get { name, whose } => {
            output::json(&Functions::of(whose).await?.read::<Value>(&path(&name, "")).await?)?;
        }
        C::List { whose } => list(&Functions::of(whose).await?).await?,
        C::Invoke { name, payload, asynchronous, log, whose } => {
            let functions = Functions::of(whose).await?;
            return invoke(&functions, &name, payload.as_deref(), (asynchronous, log)).await;
        }
        C::Bench { name, payload, at_once, whose } => {
            return bench::bench(Functions::of(whose).await?, &name, payload.as_deref(), at_once).await;
        }
        C::Logs { name, bytes, whose } => {
            let functions = Functions::of(whose).await?;
            let query = bytes.map(|bytes| format!("?bytes={bytes}")).unwrap_or_default();
            let lines: Vec<LogLine> =
                functions.read(&format!("/v1/functions/{}/logs{query}", part(&name))).await?;
            output::logs(functions.json, &lines)?;
        }
        C::Stats { name, whose } => {
            let functions = Functions::of(whose).await?;
            let stats: ShownStats = functions.read(&format!("/v1/functions/{}/stats", part(&name))).await?;
            output::stats(functions.json, &stats)?;
        }
        C::Delete { name, whose } => {
            drop(Functions::of(whose).await?.call(Method::DELETE, &path(&name, ""), None).await?);
        }
        C::DeadLetters { drain, whose } => dead_letters(&Functions::of(whose).await?, drain).await?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[1]").unwrap();
        assert_eq!(payload(None).unwrap(), "");
        assert_eq!(payload(Some("{}")).unwrap(), "{}");
        assert_eq!(payload(Some(&format!("@{}", file.path().display()))).unwrap(), "[1]");
        assert!(payload(Some("@/nonexistent")).is_err());
        assert_eq!(part("a:$b/c"), "a%3A%24b%2Fc");
    }
}
