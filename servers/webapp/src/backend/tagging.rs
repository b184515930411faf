//! Questions to the tagging service.

use lapwing_protocol::call::Method;
use lapwing_protocol::id::SensorId;
use lapwing_protocol::items::Items;
use lapwing_protocol::tagging::{TagQuery, TagSet, TagView};

use super::{Backend, BackendError, Peer, nothing};
use crate::view::{TagLine, owned};

impl Backend {
    /// Tags of one machine, or of all.
    pub(crate) async fn tags(
        &self,
        sensor: Option<SensorId>,
    ) -> Result<Vec<TagLine>, BackendError> {
        self.ask(Peer::Tagging, Method::TAGS, &TagQuery { sensor }, |reply| {
            owned(&Items::<TagView<'_>>::from_bytes(reply), |tag| Ok(TagLine::from(tag)))
        })
        .await
    }

    /// Puts a tag on a machine, or takes it off.
    pub(crate) async fn set_tag(
        &self,
        sensor: SensorId,
        name: &str,
        value: Option<&str>,
        author: &str,
    ) -> Result<(), BackendError> {
        let request = TagSet { sensor, name, value, author };
        self.ask(Peer::Tagging, Method::TAG_SET, &request, nothing).await
    }
}
