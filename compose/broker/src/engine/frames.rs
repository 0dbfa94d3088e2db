//! Requests and answers between bytes and the engine's routes.
//!
//! The engine's own service hands both conversions of each frame to other threads, which costs more than converting:
//! frames are small, and what is large in them is not touched.

use bytes::Bytes;
use rama::{Context, Service};
use tansu_broker::Error;
use tansu_sans_io::{Frame, Header};
use tansu_service::FrameRouteService;

#[derive(Debug, Clone)]
pub(super) struct Frames(FrameRouteService<(), Error>);

impl Frames {
    pub(super) fn new(routes: FrameRouteService<(), Error>) -> Self {
        Self(routes)
    }
}

impl Service<(), Bytes> for Frames {
    type Response = Bytes;
    type Error = Error;

    async fn serve(&self, context: Context<()>, request: Bytes) -> Result<Self::Response, Self::Error> {
        let request = Frame::request_from_bytes(request)?;
        let (api_key, api_version) = (request.api_key()?, request.api_version()?);
        let correlation_id = request.correlation_id()?;
        let answer = self.0.serve(context, request).await?;
        let header = Header::Response { correlation_id };
        Ok(Frame::response(header, answer.body, api_key, api_version)?)
    }
}
