//! Where shards are kept: the one seam between the cache and the kind of storage.

use crate::{
    error::{Error, Result},
    files::{self, sync_folder, write_atomically},
};
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Ends the name of a shard.
pub(super) const SHARD: &str = "shard";
/// Ends the name of a shard's index.
pub(super) const INDEX: &str = "index";
/// Said of a place that does not have [`MARK`].
pub(super) const NO_CACHE: &str = "is no cache of this library";
/// The file that makes a folder a cache of ours.
pub(super) const MARK: &str = "te-cache.json";
pub(super) const MARK_TEXT: &str = "{\"what\": \"feature cache of training_engine\", \"format\": 1}\n";

/// Keeps shards by name. New shards are written in [`Storage::folder`] and handed over once nothing will be added to them.
pub(super) trait Storage: std::fmt::Debug + Send + Sync {
    /// Names of all shards, oldest first.
    fn list(&self) -> Result<Vec<String>>;
    /// Brings a shard, and its index if it has one, to the local folder; gives the shard's path, at which there is nothing if it
    /// was removed since it was listed.
    fn fetch(&self, name: &str) -> Result<PathBuf>;
    /// Takes over a shard of the local folder that is complete, with its index.
    fn publish(&self, name: &str) -> Result<()>;
    /// Removes a shard and its index.
    fn remove(&self, name: &str) -> Result<()>;
    /// The local folder.
    fn folder(&self) -> &Path;
}

/// A folder of this machine, or one that several machines share.
#[derive(Debug)]
pub(super) struct Local {
    folder: PathBuf,
}

impl Local {
    /// Opens a folder, which with `make` is made and marked as a cache if it is not there or empty.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be made, or is no cache of ours and holds other things or shall not be made one.
    pub(super) fn open(folder: &Path, make: bool) -> Result<Self> {
        if !is_cache(folder) {
            if !make {
                return Err(Error::file(folder, NO_CACHE));
            }
            fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
            // Another process may just be making it: its mark may come under a temporary name first.
            let foreign = |name: &str| name != MARK && !name.starts_with('.') && kind_of(name).is_none();
            if let Some(name) = names(folder)?.into_iter().find(|name| foreign(name)) {
                return Err(Error::file(folder, format!("{NO_CACHE} and not empty (it holds '{name}')")));
            }
            write_atomically(&folder.join(MARK), MARK_TEXT.as_bytes())?;
        }
        Ok(Self { folder: folder.to_owned() })
    }
}

impl Storage for Local {
    fn list(&self) -> Result<Vec<String>> {
        let mut shards = names(&self.folder)?;
        shards.retain(|name| kind_of(name) == Some(SHARD));
        shards.sort_unstable();
        Ok(shards)
    }
    fn fetch(&self, name: &str) -> Result<PathBuf> {
        Ok(self.folder.join(name))
    }
    fn publish(&self, _: &str) -> Result<()> {
        Ok(())
    }
    fn remove(&self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        files::remove(&index_path(&path))?;
        files::remove(&path)?;
        sync_folder(&self.folder)
    }
    fn folder(&self) -> &Path {
        &self.folder
    }
}

/// True if a folder bears the mark of a cache of ours.
pub(super) fn is_cache(folder: &Path) -> bool {
    folder.join(MARK).is_file()
}

/// Removes a cache: its shards, indexes and mark, what killed processes left unfinished, and the folder if nothing else is in it.
/// A missing or empty folder is left.
///
/// # Errors
/// [`Error::File`] if the folder is no cache of ours, a process is writing to it, or something cannot be removed.
pub(super) fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() || names(folder)?.iter().all(|name| name.starts_with('.')) {
        return Ok(());
    }
    if !is_cache(folder) {
        return Err(Error::file(folder, "is not removed: it is no cache of this library"));
    }
    remove_shards(folder)?;
    files::remove(&folder.join(MARK))?;
    // Fails where something else is in it, which then stays.
    let _ = fs::remove_dir(folder);
    Ok(())
}

/// Removes all shards, indexes and unfinished files of a folder, which may be missing.
///
/// # Errors
/// [`Error::File`] if a process is writing to a shard, a shard cannot be locked, or something cannot be removed.
pub(super) fn remove_shards(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let ours: Vec<String> =
        names(folder)?.into_iter().filter(|name| kind_of(name).is_some() || name.starts_with(files::UNFINISHED)).collect();
    // Held until they are removed, so that nobody begins to write to one.
    let mut locks = Vec::new();
    for name in ours.iter().filter(|name| kind_of(name) == Some(SHARD)) {
        let path = folder.join(name);
        match lock(&path) {
            Ok(Some(file)) => locks.push(file),
            Ok(None) => return Err(Error::file(path, "is not removed: a process is writing to it")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file(path, format!("is not removed, since it cannot be locked: {error}"))),
        }
    }
    ours.iter().try_for_each(|name| files::remove(&folder.join(name)))
}

/// Takes the lock of a shard, which is given back when the file is closed; none if another process holds it.
///
/// # Errors
/// Those of the file system, where the shard is missing or was removed meanwhile, may not be written to, or locks are not to be had.
pub(super) fn lock(shard: &Path) -> io::Result<Option<File>> {
    // NFS refuses an exclusive lock to a file that is open for reading alone.
    let file = File::options().read(true).write(true).open(shard)?;
    match file.try_lock() {
        Ok(()) if shard.exists() => Ok(Some(file)),
        Ok(()) => Err(io::ErrorKind::NotFound.into()),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// True if another process holds the lock of a shard: it is writing to it.
pub(super) fn is_in_use(shard: &Path) -> bool {
    matches!(lock(shard), Ok(None))
}

/// The index of a shard.
pub(super) fn index_path(shard: &Path) -> PathBuf {
    shard.with_extension(INDEX)
}

/// A name that no other process takes, in the order of time.
pub(super) fn new_name() -> String {
    name_at(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64))
}

/// A name that comes right after another shard's, and before those of all shards that were begun later.
pub(super) fn name_after(shard: &str) -> String {
    let time = shard.split_once('-').and_then(|(time, _)| u64::from_str_radix(time, 16).ok());
    time.map_or_else(new_name, |time| name_at(time.saturating_add(1)))
}

fn name_at(time: u64) -> String {
    use std::hash::{BuildHasher, Hasher};
    let mut random = std::collections::hash_map::RandomState::new().build_hasher();
    random.write_u32(std::process::id());
    format!("{time:016x}-{:08x}.{SHARD}", random.finish() as u32)
}

/// What a file of a cache is, by its name.
pub(super) fn kind_of(name: &str) -> Option<&'static str> {
    let (start, end) = name.rsplit_once('.')?;
    let (time, random) = start.split_once('-')?;
    let hex = |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    [SHARD, INDEX].into_iter().find(|kind| *kind == end && hex(time, 16) && hex(random, 8))
}

pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let fail = |e| Error::file(folder, e);
    fs::read_dir(folder).map_err(fail)?.map(|entry| Ok(entry.map_err(fail)?.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cache_is_removed_and_only_what_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        remove(&path).unwrap();
        Local::open(&path, true).unwrap();
        let name = new_name();
        for file in [&name, &name.replace(SHARD, INDEX)] {
            fs::write(path.join(file), "x").unwrap();
        }
        assert_eq!(Local::open(&path, true).unwrap().list().unwrap(), [name]);
        fs::write(path.join("precious.shard"), "x").unwrap();
        remove(&path).unwrap();
        assert_eq!(names(&path).unwrap(), ["precious.shard"]);
        assert!(remove(&path).unwrap_err().to_string().contains("no cache of this library"));
        assert!(Local::open(&path, true).unwrap_err().to_string().contains("precious.shard"));
    }

    #[test]
    fn what_a_killed_process_left_unfinished_is_removed_with_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let leave = || fs::write(path.join(crate::files::temporary(&path).unwrap().keep().unwrap().1), "x").unwrap();
        for _ in 0..2 {
            Local::open(&path, true).unwrap();
            leave();
            remove(&path).unwrap();
            assert!(!path.exists());
        }
        // Without the mark nothing is removed, and a cache can be made.
        fs::create_dir(&path).unwrap();
        leave();
        remove(&path).unwrap();
        assert_eq!(names(&path).unwrap().len(), 1);
        Local::open(&path, true).unwrap();
    }

    #[test]
    fn what_cannot_be_locked_is_not_said_to_be_in_use() {
        let folder = tempfile::tempdir().unwrap();
        Local::open(folder.path(), true).unwrap();
        let path = folder.path().join(new_name());
        fs::write(&path, "x").unwrap();
        // Some file systems lock only what can be written to.
        assert_eq!(io::Write::write(&mut lock(&path).unwrap().unwrap(), b"y").unwrap(), 1);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(!is_in_use(&path));
        let error = remove(folder.path()).unwrap_err().to_string();
        assert!(error.contains("cannot be locked") && error.contains(path.to_str().unwrap()), "{error}");
    }

    #[test]
    fn names_come_after_their_source_and_before_later_shards() {
        let name = name_after("000000000000000f-ffffffff.shard");
        assert!(name.starts_with("0000000000000010-") && kind_of(&name) == Some(SHARD), "{name}");
        assert!(name < new_name());
    }

    #[test]
    fn a_cache_in_use_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Local::open(folder.path(), true).unwrap();
        let writing = File::create(folder.path().join(new_name())).unwrap();
        writing.try_lock().unwrap();
        assert!(remove(folder.path()).unwrap_err().to_string().contains("a process is writing"));
        assert_eq!(storage.list().unwrap().len(), 1);
    }
}
