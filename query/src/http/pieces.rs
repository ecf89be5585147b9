//! Long answers, made as the client takes them: a slow client costs the rows, and not their text as well. One that takes
//! nothing for a while costs nothing any more.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use tokio::task::JoinSet;

/// A piece is sent as soon as it has so many bytes. An answer of one piece has a `Content-Length`.
const PIECE_BYTES: usize = 256 * 1024;

/// A client that takes fewer than so many pieces in such a time gets no more; what it would have got is let go of.
const STALL: Duration = Duration::from_mins(1);
const STALL_PIECES: u64 = 2;

/// Text between `head` and `tail`, of which `push` adds a row at a time.
struct Pieces<I, P, H> {
    /// Also what was not sent yet.
    head: String,
    rows: I,
    /// Counts the rows, until they are sent.
    _held: H,
    push: P,
    tail: Option<String>,
    count: usize,
}

impl<I: Iterator, P: FnMut(&mut String, usize, I::Item), H> Iterator for Pieces<I, P, H> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let tail = self.tail.take()?;
        let mut piece = std::mem::take(&mut self.head);
        while piece.len() < PIECE_BYTES {
            let Some(row) = self.rows.next() else {
                piece.push_str(&tail);
                return Some(piece);
            };
            (self.push)(&mut piece, self.count, row);
            self.count += 1;
        }
        self.tail = Some(tail);
        Some(piece)
    }
}

/// `head`, what `push` makes of each row and its number, and `tail`; `held` is kept until all is sent.
pub(super) fn respond<I>(
    kind: &'static str,
    head: String,
    (rows, held): (I, impl Send + 'static),
    push: impl FnMut(&mut String, usize, I::Item) + Send + 'static,
    tail: String,
) -> Response
where
    I: Iterator + Send + 'static,
{
    let mut pieces = Pieces { head, rows, _held: held, push, tail: Some(tail), count: 0 };
    let first = pieces.next().unwrap_or_default();
    let kind = [(header::CONTENT_TYPE, kind)];
    if pieces.tail.is_none() {
        return (kind, first).into_response();
    }
    (kind, Body::from_stream(stalling(std::iter::once(first).chain(pieces), STALL))).into_response()
}

/// Pieces for as long as the client takes them.
fn stalling(
    pieces: impl Iterator<Item = String> + Send + 'static,
    stall: Duration,
) -> impl Stream<Item = io::Result<String>> {
    let shared = Arc::new(Mutex::new((0u64, Some(pieces))));
    let watched = Arc::downgrade(&shared);
    // Ends with the stream.
    let mut watch = JoinSet::new();
    watch.spawn(async move {
        let mut seen: Option<u64> = None;
        loop {
            tokio::time::sleep(stall).await;
            let Some(shared) = watched.upgrade() else { return };
            let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let before: u64 = seen.replace(state.0).unwrap_or_default();
            if state.0 < before + STALL_PIECES {
                state.1 = None;
                return;
            }
        }
    });
    stream::poll_fn(move |_| {
        let _ = &watch;
        let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        Poll::Ready(match &mut state.1 {
            Some(pieces) => pieces.next().map(Ok),
            None => {
                Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the client took too little for a minute")))
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use axum::body::HttpBody;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn whoever_takes_nothing_gets_no_more() {
        use futures_util::StreamExt;

        let kept = Arc::new(());
        let of_rows = Arc::clone(&kept);
        let pieces = (0..10).map(move |n| format!("{n}{}", Arc::strong_count(&of_rows)));
        let mut stream = std::pin::pin!(stalling(pieces, Duration::from_millis(5)));
        assert_eq!(stream.next().await.unwrap().unwrap(), "02");
        while Arc::strong_count(&kept) > 1 {
            // Until the rows are gone.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(stream.next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_long_answer_comes_in_pieces_and_whole() {
        for count in [0usize, 3, 100_000] {
            let push = |out: &mut String, at: usize, row: usize| {
                out.push_str(if at == 0 { "" } else { "," });
                out.push_str(&row.to_string());
            };
            let rows = (0..count, ());
            let response = respond("application/json", "[".to_owned(), rows, push, "]".to_owned());
            let is_whole = response.body().size_hint().exact().is_some();
            assert_eq!(is_whole, count < 1000);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let read: Vec<usize> = serde_json::from_slice(&body).unwrap();
            assert!(read.into_iter().eq(0..count));
        }
    }
}
