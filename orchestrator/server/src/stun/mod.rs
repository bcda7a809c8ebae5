//! STUN for the node's own peers: two UDP ports that tell who asks from where it is seen.
//!
//! Two ports, because a peer learns from a second destination whether its translator makes a new mapping
//! for each. One task a port reads a datagram, answers it and reads the next: nothing is queued here, and
//! what the kernel's buffer does not hold is lost, as datagrams are. Each address has a rate; the table of
//! addresses is tidied, and past a size nobody new is answered until it is.

mod answer;

use core::num::NonZeroU32;
use core::time::Duration;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use self::answer::{MOST_BYTES, answer};
use crate::config::StunConfig;

/// Answers to one IPv4 address, or one IPv6 network of 64 bits, each second: a peer asks both ports up to
/// three times, and many may be behind one address.
const ANSWERS_PER_SECOND: NonZeroU32 = NonZeroU32::new(200).unwrap();
/// Addresses that are remembered.
const MOST_ADDRESSES: usize = 65_536;
const TIDY: Duration = Duration::from_secs(2);

/// The node's STUN ports, bound.
pub(crate) struct StunPorts {
    sockets: [UdpSocket; 2],
    /// The host that peers are told; empty: the one that they dialled.
    host: String,
}

impl StunPorts {
    /// Binds the two ports.
    ///
    /// # Errors
    /// With the address that is taken, or not ours.
    pub(crate) async fn bind(config: &StunConfig) -> Result<Self, (SocketAddr, io::Error)> {
        let second = SocketAddr::new(config.listen.ip(), config.second_port);
        let bind = async |at| UdpSocket::bind(at).await.map_err(|error| (at, error));
        Ok(Self {
            sockets: [bind(config.listen).await?, bind(second).await?],
            host: config.host.clone(),
        })
    }

    /// What peers are told: host and ports.
    pub(crate) fn told(&self) -> (String, Vec<u32>) {
        let addresses = self.sockets.iter().filter_map(|it| it.local_addr().ok());
        let ports = addresses.map(|address| u32::from(address.port()));
        (self.host.clone(), ports.collect())
    }

    /// Answers until told to stop.
    pub(crate) async fn serve(self, stopping: CancellationToken) {
        let quota = Quota::per_second(ANSWERS_PER_SECOND);
        let rates = Arc::new(RateLimiter::keyed(quota));
        let [one, other] = &self.sockets;
        tokio::select! {
            () = stopping.cancelled() => {}
            () = serve(one, &rates) => {}
            () = serve(other, &rates) => {}
            () = tidy(&rates) => {}
        }
    }
}

type Rates = DefaultKeyedRateLimiter<IpAddr>;

async fn serve(socket: &UdpSocket, rates: &Rates) {
    // One byte more, so that a datagram that is too long shows.
    let mut buffer = [0; MOST_BYTES + 1];
    loop {
        // An error is about an earlier answer that somebody refused; the socket is as good as before.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        if !admits(rates, from.ip()) {
            continue;
        }
        if let Some(response) = answer(&buffer[..length], from) {
            // What cannot be sent at once is lost on the way.
            drop(socket.try_send_to(&response, from));
        }
    }
}

fn admits(rates: &Rates, from: IpAddr) -> bool {
    let key = match from.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(network.into())
        }
        address @ IpAddr::V4(_) => address,
    };
    rates.len() < MOST_ADDRESSES && rates.check_key(&key).is_ok()
}

async fn tidy(rates: &Rates) {
    let mut ticks = tokio::time::interval(TIDY);
    loop {
        ticks.tick().await;
        rates.retain_recent();
        rates.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_rate_and_others_are_not_kept_out_by_it() {
        let rates = RateLimiter::keyed(Quota::per_second(ANSWERS_PER_SECOND));
        let many = 2 * ANSWERS_PER_SECOND.get();
        let admitted = |text: &str| {
            let address = text.parse().unwrap();
            (0..many).filter(|_| admits(&rates, address)).count()
        };
        let least = usize::try_from(ANSWERS_PER_SECOND.get()).unwrap();
        let flood = admitted("192.0.2.1");
        assert!((least..least + 50).contains(&flood), "{flood}");
        assert!(admitted("192.0.2.2") >= least);
        assert!(admitted("2001:db8::1") >= least);
        assert!(admitted("2001:db8::ffff:2") < 50, "the same network");
    }

    #[tokio::test]
    async fn both_ports_answer_until_they_are_told_to_stop() {
        let config = StunConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            second_port: 0,
            host: "stun.example".to_owned(),
        };
        let ports = StunPorts::bind(&config).await.unwrap();
        let (host, told) = ports.told();
        assert_eq!((host.as_str(), told.len()), ("stun.example", 2));
        let stopping = CancellationToken::new();
        let serving = tokio::spawn(ports.serve(stopping.clone()));
        let asking = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let own = asking.local_addr().unwrap();
        for port in told {
            let request = [
                0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
            ];
            let port = u16::try_from(port).unwrap();
            asking.send_to(&request, ("127.0.0.1", port)).await.unwrap();
            let mut response = [0; 64];
            let received = asking.recv_from(&mut response);
            let (length, from) = tokio::time::timeout(Duration::from_secs(10), received)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(from.port(), port);
            assert_eq!(Some(response[..length].to_vec()), answer(&request, own));
        }
        stopping.cancel();
        serving.await.unwrap();
    }
}
