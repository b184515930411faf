//! What a played server says: HelloAck, Ack, Nack, commands.
//!
//! Not here: when. What is said of a lane is remembered, so that what comes can be judged by it.

use std::time::Instant;

use super::{Granted, Place, Station};
use crate::wire::message::{
    Ack, Action, Command, CommandNumber, HelloAck, Lane, LogGrant, LogHead, LogVerdict, Nack,
    NackReason,
};

impl Station {
    /// Answers the Hello; `places` say of a lane what the shelves do not.
    ///
    /// # Errors
    /// There was no Hello.
    pub fn greet(&mut self, places: &[(Lane, Place)]) -> Result<(), String> {
        let ack = self.hello_ack(places)?;
        self.link()?.send(ack);
        Ok(())
    }

    /// The answer to the Hello, which counts as given.
    ///
    /// # Errors
    /// There was no Hello.
    pub fn hello_ack(&mut self, places: &[(Lane, Place)]) -> Result<HelloAck, String> {
        let hello = self.hello.clone().ok_or("there was no Hello")?;
        let logs = hello.logs.iter().map(|head| self.grant(head, places)).collect();
        (self.is_greeted, self.epoch) = (true, self.epoch + 1);
        Ok(HelloAck {
            version: 1,
            capabilities: Vec::new(),
            server: self.id,
            name: "played".into(),
            session_epoch: self.epoch,
            server_ms: 1_795_496_400_000,
            receive_bytes_max: self.answers.receive_bytes_max,
            rows_max: self.answers.rows_max,
            logs,
        })
    }

    fn grant(&mut self, head: &LogHead, places: &[(Lane, Place)]) -> LogGrant {
        let asked = places.iter().find(|(lane, _)| *lane == head.lane).map(|(_, place)| *place);
        let shelf = self.shelves.get(&head.log);
        let stored = shelf.map_or(0, |shelf| shelf.stored);
        let place = asked.unwrap_or(Place {
            verdict: if stored > 0 { LogVerdict::Resume } else { LogVerdict::New },
            next_seq: stored + 1,
            chain: None,
        });
        let before = place.next_seq - 1;
        let known = shelf.and_then(|shelf| shelf.chains.get(&before)).copied();
        let index = shelf.and_then(|shelf| shelf.indexes.get(&before)).copied();
        let credit = self.answers.credit[head.lane as usize].clone();
        let ends = matches!(place.verdict, LogVerdict::SensorBehind | LogVerdict::Forked);
        self.granted[head.lane as usize] = (!ends).then_some(Granted {
            log: head.log,
            credit: credit.clone(),
            expect: place.next_seq,
            counted: (before, 0),
            mark: None,
            episode: 0,
        });
        LogGrant {
            lane: head.lane,
            log: head.log,
            verdict: place.verdict,
            next_seq: place.next_seq,
            next_index: index.unwrap_or(1),
            chain: place.chain.or(known).unwrap_or([0xee; 32]),
            credit,
        }
    }

    /// Acknowledges a lane up to `stored`, with the credit of `answers`.
    ///
    /// # Errors
    /// There is no session.
    pub fn ack(&mut self, lane: Lane, stored_seq: u64, safe_seq: u64) -> Result<(), String> {
        let credit = self.answers.credit[lane as usize].clone();
        if let Some(granted) = &mut self.granted[lane as usize] {
            granted.credit.limit_seq = granted.credit.limit_seq.max(credit.limit_seq);
            granted.credit.limit_bytes = granted.credit.limit_bytes.max(credit.limit_bytes);
            if let Some(shelf) = self.shelves.get_mut(&granted.log) {
                shelf.stored = shelf.stored.max(stored_seq);
            }
        }
        self.link()?.send(Ack { lane, stored_seq, safe_seq, credit });
        Ok(())
    }

    /// Asks for `next_seq` again, with a new episode. When it was said is the answer.
    ///
    /// # Errors
    /// There is no session.
    pub fn nack(
        &mut self,
        lane: Lane,
        next_seq: u64,
        reason: NackReason,
        retry_after_ms: u32,
    ) -> Result<Instant, String> {
        let granted = self.granted[lane as usize].as_mut().ok_or("the lane has no log")?;
        granted.episode += 1;
        (granted.expect, granted.mark) = (next_seq, None);
        let episode = granted.episode;
        let said = Instant::now();
        self.link()?.send(Nack { lane, next_seq, episode, reason, retry_after_ms });
        Ok(said)
    }

    /// Sends a command.
    ///
    /// # Errors
    /// There is no session.
    pub fn command(
        &mut self,
        number: (u64, u64),
        action: Action,
        expires_after_ms: u64,
    ) -> Result<(), String> {
        let number = CommandNumber { issuer: number.0, seq: number.1 };
        self.link()?.send(Command { number, expires_after_ms, action });
        Ok(())
    }
}
