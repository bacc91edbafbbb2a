//! `s3://bucket/prefix?region=…&endpoint=…`, taken apart.

use super::{StoreError, key::is_key};

/// Where a bucket is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) bucket: String,
    /// Empty, or ending in a slash.
    pub(super) prefix: String,
    pub(super) region: String,
    pub(super) endpoint: Option<String>,
}

impl Address {
    /// Reads `url`; `region` is what the environment says, for a URL that says nothing.
    pub(super) fn parse(url: &str, region: Option<String>) -> Result<Self, StoreError> {
        let bad = |what: String| StoreError::bad_url(url, what);
        let rest = url.strip_prefix("s3://").ok_or_else(|| bad("it does not begin with s3://".into()))?;
        if rest.contains('@') {
            // The address is not repeated: what stands before the @ may be a secret.
            return Err(StoreError::bad_url(
                "s3://…",
                "credentials do not belong into an address: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        if bucket.len() < 3 || bucket.len() > 63 || !is_key(bucket) {
            return Err(bad(format!("{bucket:?} is no name of a bucket")));
        }
        let prefix = prefix.trim_end_matches('/');
        if !prefix.is_empty() && (!is_key(prefix) || prefix.len() > 300) {
            return Err(bad(format!("{prefix:?} is no prefix: parts of letters, digits, '.', '_' and '-'")));
        }
        let (mut endpoint, mut region) = (None, region);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value).ok_or_else(|| bad(format!("the value of {name:?} is not text")))?;
            match name {
                "endpoint" if value.starts_with("https://") || value.starts_with("http://") => {
                    endpoint = Some(value)
                }
                "endpoint" => {
                    return Err(bad(format!("endpoint {value:?} does not begin with https:// or http://")));
                }
                "region" if is_key(&value) => region = Some(value),
                "region" => return Err(bad(format!("{value:?} is no region"))),
                _ => return Err(bad(format!("there is no option {name:?}; there are region and endpoint"))),
            }
        }
        // Servers of one's own rarely have regions, but a signature names one.
        let region = region.or_else(|| endpoint.as_ref().map(|_| "us-east-1".to_owned()));
        let region = region.ok_or_else(|| bad("it names no region, and neither does AWS_REGION".into()))?;
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { bucket: bucket.to_owned(), prefix, region, endpoint })
    }
}

/// Undoes `%XX`; nothing where that makes no text.
fn decode(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, StoreError> {
        Address::parse(url, None)
    }

    #[test]
    fn an_address_names_bucket_prefix_region_and_endpoint() {
        let address = parse("s3://shop-backups/web1/db/?region=eu-central-1").unwrap();
        assert_eq!((&*address.bucket, &*address.prefix), ("shop-backups", "web1/db/"));
        assert_eq!((&*address.region, address.endpoint), ("eu-central-1", None));

        let address = parse("s3://abc?endpoint=http%3A%2F%2F127.0.0.1%3A9000").unwrap();
        assert_eq!((&*address.prefix, &*address.region), ("", "us-east-1"));
        assert_eq!(address.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        let plain = parse("s3://abc?endpoint=http://127.0.0.1:9000").unwrap();
        assert_eq!(plain.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(Address::parse("s3://abc/x", Some("eu-north-1".into())).unwrap().region, "eu-north-1");
    }

    #[test]
    fn a_bad_address_is_refused_with_its_reason() {
        for (url, reason) in [
            ("s3://abc/x", "region"),
            ("s3://ab?region=x", "bucket"),
            ("s3:///x?region=x", "bucket"),
            ("s3://abc/../x?region=x", "prefix"),
            ("s3://abc/x?region=x&enpoint=http://a", "enpoint"),
            ("s3://abc/x?endpoint=127.0.0.1:9000", "http"),
            ("s3://abc/x?region=%zz", "region"),
            ("s3://abc/x?region=a%0ab", "region"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.to_string().contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn a_secret_in_an_address_is_refused_and_not_repeated() {
        let error = parse("s3://AKIA:hunter2@abc/x?region=x").unwrap_err();
        assert!(!error.to_string().contains("hunter2") && error.to_string().contains("AWS_ACCESS_KEY_ID"));
    }
}
