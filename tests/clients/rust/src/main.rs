//! The handler of tests/suites/clients/app.py on crates.io's `lambda_runtime`, run with its
//! concurrency feature. Used by tests/suites/clients.rs.

use lambda_runtime::{Context, Diagnostic, Error, LambdaEvent, Runtime, service_fn};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// An error with a name of its own.
#[derive(Debug)]
struct Sorry(String);

impl std::fmt::Display for Sorry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Sorry {}

impl From<Sorry> for Diagnostic {
    fn from(sorry: Sorry) -> Self {
        Self { error_type: "Sorry".into(), error_message: sorry.0 }
    }
}

fn names(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}

fn note(directory: &str, name: &str) -> std::io::Result<std::path::PathBuf> {
    let directory = Path::new(directory);
    std::fs::create_dir_all(directory)?;
    let file = directory.join(name);
    std::fs::write(&file, "")?;
    Ok(file)
}

/// Waits until `count` invocations are here, or `total` have been.
async fn meet(event: &Value, id: &str) -> Result<Value, Error> {
    let number = |name: &str| usize::try_from(event[name].as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
    let (count, total) = (number("count"), number("total"));
    note("/tmp/came", id)?;
    let here = note("/tmp/here", id)?;
    let mut most = 0;
    loop {
        most = most.max(names(Path::new("/tmp/here")));
        if most >= count || names(Path::new("/tmp/came")) >= total {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    std::fs::remove_file(here)?;
    Ok(json!({"most": most, "pid": std::process::id()}))
}

fn told(context: &Context) -> Result<Value, Error> {
    let now = UNIX_EPOCH.elapsed()?.as_millis();
    Ok(json!({
        "request_id": context.request_id,
        "arn": context.invoked_function_arn,
        "remaining_ms": u64::try_from(u128::from(context.deadline).saturating_sub(now))?,
        "client": context.client_context.as_ref().map(|client| client.custom.clone()),
        "trace": context.xray_trace_id,
    }))
}

async fn handler(event: LambdaEvent<Value>) -> Result<Value, Sorry> {
    let (event, context) = event.into_parts();
    let done = match event["do"].as_str() {
        Some("fail") => return Err(Sorry("sorry".into())),
        Some("panic") => panic!("dropped"),
        Some("exit") => std::process::exit(3),
        Some("told") => told(&context),
        Some("meet") => meet(&event, &context.request_id).await,
        Some("large") => Ok(json!("x".repeat(20 << 20))),
        Some("await") => {
            // over the deadline, until the test lets go; then late
            let file = event["file"].as_str().unwrap_or("/tmp/go");
            while std::fs::metadata(file).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(json!("late"))
        }
        _ => Ok(json!({"echo": event, "pid": std::process::id()})),
    };
    done.map_err(|error| Sorry(error.to_string()))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    if std::env::var_os("FAIL_INIT").is_some() {
        return Err(Sorry("no such luck".into()).into());
    }
    Runtime::new(service_fn(handler)).run_concurrent().await
}
