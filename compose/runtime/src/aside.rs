//! A place for work that nobody waits for.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::priority::Priority;

/// The stack of threads that compute inside futures. Planning a query recurses as deep as the query is, by some kilobytes
/// a level; what is not used of it costs nothing but addresses.
pub const STACK_BYTES: usize = 8 << 20;

/// An async runtime whose threads stand back behind all others.
///
/// What computes for long inside a future, as SQL does, keeps a thread of its runtime from everything else that is ready
/// there; and where there are as many such futures as threads, nothing else moves. Beside a server such work needs
/// threads of its own, and a low [`Priority`] besides.
#[derive(Debug)]
pub struct Aside {
    handle: Handle,
    /// Taken when dropped.
    runtime: Option<Runtime>,
}

impl Aside {
    /// A runtime of threads with `priority`, as many as there are cores.
    ///
    /// # Errors
    /// The system refuses to start a thread.
    pub fn new(priority: Priority) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .enable_all()
            .thread_name("aside")
            .thread_stack_size(STACK_BYTES)
            .on_thread_start(move || priority.take())
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Where to spawn; of no use once `self` is gone.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Aside {
    /// Waits for nobody, so that it may be dropped where waiting is not allowed.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
