//! Durable files: under its name there is the old content or the new, whole, whatever happens.

use crate::error::{Error, Result};
use std::{fs, io::Write, path::Path, time::Duration};
use tempfile::NamedTempFile;

/// How the names of files begin that are not whole yet; what a killed process was writing keeps its.
pub const UNFINISHED: &str = ".writing-";
/// For so long another process may still be at one.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// Writes a file under a temporary name and keeps it. Makes the folder.
///
/// # Errors
/// [`Error::File`] with the path.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let fail = |e: std::io::Error| Error::file(path, e);
    fs::create_dir_all(folder_of(path)).map_err(fail)?;
    let mut file = temporary(folder_of(path)).map_err(fail)?;
    file.write_all(content).map_err(fail)?;
    keep(file, path)
}

/// A file under a temporary name, which goes with it unless it is kept. Who may read it is as for other new files.
///
/// # Errors
/// Those of the file system.
pub fn temporary(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Syncs a file of the same folder, renames it, syncs the folder.
///
/// # Errors
/// [`Error::File`] with the path.
pub fn keep(file: NamedTempFile, path: &Path) -> Result<()> {
    file.as_file().sync_all().map_err(|e| Error::file(path, e))?;
    file.persist(path).map_err(|e| Error::file(path, e.error))?;
    sync_folder(folder_of(path))
}

/// Removes a file, which may be missing.
///
/// # Errors
/// [`Error::File`] with the path.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file(path, error)),
        _ => Ok(()),
    }
}

/// Removes what killed processes left unfinished in a folder, as far as it can.
pub fn remove_abandoned(folder: &Path) {
    let is_abandoned = |entry: &fs::DirEntry| {
        let age = entry.metadata().ok().and_then(|data| data.modified().ok()?.elapsed().ok());
        entry.file_name().to_string_lossy().starts_with(UNFINISHED) && age.is_some_and(|age| age > ABANDONED)
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(is_abandoned).for_each(|entry| drop(fs::remove_file(entry.path())));
}

/// Makes sure that the names in a folder are on the disk.
///
/// # Errors
/// [`Error::File`].
pub fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) { fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| Error::file(folder, e)) } else { Ok(()) }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn what_is_kept_may_be_read_by_whom_the_host_lets() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        fs::write(folder.path().join("plain"), "x").unwrap();
        write_atomically(&folder.path().join("kept"), b"x").unwrap();
        assert_eq!(mode("kept"), mode("plain"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_killed_processes_left_is_removed_once_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - 2 * ABANDONED;
        for (name, time) in [("last", Some(old)), (".writing-old", Some(old)), (".writing-new", None)] {
            let file = fs::File::create(folder.path().join(name)).unwrap();
            time.iter().for_each(|time| file.set_modified(*time).unwrap());
        }
        remove_abandoned(folder.path());
        let left = ["last", ".writing-old", ".writing-new"].map(|name| folder.path().join(name).exists());
        assert_eq!(left, [true, false, true]);
        remove_abandoned(&folder.path().join("missing"));
    }
}
