//! Letting everything else go first.

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
    /// The lowest of all: on Linux niceness 19, a seventieth of the weight. For what can be made up for in a quiet hour.
    Lowest,
}

impl Priority {
    /// Gives it to the calling thread. Where the system refuses, the thread goes on as it was.
    pub fn take(self) {
        let value = match self {
            Self::Usual => return,
            Self::Low => 25,
            Self::Lowest => 0,
        };
        let lowered = ThreadPriorityValue::try_from(value)
            .map(ThreadPriority::Crossplatform)
            .map(set_current_thread_priority);
        if !matches!(lowered, Ok(Ok(()))) {
            tracing::warn!(outcome = ?lowered, "a thread in the background keeps the usual priority");
        }
    }
}

/// Lowers the calling thread's scheduling priority to [`Priority::Low`].
pub fn yield_to_others() {
    Priority::Low.take();
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// Field 19 of proc(5) `stat`, counted behind the command's closing bracket.
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn only_the_calling_thread_yields() {
        let before = niceness();
        for (priority, expected) in [
            (Priority::Usual, before),
            (Priority::Low, 9),
            (Priority::Lowest, 19),
        ] {
            let inside = std::thread::spawn(move || {
                priority.take();
                niceness()
            });
            assert!(inside.join().unwrap() >= before.max(expected));
        }
        assert_eq!(niceness(), before);
    }
}
