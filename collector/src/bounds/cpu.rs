//! Processors: an account of seconds, to which the bound is paid in and from which is taken what was used.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What was not used is kept for so long, so that a burst is read at once.
const KEPT_SECONDS: f64 = 0.25;

/// More than so many seconds of the bound are never owed.
const OWED_SECONDS: f64 = 1.0;

/// Whose use of processors counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    /// The whole process's.
    Process,
    /// What is said by [`CpuShare::charge`].
    Charged,
}

/// So many processors, for all that is read and scraped.
#[derive(Debug)]
pub struct CpuShare {
    cores: f64,
    meter: Meter,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    at: Instant,
    used: Duration,
    /// Seconds of processors; owed if it is negative.
    balance: f64,
}

impl CpuShare {
    pub(super) fn new(cores: f64, meter: Meter) -> Self {
        let used = if meter == Meter::Process { used(ClockId::ProcessCPUTime) } else { Duration::ZERO };
        Self { cores, meter, state: Mutex::new(State { at: Instant::now(), used, balance: 0.0 }) }
    }

    /// Counts what a part of the process took.
    pub fn charge(&self, used: Duration) {
        if self.meter == Meter::Charged {
            self.lock().balance -= used.as_secs_f64();
        }
    }

    /// How long whoever can wait has to.
    pub fn pause(&self) -> Duration {
        let mut state = self.lock();
        if self.meter == Meter::Process {
            let now = used(ClockId::ProcessCPUTime);
            state.balance -= now.saturating_sub(state.used).as_secs_f64();
            state.used = now;
        }
        let elapsed = state.at.elapsed();
        state.at += elapsed;
        state.balance = balance(state.balance, elapsed.as_secs_f64(), self.cores);
        Duration::from_secs_f64((-state.balance / self.cores).max(0.0))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work`, and charges what it took of a processor on this thread.
pub(crate) fn charged<T>(share: Option<&CpuShare>, work: impl FnOnce() -> T) -> T {
    let Some(share) = share.filter(|share| share.meter == Meter::Charged) else { return work() };
    let before = used(ClockId::ThreadCPUTime);
    let done = work();
    share.charge(used(ClockId::ThreadCPUTime).saturating_sub(before));
    done
}

/// What is left, or owed, after `elapsed` seconds.
fn balance(before: f64, elapsed: f64, cores: f64) -> f64 {
    (before + elapsed * cores).clamp(-OWED_SECONDS * cores, KEPT_SECONDS * cores)
}

fn used(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_beyond_the_bound_is_waited_for() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        // Half a processor: a second of it owes two seconds, of which one has passed; no more than one is owed.
        assert!(near(balance(-1.0, 1.0, 0.5), -0.5));
        assert!(near(balance(-10.0, 1.0, 0.5), -0.5));
        assert!(
            near(balance(0.0, 10.0, 2.0), 0.5),
            "a burst is no more than a quarter of a second of the bound"
        );
        let share = CpuShare::new(0.5, Meter::Charged);
        assert_eq!(share.pause(), Duration::ZERO);
        share.charge(Duration::from_mins(1));
        let pause = share.pause();
        assert!(pause > Duration::from_millis(900) && pause <= Duration::from_secs(1), "{pause:?}");
    }

    #[test]
    fn work_is_charged_by_the_time_of_its_thread() {
        let share = CpuShare::new(0.001, Meter::Charged);
        charged(Some(&share), || (0..3_000_000_u64).fold(0, |a, b| std::hint::black_box(a ^ b)));
        assert!(share.pause() > Duration::from_millis(100), "a millisecond of a thousandth is a second");
    }
}
