//! Finds the S3 server that tests run on.
//!
//! Named by `EVERPACK_TEST_S3_ENDPOINT`, `_ACCESS_KEY`, `_SECRET_KEY` and `_BUCKET`; `tests/support/moto.sh start DIR` prints them. Absent: the
//! test says so and is skipped, or fails if `EVERPACK_REQUIRE` asks for `s3`.

use super::data::skip;
use crate::store::StoreOptions;

/// A server and a bucket on it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its bucket.
    pub bucket: String,
    /// How to reach it.
    pub options: StoreOptions,
}

/// The server that the variables beginning with `variables` name; `None`, said aloud, where there is none.
pub fn server(test: &str, variables: &str) -> Option<Server> {
    let value = |name: &str| std::env::var(format!("{variables}_{name}")).ok().filter(|value| !value.is_empty());
    let (Some(endpoint), Some(access_key), Some(secret_key), Some(bucket)) =
        (value("ENDPOINT"), value("ACCESS_KEY"), value("SECRET_KEY"), value("BUCKET"))
    else {
        let lacks = if variables == "EVERPACK_TEST_S3" { "s3" } else { "an optional server" };
        skip(test, lacks, &format!("{variables}_ENDPOINT, _ACCESS_KEY, _SECRET_KEY and _BUCKET name no server"));
        return None;
    };
    let options = StoreOptions {
        endpoint: Some(endpoint),
        allow_http: true,
        access_key: Some(access_key),
        secret_key: Some(secret_key),
        retries: 3,
        ..StoreOptions::default()
    };
    Some(Server { bucket, options })
}

impl Server {
    /// A prefix nobody else uses.
    pub fn url(&self, test: &str) -> String {
        let now = crate::clock::Clock::now(&crate::clock::SystemClock);
        format!("s3://{}/{test}-{}", self.bucket, now.as_nanos())
    }
}
