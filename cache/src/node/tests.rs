//! A node on loopback, spoken to by the fleet's own client and by clients that mean no good.

use super::*;
use crate::policy::PolicyKind;
use bytes::Bytes;
use fleet::members::Node as Member;
use fleet::transport::{CallKind, HttpTransport, TlsFiles, Transport, TransportSettings};
use fleet::transport::{client_config, server_config};
use fleet::wire::{HEADER_LEN, ShardHeader, ShardRecord};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

struct Served {
    node: Arc<Node>,
    address: SocketAddr,
    stop: Arc<Notify>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Served {
    fn member(&self) -> Member {
        Member::at(&self.address.to_string())
    }
}

async fn served(secret: Option<&str>, limits: Limits, tls: Option<TlsAcceptor>) -> Served {
    let secret = secret.map(|secret| Secret::new(secret).unwrap());
    let store = ShardStore::new(16 << 20, PolicyKind::default(), None);
    let node = Arc::new(Node::new("n1".into(), "z".into(), secret, store, limits));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let serving = serve(Arc::clone(&node), listener, tls, async move { stopped.notified().await });
    Served { node, address, stop, task: tokio::spawn(serving) }
}

fn transport(change: impl FnOnce(&mut TransportSettings)) -> HttpTransport {
    let mut settings = TransportSettings::default();
    change(&mut settings);
    HttpTransport::new(settings)
}

fn record(n: u32) -> (ChunkId, [Bytes; 2], Bytes) {
    let id = ChunkId::of(&n.to_le_bytes());
    let payload: Bytes = vec![n.to_le_bytes()[0]; 128 << 10].into();
    let header = ShardHeader { index: 1, data: 4, parity: 1, stored_len: 512 << 10 };
    let whole = ShardRecord { header, payload: payload.clone() }.to_bytes(&id);
    (id, [whole.slice(..HEADER_LEN), payload], whole)
}

#[tokio::test]
async fn records_come_back_as_they_went() {
    let served = served(None, Limits::default(), None).await;
    let (transport, member) = (transport(|_| {}), served.member());
    let (id, parts, whole) = record(1);
    assert_eq!(transport.get(&member, &id).await.unwrap(), None);
    transport.put(&member, &id, parts).await.unwrap();
    assert_eq!(transport.get(&member, &id).await.unwrap(), Some(whole));
    transport.remove(&member, &id).await.unwrap();
    assert_eq!(transport.get(&member, &id).await.unwrap(), None);
    let status = served.node.status();
    assert_eq!((status.hits(), status.operation("put").count), ((1, 3), 1));
    assert!(status.prometheus().contains("lantern_node_request_seconds_count{operation=\"put\"} 1"));
}

#[tokio::test]
async fn nobody_without_the_secret_gets_anything() {
    let served = served(Some("0123456789abcdef"), Limits::default(), None).await;
    let member = served.member();
    let (id, parts, _) = record(1);
    for secret in [None, Some("another-secret-altogether")] {
        let outsider = transport(|settings| settings.secret = secret.map(|s| Secret::new(s).unwrap()));
        for refused in [
            outsider.get(&member, &id).await.map(drop).unwrap_err(),
            outsider.put(&member, &id, parts.clone()).await.unwrap_err(),
            outsider.remove(&member, &id).await.unwrap_err(),
        ] {
            assert_eq!(refused.kind, CallKind::Refused, "{refused}");
        }
    }
    assert!(said(served.address, "GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").await.contains("401"));
    assert!(said(served.address, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.contains("401"));
    assert!(said(served.address, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.contains("200"));
    let insider = transport(|settings| settings.secret = Secret::new("0123456789abcdef"));
    insider.put(&member, &id, parts).await.unwrap();
    assert_eq!(served.node.status().refused_unauthorised, 8);
}

/// What the node answers to these bytes, up to its first silence.
async fn said(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned()
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let served = served(None, Limits::default(), None).await;
    let id = record(1).0;
    for (request, status) in [
        (format!("PUT /v1/shards/{id} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"), "400"),
        (format!("PUT /v1/shards/{id} HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n"), "413"),
        ("PUT /v1/shards/../../etc HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".into(), "400"),
        ("GET /v1/shards/xyz HTTP/1.1\r\nhost: x\r\n\r\n".into(), "400"),
        ("GET /v1/shards?fan=zz HTTP/1.1\r\nhost: x\r\n\r\n".into(), "400"),
        ("POST /v1/status HTTP/1.1\r\nhost: x\r\n\r\n".into(), "405"),
        ("GET /secrets HTTP/1.1\r\nhost: x\r\n\r\n".into(), "404"),
        (format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000)), "431"),
        ("not http at all\r\n\r\n".into(), "400"),
    ] {
        let answer = said(served.address, &request).await;
        let end = request.len().min(60);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{}: {answer}", &request[..end]);
    }
    assert_eq!(served.node.store.memory_usage().chunks, 0);
}

/// An oversized body without an announced length is cut while it comes.
#[tokio::test]
async fn an_endless_body_is_cut() {
    let limits = Limits { record_bytes: 200 << 10, ..Limits::default() };
    let served = served(None, limits, None).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let id = record(1).0;
    let head = format!("PUT /v1/shards/{id} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = [b"1000\r\n".as_slice(), &[0; 4096], b"\r\n"].concat();
    let mut sent = 0;
    // the node stops reading; writing fails once the socket's buffers are full or it is closed
    while sent < 64 << 20 {
        match tokio::time::timeout(Duration::from_secs(2), stream.write_all(&piece)).await {
            Ok(Ok(())) => sent += piece.len(),
            _ => break,
        }
    }
    assert!(sent < 64 << 20, "the node swallowed {sent} bytes");
    assert_eq!(served.node.status().refused_invalid, 1);
}

#[tokio::test]
async fn those_who_stall_are_cut() {
    let limits = Limits {
        request: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        grace: Duration::from_millis(300),
        ..Limits::default()
    };
    let served = served(None, limits, None).await;
    let id = record(1).0;
    // headers that never end, a body that never comes, a connection that never speaks, an
    // HTTP/2 preface and nothing more
    for begun in [
        "GET /v1/sta".to_string(),
        format!("PUT /v1/shards/{id} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n12345"),
        String::new(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
    ] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{begun:?} is still connected");
    }
    assert_eq!(served.node.status().connections, 0);
}

#[tokio::test]
async fn connections_and_requests_are_bounded() {
    let served = served(None, Limits { connections: 2, ..Limits::default() }, None).await;
    let held = [
        TcpStream::connect(served.address).await.unwrap(),
        TcpStream::connect(served.address).await.unwrap(),
    ];
    while served.node.status().connections < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(said(served.address, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await, "");
    assert_eq!(served.node.status().refused_connections, 1);
    drop(held);

    let served = super::tests::served(None, Limits { requests: 0, ..Limits::default() }, None).await;
    let busy = transport(|_| {}).get(&served.member(), &record(1).0).await.unwrap_err();
    assert_eq!(busy.kind, CallKind::Busy);
    assert!(said(served.address, "GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").await.contains("200 OK"));
}

#[tokio::test]
async fn a_node_that_stops_finishes_what_is_under_way() {
    let served = served(None, Limits::default(), None).await;
    let transport = transport(|_| {});
    let (id, parts, whole) = record(1);
    let member = served.member();
    transport.put(&member, &id, parts).await.unwrap();
    let (got, ()) = tokio::join!(transport.get(&member, &id), async { served.stop.notify_one() });
    assert_eq!(got.unwrap(), Some(whole));
    tokio::time::timeout(Duration::from_secs(5), served.task).await.unwrap().unwrap().unwrap();
    let gone = transport.get(&Member::at(&served.address.to_string()), &id).await.unwrap_err();
    assert!(matches!(gone.kind, CallKind::Stale | CallKind::Unreachable), "{gone:?}");
}

#[tokio::test]
async fn draining_takes_nothing_and_gives_everything() {
    let served = served(None, Limits::default(), None).await;
    let transport = transport(|_| {});
    let (member, (id, parts, whole)) = (served.member(), record(1));
    transport.put(&member, &id, parts.clone()).await.unwrap();
    let draining = "PUT /v1/draining HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    assert!(said(served.address, draining).await.contains("\"draining\":true"));
    let refused = transport.put(&member, &record(2).0, record(2).1).await.unwrap_err();
    assert_eq!(refused.kind, CallKind::Busy);
    assert_eq!(transport.get(&member, &id).await.unwrap(), Some(whole));
    let list = format!("GET /v1/shards?fan={} HTTP/1.1\r\nhost: x\r\n\r\n", &id.to_string()[..2]);
    assert!(said(served.address, &list).await.contains(&id.to_string()));
}

fn openssl(directory: &Path, words: &str) {
    let output = std::process::Command::new("openssl").args(words.split(' ')).current_dir(directory).output();
    let output = output.expect("openssl is installed (Debian: openssl)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A certificate authority in a directory, and certificates it signed.
fn authority(directory: &Path) {
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -batch";
    openssl(directory, &format!("{new} -x509 -days 1 -subj /CN=fleet -keyout ca.key -out ca.pem"));
    std::fs::write(directory.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    for name in ["node", "client"] {
        openssl(directory, &format!("{new} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        let signed = "x509 -req -days 1 -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names";
        openssl(directory, &format!("{signed} -in {name}.csr -out {name}.pem"));
    }
}

#[tokio::test]
async fn tls_proves_both_sides() {
    let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    authority(ours.path());
    authority(other.path());
    let files = |dir: &Path, name: Option<&str>| TlsFiles {
        authority: Some(dir.join("ca.pem")),
        certificate: name.map(|name| dir.join(format!("{name}.pem"))),
        key: name.map(|name| dir.join(format!("{name}.key"))),
    };
    let acceptor = server_config(&files(ours.path(), Some("node"))).unwrap().into();
    let served = served(None, Limits::default(), Some(acceptor)).await;
    let (id, parts, whole) = record(1);
    let member = served.member();
    let client = |files: &TlsFiles| {
        let tls = client_config(files).unwrap();
        transport(|settings| settings.tls = Some(tls))
    };
    let good = client(&files(ours.path(), Some("client")));
    good.put(&member, &id, parts).await.unwrap();
    assert_eq!(good.get(&member, &id).await.unwrap(), Some(whole));
    let foreign =
        TlsFiles { authority: files(ours.path(), None).authority, ..files(other.path(), Some("client")) };
    for wrong in [files(ours.path(), None), foreign, files(other.path(), Some("client"))] {
        client(&wrong).get(&member, &id).await.unwrap_err();
    }
    transport(|_| {}).get(&member, &id).await.unwrap_err();
}
