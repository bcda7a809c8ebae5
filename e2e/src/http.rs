//! A blocking HTTP client for scenarios, which are plain threads.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The `Content-Type`, or nothing.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

/// A client that many threads may share.
#[derive(Clone, Debug)]
pub struct Http {
    runtime: Arc<Runtime>,
    client: reqwest::Client,
}

impl Http {
    /// Makes a client.
    ///
    /// # Errors
    /// The runtime cannot be made.
    pub fn new() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self {
            runtime: Arc::new(runtime),
            client,
        })
    }

    /// GET, whatever the status.
    ///
    /// # Errors
    /// No whole answer came in time.
    pub fn get(&self, url: &str, within: Duration) -> Result<Answer> {
        let request = async {
            let response = self.client.get(url).timeout(within).send().await?;
            let content_type = response.headers().get(reqwest::header::CONTENT_TYPE);
            let content_type = content_type
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let content_type = content_type.to_owned();
            let status = response.status().as_u16();
            let body = response.bytes().await?.to_vec();
            Ok::<_, reqwest::Error>(Answer {
                status,
                content_type,
                body,
            })
        };
        self.runtime
            .block_on(request)
            .with_context(|| format!("GET {url}"))
    }

    /// GET that must answer 200 with JSON.
    ///
    /// # Errors
    /// It did not.
    pub fn get_json<T: DeserializeOwned>(&self, url: &str, within: Duration) -> Result<T> {
        let answer = self.get(url, within)?;
        if answer.status != 200 {
            bail!("GET {url}: status {}", answer.status);
        }
        serde_json::from_slice(&answer.body)
            .with_context(|| format!("GET {url}: not what was expected"))
    }
}
