//! Tokens, breaks, redirects and lies: what real registries do on bad days.

use super::fixture::*;
use super::stub::*;
use crate::layer::entry::LayerIndex;
use crate::layer::{Budget, Digest, Limits, read_layer};
use crate::oci::{Image, SourceOptions, open};
use origin::store::ErrorKind;
use std::fs;
use std::path::{Path, PathBuf};

/// The fixture's blobs, served by digest, and its manifest by tag `t`.
struct Contents {
    dir: PathBuf,
    manifest: Digest,
    image: Image,
}

async fn contents(dir: &Path) -> Contents {
    let layout = Fixture::new(dir);
    layout.finish(&[("x", layout.image("amd64"))]);
    let (_, image) = resolve(&format!("oci:{}", dir.display()), &SourceOptions::default()).await;
    Contents { dir: dir.into(), manifest: image.manifest_digest, image }
}

impl Contents {
    fn answer(&self, request: &Request) -> Answer {
        let name = request.path.rsplit('/').next().unwrap();
        let digest = if name == "t" { self.manifest.to_string() } else { name.to_owned() };
        let Some(hex) = digest.strip_prefix("sha256:") else { return Answer::status(404) };
        let Ok(bytes) = fs::read(self.dir.join("blobs/sha256").join(hex)) else { return Answer::status(404) };
        let from = request.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
        match from.map(|from| from.parse::<usize>().unwrap()) {
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                Answer { status: 206, body: bytes[from..].to_vec(), ..Answer::default() }
                    .with("content-range", range)
            }
            None => Answer::ok(bytes),
        }
    }
}

fn options(host: &str) -> SourceOptions {
    SourceOptions { plain_http: vec![host.into()], retries: 2, ..SourceOptions::default() }
}

fn empty_auth(dir: &Path) -> PathBuf {
    let file = dir.join("auth.json");
    fs::write(&file, "{}").unwrap();
    file
}

#[tokio::test]
async fn one_request_tells_the_digest() {
    let dir = tempfile::tempdir().unwrap();
    let contents = contents(dir.path()).await;
    let want = contents.manifest;
    let stub = Stub::start(move |request, _| contents.answer(request)).await;
    let options = SourceOptions { auth_file: Some(empty_auth(dir.path())), ..options(&stub.host) };
    let source = open(&format!("docker://{}/a/b:t", stub.host).parse().unwrap(), &options).await.unwrap();
    assert_eq!(source.digest().await.unwrap(), want);
    let requests = stub.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("GET", "/v2/a/b/manifests/t"));
    assert!(requests[0].header("accept").contains(MANIFEST) && requests[0].header("accept").contains(INDEX));
    // Resolving needs the config besides, and nothing twice.
    source.resolve().await.unwrap();
    assert_eq!(stub.requests().len(), 2);
}

#[tokio::test]
async fn tokens_are_fetched_and_renewed_once() {
    for (auth, method) in
        [(r#"{"auth":"dXNlcjpnZWhlaW0="}"#, "GET"), (r#"{"identitytoken":"refresh"}"#, "POST")]
    {
        let dir = tempfile::tempdir().unwrap();
        let contents = contents(dir.path()).await;
        let image = contents.image.clone();
        // Tokens are good for two answers; then the registry says 403 and no more.
        let served = std::sync::atomic::AtomicUsize::new(0);
        let stub = Stub::start(move |request, before| {
            if request.path.starts_with("/token") {
                return Answer::ok(format!(r#"{{"token":"t{before}","expires_in":60}}"#));
            }
            let count = served.load(std::sync::atomic::Ordering::SeqCst);
            if request.header("authorization") == format!("Bearer t{}", count / 2) {
                served.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                return contents.answer(request);
            }
            let realm = format!("http://{}/token", request.header("host"));
            let challenge = format!(r#"Bearer realm="{realm}",service="stub""#);
            if count == 0 {
                Answer::status(401).with("www-authenticate", challenge)
            } else {
                Answer::status(403)
            }
        })
        .await;
        let auth_file = dir.path().join("auth.json");
        fs::write(&auth_file, format!(r#"{{"auths":{{"{}":{auth}}}}}"#, stub.host)).unwrap();
        let options = SourceOptions { auth_file: Some(auth_file), ..options(&stub.host) };
        let (source, resolved) = resolve(&format!("docker://{}/a/b:t", stub.host), &options).await;
        assert_eq!(resolved.layers, image.layers);
        check(source, &resolved, "amd64").await;
        let asked: Vec<Request> =
            stub.requests().into_iter().filter(|request| request.path.starts_with("/token")).collect();
        assert_eq!(asked.len(), 2, "four documents, two a token");
        for request in asked {
            assert_eq!(request.method, method);
            if method == "GET" {
                assert_eq!(request.path, "/token?scope=repository%3Aa%2Fb%3Apull&service=stub");
                assert_eq!(request.header("authorization"), "Basic dXNlcjpnZWhlaW0=");
            } else {
                assert!(
                    request.body.contains("grant_type=refresh_token&refresh_token=refresh"),
                    "{}",
                    request.body
                );
            }
        }
    }
}

#[tokio::test]
async fn a_registry_that_never_accepts_ends() {
    let dir = tempfile::tempdir().unwrap();
    let stub = Stub::start(|request, _| {
        if request.path.starts_with("/token") {
            return Answer::ok(r#"{"access_token":"t"}"#);
        }
        let realm = format!("http://{}/token", request.header("host"));
        Answer {
            status: 401,
            body: br#"{"errors":[{"code":"DENIED","message":"go\u001b away"}]}"#.to_vec(),
            ..Answer::default()
        }
        .with("www-authenticate", format!(r#"Bearer realm="{realm}""#))
    })
    .await;
    let options = SourceOptions { auth_file: Some(empty_auth(dir.path())), ..options(&stub.host) };
    let name = format!("docker://{}/a/b:t", stub.host);
    let error = refusal(&name, &options).await;
    assert!(error.contains("answered 401") && error.contains("(DENIED go  away)"), "{error}");
    assert_eq!(stub.requests().len(), 3, "asked, token, asked again");
}

#[tokio::test]
async fn broken_downloads_are_resumed() {
    for ranges in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let contents = contents(dir.path()).await;
        let manifest = contents.manifest;
        let stub = Stub::start(move |request, before| {
            let mut request = request.clone();
            if !ranges {
                request.headers.remove("range");
            }
            let mut answer = contents.answer(&request);
            // Every document fails at first, every blob breaks twice.
            if before == 0 && !request.path.contains("blobs") {
                return Answer::status(503).with("retry-after", "0");
            }
            if before < 2 && request.path.contains("blobs") {
                answer.cut = Some(answer.body.len() / 3);
            }
            answer
        })
        .await;
        let options = SourceOptions { auth_file: Some(empty_auth(dir.path())), ..options(&stub.host) };
        let (source, image) = resolve(&format!("docker://{}/a/b:t", stub.host), &options).await;
        assert_eq!(image.manifest_digest, manifest);
        check(source, &image, "amd64").await;
        let ranged = stub.requests().iter().filter(|request| !request.header("range").is_empty()).count();
        assert!(ranged >= 2, "{ranged}");
    }
}

#[tokio::test]
async fn trouble_that_lasts_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let contents = contents(dir.path()).await;
    let stub = Stub::start(move |request, _| {
        let mut answer = contents.answer(request);
        match request.path.as_str() {
            "/v2/down/manifests/t" => return Answer::status(500),
            "/v2/long/manifests/t" => return Answer::ok(vec![b' '; 5 << 20]),
            "/v2/old/manifests/t" => return Answer::ok(r#"{"schemaVersion":1,"fsLayers":[]}"#),
            "/v2/lies/manifests/t" => return answer,
            _ => {}
        }
        if request.path.starts_with("/v2/lies/") {
            answer.body[5] ^= 1;
        } else if request.path.starts_with("/v2/cut/blobs/") {
            answer.cut = Some(0);
        }
        answer
    })
    .await;
    let options = SourceOptions { auth_file: Some(empty_auth(dir.path())), ..options(&stub.host) };
    let digest = Digest::of(b"another");
    for (rest, want) in [
        ("down:t", "answered 500"),
        ("long:t", "is longer than 4194304 bytes"),
        ("old:t", "schema 1"),
        ("lies:t", "the image config has digest"),
        ("cut:t", "broke off"),
        (&format!("x@{digest}"), "answered 404"),
    ] {
        let error = refusal(&format!("docker://{}/{rest}", stub.host), &options).await;
        assert!(error.contains(want), "{error}");
    }
    let unreachable = options.clone();
    let name = "docker://127.0.0.1:1/x:t";
    let source = open(&name.parse().unwrap(), &SourceOptions { retries: 0, ..unreachable }).await.unwrap();
    assert_eq!(source.resolve().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn credentials_do_not_follow_redirects() {
    let dir = tempfile::tempdir().unwrap();
    let contents = contents(dir.path()).await;
    let store_contents =
        Contents { dir: contents.dir.clone(), manifest: contents.manifest, image: contents.image.clone() };
    let store = Stub::start(move |request, _| store_contents.answer(request)).await;
    let store_host = store.host.clone();
    let stub = Stub::start(move |request, _| {
        if request.header("authorization") != "Basic dXNlcjpnZWhlaW0=" {
            return Answer::status(401).with("www-authenticate", r#"Basic realm="x""#);
        }
        if request.path.contains("/blobs/") {
            let name = request.path.rsplit('/').next().unwrap();
            return Answer::status(307).with("location", format!("http://{store_host}/data/{name}"));
        }
        contents.answer(request)
    })
    .await;
    let auth_file = dir.path().join("auth.json");
    fs::write(&auth_file, format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpnZWhlaW0="}}}}}}"#, stub.host))
        .unwrap();
    let options = SourceOptions { auth_file: Some(auth_file), ..options(&stub.host) };
    let (source, image) = resolve(&format!("docker://{}/a/b:t", stub.host), &options).await;
    check(source, &image, "amd64").await;
    let redirected = store.requests();
    assert_eq!(redirected.len(), 3);
    assert!(redirected.iter().all(|request| request.header("authorization").is_empty()), "{redirected:?}");
}

#[tokio::test]
async fn credential_helpers_are_asked() {
    let dir = tempfile::tempdir().unwrap();
    let contents = contents(dir.path()).await;
    let stub = Stub::start(move |request, _| {
        if request.header("authorization") != "Basic dXNlcjpnZWhlaW0=" {
            return Answer::status(401).with("www-authenticate", r#"Basic realm="x""#);
        }
        contents.answer(request)
    })
    .await;
    let auth_file = dir.path().join("auth.json");
    for (helper, want) in
        [("../../bin/sh", "that is not the name of a helper"), ("lantern-none", "cannot be run")]
    {
        fs::write(&auth_file, format!(r#"{{"credHelpers":{{"{}":"{helper}"}}}}"#, stub.host)).unwrap();
        let options = SourceOptions { auth_file: Some(auth_file.clone()), ..options(&stub.host) };
        let error = refusal(&format!("docker://{}/a/b:t", stub.host), &options).await;
        assert!(error.contains(want), "{error}");
    }
}

#[tokio::test]
async fn blob_failures_keep_their_meaning() {
    let dir = tempfile::tempdir().unwrap();
    let contents = contents(dir.path()).await;
    let layer = contents.image.layers[0].digest.to_string();
    let stub = Stub::start(move |request, _| {
        if !request.path.ends_with(&layer) {
            return contents.answer(request);
        }
        Answer::status(request.path.split('/').nth(2).unwrap().parse().unwrap())
    })
    .await;
    let options = SourceOptions { auth_file: Some(empty_auth(dir.path())), ..options(&stub.host) };
    for (status, want) in
        [(404, ErrorKind::NotFound), (403, ErrorKind::Denied), (503, ErrorKind::Unavailable)]
    {
        let (source, image) = resolve(&format!("docker://{}/{status}:t", stub.host), &options).await;
        let read = move || {
            let blob = source.blob(&image.layers[0]).unwrap();
            let budget = Budget::new(Limits::default());
            let dir = std::env::temp_dir();
            read_layer(LayerIndex(0), &image.layers[0], blob, &budget, &dir, &|_| ()).unwrap_err()
        };
        let error = tokio::task::spawn_blocking(read).await.unwrap();
        assert_eq!(error.kind(), want, "{error}");
    }
}
