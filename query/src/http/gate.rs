//! The gate: how many queries run at once, for how long, and only while somebody waits.

use std::sync::Arc;
use std::time::Duration;

use binnacle_model::storage::Deadline;
use tokio::sync::Semaphore;

use super::ApiError;

/// How long a query waits for its turn.
const QUEUE_WAIT: Duration = Duration::from_secs(10);

/// Lets a number of queries run at once.
#[derive(Debug, Clone)]
pub struct Gate {
    places: Arc<Semaphore>,
    timeout: Duration,
}

/// Expires the deadline when the request is dropped: whoever asked has left.
struct ExpireOnDrop(Deadline);

impl Drop for ExpireOnDrop {
    fn drop(&mut self) {
        self.0.expire();
    }
}

impl Gate {
    /// A gate for `places` queries of at most `timeout` each.
    pub fn new(places: usize, timeout: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), timeout }
    }

    /// Runs `work` on a thread of its own once there is a place. Its deadline is over after
    /// `timeout`, or the gate's if that is shorter, and when the caller goes away.
    pub async fn run<T: Send + 'static>(
        &self,
        timeout: Option<Duration>,
        work: impl FnOnce(&Deadline) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let wait = tokio::time::timeout(QUEUE_WAIT, Arc::clone(&self.places).acquire_owned());
        let place = wait.await.map_err(|_| ApiError::Busy)?.map_err(|_| ApiError::Busy)?;
        let deadline = Deadline::default();
        let guard = ExpireOnDrop(deadline.clone());
        let of_work = deadline.clone();
        let mut task = tokio::task::spawn_blocking(move || {
            let result = work(&of_work);
            drop(place);
            result
        });
        let timeout = timeout.map_or(self.timeout, |timeout| timeout.min(self.timeout));
        let joined = if let Ok(joined) = tokio::time::timeout(timeout, &mut task).await {
            joined
        } else {
            deadline.expire();
            task.await
        };
        drop(guard);
        joined.map_err(|error| ApiError::Internal(format!("query ended abnormally: {error}")))?
    }
}
