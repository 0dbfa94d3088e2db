//! Requests and answers between bytes and the engine's routes.
//!
//! The engine's own service hands both conversions of each frame to other threads, which costs more than converting:
//! frames are small, and what is large in them is not touched.

use bytes::Bytes;
use rama::{Context, Service};
use tansu_broker::Error;
use tansu_sans_io::{Body, Frame, Header};
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
        let brokers_only = wants_brokers_only(&request.body, api_version);
        let mut answer = self.0.serve(context, request).await?;
        if brokers_only {
            leave_out_topics(&mut answer.body);
        }
        let header = Header::Response { correlation_id };
        Ok(Frame::response(header, answer.body, api_key, api_version)?)
    }
}

/// Whether this asks for no topics, as clients do that only look for the brokers. The engine answers with all topics,
/// which an empty list meant in the first version only.
fn wants_brokers_only(asked: &Body, api_version: i16) -> bool {
    match asked {
        Body::MetadataRequest(asked) => api_version > 0 && asked.topics.as_ref().is_some_and(Vec::is_empty),
        _ => false,
    }
}

fn leave_out_topics(answer: &mut Body) {
    if let Body::MetadataResponse(answer) = answer {
        answer.topics = Some(Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use tansu_sans_io::metadata_request::MetadataRequestTopic;
    use tansu_sans_io::metadata_response::MetadataResponseTopic;
    use tansu_sans_io::{MetadataRequest, MetadataResponse};

    use super::*;

    #[test]
    fn an_empty_list_of_topics_asks_for_the_brokers_only_since_version_1() {
        let asked = |topics| Body::MetadataRequest(MetadataRequest::default().topics(topics));
        assert!(wants_brokers_only(&asked(Some(vec![])), 1));
        assert!(!wants_brokers_only(&asked(Some(vec![])), 0));
        assert!(!wants_brokers_only(&asked(None), 1));
        let named = vec![MetadataRequestTopic::default().name(Some("t".into()))];
        assert!(!wants_brokers_only(&asked(Some(named)), 1));
        let mut answer = Body::MetadataResponse(
            MetadataResponse::default()
                .controller_id(Some(111))
                .topics(Some(vec![MetadataResponseTopic::default()])),
        );
        leave_out_topics(&mut answer);
        let Body::MetadataResponse(answer) = answer else {
            panic!("another answer")
        };
        assert_eq!((answer.controller_id, answer.topics), (Some(111), Some(vec![])));
    }
}
