//! Signatures of requests to S3: AWS Signature Version 4, one chunk, in the Authorization header ("Authenticating Requests"
//! of the S3 API reference). HMAC-SHA256 as RFC 2104 has it.
//!
//! ```text
//! canonical = METHOD \n PATH \n QUERY \n name:value \n … \n \n names \n SHA-256 of the body
//! signature = HMAC(key, "AWS4-HMAC-SHA256" \n TIME \n scope \n SHA-256 of canonical)
//! key       = HMAC(HMAC(HMAC(HMAC("AWS4" secret, date), region), "s3"), "aws4_request")    scope = date/region/s3/aws4_request
//! ```

use crate::disk::hash::{Hash, hex, sha256};
use sha2::{Digest as _, Sha256};
use std::time::{Duration, UNIX_EPOCH};

/// What a request is signed with. Never shown.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) access_key: String,
    pub(super) secret_key: String,
    /// Present for credentials that expire.
    pub(super) session_token: Option<String>,
}

/// A request without a query.
pub(super) struct Request<'r> {
    pub(super) method: &'static str,
    pub(super) host: &'r str,
    /// Encoded.
    pub(super) path: &'r str,
    /// SHA-256 of the body.
    pub(super) body: Hash,
    /// Other headers that are signed, their names in lower case.
    pub(super) headers: &'r [(&'static str, &'r str)],
}

fn hmac(key: &[u8], message: &[u8]) -> Hash {
    let mut block = [0; 64];
    match key.len() > 64 {
        true => block[..32].copy_from_slice(&sha256(key)),
        false => block[..key.len()].copy_from_slice(key),
    }
    let padded = |byte: u8| block.map(|own| own ^ byte);
    let inner = Sha256::new_with_prefix(padded(0x36)).chain_update(message).finalize();
    Sha256::new_with_prefix(padded(0x5c)).chain_update(inner).finalize().into()
}

/// `20130524T000000Z` of the time since 1970.
pub(super) fn time(since: Duration) -> String {
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date in the calendar of years that begin in March (Howard Hinnant, chrono-compatible date algorithms).
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// The time now.
pub(super) fn now() -> String {
    time(UNIX_EPOCH.elapsed().unwrap_or_default())
}

/// The headers that sign a request, beside the host.
pub(super) fn sign(
    request: &Request<'_>,
    region: &str,
    credentials: &Credentials,
    time: &str,
) -> Vec<(&'static str, String)> {
    let date = &time[..8];
    let body = hex(&request.body);
    let mut headers: Vec<(&'static str, String)> =
        vec![("x-amz-content-sha256", body.clone()), ("x-amz-date", time.to_owned())];
    headers.extend(credentials.session_token.clone().map(|token| ("x-amz-security-token", token)));
    let mut signed: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    signed.push(("host", request.host));
    signed.extend(request.headers.iter().copied());
    signed.sort_unstable();
    let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = signed.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let canonical = format!("{}\n{}\n\n{lines}\n{names}\n{body}", request.method, request.path);
    let scope = format!("{date}/{region}/s3/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&sha256(canonical.as_bytes())));
    let parts = [date, region, "s3", "aws4_request"];
    let first = format!("AWS4{}", credentials.secret_key);
    let key = parts.iter().fold(first.into_bytes(), |key, part| hmac(&key, part.as_bytes()).to_vec());
    let signature = hex(&hmac(&key, text.as_bytes()));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
        credentials.access_key
    );
    headers.push(("authorization", authorization));
    headers
}

/// A path as it is signed and sent: everything but letters, digits, `-._~` and the slashes in hexadecimal.
pub(super) fn encoded(path: &str) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Credentials {
        Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
        }
    }

    /// The examples of "Signature Calculations for the Authorization Header" of the S3 API reference.
    #[test]
    fn the_examples_of_the_reference() {
        let time = "20130524T000000Z";
        let get = Request {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            body: sha256(b""),
            headers: &[("range", "bytes=0-9")],
        };
        let put = Request {
            method: "PUT",
            path: &encoded("/test$file.text"),
            body: sha256(b"Welcome to Amazon S3."),
            headers: &[("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
            ..get
        };
        let cases = [
            (get, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
            (put, "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
        ];
        for (request, expected) in cases {
            let headers = sign(&request, "us-east-1", &example(), time);
            let (_, authorization) = headers.last().expect("it is signed");
            assert!(authorization.ends_with(&format!("Signature={expected}")), "{authorization}");
        }
    }

    /// RFC 4231, test cases 1 and 6.
    #[test]
    fn hmac_of_short_and_long_keys() {
        let one = hmac(&[0x0b; 20], b"Hi There");
        assert_eq!(hex(&one), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        let six = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hex(&six), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    #[test]
    fn times_are_of_the_calendar() {
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_369_353_600, "20130524T000000Z"),
            (1_709_251_199, "20240229T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(time(Duration::from_secs(seconds)), expected);
        }
    }
}
