//! What a sandbox of a function runs: command, environment, mounts and limits, from the
//! function and its image.
//!
//! Pure. The contract with what runs inside is docs/runtimes.md.

use crate::function::{Function, FunctionNetwork, Runtime};
use crate::image_config::ImageConfig;
use crate::sandbox::{LOG_ADDRESS, Mount, MountKind, RUNTIME_API, Request};
use std::path::{Path, PathBuf};

/// Where our runtimes' files are in a sandbox.
const RUNTIMES_INSIDE: &str = "/opt/lantern";
/// Processes and threads of a sandbox, as on AWS.
const MOST_PIDS: i64 = 1024;
/// Where functions' code is by convention.
const TASK_ROOT: &str = "/var/task";

/// What is the same for all functions of a worker.
#[derive(Debug, Clone)]
pub struct LaunchSettings {
    /// Directory with our runtimes' files (`python`, `java`) on this host.
    pub runtimes: PathBuf,
    /// Region told to functions.
    pub region: String,
    /// Memory limit of a sandbox whose owner declared none, in bytes.
    pub default_memory_bytes: u64,
}

/// A function that cannot be run as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// Our runtimes need to know what to call.
    #[error("function {0} names no handler: set the image's command, such as \"app.handler\"")]
    NoHandler(String),
    /// The Java runtime's jars are built apart.
    #[error(
        "the Java runtime is not at {0}; build it with blockd/photon/runtimes/java/build and name its directory with --java-runtime"
    )]
    NoJava(PathBuf),
}

/// The memory limit of a function's sandboxes in bytes.
#[must_use]
pub fn memory_limit(function: &Function, settings: &LaunchSettings) -> u64 {
    function.memory_bytes.unwrap_or(settings.default_memory_bytes)
}

/// The command of our Java runtime; class path and handler are the function's.
fn java(
    function: &Function,
    image: &ImageConfig,
    settings: &LaunchSettings,
    task_root: &str,
) -> Result<Vec<String>, LaunchError> {
    let jars = settings.runtimes.join("java");
    if !jars.join("lantern-agent.jar").exists() {
        return Err(LaunchError::NoJava(jars));
    }
    let of_image = |name: &str| {
        image.env.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(String::from))
    };
    let names = ["LANTERN_CLASSPATH", "CLASSPATH"];
    let own = names.iter().find_map(|name| function.env.get(*name).cloned().or_else(|| of_image(name)));
    let application = own.unwrap_or_else(|| format!("{task_root}:{task_root}/lib/*"));
    let inside = format!("{RUNTIMES_INSIDE}/java");
    Ok(vec![
        "java".into(),
        format!("@{inside}/options"),
        // before the agent adds it itself: the JDK's archive of loaded classes stays in use
        format!("-Xbootclasspath/a:{inside}/lantern-agent.jar"),
        format!("-javaagent:{inside}/lantern-agent.jar"),
        "-cp".into(),
        format!("{inside}/lantern-runtime.jar:{application}"),
        "lantern.runtime.Bootstrap".into(),
    ])
}

/// What every function is told, its own variables last.
fn environment(
    function: &Function,
    slots: usize,
    settings: &LaunchSettings,
    handler: &str,
    task_root: &str,
) -> Vec<String> {
    let name = &function.key.name;
    let memory_mib = memory_limit(function, settings) >> 20;
    let mut env = vec![
        format!("AWS_LAMBDA_RUNTIME_API={RUNTIME_API}"),
        format!("LANTERN_LOG_ADDRESS={LOG_ADDRESS}"),
        format!("_HANDLER={handler}"),
        format!("LAMBDA_TASK_ROOT={task_root}"),
        format!("AWS_LAMBDA_FUNCTION_NAME={name}"),
        "AWS_LAMBDA_FUNCTION_VERSION=$LATEST".into(),
        format!("AWS_LAMBDA_FUNCTION_MEMORY_SIZE={memory_mib}"),
        format!("AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/{name}"),
        format!("AWS_LAMBDA_LOG_STREAM_NAME={}", function.revision),
        format!("AWS_REGION={0}", settings.region),
        format!("AWS_DEFAULT_REGION={0}", settings.region),
        "TZ=:UTC".into(),
    ];
    if function.max_concurrency > 1 {
        // of one slot, too: without it, the function's code would run in another mode than elsewhere
        env.push(format!("AWS_LAMBDA_MAX_CONCURRENCY={slots}"));
    }
    if let Runtime::Python { fork_per_invocation } = function.runtime {
        let mode = if fork_per_invocation { "invocation" } else { "slot" };
        env.push(format!("LANTERN_PYTHON_FORK={mode}"));
    }
    if function.runtime == Runtime::Java {
        // an arena of the C library for each thread would cost each photon tens of KiB
        env.push("MALLOC_ARENA_MAX=2".into());
    }
    if let Runtime::Http { port, .. } = function.runtime {
        env.push(format!("PORT={port}"));
    }
    env.extend(function.env.iter().map(|(name, value)| format!("{name}={value}")));
    env
}

/// The request by which a sandbox of `function` is launched, told of `slots` for invocations.
///
/// # Errors
/// [`LaunchError`] if function and image do not say what to run.
pub fn request(
    function: &Function,
    slots: usize,
    image: &ImageConfig,
    settings: &LaunchSettings,
) -> Result<Request, LaunchError> {
    let command = function.command.as_ref().unwrap_or(&image.cmd);
    let own_runtime = matches!(function.runtime, Runtime::Python { .. } | Runtime::Java);
    let handler = command.first().cloned().unwrap_or_default();
    if own_runtime && handler.is_empty() {
        return Err(LaunchError::NoHandler(function.key.to_string()));
    }
    let working_dir = function.working_dir.clone();
    let directory = working_dir.as_deref().unwrap_or(&image.working_dir);
    let task_root = if directory.is_empty() || directory == "/" { TASK_ROOT } else { directory };
    let (entrypoint, args) = match &function.runtime {
        Runtime::Python { .. } => {
            let zygote = Path::new(RUNTIMES_INSIDE).join("python").join(crate::runtimes::PYTHON_ENTRY);
            (Some(vec!["python3".into(), zygote.display().to_string()]), Vec::new())
        }
        Runtime::Java => (Some(java(function, image, settings, task_root)?), Vec::new()),
        Runtime::Image | Runtime::Http { .. } => {
            // both replace what the image says, each on its own, as on AWS
            let entrypoint = function.entrypoint.as_ref().unwrap_or(&image.entrypoint);
            (Some(entrypoint.clone()), command.clone())
        }
    };
    let mut mounts = Vec::new();
    if own_runtime {
        mounts.push(bind(&settings.runtimes, RUNTIMES_INSIDE));
    }
    if function.network == FunctionNetwork::Bridge {
        // names are resolved as on this host
        mounts.push(bind(Path::new("/etc/resolv.conf"), "/etc/resolv.conf"));
    }
    Ok(Request {
        args,
        entrypoint,
        env: environment(function, slots, settings, &handler, task_root),
        working_dir,
        mounts,
        memory_bytes: Some(memory_limit(function, settings)),
        cpu_millis: function.cpu_millis,
        pids: Some(MOST_PIDS),
        tmp_bytes: Some(function.tmp_bytes),
        private_tmp: matches!(function.runtime, Runtime::Python { .. }),
        no_capabilities: true,
        ..Request::default()
    })
}

fn bind(source: &Path, target: &str) -> Mount {
    Mount { kind: MountKind::Bind(source.to_path_buf()), target: target.into(), read_only: true }
}
