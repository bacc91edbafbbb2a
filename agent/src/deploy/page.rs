//! The maintenance page during a hold that takes long: a request that comes then is told so instead of waiting.
//!
//! It is the same file that `flipside maintenance` makes. Ours holds the deployment's id, so that an operator's
//! page stays, and the page of an agent that was killed goes with its deployment.

use std::{path::PathBuf, sync::Mutex, time::Duration};

use flipside_api::Failure;
use tokio::task::JoinSet;

use crate::{
    host::fault,
    sys::{atomic_write, beneath},
};

/// The page of one deployment.
pub(crate) struct Page {
    path: PathBuf,
    id: String,
    /// The task that waits to show it; it goes with us.
    waiting: Mutex<JoinSet<()>>,
}

impl Page {
    pub(crate) fn new(path: PathBuf, id: &str) -> Self {
        Self { path, id: id.to_owned(), waiting: Mutex::default() }
    }

    /// Shows it once `limit` has passed, unless it is hidden before that.
    pub(crate) fn show_after(&self, limit: Duration) {
        let (path, id) = (self.path.clone(), self.id.clone());
        let mut waiting = self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        waiting.spawn(async move {
            tokio::time::sleep(limit).await;
            if path.exists() {
                return;
            }
            match atomic_write::write(&path, id.as_bytes(), 0o644, None) {
                Ok(()) => tracing::info!(id, "MaintenancePageShown"),
                Err(error) => tracing::error!(id, %error, "MaintenancePageFailed"),
            }
        });
    }

    /// Hides it, where it is ours. May be called again, and by an agent that was restarted.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub(crate) async fn hide(&self) -> Result<(), Failure> {
        let mut waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            std::mem::take(&mut *waiting)
        };
        waiting.shutdown().await;
        if std::fs::read(&self.path).is_ok_and(|text| text == self.id.as_bytes()) {
            beneath::remove_tree(&self.path)
                .map_err(|error| fault("cannot remove the maintenance page", &error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shown(path: &std::path::Path) {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn it_comes_late_and_goes_with_its_deployment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("maintenance");
        let page = Page::new(path.clone(), "1");
        page.show_after(Duration::from_secs(3600));
        page.hide().await.unwrap();
        assert!(!path.exists());
        page.show_after(Duration::ZERO);
        shown(&path).await;
        // Another agent, after a restart.
        Page::new(path.clone(), "2").hide().await.unwrap();
        assert!(path.exists(), "another deployment's page stays");
        Page::new(path.clone(), "1").hide().await.unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn an_operators_page_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("maintenance");
        atomic_write::write(&path, b"", 0o644, None).unwrap();
        let page = Page::new(path.clone(), "1");
        page.show_after(Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(20)).await;
        page.hide().await.unwrap();
        assert!(path.exists());
    }
}
