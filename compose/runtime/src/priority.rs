//! Letting everything else go first.

use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

/// A quarter of the way from the lowest priority to the highest: on Linux niceness 9, an eighth of the weight of a
/// thread that serves. The lowest of all would let a busy machine put a training off for ever.
const YIELDING: u8 = 25;

/// Lowers the calling thread's scheduling priority. Where the system refuses, the thread goes on as it was.
pub fn yield_to_others() {
    let lowered = ThreadPriorityValue::try_from(YIELDING)
        .map(ThreadPriority::Crossplatform)
        .map(set_current_thread_priority);
    if !matches!(lowered, Ok(Ok(()))) {
        tracing::warn!(outcome = ?lowered, "a thread in the background keeps the usual priority");
    }
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
        let inside = std::thread::spawn(|| {
            yield_to_others();
            niceness()
        });
        assert!(inside.join().unwrap() >= before.max(9));
        assert_eq!(niceness(), before);
    }
}
