//! A request that botocore signed, and everything that may be wrong with it.

use super::*;
use axum::http::Request;

const KEYS: &str =
    "[keys.AKIDEXAMPLE]\nsecret = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'\ntenant = 'local'\n";
/// SHA-256 of `{"a":1}`.
const DIGEST: &str = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862";
const NOW: u64 = 1_795_266_348;
const PATH: &str = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A000000000000%3Afunction%3Ahello\
                    /invocations?Qualifier=%24LATEST";
/// As botocore 1.43 signed it.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/eu-west-1/lambda/aws4_request, \
    SignedHeaders=host;x-amz-date;x-amz-log-type, \
    Signature=16141ad9d9b5fa588e2ae81ad8f2b9d404f46589d82caa96566c4204d3ebf1c9";

fn parts(change: impl FnOnce(axum::http::request::Builder) -> axum::http::request::Builder) -> Parts {
    let request =
        Request::post(PATH).header("host", "127.0.0.1:9000").header("x-amz-date", "20261121T130548Z");
    let request = request.header("x-amz-log-type", "Tail").header("user-agent", "other than it was");
    change(request).body(()).unwrap().into_parts().0
}

fn signed() -> Parts {
    parts(|request| request.header("authorization", AUTHORIZATION))
}

fn check(parts: &Parts, digest: &str, now: u64) -> Result<String, ErrorCode> {
    let keys = AccessKeys::parse(KEYS).unwrap();
    let claim = claim(parts, &keys, None, now).map_err(|error| error.code)?;
    claim.verify(parts, digest).map(|caller| caller.tenant.to_string()).map_err(|error| error.code)
}

#[test]
fn what_botocore_signed_is_accepted_within_the_quarter_of_an_hour() {
    for now in [NOW - 900, NOW, NOW + 900] {
        assert_eq!(check(&signed(), DIGEST, now), Ok("local".into()));
    }
    for now in [0, NOW - 901, NOW + 901, u64::MAX] {
        assert_eq!(check(&signed(), DIGEST, now), Err(ErrorCode::InvalidSignature));
    }
}

#[test]
fn whatever_was_changed_is_noticed() {
    let refused =
        |parts: &Parts| assert_eq!(check(parts, DIGEST, NOW), Err(ErrorCode::InvalidSignature), "{parts:?}");
    assert_eq!(check(&signed(), &"0".repeat(64), NOW), Err(ErrorCode::InvalidSignature), "another body");
    let changed = |change: fn(&mut Parts)| {
        let mut parts = signed();
        change(&mut parts);
        parts
    };
    refused(&changed(|parts| parts.method = "PUT".parse().unwrap()));
    refused(&changed(|parts| parts.uri = PATH.replace("hello", "other").parse().unwrap()));
    refused(&changed(|parts| parts.uri = PATH.split('?').next().unwrap().parse().unwrap()));
    refused(&changed(|parts| parts.uri = "/".parse().unwrap()));
    refused(&changed(|parts| drop(parts.headers.insert("x-amz-log-type", "None".parse().unwrap()))));
    refused(&changed(|parts| drop(parts.headers.remove("x-amz-log-type"))));
    refused(&changed(|parts| drop(parts.headers.insert("host", "elsewhere".parse().unwrap()))));
    refused(&changed(|parts| drop(parts.headers.insert("x-amz-date", "20261121T130549Z".parse().unwrap()))));
    // not signed, and would change what is done
    refused(&changed(|parts| drop(parts.headers.insert("x-amz-invocation-type", "Event".parse().unwrap()))));
    refused(&changed(|parts| {
        parts.headers.insert("x-amz-content-sha256", "UNSIGNED-PAYLOAD".parse().unwrap());
    }));
    for (from, to) in
        [("eu-west-1", "us-east-1"), ("ebf1c9", "ebf1c8"), ("/lambda/", "/s3/"), ("20261121/", "20261120/")]
    {
        let authorization = AUTHORIZATION.replace(from, to);
        refused(&parts(|request| request.header("authorization", authorization)));
    }
}

#[test]
fn who_is_not_known_is_told_so() {
    assert_eq!(check(&parts(|request| request), DIGEST, NOW), Err(ErrorCode::MissingAuthenticationToken));
    let other = AUTHORIZATION.replace("AKIDEXAMPLE", "AKIDOTHER");
    let other = parts(|request| request.header("authorization", other));
    assert_eq!(check(&other, DIGEST, NOW), Err(ErrorCode::UnrecognizedClient));
    let mut with_token = signed();
    with_token.headers.insert("x-amz-security-token", "token".parse().unwrap());
    assert_eq!(check(&with_token, DIGEST, NOW), Err(ErrorCode::UnrecognizedClient));
    let twice = parts(|r| r.header("authorization", AUTHORIZATION).header("authorization", AUTHORIZATION));
    assert_eq!(check(&twice, DIGEST, NOW), Err(ErrorCode::IncompleteSignature));
}

#[test]
fn a_region_may_be_demanded() {
    let keys = AccessKeys::parse(KEYS).unwrap();
    assert!(claim(&signed(), &keys, Some("eu-west-1"), NOW).is_ok());
    let error = claim(&signed(), &keys, Some("us-east-1"), NOW).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidSignature);
}

#[test]
fn headers_that_cannot_be_read() {
    let parsed = Authorization::parse(AUTHORIZATION).unwrap();
    assert_eq!((parsed.key_id, parsed.region, parsed.signed_headers.len()), ("AKIDEXAMPLE", "eu-west-1", 3));
    assert_eq!(Authorization::parse(&AUTHORIZATION.replace(", ", ",")).unwrap(), parsed);
    for (from, to) in [
        ("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        ("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256"),
        ("Credential=", "Credentials="),
        ("AKIDEXAMPLE/", "AKID EXAMPLE/"),
        ("AKIDEXAMPLE/", "AKIDEXAMPLE/x/"),
        ("/aws4_request", ""),
        ("20261121", "2026112x"),
        ("eu-west-1", "EU"),
        ("SignedHeaders", "Signed"),
        ("host;", "host;;"),
        ("host;", "Host;"),
        ("host;x-amz-date", "x-amz-date;host"),
        ("host;", "host;host;"),
        ("ebf1c9", "EBF1C9"),
        ("ebf1c9", "ebf1c"),
        (", Signature", ", Signature=x, Signature"),
    ] {
        let text = AUTHORIZATION.replacen(from, to, 1);
        let error = Authorization::parse(&text).unwrap_err();
        assert_eq!(error.code, ErrorCode::IncompleteSignature, "{text}");
    }
    for text in ["", "AWS4-HMAC-SHA256 ", "Bearer x", &"A".repeat(5000)] {
        assert!(Authorization::parse(text).is_err());
    }
}
