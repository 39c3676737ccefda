//! The real registry (Debian's docker-registry), filled by skopeo.

use super::fixture::*;
use crate::oci::{SourceOptions, open};
use origin::store::ErrorKind;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// `user:geheim` by bcrypt.
const HTPASSWD: &str = "user:$2b$05$abcdefghijklmnopqrstuuVWu8RjbNovPZWAMRdd7iqaaG0mI53Uu\n";

/// A registry on a free port of the loopback device; ends with the value.
struct Server {
    child: Child,
    host: String,
}

impl Server {
    fn start(dir: &Path, with_password: bool) -> Self {
        Self::start_with(dir, with_password, "")
    }

    /// `tls` goes into the `http` section.
    fn start_with(dir: &Path, with_password: bool, tls: &str) -> Self {
        let auth = if with_password {
            fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
            format!("auth: {{htpasswd: {{realm: test, path: {}/htpasswd}}}}\n", dir.display())
        } else {
            String::new()
        };
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}}}\nhttp: {{addr: \"127.0.0.1:0\"{tls}}}\n{auth}",
            dir.display()
        );
        fs::write(dir.join("config.yml"), config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tests need the Debian package docker-registry");
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let host = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "docker-registry ended: {said}");
            said.push_str(&line);
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(['"', ',', '\n']).next().unwrap().to_owned();
            }
        };
        // Keeps the pipe from filling up.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, host }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn pulls_from_a_registry_that_wants_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), true);
    let layout_dir = dir.path().join("layout");
    let layout = Fixture::new(&layout_dir);
    layout.finish(&[("one", layout.image("amd64")), ("many", layout.index(&["arm64", "amd64"]))]);
    for tag in ["one", "many"] {
        let to = format!("docker://{}/some/app:{tag}", server.host);
        let from = format!("oci:{}:{tag}", layout_dir.display());
        let arguments =
            ["copy", "--all", "--dest-tls-verify=false", "--dest-creds", "user:geheim", &from, &to];
        skopeo(&arguments);
    }
    let auth_file = dir.path().join("auth.json");
    let mut file = fs::File::create(&auth_file).unwrap();
    // user:geheim
    write!(file, r#"{{"auths":{{"{}/some":{{"auth":"dXNlcjpnZWhlaW0="}}}}}}"#, server.host).unwrap();
    let options = SourceOptions {
        platform: Some("linux/amd64".parse().unwrap()),
        auth_file: Some(auth_file),
        plain_http: vec![server.host.clone()],
        retries: 1,
        ..SourceOptions::default()
    };
    let (_, local) = resolve(&format!("oci:{}:many", layout_dir.display()), &options).await;
    let digest = local.manifest_digest;
    for rest in ["one", "many", &format!("many@{digest}")] {
        let name = format!("docker://{}/some/app:{rest}", server.host);
        let (source, image) = resolve(&name, &options).await;
        assert_eq!(image.layers, local.layers, "{rest}");
        check(source, &image, "amd64").await;
    }

    let name = format!("docker://{}/some/app:none", server.host);
    let error = refusal(&name, &options).await;
    assert!(error.contains("404") && error.contains("check name and tag"), "{error}");
    let name = format!("docker://{}/some/app:one", server.host);
    let nobody = dir.path().join("nobody.json");
    fs::write(&nobody, "{}").unwrap();
    let anonymous = SourceOptions { auth_file: Some(nobody.clone()), ..options.clone() };
    let source = open(&name.parse().unwrap(), &anonymous).await.unwrap();
    let error = source.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("no credentials were found"), "{error}");
    // user:falsch
    fs::write(&nobody, format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpmYWxzY2g="}}}}}}"#, server.host))
        .unwrap();
    let error = refusal(&name, &anonymous).await;
    assert!(error.contains("401") && error.contains("do not suffice"), "{error}");
    assert!(!error.contains("falsch") && !format!("{source:?}").contains("falsch"));
    // Without being told, plain HTTP is not spoken, not even to the loopback device.
    let secure = SourceOptions { plain_http: vec![], ..options };
    let error = refusal(&name, &secure).await;
    assert!(error.contains("cannot be reached"), "{error}");
}

/// A certificate for 127.0.0.1 that nobody else trusts.
fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let (key, certificate) = (dir.join("key.pem"), dir.join("certificate.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]);
    openssl.args([
        "-subj",
        "/CN=registry",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=CA:FALSE",
    ]);
    let output = openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (key, certificate)
}

#[tokio::test]
async fn tls_is_checked_against_the_certificates_given() {
    let dir = tempfile::tempdir().unwrap();
    let (key, certificate) = certificate(dir.path());
    let tls = format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display());
    let server = Server::start_with(dir.path(), false, &tls);
    let layout_dir = dir.path().join("layout");
    let layout = Fixture::new(&layout_dir);
    layout.finish(&[("one", layout.image("amd64"))]);
    let name = format!("docker://{}/app:one", server.host);
    skopeo(&["copy", "--dest-tls-verify=false", &format!("oci:{}:one", layout_dir.display()), &name]);
    let strict = SourceOptions {
        platform: Some("linux/amd64".parse().unwrap()),
        retries: 0,
        ..SourceOptions::default()
    };
    let error = refusal(&name, &strict).await;
    assert!(error.contains("cannot be reached") || error.contains("certificate"), "{error}");
    let trusting = SourceOptions { ca_certs: vec![certificate], ..strict };
    let (source, image) = resolve(&name, &trusting).await;
    check(source, &image, "amd64").await;
}
