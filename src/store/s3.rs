//! A store in a bucket with S3's interface: `s3://BUCKET/PREFIX?region=R&endpoint=URL`. The objects are `PREFIX/ac/KEY` and
//! `PREFIX/cas/SHA256`; no condition, multipart upload or listing is needed, since blobs are named by their content and cut
//! into pieces. Requests are signed with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and `AWS_SESSION_TOKEN`), or not at
//! all without them.

use super::configuration::fault;
use super::http::{Client, Header, is_private};
use super::sigv4::{self, Credentials, Request, encoded};
use super::{Blob, Digest, LONGEST_ENTRY, Store, StoreError};
use crate::disk::hash::{Hash, sha256};
use std::io::{Read, Write};

/// The bucket.
pub(super) struct S3Store {
    client: Client,
    /// `https://HOST`.
    server: String,
    host: String,
    /// `/BUCKET/PREFIX` or `/PREFIX`, encoded.
    path: String,
    region: String,
    credentials: Option<Credentials>,
}

impl S3Store {
    /// `rest` is what follows `s3://` in the URL.
    pub(super) fn new(url: &str, rest: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, StoreError> {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut region, mut endpoint) = (None, None);
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("region", value)) => region = Some(value.to_owned()),
                Some(("endpoint", value)) => endpoint = Some(value.to_owned()),
                _ => return Err(fault(url, "has an unknown parameter; known: region, endpoint")),
            }
        }
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        if bucket.len() < 3 || !bucket.bytes().all(plain) {
            return Err(fault(
                url,
                "names no bucket; write s3://BUCKET/PREFIX, the bucket in lower-case letters, digits, - and .",
            ));
        }
        let region = region.or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"));
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = endpoint.or_else(|| variable("AWS_ENDPOINT_URL_S3")).or_else(|| variable("AWS_ENDPOINT_URL"));
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{}", encoded(prefix)) };
        // A bucket has a host of its own where it is Amazon's, and is a path elsewhere; so are names with dots, whose host no
        // certificate is for.
        let (server, path) = match endpoint {
            Some(endpoint) => (endpoint.trim_end_matches('/').to_owned(), format!("/{bucket}{prefix}")),
            None if bucket.contains('.') => {
                (format!("https://s3.{region}.amazonaws.com"), format!("/{bucket}{prefix}"))
            }
            None => (format!("https://{bucket}.s3.{region}.amazonaws.com"), prefix),
        };
        let Some((_, host)) = server.split_once("://").filter(|(scheme, host)| {
            matches!(*scheme, "http" | "https") && !host.is_empty() && !host.contains(['/', '@', '?'])
        }) else {
            return Err(fault(url, "has an endpoint that is not https://HOST"));
        };
        let credentials = match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
            (Some(access_key), Some(secret_key)) => {
                Some(Credentials { access_key, secret_key, session_token: variable("AWS_SESSION_TOKEN") })
            }
            _ => None,
        };
        if credentials.as_ref().is_some_and(|own| own.session_token.is_some()) && !is_private(&server) {
            return Err(fault(
                url,
                "has an endpoint that is not https, and the session token would be sent in the clear",
            ));
        }
        let client = Client::new(format!("s3://{place}"), variable)?;
        Ok(S3Store { client, host: host.to_owned(), server, path, region, credentials })
    }

    /// URL and headers of a request.
    fn request(&self, method: &'static str, object: &str, body: Hash) -> (String, Vec<Header>) {
        let path = format!("{}/{object}", self.path);
        let request = Request { method, host: &self.host, path: &path, body, headers: &[] };
        let signed = |credentials| sigv4::sign(&request, &self.region, credentials, &sigv4::now());
        (format!("{}{path}", self.server), self.credentials.as_ref().map(signed).unwrap_or_default())
    }

    fn blob(blob: &Blob) -> String {
        format!("cas/{}", blob.digest)
    }
}

impl Store for S3Store {
    fn name(&self) -> String {
        self.client.name().to_owned()
    }

    fn has(&self, blob: &Blob) -> Result<bool, StoreError> {
        let (url, headers) = self.request("HEAD", &Self::blob(blob), sha256(b""));
        Ok(self.client.head(&url, &headers)?.is_some())
    }

    fn get(&self, blob: &Blob, into: &mut dyn Write) -> Result<bool, StoreError> {
        let (url, headers) = self.request("GET", &Self::blob(blob), sha256(b""));
        self.client.get(&url, &headers, blob.size, into)
    }

    fn put(&self, blob: &Blob, content: &mut dyn Read) -> Result<(), StoreError> {
        // The name of a blob is the hash of the body that is signed.
        let (url, headers) = self.request("PUT", &Self::blob(blob), blob.digest.0);
        self.client.put(&url, &headers, blob.size, content)
    }

    fn entry(&self, key: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let (url, headers) = self.request("GET", &format!("ac/{key}"), sha256(b""));
        let mut entry = Vec::new();
        let there = self.client.get(&url, &headers, LONGEST_ENTRY, &mut entry)?;
        Ok(there.then_some(entry))
    }

    fn put_entry(&self, key: &Digest, mut entry: &[u8]) -> Result<(), StoreError> {
        let (url, headers) = self.request("PUT", &format!("ac/{key}"), sha256(entry));
        self.client.put(&url, &headers, entry.len() as u64, &mut entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and values of the environment.
    type Variables<'v> = &'v [(&'v str, &'v str)];

    fn store(url: &str, variables: &[(&str, &str)]) -> Result<S3Store, String> {
        let variable =
            |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        let rest = url.strip_prefix("s3://").expect("a URL of a bucket");
        S3Store::new(url, rest, &variable).map_err(|error| error.to_string())
    }

    #[test]
    fn buckets_have_a_host_or_a_path() {
        let digest = sha256(b"");
        let cases: [(&str, Variables<'_>, &str); 5] = [
            ("s3://models/slmc?region=eu-central-1", &[], "https://models.s3.eu-central-1.amazonaws.com/slmc/ac/k"),
            ("s3://models", &[("AWS_REGION", "us-west-2")], "https://models.s3.us-west-2.amazonaws.com/ac/k"),
            ("s3://my.models/a", &[], "https://s3.us-east-1.amazonaws.com/my.models/a/ac/k"),
            ("s3://models/a b/?endpoint=http://127.0.0.1:9000", &[], "http://127.0.0.1:9000/models/a%20b/ac/k"),
            (
                "s3://models",
                &[("AWS_ENDPOINT_URL", "https://storage.example.org/")],
                "https://storage.example.org/models/ac/k",
            ),
        ];
        for (url, variables, expected) in cases {
            let (found, headers) = store(url, variables).expect(url).request("GET", "ac/k", digest);
            assert_eq!(found, expected);
            assert!(headers.is_empty(), "nothing is signed without credentials");
        }
        let keys =
            [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "hidden"), ("AWS_SESSION_TOKEN", "hidden too")];
        let (_, headers) = store("s3://models", &keys).expect("a store").request("GET", "ac/k", digest);
        assert!(headers.iter().any(|(name, _)| *name == "authorization"));
        assert!(headers.iter().all(|(_, value)| !value.contains("hidden") || value == "hidden too"));
        for url in [
            "s3://",
            "s3://UPPER/x",
            "s3://models?regoin=x",
            "s3://models?endpoint=ftp://x",
            "s3://models?endpoint=https://me:hidden@x",
        ] {
            let said = store(url, &keys).err().unwrap_or_default();
            assert!(!said.is_empty() && !said.contains("hidden"), "{said}");
        }
        assert!(store("s3://models?endpoint=http://storage.example.org", &keys).is_err());
    }
}
