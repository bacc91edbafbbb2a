//! S3, and what speaks like it.
//!
//! The client's own retries are off: [`super::Retrying`] knows what an unknown outcome means to `put_new`,
//! the client does not. Credentials are found as every AWS program finds them (AWS_ACCESS_KEY_ID and
//! friends, the file that AWS_SHARED_CREDENTIALS_FILE names, a container's or an instance's role), never in
//! the address, which ends up in logs. The region is explicit, so that nothing waits for instance metadata.

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::{
    Client,
    config::{Credentials, ProvideCredentials as _, SharedCredentialsProvider},
    operation::get_object::GetObjectOutput,
};
use aws_smithy_http_client::tls;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::sync::OnceCell;

use super::{
    Entry, ErrorKind, MAX_OBJECT, Store, StoreError, check_key, check_prefix,
    folder::check_put,
    key::is_key,
    s3_address::Address,
    s3_error::{class_of, explain},
};

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest silence of a server that has the request. [`super::Retrying`] bounds the whole.
const SILENCE: Duration = Duration::from_secs(60);

/// A bucket, or a part of one.
pub struct S3 {
    address: Address,
    credentials: Option<Credentials>,
    client: OnceCell<Client>,
}

impl S3 {
    /// The store at `s3://bucket/prefix?region=…&endpoint=…`; asks nothing of it yet.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        let region = ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| std::env::var(name).ok());
        let address = Address::parse(url, region)?;
        Ok(Self { address, credentials: None, client: OnceCell::new() })
    }

    /// The same, with these credentials and no search for others. Temporary ones have a session token.
    #[must_use]
    pub fn with_credentials(mut self, key_id: &str, secret: &str, token: Option<&str>) -> Self {
        let token = token.map(str::to_owned);
        self.credentials = Some(Credentials::new(key_id, secret, token, None, "given"));
        self
    }

    async fn client(&self, operation: &'static str, key: &str) -> Result<&Client, StoreError> {
        self.client.get_or_try_init(|| self.connect(operation, key)).await
    }

    async fn connect(&self, operation: &'static str, key: &str) -> Result<Client, StoreError> {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).read_timeout(SILENCE).build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(self.address.region.clone()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(given) = &self.credentials {
            loader = loader.credentials_provider(SharedCredentialsProvider::new(given.clone()));
        }
        if let Some(endpoint) = &self.address.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let shared = loader.load().await;
        // Asked for here, because a request tells missing credentials from a garbled answer by text alone.
        if let Some(provider) = shared.credentials_provider() {
            provider
                .provide_credentials()
                .await
                .map_err(|error| no_credentials(operation, key).because(error))?;
        }
        // Other servers than Amazon's rarely have a host name for each bucket.
        let config = aws_sdk_s3::config::Builder::from(&shared);
        Ok(Client::from_conf(config.force_path_style(self.address.endpoint.is_some()).build()))
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.address.prefix)
    }

    async fn write(&self, operation: &'static str, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        check_put(operation, key, &bytes)?;
        let request =
            self.client(operation, key).await?.put_object().bucket(&self.address.bucket).key(self.full(key));
        let request = if operation == "put_new" { request.if_none_match("*") } else { request };
        request.body(bytes.into()).send().await.map_err(|error| explain(operation, key, error))?;
        Ok(())
    }
}

#[async_trait]
impl Store for S3 {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write("put_new", key, bytes).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write("put", key, bytes).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        check_key("get", key)?;
        let request =
            self.client("get", key).await?.get_object().bucket(&self.address.bucket).key(self.full(key));
        body(key, request.send().await.map_err(|error| explain("get", key, error))?).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        check_prefix("list", prefix)?;
        let request = self.client("list", prefix).await?.list_objects_v2().bucket(&self.address.bucket);
        let mut pages = request.prefix(self.full(prefix)).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| explain("list", prefix, error))?;
            for object in page.contents() {
                let key = object.key().and_then(|key| key.strip_prefix(&self.address.prefix));
                // What others keep in the same bucket under names that we never write.
                let Some(key) = key.filter(|key| is_key(key)) else { continue };
                let size = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
                let modified_ms = object.last_modified().and_then(|time| time.to_millis().ok());
                found.push(Entry { key: key.to_owned(), size, modified_ms });
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key("delete", key)?;
        let request = self
            .client("delete", key)
            .await?
            .delete_object()
            .bucket(&self.address.bucket)
            .key(self.full(key));
        match request.send().await {
            Err(error) if class_of(&error) == ErrorKind::NotFound => Ok(()),
            done => done.map(drop).map_err(|error| explain("delete", key, error)),
        }
    }
}

fn no_credentials(operation: &'static str, key: &str) -> StoreError {
    StoreError::new(ErrorKind::Fatal, operation, key, "there are no credentials for the store").hint(
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file with AWS_SHARED_CREDENTIALS_FILE",
    )
}

/// The whole body, as long as it may be an object of ours.
async fn body(key: &str, answer: GetObjectOutput) -> Result<Bytes, StoreError> {
    let error = |kind, what| StoreError::new(kind, "get", key, what);
    let expected = answer.content_length().and_then(|length| usize::try_from(length).ok());
    let mut bytes = BytesMut::with_capacity(expected.unwrap_or(0).min(MAX_OBJECT as usize));
    let mut stream = answer.body;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|e| error(ErrorKind::Retryable, "the answer broke off").because(e))?;
        if (bytes.len() + chunk.len()) as u64 > MAX_OBJECT {
            return Err(error(ErrorKind::Fatal, "it is larger than any object of a backup"));
        }
        bytes.extend_from_slice(&chunk);
    }
    if expected.is_some_and(|length| length != bytes.len()) {
        return Err(error(ErrorKind::Retryable, "the answer broke off"));
    }
    Ok(bytes.freeze())
}
