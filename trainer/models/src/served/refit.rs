//! A model on newer data without another replay.

use super::catalogue::Catalogue;
use super::generators::Generators;
use super::{ServedModel, check_stream};
use crate::Error;
use crate::live::Interaction;

impl ServedModel {
    /// The same model with its generators fitted anew on `interactions`; its ranker, which reads scores and not
    /// items, is kept. That costs a fraction of a [`ServedModel::fit`], and what serves is then ordered by the very
    /// ranker that was judged.
    ///
    /// # Errors
    /// As [`ServedModel::fit`]; [`Error::Data`] also for another catalogue than the model's.
    pub fn refit(self, interactions: &[Interaction], catalogue: &Catalogue) -> Result<Self, Error> {
        check_stream(interactions, catalogue)?;
        if *catalogue != self.catalogue {
            return Err(Error::Data(
                "the catalogue is not the one of the first fit".into(),
            ));
        }
        Ok(Self {
            generators: Generators::fit(interactions, catalogue.len(), &self.params)?,
            trained_on: interactions.len() as u64,
            trained_until_ms: interactions.last().map_or(0, |event| event.time_ms),
            ..self
        })
    }
}
