//! Durable files.

use crate::error::{Error, Result};
use std::{fs, io::Write, path::Path};

/// Writes a file so that under its name there is the old content or the new, whole, whatever happens: a temporary file
/// beside it, synced, renamed, and the folder synced. Makes the folder.
///
/// # Errors
/// [`Error::File`] with the path.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let fail = |e: std::io::Error| Error::file(path, e);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(fail)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(fail)?;
    file.write_all(content).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    #[cfg(unix)]
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)?;
    Ok(())
}
