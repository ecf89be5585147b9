//! The body of a response: counted, unpacked, and kept only if somebody looks at it.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, GzDecoder};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::probe::config::{Compression, HttpModule};

/// A body that is looked at where `body_size_limit` says nothing; one that is only counted is not held.
const KEPT_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Takes bytes up to a bound, and keeps them if they are wanted.
struct Sink {
    kept: Option<Vec<u8>>,
    bytes: usize,
    max_bytes: usize,
    is_over: bool,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.max_bytes - self.bytes;
        if bytes.len() > room {
            self.bytes = self.max_bytes;
            self.is_over = true;
            return Err(io::Error::other(format!("the body has more than {} bytes", self.max_bytes)));
        }
        self.bytes += bytes.len();
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Unpack {
    Plain(Sink),
    Gzip(Box<GzDecoder<Sink>>),
    Deflate(Box<DeflateDecoder<Sink>>),
}

impl Unpack {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(sink) => sink,
            Self::Gzip(decoder) => decoder,
            Self::Deflate(decoder) => decoder,
        }
    }

    fn sink(&mut self) -> &mut Sink {
        match self {
            Self::Plain(sink) => sink,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Deflate(decoder) => decoder.try_finish(),
        }
    }
}

/// How many bytes there are, unpacked, and all of them if they are wanted.
pub(super) async fn read(
    module: &HttpModule,
    mut body: Incoming,
    is_wanted: bool,
) -> (usize, Result<Vec<u8>, String>) {
    let default = if is_wanted { KEPT_MAX_BYTES } else { usize::MAX };
    let max_bytes = module.body_max_bytes.unwrap_or(default);
    let sink = Sink { kept: is_wanted.then(Vec::new), bytes: 0, max_bytes, is_over: false };
    let mut unpack = match module.compression {
        Compression::None => Unpack::Plain(sink),
        Compression::Gzip => Unpack::Gzip(Box::new(GzDecoder::new(sink))),
        Compression::Deflate => Unpack::Deflate(Box::new(DeflateDecoder::new(sink))),
    };
    let mut done = Ok(());
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                done = Err(format!("the body was cut off: {error}"));
                break;
            }
        };
        let Some(data) = frame.data_ref() else { continue };
        if let Err(error) = unpack.writer().write_all(data) {
            done = Err(reason(&mut unpack, &error));
            break;
        }
    }
    if done.is_ok()
        && let Err(error) = unpack.finish()
    {
        done = Err(reason(&mut unpack, &error));
    }
    let sink = unpack.sink();
    let kept = sink.kept.take().unwrap_or_default();
    (sink.bytes, done.map(|()| kept))
}

fn reason(unpack: &mut Unpack, error: &io::Error) -> String {
    if unpack.sink().is_over { error.to_string() } else { format!("the body cannot be unpacked: {error}") }
}
