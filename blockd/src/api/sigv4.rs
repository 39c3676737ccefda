//! Whether a request was signed with one of our keys: AWS Signature Version 4 in the
//! `Authorization` header, checked by signing the request once more and comparing in constant
//! time.
//!
//! Invariants: exactly the headers that the caller names are signed, `host` and `x-amz-date`
//! among them, and every `x-amz-*` header is named; the body's digest is part of what is
//! signed; a signature is good for 15 minutes either way. Presigned URLs and session tokens
//! are refused. Within the 15 minutes a request may be sent again, as on AWS.

use super::access_keys::{AccessKey, AccessKeys, is_key_id};
use crate::functions::name::is_region;
use crate::functions::time::parse_amz_date;
use crate::functions::{Caller, ErrorCode, ServiceError};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use std::time::{Duration, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// How far clocks may be apart, in seconds.
const MAX_SKEW: u64 = 15 * 60;
/// Longest header that is looked at, in bytes.
const MAX_AUTHORIZATION_BYTES: usize = 4096;
/// Most signed headers.
const MAX_SIGNED_HEADERS: usize = 64;
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "lambda";

/// An `Authorization` header, taken apart. Borrows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization<'a> {
    /// Id of the key.
    pub key_id: &'a str,
    /// `20261121`.
    pub date: &'a str,
    /// `us-east-1`.
    pub region: &'a str,
    /// `lambda`.
    pub service: &'a str,
    /// Lower case, sorted, each once.
    pub signed_headers: Vec<&'a str>,
    /// 64 lower-case hexadecimal digits.
    pub signature: &'a str,
}

fn incomplete(message: &str) -> ServiceError {
    ServiceError::new(ErrorCode::IncompleteSignature, message)
}

impl<'a> Authorization<'a> {
    /// Takes a header apart.
    ///
    /// # Errors
    /// [`ServiceError`] says which part does not fit.
    pub fn parse(text: &'a str) -> Result<Self, ServiceError> {
        if text.len() > MAX_AUTHORIZATION_BYTES {
            return Err(incomplete("the Authorization header is too long"));
        }
        let rest = text.strip_prefix(ALGORITHM).and_then(|rest| rest.strip_prefix(' '));
        let rest = rest.ok_or_else(|| incomplete("Authorization header requires 'AWS4-HMAC-SHA256'."))?;
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split(',') {
            let (name, value) = part.trim_matches(' ').split_once('=').unwrap_or((part, ""));
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(incomplete("Authorization header has a part that is not known")),
            };
            if slot.replace(value).is_some() {
                return Err(incomplete("Authorization header has a part twice"));
            }
        }
        let needed = |name: &str| incomplete(&format!("Authorization header requires '{name}' parameter."));
        let credential = credential.ok_or_else(|| needed("Credential"))?;
        let signed_headers = signed_headers.ok_or_else(|| needed("SignedHeaders"))?;
        let signature = signature.ok_or_else(|| needed("Signature"))?;
        let scope: Vec<&str> = credential.splitn(6, '/').collect();
        let [key_id, date, region, service, "aws4_request"] = scope[..] else {
            return Err(incomplete("Credential must be KEY/DATE/REGION/lambda/aws4_request"));
        };
        let is_date = date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit());
        if !is_key_id(key_id) || !is_date || !is_region(region) {
            return Err(incomplete("Credential must be KEY/DATE/REGION/lambda/aws4_request"));
        }
        if signature.len() != 64 || !signature.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(incomplete("Signature must be 64 lower-case hexadecimal digits"));
        }
        let signed_headers: Vec<&str> = signed_headers.split(';').collect();
        let is_name = |name: &&str| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
        };
        if signed_headers.len() > MAX_SIGNED_HEADERS
            || !signed_headers.iter().all(is_name)
            || !signed_headers.is_sorted_by(|a, b| a < b)
        {
            return Err(incomplete(
                "SignedHeaders must be names in lower case, sorted, each once, joined by ;",
            ));
        }
        Ok(Self { key_id, date, region, service, signed_headers, signature })
    }
}

/// What is known of a request before its body was read: by whom and when it claims to be.
#[derive(Debug, Clone)]
pub struct Claim<'k> {
    key: &'k AccessKey,
    signed_headers: Vec<String>,
    signature: String,
    region: String,
    seconds: u64,
}

fn refused(message: impl Into<String>) -> ServiceError {
    ServiceError::new(ErrorCode::InvalidSignature, message)
}

fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, ServiceError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| value.to_str()).transpose();
    match (first, values.next()) {
        (Ok(first), None) => Ok(first),
        _ => Err(incomplete(&format!("header {name} is there twice or is not text"))),
    }
}

/// Everything that can be checked without the body, so that strangers are turned away before
/// they send one.
///
/// # Errors
/// [`ServiceError`] with the exception that AWS answers.
pub fn claim<'k>(
    parts: &Parts,
    keys: &'k AccessKeys,
    region: Option<&str>,
    now: u64,
) -> Result<Claim<'k>, ServiceError> {
    let Some(text) = one(&parts.headers, "authorization")? else {
        let presigned = parts.uri.query().is_some_and(|query| query.contains("X-Amz-Signature="));
        let message = if presigned {
            "Missing Authentication Token: presigned URLs are not taken; sign with the Authorization header"
        } else {
            "Missing Authentication Token"
        };
        return Err(ServiceError::new(ErrorCode::MissingAuthenticationToken, message));
    };
    let authorization = Authorization::parse(text)?;
    let unknown = |message: &str| ServiceError::new(ErrorCode::UnrecognizedClient, message);
    let key = keys.get(authorization.key_id);
    let key = key.ok_or_else(|| unknown("The security token included in the request is invalid."))?;
    if parts.headers.contains_key("x-amz-security-token") {
        return Err(unknown(
            "The security token included in the request is invalid: session tokens are not taken.",
        ));
    }
    if authorization.service != SERVICE {
        return Err(refused(format!("Credential should be scoped to correct service: '{SERVICE}'.")));
    }
    if region.is_some_and(|region| region != authorization.region) {
        return Err(refused("Credential should be scoped to a valid region."));
    }
    let date = one(&parts.headers, "x-amz-date")?;
    let date = date.ok_or_else(|| incomplete("Authorization header requires existence of 'X-Amz-Date'."))?;
    let seconds =
        parse_amz_date(date).ok_or_else(|| incomplete("X-Amz-Date must be like 20261121T130548Z"))?;
    if !date.starts_with(authorization.date) {
        return Err(refused("Date in Credential scope does not match X-Amz-Date."));
    }
    if now > seconds.saturating_add(MAX_SKEW) {
        return Err(refused(format!(
            "Signature expired: {date} is more than 15 min. ago by this worker's clock"
        )));
    }
    if seconds > now.saturating_add(MAX_SKEW) {
        return Err(refused(format!(
            "Signature not yet current: {date} is more than 15 min. ahead of this worker's clock"
        )));
    }
    let is_signed = |name: &str| authorization.signed_headers.binary_search(&name).is_ok();
    let unsigned = parts
        .headers
        .keys()
        .map(header::HeaderName::as_str)
        .find(|name| name.starts_with("x-amz-") && *name != "x-amz-user-agent" && !is_signed(name));
    if let Some(name) = unsigned.or((!is_signed("host")).then_some("host")) {
        return Err(refused(format!("header {name} must be signed")));
    }
    Ok(Claim {
        key,
        signed_headers: authorization.signed_headers.iter().map(|&name| name.into()).collect(),
        signature: authorization.signature.into(),
        region: authorization.region.into(),
        seconds,
    })
}

impl Claim<'_> {
    /// Checks the claim against the whole request; `digest` is the SHA-256 of its body in
    /// lower-case hexadecimal.
    ///
    /// # Errors
    /// [`ServiceError`] if the signature does not fit.
    pub fn verify(&self, parts: &Parts, digest: &str) -> Result<Caller, ServiceError> {
        let mismatch = || {
            refused(
                "The request signature we calculated does not match the signature you provided. Check your AWS \
                 Secret Access Key and signing method. Consult the service documentation for details.",
            )
        };
        if let Some(stated) = one(&parts.headers, "x-amz-content-sha256")?
            && stated != digest
        {
            return Err(refused("The value of X-Amz-Content-Sha256 is not the SHA-256 of the body."));
        }
        let mut headers = Vec::with_capacity(self.signed_headers.len());
        for name in &self.signed_headers {
            for value in parts.headers.get_all(name) {
                headers.push((name.as_str(), value.to_str().map_err(|_| mismatch())?));
            }
        }
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        // the authority is not part of what is signed: the host header is
        let uri = format!("http://worker{path}");
        let body = SignableBody::Precomputed(digest.into());
        let request = SignableRequest::new(parts.method.as_str(), uri, headers.into_iter(), body)
            .map_err(|_| mismatch())?;
        let mut settings = SigningSettings::default();
        settings.excluded_headers = None;
        let identity = self.key.credentials.clone().into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(SERVICE)
            .time(UNIX_EPOCH + Duration::from_secs(self.seconds))
            .settings(settings)
            .build()
            .map_err(|error| ServiceError::service(error.to_string()))?;
        let signed = sign(request, &params.into()).map_err(|_| mismatch())?;
        let fits: bool = signed.signature().as_bytes().ct_eq(self.signature.as_bytes()).into();
        fits.then(|| self.key.caller.clone()).ok_or_else(mismatch)
    }
}

#[cfg(test)]
mod tests;
