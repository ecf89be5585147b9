//! Long answers, made as the client takes them: a slow client costs the rows, and not their text as well.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;

/// A piece is sent as soon as it has so many bytes. An answer of one piece has a `Content-Length`.
const PIECE_BYTES: usize = 256 * 1024;

/// Text between `head` and `tail`, of which `push` adds a row at a time.
struct Pieces<I, P> {
    /// Also what was not sent yet.
    head: String,
    rows: I,
    push: P,
    tail: Option<String>,
    count: usize,
}

impl<I: Iterator, P: FnMut(&mut String, usize, I::Item)> Iterator for Pieces<I, P> {
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

/// `head`, what `push` makes of each row and its number, and `tail`.
pub(super) fn respond<I>(
    kind: &'static str,
    head: String,
    rows: I,
    push: impl FnMut(&mut String, usize, I::Item) + Send + 'static,
    tail: String,
) -> Response
where
    I: Iterator + Send + 'static,
{
    let mut pieces = Pieces { head, rows, push, tail: Some(tail), count: 0 };
    let first = pieces.next().unwrap_or_default();
    let kind = [(header::CONTENT_TYPE, kind)];
    if pieces.tail.is_none() {
        return (kind, first).into_response();
    }
    let all = std::iter::once(first).chain(pieces).map(Ok::<_, Infallible>);
    (kind, Body::from_stream(stream::iter(all))).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::HttpBody;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_long_answer_comes_in_pieces_and_whole() {
        for count in [0usize, 3, 100_000] {
            let push = |out: &mut String, at: usize, row: usize| {
                out.push_str(if at == 0 { "" } else { "," });
                out.push_str(&row.to_string());
            };
            let response = respond("application/json", "[".to_owned(), 0..count, push, "]".to_owned());
            let is_whole = response.body().size_hint().exact().is_some();
            assert_eq!(is_whole, count < 1000);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let read: Vec<usize> = serde_json::from_slice(&body).unwrap();
            assert!(read.into_iter().eq(0..count));
        }
    }
}
