//! What the front door adds to an invocation: signed requests over one kept connection and
//! over many, to a function that answers at once.
//!
//! `cargo bench -p blockd --bench front_door [-- REQUESTS]`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and fails by panicking")]

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use blockd::api::access_keys::AccessKeys;
use blockd::api::lambda::{DoorSettings, serve};
use blockd::functions::images::{ImageResolver, ResolveError, ResolvedImage};
use blockd::functions::input::CreateFunction;
use blockd::functions::{Caller, Service, ServiceSettings};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use photon::function::{Function, FunctionKey};
use photon::invocation::{FunctionStats, Invocation, InvokeError, Invoker, LogLine, Reply};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::{TcpListener, TcpStream};

const KEYS: &str = "[keys.AKIDEXAMPLE]\nsecret = '0123456789abcdef'\ntenant = 'local'";
const PATH: &str = "/2015-03-31/functions/f/invocations";

#[derive(Debug)]
struct Echo;

#[async_trait]
impl Invoker for Echo {
    async fn invoke(&self, _function: Arc<Function>, invocation: Invocation) -> Result<Reply, InvokeError> {
        Ok(Reply {
            payload: invocation.payload,
            content_type: None,
            function_error: None,
            log_tail: Bytes::new(),
            duration: Duration::ZERO,
            cold: false,
        })
    }

    async fn retire(&self, _function: &FunctionKey, _keep: Option<&str>) {}

    fn stats(&self, _function: &FunctionKey) -> FunctionStats {
        FunctionStats::default()
    }

    fn logs(&self, _function: &FunctionKey, _most: usize) -> Vec<LogLine> {
        Vec::new()
    }
}

#[async_trait]
impl ImageResolver for Echo {
    async fn resolve(&self, _tenant: &str, _image: &str) -> Result<ResolvedImage, ResolveError> {
        Ok(ResolvedImage { digest: "sha256:0".into(), size_bytes: 0, architecture: "x86_64" })
    }
}

fn signed(payload: &Bytes, host: &str) -> Request<Full<Bytes>> {
    let identity = Credentials::new("AKIDEXAMPLE", "0123456789abcdef", None, None, "bench").into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("lambda")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let uri = format!("http://{host}{PATH}");
    let headers = [("host", host)].into_iter();
    let request = SignableRequest::new("POST", uri, headers, SignableBody::Bytes(payload)).unwrap();
    let (instructions, _) = sign(request, &params).unwrap().into_parts();
    let mut request = Request::post(PATH).header("host", host).body(Full::new(payload.clone())).unwrap();
    instructions.apply_to_request_http1x(&mut request);
    request
}

/// Latencies of requests that follow each other on one connection.
async fn one_connection(address: SocketAddr, payload: Bytes, requests: usize) -> Vec<Duration> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let host = address.to_string();
    let mut taken = Vec::with_capacity(requests);
    for _ in 0..requests {
        let request = signed(&payload, &host);
        sender.ready().await.unwrap();
        let asked = Instant::now();
        let response = sender.send_request(request).await.unwrap();
        assert!(response.status().is_success());
        response.into_body().collect().await.unwrap();
        taken.push(asked.elapsed());
    }
    taken
}

fn report(what: &str, mut taken: Vec<Duration>, total: Duration) {
    taken.sort_unstable();
    let at = |percent: usize| taken[(taken.len() * percent / 100).min(taken.len() - 1)];
    let rate = taken.len() as f64 / total.as_secs_f64();
    println!("{what:<34} p50 {:>9.1?}  p99 {:>9.1?}  {rate:>8.0} requests/s", at(50), at(99));
}

#[tokio::main]
async fn main() {
    let requests = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(5000);
    let directory = tempfile::tempdir().unwrap();
    let settings = ServiceSettings::new(directory.path().join("functions.redb"));
    let service = Service::open(settings, Arc::new(Echo), Arc::new(Echo)).await.unwrap();
    let caller = Caller { tenant: "local".into(), account: "000000000000".into() };
    let body = serde_json::json!({"FunctionName": "f", "Code": {"ImageUri": "app"}});
    let input: CreateFunction = serde_json::from_value(body).unwrap();
    let entry = service.create(&caller, input).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = DoorSettings::new(AccessKeys::parse(KEYS).unwrap());
    tokio::spawn(serve(Arc::clone(&service), door, listener, std::future::pending()));
    for (name, bytes) in [("100 B", 100), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)] {
        let payload = Bytes::from(format!("\"{}\"", "x".repeat(bytes)));
        let begun = Instant::now();
        let taken =
            one_connection(address, payload, if bytes > 1000 { requests / 10 } else { requests }).await;
        report(&format!("call, {name}, one connection"), taken, begun.elapsed());
    }
    let begun = Instant::now();
    let payload = Bytes::from_static(b"{}");
    let many = (0..50).map(|_| tokio::spawn(one_connection(address, payload.clone(), requests / 50)));
    let mut taken = Vec::new();
    for connection in many.collect::<Vec<_>>() {
        taken.extend(connection.await.unwrap());
    }
    report("call, 2 B, 50 connections", taken, begun.elapsed());
    let (begun, mut taken) = (Instant::now(), Vec::new());
    for _ in 0..(requests / 25) {
        let asked = Instant::now();
        service.send(&entry, Invocation::new("1")).await.unwrap();
        taken.push(asked.elapsed());
    }
    report("event accepted (durable), alone", taken, begun.elapsed());
}
