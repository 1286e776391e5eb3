//! The one way out: everything that leaves the hub goes through here, to allowed places only, with
//! limits. No other crate opens an outgoing connection (the demo's devices, which are clients of
//! the hub's own doors, aside).

use std::time::Duration;

/// Longest a receiver may take, in seconds.
pub const TIMEOUT_S: u64 = 10;
/// Largest message that is sent.
pub const MAX_BODY_BYTES: usize = 4 << 20;

/// Why something did not leave, or did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    #[error("`{0}` is no http or https URL with a host")]
    NoUrl(String),
    #[error(
        "`{0}` is not among the places the hub may send to; ask the operator to add it to `[egress] allow`"
    )]
    NotAllowed(String),
    #[error("the message is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    #[error("the receiver answered {0}")]
    Answer(u16),
    #[error("the receiver cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the client cannot be made")]
    Client(#[source] reqwest::Error),
}

impl CourierError {
    /// Whether another try may do better.
    pub fn may_pass(&self) -> bool {
        matches!(self, CourierError::Answer(_) | CourierError::Unreachable(_))
    }
}

/// Messages under way at once: each has a handle and its text in memory.
const AT_ONCE: usize = 256;
/// How long a connection to a receiver is kept for the next message.
const IDLE: Duration = Duration::from_secs(30);

/// Names lead to no address of the machine itself or its own link: whoever runs an allowed name would
/// choose what is asked there.
struct Outside;

fn is_own(address: std::net::IpAddr) -> bool {
    match address.to_canonical() {
        std::net::IpAddr::V4(v4) => {
            v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_multicast()
        }
        std::net::IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
        }
    }
}

impl reqwest::dns::Resolve for Outside {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let named = name.as_str() == "localhost";
            let good: Vec<_> = found.filter(|one| named || !is_own(one.ip())).collect();
            if good.is_empty() {
                return Err("the name leads to the machine itself, or nowhere".into());
            }
            Ok(Box::new(good.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

/// Sends to allowed places.
pub struct Courier {
    at_once: tokio::sync::Semaphore,
    /// `host:port`, or `host` for any port.
    allowed: Vec<String>,
    client: reqwest::Client,
}

impl Courier {
    /// A courier that may send to these places: `host:port` or `host`.
    ///
    /// # Errors
    /// When the system has no TLS roots that can be read.
    pub fn new(allowed: Vec<String>) -> Result<Courier, CourierError> {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(TIMEOUT_S))
            .connect_timeout(Duration::from_secs(TIMEOUT_S / 2))
            // A redirect could lead where the hub may not send.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(std::sync::Arc::new(Outside))
            .pool_max_idle_per_host(AT_ONCE)
            .pool_idle_timeout(IDLE)
            // Receivers there are that tell `Link` from `link`.
            .http1_title_case_headers()
            .build()
            .map_err(CourierError::Client)?;
        Ok(Courier { at_once: tokio::sync::Semaphore::new(AT_ONCE), allowed, client })
    }

    /// Checks that a URL may be sent to.
    ///
    /// # Errors
    /// When it is no URL or not allowed.
    pub fn check(&self, url: &str) -> Result<(), CourierError> {
        let parsed = reqwest::Url::parse(url).map_err(|_| CourierError::NoUrl(url.to_owned()))?;
        let http = matches!(parsed.scheme(), "http" | "https");
        let (Some(host), true) = (parsed.host_str(), http) else {
            return Err(CourierError::NoUrl(url.to_owned()));
        };
        let place = format!("{host}:{}", parsed.port_or_known_default().unwrap_or(0));
        if self.allowed.iter().any(|allowed| *allowed == place || allowed == host) {
            Ok(())
        } else {
            Err(CourierError::NotAllowed(place))
        }
    }

    /// Posts a message; done when the receiver answers with a 2xx.
    ///
    /// # Errors
    /// When the place is not allowed, cannot be reached, or answers otherwise.
    pub async fn post(
        &self,
        url: &str,
        headers: &[(String, String)],
        body: Vec<u8>,
    ) -> Result<(), CourierError> {
        self.check(url)?;
        if body.len() > MAX_BODY_BYTES {
            return Err(CourierError::TooLarge);
        }
        // Never closed.
        let _place = self.at_once.acquire().await.ok();
        let mut request = self.client.post(url).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.send().await.map_err(CourierError::Unreachable)?;
        match response.status().as_u16() {
            200..=299 => Ok(()),
            status => Err(CourierError::Answer(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_places() {
        let courier = Courier::new(vec!["127.0.0.1:9000".into(), "city.example".into()]).unwrap();
        for good in
            ["http://127.0.0.1:9000/n", "https://city.example/x", "https://city.example:8443/"]
        {
            assert!(courier.check(good).is_ok(), "{good}");
        }
        for bad in [
            "http://127.0.0.1:9001/",
            "http://127.0.0.1/",
            "https://city.example.evil/",
            "ftp://city.example/",
            "http://city.example@evil.example/",
            "nowhere",
            "http://[::1]:9000/",
            "file:///etc/passwd",
        ] {
            assert!(courier.check(bad).is_err(), "{bad}");
        }
    }
}
