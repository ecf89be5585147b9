//! Syslog over TCP and UDP, off unless an address is given: RFC 5424, RFC 3164, and the framings of RFC 6587.
//!
//! ```text
//! TCP connection ─► frames ─┐
//! TCP connection ─► frames ─┼─► parse ─► queue ─► batch, lingering 100 ms ─► append
//! UDP datagram ─────────────┘
//! ```
//!
//! Syslog has no acknowledgement: what was read from a socket and is not stored when the process ends is lost. While
//! the store takes nothing, the queue fills and TCP connections are not read, so that senders keep what they have;
//! datagrams are dropped, and counted. Each transport has a queue of its own.

mod frame;
mod parse;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use binnacle_model::storage::{AppendError, LogAppender};
use binnacle_model::time::Clock;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::draft::{Draft, Gathered};
use crate::Telemetry;
use frame::{Frames, without_end};
use parse::parse;

/// Connections at once; others wait to be accepted.
const MAX_CONNECTIONS: usize = 512;

/// A line that has begun ends within this.
const LINE_TIMEOUT: Duration = Duration::from_mins(1);

/// A sender with nothing to say is let go after this. Most do not notice before the line that they lose by it, so that
/// it is long.
const IDLE_TIMEOUT: Duration = Duration::from_hours(2);

/// Read from a connection at once.
const READ_BYTES: usize = 32 * 1024;

/// Longest datagram.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// Datagrams that are read one after the other before they go to the queue.
const MAX_DATAGRAMS: usize = 64;

/// Readings of sockets that wait to be stored, each with what a socket gave at once.
const QUEUE: usize = 64;

/// How long entries wait for others to be stored with, and how many are stored together.
const LINGER: Duration = Duration::from_millis(100);
const BATCH_ENTRIES: usize = 4096;

/// After a stop, a store that takes nothing is asked so many times more.
const LAST_TRIES: usize = 5;

/// Sockets that are bound, and not read yet.
#[derive(Debug)]
pub struct SyslogListeners {
    tcp: Option<TcpListener>,
    udp: Option<UdpSocket>,
}

/// What all tasks share.
#[derive(Clone)]
struct Shared {
    logs: Arc<dyn LogAppender>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    stop: CancellationToken,
}

impl SyslogListeners {
    /// Binds the addresses that are given.
    ///
    /// # Errors
    /// What the system says, with the address.
    pub async fn bind(tcp: Option<SocketAddr>, udp: Option<SocketAddr>) -> io::Result<Self> {
        let named = |address: SocketAddr, kind: &str, error: &io::Error| {
            io::Error::new(error.kind(), format!("cannot take syslog over {kind} on {address}: {error}"))
        };
        let tcp = match tcp {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|error| named(address, "TCP", &error))?)
            }
            None => None,
        };
        let udp = match udp {
            Some(address) => {
                let bound = UdpSocket::bind(address).await;
                Some(bound.map_err(|error| named(address, "UDP", &error))?)
            }
            None => None,
        };
        Ok(Self { tcp, udp })
    }

    /// Takes lines until `stop` fires; the tasks end once what was read is stored.
    pub fn start(
        self,
        logs: &Arc<dyn LogAppender>,
        clock: &Arc<dyn Clock>,
        telemetry: &Telemetry,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let shared = Shared {
            logs: Arc::clone(logs),
            clock: Arc::clone(clock),
            telemetry: telemetry.clone(),
            stop: stop.clone(),
        };
        if let Some(listener) = self.tcp {
            let (queue, read) = mpsc::channel(QUEUE);
            tasks.spawn(store(read, shared.clone()));
            tasks.spawn(accept(listener, queue, shared.clone(), tasks.clone()));
        }
        if let Some(socket) = self.udp {
            let (queue, read) = mpsc::channel(QUEUE);
            tasks.spawn(store(read, shared.clone()));
            tasks.spawn(receive(socket, queue, shared));
        }
    }
}

type Queue = mpsc::Sender<Vec<Draft>>;

async fn accept(listener: TcpListener, queue: Queue, shared: Shared, tasks: TaskTracker) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = shared.stop.cancelled() => return,
            next = next => next,
        };
        match (place, accepted) {
            (Ok(place), Ok((stream, from))) => {
                let (queue, shared) = (queue.clone(), shared.clone());
                tasks.spawn(async move {
                    let _place = place;
                    shared.telemetry.syslog_connections.inc();
                    read_connection(stream, from.ip(), &queue, &shared).await;
                    shared.telemetry.syslog_connections.dec();
                });
            }
            (_, Err(error)) => {
                // No file descriptors left, most likely: some will be free in a moment.
                tracing::warn!(%error, "syslog connection was not accepted");
                sleep(LINGER).await;
            }
            (Err(_), _) => return,
        }
    }
}

/// Reads until the sender is done, is silent for too long, or all stops. Waits while the queue is full.
async fn read_connection(mut stream: TcpStream, from: IpAddr, queue: &Queue, shared: &Shared) {
    let mut frames = Frames::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut is_open = true;
    while is_open {
        let wait = if frames.is_empty() { IDLE_TIMEOUT } else { LINE_TIMEOUT };
        let read = tokio::select! {
            () = shared.stop.cancelled() => Ok(0),
            read = timeout(wait, stream.read(&mut buffer)) => read.unwrap_or(Ok(0)),
        };
        let mut lines = Vec::new();
        match read {
            Ok(count) if count > 0 => frames.feed(&buffer[..count], &mut lines),
            _ => {
                is_open = false;
                lines.extend(frames.finish());
            }
        }
        let now = shared.clock.now_ns();
        shared.telemetry.syslog_truncated.inc_by(lines.iter().filter(|line| line.is_cut).count() as u64);
        let drafts: Vec<Draft> = lines.iter().map(|line| parse(&line.bytes, now, from)).collect();
        if !drafts.is_empty() && queue.send(drafts).await.is_err() {
            return;
        }
    }
}

/// Reads datagrams, a line each, whether there is room for them or not.
async fn receive(socket: UdpSocket, queue: Queue, shared: Shared) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let received = tokio::select! {
            () = shared.stop.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        let mut received = match received {
            Ok(received) => Some(received),
            Err(error) => {
                tracing::warn!(%error, "syslog datagram was not received");
                sleep(LINGER).await;
                continue;
            }
        };
        let now = shared.clock.now_ns();
        let mut drafts = Vec::new();
        while let Some((length, from)) = received {
            let line = without_end(&buffer[..length]);
            if !line.is_empty() {
                drafts.push(parse(line, now, from.ip()));
            }
            received =
                (drafts.len() < MAX_DATAGRAMS).then(|| socket.try_recv_from(&mut buffer).ok()).flatten();
        }
        let count = drafts.len() as u64;
        if queue.try_send(drafts).is_err() {
            shared.telemetry.syslog_dropped.inc_by(count);
        }
    }
}

/// Stores what was read, until nobody reads any more.
async fn store(mut read: mpsc::Receiver<Vec<Draft>>, shared: Shared) {
    while let Some(mut drafts) = read.recv().await {
        let until = Instant::now() + LINGER;
        while drafts.len() < BATCH_ENTRIES {
            match tokio::time::timeout_at(until, read.recv()).await {
                Ok(Some(more)) => drafts.extend(more),
                Ok(None) | Err(_) => break,
            }
        }
        append(drafts, &shared).await;
    }
}

/// Appends until the store takes it.
async fn append(drafts: Vec<Draft>, shared: &Shared) {
    let received = shared.clock.now_ns();
    let mut gathered = Gathered::default();
    for draft in drafts {
        if !gathered.add(draft, received.0) {
            shared.telemetry.syslog_dropped.inc();
        }
    }
    let count = gathered.len() as u64;
    shared.telemetry.attributes_over.inc_by(gathered.over);
    let mut last_tries = 0;
    while last_tries < LAST_TRIES {
        let (logs, push) = (Arc::clone(&shared.logs), gathered.push.clone());
        let appended = tokio::task::spawn_blocking(move || logs.append(push, received)).await;
        let pause = match appended {
            Ok(Ok(_)) => {
                shared.telemetry.syslog_lines.inc_by(count);
                return;
            }
            Ok(Err(AppendError::Full { retry_after, .. })) => retry_after.min(Duration::from_secs(1)),
            Ok(Err(AppendError::Unavailable(reason))) => {
                tracing::warn!(reason, "lines of syslog wait: the store takes no writes");
                Duration::from_secs(1)
            }
            Ok(Err(AppendError::Invalid(reason) | AppendError::Overtaken(reason))) => {
                tracing::error!(reason, "lines of syslog were refused and are left out");
                break;
            }
            Err(error) => {
                tracing::error!(%error, "lines of syslog are left out");
                break;
            }
        };
        last_tries += usize::from(shared.stop.is_cancelled());
        sleep(pause).await;
    }
    shared.telemetry.syslog_dropped.inc_by(count);
}

/// Reads what a connection sends, for what throws foreign bytes at it. Answers how many lines it has.
#[doc(hidden)]
pub fn try_read(stream: &[u8]) -> usize {
    let mut frames = Frames::default();
    let mut lines = Vec::new();
    stream.chunks(7).for_each(|chunk| frames.feed(chunk, &mut lines));
    lines.extend(frames.finish());
    let from = IpAddr::from([127, 0, 0, 1]);
    let now = binnacle_model::LogTime(1_700_000_000_000_000_000);
    lines.iter().for_each(|line| {
        parse(&line.bytes, now, from);
    });
    lines.len()
}
