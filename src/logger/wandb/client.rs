//! The official client as a child process: it uploads a run that is being written, and downloads artifacts.
//!
//! Children are started by the system's spawn call, in a group of their own so that a key pressed for the host is not theirs, and
//! end with the run: a shell stands between, which ends the client when the pipe from this process closes, for whatever reason.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

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

/// Uploads one run while it goes on.
pub(super) struct Uploader {
    /// The shell; its standard input is open as long as the client may live.
    guard: Child,
    messages: PathBuf,
    /// What the client makes when it has uploaded everything; its exit status does not tell.
    done: PathBuf,
}

impl Uploader {
    /// Starts the client on the folder of a run and its log.
    pub fn start(command: &str, folder: &Path, log: &Path) -> Result<Self, String> {
        let program = find(command).ok_or_else(|| format!("there is no client '{command}'"))?;
        let folder = std::path::absolute(folder).map_err(|e| format!("'{}': {e}", folder.display()))?;
        let logs = folder.join("logs");
        let messages = logs.join("sync.log");
        let output = File::create(&messages).and_then(|file| Ok((file.try_clone()?, file)));
        let (output, errors) = output.map_err(|e| format!("'{}': {e}", messages.display()))?;
        let mut shell = Command::new("sh");
        shell.args(["-c", GUARD, "sh"]).arg(program).args(["beta", "sync", "--live", "--yes"]).arg(folder);
        // The client leaves messages of its own in the working directory, which is the host's.
        shell.current_dir(logs).stdin(Stdio::piped()).stdout(output).stderr(errors);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        let guard = shell.spawn().map_err(|e| format!("the client '{command}' does not start: {e}"))?;
        Ok(Self { guard, messages, done: log.with_extension("wandb.synced") })
    }

    /// Why the client ended before the run did, if it has.
    pub fn failure(&mut self) -> Option<String> {
        match self.guard.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("the client ended with {status}, see '{}'", self.messages.display())),
            Err(e) => Some(format!("the client cannot be watched: {e}")),
        }
    }

    /// Waits until the client has uploaded a run that is over, but no longer than `patience`.
    pub fn finish(mut self, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        loop {
            match self.guard.try_wait() {
                Ok(Some(status)) if status.success() && self.done.exists() => return Ok(()),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                Ok(None) => return Err(format!("not all was uploaded within {} s", patience.as_secs())),
                Ok(Some(_)) | Err(_) => return Err(self.failure().unwrap_or_default()),
            }
        }
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // The guard ends soon after the client, which is given ten seconds; no zombie is left.
        let _ = self.guard.wait();
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

/// Gets the artifact `ENTITY/PROJECT/NAME:ALIAS` with the client, into a folder below `folder`.
///
/// # Errors
/// What is wrong with the name, or why the client has failed.
pub fn download(command: &str, artifact: &str, folder: &Path) -> Result<Download, String> {
    let run_id = run_of(artifact)?;
    let program = find(command).ok_or_else(|| format!("there is no client '{command}' to get it with"))?;
    std::fs::create_dir_all(folder).map_err(|e| format!("'{}': {e}", folder.display()))?;
    let output = Command::new(program).args(["artifact", "get", artifact]).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("the client '{command}' does not start: {e}"))?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
    let last = || text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message").to_owned();
    if !output.status.success() {
        return Err(format!("the client ended with {}: {}", output.status, last()));
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
fn find(command: &str) -> Option<PathBuf> {
    let path = Path::new(command);
    if path.components().count() > 1 {
        return Some(std::path::absolute(path).ok()?).filter(|path| path.is_file());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(command)).find(|path| path.is_file())
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
        let error = download("/no/such/client", "a/b/c:v1", folder.path()).unwrap_err();
        assert!(error.contains("/no/such/client"), "{error}");
    }
}
