//! S3 servers on loopback: `s3s-fs` in this process, and moto, where it is installed.
//!
//! Two that share no code, and that differ in what they can do beyond plain objects.
//! Each process of tests has a loopback address of its own: a port that a stopped server gave
//! up is nobody else's, so a test of a server that went away never meets a neighbour's.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use origin::s3::S3Settings;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The access key that the servers know.
pub const KEY: &str = "testing-key";
/// Its secret.
pub const SECRET: &str = "testing-secret";

/// A running server with an empty bucket `lantern-test`.
#[derive(Debug)]
pub struct Server {
    /// Its URL.
    pub endpoint: String,
    task: Option<JoinHandle<()>>,
    child: Option<Child>,
    dir: TempDir,
}

/// The credentials that the servers know, in otherwise default settings.
pub fn settings() -> S3Settings {
    S3Settings { keys: Some((KEY.into(), SECRET.to_string().into())), ..S3Settings::default() }
}

/// The loopback address of this process alone: process numbers have at most 22 bits.
fn own_address() -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + std::process::id())
}

impl Server {
    /// `s3s-fs`, with signatures checked.
    pub async fn s3s() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("lantern-test")).unwrap();
        let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let mut server = Self { endpoint, task: None, child: None, dir };
        server.serve(listener);
        server
    }

    fn serve(&mut self, listener: TcpListener) {
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(self.dir.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        self.task = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service.clone();
                connections.spawn(async move {
                    let server = Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        }));
    }

    /// Goes on after [`Self::stop`], at the same address and with the same objects.
    pub async fn go_on(&mut self) {
        let address = self.endpoint.strip_prefix("http://").unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        self.serve(listener);
    }

    /// Gives a command the address and the credentials, and the prefix `prefix` as its store.
    pub fn reach(&self, command: &mut Command, prefix: &str) {
        command
            .env("LANTERN_STORE", format!("s3://lantern-test/{prefix}"))
            .env("LANTERN_S3_ENDPOINT", &self.endpoint)
            .env("LANTERN_S3_PATH_STYLE", "true")
            .env("LANTERN_S3_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET);
    }

    /// moto, if `LANTERN_MOTO_SERVER` names its program; says so loudly if not.
    pub async fn moto() -> Option<Self> {
        let Ok(program) = std::env::var("LANTERN_MOTO_SERVER") else {
            eprintln!("SKIPPED: LANTERN_MOTO_SERVER is not set; scripts/test installs moto and sets it");
            return None;
        };
        // free a moment ago, and only this process takes ports of its address
        let address = StdListener::bind((own_address(), 0)).unwrap().local_addr().unwrap();
        let child = Command::new(program)
            .args(["-H", &address.ip().to_string(), "-p", &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            endpoint: format!("http://{address}"),
            task: None,
            child: Some(child),
            dir: tempfile::tempdir().unwrap(),
        };
        for _ in 0..600 {
            if TcpStream::connect(address).await.is_ok() {
                server.make_bucket(address).await;
                return Some(server);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("moto does not answer");
    }

    async fn make_bucket(&self, address: SocketAddr) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "PUT /lantern-test HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential={KEY}/20200101/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Ends the server and its connections.
    pub async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
