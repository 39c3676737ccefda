//! What anybody may send to the front door of functions before anything is known of them: the
//! `Authorization` header, dates, names and ARNs. What is accepted has one spelling and keeps
//! its limits.

#![no_main]

use blockd::api::access_keys::AccessKeys;
use blockd::api::sigv4::{Authorization, claim};
use blockd::functions::destination::Destination;
use blockd::functions::name::FunctionReference;
use blockd::functions::time::{parse_amz_date, timestamp};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static KEYS: LazyLock<AccessKeys> = LazyLock::new(|| {
    let text = "[keys.AKIDEXAMPLE]\nsecret = '0123456789abcdef'\ntenant = 'local'";
    AccessKeys::parse(text).expect("a good key")
});

/// The moment of the seeds.
const NOW: u64 = 1_795_266_348;

/// Checks a request whose head is `header: value` lines, as hyper would have read it.
fn request(text: &str) {
    let mut builder = axum::http::Request::get("/2015-03-31/functions/?MaxItems=1");
    for line in text.lines().take(100) {
        if let Some((name, value)) = line.split_once(": ") {
            builder = builder.header(name, value);
        }
    }
    let Ok(request) = builder.body(()) else { return };
    let parts = request.into_parts().0;
    if let Ok(claim) = claim(&parts, &KEYS, None, NOW) {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(claim.verify(&parts, empty).is_err(), "nobody guesses a signature");
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(authorization) = Authorization::parse(text) {
        assert_eq!(authorization.signature.len(), 64);
        assert!(authorization.signed_headers.iter().all(|name| !name.is_empty()));
        // the shortest spelling: a header of the longest length that is taken stays one
        let spelled = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}/{}/{}/aws4_request,SignedHeaders={},Signature={}",
            authorization.key_id,
            authorization.date,
            authorization.region,
            authorization.service,
            authorization.signed_headers.join(";"),
            authorization.signature
        );
        assert_eq!(Authorization::parse(&spelled), Ok(authorization));
    }
    if let Ok(reference) = text.parse::<FunctionReference>() {
        assert!(reference.name.len() <= 64);
        let spelled = reference.to_string();
        assert_eq!(spelled.parse(), Ok(reference.clone()));
        let _ = reference.check(Some("$LATEST"), "000000000000", Some("us-east-1"));
    }
    if let Ok(Some(Destination::Function(name))) = Destination::parse(text, "own", "000000000000") {
        assert_ne!(name, "own");
    }
    if let Some(seconds) = parse_amz_date(text) {
        let written = timestamp(seconds * 1000);
        let digits: String = written.chars().filter(char::is_ascii_alphanumeric).collect();
        assert_eq!(format!("{}Z", &digits[..15]), text);
    }
    request(text);
});
