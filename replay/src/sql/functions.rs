//! Functions of marquee's own: `ndcg(rank, k)`, `hit(rank, k)`, `hdr_percentile(value, p)`, `stage_us(stages, name)`.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, UInt64Builder};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::cast::{as_binary_array, as_float64_array};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, ColumnarValue, ScalarUDF, Volatility, create_udaf, create_udf,
};
use hdrhistogram::Histogram;
use marquee_schemas::StageLatency;

use crate::evaluation::{ndcg, text_at};

/// A function and its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionDoc {
    /// How it is called.
    pub signature: &'static str,
    /// One sentence.
    pub description: &'static str,
}

/// The functions that marquee adds to SQL's.
pub const FUNCTIONS: [FunctionDoc; 4] = [
    FunctionDoc {
        signature: "ndcg(rank, k)",
        description: "Aggregate over the answered movies of one list (attributions WHERE is_first, one group per \
                      request_id): NDCG over the first k positions with binary relevance; a null rank is a movie that \
                      the list missed.",
    },
    FunctionDoc {
        signature: "hit(rank, k)",
        description: "Aggregate over the same rows: 1 if any answered movie stands among the first k, else 0.",
    },
    FunctionDoc {
        signature: "hdr_percentile(value, p)",
        description: "Aggregate: the value below which the share p (0 to 1) lies, by a histogram of three significant \
                      digits (HdrHistogram); values must not be negative.",
    },
    FunctionDoc {
        signature: "stage_us(stages, name)",
        description: "Microseconds that request_logs.stages gives for a stage; null where it has none.",
    },
];

pub(super) fn aggregates() -> [AggregateUDF; 3] {
    let of_ranks = |name, of: fn() -> Box<dyn Accumulator>| {
        create_udaf(
            name,
            vec![DataType::Int64, DataType::Int64],
            Arc::new(DataType::Float64),
            Volatility::Immutable,
            Arc::new(move |_| Ok(of())),
            Arc::new(vec![DataType::Binary]),
        )
    };
    [
        of_ranks("ndcg", || {
            Box::new(Ranks::new(|ranks| {
                ndcg(&ranks.positions(), ranks.relevant, ranks.k)
            }))
        }),
        of_ranks("hit", || {
            Box::new(Ranks::new(|ranks| {
                f64::from(u8::from(ranks.taken.iter().any(|&rank| rank < ranks.k)))
            }))
        }),
        create_udaf(
            "hdr_percentile",
            vec![DataType::Float64, DataType::Float64],
            Arc::new(DataType::Float64),
            Volatility::Immutable,
            Arc::new(|_| Ok(Box::new(Percentile::new()?))),
            Arc::new(vec![DataType::Binary]),
        ),
    ]
}

pub(super) fn scalars() -> [ScalarUDF; 1] {
    [create_udf(
        "stage_us",
        vec![DataType::Utf8, DataType::Utf8],
        DataType::UInt64,
        Volatility::Immutable,
        Arc::new(stage_us),
    )]
}

fn refuse(text: impl Into<String>) -> DataFusionError {
    DataFusionError::Execution(text.into())
}

/// Numbers as bytes and back, for states that travel between the phases of an aggregation.
fn pack(numbers: &[u64]) -> ScalarValue {
    ScalarValue::Binary(Some(
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
    ))
}

fn unpack(bytes: &[u8]) -> Vec<u64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// The ranks of one list's answered movies.
#[derive(Debug)]
struct Ranks {
    taken: BTreeSet<usize>,
    relevant: usize,
    k: usize,
    value: fn(&Ranks) -> f64,
}

impl Ranks {
    fn new(value: fn(&Ranks) -> f64) -> Self {
        Self {
            taken: BTreeSet::new(),
            relevant: 0,
            k: 0,
            value,
        }
    }

    fn positions(&self) -> Vec<usize> {
        self.taken.iter().copied().collect()
    }
}

impl Accumulator for Ranks {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let ranks = values[0].as_primitive::<Int64Type>();
        let ks = values[1].as_primitive::<Int64Type>();
        for row in 0..ranks.len() {
            if ks.is_null(row) {
                return Err(refuse("k must not be null"));
            }
            self.k = usize::try_from(ks.value(row)).map_err(|_| refuse("k must not be negative"))?;
            self.relevant += 1;
            if ranks.is_valid(row) {
                let rank = usize::try_from(ranks.value(row));
                self.taken
                    .insert(rank.map_err(|_| refuse("a rank must not be negative"))?);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(
            (self.relevant > 0).then(|| (self.value)(self)),
        ))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.taken.len() * 2 * size_of::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut numbers = vec![self.relevant as u64, self.k as u64];
        numbers.extend(self.taken.iter().map(|&rank| rank as u64));
        Ok(vec![pack(&numbers)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states = as_binary_array(&states[0])?;
        for state in states.iter().flatten() {
            let numbers: Vec<usize> = unpack(state)
                .into_iter()
                .filter_map(|number| usize::try_from(number).ok())
                .collect();
            if let [relevant, k, taken @ ..] = numbers.as_slice() {
                self.relevant += relevant;
                self.k = self.k.max(*k);
                self.taken.extend(taken);
            }
        }
        Ok(())
    }
}

/// Values are kept in millionths, so that microseconds in milliseconds stay exact.
const SCALE: f64 = 1e6;

#[derive(Debug)]
struct Percentile {
    histogram: Histogram<u64>,
    p: f64,
}

impl Percentile {
    fn new() -> Result<Self> {
        let histogram = Histogram::new(3).map_err(|error| refuse(error.to_string()))?;
        Ok(Self {
            histogram,
            p: f64::NAN,
        })
    }
}

impl Accumulator for Percentile {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to lie between 0 and 2^63"
    )]
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (values, ps) = (as_float64_array(&values[0])?, as_float64_array(&values[1])?);
        for row in 0..values.len() {
            if values.is_null(row) {
                continue;
            }
            self.p = if ps.is_null(row) { f64::NAN } else { ps.value(row) };
            if !(0.0..=1.0).contains(&self.p) {
                return Err(refuse("hdr_percentile: p must lie between 0 and 1"));
            }
            let scaled = (values.value(row) * SCALE).round();
            if !(0.0..9.2e18).contains(&scaled) {
                return Err(refuse(format!(
                    "hdr_percentile: {} is negative or too large",
                    values.value(row)
                )));
            }
            self.histogram
                .record(scaled as u64)
                .map_err(|error| refuse(error.to_string()))?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // The middle of the bar, so that the error has no direction.
        let value = (!self.histogram.is_empty()).then(|| {
            let bar = self.histogram.value_at_quantile(self.p);
            self.histogram.median_equivalent(bar) as f64 / SCALE
        });
        Ok(ScalarValue::Float64(value))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.histogram.distinct_values() * size_of::<u64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut numbers = vec![self.p.to_bits()];
        for bar in self.histogram.iter_recorded() {
            numbers.extend([bar.value_iterated_to(), bar.count_since_last_iteration()]);
        }
        Ok(vec![pack(&numbers)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states = as_binary_array(&states[0])?;
        for state in states.iter().flatten() {
            let numbers = unpack(state);
            let Some((p, bars)) = numbers.split_first() else {
                continue;
            };
            if !bars.is_empty() {
                self.p = f64::from_bits(*p);
            }
            for bar in bars.as_chunks::<2>().0 {
                self.histogram
                    .record_n(bar[0], bar[1])
                    .map_err(|error| refuse(error.to_string()))?;
            }
        }
        Ok(())
    }
}

fn stage_us(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let mut found = UInt64Builder::with_capacity(arrays[0].len());
    for row in 0..arrays[0].len() {
        let (stages, name) = (text_at(&arrays[0], row)?, text_at(&arrays[1], row)?);
        let stages: Vec<StageLatency> = stages
            .and_then(|stages| serde_json::from_str(stages).ok())
            .unwrap_or_default();
        let stage = stages.iter().find(|stage| Some(stage.stage.as_str()) == name);
        found.append_option(stage.map(|stage| stage.us));
    }
    Ok(ColumnarValue::Array(Arc::new(found.finish())))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Float64Array;

    use super::*;

    fn halves(values: &[f64], p: f64) -> [Percentile; 2] {
        let (left, right) = values.split_at(values.len() / 3);
        [left, right].map(|part| {
            let mut of_part = Percentile::new().unwrap();
            let ps = Float64Array::from(vec![p; part.len()]);
            of_part
                .update_batch(&[Arc::new(Float64Array::from(part.to_vec())), Arc::new(ps)])
                .unwrap();
            of_part
        })
    }

    #[test]
    fn percentiles_survive_the_merging_of_states() {
        let values: Vec<f64> = (1..=1_000).map(|n| f64::from(n) / 8.0).collect();
        for p in [0.0, 0.5, 0.95, 1.0] {
            let mut whole = Percentile::new().unwrap();
            for mut half in halves(&values, p) {
                let state = half.state().unwrap()[0].to_array().unwrap();
                whole.merge_batch(&[state]).unwrap();
            }
            let ScalarValue::Float64(Some(got)) = whole.evaluate().unwrap() else {
                panic!("no value");
            };
            let want = (p * 1_000.0_f64).max(1.0) / 8.0;
            assert!((got / want - 1.0).abs() < 2e-3, "{p}: {got} is not {want}");
        }
    }

    #[test]
    fn a_share_outside_0_to_1_and_a_negative_value_are_refused() {
        for (value, p) in [(1.0, 1.5), (1.0, f64::NAN), (-1.0, 0.5), (f64::INFINITY, 0.5)] {
            let mut percentile = Percentile::new().unwrap();
            let columns: [ArrayRef; 2] = [
                Arc::new(Float64Array::from(vec![value])),
                Arc::new(Float64Array::from(vec![p])),
            ];
            percentile.update_batch(&columns).unwrap_err();
        }
        let none = Percentile::new().unwrap().evaluate().unwrap();
        assert_eq!(none, ScalarValue::Float64(None));
    }

    #[test]
    fn packed_numbers_come_back() {
        let ScalarValue::Binary(Some(bytes)) = pack(&[0, 7, u64::MAX]) else {
            panic!("not bytes");
        };
        assert_eq!(unpack(&bytes), [0, 7, u64::MAX]);
    }
}
