//! Functions whose one call makes much of little, held to what a result may have.
//!
//! A query's memory limit counts what sorting, grouping and joining hold, not the batch that an expression is
//! producing: `repeat` alone could make gigabytes of a single row before any result is counted.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::prelude::SessionContext;

/// Functions of a text and a number that says how much of it to make.
const GROWING: [&str; 3] = ["repeat", "lpad", "rpad"];

/// The same for arrays. They are left out: `generate_series` and `range` are there as tables, which come in batches.
const LEFT_OUT: [&str; 4] = ["array_repeat", "array_resize", "generate_series", "range"];

/// Bounds what one call may make to `most` bytes.
pub(super) fn bound(context: &SessionContext, most: usize) -> Result<()> {
    for name in GROWING {
        let inner = context.udf(name)?;
        context.register_udf(ScalarUDF::from(Bounded { inner, most }));
    }
    for name in LEFT_OUT {
        context.deregister_udf(name);
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    /// Bytes.
    most: usize,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let makes = self.bytes(&call)?;
        if makes > self.most {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} would make up to {makes} bytes at once, at most {} are allowed",
                self.name(),
                self.most
            )));
        }
        self.inner.invoke_with_args(call)
    }
}

impl Bounded {
    /// The most that a call can make: the largest number that it is given for each of its texts.
    fn bytes(&self, call: &ScalarFunctionArgs) -> Result<usize> {
        let [text, number, ..] = &call.args[..] else {
            return Ok(0);
        };
        // A constant is computed once, and its outcome repeated for every row of a batch.
        let is_constant = call
            .args
            .iter()
            .all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if is_constant {
            call.config_options.execution.batch_size.get()
        } else {
            call.number_rows
        };
        let numbers = cast(&one_or_all(number, call)?, &DataType::Int64)?;
        let numbers = numbers.as_primitive::<Int64Type>();
        let most = numbers.iter().flatten().max().unwrap_or(0);
        let most = usize::try_from(most).unwrap_or(0);
        let texts = one_or_all(text, call)?;
        let unit = match self.name() {
            "repeat" => match text {
                ColumnarValue::Scalar(_) => bytes_of(&texts).saturating_mul(rows),
                ColumnarValue::Array(_) => bytes_of(&texts),
            },
            // The number is one of characters.
            _ => rows.saturating_mul(4),
        };
        Ok(most.saturating_mul(unit))
    }
}

fn one_or_all(argument: &ColumnarValue, call: &ScalarFunctionArgs) -> Result<ArrayRef> {
    match argument {
        ColumnarValue::Scalar(scalar) => scalar.to_array(),
        ColumnarValue::Array(_) => argument.to_array(call.number_rows),
    }
}

/// Bytes of the texts themselves.
fn bytes_of(texts: &ArrayRef) -> usize {
    if let Some(texts) = texts.as_string_opt::<i32>() {
        texts.iter().flatten().map(str::len).sum()
    } else if let Some(texts) = texts.as_string_opt::<i64>() {
        texts.iter().flatten().map(str::len).sum()
    } else if let Some(texts) = texts.as_string_view_opt() {
        texts.iter().flatten().map(str::len).sum()
    } else {
        texts.get_array_memory_size()
    }
}
