//! The dispatcher for real: sandboxes of busybox under crun, with a runtime client that runs
//! every event as a shell script. Needs root, crun and busybox-static; without them the tests
//! say so and pass.

mod hostile;
mod memory;
mod merging;
mod prepared;
mod python;
mod runc;
mod serving;

use super::*;
use crate::function::{FunctionNetwork, Runtime};
use crate::rootfs::DirectoryRootFs;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) dispatcher: Dispatcher,
    pub(super) function: Function,
}

impl Drop for World {
    fn drop(&mut self) {
        let left = std::fs::read_dir(self.dir.path().join("run/sandboxes")).map_or(0, Iterator::count);
        if !std::thread::panicking() {
            assert_eq!(left, 0, "nothing stays behind; every test ends with `shutdown`");
        }
    }
}

impl World {
    /// A world with a function of so many invocations at once per sandbox.
    pub(super) fn new(max_concurrency: usize) -> Option<Self> {
        Self::with(max_concurrency, |_| {})
    }

    pub(super) fn with(max_concurrency: usize, change: impl FnOnce(&mut DispatcherSettings)) -> Option<Self> {
        let ready = rustix::process::geteuid().is_root()
            && Path::new("/bin/busybox").exists()
            && std::process::Command::new("crun").arg("--version").output().is_ok();
        if !ready {
            eprintln!("SKIPPED: needs root, crun and busybox-static");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("image/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        let listed = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap();
        for name in String::from_utf8(listed.stdout).unwrap().lines().filter(|name| *name != "busybox") {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        std::fs::write(dir.path().join("image/runtime.sh"), include_str!("runtime.sh")).unwrap();
        let config = br#"{"config":{"Entrypoint":["/bin/sh","/runtime.sh"],"Cmd":["app.handler"]}}"#;
        let rootfs = DirectoryRootFs::new(dir.path().join("image"), false, config.to_vec());
        let mut settings = settings(dir.path());
        change(&mut settings);
        let dispatcher = Dispatcher::start(settings, Arc::new(rootfs));
        Some(Self { dispatcher, function: function("f", max_concurrency), dir })
    }

    pub(super) async fn invoke(&self, script: &str) -> Reply {
        self.try_invoke(&self.function, script).await.unwrap()
    }

    pub(super) async fn try_invoke(&self, function: &Function, script: &str) -> Result<Reply, InvokeError> {
        self.dispatcher.invoke(Arc::new(function.clone()), Invocation::new(script.to_string())).await
    }

    pub(super) async fn many(
        &self,
        function: &Function,
        scripts: &[String],
    ) -> Vec<Result<Reply, InvokeError>> {
        let function = Arc::new(function.clone());
        let started: Vec<_> = scripts
            .iter()
            .map(|script| {
                let (dispatcher, function) = (self.dispatcher.clone(), Arc::clone(&function));
                let invocation = Invocation::new(script.clone());
                tokio::spawn(async move { dispatcher.invoke(function, invocation).await })
            })
            .collect();
        let mut replies = Vec::new();
        for one in started {
            replies.push(one.await.unwrap());
        }
        replies
    }

    pub(super) fn stats(&self) -> FunctionStats {
        self.dispatcher.stats(&self.function.key)
    }

    pub(super) async fn shutdown(self) {
        self.dispatcher.shutdown(Duration::from_secs(5)).await;
    }
}

pub(super) fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.payload).trim().to_string()
}

fn settings(dir: &Path) -> DispatcherSettings {
    DispatcherSettings {
        sandbox: sandbox::Settings {
            runtime: "crun".into(),
            run_dir: dir.join("run"),
            grace: Duration::from_secs(1),
            started: None,
        },
        pool: PoolSettings { plain: 2, ..PoolSettings::default() },
        prepared: 0,
        merge_memory: false,
        launch: LaunchSettings {
            runtimes: dir.join("runtimes"),
            region: "us-east-1".into(),
            default_memory_bytes: 256 << 20,
        },
        most_starts: 8,
        most_sandboxes: 64,
        memory_bytes: 4 << 30,
        most_waiting: 1000,
        longest_wait: Duration::from_secs(30),
        init_timeout: Duration::from_secs(20),
        keep_alive: Duration::from_secs(600),
        most_response_bytes: 6 << 20,
        store_bytes: 16 << 20,
        watch_interval: Duration::from_millis(100),
    }
}

pub(super) fn function(name: &str, max_concurrency: usize) -> Function {
    Function {
        key: FunctionKey { tenant: "local".into(), name: name.into() },
        revision: "1".into(),
        image: "test".into(),
        runtime: Runtime::Image,
        entrypoint: None,
        command: None,
        working_dir: None,
        env: BTreeMap::from([("OWN".to_string(), "value".to_string())]),
        timeout: Duration::from_secs(20),
        memory_bytes: None,
        cpu_millis: None,
        tmp_bytes: 16 << 20,
        max_concurrency,
        concurrency_declared: true,
        reserved_concurrency: None,
        network: FunctionNetwork::None,
        arn: "arn:aws:lambda:us-east-1:000000000000:function:f".into(),
    }
}
