//! Questions to the MalOp service.

use std::time::Duration;

use lapwing_protocol::call::Method;
use lapwing_protocol::console::EvidenceView;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::feed::{FeedPage, FeedRequest, Page, PageRequest};
use lapwing_protocol::id::{Incarnation, MalOpId};
use lapwing_protocol::items::Items;
use lapwing_protocol::malop::{
    MalOpAddComment, MalOpDetail as WireDetail, MalOpFilter, MalOpSetStatus, MalOpShow,
    MalOpStatus, MalOpView,
};

use super::{Backend, BackendError, Peer, join_all, nothing};
use crate::limits::CALL_TIME;
use crate::view::{Evidence, MalOp, MalOpDetail, owned};

/// Where a reader of MalOps' changes stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MalOpCursor {
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) cursor: u64,
}

impl Backend {
    /// MalOps, the last changed first, without their evidence.
    pub(crate) async fn malops(
        &self,
        status: Option<MalOpStatus>,
        limit: u32,
    ) -> Result<Vec<MalOp>, BackendError> {
        let request = MalOpFilter { status, limit };
        let mut malops = self
            .ask(Peer::MalOps, Method::MALOPS, &request, |reply| {
                owned(&Items::<MalOpView<'_>>::from_bytes(reply), MalOp::try_from)
            })
            .await?;
        malops.sort_by(|one, other| {
            (other.updated, other.last_seen, &one.id).cmp(&(one.updated, one.last_seen, &other.id))
        });
        Ok(malops)
    }

    /// The same, each with its evidence. A MalOp whose evidence cannot be read is an error.
    pub(crate) async fn malops_with_evidence(
        &self,
        status: Option<MalOpStatus>,
        limit: u32,
    ) -> Result<Vec<MalOp>, BackendError> {
        let malops = self.malops(status, limit).await?;
        let mut filled = Vec::with_capacity(malops.len());
        // Sixteen at a time: below the calls that one connection carries.
        for group in malops.chunks(16) {
            let details = join_all(group.iter().map(|malop| async {
                let id: MalOpId = malop
                    .id
                    .parse()
                    .map_err(|error| BackendError::unreadable("the MalOp service", error))?;
                self.malop(id).await
            }))
            .await;
            for detail in details {
                filled.push(detail?.malop);
            }
        }
        Ok(filled)
    }

    /// One MalOp with its evidence and comments.
    pub(crate) async fn malop(&self, malop: MalOpId) -> Result<MalOpDetail, BackendError> {
        self.ask(Peer::MalOps, Method::MALOP, &MalOpShow { malop }, |reply| {
            from_bytes::<WireDetail<'_>>(reply).and_then(MalOpDetail::try_from)
        })
        .await
    }

    /// Moves a MalOp on.
    pub(crate) async fn set_malop_status(
        &self,
        malop: MalOpId,
        status: MalOpStatus,
        author: &str,
    ) -> Result<(), BackendError> {
        let request = MalOpSetStatus { malop, status, author };
        self.ask(Peer::MalOps, Method::MALOP_STATUS, &request, nothing).await
    }

    /// Says something about a MalOp.
    pub(crate) async fn comment_malop(
        &self,
        malop: MalOpId,
        author: &str,
        text: &str,
    ) -> Result<(), BackendError> {
        let request = MalOpAddComment { malop, author, text };
        self.ask(Peer::MalOps, Method::MALOP_COMMENT, &request, nothing).await
    }

    /// Reads the changes of MalOps from a cursor on, waiting for the first.
    pub(crate) async fn malop_changes(
        &self,
        from: MalOpCursor,
        limit: u32,
        wait_ms: u32,
    ) -> Result<(Vec<MalOp>, MalOpCursor), BackendError> {
        let (incarnation, cursor) = (from.incarnation, from.cursor);
        let request = FeedRequest { incarnation, cursor, limit, wait_ms };
        let time = CALL_TIME + Duration::from_millis(u64::from(wait_ms));
        self.ask_within(Peer::MalOps, Method::MALOP_CHANGES, &request, time, |reply| {
            let page = from_bytes::<FeedPage<'_, MalOpView<'_>>>(reply)?;
            let next =
                MalOpCursor { incarnation: Some(page.incarnation), cursor: page.next_cursor };
            Ok((owned(&page.items, MalOp::try_from)?, next))
        })
        .await
    }

    /// Suspicions, merged over servers by the MalOp service.
    pub(crate) async fn suspicions(
        &self,
        offset: u32,
        limit: u32,
    ) -> Result<(Vec<Evidence>, u32), BackendError> {
        let request = PageRequest { offset, limit };
        self.ask(Peer::MalOps, Method::SUSPICIONS, &request, |reply| {
            let page = from_bytes::<Page<'_, EvidenceView<'_>>>(reply)?;
            Ok((owned(&page.items, Evidence::try_from)?, page.total))
        })
        .await
    }
}
