//! The database behind the seam [`Records`].

use async_trait::async_trait;
use flipside_api::{AppName, Outcome, ReleaseId};

use super::{Db, DbError};
use crate::{
    app::{
        deployment::Event,
        record::{App, Begin, Entry, Unfinished},
    },
    host::chain,
    records::{RecordError, Records},
};

impl From<DbError> for RecordError {
    fn from(error: DbError) -> Self {
        Self(chain(&error))
    }
}

#[async_trait]
impl Records for Db {
    async fn app(&self, name: &AppName) -> Result<Option<App>, RecordError> {
        Ok(Self::app(self, name).await?)
    }

    async fn apps(&self) -> Result<Vec<App>, RecordError> {
        Ok(Self::apps(self).await?)
    }

    async fn set_stopped(&self, name: &AppName, stopped: bool) -> Result<(), RecordError> {
        Ok(Self::set_stopped(self, name, stopped).await?)
    }

    async fn forget_app(&self, name: &AppName) -> Result<(), RecordError> {
        Ok(Self::forget_app(self, name).await?)
    }

    async fn kept(&self, name: &AppName, key: &'static str) -> Result<Option<Vec<u8>>, RecordError> {
        Ok(Self::kept(self, name, key).await?)
    }

    async fn keep(&self, name: &AppName, key: &'static str, value: Vec<u8>) -> Result<Vec<u8>, RecordError> {
        Ok(Self::keep(self, name, key, value).await?)
    }

    async fn env_of(&self, name: &AppName, release: &ReleaseId) -> Result<Option<Vec<u8>>, RecordError> {
        Ok(Self::env_of(self, name, release).await?)
    }

    async fn begin(&self, begin: Begin) -> Result<(), RecordError> {
        Ok(Self::begin(self, begin).await?)
    }

    async fn revise(&self, id: &str, work: String) -> Result<(), RecordError> {
        Ok(Self::revise(self, id, work).await?)
    }

    async fn record(&self, id: &str, event: Event, at: i64, message: String) -> Result<(), RecordError> {
        Ok(Self::record(self, id, event, at, message).await?)
    }

    async fn end(&self, id: &str, outcome: &Outcome, at: i64, app: Option<App>) -> Result<(), RecordError> {
        Ok(Self::end(self, id, outcome, at, app).await?)
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>, RecordError> {
        Ok(Self::unfinished(self).await?)
    }

    async fn history(&self, app: &AppName, limit: u32) -> Result<Vec<Entry>, RecordError> {
        Ok(Self::history(self, app, limit).await?)
    }

    async fn answered(&self, id: &str, verb: &str, app: &AppName) -> Result<Option<Outcome>, RecordError> {
        Ok(Self::answered(self, id, verb, app).await?)
    }

    async fn answer(
        &self,
        key: (&str, &str, &AppName),
        outcome: &Outcome,
        at: i64,
    ) -> Result<(), RecordError> {
        Ok(Self::answer(self, key, outcome, at).await?)
    }
}
