//! Questions to Private and Global Threat Intel.

use lapwing_net::peer::to_body;
use lapwing_protocol::call::Method;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::feed::{Page, PageRequest};
use lapwing_protocol::intel::{
    Classification, ClassifyRequest, Indicator, ReputationPut, ReputationRemove, ReputationView,
    Verdict,
};
use lapwing_protocol::items::Items;

use super::{Backend, BackendError, Peer, nothing};
use crate::view::{Reputation, VerdictLine, owned};

impl Backend {
    /// The organisation's own lists, and how many entries they have.
    pub(crate) async fn reputations(
        &self,
        offset: u32,
        limit: u32,
    ) -> Result<(Vec<Reputation>, u32), BackendError> {
        let request = PageRequest { offset, limit };
        self.ask(Peer::IntelPrivate, Method::REPUTATIONS, &request, |reply| {
            let page = from_bytes::<Page<'_, ReputationView<'_>>>(reply)?;
            Ok((owned(&page.items, |entry| Ok(Reputation::from(entry)))?, page.total))
        })
        .await
    }

    /// Puts an indicator on a list.
    pub(crate) async fn put_reputation(
        &self,
        indicator: Indicator<'_>,
        classification: Classification,
        comment: &str,
        owner: &str,
        expires_ms: Option<u64>,
    ) -> Result<(), BackendError> {
        let request = ReputationPut { indicator, classification, comment, owner, expires_ms };
        self.ask(Peer::IntelPrivate, Method::REPUTATION_PUT, &request, nothing).await
    }

    /// Takes an indicator off the list.
    pub(crate) async fn remove_reputation(
        &self,
        indicator: Indicator<'_>,
    ) -> Result<(), BackendError> {
        let request = ReputationRemove { indicator };
        self.ask(Peer::IntelPrivate, Method::REPUTATION_REMOVE, &request, nothing).await
    }

    /// What intel says of an indicator: the organisation's own (which asks on), or Global alone.
    pub(crate) async fn classify(
        &self,
        intel: Peer,
        indicator: Indicator<'_>,
    ) -> Result<Vec<VerdictLine>, BackendError> {
        let list =
            to_body(&indicator).map_err(|failure| BackendError::new(failure.code, failure.text))?;
        let request = ClassifyRequest { indicators: Items::from_bytes(&list) };
        self.ask(intel, Method::CLASSIFY, &request, |reply| {
            owned(&Items::<Verdict<'_>>::from_bytes(reply), |verdict| {
                Ok(VerdictLine::from(verdict))
            })
        })
        .await
    }
}
