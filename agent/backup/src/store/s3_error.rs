//! What S3's errors mean to a caller, and what a person can do about them.

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

use super::{ErrorKind, StoreError};

/// The class of an error: by its code where S3 names one, else by its status.
pub(super) fn class_of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> ErrorKind {
    let Some(answer) = error.raw_response() else {
        return match error {
            // The request could not even be made: a bad endpoint.
            SdkError::ConstructionFailure(_) => ErrorKind::Fatal,
            SdkError::DispatchFailure(failure) if failure.is_user() => ErrorKind::Fatal,
            _ => ErrorKind::Retryable,
        };
    };
    match (answer.status().as_u16(), code(error)) {
        (_, "NoSuchBucket") => ErrorKind::Fatal,
        (_, "SlowDown" | "RequestTimeout" | "InternalError" | "ServiceUnavailable") => ErrorKind::Retryable,
        (412, _) => ErrorKind::Exists,
        (404, _) => ErrorKind::NotFound,
        // Two puts of one name at one time: whoever asks again learns how it ended.
        (408 | 409 | 425 | 429, _) => ErrorKind::Retryable,
        (501, _) => ErrorKind::Fatal,
        (500..=599, _) => ErrorKind::Retryable,
        // An answer that is no error's, cut or garbled on the way.
        (200..=299, _) => ErrorKind::Retryable,
        _ => ErrorKind::Fatal,
    }
}

/// The error as a caller sees it.
pub(super) fn explain<E>(operation: &'static str, key: &str, error: SdkError<E, HttpResponse>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let kind = class_of(&error);
    let status = error.raw_response().map(|answer| answer.status().as_u16());
    let code = code(&error).to_owned();
    let what = match (kind, status) {
        (ErrorKind::Exists, _) => "the name is taken".to_owned(),
        (ErrorKind::NotFound, _) => "there is no such object".to_owned(),
        (ErrorKind::Fatal, None) => "the request could not be made".to_owned(),
        (_, None) => "no answer from the server".to_owned(),
        (_, Some(status)) if code.is_empty() => format!("the server answered {status}"),
        (_, Some(status)) => format!("the server answered {status} {code}"),
    };
    let hint = hint(operation, status, &code);
    StoreError::new(kind, operation, key, what).because(error).hint(hint)
}

fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> &str {
    error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or("")
}

fn hint(operation: &str, status: Option<u16>, code: &str) -> &'static str {
    match (status, code) {
        (None, _) => "check the endpoint",
        (_, "NoSuchBucket") => "make the bucket first; flipside does not make buckets",
        (_, "RequestTimeTooSkewed") => "set the host's clock",
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken") => {
            "the credentials are wrong or have expired"
        }
        (Some(403), _) if operation == "delete" => {
            "deleting needs s3:DeleteObject; run prune with credentials that have it"
        }
        (Some(403), _) if operation.starts_with("put") => "writing needs s3:PutObject on the prefix",
        (Some(403), _) => "reading needs s3:GetObject on the prefix and s3:ListBucket on the bucket",
        (Some(301 | 307), _) => "the bucket is in another region: set region= in the address",
        (Some(501), _) => {
            "the server knows no conditional puts (If-None-Match), which keep two writers apart: use another"
        }
        _ => "",
    }
}
