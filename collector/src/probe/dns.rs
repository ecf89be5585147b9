//! Probes of DNS servers: a query over UDP, TCP or TLS, and what the records of its answer are like.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UdpSocket;

use super::Run;
use super::config::{DnsModule, Validator};
use super::net::{bare, lap, split_port};

/// As long as a message may be.
const MESSAGE_MAX_BYTES: usize = 65_535;

const SECTIONS: [&str; 3] = ["answer", "authority", "additional"];

pub(super) async fn probe(module: &DnsModule, run: &mut Run, target: &str) -> Result<(), String> {
    let counts = ["probe_dns_answer_rrs", "probe_dns_authority_rrs", "probe_dns_additional_rrs"];
    counts.iter().for_each(|name| run.page.set(name, 0.0));
    run.page.set("probe_dns_query_succeeded", 0.0);
    for phase in ["resolve", "connect", "request"] {
        run.dns_phase(phase, 0.0);
    }
    let port = if module.tls.is_some() { 853 } else { 53 };
    let (host, port) = split_port(target).unwrap_or((bare(target), port));
    let address = run.resolve(host, module.family).await?;
    run.dns_phase("resolve", run.lookup.as_secs_f64());
    let answer = ask(module, run, host, SocketAddr::new(address, port)).await?;
    run.page.set("probe_dns_query_succeeded", 1.0);
    // The pseudo-record of EDNS stands in the additional section.
    let extra = usize::from(answer.edns.is_some());
    let lengths = [answer.answers.len(), answer.authorities.len(), answer.additionals.len() + extra];
    counts.iter().zip(lengths).for_each(|(name, length)| run.page.set(name, length as f64));
    if module.kind == RecordType::SOA {
        let serial = answer.answers.iter().rev().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.serial),
            _ => None,
        });
        run.page.set("probe_dns_serial", f64::from(serial.unwrap_or_default()));
    }
    let code = u16::from(answer.metadata.response_code);
    run.log.say(&format!("answered with response code {code} and {lengths:?} records"));
    if !module.rcodes.contains(&code) {
        return Err(format!("response code {code} is none of valid_rcodes"));
    }
    let sections = [&answer.answers, &answer.authorities, &answer.additionals];
    for ((section, records), validator) in SECTIONS.iter().zip(sections).zip(&module.validators) {
        let texts: Vec<String> = records.iter().map(text_of).collect();
        texts.iter().for_each(|text| run.log.say(&format!("{section}: {text}")));
        validator.check(&texts).map_err(|reason| format!("validate_{section}_rrs: {reason}"))?;
    }
    Ok(())
}

impl Run {
    fn dns_phase(&mut self, phase: &str, seconds: f64) {
        self.page.add("probe_dns_duration_seconds", &[("phase", phase)], seconds);
    }
}

async fn ask(module: &DnsModule, run: &mut Run, host: &str, server: SocketAddr) -> Result<Message, String> {
    let id = RandomState::new().hash_one(host) as u16;
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = module.recursion;
    let mut query = Query::query(module.name.clone(), module.kind);
    query.set_query_class(module.class);
    message.add_query(query);
    let wire = message.to_vec().map_err(|error| error.to_string())?;
    let mut since = Instant::now();
    if !module.is_tcp {
        let any = if server.is_ipv6() {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        let told = |error: std::io::Error| format!("{server}: {error}");
        let socket = UdpSocket::bind(SocketAddr::new(module.source.unwrap_or(any), 0)).await.map_err(told)?;
        socket.connect(server).await.map_err(told)?;
        run.dns_phase("connect", lap(&mut since));
        let answer = over_udp(&socket, &wire, id).await.map_err(told);
        run.dns_phase("request", lap(&mut since));
        return answer;
    }
    let stream = run.connect(server, module.source).await?;
    let answer = match &module.tls {
        None => {
            run.dns_phase("connect", lap(&mut since));
            over_tcp(stream, &wire, id).await
        }
        Some(tls) => {
            let (stream, _) = tls.connect(stream, tls.server_name().unwrap_or(host)).await?;
            run.dns_phase("connect", lap(&mut since));
            over_tcp(stream, &wire, id).await
        }
    };
    run.dns_phase("request", lap(&mut since));
    answer.map_err(|error| format!("{server}: {error}"))
}

async fn over_udp(socket: &UdpSocket, wire: &[u8], id: u16) -> std::io::Result<Message> {
    socket.send(wire).await?;
    let mut buffer = vec![0; MESSAGE_MAX_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Whatever answers something else may be late, or mean somebody else.
        if let Ok(message) = Message::from_vec(&buffer[..length])
            && is_answer(&message, id)
        {
            return Ok(message);
        }
    }
}

fn is_answer(message: &Message, id: u16) -> bool {
    message.metadata.id == id && message.metadata.message_type == MessageType::Response
}

async fn over_tcp<S>(mut stream: S, wire: &[u8], id: u16) -> std::io::Result<Message>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let framed = [&(wire.len() as u16).to_be_bytes()[..], wire].concat();
    stream.write_all(&framed).await?;
    stream.flush().await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    let message = Message::from_vec(&buffer)
        .map_err(|error| std::io::Error::other(format!("the answer cannot be read: {error}")))?;
    if is_answer(&message, id) {
        Ok(message)
    } else {
        Err(std::io::Error::other("an answer to another query"))
    }
}

/// As zone files have it, with tabs in front of the data: what expressions are written for.
fn text_of(record: &Record) -> String {
    let data = match &record.data {
        RData::TXT(txt) => {
            let quoted = txt.txt_data.iter().map(|part| {
                let text: String = part.iter().map(|byte| escaped(*byte)).collect();
                format!("\"{text}\"")
            });
            quoted.collect::<Vec<_>>().join(" ")
        }
        // It has no text, and would be an error to ask for one.
        RData::OPT(_) => String::new(),
        other => other.to_string(),
    };
    let (name, ttl, class, kind) = (&record.name, record.ttl, record.dns_class, record.record_type());
    format!("{name}\t{ttl}\t{class}\t{kind}\t{data}")
}

fn escaped(byte: u8) -> String {
    match byte {
        b'"' | b'\\' => format!("\\{}", char::from(byte)),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\{byte:03}"),
    }
}

impl Validator {
    /// As in blackbox exporter, also where an expression of several matches.
    fn check(&self, records: &[String]) -> Result<(), String> {
        if records.is_empty() && !self.not.is_empty() {
            return Err("fail_if_not_matches_regexp, and there are no records".to_owned());
        }
        if records.is_empty() && !self.none.is_empty() {
            return Err("fail_if_none_matches_regexp, and there are no records".to_owned());
        }
        for record in records {
            let is_match = |regex: &&regex::bytes::Regex| regex.is_match(record.as_bytes());
            if let Some(regex) = self.any.iter().find(is_match) {
                return Err(format!("{record:?} matches {:?}", regex.as_str()));
            }
            if let Some(regex) = self.not.iter().find(|regex| !is_match(regex)) {
                return Err(format!("{record:?} does not match {:?}", regex.as_str()));
            }
        }
        let all = |regexes: &[regex::bytes::Regex]| {
            records.iter().all(|record| regexes.iter().all(|regex| regex.is_match(record.as_bytes())))
        };
        // Against its name, as blackbox exporter does: who has the key in use counts on it.
        if !self.all.is_empty() && !all(&self.all) {
            return Err("not all records match fail_if_all_match_regexp".to_owned());
        }
        let any = |regexes: &[regex::bytes::Regex]| {
            records.iter().any(|record| regexes.iter().any(|regex| regex.is_match(record.as_bytes())))
        };
        if !self.none.is_empty() && !any(&self.none) {
            return Err("no record matches fail_if_none_matches_regexp".to_owned());
        }
        Ok(())
    }
}
