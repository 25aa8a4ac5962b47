//! Bad data, bad files, bad numbers: errors with names, or scenarios that are left out.

use super::*;
use training_engine::{
    config::CheckpointSource,
    engine::{LoadOptions, SaveOptions, StopHandle},
    error::Error,
    scenario::Split,
    trainer::Trainer,
};

/// Changes the tensors of a file: name, shape, bytes.
type Edit = Box<dyn Fn(&mut Vec<(String, Vec<usize>, Vec<u8>)>)>;

#[test]
fn a_first_validation_batch_without_scenarios_is_no_fault_of_the_split() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Roads::new(30);
    source.invalid.insert(17);
    let overrides = ["epochs=1", "batch_size=1", "lightning.trainer.params.num_sanity_val_steps=1"];
    let validation = {
        let events = Events::default();
        let mut whole = engine(config(folder.path(), &overrides), Roads::new(30), events.host(|_| false));
        whole.validate().unwrap().scenarios
    };
    let mut engine = engine(config(folder.path(), &overrides), source, Host::default());
    let report = engine.fit().unwrap();
    assert!(report.epochs == 1 && report.skipped_scenarios == 1);
    assert_eq!(engine.validate().unwrap().scenarios, validation - 1);
}

#[test]
fn scenarios_that_fail_are_left_out_counted_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::default();
    let mut source = Roads::new(30);
    source.failing.extend([0, 11]);
    source.invalid.insert(12);
    source.undescribed.insert(15);
    source.repeated.insert(20);
    source.split = Some(Split::Train);
    let overrides = ["epochs=2", "num_workers=2", "lightning.trainer.params.limit_val_batches=0", "drop_last=false"];
    let mut engine = engine(config(folder.path(), &overrides), source, events.host(|_| false));
    let report = engine.fit().unwrap();
    assert_eq!(report.skipped_scenarios, 5);
    assert_eq!(report.steps, 2 * 7, "28 described scenarios in batches of 4, none of which is lost");
    let mut named = Vec::new();
    for event in events.0.lock().unwrap().iter() {
        if let Event::ScenarioSkipped { token, reason } = event {
            named.push((token.clone(), reason.clone()));
        }
    }
    named.sort();
    assert_eq!(
        named.iter().map(|(token, _)| token.as_str()).collect::<Vec<_>>(),
        ["scenario 0", "scenario 11", "scenario 12", "scenario 15", "scenario 19"]
    );
    assert!(named[0].1.contains("left out by the host") && named[2].1.contains("route"), "{named:?}");

    let by_rule = [("bad_route", 1), ("left_out_by_host", 2), ("repeated", 1), ("unreadable", 1)];
    assert_eq!(report.skipped_by_rule, by_rule.into());
    let list = std::fs::read_to_string(folder.path().join("rejected_scenarios.csv")).unwrap();
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 6, "{list}");
    assert_eq!(lines[0], "token,log_name,scenario_type,split,rule,reason");
    for (line, start) in lines[1..].iter().zip([
        "scenario 0,log 0,following,training,left_out_by_host,",
        "scenario 11,log 1,following,training,left_out_by_host,",
        "scenario 12,log 2,following,training,bad_route,",
        "scenario 15,,,,unreadable,",
        "scenario 19,log 9,following,,repeated,\"it has the token, log and type of scenario 19 ",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn splits_without_a_scenario_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let fit =
        |source: Roads, overrides: &[&str]| super::engine(config(folder.path(), overrides), source, Host::default()).fit().unwrap_err();
    let mut source = Roads::new(8);
    source.split = Some(Split::Test);
    let error = fit(source, &[]).to_string();
    assert!(error.contains("training split is empty") && error.contains("8 scenarios"), "{error}");
    let mut source = Roads::new(8);
    source.split = Some(Split::Train);
    let error = fit(source, &[]).to_string();
    assert!(error.contains("validation split is empty") && error.contains("limit_val_batches=0"), "{error}");
    let mut source = Roads::new(8);
    source.split = Some(Split::Train);
    source.failing.extend(0..8);
    let error = fit(source, &["lightning.trainer.params.limit_val_batches=0"]);
    assert!(
        matches!(&error, Error::Data(text) if text.contains("no scenario of the training split") && text.contains("left out by the host")),
        "{error}"
    );
    let empty = Engine::build(config(folder.path(), &[]), Some(Arc::new(Roads::new(0))), Host::default());
    assert!(matches!(empty.err(), Some(Error::Data(_))));
    let mut alone = Engine::build(config(folder.path(), &[]), None, Host::default()).unwrap();
    assert!(matches!(alone.fit(), Err(Error::Argument(_))));
}

#[test]
fn a_panic_or_a_failure_of_the_source_is_an_error_and_nothing_hangs() {
    let folder = tempfile::tempdir().unwrap();
    for (workers, thread_safe) in [("num_workers=0", true), ("num_workers=3", true), ("num_workers=3", false)] {
        let mut source = Roads::new(30);
        source.thread_safe = thread_safe;
        source.panicking.insert(13);
        let error = super::engine(config(folder.path(), &[workers, "epochs=1"]), source, Host::default()).fit().unwrap_err();
        assert!(matches!(&error, Error::Panic(text) if text.contains("scenario 13 panics")), "{workers}: {error}");
        let mut source = Roads::new(30);
        source.thread_safe = thread_safe;
        source.broken.insert(13);
        let error = super::engine(config(folder.path(), &[workers, "epochs=1"]), source, Host::default()).fit().unwrap_err();
        assert!(matches!(&error, Error::Host { reason, .. } if reason == "disk on fire"), "{workers}: {error}");
    }
}

#[test]
fn steps_that_are_not_finite_are_not_applied_and_end_the_run_if_they_do_not_cease() {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::default();
    // The first update throws the parameters so far that every later loss overflows.
    let overrides = ["lr=1e30", "warmup_epochs=0", "max_nonfinite_steps=3", "gradient_clip_val=null"];
    let mut engine = engine(config(folder.path(), &overrides), Roads::new(30), events.host(|_| false));
    let error = engine.fit().unwrap_err();
    let Error::NotFinite(text) = &error else { panic!("{error}") };
    assert!(text.contains("3 training steps") && text.contains("scenario "), "{text}");
    assert_eq!(events.count(|e| matches!(e, Event::StepSkipped { tokens, .. } if tokens.len() == 4)), 3);
    let applied = events.losses().len();
    assert!(applied >= 1 && engine.trainer().state().step == applied as u64);
    assert!(buffers(&engine).iter().flatten().all(|x| x.is_finite()));
}

#[test]
fn files_that_are_broken_foreign_or_of_another_model_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut trained = engine(config(folder.path(), &["epochs=1"]), Roads::new(30), Host::default());
    let report = trained.fit().unwrap();
    let last = std::path::PathBuf::from(&report.last_checkpoint);
    let weights = folder.path().join("weights.safetensors");
    trained.save_weights(&weights, &SaveOptions::default()).unwrap();

    let mut other = engine(config(folder.path(), &["seed=9"]), Roads::new(30), Host::default());
    let before = buffers(&other);
    let content = std::fs::read(&last).unwrap();
    let broken = folder.path().join("broken.safetensors");
    for (name, bytes) in [
        ("cut", content[..content.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("no header", b"hello, this is no checkpoint".to_vec()),
        ("huge header", [u64::MAX.to_le_bytes().to_vec(), vec![0; 64]].concat()),
    ] {
        std::fs::write(&broken, bytes).unwrap();
        let error = other.load_weights(&broken, &LoadOptions::default()).unwrap_err();
        assert!(matches!(&error, Error::File { path, .. } if path.ends_with("broken.safetensors")), "{name}: {error}");
        let path = format!("checkpoint={}", broken.display());
        let error = Engine::build(config(folder.path(), &[&path]), None, Host::default()).err().unwrap();
        assert!(matches!(error, Error::File { .. }), "{name}: {error}");
    }
    assert!(matches!(other.load_weights(&folder.path().join("absent"), &LoadOptions::default()), Err(Error::File { .. })));

    // A tensor too few, too many, of another shape, not finite.
    let tensors = safetensors::SafeTensors::deserialize(&content).unwrap();
    const NAME: &str = "planning_decoder.m_emb";
    let edits: [(&str, Edit); 4] = [
        ("is missing", Box::new(|t| t.retain(|(n, ..)| n != NAME))),
        ("is none of this model", Box::new(|t| t.push(("zebra".into(), vec![1], vec![0; 4])))),
        ("has shape", Box::new(|t| t.iter_mut().filter(|(n, ..)| n == NAME).for_each(|(_, s, _)| s.push(1)))),
        (
            "not finite",
            Box::new(|t| t.iter_mut().filter(|(n, ..)| n == NAME).for_each(|(_, _, b)| b[..4].copy_from_slice(&f32::NAN.to_le_bytes()))),
        ),
    ];
    for (reason, edit) in edits {
        let mut list: Vec<_> = tensors.tensors().into_iter().map(|(n, v)| (n, v.shape().to_vec(), v.data().to_vec())).collect();
        edit(&mut list);
        let views = list.iter().map(|(n, s, b)| (n, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, s.clone(), b).unwrap()));
        std::fs::write(&broken, safetensors::serialize(views, None).unwrap()).unwrap();
        let error = other.load_weights(&broken, &LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains(reason) && (error.contains(NAME) || error.contains("zebra")), "{reason}: {error}");
    }
    assert!(buffers(&other) == before, "nothing has changed");

    let refused = |overrides: &[&str]| {
        let mut all = vec!["checkpoint=last"];
        all.extend(overrides);
        Engine::build(config(folder.path(), &all), None, Host::default()).err().unwrap().to_string()
    };
    assert!(refused(&["model.dim=32"]).contains("model.dim was 16 and is 32"));
    assert!(refused(&["model.num_heads=2"]).contains("model.num_heads was 4 and is 2"));
    assert!(refused(&["precision=64"]).contains("precision"));
    let path = format!("checkpoint={}", weights.display());
    assert!(Engine::build(config(folder.path(), &[&path]), None, Host::default()).err().unwrap().to_string().contains("weights alone"));

    // Whole files do load: weights from both kinds, in both precisions.
    for file in [&weights, &last] {
        other.load_weights(file, &LoadOptions::default()).unwrap();
        assert!(buffers(&other)[0] == buffers(&trained)[0] && buffers(&other)[3] == buffers(&trained)[3]);
    }
    let mut double = Engine::build(config(folder.path(), &["precision=64"]), None, Host::default()).unwrap();
    double.load_weights(&weights, &LoadOptions::default()).unwrap();
    assert!(buffers(&double)[0] == buffers(&trained)[0]);
    let fresh = folder.path().join("elsewhere");
    let started = Engine::build(config(&fresh, &["checkpoint=last"]), None, Host::default()).unwrap();
    assert_eq!(started.trainer().state().epoch, 0, "nothing to go on from: the run starts anew");
    assert!(Engine::build(config(&fresh, &["checkpoint=best"]), None, Host::default()).is_err());
}

#[test]
fn a_checkpoint_that_names_files_elsewhere_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let report = engine(config(folder.path(), &["epochs=1"]), Roads::new(30), Host::default()).fit().unwrap();
    let (name, elsewhere) = (b"last.safetensors", b"../t.safetensors");
    let mut content = std::fs::read(&report.last_checkpoint).unwrap();
    let at = content.windows(name.len()).position(|part| part == name).unwrap();
    content[at..at + name.len()].copy_from_slice(elsewhere);
    std::fs::write(&report.last_checkpoint, content).unwrap();

    let config = config(folder.path(), &["checkpoint=last", "seed=9"]);
    let session = Session::on_device(&config.model, &config.objectives, &config.run).unwrap();
    let mut module = TrainingModule::new(session, &config);
    let before = module.session().read(Buffer::Parameters).unwrap();
    let mut trainer = Trainer::new(&config, Host::default(), StopHandle::default()).unwrap();
    let error = trainer.resume(&mut module).unwrap_err();
    assert!(matches!(&error, Error::File { reason, .. } if reason.contains("'../t.safetensors'")), "{error}");
    assert!(module.session().read(Buffer::Parameters).unwrap() == before);
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_old_one_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(config(folder.path(), &["epochs=1"]), Roads::new(30), Host::default());
    let report = engine.fit().unwrap();
    let before = std::fs::read(&report.last_checkpoint).unwrap();
    assert!(checkpoints(folder.path()).iter().all(|name| !name.starts_with('.')), "no temporary file is left");
    // A folder stands where the file should go.
    let blocked = folder.path().join("blocked");
    std::fs::create_dir_all(blocked.join("inside")).unwrap();
    assert!(matches!(engine.save_weights(&blocked, &SaveOptions::default()), Err(Error::File { .. })));
    assert!(matches!(engine.save_weights(Path::new("/proc/no/where"), &SaveOptions::default()), Err(Error::File { .. })));
    assert_eq!(std::fs::read(&report.last_checkpoint).unwrap(), before);
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().starts_with('.')).count(),
        0
    );
}

#[test]
fn a_checkpoint_that_could_not_be_written_is_written_by_the_next_call() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [whole, parts] = folders.each_ref().map(|folder| folder.path());
    let overrides = ["epochs=2", "lightning.trainer.checkpoint.save_top_k=1", "lightning.trainer.checkpoint.filename='{epoch}'"];
    let expected = engine(config(whole, &overrides), Roads::new(30), Host::default()).fit().unwrap();
    assert!(expected.best_checkpoint.ends_with("epoch=1.safetensors"));

    // A file stands where the folder should be, at the end of the last epoch.
    let (checkpoints_of_parts, aside) = (parts.join("checkpoints"), parts.join("aside"));
    let (folder, moved, events) = (checkpoints_of_parts.clone(), aside.clone(), Events::default());
    let host = events.host(move |event| {
        if matches!(event, Event::Epoch { epoch: 1, .. }) {
            std::fs::rename(&folder, &moved).unwrap();
            std::fs::write(&folder, "no folder").unwrap();
        }
        false
    });
    let mut engine = engine(config(parts, &overrides), Roads::new(30), host);
    assert!(matches!(engine.fit(), Err(Error::File { .. })));
    std::fs::remove_file(&checkpoints_of_parts).unwrap();
    std::fs::rename(&aside, &checkpoints_of_parts).unwrap();
    assert_eq!(checkpoints(parts), ["epoch=0.safetensors", "last.safetensors"]);
    assert!(engine.evaluate(Split::Test, &CheckpointSource::Best).is_ok(), "the best is one that is there");
    let report = engine.fit().unwrap();
    assert_eq!((report.steps, report.stopped, report.best_score), (expected.steps, false, expected.best_score));
    assert_eq!(events.count(|event| matches!(event, Event::Epoch { .. })), 2, "no epoch ends twice");
    assert_eq!(checkpoints(parts), checkpoints(whole));
    for name in checkpoints(parts) {
        let tensors = |folder: &Path| {
            let bytes = std::fs::read(folder.join("checkpoints").join(&name)).unwrap();
            bytes[u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8..].to_vec()
        };
        assert!(tensors(parts) == tensors(whole), "{name}");
    }
}

/// The values of training come with the end of an epoch.
#[test]
fn a_value_of_training_may_be_watched_at_validations_before_the_first_epoch_has_ended() {
    let fit = |name: &str| {
        let folder = tempfile::tempdir().unwrap();
        let monitors = ["callbacks.early_stopping.monitor", "lightning.trainer.checkpoint.monitor"].map(|key| format!("{key}={name}"));
        let overrides = ["epochs=2", "lightning.trainer.params.val_check_interval=0.5", &monitors[0], &monitors[1]];
        super::engine(config(folder.path(), &overrides), Roads::new(30), Host::default()).fit()
    };
    let report = fit("loss/train_loss").unwrap();
    assert!(report.epochs == 2 && report.best_score.is_some());
    let error = fit("loss/train_lost").unwrap_err().to_string();
    assert!(error.contains("'loss/train_lost' is not logged") && error.contains("loss/train_loss"), "{error}");
}

#[test]
fn updates_that_fall_on_batches_without_scenarios_are_told_of_as_others() {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::default();
    let mut source = Roads::new(30);
    source.failing.extend((0..30).step_by(3));
    let overrides = [
        "epochs=2",
        "data_loader.params.batch_size=1",
        "lightning.trainer.params.accumulate_grad_batches=2",
        "lightning.trainer.params.log_every_n_steps=1",
        "callbacks.learning_rate_monitor.logging_interval=step",
        "lightning.trainer.checkpoint.every_n_train_steps=1",
        "lightning.trainer.checkpoint.every_n_epochs=0",
        "lightning.trainer.checkpoint.monitor=null",
        "lightning.trainer.checkpoint.save_top_k=-1",
        "lightning.trainer.checkpoint.filename='{step}'",
        "logger.csv=true",
    ];
    let report = engine(config(folder.path(), &overrides), source, events.host(|_| false)).fit().unwrap();
    assert!(report.steps > 12, "{}", report.steps);
    assert_eq!(events.losses().len(), report.steps);
    assert!(events.losses().iter().all(|loss| loss.is_finite()));
    assert_eq!(checkpoints(folder.path()).len(), report.steps + 1, "one for each step and the last");
    let table = std::fs::read_to_string(folder.path().join("metrics.csv")).unwrap();
    let mut table = csv::Reader::from_reader(table.as_bytes());
    let columns = table.headers().unwrap().clone();
    let rows: Vec<_> = table.records().map(Result::unwrap).collect();
    for name in ["loss/train_loss_step", "lr-AdamW/pg1"] {
        let column = columns.iter().position(|column| column == name).unwrap();
        assert_eq!(rows.iter().filter(|row| !row[column].is_empty()).count(), report.steps, "{name}");
    }
}

#[test]
fn a_monitor_that_is_not_logged_is_named_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let overrides = ["epochs=1", "lightning.trainer.checkpoint.monitor=val/minDFE"];
    let error = super::engine(config(folder.path(), &overrides), Roads::new(30), Host::default()).fit().unwrap_err().to_string();
    assert!(error.contains("'val/minDFE' is not logged") && error.contains("val/minFDE"), "{error}");
    let wrong = config(folder.path(), &["lightning.trainer.checkpoint.filename='{epoch'"]);
    assert!(matches!(Engine::build(wrong, None, Host::default()).err(), Some(Error::Config { .. })));
}
