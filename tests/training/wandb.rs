//! The real client of Weights & Biases uploads runs to a stand-in for its service on 127.0.0.1, and downloads a model from it.

use super::{loggers::ALL, *};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use training_engine::{engine::LogLevel, logger::wandb::download};

/// A key of the right form, which opens nothing.
const KEY: &str = "0123456789abcdef0123456789abcdef01234567";

/// The stand-in, and a client that knows it alone.
struct Service {
    server: Child,
    folder: tempfile::TempDir,
    client: PathBuf,
}

impl Service {
    /// None without a Python that has the client.
    fn start(how: &str) -> Option<Self> {
        let Some(python) = loggers::python() else {
            eprintln!("skipped: no Python with tensorboard, pandas and wandb (set TE_PYTHON, or make .venv)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/training/wandb_server.py");
        let mut server = Command::new(&python).arg(script).arg(folder.path()).arg(how).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let real = python.with_file_name("wandb");
        let home = folder.path().join("home");
        fs::create_dir(&home).unwrap();
        let client = folder.path().join("client");
        let text = format!(
            "#!/bin/sh\nexport HOME='{}' WANDB_BASE_URL=http://127.0.0.1:{} WANDB_API_KEY={KEY} WANDB_ERROR_REPORTING=false\nexec '{}' \"$@\"\n",
            home.display(),
            port.trim(),
            real.display()
        );
        fs::write(&client, text).unwrap();
        fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
        Some(Self { server, folder, client })
    }

    fn command(&self) -> String {
        format!("wandb.command={}", self.client.display())
    }

    fn sync(&self, run: &Path) {
        let output = Command::new(&self.client).arg("sync").arg(run).current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("requests.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A file that was uploaded.
    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join("files").join(name)).unwrap()
    }

    /// What the service knows of runs.
    fn uploaded(&self) -> Uploaded {
        let mut uploaded = Uploaded::default();
        for request in self.requests() {
            let body = &request["body"];
            if request["post"].as_str().is_some_and(|path| path.ends_with("file_stream")) {
                let history = body["files"]["wandb-history.jsonl"]["content"].as_array().into_iter().flatten();
                uploaded.history.extend(history.map(|line| serde_json::from_str::<Value>(line.as_str().unwrap()).unwrap()));
                if let Some(code) = body["exitcode"].as_i64() {
                    uploaded.exit = Some(code);
                }
            }
            match body["operationName"].as_str() {
                Some("UpsertBucket") => {
                    let variables = &body["variables"];
                    uploaded.run_id = variables["name"].as_str().map(str::to_owned);
                    if let Some(config) = variables["config"].as_str() {
                        uploaded.config = serde_json::from_str(config).unwrap();
                    }
                }
                Some("CreateArtifact") => uploaded.artifacts.push(body["variables"]["input"].clone()),
                _ => {}
            }
        }
        uploaded
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[derive(Default)]
struct Uploaded {
    run_id: Option<String>,
    config: Value,
    history: Vec<Value>,
    artifacts: Vec<Value>,
    exit: Option<i64>,
}

/// The folders of the runs that were written below `folder`.
fn runs(folder: &Path) -> Vec<PathBuf> {
    let mut runs: Vec<PathBuf> = fs::read_dir(folder.join("wandb")).unwrap().map(|entry| entry.unwrap().path()).collect();
    runs.sort();
    runs
}

/// Rows of the table, which are those of the run: of each, the values by name.
fn table(folder: &Path) -> Vec<BTreeMap<String, f64>> {
    let text = fs::read_to_string(folder.join("metrics.csv")).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let row = |cells: Vec<&str>| {
        let known = names.iter().zip(cells).filter(|(_, cell)| !cell.is_empty());
        known.map(|(name, cell)| ((*name).to_owned(), cell.parse().unwrap())).collect()
    };
    lines.map(row).collect()
}

/// Every value of the table is in the row of the history, under the same name.
fn assert_rows(history: &[Value], table: &[BTreeMap<String, f64>]) {
    assert_eq!(history.len(), table.len());
    for (number, (row, expected)) in history.iter().zip(table).enumerate() {
        assert_eq!(row["_step"], number);
        for (name, value) in expected {
            let name = if name == "step" { "trainer/global_step" } else { name };
            assert_eq!(row[name].as_f64(), Some(*value), "{name} in row {number}");
        }
    }
}

/// A host that keeps warnings of loggers.
fn warned() -> (Host, Arc<Mutex<Vec<String>>>) {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&warnings);
    let log = move |level: LogLevel, text: &str| {
        if level == LogLevel::Warning && !text.contains("cache") {
            kept.lock().unwrap().push(text.to_owned());
        }
    };
    (Host { log: Some(Arc::new(log)), event: None }, warnings)
}

/// Processes that name a text in their command line.
fn processes(text: &str) -> usize {
    let named = |entry: &fs::DirEntry| {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(text)
    };
    fs::read_dir("/proc").unwrap().flatten().filter(named).count()
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_offline_run_is_uploaded_whole_and_its_model_comes_back() {
    let Some(service) = Service::start("") else { return };
    let folder = tempfile::tempdir().unwrap();
    let overrides: Vec<&str> = ALL.iter().copied().chain(["wandb.run_id=road1234", "wandb.name=a road"]).collect();
    engine(config(folder.path(), &overrides), Roads::new(30), Host::default()).fit().unwrap();
    let all = runs(folder.path());
    service.sync(&all[0]);
    let uploaded = service.uploaded();
    assert_eq!((uploaded.run_id.as_deref(), uploaded.exit), (Some("road1234"), Some(0)));
    assert_eq!(uploaded.config["lr"]["value"], 2e-3);
    assert_eq!(uploaded.config["wandb"]["value"]["name"], "a road");
    assert_rows(&uploaded.history, &table(folder.path()));
    let pictures: Vec<&Value> = uploaded.history.iter().map(|row| &row["val_visualization_1"]).filter(|value| !value.is_null()).collect();
    assert_eq!(pictures.len(), 2);
    for picture in pictures {
        let name = picture["path"].as_str().unwrap();
        assert_eq!(service.file(&name.replace('/', "%2F")), fs::read(all[0].join("files").join(name)).unwrap());
    }

    // After both epochs the best so far and the last.
    let aliases = |artifact: &Value| -> Vec<String> {
        artifact["aliases"].as_array().unwrap().iter().map(|alias| alias["alias"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(uploaded.artifacts.len(), 4);
    for (number, artifact) in uploaded.artifacts.iter().enumerate() {
        assert_eq!((&artifact["artifactCollectionName"], &artifact["artifactTypeName"]), (&"model-road1234".into(), &"model".into()));
        let metadata: Value = serde_json::from_str(artifact["metadata"].as_str().unwrap()).unwrap();
        let name = metadata["original_filename"].as_str().unwrap();
        assert_eq!(metadata["ModelCheckpoint"]["monitor"], "loss/val_loss");
        let best = name.starts_with("epoch=");
        assert_eq!(aliases(artifact), if best { vec!["latest", "best"] } else { vec!["latest"] }, "{name}");
        assert_eq!(metadata["score"].is_number(), best);
        if number != 1 {
            // The first `last` was replaced.
            let file = fs::read(folder.path().join("checkpoints").join(name)).unwrap();
            assert_eq!(service.file(&format!("a{number}-model.ckpt")), file, "{name}");
        }
    }

    // Another machine goes on from the best model, in the same run.
    let elsewhere = tempfile::tempdir().unwrap();
    let (artifact, command) = ("wandb.artifact=team/plans/model-road1234:best", service.command());
    let overrides: Vec<&str> = ALL.iter().copied().chain(["epochs=3", artifact, &*command]).collect();
    let mut second = engine(config(elsewhere.path(), &overrides), Roads::new(30), Host::default());
    assert_eq!(second.config().logger.wandb.run_id.as_deref(), Some("road1234"));
    assert_eq!(second.trainer().state().step, 12);
    second.fit().unwrap();
    assert_eq!(second.trainer().state().step, 18);
    let before = service.requests().len();
    service.sync(&runs(elsewhere.path())[0]);
    let rows: Vec<Value> = service.uploaded().history.split_off(uploaded.history.len());
    assert!(service.requests().len() > before && rows.len() > 6);
    // The best model was written before the last row of its epoch's end was known to the run.
    let first = rows[0]["_step"].as_u64().unwrap();
    assert!(first <= uploaded.history.len() as u64 && first > uploaded.history.len() as u64 - 3, "{first}");
    assert!(rows.iter().zip(first..).all(|(row, number)| row["_step"] == number));
    let error =
        Engine::build(config(elsewhere.path(), &[ALL[4], "wandb.artifact=team/plans/nothing:v1", &*command]), None, Host::default());
    assert!(error.err().unwrap().to_string().contains("wandb.artifact"));
}

/// The part of the run that wrote the best model was killed before it could hand it on; the next part finds none that is better.
#[test]
fn a_run_that_goes_on_hands_its_best_model_on() {
    let folder = tempfile::tempdir().unwrap();
    let models = |log_model: &str, epochs: &str| -> Vec<Vec<u8>> {
        let worse = ["lightning.trainer.checkpoint.monitor=epoch", "lightning.trainer.checkpoint.save_top_k=1"];
        let wandb = ["wandb.mode=offline", "checkpoint=last", log_model, epochs];
        engine(config(folder.path(), &[&worse[..], &wandb].concat()), Roads::new(30), Host::default()).fit().unwrap();
        let [run] = &runs(folder.path())[..] else { panic!("one folder a part") };
        let models = fs::read_dir(run.join("artifacts")).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
        fs::remove_dir_all(folder.path().join("wandb")).unwrap();
        models
    };
    let first = models("wandb.log_model=best", "epochs=1");
    assert_eq!(models("wandb.log_model=best", "epochs=2"), first);
    assert!(!models("wandb.log_model=all", "epochs=3").contains(&first[0]), "of what is written now alone");
}

#[test]
fn what_a_log_holds_that_was_cut_anywhere_is_uploaded() {
    let Some(service) = Service::start("") else { return };
    let folder = tempfile::tempdir().unwrap();
    let overrides: Vec<&str> = ALL.iter().copied().chain(["wandb.log_model=none", "logger.images=0", "wandb.run_id=cut"]).collect();
    engine(config(folder.path(), &overrides), Roads::new(30), Host::default()).fit().unwrap();
    let run = runs(folder.path()).remove(0);
    let log = run.join("run-cut.wandb");
    let whole = fs::read(&log).unwrap();
    // In the middle of a record.
    fs::write(&log, &whole[..whole.len() * 2 / 3]).unwrap();
    service.sync(&run);
    let (uploaded, expected) = (service.uploaded(), table(folder.path()));
    let rows = uploaded.history.len();
    assert!(rows > 2 && rows < expected.len(), "{rows}");
    assert_rows(&uploaded.history, &expected[..rows]);
    assert_eq!(uploaded.exit, Some(1));
}

#[test]
fn an_online_run_is_uploaded_while_it_goes_on() {
    let Some(service) = Service::start("") else { return };
    let folder = tempfile::tempdir().unwrap();
    let command = service.command();
    let overrides: Vec<&str> = ALL.iter().copied().chain(["wandb.mode=online", "wandb.run_id=online", &*command]).collect();
    let (host, warnings) = warned();
    engine(config(folder.path(), &overrides), Roads::new(30), host).fit().unwrap();
    assert_eq!(*warnings.lock().unwrap(), [""; 0]);
    let uploaded = service.uploaded();
    assert_rows(&uploaded.history, &table(folder.path()));
    assert_eq!((uploaded.artifacts.len(), uploaded.exit), (4, Some(0)));
    let name = runs(folder.path())[0].file_name().unwrap().to_string_lossy().into_owned();
    eventually("a child has outlived its run", || processes(&name) == 0);
    let messages = fs::read_to_string(runs(folder.path())[0].join("logs/sync.log")).unwrap();
    assert!(!messages.contains(KEY));
}

#[test]
fn a_run_goes_on_offline_with_one_warning_without_client_or_service() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start("refuse");
    let refused = service.as_ref().map(Service::command);
    // No client; one that fails at once; one that never ends; a service that refuses.
    let script = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        format!("wandb.command={}", path.display())
    };
    let commands = ["wandb.command=no-such-client-here".to_owned(), script("fails", "exit 3"), script("hangs", "exec sleep 1000")];
    for (number, command) in commands.into_iter().chain(refused).enumerate() {
        let folder = folder.path().join(number.to_string());
        let overrides: Vec<&str> = ALL.iter().copied().chain(["wandb.mode=online", "wandb.finish_timeout=2", &*command]).collect();
        let (host, warnings) = warned();
        let start = Instant::now();
        engine(config(&folder, &overrides), Roads::new(30), host).fit().unwrap();
        let warnings = warnings.lock().unwrap();
        assert_eq!(warnings.len(), 1, "{command}: {warnings:?}");
        assert!(warnings[0].contains("offline") && warnings[0].contains("wandb sync") && !warnings[0].contains(KEY), "{}", warnings[0]);
        assert!(start.elapsed() < Duration::from_secs(20), "{command}");
        let run = runs(&folder).remove(0);
        eventually("a child has outlived its run", || processes(&run.display().to_string()) == 0);
        // The log is whole: the service gets everything later.
        if let (0, Some(service)) = (number, Service::start("")) {
            service.sync(&run);
            assert_rows(&service.uploaded().history, &table(&folder));
        }
    }
}

#[test]
fn a_model_that_does_not_come_is_waited_for_no_longer_than_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let client = folder.path().join("client");
    let get = |text: &str| {
        fs::write(&client, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
        download(client.to_str().unwrap(), "team/plans/model-road1234:best", folder.path(), Duration::from_secs(1)).unwrap_err()
    };
    let start = Instant::now();
    let error = get("echo asking\nsleep 1000 & wait");
    assert!(error.contains("within 1 s") && error.contains("asking"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(20));
    eventually("the client has outlived the call", || processes(client.to_str().unwrap()) == 0);
    let error = get("echo no such thing >&2\nexit 3");
    assert!(error.contains("status: 3") && error.contains("no such thing"), "{error}");
}

/// Folder and client of the run that this process is to do.
const FOLDER: &str = "TE_TEST_WANDB_FOLDER";
const COMMAND: &str = "TE_TEST_WANDB_COMMAND";

/// The run itself, in a process of its own, which the test below starts and kills.
fn run_online(folder: &Path) {
    let command = std::env::var(COMMAND).unwrap();
    let more = ["epochs=100000", "wandb.mode=online", "wandb.log_model=none", "logger.images=0", "wandb.run_id=killed", &*command];
    let overrides: Vec<&str> = ALL.iter().copied().chain(more).collect();
    engine(config(folder, &overrides), Roads::new(30), Host::default()).fit().unwrap();
}

#[test]
fn a_killed_run_leaves_whole_rows_everywhere_and_no_process() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return run_online(Path::new(&folder));
    }
    let Some(service) = Service::start("") else { return };
    let folder = tempfile::tempdir().unwrap();
    let working_directory = tempfile::tempdir().unwrap();
    let mut run = Command::new(std::env::current_exe().unwrap());
    run.args(["--exact", "wandb::a_killed_run_leaves_whole_rows_everywhere_and_no_process"])
        .current_dir(working_directory.path())
        .env(FOLDER, folder.path())
        .env(COMMAND, service.command());
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("nothing is uploaded", || service.uploaded().history.len() > 3);
    run.kill().unwrap();
    run.wait().unwrap();
    eventually("a child has outlived its run", || processes(&folder.path().display().to_string()) == 0);
    assert_eq!(fs::read_dir(working_directory.path()).unwrap().count(), 0, "the host's working directory is its own");
    let text = fs::read_to_string(folder.path().join("metrics.csv")).unwrap();
    assert!(text.ends_with('\n'));
    let expected = table(folder.path());
    let read = loggers::read(folder.path()).unwrap();
    let steps = read["tensorboard"]["scalars"]["loss/train_loss_step"].as_array().unwrap().len();
    let in_table = expected.iter().filter(|row| row.contains_key("loss/train_loss_step")).count();
    assert!((in_table..=in_table + 1).contains(&steps), "{steps} and {in_table}");
    assert_eq!(read["tensorboard"]["status"], Value::Null);
    let uploaded = service.uploaded();
    assert_rows(&uploaded.history, &expected[..uploaded.history.len()]);
    // The rest, later. The loggers get each row one after the other: the last may be in the table alone.
    let later = Service::start("").unwrap();
    later.sync(&runs(folder.path())[0]);
    let uploaded = later.uploaded();
    assert!((expected.len() - 1..=expected.len()).contains(&uploaded.history.len()));
    assert_rows(&uploaded.history, &expected[..uploaded.history.len()]);
    assert_eq!(uploaded.exit, Some(1));
}
