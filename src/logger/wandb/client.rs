//! The official client as a child process: it uploads a run that is being written, and downloads artifacts.
//!
//! Children are started by the system's spawn call, in a group of their own so that a key pressed for the host is not theirs, and
//! end with the run: a shell stands between, which ends the client when the pipe from this process closes, for whatever reason.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Seek},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// Longest that a model may take to come.
pub const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(3600);

/// Runs `"$@"` in the background and ends it once standard input does. Says nothing itself.
const GUARD: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
client=$!
(
    read -r _ <&3
    kill "$client"
    for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$client" || exit; sleep 1; done
    kill -9 "$client"
) >/dev/null 2>&1 &
guard=$!
exec 3<&-
wait "$client"
code=$?
kill "$guard" 2>/dev/null
exit "$code"
"#;

/// A client and the shell that guards it, whose standard input is open as long as the client may live.
struct Guarded(Child);

impl Guarded {
    /// Starts the client in a working folder; what it says goes to a file.
    fn start(program: &Path, arguments: &[&OsStr], folder: &Path, output: File) -> std::io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", GUARD, "sh"]).arg(program).args(arguments).current_dir(folder);
        shell.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        shell.spawn().map(Self)
    }

    /// Waits until the client ends, but no longer than `patience`; none if it goes on.
    fn wait(&mut self, patience: Duration) -> std::io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + patience;
        loop {
            match self.0.try_wait()? {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                status => return Ok(status),
            }
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // The guard ends soon after the client, which is given ten seconds; no zombie is left.
        let _ = self.0.wait();
    }
}

/// Uploads one run while it goes on.
pub(super) struct Uploader {
    client: Guarded,
    messages: PathBuf,
    /// What the client makes when it has uploaded everything; its exit status does not tell.
    done: PathBuf,
}

impl Uploader {
    /// Starts the client on the folder of a run and its log.
    pub fn start(command: &str, folder: &Path, log: &Path) -> Result<Self, String> {
        let program = find(command)?;
        let folder = std::path::absolute(folder).map_err(|e| format!("'{}': {e}", folder.display()))?;
        let logs = folder.join("logs");
        let messages = logs.join("sync.log");
        let output = File::create(&messages).map_err(|e| format!("'{}': {e}", messages.display()))?;
        let arguments = ["beta", "sync", "--live", "--yes"].map(OsStr::new);
        // The client leaves messages of its own in the working directory, which is the host's.
        let client = Guarded::start(&program, &[&arguments, &[folder.as_os_str()][..]].concat(), &logs, output);
        let client = client.map_err(|e| format!("the client '{command}' does not start: {e}"))?;
        Ok(Self { client, messages, done: log.with_extension("wandb.synced") })
    }

    /// Why the client ended before the run did, if it has.
    pub fn failure(&mut self) -> Option<String> {
        match self.client.0.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("the client ended with {status}, see '{}'", self.messages.display())),
            Err(e) => Some(format!("the client cannot be watched: {e}")),
        }
    }

    /// Waits until the client has uploaded a run that is over, but no longer than `patience`.
    pub fn finish(mut self, patience: Duration) -> Result<(), String> {
        match self.client.wait(patience) {
            Ok(Some(status)) if status.success() && self.done.exists() => Ok(()),
            Ok(None) => Err(format!("not all was uploaded within {} s", patience.as_secs())),
            Ok(Some(_)) | Err(_) => Err(self.failure().unwrap_or_default()),
        }
    }
}

/// A model that was downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// `model.ckpt` in the folder that the client reported.
    pub checkpoint: PathBuf,
    /// The run that made it: the last eight letters of the name.
    pub run_id: String,
}

/// Gets the artifact `ENTITY/PROJECT/NAME:ALIAS` with the client, into a folder below `folder`, within `patience`.
///
/// # Errors
/// What is wrong with the name, or why the client has failed.
pub fn download(command: &str, artifact: &str, folder: &Path, patience: Duration) -> Result<Download, String> {
    let run_id = run_of(artifact)?;
    let program = find(command)?;
    let fail = |e: std::io::Error| format!("'{}': {e}", folder.display());
    std::fs::create_dir_all(folder).map_err(fail)?;
    let mut messages = tempfile::tempfile_in(folder).map_err(fail)?;
    let arguments = ["artifact", "get", artifact].map(OsStr::new);
    let client = messages.try_clone().and_then(|output| Guarded::start(&program, &arguments, folder, output));
    let mut client = client.map_err(|e| format!("the client '{command}' does not start: {e}"))?;
    let status = client.wait(patience).map_err(|e| format!("the client cannot be watched: {e}"))?;
    let mut text = Vec::new();
    messages.rewind().and_then(|()| messages.read_to_end(&mut text)).map_err(fail)?;
    let text = String::from_utf8_lossy(&text);
    let last = || text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message").to_owned();
    match status {
        None => return Err(format!("it did not come within {} s: {}", patience.as_secs(), last())),
        Some(status) if !status.success() => return Err(format!("the client ended with {status}: {}", last())),
        Some(_) => {}
    }
    // The alias is resolved on the way: only the client knows the folder.
    let reported = text.lines().rev().find_map(|line| line.split_once("Artifact downloaded to ")).map(|(_, path)| path.trim());
    let reported = reported.ok_or_else(|| format!("the client did not say where it is: {}", last()))?;
    let checkpoint = std::path::absolute(folder.join(reported).join("model.ckpt")).map_err(|e| e.to_string())?;
    if !checkpoint.is_file() {
        return Err(format!("there is no '{}' in it", checkpoint.display()));
    }
    Ok(Download { checkpoint, run_id })
}

/// Name of the run that made an artifact.
fn run_of(artifact: &str) -> Result<String, String> {
    let wrong = || format!("'{artifact}' is not ENTITY/PROJECT/NAME:ALIAS");
    let parts: Vec<&str> = artifact.split('/').collect();
    let [entity, project, name] = parts[..] else { return Err(wrong()) };
    let (name, alias) = name.split_once(':').ok_or_else(wrong)?;
    // What begins with a dash would be an option of the client.
    if [entity, project, name, alias].iter().any(|part| part.is_empty()) || entity.starts_with('-') {
        return Err(wrong());
    }
    let start = name.char_indices().rev().nth(7).map_or(0, |(at, _)| at);
    Ok(name[start..].to_owned())
}

/// A program by path, or by name among the folders of `PATH`.
fn find(command: &str) -> Result<PathBuf, String> {
    let path = Path::new(command);
    let found = if path.components().count() > 1 {
        std::path::absolute(path).ok().filter(|path| path.is_file())
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).map(|folder| folder.join(command)).find(|path| path.is_file())
    };
    found.ok_or_else(|| format!("there is no client '{command}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_from_names_of_artifacts() {
        assert_eq!(run_of("team/pluto/model-1a2b3c4d:latest").unwrap(), "1a2b3c4d");
        assert_eq!(run_of("team/pluto/short:v3").unwrap(), "short");
        for wrong in ["", "model-1a2b3c4d:latest", "a/b/c", "a/b/:v1", "a/b/c:", "a//c:v1", "-a/b/c:v1", "a/b/c/d:v1"] {
            assert!(run_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_missing_client_is_no_more_than_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Uploader::start("no-such-client-here", folder.path(), folder.path()).is_err());
        assert!(Uploader::start("/no/such/client", folder.path(), folder.path()).is_err());
        let error = download("/no/such/client", "a/b/c:v1", folder.path(), DOWNLOAD_TIMEOUT).unwrap_err();
        assert!(error.contains("/no/such/client"), "{error}");
    }
}
