//! Probes of TCP: a connection, and a talk of lines over it.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Run;
use super::config::{Exchange, TcpModule};
use super::net::split_port;

/// A line of the other side at most; as Go's scanner.
const LINE_MAX_BYTES: usize = 64 * 1024;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection, and what was read of it beyond the last line.
struct Talk {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

pub(super) async fn probe(module: &TcpModule, run: &mut Run, target: &str) -> Result<(), String> {
    run.page.set("probe_failed_due_to_regex", 0.0);
    let (host, port) = split_port(target).ok_or("the target must be host:port")?;
    let address = run.resolve(host, module.family).await?;
    let stream = run.connect(SocketAddr::new(address, port), module.source).await?;
    let mut talk = Talk { stream: Box::new(stream), buffer: Vec::new() };
    if module.is_tls {
        talk = talk.secure(module, run, host).await?;
    }
    for exchange in &module.exchanges {
        let send = talk.listen(exchange, run).await?;
        if !send.is_empty() {
            run.log.say(&format!("sending {} bytes", send.len()));
            let line = [&*send, b"\n"].concat();
            talk.stream.write_all(&line).await.map_err(|error| format!("cannot send: {error}"))?;
            talk.stream.flush().await.map_err(|error| format!("cannot send: {error}"))?;
        }
        if exchange.starts_tls {
            talk = talk.secure(module, run, host).await?;
        }
    }
    Ok(())
}

impl Talk {
    /// The same connection, with TLS from here on.
    async fn secure(self, module: &TcpModule, run: &mut Run, host: &str) -> Result<Self, String> {
        let name = module.tls.server_name().unwrap_or(host);
        let (stream, shown) = module.tls.connect(self.stream, name).await?;
        shown.say(&mut run.page);
        run.log.say("TLS is spoken");
        Ok(Self { stream: Box::new(stream), buffer: Vec::new() })
    }

    /// Waits for the line that is expected, and answers what is to be sent then.
    async fn listen(&mut self, exchange: &Exchange, run: &mut Run) -> Result<Vec<u8>, String> {
        let Some(expect) = &exchange.expect else { return Ok(exchange.send.reveal().as_bytes().to_vec()) };
        while let Some(line) = self.line().await? {
            run.log.say(&format!("read {:?}", String::from_utf8_lossy(&line)));
            let Some(found) = expect.captures(&line) else { continue };
            let mut send = Vec::new();
            found.expand(exchange.send.reveal().as_bytes(), &mut send);
            let mut labels = Vec::new();
            for (name, value) in &exchange.labels {
                let mut text = Vec::new();
                found.expand(value.as_bytes(), &mut text);
                labels.push((name.as_str(), String::from_utf8_lossy(&text).into_owned()));
            }
            if !labels.is_empty() {
                let pairs: Vec<(&str, &str)> =
                    labels.iter().map(|(name, text)| (*name, text.as_str())).collect();
                run.page.set_with("probe_expect_info", &pairs, 1.0);
            }
            run.page.set("probe_failed_due_to_regex", 0.0);
            return Ok(send);
        }
        run.page.set("probe_failed_due_to_regex", 1.0);
        Err(format!("no line matches {:?}", expect.as_str()))
    }

    /// The next line without its end; what stands behind the last end counts as one.
    async fn line(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[searched..]) {
                let rest = self.buffer.split_off(searched + end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                if line.ends_with(b"\r") {
                    line.pop();
                }
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched >= LINE_MAX_BYTES {
                return Err(format!("a line has more than {LINE_MAX_BYTES} bytes"));
            }
            let mut part = [0; 4096];
            let read = self.stream.read(&mut part).await.map_err(|error| format!("cannot read: {error}"))?;
            if read == 0 {
                let rest = std::mem::take(&mut self.buffer);
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            }
            self.buffer.extend_from_slice(&part[..read]);
        }
    }
}
