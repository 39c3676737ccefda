//! The contract of [`origin::store::Origin`], checked for every implementation: directory,
//! memory, S3 over the wire against two independent servers, and each behind the wrappers.

mod contract;

use bytes::Bytes;
use image_format::ids::ChunkId;
use image_format::names::ObjectName;
use origin::dir::DirStore;
use origin::faulty::{Faults, Faulty};
use origin::intercept::Intercepted;
use origin::memory::MemoryStore;
use origin::retry::{Retry, RetrySettings};
use origin::s3::{S3Settings, S3Store};
use origin::settings::S3Options;
use origin::store::{ErrorKind, Origin};
use origin::throttle::{Line, Throttle};
use std::sync::Arc;
use std::time::Duration;
use tests::s3::{self, Server};

#[tokio::test]
async fn in_memory() {
    contract::check(Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    contract::check(Arc::new(DirStore::open(dir.path().join("store")).unwrap())).await;
}

#[tokio::test(start_paused = true)]
async fn behind_wrappers() {
    let slow = Intercepted::new(Arc::new(MemoryStore::new()), Throttle::new(Line::S3));
    contract::check(Arc::new(slow)).await;
    let calm = Intercepted::new(Arc::new(MemoryStore::new()), Faulty::new(1, Faults::default()));
    contract::check(Arc::new(calm)).await;
}

/// Calls fail on the way there and on the way back, and nobody notices.
#[tokio::test(start_paused = true)]
async fn behind_retries_before_faults() {
    for seed in 0..20 {
        let faults =
            Faults { unavailable: 0.1, slow: 0.1, delay: Duration::from_millis(100), ..Faults::default() };
        let faulty = Intercepted::new(Arc::new(MemoryStore::new()), Faulty::new(seed, faults));
        let settings = RetrySettings { attempts: 12, budget: 1000, ..RetrySettings::default() };
        let store = Intercepted::new(Arc::new(faulty), Retry::new(settings));
        contract::check_repeatable(Arc::new(store)).await;
    }
}

async fn open(server: &Server, settings: S3Settings) -> S3Store {
    let options = S3Options {
        endpoint: Some(server.endpoint.clone()),
        region: Some("us-east-1".into()),
        path_style: true,
    };
    S3Store::open("s3://lantern-test/some/prefix", &options, settings).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_s3s() {
    let server = Server::s3s().await;
    let store = open(&server, s3::settings()).await;
    contract::check(Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_moto() {
    let Some(server) = Server::moto().await else { return };
    let store = open(&server, s3::settings()).await;
    let abilities = store.abilities().await.unwrap();
    assert!(abilities.conditional_put, "moto honours If-None-Match: {abilities:?}");
    contract::check(Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_go_in_parts() {
    let five = 5 << 20;
    for server in [Some(Server::s3s().await), Server::moto().await].into_iter().flatten() {
        let store = open(&server, S3Settings { part_bytes: five, ..s3::settings() }).await;
        let data: Bytes = (0..12_345_678_u32).map(|n| n.to_le_bytes()[1]).collect::<Vec<u8>>().into();
        let name = ObjectName::chunk(&"r1".parse().unwrap(), ChunkId::of(&data));
        store.put_if_absent(&name, data.clone()).await.unwrap();
        assert!(store.get(&name, data.len()).await.unwrap() == data);
        let part = store.get_range(&name, 5_000_000..5_500_000).await.unwrap();
        assert!(part == data[5_000_000..5_500_000]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_unavailable_and_one_that_refuses_says_so() {
    let mut server = Server::s3s().await;
    let store = open(&server, S3Settings { connect: Duration::from_secs(1), ..s3::settings() }).await;
    let name = ObjectName::RootTable;
    store.put(&name, Bytes::from_static(b"x")).await.unwrap();
    server.stop().await;
    let error = store.get(&name, 10).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
    let server = Server::s3s().await;
    let options = S3Options { endpoint: Some(server.endpoint.clone()), region: None, path_style: true };
    let elsewhere = S3Store::open("s3://no-such-bucket", &options, s3::settings()).await.unwrap();
    let error = elsewhere.get(&name, 10).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error:?}");
    assert!(error.to_string().contains("bucket"), "{error}");
}

/// A server that ends connections without an answer, as one does that is being stopped: worth
/// another try, and no question of credentials.
#[tokio::test]
async fn a_server_that_breaks_off_is_unavailable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // all of the request is read, or the connection would be reset
            let mut request = [0; 65536];
            tokio::io::AsyncReadExt::read(&mut stream, &mut request).await.unwrap();
        }
    });
    let options = S3Options { endpoint: Some(endpoint), region: None, path_style: true };
    let settings = S3Settings { deadline: Duration::from_secs(5), ..s3::settings() };
    let store = S3Store::open("s3://bucket", &options, settings).await.unwrap();
    let error = store.get(&ObjectName::RootTable, 10).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
    server.abort();
}

/// A server that accepts and says nothing costs no more than the deadline.
#[tokio::test]
async fn a_silent_server_is_unavailable_in_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let options = S3Options { endpoint: Some(endpoint), region: None, path_style: true };
    let settings = S3Settings { deadline: Duration::from_millis(300), ..s3::settings() };
    let store = S3Store::open("s3://bucket", &options, settings).await.unwrap();
    let error = store.get(&ObjectName::RootTable, 10).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
    drop(listener);
}
