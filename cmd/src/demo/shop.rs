//! A shop of three services that call one another over HTTP, count their requests, and write lines.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::runtime_log::RuntimeLog;
use super::{Service, pager};
use crate::server;
use crate::stage::Stage;

/// Between two customers.
const CUSTOMER_EVERY: Duration = Duration::from_millis(80);

/// Payment fails in this part of every period.
const FAULT_PERIOD: Duration = Duration::from_mins(5);
const FAULT_FROM: Duration = Duration::from_mins(1);
const FAULT_TO: Duration = Duration::from_mins(2);

const BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    service: &'static str,
    method: &'static str,
    route: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    service: &'static str,
    route: &'static str,
}

/// What the shop's services are.
pub(super) struct Shop {
    pub(super) services: Vec<Service>,
    /// Where notifications go.
    pub(super) pager: SocketAddr,
}

/// One service: its metrics, its log, and whom it calls.
struct Node {
    name: &'static str,
    route: &'static str,
    log: RuntimeLog,
    next: Option<String>,
    client: reqwest::Client,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    registry: Registry,
    opened: Instant,
    served: AtomicU64,
}

/// Starts the services, their customers, and the pager on `tasks`.
pub(super) async fn open(logs: &Path, tasks: &TaskTracker, stop: &CancellationToken) -> anyhow::Result<Shop> {
    let mut services = Vec::new();
    let mut next = None;
    for (name, route, pod) in [
        ("payment", "/charge", "payment-7d9f8b6c5-x2x4z"),
        ("cart", "/checkout", "cart-6b8c9d7f4-q8wz5"),
        ("front", "/buy", "front-5c7d8f9b6-k4m2p"),
    ] {
        let node = Arc::new(Node::new(name, route, logs, pod, next.take())?);
        let router = Router::new().route(route, get(handle)).route("/metrics", get(metrics)).with_state(node);
        let address = listen(router, tasks, stop).await?;
        next = Some(format!("http://{address}{route}"));
        services.push(Service { address, pod });
    }
    let log = RuntimeLog::open(logs, "pager-0").context("the pager's log")?;
    let pager = listen(pager::router(Arc::new(log)), tasks, stop).await?;
    let front = next.context("the shop has a front")?;
    tasks.spawn(customers(front, stop.clone()));
    Ok(Shop { services, pager })
}

async fn listen(router: Router, tasks: &TaskTracker, stop: &CancellationToken) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("the shop cannot listen on loopback")?;
    let address = listener.local_addr()?;
    tasks.spawn(server::serve(listener, Stage::of(router), stop.clone()));
    Ok(address)
}

/// Sends one customer after the other to the shop.
async fn customers(front: String, stop: CancellationToken) {
    let Ok(client) = binnacle_collector::http_client(Duration::from_secs(5)) else { return };
    let mut ticks = tokio::time::interval(CUSTOMER_EVERY);
    let tasks = TaskTracker::new();
    let mut customer = 0u64;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        customer += 1;
        let request = client.get(&front).header("x-trace-id", trace_id(customer));
        tasks.spawn(async move {
            // The shop's own logs and metrics say how it went.
            let _ = request.send().await;
        });
    }
}

/// 32 hex digits that no other customer has.
fn trace_id(customer: u64) -> String {
    let high = customer.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let low = (high ^ (high >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ u64::from(std::process::id());
    format!("{high:016x}{low:016x}")
}

impl Node {
    fn new(
        name: &'static str,
        route: &'static str,
        logs: &Path,
        pod: &str,
        next: Option<String>,
    ) -> anyhow::Result<Self> {
        let requests = Family::<RequestLabels, Counter>::default();
        let durations = Family::<RouteLabels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        let mut registry = Registry::default();
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register("http_request_duration_seconds", "Time to answer", durations.clone());
        Ok(Self {
            name,
            route,
            log: RuntimeLog::open(logs, pod).with_context(|| format!("the log of {name}"))?,
            next,
            client: binnacle_collector::http_client(Duration::from_secs(5))?,
            requests,
            durations,
            registry,
            opened: Instant::now(),
            served: AtomicU64::new(0),
        })
    }

    /// Whether this is the time in which payment has its troubles.
    fn is_faulty(&self) -> bool {
        let into = Duration::from_secs(self.opened.elapsed().as_secs() % FAULT_PERIOD.as_secs());
        self.name == "payment" && (FAULT_FROM..FAULT_TO).contains(&into)
    }

    /// Answers, or passes the request on; what the answer is.
    async fn work(&self, number: u64, trace: &str) -> StatusCode {
        // Work of 1 to 16 ms, different from request to request.
        let busy = Duration::from_micros(1000 + number.wrapping_mul(2_654_435_761) % 15_000);
        tokio::time::sleep(busy).await;
        match &self.next {
            None if self.is_faulty() && !number.is_multiple_of(3) => StatusCode::SERVICE_UNAVAILABLE,
            None => StatusCode::OK,
            Some(next) => {
                let answered = self.client.get(next).header("x-trace-id", trace).send().await;
                match answered.map(|response| response.status()) {
                    Ok(status) if status.is_success() => StatusCode::OK,
                    _ => StatusCode::BAD_GATEWAY,
                }
            }
        }
    }

    fn write(&self, number: u64, trace: &str, status: StatusCode, took: Duration) {
        let ms = took.as_secs_f64() * 1000.0;
        let code = status.as_u16();
        let failed = !status.is_success();
        let order = 8_000 + number;
        match self.name {
            "payment" => {
                let (level, msg) = if failed {
                    ("error", "charge failed: card processor refused the connection")
                } else {
                    ("info", "charge accepted")
                };
                let line = serde_json::json!({
                    "level": level, "msg": msg, "order": order, "amount_cents": 500 + number % 9_500,
                    "latency_ms": (ms * 10.0).round() / 10.0, "status": code, "trace_id": trace,
                });
                self.log.line(if failed { "stderr" } else { "stdout" }, &line.to_string());
            }
            "cart" => {
                let level = if failed { "warn" } else { "info" };
                let msg = if failed { "checkout could not be paid" } else { "checkout done" };
                let items = 1 + number % 7;
                self.log.line(
                    "stdout",
                    &format!("level={level} msg=\"{msg}\" order={order} items={items} status={code} duration_ms={ms:.1} trace_id={trace}"),
                );
            }
            _ => self.log.line(
                "stdout",
                &format!("127.0.0.1 - - \"GET {} HTTP/1.1\" {code} {} \"-\" \"demo-customer/1.0\" {ms:.1}ms {trace}", self.route, 512 + number % 900),
            ),
        }
    }
}

async fn handle(State(node): State<Arc<Node>>, headers: HeaderMap) -> Response {
    let started = Instant::now();
    let number = node.served.fetch_add(1, Ordering::Relaxed);
    let trace = headers.get("x-trace-id").and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned();
    let status = node.work(number, &trace).await;
    let took = started.elapsed();
    let labels =
        RequestLabels { service: node.name, method: "GET", route: node.route, code: status.as_u16() };
    node.requests.get_or_create(&labels).inc();
    let labels = RouteLabels { service: node.name, route: node.route };
    node.durations.get_or_create(&labels).observe(took.as_secs_f64());
    node.write(number, &trace, status, took);
    (status, format!("{}: {status}\n", node.name)).into_response()
}

async fn metrics(State(node): State<Arc<Node>>) -> Response {
    let mut page = String::new();
    if encode(&mut page, &node.registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], page).into_response()
}
