//! How matrix factorisations are stored.

use ndarray::Array2;

use crate::Error;
use crate::tensors::{Tensor, TensorMap};

/// The factors of both sides, and the `N` settings that a fold-in needs.
pub(crate) struct Factors<const N: usize> {
    pub(crate) users: Array2<f32>,
    pub(crate) items: Array2<f32>,
    pub(crate) fold_in: [f32; N],
}

/// `users [users, factors]`, `items [items, factors]` and `fold_in [N]`.
pub(crate) fn store<const N: usize>(
    users: &Array2<f32>,
    items: &Array2<f32>,
    fold_in: [f32; N],
) -> TensorMap {
    let mut map = TensorMap::new();
    map.insert("users", Tensor::matrix(users));
    map.insert("items", Tensor::matrix(items));
    map.insert("fold_in", Tensor::f32s(fold_in.to_vec()));
    map
}

/// Takes what [`store`] wrote.
///
/// # Errors
/// [`Error::Stored`] if a tensor is missing or malformed, or their shapes do not fit together.
pub(crate) fn load<const N: usize>(tensors: &mut TensorMap) -> Result<Factors<N>, Error> {
    let users = tensors.take_matrix("users")?;
    let items = tensors.take_matrix("items")?;
    let (_, fold_in) = tensors.take_f32::<1>("fold_in")?;
    let fold_in = <[f32; N]>::try_from(fold_in)
        .map_err(|values| Error::Stored(format!("fold_in holds {} values, expected {N}", values.len())))?;
    if users.ncols() != items.ncols() {
        return Err(Error::Stored(format!(
            "users have {} factors, items {}",
            users.ncols(),
            items.ncols()
        )));
    }
    Ok(Factors {
        users,
        items,
        fold_in,
    })
}
