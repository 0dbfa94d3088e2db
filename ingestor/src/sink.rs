//! Where records go: the one thing the replayer and the gateway need of the bus.

use futures::FutureExt;
use futures::future::BoxFuture;
use marquee_runtime::BusError;
use marquee_runtime::bus::{Outgoing, Publisher};

/// Resolves when the broker has the record, or will not have it.
pub type Acknowledgement = BoxFuture<'static, Result<(), BusError>>;

/// Takes records without waiting; a [`Publisher`] in service, anything in a test.
pub trait Sink: Send + Sync + 'static {
    /// Puts a record into the send queue.
    ///
    /// # Errors
    /// [`BusError::QueueFull`] when there is no room now, [`BusError::Refused`] for a record no broker takes.
    fn try_send(&self, record: &Outgoing) -> Result<Acknowledgement, BusError>;
}

impl Sink for Publisher {
    fn try_send(&self, record: &Outgoing) -> Result<Acknowledgement, BusError> {
        let pending = Publisher::try_send(self, record)?;
        Ok(async move { pending.acknowledged().await.map(|_| ()) }.boxed())
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! A sink that remembers.

    use std::sync::{Arc, Mutex};

    use marquee_schemas::{DeadLetter, Interaction, Topic, decode};

    use super::*;

    type Answers = Box<dyn FnMut(usize, &Outgoing) -> Result<Acknowledgement, BusError> + Send>;

    #[derive(Default)]
    struct State {
        calls: usize,
        records: Vec<Outgoing>,
        answers: Option<Answers>,
    }

    /// Takes everything unless told otherwise.
    #[derive(Clone, Default)]
    pub(crate) struct FakeSink(Arc<Mutex<State>>);

    /// A failure that goes away.
    pub(crate) fn transient() -> BusError {
        BusError::QueueFull
    }

    impl FakeSink {
        /// The acknowledgement of a record that arrived.
        #[expect(clippy::unnecessary_wraps, reason = "it is what try_send gives")]
        pub(crate) fn taken() -> Result<Acknowledgement, BusError> {
            Ok(async { Ok(()) }.boxed())
        }

        /// Decides about the n-th call from now, from 0. Records that are refused at once are not remembered.
        pub(crate) fn on_send(
            &self,
            answers: impl FnMut(usize, &Outgoing) -> Result<Acknowledgement, BusError> + Send + 'static,
        ) {
            let mut state = self.0.lock().unwrap();
            state.calls = 0;
            state.answers = Some(Box::new(answers));
        }

        pub(crate) fn records(&self) -> Vec<Outgoing> {
            self.0.lock().unwrap().records.clone()
        }

        fn of<T: marquee_schemas::Record>(&self, topic: Topic) -> Vec<T> {
            let records = self.records();
            let values = records.iter().filter(|record| record.topic == topic);
            values
                .map(|record| decode(record.value.as_deref().unwrap()).unwrap())
                .collect()
        }

        pub(crate) fn events(&self) -> Vec<Interaction> {
            self.of(Topic::Interactions)
        }

        pub(crate) fn letters(&self) -> Vec<DeadLetter> {
            self.of(Topic::DeadLetters)
        }
    }

    impl Sink for FakeSink {
        fn try_send(&self, record: &Outgoing) -> Result<Acknowledgement, BusError> {
            let mut state = self.0.lock().unwrap();
            let call = state.calls;
            state.calls += 1;
            let answer = match &mut state.answers {
                Some(answers) => answers(call, record),
                None => Self::taken(),
            };
            if answer.is_ok() {
                state.records.push(record.clone());
            }
            answer
        }
    }
}
