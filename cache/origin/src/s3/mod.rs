//! The store on any server that speaks the S3 protocol.
//!
//! Objects are keys below the prefix of `s3://bucket/prefix`. The SDK's own retries are off:
//! repeating is the business of [`crate::retry`], out of one budget. Every call, its body
//! included, ends within [`S3Settings::deadline`]. Checksum extensions that many servers do
//! not know are not asked for: chunks carry their own proof.

mod error;
mod multipart;
mod probe;

use crate::settings::S3Options;
use crate::store::{
    Abilities, ErrorKind, Listed, ObjectInfo, Origin, OriginError, Page, PageToken, PutOutcome, Result,
    Version,
};
use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Credentials, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use bytes::{Bytes, BytesMut};
use image_format::names::ObjectName;
use std::ops::Range;
use std::time::{Duration, SystemTime};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

/// How an S3 store is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// Longest wait for a connection.
    pub connect: Duration,
    /// Longest call, from the request to the last byte of the answer.
    pub deadline: Duration,
    /// Objects of at least this many bytes go up in parts of this size; S3 wants at least
    /// 5 MiB for all parts but the last.
    pub part_bytes: usize,
    /// Access key and secret, instead of what AWS tools would find.
    pub keys: Option<(String, Zeroizing<String>)>,
}

impl Default for S3Settings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            deadline: Duration::from_secs(30),
            part_bytes: 32 << 20,
            keys: None,
        }
    }
}

/// A store in a bucket.
#[derive(Debug)]
pub struct S3Store {
    client: Client,
    bucket: String,
    /// Empty, or ends with `/`.
    prefix: String,
    settings: S3Settings,
    honours_absent: OnceCell<bool>,
    abilities: OnceCell<Abilities>,
}

/// What a write depends on.
#[derive(Debug, Clone, Copy)]
enum Condition<'a> {
    None,
    /// `If-None-Match: *`.
    Absent,
    /// `If-Match`, with this entity tag.
    Unchanged(&'a str),
}

/// What a conditional write came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Written {
    /// Done; the entity tag.
    Yes(Option<String>),
    /// The condition did not hold.
    No,
}

/// Bucket and prefix of `s3://bucket/prefix`.
#[must_use]
pub fn parse_url(url: &str) -> Option<(String, String)> {
    let rest = url.strip_prefix("s3://")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let bucket_ok = (3..=63).contains(&bucket.len())
        && bucket
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte));
    let prefix = prefix.trim_matches('/');
    let prefix_ok = prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_/=+".contains(&byte))
        && !prefix.split('/').any(|part| part == "." || part == "..");
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    (bucket_ok && prefix_ok).then(|| (bucket.to_string(), prefix))
}

impl S3Store {
    /// A store that is reached when it is first used. Credentials come from where AWS tools
    /// look: environment, profile files, a credential process, web identity, the instance.
    ///
    /// # Errors
    /// `Invalid` if the URL names no bucket.
    pub async fn open(url: &str, options: &S3Options, settings: S3Settings) -> Result<Self> {
        let Some((bucket, prefix)) = parse_url(url) else {
            return Err(OriginError {
                kind: ErrorKind::Invalid,
                operation: "open",
                object: String::new(),
                store: url.to_string(),
                message: "not of the form s3://bucket/prefix with a bucket of 3 to 63 of a-z 0-9 . - _"
                    .into(),
                source: None,
            });
        };
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(settings.connect)
            .operation_timeout(settings.deadline)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(region) = &options.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some((key, secret)) = &settings.keys {
            let given = Credentials::new(key, secret.as_str(), None, None, "settings");
            loader = loader.credentials_provider(given);
        }
        if let Some(endpoint) = &options.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let shared = loader.load().await;
        let mut config = aws_sdk_s3::config::Builder::from(&shared)
            .force_path_style(options.path_style)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if shared.region().is_none() {
            config = config.region(Region::new("us-east-1"));
        }
        let client = Client::from_conf(config.build());
        let (honours_absent, abilities) = (OnceCell::new(), OnceCell::new());
        Ok(Self { client, bucket, prefix, settings, honours_absent, abilities })
    }

    fn key(&self, name: &ObjectName) -> String {
        format!("{}{name}", self.prefix)
    }

    fn failed(
        &self,
        kind: ErrorKind,
        operation: &'static str,
        object: &str,
        message: impl Into<String>,
    ) -> OriginError {
        OriginError {
            kind,
            operation,
            object: object.to_string(),
            store: self.describe(),
            message: message.into(),
            source: None,
        }
    }

    /// Bounds a whole call. The SDK's own bound ends with the head of an answer.
    async fn in_time<T>(
        &self,
        operation: &'static str,
        object: &str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let bounded = tokio::time::timeout(self.settings.deadline, call).await;
        bounded.unwrap_or_else(|_| {
            let message = format!("no complete answer within {:?}", self.settings.deadline);
            Err(self.failed(ErrorKind::Unavailable, operation, object, message))
        })
    }

    /// Reads a body of at most `limit` bytes.
    async fn body(
        &self,
        name: &ObjectName,
        mut body: ByteStream,
        claimed: Option<i64>,
        limit: usize,
    ) -> Result<Bytes> {
        let object = name.to_string();
        let too_long = || {
            let message = format!("the object is longer than {limit} bytes, which it cannot be");
            self.failed(ErrorKind::Corrupt, "get", &object, message)
        };
        let claimed = claimed.and_then(|length| usize::try_from(length).ok());
        if claimed.is_some_and(|length| length > limit) {
            return Err(too_long());
        }
        let mut data = BytesMut::with_capacity(claimed.unwrap_or(0));
        loop {
            match body.next().await {
                None => break,
                Some(Ok(part)) if data.len() + part.len() > limit => return Err(too_long()),
                Some(Ok(part)) => data.extend_from_slice(&part),
                Some(Err(error)) => {
                    let mut failed =
                        self.failed(ErrorKind::Unavailable, "get", &object, "the answer was cut off");
                    failed.source = Some(error.into());
                    return Err(failed);
                }
            }
        }
        if claimed.is_some_and(|length| length != data.len()) {
            return Err(self.failed(ErrorKind::Unavailable, "get", &object, "the answer ended too early"));
        }
        Ok(data.freeze())
    }

    async fn read(
        &self,
        name: &ObjectName,
        range: Option<Range<u64>>,
        limit: usize,
    ) -> Result<(Bytes, Option<String>)> {
        let object = name.to_string();
        let header = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let call = async {
            let request = self.client.get_object().bucket(&self.bucket).key(self.key(name)).set_range(header);
            let answer = request.send().await.map_err(|error| self.refused("get", &object, error))?;
            let data = self.body(name, answer.body, answer.content_length, limit).await?;
            Ok((data, answer.e_tag))
        };
        self.in_time("get", &object, call).await
    }

    /// Writes under a condition that the server may or may not honour.
    async fn write(
        &self,
        operation: &'static str,
        name: &ObjectName,
        data: Bytes,
        condition: Condition<'_>,
    ) -> Result<Written> {
        if data.len() >= self.settings.part_bytes {
            return self.write_parts(operation, name, data, condition).await;
        }
        let object = name.to_string();
        let call = async {
            let request = self.client.put_object().bucket(&self.bucket).key(self.key(name));
            let request = match condition {
                Condition::None => request,
                Condition::Absent => request.if_none_match("*"),
                Condition::Unchanged(tag) => request.if_match(tag),
            };
            let body = ByteStream::new(SdkBody::from(data));
            match request.body(body).send().await {
                Ok(answer) => Ok(Written::Yes(answer.e_tag)),
                Err(error) if error::condition_failed(&error) => Ok(Written::No),
                Err(error) => Err(self.refused(operation, &object, error)),
            }
        };
        self.in_time(operation, &object, call).await
    }
}

fn time(at: Option<aws_sdk_s3::primitives::DateTime>) -> Option<SystemTime> {
    at.and_then(|at| SystemTime::try_from(at).ok())
}

fn size(length: Option<i64>) -> u64 {
    length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0)
}

#[async_trait]
impl Origin for S3Store {
    fn describe(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix.trim_end_matches('/'))
    }

    async fn get(&self, name: &ObjectName, limit: usize) -> Result<Bytes> {
        self.read(name, None, limit).await.map(|(data, _)| data)
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes> {
        let length = crate::store::range_length(&range);
        if length == 0 {
            // the protocol has no way to ask for nothing
            let info = self.head(name).await?;
            let info = info.ok_or_else(|| {
                self.failed(ErrorKind::NotFound, "get_range", &name.to_string(), "there is no such object")
            })?;
            if range.start == range.end && range.end <= info.size {
                return Ok(Bytes::new());
            }
            return Err(self.failed(
                ErrorKind::Corrupt,
                "get_range",
                &name.to_string(),
                "the object ends too early",
            ));
        }
        let (data, _) = self.read(name, Some(range), length).await?;
        if data.len() != length {
            return Err(self.failed(
                ErrorKind::Corrupt,
                "get_range",
                &name.to_string(),
                "the object ends too early",
            ));
        }
        Ok(data)
    }

    async fn head(&self, name: &ObjectName) -> Result<Option<ObjectInfo>> {
        let object = name.to_string();
        let call = async {
            match self.client.head_object().bucket(&self.bucket).key(self.key(name)).send().await {
                Ok(answer) => Ok(Some(ObjectInfo {
                    size: size(answer.content_length),
                    modified: time(answer.last_modified),
                })),
                Err(error) => match self.refused("head", &object, error) {
                    error if error.is_not_found() => Ok(None),
                    error => Err(error),
                },
            }
        };
        self.in_time("head", &object, call).await
    }

    async fn put_if_absent(&self, name: &ObjectName, data: Bytes) -> Result<PutOutcome> {
        if !self.honours_absent().await? && self.head(name).await?.is_some() {
            return Ok(PutOutcome::Existed);
        }
        match self.write("put_if_absent", name, data, Condition::Absent).await? {
            Written::Yes(_) => Ok(PutOutcome::Created),
            Written::No => Ok(PutOutcome::Existed),
        }
    }

    async fn put(&self, name: &ObjectName, data: Bytes) -> Result<()> {
        crate::store::check_mutable(self, name)?;
        self.write("put", name, data, Condition::None).await.map(drop)
    }

    async fn get_versioned(&self, name: &ObjectName, limit: usize) -> Result<(Bytes, Version)> {
        let (data, tag) = self.read(name, None, limit).await?;
        let tag = tag.ok_or_else(|| {
            self.failed(ErrorKind::Unsupported, "get", &name.to_string(), "the server sends no entity tags")
        })?;
        Ok((data, Version(tag)))
    }

    async fn compare_and_swap(
        &self,
        name: &ObjectName,
        expected: Option<&Version>,
        data: Bytes,
    ) -> Result<Option<Version>> {
        crate::store::check_mutable(self, name)?;
        if !self.abilities().await?.compare_and_swap {
            let message = "this server has no true compare-and-swap (If-Match and If-None-Match with one \
                           winner); use one that has";
            return Err(self.failed(ErrorKind::Unsupported, "compare_and_swap", &name.to_string(), message));
        }
        let condition = expected.map_or(Condition::Absent, |version| Condition::Unchanged(&version.0));
        match self.write("compare_and_swap", name, data, condition).await? {
            Written::Yes(Some(tag)) => Ok(Some(Version(tag))),
            Written::Yes(None) => Err(self.failed(
                ErrorKind::Unsupported,
                "compare_and_swap",
                &name.to_string(),
                "the server sends no entity tags",
            )),
            Written::No => Ok(None),
        }
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<Page> {
        let call = async {
            let request = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(format!("{}{prefix}", self.prefix))
                .max_keys(i32::try_from(Page::MAX).unwrap_or(i32::MAX))
                .set_continuation_token(from.map(|token| token.0.clone()));
            let answer = request.send().await.map_err(|error| self.refused("list", prefix, error))?;
            let ours = |object: &aws_sdk_s3::types::Object| {
                let name = object.key()?.strip_prefix(&self.prefix)?.parse().ok()?;
                let info = ObjectInfo { size: size(object.size), modified: time(object.last_modified) };
                Some(Listed { name, info })
            };
            let objects = answer.contents().iter().take(Page::MAX).filter_map(ours).collect();
            let more = answer.is_truncated.unwrap_or(false);
            let next = answer.next_continuation_token.filter(|_| more).map(PageToken);
            if more && (next.is_none() || next.as_ref() == from) {
                return Err(self.failed(
                    ErrorKind::Corrupt,
                    "list",
                    prefix,
                    "the server's listing does not go on",
                ));
            }
            Ok(Page { objects, next })
        };
        self.in_time("list", prefix, call).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<()> {
        let object = name.to_string();
        let call = async {
            match self.client.delete_object().bucket(&self.bucket).key(self.key(name)).send().await {
                Ok(_) => Ok(()),
                Err(error) => match self.refused("delete", &object, error) {
                    error if error.is_not_found() => Ok(()),
                    error => Err(error),
                },
            }
        };
        self.in_time("delete", &object, call).await
    }

    async fn abilities(&self) -> Result<Abilities> {
        self.abilities.get_or_try_init(|| self.probe()).await.copied()
    }
}

#[cfg(test)]
mod tests {
    use super::parse_url;

    #[test]
    fn urls() {
        let parsed = |bucket: &str, prefix: &str| Some((bucket.to_string(), prefix.to_string()));
        assert_eq!(parse_url("s3://bucket"), parsed("bucket", ""));
        assert_eq!(parse_url("s3://bucket/"), parsed("bucket", ""));
        assert_eq!(parse_url("s3://my.bucket/a/b/"), parsed("my.bucket", "a/b/"));
        for bad in
            ["s3://", "s3:///x", "s3://B/x", "s3://ab", "s3://bucket/a/../b", "s3://bucket/a b", "file:///x"]
        {
            assert_eq!(parse_url(bad), None, "{bad}");
        }
    }
}
