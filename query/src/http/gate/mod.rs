//! The gate: how many queries run at once, in whose turn, for how long, and only while somebody waits.
//!
//! ```text
//! run ─► a place is free ───────────────────────────────► work ─► the place goes to the next in turn
//!    └─► the user's queue ─► its user's turn comes ───────┘         (one of each user, round and round)
//!                        └─► 10 s are over: busy
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use binnacle_model::Timestamp;
use binnacle_model::storage::{Deadline, Room};
use tokio::sync::oneshot;

use super::ApiError;

/// How long a query waits for its turn.
const QUEUE_WAIT: Duration = Duration::from_secs(10);
/// Queries that wait, of all users; more are refused at once.
const WAITING_MAX: usize = 1000;
/// Slow queries that are remembered.
const SLOW_MAX: usize = 100;
/// Characters of a query that are kept to be shown.
const SHOWN_MAX: usize = 2000;

/// Who asks for what.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Whose turn it takes.
    pub user: String,
    /// The query as it came, or the path of a request without one.
    pub query: String,
    /// When it came.
    pub at: Timestamp,
}

/// A query that runs or waits.
#[derive(Debug, Clone)]
pub struct Active {
    /// By which it can be ended.
    pub id: u64,
    /// Who asks for what.
    pub asked: Asked,
    /// Whether it has its place.
    pub is_running: bool,
}

/// A query that took long, its time in the queue included.
#[derive(Debug, Clone)]
pub struct Slow {
    /// Who asked for what.
    pub asked: Asked,
    /// From its coming to its end.
    pub took: Duration,
    /// Why it had no answer, if it had none.
    pub error: Option<String>,
}

/// What the gate allows.
#[derive(Debug, Clone, Copy)]
pub struct GateLimits {
    /// Queries that run at once.
    pub places: usize,
    /// After which a query is ended.
    pub timeout: Duration,
    /// Samples that one query may hold, until its answer is sent.
    pub max_samples: usize,
    /// The same of all queries together.
    pub max_samples_total: usize,
    /// A query that took longer is logged and listed.
    pub slow: Duration,
}

/// Lets a number of queries run at once.
#[derive(Debug, Clone)]
pub struct Gate {
    shared: Arc<Mutex<State>>,
    limits: GateLimits,
    room: Room,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Users who wait; the first one's turn is next.
    queues: VecDeque<(String, VecDeque<Waiting>)>,
    queries: BTreeMap<u64, Query>,
    next_id: u64,
    /// The last ones, oldest first.
    slow: VecDeque<Slow>,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    ready: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Query {
    asked: Asked,
    deadline: Deadline,
    is_running: bool,
    is_killed: bool,
}

impl State {
    /// Hands a place that has become free to the next in turn.
    fn pass_on(&mut self) {
        while let Some((user, mut queue)) = self.queues.pop_front() {
            let Some(next) = queue.pop_front() else { continue };
            if !queue.is_empty() {
                self.queues.push_back((user, queue));
            }
            if next.ready.send(()).is_ok() {
                return;
            }
        }
        self.free += 1;
    }

    fn wait(&mut self, user: &str, waiting: Waiting) {
        match self.queues.iter_mut().find(|(known, _)| known == user) {
            Some((_, queue)) => queue.push_back(waiting),
            None => self.queues.push_back((user.to_owned(), VecDeque::from([waiting]))),
        }
    }

    fn leave(&mut self, id: u64) {
        for (_, queue) in &mut self.queues {
            queue.retain(|waiting| waiting.id != id);
        }
        self.queues.retain(|(_, queue)| !queue.is_empty());
    }

    /// Lists a query if it took long.
    fn remember(&mut self, asked: Asked, took: Duration, slow: Duration, error: Option<String>) {
        if took < slow {
            return;
        }
        let (user, query, seconds) = (&*asked.user, &*asked.query, took.as_secs_f64());
        tracing::warn!(user, query, seconds, error, "slow query");
        if self.slow.len() >= SLOW_MAX {
            self.slow.pop_front();
        }
        self.slow.push_back(Slow { asked, took, error });
    }

    fn waiting(&self) -> usize {
        self.queues.iter().map(|(_, queue)| queue.len()).sum()
    }
}

/// A query's entry in the list. When it goes, whoever asked has left or has the answer.
struct Ticket {
    shared: Arc<Mutex<State>>,
    id: u64,
    began: Instant,
    slow: Duration,
    /// Why there is no answer. Stays as it is if nobody waits for the end.
    error: Option<String>,
    deadline: Deadline,
    turn: Option<oneshot::Receiver<()>>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.deadline.expire();
        let mut state = lock(&self.shared);
        if let Some(query) = state.queries.remove(&self.id) {
            state.remember(query.asked, self.began.elapsed(), self.slow, self.error.take());
        }
        state.leave(self.id);
        // The turn may have come in the moment in which nobody waited for it any more.
        if let Some(mut turn) = self.turn.take()
            && turn.try_recv().is_ok()
        {
            state.pass_on();
        }
    }
}

/// A place, which goes to the next in turn when the work is done, however it ends.
struct Place(Arc<Mutex<State>>);

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.0).pass_on();
    }
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    /// A gate through which nobody has gone.
    pub fn new(limits: GateLimits) -> Self {
        let state = State {
            free: limits.places,
            queues: VecDeque::new(),
            queries: BTreeMap::new(),
            next_id: 1,
            slow: VecDeque::new(),
        };
        let room = Room::new(limits.max_samples_total);
        Self { shared: Arc::new(Mutex::new(state)), limits, room }
    }

    /// The last queries that took long, newest first.
    pub fn slow(&self) -> Vec<Slow> {
        lock(&self.shared).slow.iter().rev().cloned().collect()
    }

    /// The queries that run or wait, oldest first.
    pub fn active(&self) -> Vec<Active> {
        let state = lock(&self.shared);
        let show = |(id, query): (&u64, &Query)| Active {
            id: *id,
            asked: query.asked.clone(),
            is_running: query.is_running,
        };
        state.queries.iter().map(show).collect()
    }

    /// Ends a query. Answers whether there was one of that number.
    pub fn kill(&self, id: u64) -> bool {
        let mut state = lock(&self.shared);
        let Some(query) = state.queries.get_mut(&id) else { return false };
        query.is_killed = true;
        query.deadline.expire();
        // One that waits has nobody who looks at its deadline: its sender's end tells it.
        state.leave(id);
        true
    }

    /// How long a query may take that asks for so much time.
    pub fn timeout(&self, asked: Option<Duration>) -> Duration {
        asked.map_or(self.limits.timeout, |asked| asked.min(self.limits.timeout))
    }

    /// Runs `work` on a thread of its own once there is a place. Its deadline is over after
    /// `timeout`, or the gate's if that is shorter, when the caller goes away, and when it is killed.
    ///
    /// # Errors
    /// What the work answers; [`ApiError::Busy`] if its turn did not come, [`ApiError::Killed`].
    pub async fn run<T: Send + 'static>(
        &self,
        asked: Asked,
        timeout: Option<Duration>,
        work: impl FnOnce(&Deadline) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (mut ticket, place) = self.enter(&asked)?;
        let place = match place {
            Some(place) => place,
            None => match self.turn(&mut ticket).await {
                Ok(place) => place,
                Err(error) => {
                    ticket.error = Some(error.to_string());
                    return Err(error);
                }
            },
        };
        if let Some(query) = lock(&self.shared).queries.get_mut(&ticket.id) {
            query.is_running = true;
        }
        let of_work = ticket.deadline.clone();
        let mut task = tokio::task::spawn_blocking(move || {
            let result = work(&of_work);
            drop(place);
            result
        });
        let joined = if let Ok(joined) = tokio::time::timeout(self.timeout(timeout), &mut task).await {
            joined
        } else {
            ticket.deadline.expire();
            task.await
        };
        let result =
            joined.map_err(|error| ApiError::Internal(format!("query ended abnormally: {error}"))).flatten();
        // What was done before the end came counts.
        let is_killed = result.is_err() && self.is_killed(ticket.id);
        let result = if is_killed { Err(ApiError::Killed) } else { result };
        ticket.error = result.as_ref().err().map(ToString::to_string);
        result
    }

    /// Puts the query on the list, and takes a place or the last place of its user's queue.
    fn enter(&self, asked: &Asked) -> Result<(Ticket, Option<Place>), ApiError> {
        let mut asked = asked.clone();
        if let Some((end, _)) = asked.query.char_indices().nth(SHOWN_MAX) {
            asked.query.truncate(end);
        }
        let mut state = lock(&self.shared);
        if state.free == 0 && state.waiting() >= WAITING_MAX {
            return Err(ApiError::Busy);
        }
        let id = state.next_id;
        state.next_id += 1;
        let deadline = Deadline::default().within(&self.room.part(self.limits.max_samples));
        let mut turn = None;
        if state.free > 0 {
            state.free -= 1;
        } else {
            let (ready, receiver) = oneshot::channel();
            state.wait(&asked.user, Waiting { id, ready });
            turn = Some(receiver);
        }
        let query = Query { asked, deadline: deadline.clone(), is_running: false, is_killed: false };
        state.queries.insert(id, query);
        let place = turn.is_none().then(|| Place(Arc::clone(&self.shared)));
        let (shared, slow) = (Arc::clone(&self.shared), self.limits.slow);
        let error = Some("whoever asked did not wait for the answer".to_owned());
        Ok((Ticket { shared, id, began: Instant::now(), slow, error, deadline, turn }, place))
    }

    async fn turn(&self, ticket: &mut Ticket) -> Result<Place, ApiError> {
        let turn = ticket.turn.as_mut().expect("it waits");
        match tokio::time::timeout(QUEUE_WAIT, turn).await {
            Ok(Ok(())) => {
                ticket.turn = None;
                Ok(Place(Arc::clone(&self.shared)))
            }
            Ok(Err(_)) => {
                ticket.turn = None;
                Err(ApiError::Killed)
            }
            Err(_) => Err(ApiError::Busy),
        }
    }

    fn is_killed(&self, id: u64) -> bool {
        lock(&self.shared).queries.get(&id).is_some_and(|query| query.is_killed)
    }
}

#[cfg(test)]
mod tests;
