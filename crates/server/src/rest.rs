//! What a handler leaves of a request's body: it comes back to the door, which throws it away. A client that still
//! sends hears the answer, and what it asks next over the same connection is heard.

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// A body on loan.
struct Lent {
    body: Option<Incoming>,
    left: Arc<Mutex<Option<Incoming>>>,
}

/// Where what is left of it will be.
pub struct Rest(Option<Arc<Mutex<Option<Incoming>>>>);

/// A request for a handler, and the rest of its body once the handler has let go of it.
pub fn lend(request: Request<Incoming>) -> (Request<Body>, Rest) {
    let (head, body) = request.into_parts();
    if body.is_end_stream() {
        return (Request::from_parts(head, Body::empty()), Rest(None));
    }
    let left = Arc::default();
    let lent = Lent { body: Some(body), left: Arc::clone(&left) };
    (Request::from_parts(head, Body::new(lent)), Rest(Some(left)))
}

impl Rest {
    /// Reads what is left, `most` bytes of it, and keeps nothing.
    pub async fn throw_away(self, most: usize, until: Instant) {
        let Some(body) = self.0.and_then(|left| left.lock().take()) else { return };
        let mut body = Limited::new(body, most);
        let all = async { while let Some(Ok(_)) = body.frame().await {} };
        drop(tokio::time::timeout_at(until.into(), all).await);
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.left.lock() = self.body.take().filter(|body| !body.is_end_stream());
    }
}
