//! What every call passes before a service sees it: rate by client address, number, time.
//!
//! A refused call is answered with a status and details, never with a broken connection. A call counts
//! against the number only until its answer begins, so open streams do not use it up.

use core::num::NonZeroU32;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::net::IpAddr;
use std::sync::Arc;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::{Request, Response};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};

use crate::config::Limits;
use crate::metrics;
use crate::status;

/// Lets calls through to a service, or refuses them.
#[derive(Clone)]
pub(crate) struct GateLayer {
    gate: Arc<Gate>,
}

struct Gate {
    rates: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
    calls: Arc<Semaphore>,
    timeout: Duration,
}

impl GateLayer {
    pub(crate) fn new(limits: &Limits) -> Self {
        let rate = NonZeroU32::new(limits.calls_per_second_per_address).unwrap_or(NonZeroU32::MIN);
        let burst = rate.saturating_mul(NonZeroU32::new(2).unwrap_or(NonZeroU32::MIN));
        let gate = Gate {
            rates: RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst)),
            clock: DefaultClock::default(),
            calls: Arc::new(Semaphore::new(limits.max_concurrent_calls)),
            timeout: limits.call_timeout,
        };
        Self {
            gate: Arc::new(gate),
        }
    }

    /// Forgets addresses that have been quiet, for as long as the future is polled.
    pub(crate) async fn tidy(self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(30));
        loop {
            ticks.tick().await;
            self.gate.rates.retain_recent();
            self.gate.rates.shrink_to_fit();
        }
    }
}

impl Gate {
    fn check_rate<B>(&self, request: &Request<B>) -> Result<(), Status> {
        let Some(address) = address(request) else {
            return Ok(());
        };
        self.rates.check_key(&address).map_err(|refused| {
            metrics::call_refused("rate");
            status::too_many_calls(refused.wait_time_from(self.clock.now()))
        })
    }
}

fn address<B>(request: &Request<B>) -> Option<IpAddr> {
    let extensions = request.extensions();
    let plain = extensions
        .get::<TcpConnectInfo>()
        .and_then(TcpConnectInfo::remote_addr);
    let tls = || {
        extensions
            .get::<TlsConnectInfo<TcpConnectInfo>>()?
            .get_ref()
            .remote_addr()
    };
    plain.or_else(tls).map(|address| address.ip())
}

impl<S> Layer<S> for GateLayer {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GateService {
            gate: Arc::clone(&self.gate),
            inner,
        }
    }
}

/// A service behind a gate.
#[derive(Clone)]
pub(crate) struct GateService<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for GateService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Err(refused) = self.gate.check_rate(&request) {
            return Box::pin(async move { Ok(refused.into_http()) });
        }
        let Ok(permit) = Arc::clone(&self.gate.calls).try_acquire_owned() else {
            metrics::call_refused("concurrency");
            return Box::pin(async move { Ok(status::overloaded().into_http()) });
        };
        let timeout = self.gate.timeout;
        // The service that was polled ready is the one to call; the clone takes its place.
        let fresh = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move {
            let _permit = permit;
            match tokio::time::timeout(timeout, ready.call(request)).await {
                Ok(answer) => answer,
                Err(_elapsed) => {
                    metrics::call_refused("timeout");
                    Ok(status::timed_out().into_http())
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;
    use tonic::body::Body;
    use tower::ServiceExt as _;

    async fn answer(layer: &GateLayer, work: Duration) -> Code {
        let service = tower::service_fn(move |_request: Request<Body>| async move {
            tokio::time::sleep(work).await;
            Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
        });
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(TcpConnectInfo {
            local_addr: None,
            remote_addr: Some(([192, 0, 2, 1], 1000).into()),
        });
        let response = layer.layer(service).oneshot(request).await.unwrap();
        Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
    }

    #[tokio::test]
    async fn calls_over_the_rate_or_the_number_or_the_time_are_refused_with_a_status() {
        let limits = Limits {
            calls_per_second_per_address: 1,
            ..Limits::default()
        };
        let layer = GateLayer::new(&limits);
        assert_eq!(answer(&layer, Duration::ZERO).await, Code::Ok);
        assert_eq!(
            answer(&layer, Duration::ZERO).await,
            Code::Ok,
            "a burst is allowed"
        );
        assert_eq!(
            answer(&layer, Duration::ZERO).await,
            Code::ResourceExhausted
        );

        let limits = Limits {
            call_timeout: Duration::from_millis(10),
            ..Limits::default()
        };
        let slow = Duration::from_secs(3600);
        assert_eq!(
            answer(&GateLayer::new(&limits), slow).await,
            Code::DeadlineExceeded
        );

        let layer = GateLayer::new(&Limits {
            max_concurrent_calls: 1,
            ..Limits::default()
        });
        let held = Arc::clone(&layer.gate.calls).try_acquire_owned().unwrap();
        assert_eq!(
            answer(&layer, Duration::ZERO).await,
            Code::ResourceExhausted
        );
        drop(held);
        assert_eq!(answer(&layer, Duration::ZERO).await, Code::Ok);
    }
}
