//! Named tensors, and the bytes they are stored as (the safetensors format).
//!
//! A model hands out its state as a [`TensorMap`] and is rebuilt from one; several models share a file by giving
//! each its own prefix. The bytes depend on the content alone, so equal models have equal checksums. Reading is
//! total: whatever the bytes, the answer is a map or an [`Error::Stored`].

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use half::f16;
use ndarray::Array2;
use safetensors::tensor::{Dtype, SafeTensors, View};

use crate::Error;

/// Key of the one free-form text that a file may carry beside its tensors.
const MANIFEST_KEY: &str = "marquee";

/// The values of a tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Single-precision numbers.
    F32(Vec<f32>),
    /// Half-precision numbers.
    F16(Vec<f16>),
    /// Small indices.
    U16(Vec<u16>),
    /// Indices and counts.
    U32(Vec<u32>),
    /// Times (milliseconds) and signed counts.
    I64(Vec<i64>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::U16(values) => values.len(),
            Self::U32(values) => values.len(),
            Self::I64(values) => values.len(),
        }
    }

    fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::F16(_) => Dtype::F16,
            Self::U16(_) => Dtype::U16,
            Self::U32(_) => Dtype::U32,
            Self::I64(_) => Dtype::I64,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::U16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::U32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }
}

/// A dense, row-major array of one of the element types of [`Values`].
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    values: Values,
}

impl Tensor {
    /// Joins values with their shape.
    ///
    /// # Errors
    /// [`Error::Stored`] if the shape's product is not the number of values.
    pub fn new(shape: Vec<usize>, values: Values) -> Result<Self, Error> {
        let expected = shape
            .iter()
            .try_fold(1_usize, |product, &side| product.checked_mul(side));
        if expected != Some(values.len()) {
            return Err(Error::Stored(format!(
                "{} values do not fill shape {shape:?}",
                values.len()
            )));
        }
        Ok(Self { shape, values })
    }

    /// A vector.
    #[must_use]
    pub fn flat(values: Values) -> Self {
        Self {
            shape: vec![values.len()],
            values,
        }
    }

    /// A vector of numbers.
    #[must_use]
    pub fn f32s(values: Vec<f32>) -> Self {
        Self::flat(Values::F32(values))
    }

    /// A vector of indices.
    #[must_use]
    pub fn u32s(values: Vec<u32>) -> Self {
        Self::flat(Values::U32(values))
    }

    /// A vector of signed integers.
    #[must_use]
    pub fn i64s(values: Vec<i64>) -> Self {
        Self::flat(Values::I64(values))
    }

    /// A row-major copy of a matrix.
    #[must_use]
    pub fn matrix(values: &Array2<f32>) -> Self {
        Self {
            shape: values.shape().to_vec(),
            values: Values::F32(values.iter().copied().collect()),
        }
    }

    /// Length of each axis, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values, row-major.
    #[must_use]
    pub fn values(&self) -> &Values {
        &self.values
    }
}

impl View for &Tensor {
    fn dtype(&self) -> Dtype {
        self.values.dtype()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.values.to_bytes())
    }

    fn data_len(&self) -> usize {
        let width = match self.values {
            Values::F32(_) | Values::U32(_) => 4,
            Values::F16(_) | Values::U16(_) => 2,
            Values::I64(_) => 8,
        };
        self.values.len() * width
    }
}

/// Tensors by name, in name order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TensorMap {
    tensors: BTreeMap<String, Tensor>,
}

impl TensorMap {
    /// A map without tensors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// A tensor by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Every tensor, in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Takes in another map under `prefix.`.
    pub fn insert_all(&mut self, prefix: &str, other: Self) {
        for (name, tensor) in other.tensors {
            self.tensors.insert(format!("{prefix}.{name}"), tensor);
        }
    }

    /// Removes and returns what stands under `prefix.`, with the prefix taken off the names.
    #[must_use]
    pub fn take_all(&mut self, prefix: &str) -> Self {
        let dotted = format!("{prefix}.");
        let (taken, kept) = std::mem::take(&mut self.tensors)
            .into_iter()
            .partition(|(name, _)| name.starts_with(&dotted));
        self.tensors = kept;
        let taken: BTreeMap<String, Tensor> = taken;
        Self {
            tensors: taken
                .into_iter()
                .map(|(name, tensor)| (name[dotted.len()..].to_owned(), tensor))
                .collect(),
        }
    }

    fn take<const RANK: usize>(&mut self, name: &str) -> Result<([usize; RANK], Values), Error> {
        let tensor = self
            .tensors
            .remove(name)
            .ok_or_else(|| Error::Stored(format!("tensor {name} is missing")))?;
        let shape = <[usize; RANK]>::try_from(tensor.shape.as_slice()).map_err(|_| {
            Error::Stored(format!(
                "tensor {name} has shape {:?}, expected {RANK} axes",
                tensor.shape
            ))
        })?;
        Ok((shape, tensor.values))
    }

    /// Removes a tensor of finite numbers and of `RANK` axes.
    ///
    /// # Errors
    /// [`Error::Stored`] if it is missing, of another type or rank, or holds NaN or an infinity.
    pub fn take_f32<const RANK: usize>(&mut self, name: &str) -> Result<([usize; RANK], Vec<f32>), Error> {
        match self.take(name)? {
            (shape, Values::F32(values)) if values.iter().all(|value| value.is_finite()) => {
                Ok((shape, values))
            }
            (_, Values::F32(_)) => Err(Error::Stored(format!(
                "tensor {name} holds a value that is not finite"
            ))),
            _ => Err(Error::Stored(format!("tensor {name} is not of type f32"))),
        }
    }

    /// Removes a vector of finite numbers in half precision, widened.
    ///
    /// # Errors
    /// [`Error::Stored`] if it is missing, of another type or rank, or holds NaN or an infinity.
    pub fn take_halves(&mut self, name: &str) -> Result<Vec<f32>, Error> {
        match self.take::<1>(name)? {
            (_, Values::F16(values)) if values.iter().all(|value| value.is_finite()) => {
                Ok(values.into_iter().map(f16::to_f32).collect())
            }
            (_, Values::F16(_)) => Err(Error::Stored(format!(
                "tensor {name} holds a value that is not finite"
            ))),
            _ => Err(Error::Stored(format!("tensor {name} is not of type f16"))),
        }
    }

    /// Removes a vector of small indices.
    ///
    /// # Errors
    /// [`Error::Stored`] if it is missing or of another type or rank.
    pub fn take_u16s(&mut self, name: &str) -> Result<Vec<u16>, Error> {
        match self.take::<1>(name)? {
            (_, Values::U16(values)) => Ok(values),
            _ => Err(Error::Stored(format!("tensor {name} is not of type u16"))),
        }
    }

    /// Removes a matrix of finite numbers.
    ///
    /// # Errors
    /// [`Error::Stored`] if it is missing, of another type or rank, or holds NaN or an infinity.
    pub fn take_matrix(&mut self, name: &str) -> Result<Array2<f32>, Error> {
        let ([rows, columns], values) = self.take_f32(name)?;
        Array2::from_shape_vec((rows, columns), values)
            .map_err(|error| Error::Stored(format!("tensor {name}: {error}")))
    }

    /// Removes a tensor of indices of `RANK` axes.
    ///
    /// # Errors
    /// [`Error::Stored`] if it is missing or of another type or rank.
    pub fn take_u32<const RANK: usize>(&mut self, name: &str) -> Result<([usize; RANK], Vec<u32>), Error> {
        match self.take(name)? {
            (shape, Values::U32(values)) => Ok((shape, values)),
            _ => Err(Error::Stored(format!("tensor {name} is not of type u32"))),
        }
    }

    /// Removes a tensor of signed integers of `RANK` axes.
    ///
    /// # Errors
    /// [`Error::Stored`] if it is missing or of another type or rank.
    pub fn take_i64<const RANK: usize>(&mut self, name: &str) -> Result<([usize; RANK], Vec<i64>), Error> {
        match self.take(name)? {
            (shape, Values::I64(values)) => Ok((shape, values)),
            _ => Err(Error::Stored(format!("tensor {name} is not of type i64"))),
        }
    }

    /// The map as safetensors bytes, with one free-form text (a manifest) in the header if given.
    ///
    /// # Errors
    /// [`Error::Stored`] if the header would exceed the format's limit.
    pub fn serialize(&self, manifest: Option<&str>) -> Result<Vec<u8>, Error> {
        // The format's library writes its metadata in hash order: with a single key there is only one order.
        let metadata = manifest.map(|text| HashMap::from([(MANIFEST_KEY.to_owned(), text.to_owned())]));
        safetensors::tensor::serialize(self.tensors.iter(), metadata)
            .map_err(|error| Error::Stored(error.to_string()))
    }

    /// Reads a map, and its manifest if there is one, from safetensors bytes.
    ///
    /// # Errors
    /// [`Error::Stored`] if the bytes are truncated, padded, not of this format, or of a type not used here.
    pub fn deserialize(bytes: &[u8]) -> Result<(Self, Option<String>), Error> {
        let stored = |error: safetensors::SafeTensorError| Error::Stored(error.to_string());
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(stored)?;
        let manifest = header
            .metadata()
            .as_ref()
            .and_then(|map| map.get(MANIFEST_KEY).cloned());
        let mut map = Self::new();
        for (name, view) in SafeTensors::deserialize(bytes).map_err(stored)?.tensors() {
            let values = match view.dtype() {
                Dtype::F32 => Values::F32(words(view.data()).map(f32::from_le_bytes).collect()),
                Dtype::F16 => Values::F16(words(view.data()).map(f16::from_le_bytes).collect()),
                Dtype::U16 => Values::U16(words(view.data()).map(u16::from_le_bytes).collect()),
                Dtype::U32 => Values::U32(words(view.data()).map(u32::from_le_bytes).collect()),
                Dtype::I64 => Values::I64(words(view.data()).map(i64::from_le_bytes).collect()),
                other => {
                    return Err(Error::Stored(format!(
                        "tensor {name} has unsupported type {other:?}"
                    )));
                }
            };
            map.insert(name, Tensor::new(view.shape().to_vec(), values)?);
        }
        Ok((map, manifest))
    }
}

fn words<const WIDTH: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; WIDTH]> {
    bytes.as_chunks::<WIDTH>().0.iter().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> TensorMap {
        let mut map = TensorMap::new();
        map.insert("b", Tensor::u32s(vec![1, 2, 3]));
        map.insert(
            "a",
            Tensor::new(vec![2, 2], Values::F32(vec![1.0, -2.5, 0.0, 4.0])).unwrap(),
        );
        map.insert(
            "h",
            Tensor::flat(Values::F16(vec![f16::from_f32(0.5), f16::NEG_ONE])),
        );
        map.insert("s", Tensor::flat(Values::U16(vec![u16::MAX, 0])));
        map.insert("t", Tensor::i64s(vec![i64::MIN, 7]));
        map
    }

    #[test]
    fn a_map_survives_storage_and_keeps_its_manifest() {
        let bytes = sample().serialize(Some("{\"version\":1}")).unwrap();
        let (map, manifest) = TensorMap::deserialize(&bytes).unwrap();
        assert_eq!(map, sample());
        assert_eq!(manifest.as_deref(), Some("{\"version\":1}"));
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = sample().serialize(None).unwrap();
        for length in 0..bytes.len() {
            assert!(
                matches!(TensorMap::deserialize(&bytes[..length]), Err(Error::Stored(_))),
                "{length}"
            );
        }
    }

    #[test]
    fn prefixes_separate_models() {
        let mut bundle = TensorMap::new();
        bundle.insert_all("als", sample());
        bundle.insert_all("alsx", sample());
        assert_eq!(bundle.take_all("als"), sample());
        assert_eq!(bundle.len(), sample().len());
    }

    #[test]
    fn a_value_that_is_not_finite_is_refused_when_taken() {
        let mut map = TensorMap::new();
        map.insert("x", Tensor::f32s(vec![f32::NAN]));
        assert!(matches!(map.take_f32::<1>("x"), Err(Error::Stored(_))));
        assert!(matches!(map.take_f32::<1>("x"), Err(Error::Stored(message)) if message.contains("missing")));
    }

    #[test]
    fn type_rank_and_size_are_checked() {
        assert!(matches!(sample().take_f32::<1>("a"), Err(Error::Stored(_))));
        assert!(matches!(sample().take_u32::<2>("a"), Err(Error::Stored(_))));
        assert!(matches!(
            Tensor::new(vec![2, 3], Values::U32(vec![0; 5])),
            Err(Error::Stored(_))
        ));
        assert!(matches!(
            Tensor::new(vec![usize::MAX, 3], Values::U32(vec![0; 5])),
            Err(Error::Stored(_))
        ));
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(position in 0_usize..200, value in any::<u8>()) {
            let mut bytes = sample().serialize(Some("m")).unwrap();
            let position = position % bytes.len();
            bytes[position] = value;
            // Either refused or read as some map: what must not happen is a panic.
            let _read = TensorMap::deserialize(&bytes);
        }
    }
}
