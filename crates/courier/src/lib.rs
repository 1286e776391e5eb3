//! The one way out: everything that leaves the hub goes through here, to allowed places only, with
//! limits. No other crate opens an outgoing connection (the demo's devices, which are clients of
//! the hub's own doors, aside).

use parking_lot::Mutex;
use reqwest::Url;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
/// Of these to one place: what listens there may have room for few.
pub const AT_ONCE_EACH: usize = 32;
/// Messages under way at once, beside those, to receivers that failed the last time: they take the
/// places of nobody who answers.
const FAILING: usize = 32;
/// Of these to one place.
const FAILING_EACH: usize = 4;
/// Places that are remembered while nothing goes to them.
const PLACES: usize = 1_024;
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

/// Room for messages: of receivers that answer, and of those that failed the last time.
struct Room {
    answering: Arc<Semaphore>,
    failing: Arc<Semaphore>,
}

impl Room {
    fn new(answering: usize, failing: usize) -> Room {
        let room = |seats| Arc::new(Semaphore::new(seats));
        Room { answering: room(answering), failing: room(failing) }
    }

    /// None only if it were closed, which it never is.
    async fn seat(&self, failing: bool) -> Option<OwnedSemaphorePermit> {
        let seats = if failing { &self.failing } else { &self.answering };
        seats.clone().acquire_owned().await.ok()
    }
}

/// Sends to allowed places.
pub struct Courier {
    everywhere: Room,
    /// By `host:port`.
    places: Mutex<HashMap<String, Arc<Room>>>,
    /// `host:port`, or `host` for any port.
    allowed: Vec<String>,
    client: reqwest::Client,
}

/// Leave to send one message, now.
pub struct Turn<'a> {
    courier: &'a Courier,
    url: Url,
    /// Remembered as long as something goes there.
    _there: Arc<Room>,
    _seats: [Option<OwnedSemaphorePermit>; 2],
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
            .dns_resolver(Arc::new(Outside))
            .pool_max_idle_per_host(AT_ONCE_EACH)
            .pool_idle_timeout(IDLE)
            // Receivers there are that tell `Link` from `link`.
            .http1_title_case_headers()
            .build()
            .map_err(CourierError::Client)?;
        let everywhere = Room::new(AT_ONCE, FAILING);
        Ok(Courier { everywhere, places: Mutex::default(), allowed, client })
    }

    /// Checks that a URL may be sent to.
    ///
    /// # Errors
    /// When it is no URL or not allowed.
    pub fn check(&self, url: &str) -> Result<(), CourierError> {
        self.place_of(url).map(drop)
    }

    /// Where a URL leads, as `host:port`, if that is allowed.
    fn place_of(&self, url: &str) -> Result<(Url, String), CourierError> {
        let parsed = Url::parse(url).map_err(|_| CourierError::NoUrl(url.to_owned()))?;
        let http = matches!(parsed.scheme(), "http" | "https");
        let (Some(host), true) = (parsed.host_str(), http) else {
            return Err(CourierError::NoUrl(url.to_owned()));
        };
        let place = format!("{host}:{}", parsed.port_or_known_default().unwrap_or(0));
        if self.allowed.iter().any(|allowed| *allowed == place || allowed == host) {
            Ok((parsed, place))
        } else {
            Err(CourierError::NotAllowed(place))
        }
    }

    /// Waits until there is room for a message to a URL. Whoever waits decides what to send when he
    /// has his turn, not before: `failing` receivers, who did not take the last one, may wait long.
    ///
    /// # Errors
    /// When the URL is none or not allowed.
    pub async fn turn(&self, url: &str, failing: bool) -> Result<Turn<'_>, CourierError> {
        let (url, place) = self.place_of(url)?;
        let room = {
            let mut places = self.places.lock();
            if places.len() > PLACES {
                places.retain(|_, room| Arc::strong_count(room) > 1);
            }
            let room = || Arc::new(Room::new(AT_ONCE_EACH, FAILING_EACH));
            places.entry(place).or_insert_with(room).clone()
        };
        let seats = [room.seat(failing).await, self.everywhere.seat(failing).await];
        Ok(Turn { courier: self, url, _there: room, _seats: seats })
    }
}

impl Turn<'_> {
    /// Posts a message; done when the receiver answers with a 2xx.
    ///
    /// # Errors
    /// When the place cannot be reached or answers otherwise, or the message is too large.
    pub async fn post(
        self,
        headers: &[(String, String)],
        body: Vec<u8>,
    ) -> Result<(), CourierError> {
        if body.len() > MAX_BODY_BYTES {
            return Err(CourierError::TooLarge);
        }
        let mut request = self.courier.client.post(self.url.clone()).body(body);
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
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

    const SOON: Duration = Duration::from_secs(TIMEOUT_S / 2);

    /// Where connections are taken and nothing is ever answered.
    fn silent() -> (std::net::TcpListener, String) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        (listener, url)
    }

    /// Where one message is taken.
    async fn living() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        });
        url
    }

    /// Has as many messages as there may be under way, and more, and gives how many are.
    async fn under_way(courier: &Arc<Courier>, urls: &[String], failing: bool) -> usize {
        let count = Arc::new(AtomicUsize::new(0));
        for url in urls.iter().cycle().take(urls.len().max(AT_ONCE) + 1) {
            let (courier, url, count) = (courier.clone(), url.clone(), count.clone());
            tokio::spawn(async move {
                let turn = courier.turn(&url, failing).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                drop(turn.post(&[], Vec::new()).await);
            });
        }
        // On a machine that is slow, too: until no more come.
        loop {
            let before = count.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(300)).await;
            if before > 0 && count.load(Ordering::Relaxed) == before {
                return before;
            }
        }
    }

    async fn arrives(courier: &Courier) -> bool {
        let url = living().await;
        let sent = async { courier.turn(&url, false).await.unwrap().post(&[], Vec::new()).await };
        tokio::time::timeout(SOON, sent).await.is_ok_and(|sent| sent.is_ok())
    }

    #[tokio::test]
    async fn one_place_takes_no_more_than_its_share() {
        let courier = Arc::new(Courier::new(vec!["127.0.0.1".into()]).unwrap());
        let (_kept, url) = silent();
        assert_eq!(under_way(&courier, std::slice::from_ref(&url), false).await, AT_ONCE_EACH);
        assert_eq!(under_way(&courier, &[url], true).await, FAILING_EACH);
        assert!(arrives(&courier).await);
    }

    #[tokio::test]
    async fn receivers_that_failed_take_the_place_of_nobody_who_answers() {
        let courier = Arc::new(Courier::new(vec!["127.0.0.1".into()]).unwrap());
        let (_kept, urls): (Vec<_>, Vec<_>) = (0..AT_ONCE).map(|_| silent()).unzip();
        assert_eq!(under_way(&courier, &urls, true).await, FAILING);
        assert!(arrives(&courier).await);
        assert_eq!(under_way(&courier, &urls, false).await, AT_ONCE);
    }

    #[tokio::test]
    async fn places_are_forgotten_once_nothing_goes_there() {
        let courier = Courier::new(vec!["127.0.0.1".into()]).unwrap();
        let turn = courier.turn("http://127.0.0.1:1/", false).await.unwrap();
        for port in 2..=u16::try_from(PLACES).unwrap() + 1 {
            drop(courier.turn(&format!("http://127.0.0.1:{port}/"), false).await);
        }
        drop(courier.turn("http://127.0.0.1:9/", false).await);
        let mut left: Vec<String> = courier.places.lock().keys().cloned().collect();
        left.sort();
        assert_eq!(left, ["127.0.0.1:1", "127.0.0.1:9"]);
        drop(turn);
    }
}
