//! A front door in this process, a double of what runs functions, and ways to call it.

use async_trait::async_trait;
use blockd::api::access_keys::AccessKeys;
use blockd::api::lambda::{DoorSettings, serve};
use blockd::functions::images::{ImageResolver, ResolveError, ResolvedImage};
use blockd::functions::{Service, ServiceSettings};
use bytes::Bytes;
use photon::function::{Function, FunctionKey};
use photon::invocation::{FunctionStats, Invocation, InvokeError, Invoker, LogLine, Reply};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

pub(super) const KEY: &str = "LANTERNTESTKEY";
pub(super) const SECRET: &str = "a-secret-for-the-tests/+of-40-characters";

fn found(variable: &str, program: &str, try_it: &[&str]) -> Option<String> {
    let named = std::env::var(variable).ok();
    let program = named.clone().unwrap_or_else(|| program.into());
    let tried = || std::process::Command::new(&program).args(try_it).output();
    if named.is_some() || tried().is_ok_and(|output| output.status.success()) {
        return Some(program);
    }
    eprintln!("SKIPPED: {variable} is not set; scripts/test installs what it names and sets it");
    None
}

/// The AWS CLI, if there is one; says so loudly if not.
pub(super) fn aws_cli() -> Option<String> {
    static FOUND: LazyLock<Option<String>> =
        LazyLock::new(|| found("LANTERN_AWS_CLI", "aws", &["--version"]));
    FOUND.clone()
}

/// A Python with boto3, if there is one; says so loudly if not.
pub(super) fn boto3_python() -> Option<String> {
    static FOUND: LazyLock<Option<String>> =
        LazyLock::new(|| found("LANTERN_BOTO3_PYTHON", "python3", &["-c", "import boto3"]));
    FOUND.clone()
}

/// The access keys that the door knows.
pub(super) fn keys() -> AccessKeys {
    let text = format!(
        "[keys.{KEY}]\nsecret = '{SECRET}'\ntenant = 'local'\n\
         [keys.OTHERKEY]\nsecret = '{SECRET}-of-others'\ntenant = 'other'\naccount = '111111111111'\n"
    );
    AccessKeys::parse(&text).unwrap()
}

/// Does what payloads say: `{"do": "echo" | "fail" | "throttle" | "sleep" | "image" | "sandbox"}`.
#[derive(Debug, Default)]
pub(super) struct Double {
    pub(super) invoked: Mutex<Vec<(String, Invocation)>>,
    pub(super) retired: Mutex<Vec<(FunctionKey, Option<String>)>>,
    /// Told after each invocation.
    pub(super) told: Notify,
    /// Functions with these names fail, whatever the payload.
    pub(super) failing: Mutex<Vec<String>>,
}

impl Double {
    pub(super) fn count(&self, function: &str) -> usize {
        self.invoked.lock().unwrap().iter().filter(|(name, _)| name == function).count()
    }

    /// Waits until a function was invoked so often.
    pub(super) async fn until(&self, function: &str, count: usize) {
        let waiting = async {
            loop {
                let told = self.told.notified();
                if self.count(function) >= count {
                    return;
                }
                told.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("the function is invoked");
    }
}

fn reply(payload: impl Into<Bytes>, error: Option<&str>) -> Reply {
    Reply {
        payload: payload.into(),
        content_type: None,
        function_error: error.map(Into::into),
        log_tail: Bytes::from_static(b"START\nhello\nEND\n"),
        duration: Duration::from_millis(1),
        cold: false,
    }
}

#[async_trait]
impl Invoker for Double {
    async fn invoke(&self, function: Arc<Function>, invocation: Invocation) -> Result<Reply, InvokeError> {
        let name = function.key.name.clone();
        let payload: Value = serde_json::from_slice(&invocation.payload).unwrap();
        self.invoked.lock().unwrap().push((name.clone(), invocation.clone()));
        let failing = self.failing.lock().unwrap().contains(&name);
        let key = function.key.clone();
        let outcome = match payload["do"].as_str() {
            _ if failing => Ok(reply(r#"{"errorMessage":"as told","errorType":"Told"}"#, Some("Unhandled"))),
            Some("fail") => Ok(reply(r#"{"errorMessage":"no","errorType":"Error"}"#, Some("Unhandled"))),
            Some("throttle") => Err(InvokeError::Throttled { reason: "too many; try later".into() }),
            Some("image") => Err(InvokeError::Image { function: key, reason: "gone".into() }),
            Some("sandbox") => Err(InvokeError::Sandbox { function: key, reason: "no room".into() }),
            Some("sleep") => {
                let ms = payload["ms"].as_u64().unwrap();
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Ok(reply("\"slept\"", None))
            }
            Some("context") => {
                let context = invocation.client_context.unwrap_or_default();
                Ok(reply(context, None))
            }
            _ => Ok(reply(invocation.payload, None)),
        };
        self.told.notify_waiters();
        outcome
    }

    async fn retire(&self, function: &FunctionKey, keep: Option<&str>) {
        self.retired.lock().unwrap().push((function.clone(), keep.map(Into::into)));
    }

    fn stats(&self, _function: &FunctionKey) -> FunctionStats {
        FunctionStats { sandboxes: 2, ..FunctionStats::default() }
    }

    fn logs(&self, _function: &FunctionKey, _most: usize) -> Vec<LogLine> {
        vec![LogLine { time_ms: 5, request_id: None, sandbox: "s".into(), text: "hello".into() }]
    }
}

/// Knows the images `app` and `app2`.
#[derive(Debug)]
pub(super) struct Images;

#[async_trait]
impl ImageResolver for Images {
    async fn resolve(&self, _tenant: &str, image: &str) -> Result<ResolvedImage, ResolveError> {
        let digit = match image {
            "app" => "1",
            "app2" => "2",
            "unavailable" => return Err(ResolveError::Unavailable("it sleeps".into())),
            _ => return Err(ResolveError::Refused(format!("no image {image:?}; flattener push it first"))),
        };
        let digest = format!("sha256:{}", digit.repeat(64));
        Ok(ResolvedImage { digest, size_bytes: 4096, architecture: "x86_64" })
    }
}

/// Settings with pauses that a test can wait for.
pub(super) fn settings(directory: &Path) -> ServiceSettings {
    let mut settings = ServiceSettings::new(directory.join("functions.redb"));
    settings.accounts = keys().accounts();
    settings.events.retry_delays = [Duration::from_millis(5), Duration::from_millis(10)];
    settings.events.throttle_delay = Duration::from_millis(1);
    settings
}

/// A front door that listens.
pub(super) struct DoorUnderTest {
    pub(super) address: SocketAddr,
    pub(super) double: Arc<Double>,
    pub(super) service: Arc<Service>,
    pub(super) directory: tempfile::TempDir,
    _stop: oneshot::Sender<()>,
}

impl DoorUnderTest {
    pub(super) async fn open() -> Self {
        Self::with(|_, _| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut ServiceSettings, &mut DoorSettings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let double = Arc::new(Double::default());
        let (mut functions, mut door) = (settings(directory.path()), DoorSettings::new(keys()));
        change(&mut functions, &mut door);
        let invoker = Arc::clone(&double) as Arc<dyn Invoker>;
        let service = Service::open(functions, invoker, Arc::new(Images)).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = serve(Arc::clone(&service), door, listener, async {
            let _ = stopped.await;
        });
        tokio::spawn(serving);
        Self { address, double, service, directory, _stop: stop }
    }

    /// The environment in which AWS's tools find the door.
    fn environment(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("AWS_ACCESS_KEY_ID", KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
            ("AWS_DEFAULT_REGION", "us-east-1".into()),
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_CONFIG_FILE", "/nonexistent".into()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent".into()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
            ("AWS_MAX_ATTEMPTS", "1".into()),
        ])
    }

    /// Runs the AWS CLI: `aws lambda ARGUMENTS`.
    pub(super) async fn aws(&self, arguments: &[&str]) -> Output {
        let command = tokio::process::Command::new(aws_cli().unwrap())
            .args(["--cli-read-timeout", "60", "lambda"])
            .args(arguments)
            .envs(self.environment())
            .current_dir(self.directory.path())
            .output();
        command.await.unwrap()
    }

    /// The JSON that the AWS CLI prints; it must succeed.
    pub(super) async fn aws_json(&self, arguments: &[&str]) -> Value {
        let output = self.aws(arguments).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        if out.is_empty() { json!(null) } else { serde_json::from_str(&out).unwrap() }
    }

    /// Runs a Python program that finds boto3 and the door.
    pub(super) async fn python(&self, program: &str) {
        let command = tokio::process::Command::new(boto3_python().unwrap())
            .args(["-c", program])
            .envs(self.environment())
            .current_dir(self.directory.path())
            .output();
        let output = command.await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}{err}");
    }
}
