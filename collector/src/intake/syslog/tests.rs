use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use binnacle_model::LogTime;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::frame::{LINE_MAX_BYTES, Line};
use super::*;
use crate::intake::doubles::{Kept, NOW, Noon, shown};

fn parsed(line: &[u8], now: i64) -> (String, String) {
    let mut gathered = Gathered::default();
    assert!(gathered.add(parse(line, LogTime(now), IpAddr::from([10, 0, 0, 9])), now));
    let mut shown = shown(&gathered.push);
    let entry = shown.pop().unwrap();
    (shown.remove(0), entry)
}

fn check(line: &str, labels: &str, entry: &str) {
    assert_eq!(parsed(line.as_bytes(), NOW), (labels.to_owned(), entry.to_owned()), "{line}");
}

#[test]
fn the_examples_of_rfc_5424() {
    check(
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed for lonvick on /dev/pts/8",
        "app=su,node=mymachine.example.com,service=su",
        "1065910455003000000|fatal||'su root' failed for lonvick on /dev/pts/8|log.syslog.facility.name=auth,\
         log.syslog.severity.name=critical,log.syslog.msgid=ID47",
    );
    check(
        "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
        "app=myproc,node=192.0.2.1,service=myproc",
        "1061727255000003000|info||%% It's time to make the do-nuts.|log.syslog.facility.name=local4,\
         log.syslog.severity.name=notice,log.syslog.procid=8710",
    );
    check(
        "<163>1 - - evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"a \\\"b\\\" \\\\ \\]\"][prio@1] an  entry",
        "app=evntslog,node=10.0.0.9,service=evntslog",
        &format!(
            "{NOW}|error||an  entry|log.syslog.facility.name=local4,log.syslog.msgid=ID47,\
             log.syslog.structured_data.exampleSDID@32473.iut=3,\
             log.syslog.structured_data.exampleSDID@32473.eventSource=a \"b\" \\ ],log.syslog.structured_data.prio@1="
        ),
    );
    check(
        "<15>1 - h a - - -",
        "app=a,node=h,service=a",
        &format!("{NOW}|debug|||log.syslog.facility.name=user"),
    );
}

#[test]
fn lines_of_rfc_3164_and_what_is_sent_in_its_name() {
    // NOW is in November 2023.
    let kern = "log.syslog.facility.name=kern";
    let at = |text: &str| LogTime::parse_rfc3339(text).unwrap().0;
    check(
        "<4>Oct 11 22:14:15 mymachine su[77]: 'su root' failed",
        "app=su,node=mymachine,service=su",
        &format!("{}|warn||'su root' failed|{kern},log.syslog.procid=77", at("2023-10-11T22:14:15Z")),
    );
    check(
        "<6>Nov  5 01:02:03 sw1 app: two  words",
        "app=app,node=sw1,service=app",
        &format!("{}|info||two  words|{kern}", at("2023-11-05T01:02:03Z")),
    );
    check(
        "<6>2023-11-05T01:02:03.250+01:00 sw1 app:",
        "app=app,node=sw1,service=app",
        &format!("{}|info|||{kern}", at("2023-11-05T00:02:03.250Z")),
    );
    check(
        "<6>Nov 05 2021 01:02:03.5: %LINK-3-UPDOWN: Interface up",
        "app=%LINK-3-UPDOWN,node=10.0.0.9,service=%LINK-3-UPDOWN",
        &format!("{}|info||Interface up|{kern}", at("2021-11-05T01:02:03.500Z")),
    );
    check(
        "<6>Nov  5 01:02:03 sshd[1]: local",
        "app=sshd,node=10.0.0.9,service=sshd",
        &format!("{}|info||local|{kern},log.syslog.procid=1", at("2023-11-05T01:02:03Z")),
    );
    let unknown = "node=10.0.0.9,service=unknown_service";
    check("<3>http://x is no tag", unknown, &format!("{NOW}|error||http://x is no tag|{kern}"));
    check("no header: ERROR at all", unknown, &format!("{NOW}|error||no header: ERROR at all|"));
    check("<999>x", unknown, &format!("{NOW}|||<999>x|"));
    check("<6>Feb 30 01:02:03 h a: b", unknown, &format!("{NOW}|info||Feb 30 01:02:03 h a: b|{kern}"));
    check("<6>1 2003 h a - - broken", unknown, &format!("{NOW}|info||1 2003 h a - - broken|{kern}"));
    check("", unknown, &format!("{NOW}||||"));
    assert!(parsed(b"<6>a: \xff\x00", NOW).1.contains("|\\xff\\x00|"));
}

#[test]
fn a_line_is_of_the_year_that_brings_it_nearest() {
    let time = |line: &str, now: &str| {
        let now = LogTime::parse_rfc3339(now).unwrap();
        LogTime(parse(line.as_bytes(), now, IpAddr::from([0, 0, 0, 0])).time_ns.unwrap()).to_rfc3339()
    };
    let old = "<6>Dec 31 23:59:59 h a: b";
    assert!(time(old, "2026-01-01T00:00:05Z").starts_with("2025-12-31"));
    assert!(time(old, "2025-12-31T23:59:58Z").starts_with("2025-12-31"));
    assert!(time("<6>Jan  1 00:00:01 h a: b", "2025-12-31T23:59:58Z").starts_with("2026-01-01"));
    assert!(time("<6>Feb 29 00:00:00 h a: b", "2025-02-28T00:00:00Z").starts_with("2024-02-29"));
}

fn framed(pieces: &[&[u8]]) -> Vec<Line> {
    let mut frames = Frames::default();
    let mut lines = Vec::new();
    pieces.iter().for_each(|piece| frames.feed(piece, &mut lines));
    lines.extend(frames.finish());
    assert!(frames.is_empty());
    lines
}

#[test]
fn both_framings_may_follow_one_another() {
    let line = |text: &str| Line { bytes: text.as_bytes().to_vec(), is_cut: false };
    let stream = b"5 <6>ab<6>c\r\n12 monkeys\n\n7 <6>d\ne\n<6>f\0\n4 <6>g\n3 x";
    let want = ["<6>ab", "<6>c", "12 monkeys", "<6>d\ne", "<6>f", "<6>g", "3 x"].map(line);
    assert_eq!(framed(&[stream]), want);
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(framed(&bytes), want);
}

#[test]
fn a_line_that_is_too_long_is_cut_and_the_next_one_whole() {
    let long = vec![b'x'; LINE_MAX_BYTES + 5];
    let next = Line { bytes: b"<6>next".to_vec(), is_cut: false };
    let mut counted = format!("{} <6>", LINE_MAX_BYTES + 8).into_bytes();
    counted.extend_from_slice(&long);
    counted.extend_from_slice(b"7 <6>next");
    let plain = [&long[..], b"\n<6>next\n"].concat();
    for stream in [&counted, &plain] {
        for size in [1000, stream.len()] {
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            let lines = framed(&pieces);
            assert_eq!((lines[0].bytes.len(), lines[0].is_cut), (LINE_MAX_BYTES, true));
            assert_eq!(lines[1..], *std::slice::from_ref(&next));
        }
    }
    let endless = vec![b'x'; 3 * LINE_MAX_BYTES];
    assert_eq!(framed(&[&endless]).len(), 1);
}

fn started(kept: &Arc<Kept>, listeners: SyslogListeners) -> (TaskTracker, CancellationToken, Telemetry) {
    let (tasks, stop, telemetry) = (TaskTracker::new(), CancellationToken::new(), Telemetry::default());
    let logs: Arc<dyn LogAppender> = Arc::clone(kept) as Arc<dyn LogAppender>;
    let clock: Arc<dyn Clock> = Arc::new(Noon);
    listeners.start(&logs, &clock, &telemetry, &tasks, &stop);
    tasks.close();
    (tasks, stop, telemetry)
}

async fn until(what: &str, found: impl Fn() -> bool) {
    for _ in 0..3000 {
        if found() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("waited for {what}");
}

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

#[tokio::test]
async fn what_was_read_before_a_stop_is_stored() {
    let listeners = SyslogListeners::bind(Some(LOOPBACK), Some(LOOPBACK)).await.unwrap();
    let tcp = listeners.tcp.as_ref().unwrap().local_addr().unwrap();
    let udp = listeners.udp.as_ref().unwrap().local_addr().unwrap();
    let kept = Kept::full();
    let (tasks, stop, telemetry) = started(&kept, listeners);
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    stream.write_all(b"<6>a: one\n<6>a: two\n<6>a: the rest").await.unwrap();
    stream.shutdown().await.unwrap();
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    socket.send_to(b"<6>a: datagram \n", udp).await.unwrap();
    until("the connection's end", || {
        telemetry.syslog_connections.get() == 0 && telemetry.syslog_lines.get() == 0
    })
    .await;
    // The store is full for now; the lines wait.
    sleep(Duration::from_millis(50)).await;
    kept.is_full.store(false, Ordering::Relaxed);
    until("the lines", || kept.entries() == 4).await;
    stop.cancel();
    tasks.wait().await;
    let mut texts: Vec<String> =
        kept.shown().iter().filter_map(|line| line.split('|').nth(3).map(str::to_owned)).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["datagram ", "one", "the rest", "two"]);
    assert_eq!((telemetry.syslog_lines.get(), telemetry.syslog_dropped.get()), (4, 0));
}

#[tokio::test]
async fn a_full_store_stops_the_reading_of_connections_and_counts_datagrams() {
    let listeners = SyslogListeners::bind(Some(LOOPBACK), Some(LOOPBACK)).await.unwrap();
    let tcp = listeners.tcp.as_ref().unwrap().local_addr().unwrap();
    let udp = listeners.udp.as_ref().unwrap().local_addr().unwrap();
    let kept = Kept::full();
    let (tasks, stop, telemetry) = started(&kept, listeners);
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    let lines = b"<6>a: line\n".repeat(1000);
    let mut sent = 0;
    // More than the queue and the sockets' buffers hold.
    while let Ok(written) = timeout(Duration::from_secs(1), stream.write_all(&lines)).await {
        written.unwrap();
        sent += 1;
        assert!(sent < 20_000, "nothing holds the sender back");
    }
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    for _ in 0..20_000 {
        socket.send_to(b"<6>a: datagram", udp).await.unwrap();
        if telemetry.syslog_dropped.get() > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    until("a drop", || telemetry.syslog_dropped.get() > 0).await;
    kept.is_full.store(false, Ordering::Relaxed);
    until("what was sent", || kept.entries() >= sent * 1000).await;
    drop(stream);
    stop.cancel();
    tasks.wait().await;
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(stream in proptest::collection::vec(any::<u8>(), 0..300), text in "<[0-9]{1,3}>(1 )?.{0,60}") {
        try_read(&stream);
        try_read(text.as_bytes());
    }

    /// However a stream is cut, its lines are those that were sent.
    #[test]
    fn lines_survive_any_cut(
        lines in proptest::collection::vec(("<[0-9]{1,2}>[ -~]{0,40}[a-z]", any::<bool>()), 1..20),
        cuts in proptest::collection::vec(1usize..30, 1..40),
    ) {
        let mut stream = Vec::new();
        for (line, is_counted) in &lines {
            if *is_counted {
                stream.extend_from_slice(format!("{} {line}", line.len()).as_bytes());
            } else {
                stream.extend_from_slice(format!("{line}\n").as_bytes());
            }
        }
        let mut pieces = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        let found: Vec<String> =
            framed(&pieces).into_iter().map(|line| String::from_utf8(line.bytes).unwrap()).collect();
        let want: Vec<String> = lines.into_iter().map(|(line, _)| line).collect();
        prop_assert_eq!(found, want);
    }

    /// What a sender of RFC 5424 says is what is kept.
    #[test]
    fn fields_of_rfc_5424_come_back(
        host in "[!-~]{1,20}", app in "[!-~]{1,20}", process in "[!-~]{1,10}",
        value in "(?s).{0,20}", message in "(?s)[^\u{feff}].{0,40}", facility in 0usize..24,
    ) {
        prop_assume!([&host, &app, &process].iter().all(|one| **one != "-"));
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]");
        let line = format!("<{}>1 2023-11-14T22:13:20Z {host} {app} {process} - [x y=\"{escaped}\"] {message}", facility * 8 + 4);
        let draft = parse(line.as_bytes(), LogTime(NOW), IpAddr::from([1, 2, 3, 4]));
        prop_assert_eq!(&draft.message, message.as_bytes());
        prop_assert_eq!((draft.level, draft.time_ns), ("warn", Some(1_700_000_000_000_000_000)));
        prop_assert!(draft.identity.holds(crate::intake::draft::Names::Any, "node", &host));
        prop_assert!(draft.identity.holds(crate::intake::draft::Names::Any, "service", &app));
        let fields = draft.attributes.finish().0;
        let has = |name: &str, text: &str| fields.contains(&crate::intake::draft::text_field(name, text));
        prop_assert!(has("log.syslog.procid", &process) && has("log.syslog.structured_data.x.y", &value), "{fields:?}");
    }
}
