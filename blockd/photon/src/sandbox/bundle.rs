//! The OCI runtime specification of a sandbox: from an image's configuration and a request.
//!
//! Defaults: own pid, mount, ipc, uts and cgroup namespaces, no network unless asked for,
//! Docker's reduced capability set, no new privileges, an allow-list of system calls, masked
//! kernel files, private `/tmp`.

use super::{Identity, SandboxError};
use crate::image_config::ImageConfig;
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The system calls that a sandbox may make; the others fail with EPERM. Of `prctl` and `madvise`
/// what they can do today, but for what lets the kernel merge memory with that of others, see
/// [`Request::may_merge`]: their numbers in ranges, in the 32 bits that the kernel looks at.
const SECCOMP: &str = include_str!("seccomp.json");

/// Docker's default set, enough for images that start as root and drop it, but without
/// `CAP_MKNOD`: no device but those of `/dev` is ever reachable (all mounts are `nodev`).
const CAPABILITIES: [&str; 12] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Added to the score by which the kernel chooses whom to end when the host has no memory left
/// (proc_pid_oom_score_adj(5)), in thousandths of all memory. A process can lower its own to the
/// worker's, no further.
const OOM_SCORE: i32 = 500;

/// Open files per process at most; enough for servers, and bounded.
const MOST_OPEN_FILES: u64 = 65_536;

/// No limit, as the runtime specification writes it.
const UNLIMITED: u64 = u64::MAX;

/// Environment of images that set none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Kernel files that tell too much or do too much.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/kernel/mm/ksm",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What network a sandbox has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// A network namespace of its own with loopback only.
    #[default]
    None,
    /// The host's network.
    Host,
    /// A namespace made before, by its path, with an interface or without.
    Joined(PathBuf),
}

/// What is mounted into a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What.
    pub kind: MountKind,
    /// Where in the sandbox; absolute.
    pub target: PathBuf,
    /// Whether the sandbox may not write there.
    pub read_only: bool,
}

/// Where a mount's files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A directory or file of this host.
    Bind(PathBuf),
    /// Memory.
    Tmpfs,
}

/// What to run and how.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Arguments that replace the image's.
    pub args: Vec<String>,
    /// An entrypoint that replaces the image's.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`, over the image's.
    pub env: Vec<String>,
    /// Where it starts, instead of the image's.
    pub working_dir: Option<String>,
    /// Who it is, instead of the image's.
    pub user: Option<String>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Network.
    pub network: Network,
    /// Memory limit in bytes, swap included.
    pub memory_bytes: Option<u64>,
    /// CPU limit in thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// Limit on processes and threads.
    pub pids: Option<i64>,
    /// Whether the process gets a terminal.
    pub terminal: bool,
    /// Most bytes below `/tmp`; half the host's memory if none is given, as tmpfs has it.
    pub tmp_bytes: Option<u64>,
    /// Whether every process has its own `/tmp`: the name leads to the directory that the
    /// process has open as descriptor 900; the memory behind all of them is at
    /// [`PRIVATE_TMP_HOME`].
    pub private_tmp: bool,
    /// Whether the process has no capabilities at all, whoever it is.
    pub no_capabilities: bool,
    /// Whether its processes may let the kernel merge equal pages of theirs and of others that
    /// do: who can time a write learns then what others have.
    pub may_merge: bool,
    /// The compiled filter of system calls, base64; the runtime compiles its own without it.
    pub seccomp_bpf: Option<String>,
}

/// Where the memory of private `/tmp`s is mounted.
pub const PRIVATE_TMP_HOME: &str = "/run/lantern/tmp";

impl std::str::FromStr for Mount {
    type Err = SandboxError;

    /// `type=bind,source=/host,target=/inside[,readonly]` or `type=tmpfs,target=/inside`.
    fn from_str(text: &str) -> Result<Self, SandboxError> {
        let bad = |reason: &str| {
            SandboxError::Request(format!(
                "--mount {text:?}: {reason}; use type=bind,source=/host,target=/inside[,readonly] or type=tmpfs,target=/inside"
            ))
        };
        let (mut kind, mut source, mut target, mut read_only) = ("bind", None, None, false);
        for field in text.split(',') {
            match field.split_once('=').unwrap_or((field, "")) {
                ("type", value) => kind = value,
                ("source" | "src", value) => source = Some(PathBuf::from(value)),
                ("target" | "dst" | "destination", value) => target = Some(PathBuf::from(value)),
                ("readonly" | "ro", "" | "true") => read_only = true,
                _ => return Err(bad(&format!("unknown field {field:?}"))),
            }
        }
        let target = target.filter(|path| path.is_absolute()).ok_or_else(|| bad("no absolute target"))?;
        let kind = match (kind, source) {
            ("bind", Some(source)) if source.is_absolute() => MountKind::Bind(source),
            ("bind", _) => return Err(bad("a bind mount needs an absolute source")),
            ("tmpfs", None) => MountKind::Tmpfs,
            _ => return Err(bad("unknown type, or a tmpfs with a source")),
        };
        Ok(Self { kind, target, read_only })
    }
}

impl Mount {
    fn to_spec(&self) -> Value {
        let mut options = vec!["nosuid", "nodev"];
        options.push(if self.read_only { "ro" } else { "rw" });
        match &self.kind {
            MountKind::Bind(source) => {
                options.push("rbind");
                json!({"destination": self.target, "type": "bind", "source": source, "options": options})
            }
            MountKind::Tmpfs => {
                options.push("mode=1777");
                json!({"destination": self.target, "type": "tmpfs", "source": "tmpfs", "options": options})
            }
        }
    }
}

fn environment(
    config: &ImageConfig,
    request: &Request,
    identity: &Identity,
) -> Result<Vec<String>, SandboxError> {
    let mut all: Vec<String> = vec![DEFAULT_PATH.into()];
    all.push(format!("HOME={}", identity.home.as_deref().unwrap_or("/")));
    if request.terminal {
        all.push("TERM=xterm".into());
    }
    for pair in config.env.iter().chain(&request.env) {
        let Some((name, _)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(SandboxError::Request(format!("environment {pair:?} is not NAME=value")));
        };
        if pair.contains('\0') {
            return Err(SandboxError::Request(format!("environment variable {name} contains a NUL byte")));
        }
        all.retain(|other| !other.starts_with(&format!("{name}=")));
        all.push(pair.clone());
    }
    Ok(all)
}

fn mounts(request: &Request) -> Vec<Value> {
    let tmpfs = |to: &str, options: &[&str]| json!({"destination": to, "type": "tmpfs", "source": "tmpfs", "options": options});
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        tmpfs("/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]}),
        tmpfs("/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}),
    ];
    let size = request.tmp_bytes.map(|bytes| format!("size={bytes}"));
    let mut tmp = vec!["nosuid", "nodev", "mode=1777"];
    tmp.extend(size.as_deref());
    mounts.push(tmpfs(if request.private_tmp { PRIVATE_TMP_HOME } else { "/tmp" }, &tmp));
    if request.network == Network::Host {
        for file in ["/etc/resolv.conf", "/etc/hosts"] {
            mounts.push(json!({"destination": file, "type": "bind", "source": file, "options": ["rbind", "ro", "nosuid", "nodev"]}));
        }
        // sysfs cannot be mounted over the host's network namespace by everyone
        mounts.retain(|mount| mount["destination"] != "/sys");
        mounts.push(json!({"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro", "nosuid", "noexec", "nodev"]}));
    }
    mounts.extend(request.mounts.iter().map(Mount::to_spec));
    mounts
}

/// Limits of each process. The kernel counts some of what it limits for all processes of a user
/// together, and most sandboxes are one user: whatever the limit, one sandbox could use up what all
/// have. Where something else bounds the sandbox alone, there is no such limit, or the highest
/// that this worker may set:
/// - processes and threads: its control group, which is in force where it was asked for;
/// - bytes in POSIX queues: its IPC namespace has at most 256 queues of 10 messages of 8 KiB
///   (fs.mqueue), whose memory is its own.
///
/// Pending signals stay at what this worker has. Nothing else bounds their number but memory, and
/// the kernel searches their list with interrupts off.
fn limits(request: &Request) -> Vec<Value> {
    let own = |resource| getrlimit(resource).maximum.unwrap_or(UNLIMITED);
    let capabilities = rustix::thread::capabilities(None);
    let may_raise = capabilities.is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_RESOURCE));
    let raised = |resource| if may_raise { UNLIMITED } else { own(resource) };
    let mut limits = vec![
        ("RLIMIT_NOFILE", own(Resource::Nofile).min(MOST_OPEN_FILES)),
        ("RLIMIT_MSGQUEUE", raised(Resource::Msgqueue)),
    ];
    if request.pids.is_some() {
        limits.push(("RLIMIT_NPROC", raised(Resource::Nproc)));
    }
    limits.into_iter().map(|(name, most)| json!({"type": name, "hard": most, "soft": most})).collect()
}

fn seccomp(may_merge: bool) -> Value {
    let mut profile: Value = serde_json::from_str(SECCOMP).expect("the embedded profile is JSON");
    if may_merge && let Some(rules) = profile["syscalls"].as_array_mut() {
        let merge = json!({"index": 0, "value": u32::MAX, "valueTwo": libc::PR_SET_MEMORY_MERGE,
            "op": "SCMP_CMP_MASKED_EQ"});
        rules.push(json!({"names": ["prctl"], "action": "SCMP_ACT_ALLOW", "args": [merge]}));
    }
    profile
}

/// The runtime specification of a sandbox on `root`.
///
/// # Errors
/// [`SandboxError`] if the configuration or the request makes no sense.
pub(super) fn spec(
    id: &str,
    root: &Path,
    read_only: bool,
    config: &ImageConfig,
    request: &Request,
    identity: &Identity,
) -> Result<Value, SandboxError> {
    let args = config.command(request.entrypoint.as_deref(), &request.args);
    if args.is_empty() {
        return Err(SandboxError::NoCommand);
    }
    if args.iter().any(|arg| arg.contains('\0')) {
        return Err(SandboxError::Request("an argument contains a NUL byte".into()));
    }
    let cwd = request.working_dir.as_deref().unwrap_or(&config.working_dir);
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !cwd.starts_with('/') {
        return Err(SandboxError::Request(format!("working directory {cwd:?} is not absolute")));
    }
    let mut namespaces = vec!["pid", "mount", "ipc", "uts", "cgroup"];
    if request.network == Network::None {
        namespaces.push("network");
    }
    let mut namespaces: Vec<Value> = namespaces.into_iter().map(|kind| json!({"type": kind})).collect();
    if let Network::Joined(path) = &request.network {
        namespaces.push(json!({"type": "network", "path": path}));
    }
    let capabilities: &[&str] = if request.no_capabilities { &[] } else { &CAPABILITIES };
    let annotations = match &request.seccomp_bpf {
        // crun's own (crun.1): a compiled profile is 24 of the 35 ms that it needs otherwise
        Some(filter) => json!({"run.oci.seccomp_bpf_data": filter}),
        None => json!({}),
    };
    Ok(json!({
        "annotations": annotations,
        "ociVersion": "1.0.2",
        "process": {
            "terminal": request.terminal,
            "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups},
            "args": args,
            "env": environment(config, request, identity)?,
            "cwd": cwd,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": limits(request),
            "noNewPrivileges": true,
            // where the host itself runs out of memory, sandboxes go before the worker
            "oomScoreAdj": OOM_SCORE,
        },
        "root": {"path": root, "readonly": read_only},
        "hostname": id,
        "mounts": mounts(request),
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": seccomp(request.may_merge),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(config: &ImageConfig, request: &Request) -> Result<Value, SandboxError> {
        spec("x", Path::new("/r"), true, config, request, &Identity::default())
    }

    #[test]
    fn later_environment_wins_and_path_is_never_missing() {
        let config = ImageConfig {
            env: vec!["A=1".into(), "B=2".into()],
            cmd: vec!["x".into()],
            ..ImageConfig::default()
        };
        let request = Request { env: vec!["A=3".into()], ..Request::default() };
        let spec = make(&config, &request).unwrap();
        let env: Vec<&str> =
            spec["process"]["env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(env.contains(&"A=3") && env.contains(&"B=2") && !env.contains(&"A=1"));
        assert!(env.iter().any(|pair| pair.starts_with("PATH=")));
    }

    #[test]
    fn what_a_user_has_in_all_sandboxes_is_as_much_as_can_be() {
        let limits = |pids| {
            let limits = limits(&Request { pids, ..Request::default() });
            let pair =
                |one: &Value| (one["type"].as_str().unwrap().to_string(), one["hard"].as_u64().unwrap());
            limits.iter().map(pair).collect::<std::collections::BTreeMap<_, _>>()
        };
        let own = |resource| getrlimit(resource).maximum.unwrap_or(UNLIMITED);
        assert!(limits(Some(64))["RLIMIT_NPROC"] >= own(Resource::Nproc));
        assert!(limits(Some(64))["RLIMIT_MSGQUEUE"] >= own(Resource::Msgqueue));
        assert_eq!(limits(None).get("RLIMIT_NPROC"), None, "nothing else is sure to bound it");
    }

    #[test]
    fn nonsense_is_refused() {
        let config = ImageConfig { cmd: vec!["x".into()], ..ImageConfig::default() };
        assert!(matches!(make(&ImageConfig::default(), &Request::default()), Err(SandboxError::NoCommand)));
        for request in [
            Request { env: vec!["=x".into()], ..Request::default() },
            Request { env: vec!["A=\0".into()], ..Request::default() },
            Request { args: vec!["\0".into()], ..Request::default() },
            Request { working_dir: Some("relative".into()), ..Request::default() },
        ] {
            assert!(make(&config, &request).is_err(), "{request:?}");
        }
        for mount in
            ["", "type=bind,target=/x", "type=tmpfs,source=/x,target=/y", "source=/x,target=y", "a=b"]
        {
            assert!(mount.parse::<Mount>().is_err(), "{mount}");
        }
        assert!("source=/x,target=/y,readonly".parse::<Mount>().unwrap().read_only);
    }

    #[test]
    fn the_embedded_profile_allows_what_it_should() {
        let spec =
            make(&ImageConfig { cmd: vec!["x".into()], ..ImageConfig::default() }, &Request::default())
                .unwrap();
        let allowed = spec["linux"]["seccomp"]["syscalls"][0]["names"].as_array().unwrap().clone();
        let has = |name: &str| allowed.iter().any(|n| n == name);
        assert!(has("read") && has("execve") && has("futex"));
        for forbidden in ["mount", "unshare", "setns", "bpf", "kexec_load", "io_uring_setup", "keyctl"] {
            assert!(!has(forbidden), "{forbidden}");
        }
    }
}
