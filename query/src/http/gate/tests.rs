use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use binnacle_model::storage::StorageError;
use tokio::task::JoinSet;

use super::*;
use crate::promql::EvalError;

fn asked(user: &str) -> Asked {
    Asked { user: user.to_owned(), query: format!("of {user}"), at: Timestamp(0) }
}

fn gate(places: usize, timeout: Duration) -> Gate {
    Gate::new(GateLimits {
        places,
        timeout,
        max_samples: 1000,
        max_samples_total: 1500,
        slow: Duration::ZERO,
    })
}

/// Work that ends when it is told to, or when its deadline is over.
fn work(end: Receiver<()>) -> impl FnOnce(&Deadline) -> Result<(), ApiError> + Send + 'static {
    move |deadline| {
        while end.recv_timeout(Duration::from_millis(1)).is_err() {
            if deadline.is_over() {
                return Err(crate::promql::EvalError::from(StorageError::Deadline).into());
            }
        }
        Ok(())
    }
}

/// Waits until the gate's list looks so.
async fn until(gate: &Gate, running: usize, waiting: usize) {
    let counts = || {
        let active = gate.active();
        let running = active.iter().filter(|one| one.is_running).count();
        (running, active.len() - running)
    };
    for _ in 0..10_000 {
        if counts() == (running, waiting) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("running and waiting: {:?}, not {:?}", counts(), (running, waiting));
}

struct Crowd {
    gate: Gate,
    tasks: JoinSet<(String, Result<(), ApiError>)>,
}

impl Crowd {
    fn new(places: usize) -> Self {
        Self { gate: gate(places, Duration::from_mins(1)), tasks: JoinSet::new() }
    }

    fn ask(&mut self, user: &str) -> SyncSender<()> {
        let (end, ended) = sync_channel(1);
        let (gate, asked) = (self.gate.clone(), asked(user));
        self.tasks.spawn(async move { (asked.user.clone(), gate.run(asked, None, work(ended)).await) });
        end
    }

    async fn next(&mut self) -> (String, Result<(), ApiError>) {
        self.tasks.join_next().await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn each_user_has_a_turn_however_many_queries_another_one_has() {
    let mut crowd = Crowd::new(1);
    let first = crowd.ask("heavy");
    until(&crowd.gate, 1, 0).await;
    let mut heavy = Vec::new();
    for waiting in 1..=20 {
        heavy.push(crowd.ask("heavy"));
        until(&crowd.gate, 1, waiting).await;
    }
    let _light = crowd.ask("light");
    until(&crowd.gate, 1, 21).await;
    // Heavy's queue came first; then it is light's turn, before nineteen others of heavy's.
    for (end, waiting, next) in [(&first, 20, "heavy"), (&heavy[0], 19, "light")] {
        end.send(()).unwrap();
        assert_eq!(crowd.next().await.0, "heavy");
        until(&crowd.gate, 1, waiting).await;
        let active = crowd.gate.active();
        let running = active.iter().find(|one| one.is_running).unwrap();
        assert_eq!(running.asked.user, next);
    }
}

#[tokio::test]
async fn who_leaves_gives_up_the_place_and_the_place_in_the_queue() {
    let mut crowd = Crowd::new(1);
    let _running = crowd.ask("a");
    until(&crowd.gate, 1, 0).await;
    let _waiting = crowd.ask("b");
    until(&crowd.gate, 1, 1).await;
    crowd.tasks.abort_all();
    until(&crowd.gate, 0, 0).await;
    // The work sees its deadline and lets go of the place.
    let end = crowd.ask("c");
    until(&crowd.gate, 1, 0).await;
    end.send(()).unwrap();
    while crowd.tasks.len() > 1 {
        let _ = crowd.tasks.join_next().await.unwrap();
    }
    assert!(crowd.next().await.1.is_ok());
    assert_eq!(lock(&crowd.gate.shared).free, 1);
}

#[tokio::test]
async fn queries_can_be_killed_running_or_waiting() {
    let mut crowd = Crowd::new(1);
    let _running = crowd.ask("a");
    until(&crowd.gate, 1, 0).await;
    let _waiting = crowd.ask("b");
    until(&crowd.gate, 1, 1).await;
    let active = crowd.gate.active();
    assert_eq!((active[0].asked.query.as_str(), active[0].is_running), ("of a", true));
    assert_eq!((active[1].asked.query.as_str(), active[1].is_running), ("of b", false));
    for one in active.iter().rev() {
        assert!(crowd.gate.kill(one.id));
        let (user, result) = crowd.next().await;
        assert_eq!(user, one.asked.user);
        assert!(matches!(result, Err(ApiError::Killed)), "{result:?}");
    }
    assert!(!crowd.gate.kill(active[0].id));
    until(&crowd.gate, 0, 0).await;
}

#[tokio::test]
async fn a_query_has_its_timeout_and_a_panic_gives_the_place_back() {
    let gate = gate(1, Duration::from_millis(20));
    let (_end, ended) = sync_channel(1);
    let result = gate.run(asked("a"), None, work(ended)).await;
    assert!(matches!(result, Err(ApiError::Eval(_))), "{result:?}");
    let result = gate.run(asked("a"), None, |_| -> Result<(), _> { panic!("a defect") }).await;
    assert!(matches!(result, Err(ApiError::Internal(_))), "{result:?}");
    assert!(gate.run(asked("a"), None, |_| Ok(())).await.is_ok());
}

#[tokio::test]
async fn what_an_answer_holds_counts_until_it_is_sent() {
    let gate = gate(2, Duration::from_mins(1));
    let hold = |deadline: &Deadline| {
        let room = deadline.room().unwrap().clone();
        room.hold(900)?;
        Ok(room)
    };
    let answer = gate.run(asked("a"), None, hold).await.unwrap();
    let crowded = gate.run(asked("b"), None, hold).await;
    assert!(matches!(crowded, Err(ApiError::Eval(EvalError::Storage(StorageError::Crowded)))));
    drop(answer);
    assert!(gate.run(asked("b"), None, hold).await.is_ok());
}

#[tokio::test]
async fn slow_queries_are_listed_with_what_became_of_them() {
    let gate = gate(2, Duration::from_millis(20));
    let (_end, ended) = sync_channel(1);
    let long = Asked { query: "x".repeat(SHOWN_MAX + 1), ..asked("a") };
    assert!(gate.run(long, None, work(ended)).await.is_err());
    assert!(gate.run(asked("c"), None, |_| Ok(())).await.is_ok());
    let (_end, ended) = sync_channel(1);
    let left = tokio::time::timeout(Duration::from_millis(1), gate.run(asked("d"), None, work(ended)));
    assert!(left.await.is_err());
    let slow = gate.slow();
    let shown = slow.iter().map(|one| (&*one.asked.user, one.error.as_deref())).collect::<Vec<_>>();
    let left = "whoever asked did not wait for the answer";
    let timeout = "query timed out in expression evaluation";
    assert_eq!(shown, [("d", Some(left)), ("c", None), ("a", Some(timeout))]);
    assert_eq!(slow[2].asked.query.len(), SHOWN_MAX);
    for _ in 0..=SLOW_MAX {
        lock(&gate.shared).remember(asked("e"), Duration::from_secs(1), Duration::ZERO, None);
    }
    assert_eq!(gate.slow().len(), SLOW_MAX);
    let limits = GateLimits { slow: Duration::from_hours(1), ..gate.limits };
    let patient = Gate::new(limits);
    assert!(patient.run(asked("a"), None, |_| Ok(())).await.is_ok());
    assert!(patient.slow().is_empty());
}
