//! Letting everything else go first.

#[cfg(target_os = "linux")]
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

/// How a thread stands back behind those that serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// It does not.
    #[default]
    Usual,
    /// A quarter of the way from the lowest priority to the highest: on Linux niceness 9, an eighth of the weight of a
    /// thread that serves. For what may be late and must go on, even while a machine stays busy.
    Low,
    /// The lowest of all: on Linux the policy `SCHED_IDLE`, whose threads leave a core at once when any other wakes up
    /// there. (A niceness alone does not suffice: since EEVDF, Linux 6.6, a thread that was let onto a core keeps it for
    /// its slice, some milliseconds, however nice it is.) For what can be made up for in a quiet hour.
    Lowest,
}

impl Priority {
    /// Gives it to the calling thread. Where the system refuses, the thread goes on as it was.
    pub fn take(self) {
        let lowered = match self {
            Self::Usual => return,
            Self::Low => nice(25),
            #[cfg(target_os = "linux")]
            Self::Lowest => set_thread_priority_and_policy(
                thread_native_id(),
                ThreadPriority::Min,
                ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle),
            ),
            #[cfg(not(target_os = "linux"))]
            Self::Lowest => nice(0),
        };
        if let Err(error) = lowered {
            tracing::warn!(?error, "a thread in the background keeps the usual priority");
        }
    }
}

/// Of 0, the lowest priority, to 99.
fn nice(value: u8) -> Result<(), thread_priority::Error> {
    let value = ThreadPriorityValue::try_from(value)
        .map_err(|_| thread_priority::Error::Priority("a priority is below 100"))?;
    set_current_thread_priority(ThreadPriority::Crossplatform(value))
}

/// Lowers the calling thread's scheduling priority to [`Priority::Low`].
pub fn yield_to_others() {
    Priority::Low.take();
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// Fields 19 and 41 of proc(5) `stat`, counted behind the command's closing bracket: niceness and policy.
    fn scheduling() -> (i32, i32) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        (fields[16].parse().unwrap(), fields[38].parse().unwrap())
    }

    #[test]
    fn only_the_calling_thread_yields() {
        const OTHER: i32 = 0;
        const IDLE: i32 = 5;
        let (before, _) = scheduling();
        for (priority, niceness, policy) in [
            (Priority::Usual, before, OTHER),
            (Priority::Low, 9, OTHER),
            (Priority::Lowest, 0, IDLE),
        ] {
            let inside = std::thread::spawn(move || {
                priority.take();
                scheduling()
            });
            let inside = inside.join().unwrap();
            assert!(
                inside.0 >= before.max(niceness) && inside.1 == policy,
                "{inside:?}"
            );
        }
        assert_eq!(scheduling(), (before, OTHER));
    }
}
