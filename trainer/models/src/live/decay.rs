//! Forward decay (Cormode, Shkapenyuk, Srivastava, Xu: "Forward Decay: A Practical Time Decay Model for Streaming
//! Systems", ICDE 2009, §3): instead of ageing every sum at each event, weigh each event by its distance *after* a
//! landmark, and divide once when reading. Sums become order-free, so a late event is simply added.

use serde::{Deserialize, Serialize};

/// One exponential decay of half-life `h`: an event at `t` is stored with weight `2^((t - landmark) / h)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForwardDecay {
    half_life_ms: f64,
    landmark_ms: Option<i64>,
}

/// How to add one event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventWeight {
    /// What to add.
    pub weight: f64,
    /// When present, every stored sum must be multiplied by this first: the landmark moved.
    pub rescale: Option<f64>,
}

/// Exponent past which the landmark moves; 2^40 leaves `f32` sums 87 binary orders of room.
const MAX_EXPONENT: f64 = 40.0;

impl ForwardDecay {
    /// A decay of the given half-life (milliseconds, positive).
    #[must_use]
    pub fn new(half_life_ms: i64) -> Self {
        Self {
            half_life_ms: half_life_ms as f64,
            landmark_ms: None,
        }
    }

    /// Weight of an event at `time_ms`, moving the landmark when the exponent grows too large.
    pub fn weight(&mut self, time_ms: i64) -> EventWeight {
        let Some(landmark) = self.landmark_ms else {
            self.landmark_ms = Some(time_ms);
            return EventWeight {
                weight: 1.0,
                rescale: None,
            };
        };
        let exponent = self.exponent(time_ms, landmark);
        if exponent > MAX_EXPONENT {
            self.landmark_ms = Some(time_ms);
            return EventWeight {
                weight: 1.0,
                rescale: Some((-exponent).exp2()),
            };
        }
        EventWeight {
            weight: exponent.exp2(),
            rescale: None,
        }
    }

    /// Factor that turns a stored sum into its value at `now_ms`.
    #[must_use]
    pub fn read_factor(&self, now_ms: i64) -> f64 {
        self.landmark_ms
            .map_or(0.0, |landmark| (-self.exponent(now_ms, landmark)).exp2())
    }

    fn exponent(&self, time_ms: i64, landmark_ms: i64) -> f64 {
        (time_ms.saturating_sub(landmark_ms)) as f64 / self.half_life_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_one_half_life_ago_counts_half() {
        let mut decay = ForwardDecay::new(1000);
        let mut sum = 0.0;
        sum += decay.weight(0).weight;
        sum += decay.weight(1000).weight;
        assert!((sum * decay.read_factor(1000) - 1.5).abs() < 1e-12);
        assert!((sum * decay.read_factor(2000) - 0.75).abs() < 1e-12);
    }

    #[test]
    fn moving_the_landmark_does_not_change_values() {
        let mut decay = ForwardDecay::new(1000);
        let mut sum = 0.0;
        for step in 0..100_i64 {
            let event = decay.weight(step * 1000);
            if let Some(scale) = event.rescale {
                sum *= scale;
            }
            sum += event.weight;
        }
        // 1 + 1/2 + 1/4 + ... = 2
        assert!((sum * decay.read_factor(99_000) - 2.0).abs() < 1e-9);
    }
}
