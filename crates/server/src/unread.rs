//! Answers that lie unread: a client may ask for much and read nothing, and every answer stays in memory
//! until it is read. All together have a limit; the connection is closed that lets most lie for longest.

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::Notify;

/// Answers smaller than this are not counted one by one.
const SMALL: u64 = 16 << 10;

/// All that lie unread.
pub struct Unread {
    most: usize,
    all: AtomicUsize,
    next: AtomicUsize,
    shelves: Mutex<HashMap<usize, Arc<Of>>>,
    begun: Instant,
}

/// What lies unread of one connection.
#[derive(Default)]
struct Of {
    bytes: AtomicUsize,
    /// Milliseconds after the beginning, when the first of them came.
    since_ms: AtomicU64,
    too_much: Notify,
}

/// The shelf of one connection.
pub struct Shelf {
    unread: Arc<Unread>,
    number: usize,
    of: Arc<Of>,
}

impl Unread {
    /// None yet; so many bytes at most.
    pub fn new(most: usize) -> Arc<Unread> {
        let (all, next) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Unread { most, all, next, shelves: Mutex::default(), begun: Instant::now() })
    }

    /// The shelf of a new connection.
    pub fn of_connection(self: &Arc<Self>) -> Arc<Shelf> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let of = Arc::new(Of::default());
        Arc::new(Shelf { unread: self.clone(), number, of })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn check(&self) {
        if self.all.load(Ordering::Relaxed) <= self.most {
            return;
        }
        let shelves = self.shelves.lock();
        let now = self.now_ms();
        let worst = shelves.values().max_by_key(|of| {
            let age_ms = now.saturating_sub(of.since_ms.load(Ordering::Relaxed));
            of.bytes.load(Ordering::Relaxed) as u128 * u128::from(age_ms + 1)
        });
        worst.iter().for_each(|of| of.too_much.notify_one());
    }
}

impl Shelf {
    /// Ends when this connection has to be closed.
    pub async fn too_much(&self) {
        self.of.too_much.notified().await;
    }

    /// The answer, counted until it is read or thrown away.
    /// Small ones only where many may lie beside each other.
    pub fn put(self: Arc<Self>, response: Response, many: bool) -> Response {
        let hint = response.body().size_hint();
        if !many && hint.upper().is_some_and(|upper| upper < SMALL) {
            return response;
        }
        self.unread.shelves.lock().entry(self.number).or_insert_with(|| self.of.clone());
        response.map(|body| Body::new(Counted { body, shelf: self }))
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.unread.shelves.lock().remove(&self.number);
    }
}

struct Counted {
    body: Body,
    shelf: Arc<Shelf>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        let shelf = &self.shelf;
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| Bytes::from_owner(Lying::new(bytes, shelf.clone())))
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// Bytes that were handed over to be sent: dropped once they are.
struct Lying {
    bytes: Bytes,
    shelf: Arc<Shelf>,
}

impl Lying {
    fn new(bytes: Bytes, shelf: Arc<Shelf>) -> Lying {
        if shelf.of.bytes.fetch_add(bytes.len(), Ordering::Relaxed) == 0 {
            shelf.of.since_ms.store(shelf.unread.now_ms(), Ordering::Relaxed);
        }
        shelf.unread.all.fetch_add(bytes.len(), Ordering::Relaxed);
        shelf.unread.check();
        Lying { bytes, shelf }
    }
}

impl AsRef<[u8]> for Lying {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lying {
    fn drop(&mut self) {
        self.shelf.of.bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        self.shelf.unread.all.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}
