//! Which drives or shards are meant: those of a configuration, of a data directory, or named one by one.

use std::path::{Path, PathBuf};

use super::DriveError;
use crate::config::{Environment, File, Medium, Overrides, Settings, StoreId};
use crate::io::shard_paths;
use crate::start::STORE;

#[derive(Debug, clap::Args)]
pub struct Target {
    /// The store of this configuration.
    #[arg(long, value_name = "FILE", conflicts_with = "paths")]
    config: Option<PathBuf>,
    /// The store of this data directory [default: $XDG_DATA_HOME/memkv].
    #[arg(long, value_name = "DIR", conflicts_with = "paths")]
    data: Option<PathBuf>,
    /// Drives, or shard files.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// A store's places.
#[derive(Debug)]
pub struct Found {
    pub drives: Vec<PathBuf>,
    /// The data directory, if it is known.
    pub directory: Option<PathBuf>,
    pub id: Option<StoreId>,
}

impl Target {
    pub fn is_given(&self) -> bool {
        self.config.is_some() || self.data.is_some() || !self.paths.is_empty()
    }

    pub fn find(&self) -> Result<Found, DriveError> {
        if !self.paths.is_empty() {
            return Ok(Found { drives: self.paths.clone(), directory: None, id: None });
        }
        let settings = self.settings()?;
        let directory = settings.storage.directory;
        match settings.storage.medium {
            Medium::Memory { .. } => Err(DriveError::MemoryMode),
            Medium::Direct { drives, id } => Ok(Found { drives, directory, id }),
            Medium::File { .. } => {
                let store = directory.as_deref().unwrap_or(Path::new(".")).join(STORE);
                let drives = shard_paths(&store);
                if drives.is_empty() {
                    return Err(DriveError::NoStore { path: store });
                }
                Ok(Found { drives, directory, id: None })
            }
        }
    }

    /// Where the server that uses this store listens for commands.
    pub fn directory(&self) -> Result<PathBuf, DriveError> {
        let directory = self.settings()?.storage.directory;
        directory.ok_or(DriveError::MemoryMode)
    }

    fn settings(&self) -> Result<Settings, DriveError> {
        let file = self.config.as_deref().map(File::load).transpose()?.unwrap_or_default();
        let overrides = Overrides { data: self.data.clone(), ..Overrides::default() };
        Ok(Settings::resolve(file, overrides, &Environment::of_process())?)
    }
}
